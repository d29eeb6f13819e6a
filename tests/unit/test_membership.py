"""Key sets: staged with a batch, real with its commit, gone with its abort."""

from __future__ import annotations

from typing import Any

import pytest

from govbus_processors.keyset import KeySet
from govbus_processors.membership import Membership


def test_a_row_that_was_never_held_cannot_leave() -> None:
    keys = KeySet()

    assert keys.leave(b"k") is False


def test_a_row_that_entered_in_the_same_batch_can_leave_once() -> None:
    keys = KeySet()

    keys.enter(b"k")

    assert keys.leave(b"k") is True
    assert keys.leave(b"k") is False


def test_what_an_aborted_batch_staged_did_not_happen() -> None:
    keys = KeySet()
    keys.enter(b"before")
    keys.commit()

    keys.enter(b"new")
    keys.leave(b"before")
    keys.rollback()

    assert keys.leave(b"new") is False
    assert keys.leave(b"before") is True


def test_what_a_committed_batch_staged_lasts() -> None:
    keys = KeySet()

    keys.enter(b"a")
    keys.enter(b"b")
    keys.commit()
    keys.leave(b"a")
    keys.commit()

    assert len(keys) == 1
    assert keys.leave(b"a") is False
    assert keys.leave(b"b") is True


def test_a_key_set_is_what_its_delivery_topic_says_last() -> None:
    keys = KeySet()

    for key, present in ((b"a", True), (b"b", True), (b"a", False), (b"a", True), (b"b", False)):
        keys.load(key, present=present)

    assert keys.leave(b"a") is True
    assert keys.leave(b"b") is False


def test_a_suspended_key_set_is_not_relied_on_until_its_tail_was_read() -> None:
    membership = Membership()
    keys = KeySet()
    keys.position = 40
    membership.install(("t", 0), keys)

    membership.suspend()

    assert not membership.loaded(("t", 0))
    assert membership.suspended(("t", 0)).position == 40
    membership.install(("t", 0), membership.suspended(("t", 0)))
    assert membership.loaded(("t", 0))


def test_suspending_drops_what_was_staged() -> None:
    membership = Membership()
    membership.install(("t", 0), KeySet())
    membership.of("t", 0).enter(b"k")

    membership.suspend()

    assert membership.suspended(("t", 0)).leave(b"k") is False


def test_key_sets_of_partitions_that_others_serve_are_freed() -> None:
    membership = Membership()
    for partition in (0, 1):
        keys = KeySet()
        keys.position = 9
        membership.install(("t", partition), keys)
    membership.suspend()

    membership.retain({("t", 1)})

    assert membership.suspended(("t", 0)).position == 0
    assert membership.suspended(("t", 1)).position == 9


def test_a_key_set_that_was_set_aside_is_not_relied_on_until_its_tail_was_read() -> None:
    """Its view had no filter for a while, and what was delivered meanwhile did not pass the set."""
    membership = Membership()
    for partition in (0, 1):
        keys = KeySet()
        keys.position = 40
        membership.install(("t", partition), keys)

    membership.set_aside(("t", 0))
    membership.set_aside(("never", 0))

    assert not membership.loaded(("t", 0))
    assert membership.suspended(("t", 0)).position == 40
    assert membership.loaded(("t", 1))


class _CountedKeys(KeySet):
    """Notes how often a batch was ended in it."""

    asked = 0

    def seal(self) -> list[tuple[Any, ...]]:
        self.asked += 1
        return super().seal()


def test_a_batch_ends_for_the_key_sets_that_it_was_given_and_no_other() -> None:
    """A worker may hold ten thousand sets."""
    membership = Membership()
    given, other = _CountedKeys(), _CountedKeys()
    membership.install(("t", 0), given)
    membership.install(("t", 1), other)

    membership.of("t", 0)
    membership.seal()
    membership.commit()
    membership.seal()
    membership.commit()
    membership.of("t", 0)
    membership.seal()
    membership.retract()

    assert (given.asked, other.asked) == (2, 0)


def two_batches() -> tuple[Membership, KeySet]:
    """One batch is being committed, the next one is on top of it, in one key set that held ``gone``."""
    membership, keys = Membership(), KeySet()
    keys.load(b"gone", present=True)
    membership.install(("t", 0), keys)
    first = membership.of("t", 0)
    first.enter(b"a")
    first.leave(b"gone")
    membership.seal()
    second = membership.of("t", 0)
    second.enter(b"b")
    second.leave(b"a")
    return membership, keys


def held(keys: KeySet, *asked: bytes) -> list[bytes]:
    """Which of these rows a subscriber holds."""
    found = [key for key in asked if keys.leave(key)]
    keys.rollback()
    return found


def test_what_a_batch_changed_stands_while_the_next_one_is_taken_back() -> None:
    membership, keys = two_batches()

    membership.commit()
    membership.rollback()

    assert held(keys, b"gone", b"a", b"b") == [b"a"]


def test_a_batch_that_fails_takes_the_next_one_with_it() -> None:
    membership, keys = two_batches()

    membership.retract()

    assert held(keys, b"gone", b"a", b"b") == [b"gone"]


def test_the_next_batch_can_be_worked_out_again_before_the_one_before_it_stands() -> None:
    """A schema was fetched, say; the sealed changes must be under it both times."""
    membership, keys = two_batches()

    membership.rollback()
    again = membership.of("t", 0)
    a_is_held = again.leave(b"a")
    membership.commit()
    membership.seal()
    membership.commit()

    assert a_is_held
    assert held(keys, b"gone", b"a", b"b") == []


def test_two_batches_are_never_committed_at_the_same_time() -> None:
    membership, _ = two_batches()

    with pytest.raises(RuntimeError, match="same time"):
        membership.seal()
