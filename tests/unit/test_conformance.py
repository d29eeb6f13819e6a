"""What counts as a value of a contract's type: exactly what Avro can hold, told apart strictly."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import uuid4

import fastavro
import pytest

from govbus_producers.conformance import classes_without_check, compile_check, named_types, type_name


@pytest.mark.parametrize(
    ("avro_type", "good", "bad"),
    [
        ({"type": "array", "items": "int"}, [1, 2], [1, "2"]),
        ({"type": "map", "values": "string"}, {"a": "b"}, {1: "b"}),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, "A", "B"),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", b"abc"),
        ({"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]}, {"x": 1}, {"y": 1}),
        (["null", "string", "long"], 5, 5.0),
        ("float", 1.5, 1e300),
        ({"type": "int", "logicalType": "date"}, date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),
        (
            {"type": "fixed", "name": "D", "size": 1, "logicalType": "decimal", "precision": 9},
            Decimal(127),
            Decimal(128),
        ),
    ],
)
def test_every_kind_of_type_is_checked(avro_type: Any, good: object, bad: object) -> None:
    check = compile_check(avro_type)

    assert check(good)
    assert not check(bad)


def test_a_type_that_contains_itself_is_checked_to_the_end() -> None:
    schema = {
        "type": "record",
        "name": "Node",
        "namespace": "x",
        "fields": [{"name": "next", "type": ["null", "x.Node"]}, {"name": "value", "type": "int"}],
    }
    check = compile_check(schema, named_types(schema))

    assert check({"next": {"next": None, "value": 2}, "value": 1})
    assert not check({"next": {"next": None, "value": "2"}, "value": 1})


@pytest.mark.parametrize(
    ("avro_type", "value"),
    [
        ("boolean", 1),
        ("int", True),
        ("int", 2**31),
        ("long", -(2**63) - 1),
        ("float", 2**24 + 1),
        ("double", 2**53 + 1),
        ("string", b"33"),
        ("string", "\ud800"),
        ("bytes", "33"),
        ("null", 0),
        ({"type": "int", "logicalType": "time-millis"}, time(1, tzinfo=UTC)),
        ({"type": "long", "logicalType": "timestamp-millis"}, datetime(2024, 1, 1)),  # noqa: DTZ001
        ({"type": "long", "logicalType": "timestamp-micros"}, 1_700_000_000),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, datetime(2024, 1, 1, tzinfo=UTC)),
        ({"type": "string", "logicalType": "uuid"}, "12345678-1234-5678-1234-567812345678"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("123.4")),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("1.234")),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, 1.5),
    ],
)
def test_what_an_encoder_would_let_pass_or_bend_does_not_conform(avro_type: Any, value: object) -> None:
    assert not compile_check(avro_type)(value)
    assert type(value) not in classes_without_check(avro_type) or value == "\ud800"


@pytest.mark.parametrize(
    ("avro_type", "value"),
    [
        ("int", -(2**31)),
        ("long", 2**63 - 1),
        ("double", 2**53),
        (["null", "string"], None),
        (["string", "null"], "甲"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("99.99")),
        ({"type": "bytes", "logicalType": "decimal", "precision": 40}, Decimal(10**39)),
        ({"type": "string", "logicalType": "uuid"}, uuid4()),
        ({"type": "long", "logicalType": "timestamp-millis"}, datetime(2024, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_conforms_is_what_an_encoder_can_write(avro_type: Any, value: object) -> None:
    schema = fastavro.parse_schema(
        {"type": "record", "name": "R", "fields": [{"name": "f", "type": avro_type}]}
    )
    stream = io.BytesIO()

    assert compile_check(avro_type)(value)
    fastavro.schemaless_writer(stream, schema, {"f": value})
    stream.seek(0)
    assert fastavro.schemaless_reader(stream, schema, None) == {"f": value}


def test_a_type_is_called_what_its_contract_calls_it() -> None:
    money = {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}

    assert type_name(["null", money]) == "decimal(10, 2) or null"
    assert type_name({"type": "enum", "name": "Level", "symbols": ["A"]}) == "Level"
    assert type_name({"type": "array", "items": "int"}) == "array"
