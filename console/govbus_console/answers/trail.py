"""What the bus still holds of one row: its versions, its deliveries, and the decisions about its batches.

Reads one partition of each topic, from its beginning to its end, committed
records only, and keeps nothing but the records of the one key. It joins no
group and moves no offset. Does I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aiokafka.partitioner import murmur2

from govbus import topics
from govbus.catalogue import Resource, ResourceKind
from govbus.codec import encode, unframe
from govbus.contract import DataContract
from govbus.deliverytrail import BatchDecision, Delivered
from govbus.errors import RefusedError, RejectedRecordError, UnknownSchemaError
from govbus.event import RecordAddress
from govbus.explanation import GrantVersion, RowHistory, RowVersion
from govbus.pseudonym import derive_key
from govbus.settings import ExchangeSettings, read_secret
from govbus_console.control.bus import PSEUDONYM_SECRET, Bus
from govbus_console.control.reading import committed_offsets, last_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

    from govbus.codec import Schema
    from govbus.grant import Grant
    from govbus.view import PseudonymKeys

_CLOCKS_APART = timedelta(days=1)
"""Decisions are looked for from so long before the change: its source may have a clock that is ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Decision records about one partition of a resource."""

    found: tuple[BatchDecision, ...]
    whole: bool
    """The topic has not forgotten any yet."""

    def of(self, label: str) -> tuple[BatchDecision, ...]:
        """Those of one grant, or of one shared view."""
        return tuple(one for one in self.found if one.label == label)


class Tracks:
    """The bus, searched for one row of one resource."""

    def __init__(
        self, bus: Bus, resource: Resource, contract: DataContract, key: Mapping[str, object]
    ) -> None:
        """Prepare the search; asks the registry for the key's schema.

        Raises:
            RefusedError: the key does not fit the key's schema.
        """
        self._bus = bus
        self._resource = resource
        self._state = contract.kind is ResourceKind.STATE
        self._schemas: dict[int, Schema] = {}
        self._secret = _secret(bus)
        schema = bus.registry.schema(resource.key_schema_id)
        try:
            self.key = encode(schema, key)
        except (ValueError, TypeError, OverflowError):
            raise RefusedError(f"that is no key of {resource.ref}") from None
        self.partition = (murmur2(self.key) & 0x7FFFFFFF) % resource.partitions

    def history(self) -> RowHistory:
        """Read what the captured topic holds of the row.

        A key lives where every Kafka client puts it (murmur2). If nothing is there, a publisher may have
        put it elsewhere, and the other partitions are searched as well.
        """
        topic = topics.captured(self._resource.owner, self._resource.name)
        home = self.partition
        found, complete = self._versions(topic, home)
        for other in range(self._resource.partitions):
            if found:
                break
            if other != home:
                found, whole = self._versions(topic, other)
                complete = complete and whole
                if found:
                    self.partition = other
        return RowHistory(versions=found, complete=complete)

    def _versions(self, topic: str, partition: int) -> tuple[tuple[RowVersion, ...], bool]:
        found, expected, complete = [], 0, True
        for message in last_records(self._bus.broker, topic, None, partition=partition):
            # A gap is what compaction leaves, or a transaction's marker; which of them, nothing says.
            complete = complete and message.offset() == expected
            expected = message.offset() + 1
            if message.key() == self.key:
                found.append(
                    RowVersion(
                        at=_address(message),
                        key=message.key(),
                        value=message.value(),
                        changed_at=_moment(message),
                    )
                )
        if not expected:
            # Nothing to be seen is nothing taken away only where nothing ever was.
            complete = not any(self._bus.cluster.end_offsets(topic).values())
        return tuple(found), complete

    def deliveries(self, topic: str, key: bytes) -> tuple[Delivered, ...] | None:
        """Read what a delivery topic holds under a delivered key; None when there is no such topic."""
        found = []
        try:
            for message in last_records(self._bus.broker, topic, None, partition=self.partition):
                if message.key() == key:
                    found.append(
                        Delivered(
                            at=_address(message), schema_id=_schema_id(message), changed_at=_moment(message)
                        )
                    )
        except RefusedError:
            return None
        return tuple(found)

    def decisions(self, since: datetime | None) -> Decisions:
        """Read the decision records about the row's partition, from shortly before ``since`` on."""
        start = None if since is None else since - _CLOCKS_APART
        found = []
        try:
            for message in last_records(self._bus.broker, topics.DECISIONS, None, since=start):
                record = self._bus.registry.decode(message.value())
                if record["resource"] == self._resource.ref and record["partition"] == self.partition:
                    found.append(
                        BatchDecision(
                            label=record["grant"],
                            version=record["version"],
                            partition=record["partition"],
                            first_offset=record["first_offset"],
                            last_offset=record["last_offset"],
                            permitted=record["effect"] == "permit",
                            delivered=record["delivered"],
                            value_schema_id=record["value_schema_id"],
                            decided_at=record["decided_at"],
                        )
                    )
            with closing(last_records(self._bus.broker, topics.DECISIONS, None)) as records:
                first = next(records, None)
        except RefusedError:
            return Decisions(found=(), whole=False)
        return Decisions(found=tuple(found), whole=first is not None and first.offset() == 0)

    def exchanged_to(self) -> int | None:
        """How far the exchange has worked off the row's partition; None before its first batch."""
        topic = topics.captured(self._resource.owner, self._resource.name)
        done = committed_offsets(self._bus.broker, topics.EXCHANGE_GROUP, topic, [self.partition])
        return done.get(self.partition)

    def schemas(self, ids: Iterable[int]) -> dict[int, Schema]:
        """Return the schemas of these ids that the registry knows."""
        for schema_id in ids:
            if schema_id not in self._schemas:
                try:
                    self._schemas[schema_id] = self._bus.registry.schema(schema_id)
                except UnknownSchemaError:
                    continue
        return dict(self._schemas)

    def key_schema(self, granted: GrantVersion) -> Schema:
        """Return the schema of the keys that are delivered under a grant version."""
        return self._bus.registry.schema(granted.published.key_schema_id)

    def pseudonym_key(self, grant: Grant) -> PseudonymKeys | None:
        """Give the keys of a grant's pseudonyms; None when the secret is not at hand."""
        secret = self._secret
        if secret is None:
            return None
        return lambda epoch: derive_key(
            secret, subscriber=grant.subscriber, purpose=grant.purpose, epoch=epoch
        )


def _secret(bus: Bus) -> bytes | None:
    configured = ExchangeSettings().pseudonym_secret_file
    at_home = bus.home.secrets / f"{PSEUDONYM_SECRET}.password"
    path = configured or (at_home if at_home.exists() else None)
    return None if path is None else read_secret(path).encode()


def _address(message: Message) -> RecordAddress:
    return RecordAddress(topic=message.topic(), partition=message.partition(), offset=message.offset())


def _moment(message: Message) -> datetime:
    return datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)


def _schema_id(message: Message) -> int | None:
    try:
        return None if message.value() is None else unframe(message.value())[0]
    except RejectedRecordError:
        return None
