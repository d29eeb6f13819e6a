"""Measure the splice kernel: what one record costs to walk, and to walk and put together again.

    python bench/kernel.py [--interpreted]

The record is the one of the design's measurements: 13 fields, 118 bytes, of
which the output keeps 4. Prints the best of several rounds, in nanoseconds a
record, next to fastavro decoding and encoding the same.
"""

from __future__ import annotations

import importlib
import sys
import timeit
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

FIELDS: list[tuple[str, Any, Any]] = [
    ("code", "string", "330802001001"),
    ("name", "string", "府山街道"),
    ("province", "string", "33"),
    ("city", "string", "3308"),
    ("area", "string", "330802"),
    ("level", "int", 4),
    ("population", ["null", "long"], 48211),
    ("density", "double", 1234.5),
    ("urban", "boolean", True),
    ("parent", ["null", "string"], "330802000000"),
    ("status", {"type": "enum", "name": "Status", "symbols": ["active", "merged"]}, "active"),
    ("updated_at", {"type": "long", "logicalType": "timestamp-millis"}, 1_700_000_000_000),
    ("note", ["null", "string"], "street office, moved in 2019 to the east"),
]
KEPT = ("code", "name", "population", "updated_at")
ROUNDS = 7


def measure(statement: str, names: dict[str, Any], number: int) -> float:
    """Nanoseconds for one statement: the best round, because noise only ever adds."""
    timer = timeit.Timer(statement, globals=names)
    return min(timer.repeat(ROUNDS, number)) / number * 1e9


def main(arguments: list[str]) -> int:
    """Print the figures."""
    if "--interpreted" in arguments:
        sys.path.insert(0, "tests")
        from support import kernels

        splice = kernels.INTERPRETED
        number = 2_000
    else:
        splice = importlib.import_module("govbus.splice")
        number = 200_000 if splice.COMPILED else 2_000
    schema = {
        "type": "record",
        "name": "Division",
        "fields": [{"name": name, "type": avro_type} for name, avro_type, _ in FIELDS],
    }
    parsed = parse_schema(schema)
    kept = parse_schema(
        {"type": "record", "name": "View", "fields": [f for f in schema["fields"] if f["name"] in KEPT]}
    )
    stream = BytesIO()
    schemaless_writer(stream, parsed, {name: value for name, _, value in FIELDS})
    body = stream.getvalue()
    walker = splice.Walker(schema)
    splicer = splice.Splicer(walker, [splice.Copy(walker.names.index(name)) for name in KEPT])
    walker.walk(body)
    names = {
        "walk": walker.walk,
        "assemble": splicer.assemble,
        "value": walker.value,
        "walker": walker,
        "framed": b"\0\0\0\0\1" + body,
        "prefix": b"\0\0\0\0\2",
        "body": body,
        "BytesIO": BytesIO,
        "reader": schemaless_reader,
        "writer": schemaless_writer,
        "parsed": parsed,
        "kept": kept,
        "record": schemaless_reader(BytesIO(body), parsed),
    }
    print(f"{len(FIELDS)} fields, {len(body)} bytes, {'compiled' if splice.COMPILED else 'interpreted'}")
    for label, statement in (
        ("walk", "walk(framed, 5)"),
        ("walk, then assemble 4 fields", "walk(framed, 5); assemble(walker, prefix)"),
        ("value of a string", "value(0)"),
        ("value of a nullable long", "value(6)"),
        ("value of a timestamp", "value(11)"),
        ("fastavro: decode", "reader(BytesIO(body), parsed)"),
        ("fastavro: encode 4 fields", "writer(BytesIO(), kept, record)"),
    ):
        print(f"{measure(statement, names, number):9.0f} ns  {label}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
