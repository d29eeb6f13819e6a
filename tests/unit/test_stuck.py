"""A worker whose Kafka client does not come back from a call is ended by its watch."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from govbus.errors import BrokerUnavailableError
from govbus_processors import app, intake, transaction
from govbus_processors.app import ExchangeWorker
from govbus_processors.transaction import STUCK_SECONDS, ExactlyOnce


class Ended(BaseException):
    """The process would be gone."""


def watched(calling_since: float | None, *, now: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a worker's watch look once, and return the exit codes of processes that it ended."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Ended

    async def sleep(_seconds: float) -> None:
        raise Ended

    monkeypatch.setattr(app.os, "_exit", leave)
    monkeypatch.setattr(app.logging, "shutdown", lambda: None)
    monkeypatch.setattr(intake.time, "monotonic", lambda: now)
    held = intake.Intake.__new__(intake.Intake)
    held.failure, held._opened = None, True
    held._guarantee = SimpleNamespace(calling_since=calling_since)  # type: ignore[assignment]
    worker = ExchangeWorker.__new__(ExchangeWorker)
    worker.name, worker.intake = "w", held
    worker.directory = SimpleNamespace(failure=None)  # type: ignore[assignment]
    service: Any = SimpleNamespace(should_stop=False, sleep=sleep)
    with pytest.raises(Ended):
        asyncio.run(worker.watch(service))
    return codes


def test_a_worker_that_is_held_in_a_call_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(100.0, now=100.1 + STUCK_SECONDS, monkeypatch=monkeypatch) == [app.EXIT_STUCK]


@pytest.mark.parametrize("calling_since", [None, 100.0])
def test_a_worker_whose_calls_end_in_time_goes_on(
    calling_since: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watched(calling_since, now=99.9 + STUCK_SECONDS, monkeypatch=monkeypatch) == []


def test_a_transaction_says_since_when_it_is_in_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anew for each attempt: a call that is repeated came back in between."""
    moments = iter(range(100, 200))
    monkeypatch.setattr(transaction.time, "monotonic", lambda: float(next(moments)))
    made = ExactlyOnce.__new__(ExactlyOnce)
    made.calling_since = None
    seen: list[float | None] = []

    def step() -> None:
        seen.append(made.calling_since)
        if len(seen) < 3:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, retriable=True))

    made._call(step)

    assert len(seen) == 3
    assert None not in seen
    assert len(set(seen)) == 3
    assert made.calling_since is None


def test_a_call_that_fails_is_over_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ExactlyOnce.__new__(ExactlyOnce)
    made.calling_since = None

    def step() -> None:
        raise KafkaException(KafkaError(KafkaError._STATE))

    with pytest.raises(BrokerUnavailableError):
        made._call(step)

    assert made.calling_since is None
