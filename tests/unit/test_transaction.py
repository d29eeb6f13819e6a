"""How long a step of a transaction is asked for again, and what giving up means."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from govbus.errors import BrokerUnavailableError, FatalError
from govbus.settings import BrokerSettings
from govbus_processors import transaction
from govbus_processors.transaction import ExactlyOnce


class Silent:
    """A producer whose broker never answers: each call takes as long as it may, then may be repeated."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def _wait(self, seconds: float) -> None:
        self.seconds += seconds
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer", False, True, False))

    def begin_transaction(self) -> None:
        """Is known to nobody yet."""

    def send_offsets_to_transaction(self, offsets: object, group: object, seconds: float) -> None:
        self._wait(seconds)

    def commit_transaction(self, seconds: float) -> None:
        self._wait(seconds)

    def abort_transaction(self, seconds: float) -> None:
        self._wait(seconds)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Silent:
    producer = Silent()
    monkeypatch.setattr(transaction.time, "monotonic", lambda: producer.seconds)
    return producer


@pytest.fixture
def guarantee(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> ExactlyOnce:
    made = ExactlyOnce(BrokerSettings(security_protocol="PLAINTEXT"), "govbus.exchange.a")
    monkeypatch.setattr(made, "_producer", silent)
    made.begin()
    return made


@pytest.mark.parametrize(
    ("end", "least", "most"),
    [
        pytest.param(lambda it: it.abort(), 10, 20, id="abort: while the broker does not do it by itself"),
        pytest.param(lambda it: it.commit([], None), 60, 70, id="commit: a minute"),
    ],
)
def test_an_end_that_nobody_answers_is_asked_for_again_and_then_ends_the_worker(
    guarantee: ExactlyOnce, silent: Silent, end: Callable[[ExactlyOnce], None], least: float, most: float
) -> None:
    with pytest.raises(FatalError, match="cannot go on"):
        end(guarantee)

    assert least <= silent.seconds <= most


def test_a_step_before_the_end_that_nobody_answers_is_taken_back(
    guarantee: ExactlyOnce, silent: Silent
) -> None:
    with pytest.raises(BrokerUnavailableError):
        guarantee.commit([object()], None)  # type: ignore[list-item]

    assert silent.seconds < 20
