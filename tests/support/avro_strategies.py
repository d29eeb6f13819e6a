"""Hypothesis strategies for Avro: any record schema, and any body of a schema.

A body is drawn as bytes, type by type, not made from a Python value by an
encoder: so unions take every branch, arrays and maps come in blocks of every
form, and nothing depends on what an encoder happens to write. What a body
means is for fastavro to say (:func:`decoded`).
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any, NamedTuple

from fastavro import parse_schema, schemaless_reader
from hypothesis import strategies as st

from govbus.avro import Definitions, shape_of

NAMESPACES = ("", "gov", "gov.stats")
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
LOGICAL = (
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-millis"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
    {"type": "string", "logicalType": "not-known-to-anyone"},
)
RANGES = {
    "date": (-700_000, 2_900_000),
    "time-millis": (0, 86_399_999),
    "time-micros": (0, 86_399_999_999),
    "timestamp-millis": (-62_000_000_000_000, 253_000_000_000_000),
    "timestamp-micros": (-62_000_000_000_000_000, 253_000_000_000_000_000),
    "local-timestamp-millis": (-62_000_000_000_000, 253_000_000_000_000),
}
_DEEPEST_TYPE = 3
_DEEPEST_BODY = 6


class Sample(NamedTuple):
    """A record schema and one body of it."""

    schema: dict[str, Any]
    body: bytes


class _Names:
    """The named types of a schema while it is drawn."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.open: list[str] = []
        self._count = 0

    def fresh(self) -> str:
        self._count += 1
        return f"T{self._count}"


@st.composite
def schemas(draw: st.DrawFn, *, max_fields: int = 6) -> dict[str, Any]:
    """Any Avro record schema: nested and recursive named types, namespaces, logical types, odd attributes."""
    return _record(draw, _Names(), "", 0, max_fields)


def _record(draw: st.DrawFn, names: _Names, namespace: str, depth: int, max_fields: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "record", "name": names.fresh()}
    if draw(st.booleans()):
        schema["namespace"] = namespace = draw(st.sampled_from(NAMESPACES))
    full = f"{namespace}.{schema['name']}" if namespace else schema["name"]
    names.open.append(full)
    smallest = 1 if depth == 0 else 0
    schema["fields"] = [
        {"name": f"f{index}", "type": _type(draw, names, namespace, depth + 1, indirect=False)}
        for index in range(draw(st.integers(smallest, max_fields)))
    ]
    names.open.remove(full)
    names.closed.append(full)
    return schema


def _type(draw: st.DrawFn, names: _Names, namespace: str, depth: int, *, indirect: bool) -> Any:
    kinds = ["primitive", "primitive", "logical", "nullable"]
    if depth <= _DEEPEST_TYPE:
        kinds += ["record", "enum", "fixed", "array", "map", "union"]
    usable = [name for name in names.closed + (names.open if indirect else []) if _sayable(name, namespace)]
    if usable:
        kinds.append("reference")
    kind = draw(st.sampled_from(kinds))
    if kind == "nullable":
        branches = ["null", _branch(draw, names, namespace, depth + 1)]
        return branches if draw(st.booleans()) else branches[::-1]
    if kind == "union":
        return _union(draw, names, namespace, depth + 1)
    if kind == "reference":
        return draw(st.sampled_from(usable))
    return _plain(draw, kind, names, namespace, depth)


def _sayable(name: str, namespace: str) -> bool:
    # Avro has no way to name a type without namespace from inside one.
    return "." in name or not namespace


def _plain(draw: st.DrawFn, kind: str, names: _Names, namespace: str, depth: int) -> Any:  # noqa: PLR0911
    if kind == "primitive":
        name = draw(st.sampled_from(PRIMITIVES))
        return name if draw(st.booleans()) else {"type": name, "x-note": "kept"}
    if kind == "logical":
        return dict(draw(st.sampled_from(LOGICAL)))
    if kind == "record":
        return _record(draw, names, namespace, depth, 3)
    if kind == "array":
        return {"type": "array", "items": _type(draw, names, namespace, depth + 1, indirect=True)}
    if kind == "map":
        return {"type": "map", "values": _type(draw, names, namespace, depth + 1, indirect=True)}
    name = names.fresh()
    full = f"{namespace}.{name}" if namespace else name
    names.closed.append(full)
    if kind == "enum":
        symbols = [f"S{index}" for index in range(draw(st.integers(1, 70)))]
        return {"type": "enum", "name": name, "symbols": symbols}
    return {"type": "fixed", "name": name, "size": draw(st.sampled_from([0, 1, 2, 16]))}


def _branch(draw: st.DrawFn, names: _Names, namespace: str, depth: int) -> Any:
    closed = names.closed.copy()
    branch = _type(draw, names, namespace, depth, indirect=True)
    if isinstance(branch, list) or shape_of(branch) == "null":
        names.closed = closed  # what was defined in there is not part of the schema
        branch = draw(st.sampled_from(["string", "long", "double"]))
    return branch


def _union(draw: st.DrawFn, names: _Names, namespace: str, depth: int) -> list[Any]:
    branches: list[Any] = []
    taken: set[str] = set()
    for _ in range(draw(st.integers(1, 4))):
        closed = names.closed.copy()
        branch = _branch(draw, names, namespace, depth)
        # Unnamed kinds may stand in a union once; a named type once under its name.
        mark = branch if isinstance(branch, str) else branch.get("name") or branch["type"]
        if mark not in taken:
            taken.add(mark)
            branches.append(branch)
        else:
            names.closed = closed
    if any(branch in names.open for branch in branches if isinstance(branch, str)) and "null" not in taken:
        branches.append("null")  # or a value of the recursive type could never end
    return branches


@st.composite
def bodies(draw: st.DrawFn, schema: dict[str, Any]) -> bytes:
    """Any body of one record schema."""
    definitions = Definitions(schema)
    return _body(draw, definitions, definitions.root, 0)


@st.composite
def samples(draw: st.DrawFn, *, max_fields: int = 6) -> Sample:
    """Any record schema with one of its bodies."""
    schema = draw(schemas(max_fields=max_fields))
    return Sample(schema, draw(bodies(schema)))


def decoded(schema: Any, body: bytes) -> Any:
    """What fastavro reads in a body, all of which must be used up."""
    stream = BytesIO(body)
    record = schemaless_reader(stream, parse_schema(schema))
    assert stream.tell() == len(body)
    return record


def varint(number: int) -> bytes:
    """Encode a whole number as Avro does: zig-zag, then base 128."""
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def counted(content: bytes) -> bytes:
    """Encode bytes, or text as UTF-8."""
    return varint(len(content)) + content


_TEXTS = st.one_of(
    st.text(max_size=20),
    st.text("abc xyz", max_size=60),
    st.text("衢州市柯城区é😀a", max_size=30),
)


def _body(draw: st.DrawFn, definitions: Definitions, node: Any, depth: int) -> bytes:  # noqa: PLR0911
    definition = definitions.definition(node)
    kind = shape_of(definition)
    if kind == "record":
        return b"".join(_body(draw, definitions, field["type"], depth + 1) for field in definition["fields"])
    if kind == "union":
        return _union_body(draw, definitions, definition, depth)
    if kind in ("array", "map"):
        return _blocks(draw, definitions, definition, depth)
    if kind == "fixed":
        return draw(st.binary(min_size=definition["size"], max_size=definition["size"]))
    if kind == "enum":
        return varint(draw(st.integers(0, len(definition["symbols"]) - 1)))
    return scalar_body(draw, kind, definition)


def scalar_body(draw: st.DrawFn, kind: str, definition: Any) -> bytes:  # noqa: PLR0911
    """Draw the encoding of one value of a primitive type."""
    logical = definition.get("logicalType") if isinstance(definition, dict) else None
    if kind == "null":
        return b""
    if kind == "boolean":
        return bytes([draw(st.integers(0, 1))])
    if kind in ("int", "long"):
        bits = 31 if kind == "int" else 63
        low, high = RANGES.get(str(logical), (-(2**bits), 2**bits - 1))
        return varint(draw(st.integers(low, high)))
    if kind == "float":
        return struct.pack("<f", draw(st.floats(width=32)))
    if kind == "double":
        return struct.pack("<d", draw(st.floats()))
    if kind == "bytes":
        return counted(draw(st.binary(max_size=4 if logical == "decimal" else 20)))
    if logical == "uuid":
        return counted(str(draw(st.uuids())).encode())
    return counted(draw(_TEXTS).encode())


def _union_body(draw: st.DrawFn, definitions: Definitions, branches: list[Any], depth: int) -> bytes:
    choices = list(range(len(branches)))
    if depth > _DEEPEST_BODY:
        # Recursive types end here: an unnamed branch if there is one.
        choices = [i for i in choices if not _named(branches[i])] or choices
    index = draw(st.sampled_from(choices))
    return varint(index) + _body(draw, definitions, branches[index], depth + 1)


def _named(node: Any) -> bool:
    return not isinstance(node, str | list | dict)


def _blocks(draw: st.DrawFn, definitions: Definitions, definition: dict[str, Any], depth: int) -> bytes:
    encoded = b""
    inner = definition["items" if definition["type"] == "array" else "values"]
    for _ in range(draw(st.integers(0, 2)) if depth <= _DEEPEST_BODY else 0):
        count = draw(st.integers(1, 3))
        block = b""
        for _ in range(count):
            if definition["type"] == "map":
                block += counted(draw(_TEXTS).encode())
            block += _body(draw, definitions, inner, depth + 1)
        if draw(st.booleans()):
            encoded += varint(-count) + varint(len(block)) + block
        else:
            encoded += varint(count) + block
    return encoded + varint(0)
