"""Follow the bus from beside it, with an administrator's or a department's eyes. Reads Kafka.

What the exchange decided is read off ``govbus.decisions``, as an auditor would;
when everything has been exchanged is known from offsets, never from waiting long
enough: the exchange has settled when its group has committed up to the end of
every captured topic, and every route's decisions reach that end too (a grant
that is still being brought up to the present lags behind the group).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from govbus import topics
from govbus.codec import Registry
from govbus.errors import BrokerUnavailableError
from govbus.settings import BrokerSettings

_ANSWER_SECONDS = 15.0
_READ_AT_ONCE = 1_000
READ = "read"
"""The answer of a broker that lets somebody read."""


@dataclass(slots=True)
class Tally:
    """What was decided on one route since the demo began."""

    considered: int = 0
    delivered: int = 0
    filtered: int = 0
    left_view: int = 0
    rejected: int = 0
    denied: int = 0
    """Records that were looked at while no grant was in force."""

    @property
    def records(self) -> int:
        """How many records went to the delivery topic: rows and deletes, and rows that left the view."""
        return self.delivered + self.left_view


class Decisions:
    """Reads ``govbus.decisions`` from where it ends now."""

    def __init__(self, broker: BrokerSettings, registry: Registry) -> None:
        self._registry = registry
        self._follower = _Follower(broker, "govbus.demo", topics.DECISIONS)
        self.tallies: dict[str, Tally] = {}
        """By grant, or by view where several grants share one delivery."""

        self.permitted: set[str] = set()
        """Resources of which a route was in force."""

        self._reached: dict[tuple[str, str, int], int] = {}

    def read(self) -> None:
        """Take in everything that has been committed by now."""
        for message in self._follower.read():
            self._take(self._registry.decode(message.value()))

    def reached(self, label: str, topic: str, partition: int) -> int:
        """Give the offset of a captured topic up to which a route has been decided, exclusive."""
        return self._reached.get((label, topic, partition), 0)

    def _take(self, decision: dict[str, Any]) -> None:
        label = decision["grant"]
        tally = self.tallies.setdefault(label, Tally())
        if decision["effect"] == "permit":
            self.permitted.add(decision["resource"])
            tally.considered += decision["considered"]
            tally.delivered += decision["delivered"]
            tally.filtered += decision["filtered"]
            tally.left_view += decision["left_view"]
            tally.rejected += decision["rejected"]
        else:
            tally.denied += decision["considered"]
        place = (label, decision["topic"], decision["partition"])
        self._reached[place] = max(self._reached.get(place, 0), decision["last_offset"] + 1)

    def close(self) -> None:
        """Leave the broker."""
        self._follower.close()


class Exchanged:
    """Knows how far the exchange workers' group has committed."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._consumer = _groupless(broker, topics.EXCHANGE_GROUP)
        """Never subscribes, so it is no member of the group; it only asks for the group's offsets."""

    def behind(self, captured: Iterable[str]) -> int:
        """Count the captured records that no worker has dealt with yet."""
        places = [place for topic in captured for place in _partitions(self._consumer, topic)]
        left = 0
        with _named("the exchange's offsets"):
            for place in self._consumer.committed(places, timeout=_ANSWER_SECONDS):
                low, high = self._consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS)
                left += high - (place.offset if place.offset >= 0 else low)
        return left

    def end(self, topic: str) -> dict[int, int]:
        """Give the end of each partition of a topic; empty when there is no such topic."""
        ends = {}
        with _named(f"the end of {topic}"):
            for place in _partitions(self._consumer, topic):
                _low, ends[place.partition] = self._consumer.get_watermark_offsets(
                    place, timeout=_ANSWER_SECONDS
                )
        return ends

    def topics(self) -> list[str]:
        """List all topics."""
        with _named("the topics"):
            return sorted(self._consumer.list_topics(timeout=_ANSWER_SECONDS).topics)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def try_to_read(broker: BrokerSettings, wanted: Collection[str]) -> dict[str, str]:
    """Try to read topics as an ordinary consumer with somebody's credentials.

    Returns, for each topic, ``read`` when the broker let them, even if there was nothing to read, or
    the name of Kafka's error, e.g. ``TOPIC_AUTHORIZATION_FAILED``.

    Raises:
        BrokerUnavailableError: the broker neither gives nor refuses one of them.
    """
    consumer = _groupless(broker, f"{broker.user}.demo")
    answers: dict[str, str] = {}
    try:
        consumer.subscribe(sorted(wanted))
        until = time.monotonic() + 2 * _ANSWER_SECONDS
        while answers.keys() != set(wanted):
            if time.monotonic() > until:
                left = ", ".join(sorted(set(wanted) - answers.keys()))
                raise BrokerUnavailableError(f"the broker neither gives nor refuses {left}")
            message = consumer.poll(0.2)
            if message is None or message.topic() is None:
                continue
            error = message.error()
            let_in = error is None or error.code() == KafkaError._PARTITION_EOF
            # Once read is read, whatever else the broker says later.
            if answers.get(message.topic()) != READ:
                answers[message.topic()] = READ if let_in else str(error.name())
        return answers
    finally:
        consumer.close()


# -- how it is read --------------------------------------------------------------------------------


class _Follower:
    """Reads a topic from where it ends now, each time to the end of what has been committed."""

    def __init__(self, broker: BrokerSettings, group: str, topic: str) -> None:
        self._topic = topic
        self._consumer = _groupless(broker, group)
        places = _partitions(self._consumer, topic)
        self._passed: dict[int, int] = {}
        with _named(f"the end of {topic}"):
            for place in places:
                _low, place.offset = self._consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS)
                self._passed[place.partition] = place.offset
        self._consumer.assign(places)

    def read(self) -> Iterator[Any]:
        """Yield the records up to the end that there is now."""
        ends = {}
        with _named(f"the end of {self._topic}"):
            for partition in self._passed:
                place = TopicPartition(self._topic, partition)
                ends[partition] = self._consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS)[1]
        until = time.monotonic() + _ANSWER_SECONDS
        while any(self._passed[partition] < end for partition, end in ends.items()):
            for message in self._consumer.consume(_READ_AT_ONCE, timeout=0.2):
                error = message.error()
                if error is None:
                    until = time.monotonic() + _ANSWER_SECONDS
                    self._passed[message.partition()] = message.offset() + 1
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    # What ends a partition may be a transaction's marker, which is never handed out:
                    # only this says that it has been passed.
                    self._passed[message.partition()] = message.offset()
                else:
                    raise BrokerUnavailableError(f"{self._topic} cannot be read: {error.name()}")
            if time.monotonic() > until:
                raise BrokerUnavailableError(f"{self._topic} cannot be read to its end")

    def close(self) -> None:
        self._consumer.close()


def _groupless(broker: BrokerSettings, group: str) -> Consumer:
    config = broker.client(
        group_id=group,
        enable_auto_commit=False,
        enable_partition_eof=True,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_wait_max_ms=100,
    )
    # What librdkafka would print on the terminal is raised or answered here.
    return Consumer(config | {"log_level": 0})


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    with _named(f"the partitions of {topic}"):
        # All topics, because asking for one that does not exist is remembered by the client as an error.
        found = consumer.list_topics(timeout=_ANSWER_SECONDS).topics.get(topic)
    return [] if found is None else [TopicPartition(topic, number) for number in sorted(found.partitions)]


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Turn the client's errors into the bus's, saying what was asked for."""
    try:
        yield
    except KafkaException as error:
        raise BrokerUnavailableError(f"the broker does not tell {what}: {error.args[0].name()}") from None
