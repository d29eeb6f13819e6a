"""Landing without Kafka: deliveries as a list, the registry as a dictionary, the store a real one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, TopicPartition
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from govbus.catalogue import ResourceKind
from govbus.codec import Schema, encode, parse_schema
from govbus.errors import UnknownSchemaError
from govbus.grant import DataDuty, GrantState
from govbus.receipt import Receipt, ReceiptKey
from govbus_consumers.rows import RowReader
from govbus_consumers.sink import PartitionChanges, Position, Signatory, Sink, WantedTable, open_sink
from govbus_consumers.subscriptions import Subscription
from govbus_consumers.tables import LandingTable, fields_of, full_name

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
TOPIC = "govbus.delivered.quzhou.rows"
SIGNATORY = Signatory(department="quzhou", process="quzhou.land", key=ReceiptKey(bytes(range(32))))


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """One delivery, with the part of confluent-kafka's interface that landing uses."""

    at: int
    key_bytes: bytes | None
    value_bytes: bytes | None

    def key(self) -> bytes | None:
        return self.key_bytes

    def value(self) -> bytes | None:
        return self.value_bytes

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_000 * self.at)


class RegistryOnPaper:
    """Schemas by id, and nothing behind them."""

    def __init__(self) -> None:
        self.schemas: dict[int, Schema] = {}

    def add(self, raw: Mapping[str, Any]) -> Schema:
        """Register a schema; the same one keeps its id."""
        for known in self.schemas.values():
            if json.dumps(known.raw) == json.dumps(raw):
                return known
        number = 100 + len(self.schemas)
        self.schemas[number] = parse_schema(number, raw)
        return self.schemas[number]

    def schema(self, schema_id: int) -> Schema:
        if schema_id not in self.schemas:
            raise UnknownSchemaError("the registry knows no such schema or subject")
        return self.schemas[schema_id]


@dataclass
class PaperLanding:
    """Lands lists of deliveries of one grant as the real loop does: claim, read, apply."""

    url: str
    key: Sequence[str] = ("code",)
    grant: str = "rows"
    topic: str = TOPIC
    kind: ResourceKind = ResourceKind.STATE
    registry: RegistryOnPaper = field(default_factory=RegistryOnPaper)

    def __post_init__(self) -> None:
        self.now = NOON
        self.sink: Sink = open_sink(make_url(self.url), clock=lambda: self.now)
        self.sink.open()
        self.version = 0
        self.log: list[FakeMessage] = []
        self.positions: dict[int, Position] = {}

    def close(self) -> None:
        """Let go of the store."""
        self.sink.close()

    def agree(
        self,
        fields: Sequence[Mapping[str, Any]],
        *,
        duty: DataDuty = DataDuty.DELETE,
        name: str = "rows",
        configured_name: str | None = None,
        key: Sequence[str] | None = None,
        topic: str | None = None,
        key_name: str = "RowKey",
    ) -> LandingTable:
        """Take up the next version of the grant, with these fields."""
        self.version += 1
        self.key = key or self.key
        self.topic = topic or self.topic
        key_raw = {**self._key(fields), "name": key_name}
        return self.agree_on(
            self.view(fields), key_raw, duty=duty, name=name, configured_name=configured_name
        )

    def agree_on(
        self,
        value: Mapping[str, Any],
        key: Mapping[str, Any],
        *,
        duty: DataDuty = DataDuty.DELETE,
        name: str = "rows",
        configured_name: str | None = None,
    ) -> LandingTable:
        """Take up the present version of the grant, with these schemas."""
        self.value_schema = self.registry.add(value)
        self.key_schema = self.registry.add(key)
        self.wanted = WantedTable(
            grant=self.grant,
            version=self.version,
            topic=self.topic,
            kind=self.kind,
            key_name=full_name(self.key_schema.raw),
            key=fields_of(self.key_schema.raw),
            fields=fields_of(self.value_schema.raw),
            duty=duty,
            name=name,
            configured_name=configured_name,
        )
        self.table = self.sink.prepare(self.wanted)
        self.claim()
        return self.table

    def view(self, fields: Sequence[Mapping[str, Any]], *, grant: str | None = None) -> dict[str, Any]:
        """The view schema of the grant's present version."""
        says = {"grant": grant or self.grant, "version": self.version, "purpose": "tests"}
        return {"type": "record", "name": "RowView", "fields": list(fields), "govbus": says}

    def _key(self, fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        keys = [each for each in fields if each["name"] in self.key]
        return {"type": "record", "name": "RowKey", "fields": keys}

    def claim(self, partitions: Sequence[int] = (0,)) -> None:
        """Take partitions, as a process does that has just been given them."""
        self.positions = self.sink.claim(self.table, partitions)

    def put(self, row: Mapping[str, Any], schema: Schema | None = None) -> None:
        """Deliver a row."""
        self.deliver(self.key_of(row), encode(schema or self.value_schema, row))

    def remove(self, **key: Any) -> None:
        """Deliver a tombstone."""
        self.deliver(self.key_of(key), None)

    def key_of(self, row: Mapping[str, Any]) -> bytes:
        return encode(self.key_schema, {name: row[name] for name in self.key})

    def deliver(self, key: bytes | None, value: bytes | None, *, gap: int = 1) -> None:
        """Deliver bytes; ``gap`` more than 1 leaves offsets out, as transaction markers do."""
        last = self.log[-1].at if self.log else -1
        self.log.append(FakeMessage(last + gap, key, value))

    def read(self, messages: Iterable[FakeMessage], *, partition: int = 0) -> PartitionChanges:
        """Read deliveries as they would be written next."""
        attribute = self.registry.schema(self.value_schema.id).raw["govbus"]
        reader = RowReader(
            self.table, agreement=attribute, schema=self.registry.schema, converts=self.sink.converts
        )
        return reader.read(
            list(messages), partition=partition, position=self.positions[partition], landed_at=NOON
        )

    def land(self, messages: Iterable[FakeMessage] | None = None, *, partition: int = 0) -> PartitionChanges:
        """Read and write what has been delivered (or ``messages``)."""
        batch = self.read(self.log if messages is None else messages, partition=partition)
        self.sink.apply([batch])
        self.positions[partition] = replace(self.positions[partition], next_offset=batch.next_offset)
        return batch

    def end(self, duty: DataDuty, state: GrantState = GrantState.REVOKED) -> Receipt | None:
        """End the grant with its next version."""
        self.version += 1
        return self.sink.end(self.grant, version=self.version, state=state, duty=duty, by=SIGNATORY)

    # Looking at the store from outside

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the store through a connection of its own."""
        engine = create_engine(self.url)
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(text(statement))]
        finally:
            engine.dispose()

    def execute(self, statement: str) -> None:
        """Change the store behind landing's back."""
        engine = create_engine(self.url)
        try:
            with engine.begin() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    def rows(self, columns: str | None = None) -> list[tuple[Any, ...]]:
        """The landed rows in the order of their first column; the fields' columns unless said otherwise."""
        names = [column.name for column in (*self.table.key, *self.table.columns)]
        wanted = columns or ", ".join(
            '"' + name.replace('"', '""').replace(":", "\\:") + '"' for name in names
        )
        table = self.table.name.replace('"', '""').replace(":", "\\:")
        return sorted(self.query(f'SELECT {wanted} FROM "{table}"'), key=repr)

    def dead_letters(self) -> list[tuple[int, str]]:
        """Offset and code of what was set aside of this grant."""
        statement = (
            f"SELECT \"offset\", code FROM _govbus_dead_letters WHERE grant_id = '{self.grant}' ORDER BY 1"
        )
        return [(int(offset), str(code)) for offset, code in self.query(statement)]


class _Error:
    """What confluent-kafka gives beside or in place of a record."""

    def __init__(self, code: int, *, retriable: bool = False) -> None:
        self._code = code
        self._retriable = retriable

    def code(self) -> int:
        return self._code

    def name(self) -> str:
        return f"ERROR_{self._code}"

    def retriable(self) -> bool:
        return self._retriable


@dataclass(frozen=True, slots=True)
class Consumed:
    """What a consumer returns: a record of a topic, or an event."""

    place: tuple[str, int]
    at: int
    key_bytes: bytes | None = None
    value_bytes: bytes | None = None
    fault: int | None = None

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.key_bytes

    def value(self) -> bytes | None:
        return self.value_bytes

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_000 * self.at)

    def error(self) -> _Error | None:
        return None if self.fault is None else _Error(self.fault)


class ConsumerOnPaper:
    """A group of one, on topics of one partition that are lists; records come a few at a time."""

    def __init__(self, *, at_once: int = 3) -> None:
        self.topics: dict[str, list[Consumed]] = {}
        self.reading: dict[tuple[str, int], int] = {}
        self.assigned: list[TopicPartition] = []
        self.events: list[Consumed] = []
        self.starts: list[tuple[str, int]] = []
        """Topic and offset of each partition that was begun, in order."""

        self._wanted: list[str] | None = None
        self._told: set[tuple[str, int]] = set()
        self._at_once = at_once

    def add(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Append a record."""
        records = self.topics.setdefault(topic, [])
        records.append(Consumed((topic, 0), len(records), key, value))

    def subscribe(self, wanted: list[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        assert on_revoke == on_lost
        self._wanted, self._on_assign, self._on_revoke = wanted, on_assign, on_revoke

    def unsubscribe(self) -> None:
        self._wanted = []

    def rebalance(self) -> None:
        """Take every partition away; the next call gives them back."""
        gone, self.assigned = self.assigned, []
        self._on_revoke(self, gone)
        self._wanted = sorted({partition.topic for partition in gone})

    def consume(self, count: int, timeout: float) -> list[Consumed]:
        if self._wanted is not None:
            self._rebalance(self._wanted)
            self._wanted = None
        found, self.events = self.events, []
        for place, offset in list(self.reading.items()):
            records = self.topics.get(place[0], [])
            batch = records[offset : offset + min(count, self._at_once)]
            found += batch
            self.reading[place] = offset + len(batch)
            if not batch and place not in self._told:
                self._told.add(place)
                found.append(Consumed(place, offset, fault=KafkaError._PARTITION_EOF))
            elif batch:
                self._told.discard(place)
        return found

    def _rebalance(self, wanted: list[str]) -> None:
        gone = [partition for partition in self.assigned if partition.topic not in wanted]
        if gone:
            self._on_revoke(self, gone)
        there = {partition.topic for partition in self.assigned}
        new = [TopicPartition(topic, 0) for topic in wanted if topic not in there]
        self.assigned = [partition for partition in self.assigned if partition.topic in wanted] + new
        if new:
            self._on_assign(self, new)

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self.starts.append((partition.topic, partition.offset))
            self.reading[partition.topic, partition.partition] = max(0, partition.offset)
            self._told.discard((partition.topic, partition.partition))

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            del self.reading[partition.topic, partition.partition]

    def get_watermark_offsets(self, partition: TopicPartition, **_how: Any) -> tuple[int, int]:
        return 0, len(self.topics.get(partition.topic, []))

    def list_topics(self, topic: str, timeout: float) -> Any:
        fault = None if topic in self.topics else _Error(KafkaError.UNKNOWN_TOPIC_OR_PART)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=fault)})


class SubscriptionsOnPaper:
    """A subscriptions topic that has been read to its end."""

    complete = True

    def __init__(self) -> None:
        self.new: list[Subscription | str] = []

    def changes(self) -> list[Subscription | str]:
        found, self.new = self.new, []
        return found


class ReceiptsOnPaper:
    """Takes receipts; whether the bus has them is for the test to say."""

    key = SIGNATORY.key
    fault: str | None = None

    def __init__(self) -> None:
        self.sent: list[Receipt] = []
        self.reachable = True
        self._acknowledged: list[tuple[str, int]] = []

    def send(self, facts: Sequence[Receipt]) -> None:
        self.sent += facts
        if self.reachable:
            self._acknowledged += [(receipt.grant, receipt.version) for receipt in facts]

    def acknowledged(self) -> list[tuple[str, int]]:
        found, self._acknowledged = self._acknowledged, []
        return found
