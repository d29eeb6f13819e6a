"""A checkpoint saves time or is not used; it is never wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from govbus_processors import checkpoint
from govbus_processors.checkpoint import Checkpoints
from govbus_processors.keyset import KeySet

PLACE = ("govbus.delivered.tax.firms", 3)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "keys")


def saved(checkpoints: Checkpoints, count: int = 100) -> KeySet:
    keys = KeySet()
    for number in range(count):
        keys.enter(b"%d" % number)
    keys.commit()
    checkpoints.save(PLACE, "id-1", keys, position=4_711)
    checkpoints.wait()
    return keys


def test_a_key_set_comes_back_with_its_position(checkpoints: Checkpoints) -> None:
    saved(checkpoints)

    keys = checkpoints.load(PLACE, "id-1")

    assert keys is not None
    assert (len(keys), keys.position) == (100, 4_711)
    assert keys.leave(b"99")
    assert not keys.leave(b"100")


def test_an_empty_key_set_is_a_key_set(checkpoints: Checkpoints) -> None:
    saved(checkpoints, count=0)

    keys = checkpoints.load(PLACE, "id-1")

    assert keys is not None
    assert keys.position == 4_711


def test_there_is_none_before_one_was_saved(checkpoints: Checkpoints) -> None:
    assert checkpoints.load(PLACE, "id-1") is None


@pytest.mark.parametrize(("place", "topic_id"), [(PLACE, "id-2")])
def test_a_topic_that_was_made_again_under_the_same_name_has_none(
    checkpoints: Checkpoints, place: tuple[str, int], topic_id: str
) -> None:
    saved(checkpoints)

    assert checkpoints.load(place, topic_id) is None


def test_one_made_by_another_algorithm_is_not_used(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(checkpoints)

    monkeypatch.setattr(checkpoint, "ALGORITHM", "another")

    assert checkpoints.load(PLACE, "id-1") is None


def test_wherever_a_file_is_damaged_it_is_not_used(checkpoints: Checkpoints, tmp_path: Path) -> None:
    saved(checkpoints, count=3)
    (file,) = (tmp_path / "keys").iterdir()
    good = file.read_bytes()

    for at in range(len(good)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x20]) + good[at + 1 :])
        assert checkpoints.load(PLACE, "id-1") is None, f"byte {at}"
        file.write_bytes(good[:at])
        assert checkpoints.load(PLACE, "id-1") is None, f"cut at {at}"


def test_a_disk_that_takes_nothing_is_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file where the folder should be")
    checkpoints = Checkpoints(tmp_path / "keys")

    saved(checkpoints)

    assert (tmp_path / "keys").read_text() == "a file where the folder should be"
