"""Literals of a row filter, as Python values that compare with a decoded field of one kind.

Reading is strict: a number is not a text, a date is written ``DATE '…'``, an
instant names its zone. What would need a guess is not a literal of that kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlglot import exp

_Read = Callable[[exp.Expr], Any]


def read_text(node: exp.Expr) -> str | None:
    """Read a text in single quotes."""
    return str(node.this) if isinstance(node, exp.Literal) and node.is_string else None


def _read_number(node: exp.Expr) -> Decimal | None:
    sign = 1
    if isinstance(node, exp.Neg):
        sign, node = -1, node.this
    if not isinstance(node, exp.Literal) or node.is_string:
        return None
    number = Decimal(str(node.this))
    return number if sign > 0 else number.copy_negate()


def _read_whole(node: exp.Expr) -> int | None:
    number = _read_number(node)
    if number is None or number.as_tuple().exponent != 0 or not -(2**63) <= number < 2**63:
        return None
    return int(number)


def _read_float(node: exp.Expr) -> int | float | None:
    # Whole numbers stay whole: Python, like SQLite, compares them with floats exactly.
    whole = _read_whole(node)
    number = _read_number(node)
    if whole is not None or number is None:
        return whole
    return float(number)


def _read_boolean(node: exp.Expr) -> bool | None:
    return bool(node.this) if isinstance(node, exp.Boolean) else None


def _read_uuid(node: exp.Expr) -> UUID | None:
    text = read_text(node)
    try:
        value = UUID(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and str(value) == text else None


def _typed(node: exp.Expr, wanted: exp.DType) -> str | None:
    if isinstance(node, exp.Cast) and node.to.this is wanted:
        return read_text(node.this)
    return None


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?"
)


def _read_date(node: exp.Expr) -> date | None:
    text = _typed(node, exp.DType.DATE)
    if text is None or not _DAY.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _read_datetime(node: exp.Expr) -> datetime | None:
    text = _typed(node, exp.DType.TIMESTAMP)
    if text is None or not _INSTANT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _read_instant(node: exp.Expr) -> datetime | None:
    at = _read_datetime(node)
    try:
        return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None
    except OverflowError:
        return None


def _read_local(node: exp.Expr) -> datetime | None:
    at = _read_datetime(node)
    return at if at is not None and at.tzinfo is None else None


LITERALS: dict[str, _Read] = {
    "string": read_text,
    "enum": read_text,
    "int": _read_whole,
    "long": _read_whole,
    "float": _read_float,
    "double": _read_float,
    "decimal": _read_number,
    "boolean": _read_boolean,
    "uuid": _read_uuid,
    "date": _read_date,
    "timestamp": _read_instant,
    "local-timestamp": _read_local,
}
"""By kind of field: how to read a literal beside it; None means that the node is no such literal."""

WANTED = {
    "string": "a text in single quotes",
    "enum": "one of its symbols in single quotes",
    "int": "a whole number of at most 64 bits",
    "long": "a whole number of at most 64 bits",
    "float": "a number",
    "double": "a number",
    "decimal": "a number",
    "boolean": "TRUE or FALSE",
    "uuid": "a UUID in single quotes, lower case with hyphens",
    "date": "DATE '2024-05-01'",
    "timestamp": "an instant with its zone, TIMESTAMP '2024-05-01T00:00:00+08:00'",
    "local-timestamp": "a time without zone, TIMESTAMP '2024-05-01T00:00:00'",
}
"""What a refusal says that a field of this kind is compared with."""
