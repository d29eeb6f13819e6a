"""From what a driver returns to what a contract means: exact, with one meaning, or not at all."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from govbus_producers.conformance import compile_check
from govbus_producers.conversion import compile_conversion

DATE = {"type": "int", "logicalType": "date"}
TIME = {"type": "long", "logicalType": "time-micros"}
INSTANT = {"type": "long", "logicalType": "timestamp-micros"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-millis"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
GUID = {"type": "string", "logicalType": "uuid"}
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SOME = UUID("12345678-1234-5678-1234-567812345678")


def converted(avro_type: Any, value: object) -> object:
    conversion = compile_conversion(avro_type)
    if conversion is None or type(value) is conversion.exact:
        return value
    return conversion.convert(value)


@pytest.mark.parametrize(
    ("avro_type", "value", "meant"),
    [
        ("string", "浙江", "浙江"),
        ("string", SOME, str(SOME)),
        ("string", date(2024, 5, 1), "2024-05-01"),
        ("int", 7, 7),
        ("int", "7", 7),
        ("int", "-7", -7),
        ("long", Decimal(7), 7),
        ("long", Decimal("7.00"), 7),
        ("double", Decimal("1.5"), 1.5),
        ("double", 3, 3),
        ("boolean", 1, True),
        ("boolean", 0, False),
        ("bytes", memoryview(b"ab"), b"ab"),
        ("bytes", bytearray(b"ab"), b"ab"),
        (DATE, "2024-05-01", date(2024, 5, 1)),
        (DATE, date(2024, 5, 1), date(2024, 5, 1)),
        (TIME, "08:30:01.5", time(8, 30, 1, 500_000)),
        (INSTANT, NOON, NOON),
        (INSTANT, "2024-05-01 12:00:00", NOON),
        (INSTANT, "2024-05-01T20:00:00+08:00", NOON),
        (INSTANT, datetime(2024, 5, 1, 12), NOON),  # noqa: DTZ001 - a source without zones
        (LOCAL, "2024-05-01 12:00:00", datetime(2024, 5, 1, 12)),  # noqa: DTZ001
        (MONEY, "12.5", Decimal("12.50")),
        (MONEY, 12, Decimal("12.00")),
        (MONEY, 12.3, Decimal("12.30")),
        (MONEY, Decimal("12.500"), Decimal("12.50")),
        (GUID, str(SOME), SOME),
        (["null", DATE], "2024-05-01", date(2024, 5, 1)),
        (["null", DATE], None, None),
        ({"type": "string", "logicalType": "not-known"}, "x", "x"),
    ],
)
def test_a_value_that_has_one_exact_meaning_is_converted(
    avro_type: Any, value: object, meant: object
) -> None:
    found = converted(avro_type, value)

    assert found == meant
    assert type(found) is type(meant)
    assert compile_check(avro_type)(found)


@pytest.mark.parametrize(
    ("avro_type", "value"),
    [
        ("string", 33),
        ("string", b"33"),
        ("int", "07"),
        ("int", "7.0"),
        ("int", " 7"),
        ("int", "٧"),
        ("int", 7.0),
        ("int", True),
        ("int", 2**31),
        ("int", Decimal("7.5")),
        ("long", 2**63),
        ("long", "9" * 19),
        ("double", "1.5"),
        ("boolean", 2),
        ("boolean", "true"),
        (DATE, "2024-02-30"),
        (DATE, "20240501"),
        (DATE, "2024-05-01 00:00:00"),
        (DATE, NOON),
        (TIME, "25:00"),
        (INSTANT, "2024-05-01"),
        (INSTANT, 1_714_560_000),
        (LOCAL, NOON),
        (LOCAL, "2024-05-01T12:00:00Z"),
        (MONEY, "12.345"),
        (MONEY, "12345.67"),
        (MONEY, 0.1 + 0.2),
        (MONEY, Decimal("NaN")),
        (MONEY, float("inf")),
        (MONEY, "1e3"),
        (GUID, "no"),
        ("string", None),
        (["null", "string", "int"], b"x"),
    ],
)
def test_a_value_that_would_have_to_be_guessed_or_cut_breaks_the_contract(
    avro_type: Any, value: object
) -> None:
    assert not compile_check(avro_type)(converted(avro_type, value))


def test_a_moment_keeps_its_zone() -> None:
    china = timezone(timedelta(hours=8))

    found = converted(INSTANT, "2024-05-01T20:00:00+08:00")

    assert found == datetime(2024, 5, 1, 20, tzinfo=china)
