"""Decide what a landing table looks like, and how it changes when the view does. No I/O.

A landing table is made from the view schema of its grant:

- the key fields are the primary key, every other field of the view is a column that may be NULL;
- Avro's logical types get a type of their own; records, arrays, maps and unions of several types
  become JSON text, because a subscriber can query that in any store;
- ``_govbus_schema``, ``_govbus_offset`` and ``_govbus_landed_at`` say under which schema (and so
  under which agreement and version), from where and when a row came;
- a table of an ``event`` resource keeps every event, so its primary key is the event's place:
  ``_govbus_partition`` and ``_govbus_offset``.

When another version of the grant shows other fields, :func:`evolve` says what to do:

1. A new field gets a column. Rows landed before have NULL there until they are delivered again.
2. A field that left the view is treated as the grant says: *keep* leaves the column alone, *blank*
   sets it to NULL, *delete* drops it. No later record fills it.
3. A type that only grew (int to long) changes in place. Any other change of type drops the column
   and makes a new one: a value under the old meaning is not a value under the new one.
4. Another key makes another table: all rows go, because no later record can name them. Another
   key is one of other fields or types, or of the same fields pseudonymised: the name of its schema
   tells the two apart.

Names come from other departments, so they are quoted wherever they meet SQL, and they never meet
each other: what differs only in case or is too long for a store gets a name of its own, which stays.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from govbus.avro import Definitions, SchemaError
from govbus.catalogue import ResourceKind
from govbus.errors import ContractViolationError
from govbus.grant import DataDuty

SCHEMA_COLUMN = "_govbus_schema"
OFFSET_COLUMN = "_govbus_offset"
LANDED_AT_COLUMN = "_govbus_landed_at"
PARTITION_COLUMN = "_govbus_partition"
RESERVED = "_govbus_"
"""No field's column and no landing table begins so."""

_OWN_NAMES = (SCHEMA_COLUMN, OFFSET_COLUMN, LANDED_AT_COLUMN, PARTITION_COLUMN)

LONGEST_NAME = 63
"""Bytes. PostgreSQL cuts off what is longer, and then two names could become one."""


class Kind(StrEnum):
    """What a column holds. Each sink says how its store spells it."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    BIGINT = "bigint"
    REAL = "real"
    DOUBLE = "double"
    TEXT = "text"
    BYTES = "bytes"
    DATE = "date"
    TIME = "time"
    INSTANT = "instant"
    """A moment in UTC."""

    LOCAL = "local"
    """Date and time of day without a time zone."""

    DECIMAL = "decimal"
    UUID = "uuid"
    JSON = "json"


_PRIMITIVE = {
    "null": Kind.TEXT,
    "boolean": Kind.BOOLEAN,
    "int": Kind.INTEGER,
    "long": Kind.BIGINT,
    "float": Kind.REAL,
    "double": Kind.DOUBLE,
    "string": Kind.TEXT,
    "bytes": Kind.BYTES,
    "enum": Kind.TEXT,
    "fixed": Kind.BYTES,
    "record": Kind.JSON,
    "error": Kind.JSON,
    "array": Kind.JSON,
    "map": Kind.JSON,
}
_LOGICAL = {
    ("int", "date"): Kind.DATE,
    ("int", "time-millis"): Kind.TIME,
    ("long", "time-micros"): Kind.TIME,
    ("long", "timestamp-millis"): Kind.INSTANT,
    ("long", "timestamp-micros"): Kind.INSTANT,
    ("long", "local-timestamp-millis"): Kind.LOCAL,
    ("long", "local-timestamp-micros"): Kind.LOCAL,
    ("string", "uuid"): Kind.UUID,
    ("bytes", "decimal"): Kind.DECIMAL,
    ("fixed", "decimal"): Kind.DECIMAL,
}
"""The logical types that fastavro decodes; it hands out every other one as the type beneath."""

_GROWS = {(Kind.INTEGER, Kind.BIGINT), (Kind.REAL, Kind.DOUBLE), (Kind.INTEGER, Kind.DOUBLE)}
_SPELLED = re.compile(r"([a-z]+)(?:\((\d+),(\d+)\))?")


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of one column; precision and scale only for decimals."""

    kind: Kind
    precision: int = 0
    scale: int = 0

    def __str__(self) -> str:
        return f"{self.kind}({self.precision},{self.scale})" if self.kind is Kind.DECIMAL else str(self.kind)

    @classmethod
    def parse(cls, text: str) -> ColumnType:
        """Read back what ``str`` wrote."""
        match = _SPELLED.fullmatch(text)
        if match is None:
            raise ValueError("not the name of a column type")
        return cls(Kind(match[1]), int(match[2] or 0), int(match[3] or 0))

    def holds(self, other: ColumnType) -> bool:
        """Whether each value of ``other`` is the same value in a column of this type."""
        if self == other or (other.kind, self.kind) in _GROWS:
            return True
        return (
            self.kind is other.kind is Kind.DECIMAL
            and self.scale == other.scale
            and self.precision >= other.precision
        )


@dataclass(frozen=True, slots=True)
class ViewField:
    """One field of a view schema."""

    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a landing table, and the field that fills it."""

    field: str
    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingTable:
    """Where the deliveries of one grant land. What the sink keeps about itself, word for word."""

    grant: str
    name: str
    version: int
    """Of the grant, as last seen."""

    kind: ResourceKind
    topic: str
    key_name: str
    """Full name of the key's schema: it differs between a key that is kept and its pseudonym."""

    key: tuple[Column, ...]
    columns: tuple[Column, ...]
    """Columns of the fields that the view has now, without the key."""

    retired: tuple[Column, ...] = ()
    """Columns that stayed when their fields left the view. Nothing is written to them."""

    ended: int = 0
    """Deliveries under this version or older are passed over: the grant ended then, or had another key."""

    state: str = "active"

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a row as it is written: key, fields, then where it came from."""
        place = (PARTITION_COLUMN,) if self.kind is ResourceKind.EVENT else ()
        fields = (column.name for column in (*self.key, *self.columns))
        return (*fields, SCHEMA_COLUMN, OFFSET_COLUMN, LANDED_AT_COLUMN, *place)

    @property
    def types(self) -> tuple[ColumnType, ...]:
        """The types of :attr:`names`."""
        place = (ColumnType(Kind.INTEGER),) if self.kind is ResourceKind.EVENT else ()
        fields = (column.type for column in (*self.key, *self.columns))
        trailer = (ColumnType(Kind.INTEGER), ColumnType(Kind.BIGINT), ColumnType(Kind.INSTANT))
        return (*fields, *trailer, *place)

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The columns that tell one row from another."""
        if self.kind is ResourceKind.EVENT:
            return (PARTITION_COLUMN, OFFSET_COLUMN)
        return tuple(column.name for column in self.key)

    def layout(self) -> str:
        """The columns as JSON, for the sink's own records."""
        parts = (("key", self.key), ("columns", self.columns), ("retired", self.retired))
        layout: dict[str, Any] = {
            part: [[column.field, column.name, str(column.type)] for column in columns]
            for part, columns in parts
        }
        return json.dumps({"key_name": self.key_name, **layout}, ensure_ascii=False)


def parse_layout(text: str) -> dict[str, Any]:
    """Read back what :meth:`LandingTable.layout` wrote, as arguments of a :class:`LandingTable`."""
    layout = json.loads(text)
    return {
        "key_name": layout["key_name"],
        **{
            part: tuple(
                Column(field, name, ColumnType.parse(spelled)) for field, name, spelled in layout[part]
            )
            for part in ("key", "columns", "retired")
        },
    }


@dataclass(frozen=True, slots=True)
class AddColumn:
    """Make a column for a field that is new in the view."""

    column: Column


@dataclass(frozen=True, slots=True)
class DropColumn:
    """Remove a column with everything in it."""

    column: Column


@dataclass(frozen=True, slots=True)
class BlankColumn:
    """Set a column to NULL in every row."""

    column: Column


@dataclass(frozen=True, slots=True)
class GrowColumn:
    """Change a column to a type that holds all it held; ``column`` has the new type."""

    column: Column


@dataclass(frozen=True, slots=True)
class MakeAnew:
    """Drop the table and create it: the key is another one."""


Step = AddColumn | DropColumn | BlankColumn | GrowColumn | MakeAnew


def fields_of(schema: Mapping[str, Any]) -> tuple[ViewField, ...]:
    """List the fields of a view schema (or a key schema) with their column types.

    Raises:
        ContractViolationError: it is not an Avro record schema.
    """
    try:
        definitions = Definitions(schema)
        record = definitions.record
    except SchemaError as error:
        raise ContractViolationError(f"not the schema of a view: {error}") from None
    return tuple(
        ViewField(field["name"], column_type(definitions, field["type"])) for field in record["fields"]
    )


def full_name(schema: Mapping[str, Any]) -> str:
    """Return the full name of a record schema."""
    return f"{schema.get('namespace', '')}.{schema['name']}".lstrip(".")


def column_type(definitions: Definitions, node: Any) -> ColumnType:
    """Say which column type holds the values of an Avro type, as ``Definitions`` has it."""
    node = definitions.definition(node)
    if isinstance(node, list):
        branches = [branch for branch in node if definitions.definition(branch) != "null"]
        if len(branches) > 1:
            return ColumnType(Kind.JSON)
        return column_type(definitions, branches[0] if branches else "null")
    if isinstance(node, str):
        return ColumnType(_PRIMITIVE[node])
    base = node["type"]
    kind = _LOGICAL.get((base, str(node.get("logicalType"))), _PRIMITIVE[base])
    if kind is Kind.DECIMAL:
        precision, scale = node.get("precision"), node.get("scale", 0)
        if not isinstance(precision, int) or not isinstance(scale, int) or not 0 <= scale <= precision:
            # Avro: a logical type with attributes that make no sense is ignored.
            return ColumnType(_PRIMITIVE[base])
        return ColumnType(kind, precision, scale)
    return ColumnType(kind)


def identifier(text: str, taken: Iterable[str] = ()) -> str:
    """Make a name that every store keeps apart from those ``taken``: short enough, and never equal to one.

    The same arguments give the same name. Letters of either case count as equal, as SQLite has it.
    """
    used = {name.casefold() for name in taken}
    name = "field" + text if text.casefold().startswith(RESERVED) else text
    name = name.replace("\x00", "") or "field"
    if len(name.encode()) <= LONGEST_NAME and name.casefold() not in used:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()
    for length in range(8, len(digest) + 1):
        tail = f"_{digest[:length]}"
        short = name.encode()[: LONGEST_NAME - len(tail)].decode(errors="ignore") + tail
        if short.casefold() not in used:
            return short
    raise ValueError("two fields have the same name")


def new_table(
    *,
    grant: str,
    version: int,
    name: str,
    kind: ResourceKind,
    topic: str,
    key_name: str,
    key: Sequence[ViewField],
    fields: Sequence[ViewField],
) -> LandingTable:
    """Lay out the table of a grant that has landed nothing yet.

    Args:
        grant: its id.
        version: of the grant.
        name: of the table, free in the store.
        kind: of the resource.
        topic: where the deliveries are read.
        key_name: full name of the delivered key's schema.
        key: its fields.
        fields: of the view; those of the key may be among them.
    """
    if not key:
        raise ContractViolationError("a delivered key needs at least one field")
    keys = _columns(key, ())
    named = {field.name for field in key}
    return LandingTable(
        grant=grant,
        name=name,
        version=version,
        kind=kind,
        topic=topic,
        key_name=key_name,
        key=keys,
        columns=_columns([field for field in fields if field.name not in named], keys),
    )


def evolve(
    table: LandingTable,
    *,
    version: int,
    key_name: str,
    key: Sequence[ViewField],
    fields: Sequence[ViewField],
    duty: DataDuty,
    only_add: bool = False,
) -> tuple[LandingTable, tuple[Step, ...]]:
    """Bring a table to another view; return it as it is then and the steps that lead there.

    Args:
        table: as it is.
        version: of the grant now.
        key_name: full name of the delivered key's schema now.
        key: its fields.
        fields: of the view now.
        duty: what the grant says about data that the subscriber may no longer have.
        only_add: leave everything that is there; for a schema that is ahead of its subscription.
    """
    same_fields = [(column.field, column.type) for column in table.key] == [
        (field.name, field.type) for field in key
    ]
    if not same_fields or table.key_name != key_name:
        if only_add:
            raise ContractViolationError("the key is not the one that the subscription names")
        anew = new_table(
            grant=table.grant,
            version=version,
            name=table.name,
            kind=table.kind,
            topic=table.topic,
            key_name=key_name,
            key=key,
            fields=fields,
        )
        return replace(anew, ended=max(table.ended, version - 1), state=table.state), (MakeAnew(),)
    table = table if only_add else replace(table, version=version)
    return _evolve_columns(table, fields, duty, only_add=only_add)


def _evolve_columns(
    table: LandingTable, fields: Sequence[ViewField], duty: DataDuty, *, only_add: bool
) -> tuple[LandingTable, tuple[Step, ...]]:
    steps: list[Step] = []
    keys = {column.field for column in table.key}
    wanted = [field for field in fields if field.name not in keys]
    shown = {column.field: column for column in table.columns}
    retired = {column.field: column for column in table.retired}
    columns: dict[str, Column] = dict(shown) if only_add else {}
    taken = {column.name for column in (*table.key, *table.retired, *table.columns)}
    for field in wanted:
        old = shown.get(field.name) or retired.pop(field.name, None)
        if old is not None and old.type.holds(field.type):
            column = old
        elif old is not None and field.type.holds(old.type):
            column = Column(field.name, old.name, field.type)
            steps.append(GrowColumn(column))
        elif only_add and field.name in shown:
            continue
        else:
            if old is not None:
                steps.append(DropColumn(old))
                taken.discard(old.name)
            column = Column(field.name, identifier(field.name, (*taken, *_OWN_NAMES)), field.type)
            taken.add(column.name)
            steps.append(AddColumn(column))
        columns[field.name] = column
    for name in [name for name in shown if name not in columns]:
        gone = shown[name]
        if duty is DataDuty.DELETE:
            steps.append(DropColumn(gone))
            continue
        if duty is DataDuty.BLANK:
            steps.append(BlankColumn(gone))
        retired[name] = gone
    return replace(table, columns=tuple(columns.values()), retired=tuple(retired.values())), tuple(steps)


def _columns(fields: Sequence[ViewField], before: Sequence[Column]) -> tuple[Column, ...]:
    taken = [*_OWN_NAMES, *(column.name for column in before)]
    columns = []
    for field in fields:
        name = identifier(field.name, taken)
        taken.append(name)
        columns.append(Column(field.name, name, field.type))
    return tuple(columns)
