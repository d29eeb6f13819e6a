"""Key sets, compiled and interpreted: the same answers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govbus_processors import keyset

SEED = bytes(range(16))


def _interpreted() -> ModuleType:
    path = Path(keyset.__file__).parent / "keyset.py"
    spec = importlib.util.spec_from_file_location("interpreted_keyset", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["interpreted_keyset"] = module
    spec.loader.exec_module(module)
    return module


INTERPRETED = _interpreted()
assert INTERPRETED.COMPILED is False


@pytest.fixture(params=["as installed", "interpreted"])
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    return keyset if request.param == "as installed" else INTERPRETED


@pytest.mark.skipif(not keyset.COMPILED, reason="SipHash is in the compiled kernel only")
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", "a3817f04ba25a8e66df67214c7550293"),
        (b"\x00", "da87c1d86b99af44347659119b22fc45"),
    ],
)
def test_digests_are_siphash_as_its_authors_published_it(message: bytes, expected: str) -> None:
    """The first two vectors of the 128-bit variant's reference code."""
    assert keyset.KeySet(SEED).digest(message).hex() == expected


changes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["enter", "leave"]), st.binary(max_size=3)),
        st.tuples(st.sampled_from(["commit", "rollback"]), st.just(b"")),
    ),
    max_size=200,
)


@pytest.mark.parametrize("module", [keyset, INTERPRETED], ids=["as installed", "interpreted"])
@given(steps=changes)
def test_a_key_set_answers_as_a_plain_set_does(module: ModuleType, steps: list[tuple[str, bytes]]) -> None:
    keys, model, committed = module.KeySet(SEED), set[bytes](), set[bytes]()

    for step, key in steps:
        if step == "enter":
            keys.enter(key)
            model.add(key)
        elif step == "leave":
            assert keys.leave(key) == (key in model)
            model.discard(key)
        elif step == "commit":
            keys.commit()
            committed = set(model)
        else:
            keys.rollback()
            model = set(committed)
        assert len(keys) == len(model)


def test_what_was_dumped_can_be_restored(module: ModuleType) -> None:
    keys = module.KeySet(SEED)
    for number in range(5_000):
        keys.enter(b"%d" % number)
    for number in range(0, 5_000, 3):
        keys.leave(b"%d" % number)
    keys.commit()

    other = module.KeySet(keys.seed)
    other.restore(keys.dump())

    assert len(other) == len(keys)
    assert [other.leave(b"%d" % n) for n in range(5_000)] == [n % 3 != 0 for n in range(5_000)]


def test_what_is_not_a_dump_is_not_restored(module: ModuleType) -> None:
    with pytest.raises(ValueError, match="digests"):
        module.KeySet(SEED).restore(b"x" * 17)


@pytest.mark.skipif(not keyset.COMPILED, reason="the interpreted set does not know its size")
def test_a_key_takes_at_most_43_bytes() -> None:
    keys = keyset.KeySet()
    for number in range(200_000):
        keys.enter(b"%d" % number)
    keys.commit()

    assert keys.bytes_used / len(keys) < 43
