"""The window between a peer's first and last committed record."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from bench.window import Look, PeerFailedError, Process, measured, watch


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def looking(clock: Clock, growth: Sequence[tuple[float, int]]) -> Callable[[], Look]:
    """Show ``visible`` records from each moment of ``growth`` on."""

    def look() -> Look:
        visible = max((count for moment, count in growth if moment <= clock.now), default=0)
        return Look(at=clock.now, visible=visible, cpu=clock.now / 2, broker_cpu=clock.now / 4)

    return look


def observe(growth: Sequence[tuple[float, int]], *, expected: int, alive: bool = True) -> list[Look]:
    clock = Clock()
    return watch(
        looking(clock, growth), expected=expected, alive=lambda: alive, clock=clock, sleep=clock.sleep
    )


def test_starting_up_and_settling_are_not_in_the_window() -> None:
    looks = observe([(10.0, 100), (12.0, 600), (14.0, 1_000)], expected=1_000)

    assert [look.visible for look in looks] == [100, 600, 1_000]
    assert looks[0].at == pytest.approx(10.0, abs=0.1)
    assert looks[-1].at == pytest.approx(14.0, abs=0.1)


def test_what_was_visible_when_the_window_opened_is_not_in_the_rate() -> None:
    looks = observe([(10.0, 500), (12.0, 1_000)], expected=1_000)

    window = measured(looks, records=800, peak_mb=1.0)

    assert window.records_per_s == pytest.approx(800 * 0.5 / 2.0, rel=0.1)
    assert window.cpu_s == pytest.approx(1.0, rel=0.1)
    assert window.start_cpu_s == pytest.approx(5.0, rel=0.1)
    assert window.broker_cpu_s == pytest.approx(0.5, rel=0.1)


def test_the_steady_rate_is_that_of_the_second_half() -> None:
    looks = observe([(1.0, 1), (10.0, 500), (11.0, 1_000)], expected=1_000)

    window = measured(looks, records=1_000, peak_mb=1.0)

    assert window.steady_records_per_s == pytest.approx(500, rel=0.1)
    assert window.records_per_s == pytest.approx(100, rel=0.1)


def test_more_than_expected_stays_in_the_window() -> None:
    """Whoever delivers twice is found out when the outputs are read, not cut off here."""
    looks = observe([(1.0, 10), (2.0, 100), (3.0, 110)], expected=100)

    assert looks[-1].visible == 110


def test_a_peer_that_ends_early_has_no_figure() -> None:
    with pytest.raises(PeerFailedError, match="ended with 10 of 100"):
        observe([(0.0, 10)], expected=100, alive=False)


def test_a_peer_that_stops_moving_has_no_figure() -> None:
    with pytest.raises(PeerFailedError, match="stopped moving with 10 of 100"):
        observe([(1.0, 10)], expected=100)


def test_a_run_that_is_over_at_once_has_no_figure() -> None:
    with pytest.raises(PeerFailedError, match="too fast"):
        measured(observe([(1.0, 100)], expected=100), records=100, peak_mb=1.0)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")
def test_cpu_and_memory_of_a_process_are_read_from_proc() -> None:
    process = Process(os.getpid())
    before = process.cpu_seconds()

    while process.cpu_seconds() < before + 0.05:
        sum(range(100_000))

    assert process.peak_mb() > 10
