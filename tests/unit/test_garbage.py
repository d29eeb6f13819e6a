"""The cycle collector works between batches, and only then."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from govbus_processors import garbage
from govbus_processors.garbage import Collector


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(garbage.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The oldest generation of each collection."""
    found: list[int] = []
    monkeypatch.setattr(garbage.gc, "collect", lambda generation=2: found.append(generation))
    return found


def test_a_worker_s_interpreter_does_not_collect_by_itself(clock: list[float]) -> None:
    Collector().take_over()

    assert not gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_what_is_young_is_collected_every_second_and_everything_every_five_minutes(
    clock: list[float], collected: list[int]
) -> None:
    collector = Collector()

    for _ in range(3_020):  # a batch every tenth of a second
        clock[0] += 0.1
        collector.between_batches()

    assert collected.count(2) == 1
    assert 250 <= collected.count(1) <= 302


def test_nothing_is_collected_between_two_batches_of_the_same_second(
    clock: list[float], collected: list[int]
) -> None:
    collector = Collector()

    for _ in range(9):
        clock[0] += 0.1
        collector.between_batches()

    assert collected == []


def test_a_cycle_that_a_batch_left_is_freed() -> None:
    class Node:
        mine: object = None

    collector = Collector()
    collector.take_over()
    node = Node()
    node.mine = node
    before = sum(isinstance(one, Node) for one in gc.get_objects())
    del node

    collector._young_at -= garbage.YOUNG_SECONDS
    collector.between_batches()

    assert before == 1
    assert not [one for one in gc.get_objects() if isinstance(one, Node)]
