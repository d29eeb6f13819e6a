"""What moves on the bus: changes at a source, and the place of a record in Kafka.

A change is one create, update or delete of one keyed row. It carries the whole
row as it is afterwards (or nothing, for a delete), so that publishing it twice
does no harm and a reader never needs the change before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAddress:
    """Where one record stands: enough to find it again, and no part of what it says."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row of a source as it is after a change."""

    key: Mapping[str, object]
    """The key fields by name, each as the contract's Avro type has it in Python."""

    row: Mapping[str, object] | None
    """The whole row including its key fields, or None: the row is gone."""

    changed_at: datetime | None = None
    """When the source committed it, with time zone; None where the source does not say."""

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError("Change.key needs at least one field")
        if self.changed_at is not None and self.changed_at.tzinfo is None:
            raise ValueError("Change.changed_at needs a time zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One record as a subscriber reads it from its delivery topic."""

    at: RecordAddress
    key: bytes
    """Confluent-framed Avro of the key fields, as the view shows them."""

    value: bytes | None
    """Confluent-framed Avro of the view; None is a tombstone: the row left the view or is gone."""

    timestamp_ms: int
    """Commit time at the source, in milliseconds since 1970 UTC."""
