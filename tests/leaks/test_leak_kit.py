"""The leak proof kit itself: it finds each kind of leak, made by an exchange that is careless in one way."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest

from govbus import observe
from govbus.avro import Definitions
from govbus_processors.batch import Batch, Outcome, Output
from govbus_processors.exchange import Exchange
from support.avro_strategies import LOGICAL
from support.canaries import Planted, plant, read
from support.leak_kit import Case, Tally, a_case, check, look_at_metrics, text_of
from support.views import record

HIDDEN = record(("text", "string"), ("truth", "boolean"), ("number", "long"))


def a_case_that_hides_everything(seed: int = 5) -> Case:
    """Nobody is granted anything but the key."""
    case = a_case(HIDDEN, lambda _name, _type: [], random.Random(seed), granted_share=0.0)
    assert all(set(rules) == {"id"} for rules in case.rules)
    return case


class Careless(Exchange):
    """An exchange that does its work and then something with the first record that it should not."""

    def process(self, batch: Batch) -> Outcome:
        outcome = super().process(batch)
        first = batch.slices[0].messages[0].value()
        if first is not None:
            self.slip(outcome, first)
        return outcome

    def slip(self, outcome: Outcome, value: bytes) -> None:
        raise NotImplementedError


class CopiesTooMuch(Careless):
    """Delivers ten bytes more than it should."""

    def slip(self, outcome: Outcome, value: bytes) -> None:
        text = value.find(b"33")  # behind it stands the text of the zone
        for topic, outputs in outcome.deliveries.items():
            outcome.deliveries[topic] = [
                Output(key, shown and shown + value[text + 4 : text + 18], partition, at)
                for key, shown, partition, at in outputs
            ]


class TellsOneBit(Careless):
    """Delivers a byte more when a hidden field is true: no canary is as short."""

    def slip(self, outcome: Outcome, value: bytes) -> None:
        odd = sum(value[5:]) % 2
        for topic, outputs in outcome.deliveries.items():
            outcome.deliveries[topic] = [
                Output(key, shown and shown + b"\0" * odd, partition, at)
                for key, shown, partition, at in outputs
            ]


class PutsItInTheKey(Careless):
    """Delivers under a key that holds a value."""

    def slip(self, outcome: Outcome, value: bytes) -> None:
        for topic, outputs in outcome.deliveries.items():
            outcome.deliveries[topic] = [
                Output(key + value[5:], shown, p, at) for key, shown, p, at in outputs
            ]


class QuotesInTheCause(Careless):
    """Says in a dead letter what was wrong with which value."""

    def slip(self, outcome: Outcome, value: bytes) -> None:
        for _topic, _key, letter in outcome.dead_letters:
            letter["detail"] = f"cannot read {value!r}"


class Logs(Careless):
    """Logs a record."""

    def slip(self, outcome: Outcome, value: bytes) -> None:  # noqa: ARG002
        logging.getLogger("careless").info("delivered %r", value)


class LogsAsDetail(Careless):
    """Logs a record under one of the allowed keys."""

    def slip(self, outcome: Outcome, value: bytes) -> None:  # noqa: ARG002
        logging.getLogger("careless").info("delivered", extra={"detail": value.hex()})


class DecidesAloud(Careless):
    """Writes a value into the decision record."""

    def slip(self, outcome: Outcome, value: bytes) -> None:
        for decision in outcome.decisions:
            decision["worker"] = value[5:].decode("latin-1")


class Labels(Careless):
    """Counts by value."""

    def slip(self, outcome: Outcome, value: bytes) -> None:  # noqa: ARG002
        observe.dead_letters.labels("stats.rows", value[5:].decode("latin-1")).inc()


@pytest.mark.parametrize(
    ("careless", "channel"),
    [
        (CopiesTooMuch, "govbus.delivered."),
        (PutsItInTheKey, "govbus.delivered."),
        (QuotesInTheCause, "govbus.dead-letter."),
        (Logs, "log"),
        (LogsAsDetail, "log"),
        (DecidesAloud, "govbus.decisions"),
        (Labels, "metrics"),
    ],
)
def test_the_kit_catches(careless: type[Exchange], channel: str) -> None:
    case = a_case_that_hides_everything()
    tally = Tally()

    check(case, tally, exchange=careless)
    look_at_metrics(tally)
    observe.dead_letters.clear()

    assert any(leak.channel.startswith(channel) for leak in tally.leaks), tally.leaks


def test_the_kit_catches_a_single_bit_by_comparing_twins() -> None:
    """Two rows have the same parity as often as not, so some cases are needed."""
    tally = Tally()

    for seed in range(20):
        check(a_case_that_hides_everything(seed), tally, exchange=TellsOneBit)

    assert {leak.field for leak in tally.leaks} == {"one that has a twin"}


def test_an_exchange_that_does_its_work_leaks_nothing() -> None:
    case = a_case_that_hides_everything()
    tally = Tally()

    check(case, tally)
    look_at_metrics(tally)

    assert not tally.leaks
    assert (tally.cases, tally.twins) == (1, 1)
    assert tally.deliveries > 0


def test_an_error_that_quotes_a_value_in_its_context_is_found() -> None:
    """Where an error is raised while another is handled, the other is printed with it."""

    def careless(value: str) -> None:
        try:
            int(value)
        except ValueError:
            raise RuntimeError("not a number") from None

    with pytest.raises(RuntimeError) as raised:
        careless("canary-in-the-context")

    assert "canary-in-the-context" in text_of(raised.value)


def test_planted_values_are_what_their_type_says() -> None:
    rng = random.Random(1)
    definitions = Definitions(HIDDEN)
    for node in ("string", "long", "int", "float", "double", "bytes", "boolean", *LOGICAL):
        planted: Planted = plant(definitions, node, rng)
        value: Any = read(node, planted.body)
        assert value is not None
        assert all(needle in planted.body for needle in planted.needles)
