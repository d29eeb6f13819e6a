"""What was written, what was granted, and what follows from both; shares no code with the bus.

A subscriber's stream is a function of two lists: the records that the owner
wrote, partition by partition, and the versions that its grant went through.
Every record written has a timestamp of its own, and a delivery carries the
timestamp of the record that it comes from. So whatever is read from a delivery
topic, a tombstone or a row of which one masked field is left, can be traced to
the one record that it may come from.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One record of the owner."""

    code: str
    """The key."""

    row: Row | None
    """None: deleted."""

    at: int
    """Milliseconds; no other record of the resource has the same."""


@dataclass(slots=True)
class Source:
    """All records of one resource, in the order of each partition."""

    partitions: int
    event: bool = False
    """Events happen once: they have no later versions and are not deleted."""

    written: list[list[Written]] = field(default_factory=list)
    _place: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.written = [[] for _ in range(self.partitions)]

    def add(self, partition: int, record: Written) -> None:
        """Note a record before it is written."""
        self._place[record.at] = (partition, len(self.written[partition]))
        self.written[partition].append(record)

    def index(self, partition: int, at: int) -> int | None:
        """Say which record of a partition has a timestamp; None when none has."""
        place = self._place.get(at)
        return place[1] if place is not None and place[0] == partition else None

    def __len__(self) -> int:
        return len(self._place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A row filter: as the grant words it, and as Python means it."""

    sql: str | None
    true: Callable[[Row], bool]
    """Whether the filter is TRUE; unknown is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One granted field: the transform as the grant words it, and what it makes of a value."""

    name: str
    transform: Any
    shown: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one grant version lets through."""

    rows: Rows
    fields: tuple[Field, ...]
    key: Field

    @property
    def name(self) -> str:
        """Equal for views that let through the same, and for no others."""
        return json.dumps([self.rows.sql, [[f.name, f.transform] for f in self.fields]])

    @property
    def filtered(self) -> bool:
        """Whether rows can leave the view while they stay at the owner."""
        return self.rows.sql is not None

    def show(self, row: Row) -> dict[str, Any]:
        """The row as the subscriber gets it."""
        return {f.name: f.shown(row[f.name]) for f in self.fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a grant."""

    number: int
    view: View
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier:
    """From some offsets on, it is certain what is not delivered any more."""

    offsets: Sequence[int]
    """By partition: how far a reader of committed records could read when the barrier had been passed."""

    least_version: int
    """Older versions deliver nothing from there on."""

    closed: bool
    """Nothing at all is delivered, until :attr:`reopened`."""

    reopened: list[int] = field(default_factory=list)
    """By partition: how far one could read just before delivery was allowed again; empty: never."""


@dataclass(slots=True)
class Agreement:
    """One delivery topic, and all that it was ever filled under."""

    topic: str
    source: Source
    versions: list[Version] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)
    open: bool = True
    """Whether the newest version delivers; for a topic that grants share: whether any of them does."""

    @property
    def latest(self) -> Version:
        return self.versions[-1]

    def table(self) -> dict[str, dict[str, Any]]:
        """What the subscriber holds when it has been brought to the present: rows by delivered key."""
        view = self.latest.view
        held: dict[str, dict[str, Any]] = {}
        for records in self.source.written:
            for record in records:
                key = view.key.shown(record.code)
                held.pop(key, None)
                if record.row is not None and view.rows.true(record.row):
                    held[key] = view.show(record.row)
        return held


def keep(name: str) -> Field:
    """A field as it is."""
    return Field(name=name, transform="keep", shown=lambda value: value)


def pseudonym(name: str, secret: bytes, subscriber: str, purpose: str) -> Field:
    """A text as a pseudonym, worked out from the words of its specification.

    HKDF with SHA-256 (RFC 5869) gives the key of subscriber, purpose and epoch 1; the pseudonym is the
    HMAC of ``s`` and the text under it, 32 hexadecimal digits.
    """
    extracted = hmac.new(b"govbus pseudonym 1", secret, hashlib.sha256).digest()
    info = json.dumps([subscriber, purpose, 1]).encode()
    key = hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()

    def shown(value: str) -> str:
        return hmac.new(key, b"s" + value.encode(), hashlib.sha256).hexdigest()[:32]

    return Field(name=name, transform="pseudonym", shown=shown)
