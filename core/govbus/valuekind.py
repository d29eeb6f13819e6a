"""What a value of an Avro type is in Python once it is decoded, and so what may be done with it.

A kind is the name of a primitive type, of a nested type, or of a logical type
that fastavro decodes into a Python class of its own. fastavro hands out every
other logical type as the type beneath, and so does :func:`value_kind`.

===================  =======================================================
kind                 Python value
===================  =======================================================
null                 None
boolean              bool
int, long            int
float, double        float
bytes, fixed         bytes
string, enum         str
date                 datetime.date
time                 datetime.time
timestamp            datetime.datetime with time zone UTC
local-timestamp      datetime.datetime without time zone
decimal              decimal.Decimal
uuid                 uuid.UUID
array, map, record   list, dict, dict
named                a type defined in another field; only its name is here
unknown              not an Avro type; nothing may be done with it
===================  =======================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from govbus.errors import TransformRefusedError, ViewError

_LOGICAL = {
    ("int", "date"): "date",
    ("int", "time-millis"): "time",
    ("long", "time-micros"): "time",
    ("long", "timestamp-millis"): "timestamp",
    ("long", "timestamp-micros"): "timestamp",
    ("long", "local-timestamp-millis"): "local-timestamp",
    ("long", "local-timestamp-micros"): "local-timestamp",
    ("bytes", "decimal"): "decimal",
    ("fixed", "decimal"): "decimal",
    ("string", "uuid"): "uuid",
}
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_NESTED = frozenset({"enum", "fixed", "array", "map", "record", "error"})


def value_kind(branch: Any) -> str:
    """Name the kind of one type that is not a union."""
    if isinstance(branch, str):
        return branch if branch in _PRIMITIVES else "named"
    if not isinstance(branch, Mapping):
        return "unknown"
    name = branch.get("type")
    if not isinstance(name, str) or name not in _PRIMITIVES | _NESTED:
        return "unknown"
    return _LOGICAL.get((name, str(branch.get("logicalType"))), name)


def branches_of(avro_type: Any) -> list[Any]:
    """Return the branches of a union, or the type alone."""
    return list(avro_type) if isinstance(avro_type, list | tuple) else [avro_type]


def value_branches(avro_type: Any) -> list[Any]:
    """Return the branches that are not null: one for a plain or nullable type."""
    return [branch for branch in branches_of(avro_type) if value_kind(branch) != "null"]


LEAST = {"int": -(2**31), "long": -(2**63)}
"""The smallest whole number of each kind."""

LARGEST_FLOAT = 3.4028234663852886e38
"""The largest float of 32 bits (IEEE 754 binary32)."""


def decimal_shape(branch: Any) -> tuple[int, int]:
    """Return precision and scale of a decimal type; TransformRefusedError when they make no sense."""
    precision, scale = branch.get("precision"), branch.get("scale", 0)
    if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision:
        raise TransformRefusedError("a decimal whose precision and scale make no sense cannot be transformed")
    return precision, scale


def misfit(what: str, kind: str, fits: str) -> NoReturn:
    """Refuse to do ``what`` with values of this kind."""
    raise TransformRefusedError(f"{what} does not fit type {kind}; it takes {fits}")


def unfit() -> NoReturn:
    """Give up on a record that has a value of another kind than its schema says."""
    raise ViewError("a value is not what its type says, so its transform cannot be worked out")
