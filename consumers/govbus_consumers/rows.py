"""Turn the deliveries of one grant into changes of its landing table. No I/O but the schemas it is given.

For each delivery, the first that applies:

1. The schema that a value names must carry this agreement (its ``govbus`` attribute), or the
   delivery belongs to someone else and is rejected.
2. A delivery of a version up to one under which the grant ended, or had another key, is passed over.
3. The key is a framed Avro record of the table's key, or the delivery is rejected. A tombstone under
   an earlier form of this key (before it was pseudonymised, say) names no row of the table and is
   passed over.
4. No value: the row is gone from the view.
5. The value must decode to its last byte, and name the row that the key names. Fields that the table
   has no column for are left out: they were granted once and are not any more.

Rejected deliveries become dead letters with a code, and the ones after them go on. What is asked
for here and is not there yet (the registry) raises, and the same deliveries are read again.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

import orjson

from govbus.catalogue import ResourceKind
from govbus.codec import HEADER_BYTES, MAGIC, Schema, header
from govbus.errors import (
    ContractViolationError,
    RejectedRecordError,
    UndecodableRecordError,
    UnknownSchemaError,
)
from govbus.splice import MalformedAvroError, Walker
from govbus_consumers.sink import DeadLetter, Origin, PartitionChanges, Position
from govbus_consumers.tables import Kind, LandingTable, ViewField, fields_of, full_name

Row = tuple[Any, ...]
_Convert = Callable[[Any], Any]


class SchemaAheadError(Exception):
    """A delivery shows fields that the table lacks, under a version that its subscription has not reached.

    Raised by a reader to whoever drives it, who brings the table up to the schema and reads again.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__(f"schema {schema.id} is ahead of its subscription")
        self.schema = schema


class _EarlierKeyError(ContractViolationError):
    """A key of the same fields in another form."""


class Message(Protocol):
    """What is read of a Kafka message."""

    def key(self) -> bytes | None:
        """Return the key's bytes."""

    def value(self) -> bytes | None:
        """Return the value's bytes; None for a tombstone."""

    def offset(self) -> int:
        """Return the place in the partition."""

    def timestamp(self) -> tuple[int, int]:
        """Return kind and milliseconds since 1970."""


class _Picker:
    """Takes some top-level fields out of Avro bodies of one schema, strictly and without making a record.

    The kernel that the exchange uses checks a body to its last byte and decodes only the fields asked
    for: a quarter of the time that fastavro takes for all of them, where the kernel is compiled.
    """

    def __init__(self, schema: Schema, fields: Sequence[str | None], what: str) -> None:
        self._walker = Walker(schema.raw)
        self._what = f"not {what} of schema {schema.id}"
        names = self._walker.names
        self._places = tuple(-1 if field is None else names.index(field) for field in fields)
        self._whole = -1 not in self._places

    def __call__(self, data: bytes) -> Row:
        """Return the fields in order, None for each None; UndecodableRecordError when the bytes are wrong."""
        value = self._walker.value
        try:
            self._walker.walk(data, HEADER_BYTES)
            if self._whole:
                return tuple(map(value, self._places))
            return tuple([value(place) if place >= 0 else None for place in self._places])
        except MalformedAvroError as error:
            raise UndecodableRecordError(f"{self._what}: {error}") from None
        except Exception as error:
            # A value that its logical type cannot hold, such as a date in the year 20000: fastavro's
            # readers let whatever that provokes escape, and it may show the value.
            raise UndecodableRecordError(f"{self._what}: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class _ValuePlan:
    """How the values under one schema become rows of the table as it is now."""

    schema_id: int
    passed_over: bool
    shows_key: bool
    """Whether the view shows all key fields, so that the value can be compared with the Kafka key."""

    pick: Callable[[bytes], Row]
    """Takes the key fields, where they are shown, and then the others."""

    converts: tuple[tuple[int, _Convert], ...]


class RowReader:
    """Reads deliveries for one landing table. Made anew when the table has changed."""

    def __init__(
        self,
        table: LandingTable,
        *,
        agreement: Mapping[str, Any],
        schema: Callable[[int], Schema],
        converts: Mapping[Kind, _Convert],
    ) -> None:
        """Prepare to read.

        Args:
            table: where the rows go.
            agreement: the ``govbus`` attribute of the subscription's own view schema.
            schema: gives the schema of an id; may raise UnknownSchemaError or a RetriableError.
            converts: what the sink needs done to values of a kind; kinds not named go as they are.
        """
        self.table = table
        self._agreement = agreement
        self._version = agreement["version" if "grant" in agreement else "contract"]
        self._schema = schema
        self._converts = dict(converts) | {Kind.JSON: _to_json}
        self._values: dict[bytes, _ValuePlan | RejectedRecordError] = {}
        self._keys: dict[bytes, _Picker | RejectedRecordError] = {}
        self._key_converts = self._converts_for(table.key)
        self._event = table.kind is ResourceKind.EVENT

    def read(
        self, messages: Sequence[Message], *, partition: int, position: Position, landed_at: datetime
    ) -> PartitionChanges:
        """Read deliveries of one partition, in order; those below ``position`` have landed already.

        Raises:
            RetriableError: a schema is needed and cannot be had now; nothing was read.
            SchemaAheadError: the table has to be brought up to a schema first; nothing was read.
        """
        changes: list[tuple[Row, Row | None]] = []
        offsets: list[int] = []
        rejected: list[DeadLetter] = []
        stamp = self._converts.get(Kind.INSTANT, _same)(landed_at)
        trailer: Row = (stamp, partition) if self._event else (stamp,)
        values, key_converts, event = self._values, self._key_converts, self._event
        width = len(self.table.key)
        next_offset = position.next_offset
        for message in messages:
            offset = message.offset()
            if offset < next_offset:
                continue
            next_offset = offset + 1
            value = message.value()
            try:
                if value is None:
                    if event:
                        raise ContractViolationError("a tombstone in a topic of events")
                    try:
                        key = self._key(message.key())
                    except _EarlierKeyError:
                        continue
                    changes.append((_converted(key, key_converts), None))
                    offsets.append(offset)
                    continue
                plan = values.get(value[:HEADER_BYTES]) or self._plan(value)
                if plan.__class__ is not _ValuePlan:
                    raise plan.with_traceback(None)  # type: ignore[union-attr]
                if plan.passed_over:
                    continue
                key = self._key(message.key())
                row = plan.pick(value)
                if not plan.shows_key:
                    row = key + row
                elif row[:width] != key:
                    raise ContractViolationError("key and value name different rows")
                if plan.converts:
                    row = _converted(row, plan.converts)
                    key = row[:width]
                changes.append(
                    ((partition, offset) if event else key, (*row, plan.schema_id, offset, *trailer))
                )
                offsets.append(offset)
            except RejectedRecordError as error:
                rejected.append(
                    DeadLetter(offset=offset, code=error.code, detail=error.detail, origin=_origin(message))
                )
        return PartitionChanges(
            table=self.table,
            partition=partition,
            position=position,
            next_offset=next_offset,
            changes=changes,
            offsets=offsets,
            dead_letters=rejected,
            origin=_Origins(messages),
            landed_at=landed_at,
        )

    def refuse(self, schema: Schema, error: RejectedRecordError) -> None:
        """Reject from now on whatever is written under a schema."""
        self._values[header(schema.id)] = error

    def _plan(self, value: bytes) -> _ValuePlan | RejectedRecordError:
        head = value[:HEADER_BYTES]
        if len(head) < HEADER_BYTES or head[0] != MAGIC:
            return UndecodableRecordError("no Confluent header")
        plan: _ValuePlan | RejectedRecordError
        try:
            plan = self._value_plan(self._schema(int.from_bytes(head[1:], "big")))
        except UnknownSchemaError as error:
            return error  # not kept: the registry may learn of it
        except RejectedRecordError as error:
            plan = error
        self._values[head] = plan
        return plan

    def _value_plan(self, schema: Schema) -> _ValuePlan:
        version = agreed_version(schema, self._agreement)
        fields = {field.name: field for field in fields_of(schema.raw)}
        if version > self._version and not self._covers(fields.values()):
            raise SchemaAheadError(schema)
        picks: list[str | None] = []
        for column in self.table.columns:
            field = fields.get(column.field)
            picks.append(column.field if field is not None and column.type.holds(field.type) else None)
        keys = [column.field for column in self.table.key]
        shown = keys if fields.keys() >= set(keys) else []
        return _ValuePlan(
            schema_id=schema.id,
            passed_over="grant" in self._agreement and version <= self.table.ended,
            shows_key=bool(shown),
            pick=_Picker(schema, [*shown, *picks], "a record"),
            converts=self._converts_for([*self.table.key, *self.table.columns]),
        )

    def _covers(self, fields: Iterable[ViewField]) -> bool:
        columns = {column.field: column.type for column in (*self.table.columns, *self.table.key)}
        return all(field.name in columns and columns[field.name].holds(field.type) for field in fields)

    def _key(self, key: bytes | None) -> Row:
        if key is None or len(key) < HEADER_BYTES or key[0] != MAGIC:
            raise UndecodableRecordError("the key has no Confluent header")
        read = self._keys.get(key[:HEADER_BYTES])
        if read is None:
            try:
                read = self._key_reader(self._schema(int.from_bytes(key[1:HEADER_BYTES], "big")))
            except UnknownSchemaError:
                raise
            except RejectedRecordError as error:
                read = error
            self._keys[key[:HEADER_BYTES]] = read
        if isinstance(read, RejectedRecordError):
            raise read.with_traceback(None)  # the same object again: frames would pile up on it
        return read(key)

    def _key_reader(self, schema: Schema) -> _Picker:
        fields = fields_of(schema.raw)
        key = self.table.key
        if [field.name for field in fields] != [column.field for column in key]:
            raise ContractViolationError("the key is not of this table's key fields")
        fits = all(column.type.holds(field.type) for column, field in zip(key, fields, strict=True))
        if not fits or full_name(schema.raw) != self.table.key_name:
            raise _EarlierKeyError("the key is an earlier form of this table's key, or a later one")
        return _Picker(schema, [field.name for field in fields], "a key")

    def _converts_for(self, columns: Sequence[Any]) -> tuple[tuple[int, _Convert], ...]:
        return tuple(
            (place, self._converts[column.type.kind])
            for place, column in enumerate(columns)
            if column.type.kind in self._converts
        )


def agreed_version(schema: Schema, agreement: Mapping[str, Any]) -> int:
    """Return the version of the agreement that a view schema names.

    That is the grant's version, or the contract's in a topic that several grants share.

    Raises:
        ContractViolationError: the schema names another agreement than ``agreement``, or none.
    """
    said = schema.raw.get("govbus")
    name, number = ("grant", "version") if "grant" in agreement else ("view", "contract")
    if not isinstance(said, Mapping) or name not in said or said[name] != agreement.get(name):
        raise ContractViolationError(f"schema {schema.id} is not of this agreement")
    version = said.get(number)
    if not isinstance(version, int):
        raise ContractViolationError(f"schema {schema.id} does not say its version")
    return version


def _origin(message: Message) -> Origin:
    return Origin(key=message.key(), value=message.value(), timestamp_ms=message.timestamp()[1])


class _Origins:
    """Finds the bytes behind a row again, by offset; used only when the store refuses a row."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages

    def __call__(self, offset: int) -> Origin:
        return next(_origin(message) for message in self._messages if message.offset() == offset)


def _converted(cells: Row, converts: Sequence[tuple[int, _Convert]]) -> Row:
    changed = list(cells)
    try:
        for place, convert in converts:
            if changed[place] is not None:
                changed[place] = convert(changed[place])
    except (TypeError, ValueError, OverflowError) as error:
        raise ContractViolationError(
            f"a value that the store has no form for: {type(error).__name__}"
        ) from None
    return tuple(changed)


def _same(value: Any) -> Any:
    return value


def _to_json(value: Any) -> str:
    """Write what has no column type of its own; bytes as Base64, decimals as text, exactly."""
    return orjson.dumps(value, default=_json_default).decode()


def _json_default(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, date | datetime | time | UUID):
        return str(value)
    raise TypeError(type(value).__name__)
