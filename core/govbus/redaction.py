"""Constants that redact puts in a field's place: JSON in the grant, the field's type in the record.

Dates, times, uuids and decimals have no form of their own in JSON and are
written as texts. A constant that is not a value of the type is refused, so a
subscriber's column keeps its type.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar
from uuid import UUID

from govbus.valuekind import LARGEST_FLOAT, LEAST, decimal_shape, misfit, value_kind

_Clock = TypeVar("_Clock", time, datetime)


def constant_of(constant: object, branch: Any) -> Any:
    """Turn a constant as JSON has it into a value of ``branch``."""
    kind = value_kind(branch)
    classes, read, wanted = _CONSTANTS.get(kind, _NO_CONSTANT)
    if type(constant) in classes:
        try:
            return read(constant, branch)
        except (ValueError, OverflowError, InvalidOperation):
            pass  # Not a value of the type after all; the refusal says what would be.
    misfit("redact with this constant", kind, wanted)


def _text_constant(text: str, _branch: Any) -> str:
    text.encode()  # A lone surrogate can stand in JSON but not in Avro.
    return text


def _symbol(text: str, branch: Any) -> str:
    if text not in branch["symbols"]:
        raise ValueError
    return text


def _integer_constant(number: int, branch: Any) -> int:
    least = LEAST[value_kind(branch)]
    if not least <= number < -least:
        raise ValueError
    return number


def _float_constant(number: float, branch: Any) -> float:
    if value_kind(branch) == "double":
        return float(number)
    if abs(number) > LARGEST_FLOAT:
        raise ValueError
    (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    return float(rounded)


def _decimal_constant(written: str | int, branch: Any) -> Decimal:
    precision, scale = decimal_shape(branch)
    number = Decimal(written)
    _sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or exponent < -scale or len(digits) + exponent + scale > precision:
        raise ValueError
    return number


def _time_constant(text: str, branch: Any) -> time:
    return _local(time.fromisoformat(text), branch)


def _local_constant(text: str, branch: Any) -> datetime:
    return _local(datetime.fromisoformat(text), branch)


def _instant_constant(text: str, branch: Any) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError
    return _exact(at, branch).astimezone(UTC)


def _local(at: _Clock, branch: Any) -> _Clock:
    if at.tzinfo is not None:
        raise ValueError
    return _exact(at, branch)


def _exact(at: _Clock, branch: Any) -> _Clock:
    """Refuse what the type would cut off on the wire: the constant must be what the subscriber reads."""
    if branch["logicalType"].endswith("millis") and at.microsecond % 1000:
        raise ValueError
    return at


_Constant = tuple[tuple[type, ...], Callable[[Any, Any], Any], str]

_NO_CONSTANT: _Constant = ((), _text_constant, "no constant; use null")

_CONSTANTS: dict[str, _Constant] = {
    "string": ((str,), _text_constant, "a text"),
    "enum": ((str,), _symbol, "one of its symbols"),
    "boolean": ((bool,), lambda truth, _branch: truth, "true or false"),
    "int": ((int,), _integer_constant, "a whole number of 32 bits"),
    "long": ((int,), _integer_constant, "a whole number of 64 bits"),
    "float": ((int, float), _float_constant, "a number of 32 bits"),
    "double": ((int, float), _float_constant, "a number of 64 bits"),
    "decimal": ((str, int), _decimal_constant, 'a number in quotes that fits precision and scale, "0.00"'),
    "uuid": ((str,), lambda text, _branch: UUID(text), "a UUID in quotes"),
    "date": ((str,), lambda text, _branch: date.fromisoformat(text), 'a date in quotes, "1900-01-01"'),
    "time": ((str,), _time_constant, 'a time in quotes, "00:00:00"'),
    "timestamp": ((str,), _instant_constant, 'an instant with zone in quotes, "1900-01-01T00:00:00Z"'),
    "local-timestamp": ((str,), _local_constant, 'a time without zone in quotes, "1900-01-01T00:00:00"'),
}
"""By kind: the classes that JSON gives, how to read them (ValueError: not one), and what to write."""
