"""Turn what a database driver returns into the form that the contract's Avro type has in Python.

Databases differ in what they return for one and the same value: SQLite keeps
dates and times as text and truth as 0 and 1, PostgreSQL returns ``numeric``
as Decimal whatever its scale. A conversion is made only where it is exact and
has one meaning; any other value is left as it is, and the check against the
contract then refuses the row.

| contract | taken from the source |
| --- | --- |
| string | text; UUID, date, time and date-time in their ISO 8601 form |
| int, long | whole number; Decimal without fraction; its own decimal digits as text |
| float, double | number; Decimal |
| boolean | true and false; the whole numbers 0 and 1 |
| bytes, fixed | bytes, bytearray, memoryview |
| date | date; ``YYYY-MM-DD`` |
| time-* | time; ISO 8601 text |
| timestamp-* | date-time; ISO 8601 text with date and time; without zone it is UTC |
| local-timestamp-* | date-time without zone; such ISO 8601 text |
| decimal | Decimal; whole number; plain decimal digits; float, by its shortest exact text |
| uuid | UUID; its text |
| null with one other | null; the other |
| anything else | as it is |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any, NamedTuple
from uuid import UUID

from govbus_producers.conformance import plain_type


class Conversion(NamedTuple):
    """How one field is converted."""

    exact: type | None
    """Values of exactly this class stay as they are; None: every value is to be looked at."""

    convert: Callable[[object], object]
    """Never raises: what it cannot convert exactly it returns unchanged."""


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,1000}(\.[0-9]{1,1000})?", re.ASCII)
_DATE_LENGTH = 10


def compile_conversion(avro_type: Any) -> Conversion | None:
    """Compile the conversion to one Avro type; None where every value stays as it is."""
    plain = plain_type(avro_type)
    if isinstance(plain, dict):
        logical, under = plain.get("logicalType"), plain.get("type")
        if logical == "decimal" and under in {"bytes", "fixed"}:
            return _decimal(int(plain.get("scale", 0)))
        if isinstance(logical, str) and isinstance(under, str) and (under, logical) in _LOGICAL:
            return _LOGICAL[under, logical]
        return _PRIMITIVES.get(under) if isinstance(under, str) else None
    return _PRIMITIVES.get(plain) if isinstance(plain, str) else None


def to_text(value: object) -> object:
    """Text, or what has exactly one standard text."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def to_whole(value: object) -> object:
    """A whole number that is written another way."""
    if type(value) is int:
        return value
    if isinstance(value, Decimal) and value.is_finite() and abs(value) < 2**64 and value == int(value):
        return int(value)
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else value


def to_number(value: object) -> object:
    """A Decimal becomes the nearest float, which is what a float field promises."""
    return float(value) if isinstance(value, Decimal) else value


def to_truth(value: object) -> object:
    """0 and 1 as SQLite keeps them."""
    return bool(value) if type(value) is int and value in (0, 1) else value


def to_bytes(value: object) -> object:
    """Any of the driver's buffers."""
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def to_date(value: object) -> object:
    """A calendar day. A date-time is not cut down to one: that would drop what it says."""
    if isinstance(value, str) and _DATE.fullmatch(value):
        return _parsed(date.fromisoformat, value)
    return value


def to_time(value: object) -> object:
    """A time of day."""
    return _parsed(time.fromisoformat, value) if isinstance(value, str) else value


def to_instant(value: object) -> object:
    """A moment. Without zone it is UTC: a source that means local time says so in its values or a view."""
    value = to_local(value)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def to_local(value: object) -> object:
    """A date-time in text, which must hold both date and time."""
    if isinstance(value, str) and len(value) > _DATE_LENGTH:
        return _parsed(datetime.fromisoformat, value)
    return value


def to_uuid(value: object) -> object:
    """A UUID in text."""
    return _parsed(UUID, value) if isinstance(value, str) else value


def _parsed(parse: Callable[[str], object], text: str) -> object:
    try:
        return parse(text)
    except ValueError:
        return text


def _decimal(scale: int) -> Conversion:
    smallest = Decimal(1).scaleb(-scale)

    def to_decimal(value: object) -> object:
        number: Decimal
        if isinstance(value, Decimal):
            number = value
        elif type(value) is int:
            number = Decimal(value)
        elif type(value) is float:
            number = Decimal(repr(value))
        elif isinstance(value, str) and _DECIMAL.fullmatch(value):
            number = Decimal(value)
        else:
            return value
        with localcontext(prec=2_000):
            try:
                exact = number.quantize(smallest)
            except InvalidOperation:
                return value
        # 1.50 for 1.5: the trailing zeros that the scale asks for, and never a digit lost
        return exact if exact == number else value

    return Conversion(None, to_decimal)


_PRIMITIVES: dict[str, Conversion] = {
    "string": Conversion(str, to_text),
    "int": Conversion(int, to_whole),
    "long": Conversion(int, to_whole),
    "float": Conversion(float, to_number),
    "double": Conversion(float, to_number),
    "boolean": Conversion(bool, to_truth),
    "bytes": Conversion(bytes, to_bytes),
    "fixed": Conversion(bytes, to_bytes),
}

_LOGICAL: dict[tuple[str, str], Conversion] = {
    ("int", "date"): Conversion(date, to_date),
    ("int", "time-millis"): Conversion(time, to_time),
    ("long", "time-micros"): Conversion(time, to_time),
    ("long", "timestamp-millis"): Conversion(None, to_instant),
    ("long", "timestamp-micros"): Conversion(None, to_instant),
    ("long", "local-timestamp-millis"): Conversion(datetime, to_local),
    ("long", "local-timestamp-micros"): Conversion(datetime, to_local),
    ("string", "uuid"): Conversion(UUID, to_uuid),
}
