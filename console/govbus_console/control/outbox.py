"""Tell Kafka what the store has decided, in that order and to the last record. Does I/O.

The store commits a decision together with the records that Kafka must be told
(:class:`~.store.OutboxRow`); only then are they published. Promises:

1. A crash anywhere loses nothing: what is not marked as published is published
   by whoever comes next. A record may be published twice; each is the whole
   state of its key, so the second does no harm.
2. Never an older state after a newer one. Publishing happens under the store's
   write lock, and every publisher first takes over the transactional id
   ``govbus.control``: one that lost its lock without noticing is fenced, and what
   it had open is aborted.
3. All records of one round become visible together, acknowledged by all replicas.
4. A record that is held for another one is published only after the revocation
   barrier of that one, so that a subscriber is told to purge when it is certain
   that nothing more will arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Message, Producer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from govbus import topics
from govbus.codec import Registry, Schema, bus_schema, encode, parse_schema
from govbus.errors import BrokerUnavailableError
from govbus.settings import BrokerSettings
from govbus_console.control import barrier
from govbus_console.control.bus import Bus, naming, register
from govbus_console.control.store import ControlStore, OutboxRow

TRANSACTIONAL_ID = "govbus.control"

_SECONDS = 15.0
_TRANSACTION_MS = 10_000
"""How long a publisher that died may keep readers of committed records waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What one round of telling Kafka came to."""

    published: int = 0
    barriers: tuple[barrier.Passed, ...] = field(default=())


def settle(store: ControlStore, bus: Bus) -> Settled:
    """Publish everything that is due; wait for revocation barriers where records are held for one.

    Raises:
        BrokerUnavailableError, RegistryUnavailableError: nothing is lost; settle again later.
        FencedError: another process publishes at this moment; settle again.
    """
    published = _publish(store, bus, after_barrier=frozenset())
    passed: list[barrier.Passed] = []
    waiting = _held(store)
    if waiting:
        offset = max(offset for _, offset in waiting)
        passed.append(barrier.wait(bus, offset))
        published += _publish(store, bus, after_barrier=frozenset(seq for seq, _ in waiting))
    return Settled(published=published, barriers=tuple(passed))


def pending(store: ControlStore, *, before: datetime | None = None) -> int:
    """How many records Kafka has still to be told of; with ``before``, of those decided before that."""
    query = select(func.count()).select_from(OutboxRow).where(OutboxRow.published_at.is_(None))
    if before is not None:
        query = query.where(OutboxRow.made_at < before)
    with store.reading() as session:
        return session.scalar(query) or 0


def _held(store: ControlStore) -> list[tuple[int, int]]:
    """Records that wait for a barrier: their place, and the offset that the workers must have applied."""
    with store.reading() as session:
        rows = session.scalars(
            select(OutboxRow).where(OutboxRow.published_at.is_(None), OutboxRow.held_for.is_not(None))
        )
        held = []
        for row in rows:
            cause = session.get_one(OutboxRow, row.held_for)
            if cause.kafka_offset is not None:
                held.append((row.seq, cause.kafka_offset))
        return held


def _publish(store: ControlStore, bus: Bus, *, after_barrier: frozenset[int]) -> int:
    if pending(store) == 0:
        return 0
    with store.locked() as session:
        due = [
            row
            for row in session.scalars(
                select(OutboxRow).where(OutboxRow.published_at.is_(None)).order_by(OutboxRow.seq)
            )
            if row.held_for is None or row.seq in after_barrier
        ]
        if due:
            offsets = publish(bus.broker, _as_records(due, bus.registry))
            _mark(session, due, offsets)
        return len(due)


def _as_records(rows: Sequence[OutboxRow], registry: Registry) -> list[dict[str, Any]]:
    kinds = {(row.topic, row.schema) for row in rows}
    schemas = {(topic, name): _schema(topic, name, registry) for topic, name in kinds}
    return [
        {
            "topic": row.topic,
            "key": row.record_key,
            "value": encode(schemas[row.topic, row.schema], row.record),
        }
        for row in rows
    ]


def _schema(topic: str, name: str, registry: Registry) -> Schema:
    raw = bus_schema(name)
    # govbus.grants holds two kinds of record, so its subjects name topic and record.
    subject = f"{topic}-{raw['namespace']}.{raw['name']}" if topic == topics.GRANTS else f"{topic}-value"
    return parse_schema(register(registry, subject, raw), raw)


def _mark(session: Session, rows: Sequence[OutboxRow], offsets: Sequence[int]) -> None:
    now = datetime.now(UTC)
    for row, offset in zip(rows, offsets, strict=True):
        row.published_at = now
        row.kafka_offset = offset
    session.flush()


def publish(broker: BrokerSettings, records: Sequence[dict[str, Any]]) -> list[int]:
    """Make records visible, all of them or none, and return their offsets.

    Args:
        broker: as the administrator.
        records: topic, key and value of each.

    Raises:
        BrokerUnavailableError: not acknowledged in time; perhaps visible, perhaps not.
        FencedError: another publisher has taken over.
    """
    offsets: list[int | None] = [None] * len(records)

    def note(number: int) -> Any:
        def delivered(error: Any, message: Message) -> None:
            if error is None:
                offsets[number] = message.offset()

        return delivered

    producer = Producer(
        broker.client(
            transactional_id=TRANSACTIONAL_ID,
            transaction_timeout_ms=_TRANSACTION_MS,
            linger_ms=0,
        )
        | {"log_level": 0}
    )
    with naming("publish what was decided"):
        producer.init_transactions(_SECONDS)
        producer.begin_transaction()
        for number, record in enumerate(records):
            producer.produce(
                record["topic"], key=record["key"], value=record["value"], on_delivery=note(number)
            )
            producer.poll(0)
        producer.commit_transaction(_SECONDS)
    known = [offset for offset in offsets if offset is not None]
    if len(known) < len(records):
        raise BrokerUnavailableError("the broker has not acknowledged what was published")
    return known
