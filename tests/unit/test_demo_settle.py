"""The demo's waiting: it may end only when everything has arrived."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from govbus.errors import FatalError
from govbus_console.demo import settle
from govbus_console.demo.divisions import Detail
from govbus_console.demo.measure import Samples, parse
from govbus_console.demo.settle import Settling
from govbus_console.demo.watch import Tally

TOPIC = "govbus.captured.civil.marriages"


def then(*values: Any) -> Iterator[Any]:
    """Give one value after another, and the last for ever."""
    return chain(values, repeat(values[-1]))


@dataclass
class EventualStage:
    """A stage where things come to pass one look after another; by default everything is there at once."""

    behind: Iterator[int] = field(default_factory=lambda: then(0))
    reached: Iterator[int] = field(default_factory=lambda: then(10))
    landed: Iterator[int] = field(default_factory=lambda: then(7))
    lag: Iterator[int] = field(default_factory=lambda: then(0))
    fresh: bool = True
    delivered: int = 7
    captured_end: int = 10
    polls: int = 0
    alive: bool = True

    def __post_init__(self) -> None:
        self.options = SimpleNamespace(detail=Detail.AREAS)
        self.home = SimpleNamespace(log=Path("/home/log"))
        self.captured = {"civil.marriages": TOPIC}
        self.shares = [
            SimpleNamespace(id="g", label="g", captured_topic=TOPIC, fresh=self.fresh, subscriber="quzhou")
        ]
        self.exchanged = SimpleNamespace(
            behind=lambda _topics: next(self.behind), end=lambda _topic: {0: self.captured_end}
        )
        self.decisions = SimpleNamespace(
            read=lambda: None,
            reached=lambda _label, _topic, _partition: next(self.reached),
            tallies={"g": Tally(delivered=self.delivered)},
        )

    def metrics(self, prefix: str = "") -> dict[str, Samples]:
        self.polls += prefix == "capture-"
        return {
            "capture-civil": parse(
                f'govbus_capture_poll_seconds_count{{resource="civil.marriages"}} {self.polls}\n'
            ),
            "land-quzhou": parse(
                f'govbus_landed_records_total{{grant="g"}} {next(self.landed)}\n'
                f'govbus_lag_records{{grant="g"}} {next(self.lag)}\n'
            ),
        }

    def check_alive(self) -> None:
        if not self.alive:
            raise FatalError("land-quzhou has ended")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "_LOOK_AGAIN", 0.0)


def settled(stage: EventualStage) -> EventualStage:
    Settling(stage)  # type: ignore[arg-type]
    return stage


def used_up(values: Iterator[Any], last: Any) -> bool:
    """Whether a wait has looked until the value that it had to see."""
    return bool(next(values) == last)


def test_capture_is_waited_for_until_a_whole_reading_has_followed() -> None:
    """One poll may have been under way, and a marriage table is read whole at each: two more."""
    stage = settled(EventualStage())

    assert stage.polls >= 3


def test_workers_that_are_behind_are_waited_for() -> None:
    behind = then(5, 3, 0)

    settled(EventualStage(behind=behind))

    assert used_up(behind, 0)


def test_a_grant_that_is_behind_the_workers_is_waited_for() -> None:
    reached = then(0, 4, 10)

    settled(EventualStage(reached=reached))

    assert used_up(reached, 10)


def test_a_store_that_has_taken_in_too_little_is_waited_for_whatever_its_lag_says() -> None:
    landed = then(*[0] * 20, 7)

    settled(EventualStage(landed=landed))

    assert used_up(landed, 7)


def test_a_store_that_reports_a_lag_is_waited_for() -> None:
    lag = then(*[3] * 20, 0)

    settled(EventualStage(lag=lag))

    assert used_up(lag, 0)


def test_what_an_earlier_demo_decided_need_not_be_decided_again() -> None:
    """Its decisions were made before this demo began to read them."""
    settled(EventualStage(fresh=False, reached=then(0)))


def test_a_standstill_is_an_error_that_names_the_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "STALLED_SECONDS", 0.05)

    with pytest.raises(FatalError, match="standstill.*/home/log"):
        settled(EventualStage(behind=then(5)))


def test_a_process_that_ends_ends_the_wait() -> None:
    with pytest.raises(FatalError, match="land-quzhou has ended"):
        settled(EventualStage(behind=then(5), alive=False))


def test_what_is_not_landed_any_more_is_not_waited_for() -> None:
    stage = EventualStage()
    settling = Settling(stage)  # type: ignore[arg-type]
    stage.decisions.tallies["g"] = Tally(delivered=100)

    settling.ended.add("g")

    settling.settle()


def test_counts_begin_when_everything_is_at_rest_for_the_first_time() -> None:
    stage = EventualStage(landed=then(*[7] * 10))
    settling = Settling(stage)  # type: ignore[arg-type]

    stage.landed = then(12)

    increase = settling.increase("land-")["land-quzhou"]
    assert increase.total("govbus_landed_records_total", grant="g") == 5
    assert settling.tally(stage.shares[0]).records == 0  # type: ignore[arg-type]
