"""Records by the batch, with a real broker: the same as object by object; rebalances where they belong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from govbus.errors import AccessDeniedError
from govbus_console.cluster import TopicSpec
from govbus_processors.batch import Output, Place
from govbus_processors.polling import Inlet, Objects
from govbus_processors.transaction import AtLeastOnce
from support.broker import RunningBus, unique_name
from support.exchanges import eventually

bulk = pytest.importorskip("govbus_processors.bulk", reason="govbus was installed without a C compiler")
pytestmark = pytest.mark.broker

PARTITIONS = 4
HOSTILE = [
    Output(key, value, partition, 1_700_000_000_000 + number)
    for number, (key, value, partition) in enumerate(
        (key, value, partition)
        for partition in range(PARTITIONS)
        for key in (None, b"", b"k", b"\0" * 300)
        for value in (None, b"", b"v", "省市县".encode() * 30_000)
    )
]
"""Every kind of key with every kind of value: none, empty, short, long."""


@pytest.fixture
def topic(bus: RunningBus) -> str:
    name = unique_name("bulk")
    bus.cluster.ensure_topics([TopicSpec(name=name, partitions=PARTITIONS)])
    return name


class Reading:
    """A member of a group with an inlet, and what it was told of its partitions."""

    def __init__(
        self, bus: RunningBus, topic: str, group: str, make: Callable[..., Inlet], **extra: Any
    ) -> None:
        self.consumer = Consumer(
            bus.client(
                group_id=group,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                session_timeout_ms=6_000,
                heartbeat_interval_ms=500,
                partition_assignment_strategy="roundrobin",
                **extra,
            )
        )
        self.told: list[tuple[str, int]] = []
        self.has: set[int] = set()
        self.inlet = make(self.consumer, on_assign=self._assigned, on_revoke=self._revoked)
        self.consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked)
        self.found: dict[Place, list[Any]] = {}
        self.faults: list[KafkaError] = []

    def fetch(self, seconds: float = 0.1, limit: int = 1_000) -> int:
        found, faults = self.inlet.fetch(seconds, 0.0, limit)
        self.faults += faults
        for place, records in found.items():
            self.found.setdefault(place, []).extend(records)
        return sum(map(len, found.values()))

    def outputs(self) -> list[tuple[Any, ...]]:
        return sorted(
            (place[1], r.offset(), r.key(), r.value(), r.timestamp()[1])
            for place, records in self.found.items()
            for r in records
        )

    def close(self) -> None:
        self.inlet.close()
        self.consumer.close()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        assert consumer is self.consumer
        self.told.append(("assigned", len(partitions)))
        self.has = {place.partition for place in partitions}
        consumer.assign(partitions)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.told.append(("revoked", len(partitions)))
        self.has = set()
        consumer.unassign()


@pytest.fixture
def reading(bus: RunningBus, topic: str) -> Iterator[Callable[..., Reading]]:
    made: list[Reading] = []

    def start(group: str, make: Callable[..., Inlet] = bulk.Inlet, **extra: Any) -> Reading:
        made.append(Reading(bus, topic, group, make, **extra))
        return made[-1]

    yield start
    for one in made:
        one.close()


def by_objects(consumer: Consumer, **_callbacks: Any) -> Inlet:
    return Objects(consumer)


def write(bus: RunningBus, topic: str, outputs: list[Output]) -> None:
    producer = Producer(bus.client(enable_idempotence=True))
    outlet = bulk.Outlet(producer)
    assert outlet.queue(topic, bulk.Outputs.of(outputs)) == len(outputs)
    assert outlet.flush(20.0) == 0
    assert outlet.failure is None


def test_what_is_written_is_read_and_both_ways_of_reading_see_the_same(
    bus: RunningBus, topic: str, reading: Callable[..., Reading]
) -> None:
    write(bus, topic, HOSTILE)

    packed, plain = reading(unique_name(), bulk.Inlet), reading(unique_name(), by_objects)
    for one in (packed, plain):
        eventually(
            lambda one=one: one.fetch() == 0 and len(one.outputs()) >= len(HOSTILE), what="all records"
        )

    assert packed.outputs() == plain.outputs()
    assert [one[2:] for one in packed.outputs()] == [
        (key, value, at) for key, value, _, at in sorted(HOSTILE, key=lambda output: output.partition)
    ]


def test_what_is_empty_stays_empty_and_is_not_nothing_also_alone(
    bus: RunningBus, topic: str, reading: Callable[..., Reading]
) -> None:
    write(bus, topic, [Output(b"", b"", 0, 1)])
    one = reading(unique_name())

    eventually(lambda: one.fetch() == 0 and one.outputs(), what="the record")

    assert one.outputs() == [(0, 0, b"", b"", 1)]


def test_a_limit_is_kept_and_what_is_left_comes_next(
    bus: RunningBus, topic: str, reading: Callable[..., Reading]
) -> None:
    write(bus, topic, [Output(b"k", b"%d" % number, number % 3, number + 1) for number in range(100)])
    one = reading(unique_name())

    sizes: list[int] = []
    eventually(lambda: sizes.append(one.fetch(limit=7)) or sum(sizes) == 100, what="all records")

    assert max(sizes) == 7
    for records in one.found.values():
        assert [r.offset() for r in records] == list(range(len(records)))


def test_a_rebalance_is_told_in_the_call_and_nothing_is_read_twice_or_left_out(
    bus: RunningBus, topic: str, reading: Callable[..., Reading]
) -> None:
    group = unique_name()
    first = reading(group)
    eventually(lambda: first.fetch() or first.has == set(range(PARTITIONS)), what="all partitions")
    second = reading(group)

    def shared() -> bool:
        first.fetch()
        second.fetch()
        return len(first.has) == len(second.has) == PARTITIONS // 2

    eventually(shared, what="half of the partitions each")
    write(bus, topic, [Output(b"k", b"%d" % number, number % PARTITIONS, 1) for number in range(400)])

    def all_read() -> bool:
        first.fetch()
        second.fetch()
        return len(first.outputs()) + len(second.outputs()) >= 400

    eventually(all_read, what="all records")
    assert ("revoked", PARTITIONS) in first.told
    assert first.has.isdisjoint(second.has)
    assert len(set(first.outputs()) | set(second.outputs())) == 400
    assert {place[1] for place in first.found} == first.has


def test_an_error_in_a_callback_reaches_the_caller(bus: RunningBus, topic: str) -> None:
    consumer = Consumer(bus.client(group_id=unique_name()))

    def fail(_consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        raise ArithmeticError

    inlet = bulk.Inlet(consumer, on_assign=fail, on_revoke=fail)
    consumer.subscribe([topic])
    with pytest.raises(ArithmeticError):
        inlet.fetch(20.0, 0.0, 10)
    inlet.close()
    consumer.close()


def test_pausing_and_going_back_work_as_with_the_client(
    bus: RunningBus, topic: str, reading: Callable[..., Reading]
) -> None:
    write(bus, topic, [Output(b"k", b"%d" % number, 0, 1) for number in range(10)])
    one = reading(unique_name())
    eventually(lambda: one.fetch() and len(one.outputs()) == 10, what="all records")

    one.consumer.pause([TopicPartition(topic, 0)])
    write(bus, topic, [Output(b"k", b"late", 0, 1)])
    while_paused = [one.fetch(0.5) for _ in range(3)]
    one.found.clear()
    one.consumer.seek(TopicPartition(topic, 0, 4))
    one.consumer.resume([TopicPartition(topic, 0)])

    assert while_paused == [0, 0, 0]
    eventually(lambda: one.fetch() and len(one.outputs()) == 7, what="the records from the fifth on")
    assert [offset for _, offset, *_ in one.outputs()] == list(range(4, 11))


def test_who_only_fetches_stays_a_member(topic: str, reading: Callable[..., Reading]) -> None:
    """The broker is told that a member lives by what it polls; fetching by the batch must count."""
    one = reading(unique_name(), max_poll_interval_ms=6_000)
    eventually(lambda: one.fetch() or one.has, what="partitions")

    until = time.monotonic() + 8
    while time.monotonic() < until:
        one.fetch(0.2)

    assert [what for what, _ in one.told] == ["assigned"]
    assert not any(fault.code() == KafkaError._MAX_POLL_EXCEEDED for fault in one.faults)


def test_what_the_broker_refuses_is_a_failure_and_fails_the_batch(bus: RunningBus, topic: str) -> None:
    stranger = bus.department()
    guarantee = AtLeastOnce(stranger.settings, consumer=None)  # type: ignore[arg-type]
    guarantee.open()
    guarantee.begin()
    guarantee.put(topic, [Output(b"k", b"v", 0, 1)])

    with pytest.raises(AccessDeniedError):
        guarantee.commit([], None)
    guarantee.abort()

    guarantee.begin()
    guarantee.commit([], None)
