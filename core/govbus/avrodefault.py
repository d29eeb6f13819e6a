"""The default of a field: JSON in the schema, and the bytes that stand for it in a record.

Where a record was written before a field existed, its default is what the
field says. Avro 1.12, "Complex Types": bytes and fixed are text of the code
points 0 to 255; a union takes a default of any of its branches, the first one
that fits; a record takes its own fields' defaults for what is not given.
"""

from __future__ import annotations

import struct
from typing import Any

from govbus.avro import DEEPEST_SCHEMA, Definitions, SchemaError, shape_of


def encode_default(definitions: Definitions, node: Any, default: Any, *, depth: int = 0) -> bytes:
    """Encode a default of the type ``node``; ``depth`` counts how deep it stands in another default.

    Raises:
        SchemaError: the default is not a value of the type.
    """
    definition = definitions.definition(node)
    shape = shape_of(definition)
    if depth > DEEPEST_SCHEMA:
        raise SchemaError("a default that contains itself")
    if shape == "union":
        for index, branch in enumerate(definition):
            try:
                return _varint(index) + encode_default(definitions, branch, default, depth=depth + 1)
            except SchemaError:
                continue
        raise _not_a_default(shape)
    if shape == "array" and isinstance(default, list):
        return _block(
            [encode_default(definitions, definition["items"], item, depth=depth + 1) for item in default]
        )
    if shape == "map" and isinstance(default, dict):
        values = definition["values"]
        return _block(
            [
                encode_default(definitions, "string", key)
                + encode_default(definitions, values, value, depth=depth + 1)
                for key, value in default.items()
            ]
        )
    if shape == "record":
        return _default_record(definitions, definition, default, depth)
    return _default_scalar(shape, definition, default)


def _block(items: list[bytes]) -> bytes:
    return (_varint(len(items)) if items else b"") + b"".join(items) + _varint(0)


def _default_record(definitions: Definitions, definition: dict[str, Any], default: Any, depth: int) -> bytes:
    if not isinstance(default, dict):
        raise _not_a_default("record")
    encoded = b""
    for field in definition["fields"]:
        if field["name"] not in default and "default" not in field:
            raise _not_a_default("record")
        value = default.get(field["name"], field.get("default"))
        encoded += encode_default(definitions, field["type"], value, depth=depth + 1)
    return encoded


_RANGES = {"int": 2**31, "long": 2**63}


def _default_scalar(shape: str, definition: Any, default: Any) -> bytes:  # noqa: PLR0911 one answer per kind
    whole = isinstance(default, int) and not isinstance(default, bool)
    if shape == "null" and default is None:
        return b""
    if shape == "boolean" and isinstance(default, bool):
        return b"\x01" if default else b"\x00"
    if shape in _RANGES and whole and -_RANGES[shape] <= default < _RANGES[shape]:
        return _varint(default)
    if shape in ("float", "double") and (whole or isinstance(default, float)):
        try:
            return struct.pack("<f" if shape == "float" else "<d", default)
        except OverflowError:
            raise _not_a_default(shape) from None
    if isinstance(default, str):
        if shape == "enum" and default in definition["symbols"]:
            return _varint(definition["symbols"].index(default))
        try:
            if shape == "string":
                data = default.encode()
                return _varint(len(data)) + data
            if shape == "bytes":
                data = default.encode("latin-1")
                return _varint(len(data)) + data
            if shape == "fixed" and len(default) == definition["size"]:
                return default.encode("latin-1")
        except UnicodeEncodeError:
            raise _not_a_default(shape) from None
    raise _not_a_default(shape)


def _not_a_default(shape: str) -> SchemaError:
    return SchemaError(f"the default is not a value of its type, {shape}")


def _varint(number: int) -> bytes:
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)
