"""Rows in which every field can be recognised by its bytes, and twins that differ only where nobody may see.

A *canary* is a value that stands nowhere else: random enough that its bytes in
an output can only have come from this field of this row. What is too short for
that (a boolean, an enum, a date) has no canary; there the *twin* finds a leak:
the same row with everything changed that a grant does not show. What leaves for
the two must be the same to the byte, whatever the type.
"""

from __future__ import annotations

import math
import random
import string
import struct
import uuid
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from govbus.avro import Definitions, shape_of
from govbus.valuekind import value_branches, value_kind
from support.avro_strategies import RANGES, counted, varint

_ALPHABET = string.ascii_letters + string.digits
_TOKEN = 24
_WINDOW = 8
_STRIDE = 4
"""Eight bytes of a text are looked for, from every fourth on: so eleven in a row cannot slip through."""

_LEAST_NEEDLE = 5
"""Shorter byte strings turn up by chance."""

_DEEPEST = 5


@dataclass(frozen=True)
class Planted:
    """One field of one row, encoded, with what gives it away."""

    body: bytes
    needles: tuple[bytes, ...]
    """Byte strings that stand in the body and, but for chance, nowhere else."""

    words: tuple[bytes, ...]
    """The same values as a careless message would write them."""


class _Soil:
    """Collects needles while a value is planted."""

    def __init__(self, definitions: Definitions, rng: random.Random) -> None:
        self.definitions = definitions
        self.rng = rng
        self.needles: list[bytes] = []
        self.words: list[bytes] = []

    def mark(self, needle: bytes, *words: str) -> None:
        if len(needle) >= _LEAST_NEEDLE:
            self.needles.append(needle)
            self.words += [word.encode() for word in (needle.hex(), *words) if len(word) >= _WINDOW]


def plant(definitions: Definitions, node: Any, rng: random.Random) -> Planted:
    """Draw a value of a type, a canary wherever one fits, and encode it."""
    soil = _Soil(definitions, rng)
    body = _value(soil, node, 0)
    return Planted(body, tuple(soil.needles), tuple(soil.words))


def windows(text: bytes) -> list[bytes]:
    """The pieces of a text that are looked for."""
    starts = range(0, max(1, len(text) - _WINDOW + 1), _STRIDE)
    pieces = (text[start : start + _WINDOW] for start in starts)
    return [piece for piece in pieces if len(piece) >= _LEAST_NEEDLE]


def _value(soil: _Soil, node: Any, depth: int) -> bytes:
    definition = soil.definitions.definition(node)
    kind = shape_of(definition)
    if kind == "record":
        return b"".join(_value(soil, field["type"], depth + 1) for field in definition["fields"])
    if kind == "union":
        choices = list(range(len(definition)))
        if depth > _DEEPEST:
            # Recursive types end here.
            choices = [i for i in choices if isinstance(definition[i], str | list | dict)] or choices
        index = soil.rng.choice(choices)
        return varint(index) + _value(soil, definition[index], depth + 1)
    if kind in ("array", "map"):
        return _blocks(soil, definition, depth)
    if kind == "enum":
        return varint(soil.rng.randrange(len(definition["symbols"])))
    if kind == "fixed":
        data = soil.rng.randbytes(definition["size"])
        soil.mark(data, repr(data)[2:-1])
        return data
    return _scalar(soil, kind, definition)


def _blocks(soil: _Soil, definition: dict[str, Any], depth: int) -> bytes:
    inner = definition["items" if definition["type"] == "array" else "values"]
    encoded = b""
    for _ in range(soil.rng.randrange(3) if depth <= _DEEPEST else 0):
        count = soil.rng.randint(1, 2)
        block = b""
        for _ in range(count):
            if definition["type"] == "map":
                block += _token(soil)
            block += _value(soil, inner, depth + 1)
        if soil.rng.random() < 0.5:
            encoded += varint(-count) + varint(len(block)) + block
        else:
            encoded += varint(count) + block
    return encoded + varint(0)


def _token(soil: _Soil) -> bytes:
    text = "".join(soil.rng.choices(_ALPHABET, k=_TOKEN))
    for window in windows(text.encode()):
        soil.mark(window, window.decode())
    return counted(text.encode())


def _scalar(soil: _Soil, kind: str, definition: Any) -> bytes:  # noqa: PLR0911
    logical = str(definition.get("logicalType")) if isinstance(definition, dict) else ""
    rng = soil.rng
    if kind == "null":
        return b""
    if kind == "boolean":
        return bytes([rng.randrange(2)])
    if kind in ("int", "long"):
        bits = 31 if kind == "int" else 63
        low, high = RANGES.get(logical, (-(2**bits), 2**bits - 1))
        # Odd, so that no band of even width gives it back as it is.
        number = rng.randint(low, high - 1) | 1
        soil.mark(varint(number), *([] if logical in RANGES else [str(number)]))
        return varint(number)
    if kind in ("float", "double"):
        data = struct.pack("<d", rng.uniform(-1e12, 1e12))
        if kind == "float":
            return struct.pack("<f", struct.unpack("<d", data)[0])
        soil.mark(data, repr(struct.unpack("<d", data)[0]))
        return data
    if kind == "bytes":
        if logical == "decimal":
            number = rng.randint(-(10**12) + 1, 10**12 - 2) | 1
            data = number.to_bytes(6, "big", signed=True)
            soil.mark(data, str(abs(number)))
        else:
            data = rng.randbytes(_TOKEN)
            for window in windows(data):
                soil.mark(window, repr(window)[2:-1])
        return counted(data)
    if logical == "uuid":
        text = str(uuid.UUID(bytes=rng.randbytes(16)))
        for window in windows(text.encode()):
            soil.mark(window, window.decode())
        return counted(text.encode())
    return _token(soil)


# ---- what a transform may show, and other values that look the same through it ----


def hidden_by(spec: Any, planted: Planted, avro_type: Any) -> tuple[bytes, ...]:
    """The needles of a field that must not be found behind its transform."""
    if spec == "keep":
        return ()
    match spec:
        case {"partial": {"head": head, "tail": tail}}:
            return _middle(planted, avro_type, head, tail)
        case {"truncate": length} | {"generalise": {"prefix": length}}:
            return _middle(planted, avro_type, length, 0)
        case {"generalise": _} if _kind(avro_type) in ("float", "double"):
            return ()  # a large number may be the bound of its own band; the twin sees to these
    return planted.needles


def _middle(planted: Planted, avro_type: Any, head: int, tail: int) -> tuple[bytes, ...]:
    value = read(avro_type, planted.body)
    if value is None:
        return ()
    return tuple(windows(value.encode()[head : len(value.encode()) - tail]))


def twin(spec: Any, planted: Planted, definitions: Definitions, node: Any, rng: random.Random) -> bytes:
    """Another body of the field that looks the same through the transform; None stays None."""
    if spec in (None, "null") or (isinstance(spec, dict) and "redact" in spec):
        return plant(definitions, node, rng).body
    if spec in ("keep", "pseudonym") or (isinstance(spec, dict) and "pseudonym" in spec):
        return planted.body
    avro_type = definitions.spell(node, home="alone")
    value = read(avro_type, planted.body)
    if value is None:
        return planted.body
    branch = value_branches(avro_type)[0]
    return write(avro_type, _alike(spec, value, branch, rng))


def _alike(spec: dict[str, Any], value: Any, branch: Any, rng: random.Random) -> Any:
    match spec:
        case {"partial": {"head": head, "tail": tail}}:
            middle = len(value) - head - tail
            return value[:head] + _letters(rng, middle) + value[len(value) - tail :]
        case {"truncate": length} | {"generalise": {"prefix": length}}:
            return value[:length] + _letters(rng, rng.randrange(1, 40))
        case {"generalise": {"band": width}}:
            return _in_band(value, width, branch, rng)
        case {"generalise": grain}:
            return _same_time(value, grain, str(branch["logicalType"]), rng)
    raise AssertionError(f"no twin for {spec}")


def _letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(_ALPHABET, k=count))


def _in_band(value: Any, width: int, branch: Any, rng: random.Random) -> Any:
    kind = _kind(branch)
    if kind in ("int", "long"):
        least = -(2 ** (31 if kind == "int" else 63))
        low = value // width * width
        return rng.randint(max(low, least), min(low + width, -least) - 1)
    if kind == "decimal":
        scale, most = branch["scale"], 10 ** branch["precision"] - 1
        step = width * 10**scale
        low = int(value.scaleb(scale)) // step * step
        return Decimal(rng.randint(max(low, -most), min(low + step - 1, most))).scaleb(-scale)
    low = math.floor(value) // width * width
    other = low + rng.random() * width * 0.999
    if kind == "float":
        (other,) = struct.unpack("<f", struct.pack("<f", other))
    return other if math.floor(other) // width * width == low else value


def _same_time(value: Any, grain: str, logical: str, rng: random.Random) -> Any:
    parts: dict[str, int] = {}
    if grain == "year":
        parts |= {"month": rng.randint(1, 12), "day": rng.randint(1, 28)}
    elif grain == "month":
        parts["day"] = rng.randint(1, 28)
    if isinstance(value, time | datetime):
        if grain != "hour":
            parts["hour"] = rng.randrange(24)
        step = 1000 if logical.endswith("millis") else 1
        parts |= {
            "minute": rng.randrange(60),
            "second": rng.randrange(60),
            "microsecond": rng.randrange(0, 1_000_000, step),
        }
    assert isinstance(value, date | time)
    return value.replace(**parts)


def _kind(avro_type: Any) -> str:
    values = value_branches(avro_type)
    return value_kind(values[0]) if len(values) == 1 else ""


def _alone(avro_type: Any) -> Any:
    return parse_schema({"type": "record", "name": "Alone", "fields": [{"name": "value", "type": avro_type}]})


def read(avro_type: Any, body: bytes) -> Any:
    """The value of a field, decoded by fastavro."""
    return schemaless_reader(BytesIO(body), _alone(avro_type), None)["value"]


def write(avro_type: Any, value: Any) -> bytes:
    """A value of a field, encoded by fastavro."""
    stream = BytesIO()
    schemaless_writer(stream, _alone(avro_type), {"value": value})
    return stream.getvalue()
