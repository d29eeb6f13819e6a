"""Up to when a partition was read: never later than what is certain, and never forgotten."""

from __future__ import annotations

from datetime import timedelta

import pytest

from govbus_processors.recency import Recency, moment_in
from support.policies import NOON

PLACE = ("govbus.captured.registrar.firms", 0)
WEEK = timedelta(days=7)


def a_recency(note: str | None = None) -> Recency:
    recency = Recency(forgets_after=WEEK)
    recency.assign(PLACE, note)
    return recency


def test_a_partition_is_current_as_of_the_moment_before_its_end_was_asked_for() -> None:
    """Not as of the moment when the stream got there: what was written in between is not read."""
    recency = a_recency()

    recency.look(PLACE, 10, NOON)
    recency.reach(PLACE, 9)
    nothing_yet = recency.note(PLACE)
    recency.reach(PLACE, 12)

    assert nothing_yet == ""
    assert moment_in(recency.note(PLACE)) == NOON
    assert recency.news == {PLACE}


def test_an_end_that_is_not_reached_is_not_replaced_by_a_later_one() -> None:
    """Else a stream that is always a little behind would never be found to have got anywhere."""
    recency = a_recency()
    recency.look(PLACE, 10, NOON)

    assert recency.due(NOON + 10 * WEEK) == []


def test_the_end_is_asked_for_again_long_before_deletions_are_forgotten() -> None:
    recency = a_recency()
    recency.look(PLACE, 10, NOON)
    recency.reach(PLACE, 10)

    assert recency.due(NOON + WEEK / 25) == []
    assert recency.due(NOON + WEEK / 23) == [PLACE]


def test_what_was_noted_says_since_when_deletions_may_be_gone() -> None:
    before = a_recency()
    before.look(PLACE, 10, NOON)
    before.reach(PLACE, 10)
    note = before.note(PLACE)

    assert before.forgotten_since(note, NOON + WEEK) is None
    assert before.forgotten_since(note, NOON + WEEK + timedelta(seconds=1)) == NOON


@pytest.mark.parametrize("note", [None, "", "made by hand", "2026-03-01", "2026-03-01T12:00:00"])
def test_nothing_is_concluded_from_an_offset_that_came_without_a_moment(note: str | None) -> None:
    recency = a_recency(note)

    assert recency.forgotten_since(note, NOON + 10 * WEEK) is None
    assert recency.note(PLACE) == ""
    assert recency.due(NOON) == [PLACE]
