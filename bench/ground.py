"""The ground that all peers run on: one embedded broker and registry, the input, the outputs.

Every peer logs in as the same user over the same listener, and each of its runs
gets new, empty output topics and a new consumer group, so nothing that one
leaves behind helps or hinders the next.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bench.records import Coder, contract_schema, key_schema, rows
from govbus.codec import HEADER_BYTES, Registry, header, unframe
from govbus_console.cluster import Cluster, TopicSpec
from govbus_console.embedded import EmbeddedBus, Home

_BATCH = 10_000
_ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A schema as the registry knows it."""

    id: int
    schema: dict[str, Any]


class Ground:
    """The broker, the registry, and what the benchmark itself does with them."""

    def __init__(self, bus: EmbeddedBus) -> None:
        self.bus = bus
        self.home = bus.home
        self.broker = bus.broker_settings()
        self.registry = Registry(bus.registry_settings().url)
        self.cluster = Cluster(self.broker.client())
        self._admin = AdminClient(self.client())

    def client(self, **extra: Any) -> dict[str, Any]:
        """Give librdkafka's settings for the benchmark's own clients; what goes wrong, they raise."""
        return self.broker.client(**extra) | {"log_level": 0}

    def register(self, subject: str, schema: dict[str, Any]) -> Registered:
        """Register a schema."""
        return Registered(id=self.registry.register(subject, schema), schema=schema)

    def make_topics(self, *names: str) -> None:
        """Make topics of one partition that keep everything."""
        self.cluster.ensure_topics([TopicSpec.retained(name, retention_ms=-1) for name in names])

    def drop_topics(self, *names: str) -> None:
        """Remove topics, so that the disk does not fill up over the rounds."""
        for name in names:
            self.cluster.delete_topic(name)

    def feed(self, topic: str, count: int, note: Callable[[bytes, dict[str, Any]], None]) -> None:
        """Write the first ``count`` records of the input; ``note`` gets the key body and the row of each."""
        schema, key = contract_schema(), key_schema()
        value_id = self.registry.register(f"{topic}-value", schema)
        key_id = self.registry.register(f"{topic}-key", key)
        coder, key_coder = Coder(schema), Coder(key)
        with self.producer() as send:
            for row in rows(count):
                framed_key = header(key_id) + key_coder.encode(row)
                note(framed_key[HEADER_BYTES:], row)
                send(topic, framed_key, header(value_id) + coder.encode(row))

    @contextmanager
    def producer(self) -> Iterator[Any]:
        """Give a function that sends (topic, key, value), and see to it that all of it arrives."""
        failed: list[Any] = []
        producer = Producer(
            self.client(
                enable_idempotence=True,
                compression_type="lz4",
                linger_ms=5,
                batch_size=1_048_576,
                delivery_report_only_error=True,
            )
            | {"on_delivery": lambda error, _message: failed.append(error)}
        )

        def send(topic: str, key: bytes, value: bytes) -> None:
            while True:
                try:
                    producer.produce(topic, value, key, 0)
                except BufferError:
                    producer.poll(0.05)
                else:
                    return

        yield send
        if producer.flush(60.0) or failed:
            raise KafkaException(failed[0] if failed else "the broker does not take the input")

    def visible(self, topics: Sequence[str]) -> list[int]:
        """Say how far a reader of committed records can read now in partition 0 of each topic."""
        answers = self._admin.list_offsets(
            {TopicPartition(topic, 0): OffsetSpec.latest() for topic in topics},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=_ASK_SECONDS,
        )
        return [int(answer.result().offset) for answer in answers.values()]

    def committed(self, topic: str) -> Iterator[Any]:
        """Read the committed records of partition 0 from the beginning to what is the end now."""
        (end,) = self.visible([topic])
        consumer = Consumer(
            self.client(
                group_id="bench.referee",  # required by the client, never joined
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                enable_partition_eof=True,
            )
        )
        try:
            consumer.assign([TopicPartition(topic, 0, 0)])
            position = 0
            while position < end:
                for message in consumer.consume(_BATCH, timeout=1.0):
                    position = message.offset() + (message.error() is None)
                    if message.error() is None:
                        yield message
        finally:
            consumer.close()

    def rows(self, topic: str) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
        """Decode a topic's committed records under the schemas that they name: key body and row."""
        coders: dict[int, Coder] = {}
        for message in self.committed(topic):
            _, key = unframe(message.key())
            if message.value() is None:
                yield key, None
                continue
            schema_id, body = unframe(message.value())
            if schema_id not in coders:
                coders[schema_id] = Coder(self.registry.schema(schema_id).raw)
            yield key, coders[schema_id].decode(body)


@contextmanager
def ground() -> Iterator[Ground]:
    """Start a broker and a registry in a directory that is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="govbus-bench-"))
    try:
        with EmbeddedBus(Home(directory)) as bus:
            yield Ground(bus)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
