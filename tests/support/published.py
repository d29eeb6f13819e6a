"""A resource of its own for a test on the real broker, and what its topic holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from govbus import topics
from govbus.codec import Registry
from govbus.contract import DataContract, parse_contract
from govbus_console.cluster import TopicSpec
from govbus_producers.publish import Publisher
from support.broker import Department, RunningBus, unique_name
from support.capturing import DIVISIONS


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record as a consumer sees it, decoded."""

    key_bytes: bytes
    key: dict[str, Any]
    value: dict[str, Any] | None
    partition: int
    timestamp_ms: int


@dataclass(frozen=True, kw_only=True)
class PublishedResource:
    """A resource whose contract is registered and whose topic is there."""

    bus: RunningBus
    owner: Department
    name: str
    registry: Registry

    @property
    def topic(self) -> str:
        return topics.captured(self.owner.name, self.name)

    def publisher(self, **options: Any) -> Publisher:
        return Publisher(self.owner.name, broker=self.owner.settings, registry=self.registry, **options)

    def records(self) -> list[Record]:
        """Everything in the topic, in order within each partition."""
        ends = self.bus.cluster.end_offsets(self.topic)
        consumer = Consumer(self.bus.client(group_id=unique_name("reader"), enable_auto_commit=False))
        consumer.assign([TopicPartition(self.topic, number, OFFSET_BEGINNING) for number in ends])
        found: list[Record] = []
        try:
            deadline = time.monotonic() + 60
            while len(found) < sum(ends.values()):
                assert time.monotonic() < deadline, "the topic does not give back what it holds"
                for message in consumer.consume(1_000, timeout=0.3):
                    assert message.error() is None, message.error()
                    key, value = message.key(), message.value()
                    found.append(
                        Record(
                            key_bytes=key,
                            key=self.registry.decode(key),
                            value=None if value is None else self.registry.decode(value),
                            partition=message.partition(),
                            timestamp_ms=message.timestamp()[1],
                        )
                    )
        finally:
            consumer.close()
        return found

    def table(self) -> dict[str, dict[str, Any]]:
        """What a reader of the topic holds at its end: the last value of each key, tombstones gone."""
        latest = {record.key["code"]: record.value for record in self.records()}
        return {code: value for code, value in latest.items() if value is not None}


ResourceFactory = Callable[..., PublishedResource]


def register_contract(registry: Registry, owner: str, name: str, schema: dict[str, Any]) -> DataContract:
    contract = parse_contract(json.dumps(schema), owner=owner, resource=name)
    topic = topics.captured(owner, name)
    registry.register(f"{topic}-value", contract.schema)
    registry.register(f"{topic}-key", contract.key_schema)
    return contract


@contextmanager
def published_resources(bus: RunningBus) -> Iterator[ResourceFactory]:
    """Give a function that makes resources, each of a department of its own; closes what they used."""
    registry = Registry(bus.registry_url)

    def make(*, partitions: int = 1, schema: dict[str, Any] = DIVISIONS, **config: str) -> PublishedResource:
        owner = bus.department("stats")
        register_contract(registry, owner.name, "divisions", schema)
        topic = topics.captured(owner.name, "divisions")
        bus.cluster.ensure_topic(TopicSpec.compacted(topic, partitions=partitions, **config))
        return PublishedResource(bus=bus, owner=owner, name="divisions", registry=registry)

    try:
        yield make
    finally:
        registry.close()
