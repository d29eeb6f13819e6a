"""How long a worker may say that it knows the latest grants."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TopicPartition

from govbus import topics
from govbus.settings import BrokerSettings
from govbus_processors import directory as module
from govbus_processors.directory import Directory

PLACE = TopicPartition(topics.GRANTS, 0)


class Ends:
    """Answers where the topic ends, and lets time pass while it is asked."""

    def __init__(self, clock: list[float], high: int, takes: float = 0.0) -> None:
        self.clock, self.high, self.takes = clock, high, takes

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        self.clock[0] += self.takes
        return 0, self.high


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the directory, set by hand."""
    now = [1_000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def a_directory(read_to: int) -> Any:
    known: Any = Directory(
        BrokerSettings(bootstrap="127.0.0.1:1"),
        registry=None,  # type: ignore[arg-type]
        lease_seconds=5.0,
        pseudonyms=True,
    )
    known._next = read_to
    return known


def test_a_worker_that_has_confirmed_nothing_knows_nothing(clock: list[float]) -> None:
    assert not a_directory(7).fresh()


def test_what_was_confirmed_counts_for_the_lease_and_not_a_moment_longer(clock: list[float]) -> None:
    known = a_directory(7)
    known._confirm(Ends(clock, high=7), PLACE)

    clock[0] += 4.999
    before = known.fresh()
    clock[0] += 0.001

    assert (before, known.fresh()) == (True, False)


def test_only_who_has_read_to_the_end_has_confirmed(clock: list[float]) -> None:
    known = a_directory(6)

    known._confirm(Ends(clock, high=7), PLACE)

    assert not known.fresh()


def test_the_lease_counts_from_before_the_broker_was_asked(clock: list[float]) -> None:
    """What was written while the question was on its way is not in the answer."""
    known = a_directory(7)

    known._confirm(Ends(clock, high=7, takes=5.0), PLACE)

    assert not known.fresh()


def test_what_was_confirmed_before_a_moment_is_no_word_about_it(clock: list[float]) -> None:
    """A worker delivers only on what it confirmed after its first report."""
    known = a_directory(7)
    known._confirm(Ends(clock, high=7), PLACE)

    assert known.fresh(since=1_000.0)
    assert not known.fresh(since=1_000.1)
