"""An intake on a bus in memory: its thread's turns taken by hand, its crashes at will.

The logs hold what was committed, nothing else. Not Kafka: what Kafka promises is
assumed here, and proved against a broker elsewhere. What is looked at is what
the intake and the exchange make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition

from govbus import topics
from govbus.codec import Schema, bus_schema, decode_body, parse_schema, unframe
from govbus.errors import BrokerUnavailableError
from govbus.settings import BrokerSettings, ExchangeSettings
from govbus_processors.batch import Batch, Output, Place
from govbus_processors.checkpoint import Checkpoints
from govbus_processors.exchange import Exchange, SchemaBook
from govbus_processors.intake import Intake
from govbus_processors.membership import Membership
from govbus_processors.polling import Objects
from govbus_processors.reader import Stretch
from govbus_processors.routes import Policy
from support.policies import KEY, NOON, VALUE, Record

_BUS_SCHEMAS = {
    name: parse_schema(number, bus_schema(name))
    for number, name in enumerate(("decision", "worker", "progress", "dead-letter"), 900)
}


class Stored(Record):
    """A record that knows where it stands."""

    def __init__(self, place: Place, offset: int, key: bytes | None, value: bytes | None) -> None:
        super().__init__(offset, key, value)
        self.place = place

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]


class MemoryBus:
    """The logs of a bus, what was committed in one go, and how far the group has got."""

    def __init__(self) -> None:
        self.logs: dict[Place, list[Stored]] = {}
        self.ends: dict[Place, int] = {}
        self.committed: dict[Place, int] = {}
        self.notes: dict[Place, str] = {}
        """What the offsets were committed with."""

        self.transactions: list[dict[str, list[Output]]] = []
        self.schemas: dict[int, Schema] = {s.id: s for s in (VALUE, KEY, *_BUS_SCHEMAS.values())}

    def append(self, place: Place, key: bytes | None, value: bytes | None) -> None:
        """Write one record."""
        offset = self.ends.get(place, 0)
        self.ends[place] = offset + 1
        self.logs.setdefault(place, []).append(Stored(place, offset, key, value))

    def put(self, place: Place, record: Record) -> None:
        """Write a record as the tests' policies make them."""
        self.append(place, record.key(), record.value())

    def compact(self, place: Place) -> None:
        """Keep the last record of each key, and no tombstone: the source has forgotten."""
        last = {record.key(): record for record in self.logs[place]}
        self.logs[place] = [r for r in self.logs[place] if r is last[r.key()] and r.value() is not None]

    def table(self, topic: str) -> dict[str, dict[str, Any]]:
        """What a subscriber holds who has read everything, by the code of the row."""
        held: dict[str, dict[str, Any]] = {}
        for place in sorted(place for place in self.logs if place[0] == topic):
            for record in self.logs[place]:
                code = self.read(record.key())["code"]
                held.pop(code, None)
                if record.value() is not None:
                    held[code] = self.read(record.value())
        return held

    def read(self, data: bytes | None) -> Any:
        """Decode a framed record."""
        assert data is not None
        schema_id, body = unframe(data)
        return decode_body(self.schemas[schema_id], body)

    # ---- as a registry ----

    def schema(self, schema_id: int) -> Schema:
        return self.schemas[schema_id]

    def decode(self, data: bytes) -> Any:
        return self.read(data)


class _Consumer:
    """Gives what is in the logs from the positions on, as a librdkafka consumer in a group would."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.positions: dict[Place, int] = {}
        self._ready: list[Stored] = []
        self.serve: Callable[[], object] | None = None
        """What the next poll has to serve first: a rebalance. It goes on to read in the same call."""

        self.after: Callable[[], object] | None = None
        """The same for the poll after a poll that gave something: while what it gave is being committed."""

    def poll(self, _seconds: float) -> Stored | None:
        if self.serve is not None:
            serve, self.serve = self.serve, None
            serve()
        first = self._first()
        if first is not None and self.serve is None:
            self.serve, self.after = self.after, None
        return first

    def _first(self) -> Stored | None:
        for place in self.positions:
            for record in self.bus.logs.get(place, []):
                if record.offset() >= self.positions[place]:
                    self._ready.append(record)
            self.positions[place] = max(self.positions[place], self.bus.ends.get(place, 0))
        return self._ready.pop(0) if self._ready else None

    def consume(self, limit: int, timeout: float) -> list[Stored]:  # noqa: ARG002 - the client's signature
        given, self._ready = self._ready[:limit], self._ready[limit:]
        return given

    def committed(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:  # noqa: ARG002
        return [
            TopicPartition(*place, self.bus.committed.get(place, -1001), self.bus.notes.get(place, ""))
            for place in ((p.topic, p.partition) for p in places)
        ]

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self.positions = {(p.topic, p.partition): max(p.offset, 0) for p in places}
        self._ready = []

    def seek(self, place: TopicPartition) -> None:
        self._ready = [r for r in self._ready if r.place != (place.topic, place.partition)]
        self.positions[place.topic, place.partition] = max(place.offset, 0)

    def pause(self, _places: Any) -> None: ...
    def resume(self, _places: Any) -> None: ...
    def subscribe(self, _topics: Any, **_callbacks: Any) -> None: ...

    def consumer_group_metadata(self) -> object:
        return object()

    def get_watermark_offsets(self, _place: Any, cached: bool) -> tuple[int, int]:  # noqa: ARG002
        return (0, -1)


class _Reader:
    """Reads the logs beside the group."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus

    def end(self, place: Place) -> int:
        return self.bus.ends.get(place, 0)

    def topic_id(self, topic: str) -> str:
        return topic

    def read(self, place: Place, start: int, *, limit: int, seconds: float) -> Stretch:  # noqa: ARG002
        found = [r for r in self.bus.logs.get(place, []) if r.offset() >= start]
        if len(found) > limit:
            return Stretch(found[:limit], found[limit - 1].offset() + 1, ended=False)
        return Stretch(found, max(start, self.end(place)), ended=True)


class _Transactions:
    """Commits into the logs, or fails when it was told to."""

    transactional_id = "w"

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.fail_at: int | None = None
        """The commit with this number fails, counted from 0 on for this producer."""

        self.commits = 0
        self._open: dict[str, list[Output]] = {}

    def begin(self) -> None:
        assert not self._open, "the last transaction was neither committed nor aborted"

    def put(self, topic: str, records: Iterable[Output]) -> None:
        self._open.setdefault(topic, []).extend(Output(*record) for record in records)

    def commit(self, offsets: Sequence[TopicPartition], group: Any) -> None:  # noqa: ARG002
        self.commits += 1
        if self.commits - 1 == self.fail_at:
            raise BrokerUnavailableError("as the test wants it")
        for topic, records in self._open.items():
            for record in records:
                self.bus.append((topic, record.partition), record.key, record.value)
        self.bus.committed |= {(o.topic, o.partition): o.offset for o in offsets}
        self.bus.notes |= {(o.topic, o.partition): o.metadata for o in offsets}
        self.bus.transactions.append(self._open)
        self._open = {}

    def abort(self) -> None:
        self._open = {}


class Policies:
    """A directory that shows its last version; or, running, the next one at every look at it."""

    failure = None
    lease_seconds = 5.0

    def __init__(self, *versions: Policy, running: bool = False) -> None:
        self.versions = list(versions)
        self.running = running
        self.looks = 0
        self.stale = 0
        """How often it still says that it is not sure of its policy."""

    @property
    def policy(self) -> Policy:
        """The policy of the moment."""
        self.looks += 1
        return self.versions[min(self.looks, len(self.versions)) - 1 if self.running else -1]

    def fresh(self, *, since: float = 0.0) -> bool:  # noqa: ARG002 - the directory's signature
        self.stale -= self.stale > 0
        return not self.stale


class Hours:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        return self.moment

    def pass_by(self, span: timedelta) -> None:
        """Let time pass."""
        self.moment += span


class HandDriven:
    """One life of a worker on a bus: from reading its cursors to the moment that the test drops it."""

    def __init__(
        self,
        bus: MemoryBus,
        directory: Policies,
        folder: Path,
        *,
        hours: Hours | None = None,
        **settings: Any,
    ) -> None:
        self.bus = bus
        for policy in directory.versions:
            self.learn(policy)
        membership = Membership()
        self.exchange = Exchange(
            worker="w",
            schemas=SchemaBook(bus, wait_seconds=0.0),  # type: ignore[arg-type]
            membership=membership,
            pseudonym_secret=b"s" * 32,
        )
        self._books = self.exchange._schemas
        self.intake = Intake(
            worker="w",
            broker=BrokerSettings(),
            registry=bus,  # type: ignore[arg-type]
            settings=ExchangeSettings(**settings),
            directory=directory,  # type: ignore[arg-type]
            membership=membership,
            checkpoints=Checkpoints(folder),
            submit=self._work_out,
        )
        self.intake._clock = hours or Hours()  # type: ignore[assignment]
        self.consumer = _Consumer(bus)
        self.transactions = _Transactions(bus)
        self.intake._consumer = self.consumer  # type: ignore[assignment]
        self.intake._inlet = Objects(self.consumer)  # type: ignore[arg-type]
        self.intake._reader = _Reader(bus)  # type: ignore[assignment]
        self.intake._guarantee = self.transactions
        self.intake._schemas = dict(_BUS_SCHEMAS)

    def learn(self, policy: Policy) -> None:
        """Register the schemas of a policy's views."""
        for routes in policy.routes.values():
            for route in routes:
                for number, raw in (
                    (route.first.value_schema_id, route.view_raw),
                    (route.first.key_schema_id, route.key_raw),
                ):
                    self.bus.schemas[number] = parse_schema(number, raw)

    def assign(self, *places: Place) -> HandDriven:
        """Give it source partitions, as a rebalance does."""
        self.intake._on_assign(self.consumer, [TopicPartition(*place) for place in places])  # type: ignore[arg-type]
        return self

    def turn(self, times: int = 1) -> None:
        """Let the thread go round."""
        for _ in range(times):
            self.intake._turn()
            for place in self.intake._held:
                self.intake._held[place] = 0.0  # as if its time had come

    def look_for_ends(self) -> None:
        """Find out how far the partitions go, as is done now and then, and tell what came of it."""
        self.intake._look_at = 0.0
        self.intake._look_for_ends()
        self.intake._commit_report(stopping=False)

    def _work_out(self, batch: Batch) -> None:
        outcome = self.exchange.process(batch)
        while outcome.waiting and self._books.fetch():
            self.exchange.rollback()
            outcome = self.exchange.process(batch)
        batch.outcome.set_result(outcome)


def decisions(transaction: dict[str, list[Output]], bus: MemoryBus) -> list[dict[str, Any]]:
    """What an auditor is told in one transaction."""
    return [bus.read(record.value) for record in transaction.get(topics.DECISIONS, [])]
