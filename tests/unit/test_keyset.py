"""Key sets, compiled and interpreted: the same answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govbus_processors import keyset
from support.kernels import interpreted

SEED = bytes(range(16))


INTERPRETED = interpreted(Path(keyset.__file__).with_name("keyset.py"))
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


@pytest.mark.skipif(not keyset.COMPILED, reason="only the compiled set keeps digests in a table")
def test_24_million_keys_fit_in_4_gib_also_while_the_set_grows_is_saved_and_is_loaded() -> None:
    """Measured by the kernel's own count at every growth step up to 3.2 million keys.

    The table doubles when it is three quarters full, so a set of 24 million has had its last resize at
    12.6 million (2^24 slots), and its next one comes at 25.2 million; old and new table are there at once.
    """
    script = Path(__file__).parents[1] / "support" / "keyset_memory.py"
    told = subprocess.run(
        [sys.executable, str(script), "3200000"], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(told.stdout)

    megabyte = 1 << 20
    for step in found["grown"]:
        # Old and new table; what else there is does not grow with the keys.
        assert step["peak"] <= 1.5 * step["table"] + 16 * megabyte
        assert step["table"] / step["keys"] <= 43
    last = found["grown"][-1]
    assert last["table"] == 128 * megabyte, "the table did not double at 3.1 million keys"
    assert found["full"]["rss"] <= found["full"]["table"] + 16 * megabyte

    worst = {
        "grown": max(step["peak"] / step["keys"] for step in found["grown"] if step["keys"] > 1_000_000),
        "saving": found["saving"] / found["full"]["keys"],
        "loading": found["loading"] / found["full"]["keys"],
    }
    assert max(worst.values()) * 24_000_000 < 4 << 30, worst
    assert worst["grown"] < 65
    assert worst["loading"] < 100
