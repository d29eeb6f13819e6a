"""The key of a row as a person types it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govbus.contract import DataContract, parse_contract
from govbus.errors import RefusedError
from govbus.recordkey import parse_key, split_record

SECRET = "110101199003074514"


def contract(**types: Any) -> DataContract:
    """A contract whose fields are all key fields."""
    fields = [{"name": name, "type": kind, "classification": "public"} for name, kind in types.items()]
    promise = {"version": 1, "kind": "state", "key": list(types)}
    text = json.dumps({"type": "record", "name": "Row", "govbus": promise, "fields": fields})
    return parse_contract(text, owner="civil", resource="rows")


def test_a_record_is_a_resource_and_a_key_behind_the_first_slash() -> None:
    assert split_record("stats.divisions/33/08") == ("stats.divisions", "33/08")


@pytest.mark.parametrize(
    "text", ["stats.divisions", "stats/33", "Stats.divisions/33", "stats.divisions/ ", ""]
)
def test_what_is_no_record_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(RefusedError, match=r"OWNER\.RESOURCE/KEY|/KEY"):
        split_record(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("33", "33"),
        ("code=33", "33"),
        (" code = 33", "33"),
        ('code="33"', "33"),
        ("a, b", "a, b"),
        ("a=b", "a=b"),
        ('"code=33"', "code=33"),
        ("'it''s'", "it's"),
        ('code="a "" b"', 'a " b'),
        ("衢州/柯城", "衢州/柯城"),
    ],
)
def test_a_key_of_one_field_may_be_its_value_alone(text: str, key: str) -> None:
    assert parse_key(text, contract(code="string")) == {"code": key}


def test_a_key_of_several_fields_is_given_in_any_order_and_read_in_that_of_the_contract() -> None:
    key = parse_key("since=2024-05-01,firm='a,b'", contract(firm="string", since=DATE))

    assert list(key.items()) == [("firm", "a,b"), ("since", date(2024, 5, 1))]


DATE = {"type": "int", "logicalType": "date"}
MOMENT = {"type": "long", "logicalType": "timestamp-millis"}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "-7", -7),
        ("long", "9223372036854775807", 2**63 - 1),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("bytes", "0x00fF", b"\x00\xff"),
        (DATE, "2024-05-01", date(2024, 5, 1)),
        (MOMENT, "2024-05-01T08:00:00+08:00", datetime(2024, 5, 1, tzinfo=UTC)),
        ({"type": "string", "logicalType": "uuid"}, str(UUID(int=7)), UUID(int=7)),
    ],
)
def test_a_value_is_read_as_the_type_in_the_contract(kind: Any, text: str, value: object) -> None:
    assert parse_key(text, contract(key=kind)) == {"key": value}


@pytest.mark.parametrize(
    ("types", "text", "wanted"),
    [
        ({"key": "int"}, SECRET, "a whole number of 32 bits"),
        ({"key": "int"}, "2147483648", "a whole number of 32 bits"),
        ({"key": "long"}, "１２", "a whole number of 64 bits"),
        ({"key": "boolean"}, "TRUE", "true or false"),
        ({"key": "bytes"}, "0x123", "hexadecimal"),
        ({"key": MOMENT}, "2024-05-01T08:00:00", "with its zone"),
        ({"a": "string", "b": "string"}, f"a={SECRET}", "b is missing"),
        ({"a": "string", "b": "string"}, f"a={SECRET},b=2,a=3", "'a' is there twice"),
        ({"a": "string", "b": "string"}, "a=1,c=2", "'c' is not a key field"),
        ({"a": "string", "b": "string"}, f'a="{SECRET},b=2', "the quote of 'a' is not closed"),
        ({"a": "string", "b": "string"}, f"a='1'{SECRET},b=2", "behind the quoted value of 'a'"),
        ({"a": "string", "b": "string"}, f"{SECRET}", "no field=value"),
        ({"a": "string", "b": "string"}, "a=1,", "at character 5"),
    ],
)
def test_a_key_that_cannot_be_read_is_refused_without_its_value(
    types: dict[str, Any], text: str, wanted: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        parse_key(text, contract(**types))

    assert wanted in str(refused.value)
    assert "=…" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


@given(values=st.lists(st.text(), min_size=2, max_size=2), quote=st.sampled_from("\"'"))
def test_whatever_stands_in_quotes_is_the_value(values: list[str], quote: str) -> None:
    text = ",".join(
        f"{name}={quote}{value.replace(quote, quote * 2)}{quote}"
        for name, value in zip("ab", values, strict=True)
    )

    assert list(parse_key(text, contract(a="string", b="string")).values()) == values
