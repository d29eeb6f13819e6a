"""Say whether a value is exactly what a contract's Avro type allows.

An Avro encoder is lenient where a bus must not be: fastavro writes any object
as a boolean by its truth, a 32-bit field beyond 32 bits, a date-time without
zone as if the machine's zone were meant. So each value is checked before it is
encoded, by a closure that is compiled once per field.

The form of a value is fastavro's Python form, taken strictly:

| Avro | Python |
| --- | --- |
| null, boolean, string, bytes | None, bool, str, bytes; nothing else |
| int, long | int within 32 or 64 bits, never bool |
| float, double | float; an int only where it is exact |
| date; time-*; uuid | datetime.date, never datetime; datetime.time; uuid.UUID |
| timestamp-* | datetime with time zone |
| local-timestamp-* | datetime without time zone |
| decimal | Decimal that fits precision and scale without rounding |
| enum, fixed | str among the symbols; bytes of that size |
| array, map, record | list; dict with str keys; dict with exactly the fields |
| union | what one of its branches allows |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

Check = Callable[[object], bool]

INT = (-(2**31), 2**31 - 1)
LONG = (-(2**63), 2**63 - 1)
_LARGEST_FLOAT = 3.4028234663852886e38
_EXACT_IN_DOUBLE = 2**53
_EXACT_IN_FLOAT = 2**24
_LONGEST_DECIMAL = 1_000


def compile_check(avro_type: Any, named: Mapping[str, Any] | None = None) -> Check:
    """Compile the check of one Avro type.

    Args:
        avro_type: the type as JSON has it: a name, a union list, or an object.
        named: the schema's named types, from :func:`named_types`, for references by name.
    """
    return _Compiler(named or {}).check(avro_type)


def classes_without_check(avro_type: Any) -> frozenset[type]:
    """Classes of which every value conforms, so that the check need not be called.

    One exception is left to the encoder, which cannot miss it: text with surrogates has no UTF-8 form.
    """
    plain = plain_type(avro_type)
    known = _WHOLE_CLASSES.get(plain) if isinstance(plain, str) else None
    if known is None:
        return frozenset()
    nullable = isinstance(avro_type, list) and "null" in avro_type
    return frozenset({known, type(None)}) if nullable else frozenset({known})


def plain_type(avro_type: Any) -> Any:
    """The type without its null branch, when it is a union of null and one other type."""
    if isinstance(avro_type, list):
        others = [branch for branch in avro_type if branch != "null"]
        if len(others) == 1:
            return others[0]
    return avro_type


def type_name(avro_type: Any) -> str:
    """What to call a type in an error: ``string or null``, ``date``, ``decimal(10, 2)``."""
    if isinstance(avro_type, list):
        return " or ".join(type_name(branch) for branch in sorted(avro_type, key=lambda b: b == "null"))
    if isinstance(avro_type, dict):
        logical = avro_type.get("logicalType")
        if logical == "decimal":
            return f"decimal({avro_type.get('precision')}, {avro_type.get('scale', 0)})"
        return str(logical or avro_type.get("name") or type_name(avro_type["type"]))
    return str(avro_type)


def named_types(schema: Any) -> dict[str, Any]:
    """Collect the records, enums and fixeds that a schema defines, by short and by full name."""
    found: dict[str, Any] = {}
    _collect(schema, "", found)
    return found


def _collect(schema: Any, namespace: str, found: dict[str, Any]) -> None:
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, namespace, found)
    elif isinstance(schema, dict):
        if "name" in schema and schema.get("type") in {"record", "enum", "fixed", "error"}:
            namespace = schema.get("namespace", namespace)
            name = schema["name"]
            found.setdefault(name.rpartition(".")[2], schema)
            found[name if "." in name else f"{namespace}.{name}"] = schema
        for part in ("items", "values", "type"):
            if isinstance(schema.get(part), dict | list):
                _collect(schema[part], namespace, found)
        for field in schema.get("fields", ()):
            _collect(field.get("type"), namespace, found)


class _Compiler:
    """Compiles checks of one schema; a named type that contains itself is compiled once."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._compiled: dict[int, Check] = {}

    def check(self, avro_type: Any) -> Check:
        if isinstance(avro_type, list):
            return self._union(avro_type)
        if isinstance(avro_type, dict):
            logical = _logical(avro_type)
            if logical is not None:
                return logical
            kind = avro_type["type"]
            if kind in {"record", "error"}:
                return self._record(avro_type)
            if kind == "enum":
                return _among(frozenset(avro_type["symbols"]))
            if kind == "fixed":
                size = int(avro_type["size"])
                return lambda value: type(value) is bytes and len(value) == size
            if kind == "array":
                return self._array(self.check(avro_type["items"]))
            if kind == "map":
                return self._map(self.check(avro_type["values"]))
            return self.check(kind)
        primitive = _PRIMITIVES.get(avro_type)
        if primitive is not None:
            return primitive
        return self.check(self._named[avro_type])

    def _union(self, branches: list[Any]) -> Check:
        others = [self.check(branch) for branch in branches if branch != "null"]
        nullable = len(others) < len(branches)
        if len(others) == 1:
            only = others[0]
            return (lambda value: value is None or only(value)) if nullable else only
        return lambda value: nullable if value is None else any(check(value) for check in others)

    def _record(self, schema: dict[str, Any]) -> Check:
        known = self._compiled.get(id(schema))
        if known is not None:
            return known
        fields: dict[str, Check] = {}

        def check(value: object) -> bool:
            return (
                isinstance(value, dict)
                and value.keys() == fields.keys()
                and all(one(value[name]) for name, one in fields.items())
            )

        self._compiled[id(schema)] = check  # before its fields, which may name it
        fields.update((field["name"], self.check(field["type"])) for field in schema["fields"])
        return check

    @staticmethod
    def _array(item: Check) -> Check:
        return lambda value: isinstance(value, list) and all(item(one) for one in value)

    @staticmethod
    def _map(item: Check) -> Check:
        return lambda value: (
            isinstance(value, dict) and all(_is_text(key) and item(one) for key, one in value.items())
        )


def _among(symbols: frozenset[str]) -> Check:
    return lambda value: type(value) is str and value in symbols


def _whole(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _is_text(value: object) -> bool:
    # A surrogate has no UTF-8 form; isascii() answers for most values without encoding them.
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_float(value: object) -> bool:
    if type(value) is float:
        return not math.isfinite(value) or abs(value) <= _LARGEST_FLOAT
    return type(value) is int and abs(value) <= _EXACT_IN_FLOAT


def _is_double(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= _EXACT_IN_DOUBLE)


_WHOLE_CLASSES: dict[object, type] = {"string": str, "boolean": bool, "bytes": bytes, "double": float}

_PRIMITIVES: dict[str, Check] = {
    "null": lambda value: value is None,
    "boolean": lambda value: type(value) is bool,
    "int": _whole(*INT),
    "long": _whole(*LONG),
    "float": _is_float,
    "double": _is_double,
    "bytes": lambda value: type(value) is bytes,
    "string": _is_text,
}


def _is_aware(value: object) -> bool:
    return isinstance(value, datetime) and value.utcoffset() is not None


def _is_local(value: object) -> bool:
    return isinstance(value, datetime) and value.tzinfo is None


_LOGICAL: dict[tuple[str, str], Check] = {
    ("int", "date"): lambda value: isinstance(value, date) and not isinstance(value, datetime),
    ("int", "time-millis"): lambda value: isinstance(value, time) and value.tzinfo is None,
    ("long", "time-micros"): lambda value: isinstance(value, time) and value.tzinfo is None,
    ("long", "timestamp-millis"): _is_aware,
    ("long", "timestamp-micros"): _is_aware,
    ("long", "local-timestamp-millis"): _is_local,
    ("long", "local-timestamp-micros"): _is_local,
    ("string", "uuid"): lambda value: isinstance(value, UUID),
}


def _logical(avro_type: dict[str, Any]) -> Check | None:
    """The check of a logical type, or None: Avro says to treat an unknown one as its plain type."""
    logical, under = avro_type.get("logicalType"), avro_type["type"]
    if logical == "decimal" and under in {"bytes", "fixed"}:
        return _decimal(avro_type)
    return _LOGICAL.get((under, logical)) if isinstance(under, str) and logical else None


def _decimal(avro_type: dict[str, Any]) -> Check:
    precision, scale = int(avro_type["precision"]), int(avro_type.get("scale", 0))
    most = 10**precision
    if avro_type["type"] == "fixed":
        most = min(most, 2 ** (8 * int(avro_type["size"]) - 1))

    def check(value: object) -> bool:
        if type(value) is not Decimal or not value.is_finite():
            return False
        _, digits, exponent = value.as_tuple()
        shift = int(exponent) + scale  # an int: NaN and infinity, which have letters there, are gone
        if shift < 0 or len(digits) + shift > _LONGEST_DECIMAL:
            return False
        unscaled: int = int("".join(map(str, digits))) * 10**shift
        return bool(unscaled < most)

    return check
