"""Every transform on every Avro type: works as plain Python says, or is refused when the grant is made.

The table in docs/permissions.md says which. What comes out is read by fastavro
from the bytes of a delivery and compared with expectations that are worked out
here, from the documentation alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from govbus import transform, valuekind
from govbus.catalogue import ShareType
from govbus.errors import TransformRefusedError
from govbus.policy import check_grant
from govbus.view import view_schema
from support.views import SECRET, compiled, contract_of, grant_of, record

PAGE = (Path(__file__).parents[2] / "docs/permissions.md").read_text("utf-8")
NAIVE = datetime(2024, 5, 17, 13, 45, 6, 789_000)  # noqa: DTZ001 - a local timestamp has no zone
AWARE = NAIVE.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Sort:
    """One line of the table."""

    avro: Any
    value: Any
    redacted: Any
    """What redact may put in its place, as the grant has it; None where nothing can."""

    hashed: bytes | None = None
    """What a pseudonym of the value is the HMAC of; None where there is none."""


def _logical(avro: str, logical: str, **more: Any) -> dict[str, Any]:
    return {"type": avro, "logicalType": logical, **more}


SORTS: dict[str, Sort] = {
    "null": Sort("null", None, None),
    "boolean": Sort("boolean", True, False),
    "int": Sort("int", 37, 0, b"i37"),
    "long": Sort("long", 5_000_000_037, 0, b"i5000000037"),
    "float": Sort("float", 37.5, 0.0),
    "double": Sort("double", 37.25, 0.5),
    "string": Sort("string", "衢州市柯城区", "***", "s衢州市柯城区".encode()),
    "string, logical type unknown": Sort(_logical("string", "iban"), "DE8937040044", "-", b"sDE8937040044"),
    "bytes": Sort("bytes", b"\x00\xffabc", None, b"b\x00\xffabc"),
    "fixed": Sort({"type": "fixed", "name": "Mark", "size": 4}, b"abcd", None, b"babcd"),
    "enum": Sort({"type": "enum", "name": "Level", "symbols": ["CITY", "COUNTY"]}, "COUNTY", "CITY"),
    "array": Sort({"type": "array", "items": "string"}, ["a", "b"], None),
    "map": Sort({"type": "map", "values": "long"}, {"a": 1}, None),
    "record": Sort(
        {"type": "record", "name": "Place", "fields": [{"name": "street", "type": "string"}]},
        {"street": "斗潭路"},
        None,
    ),
    "array of records": Sort(
        {
            "type": "array",
            "items": {"type": "record", "name": "Child", "fields": [{"name": "born", "type": "int"}]},
        },
        [{"born": 1}, {"born": 2}],
        None,
    ),
    "recursive record": Sort(
        {
            "type": "record",
            "name": "Node",
            "namespace": "gov",
            "fields": [{"name": "next", "type": ["null", "gov.Node"]}],
        },
        {"next": {"next": None}},
        None,
    ),
    "union of several types": Sort(["int", "string"], "衢州", None, "s衢州".encode()),
    "date": Sort(_logical("int", "date"), date(2024, 5, 17), "1900-01-01", b"d2024-05-17"),
    "time-millis": Sort(
        _logical("int", "time-millis"), time(13, 45, 6, 789_000), "00:00:00", b"h13:45:06.789000"
    ),
    "time-micros": Sort(
        _logical("long", "time-micros"), time(13, 45, 6, 789_123), "00:00:00", b"h13:45:06.789123"
    ),
    "timestamp-millis": Sort(
        _logical("long", "timestamp-millis"), AWARE, "1900-01-01T00:00:00Z", b"t1715953506789000"
    ),
    "timestamp-micros": Sort(
        _logical("long", "timestamp-micros"), AWARE, "1900-01-01T00:00:00Z", b"t1715953506789000"
    ),
    "local-timestamp-millis": Sort(
        _logical("long", "local-timestamp-millis"),
        NAIVE,
        "1900-01-01T00:00:00",
        b"l2024-05-17T13:45:06.789000",
    ),
    "local-timestamp-micros": Sort(
        _logical("long", "local-timestamp-micros"),
        NAIVE,
        "1900-01-01T00:00:00",
        b"l2024-05-17T13:45:06.789000",
    ),
    "decimal (bytes)": Sort(
        _logical("bytes", "decimal", precision=8, scale=2), Decimal("-37.25"), "0.00", b"n-3725e-2"
    ),
    "decimal (fixed)": Sort(
        _logical("fixed", "decimal", name="Sum", size=6, precision=8, scale=2),
        Decimal("37.25"),
        "0.00",
        b"n3725e-2",
    ),
    "uuid": Sort(
        _logical("string", "uuid"), UUID(int=7), str(UUID(int=0)), b"s00000000-0000-0000-0000-000000000007"
    ),
    "duration": Sort(
        _logical("fixed", "duration", name="Span", size=12), b"\x01" * 12, None, b"b" + b"\x01" * 12
    ),
}

_TIMES = ("timestamp-millis", "timestamp-micros", "local-timestamp-millis", "local-timestamp-micros")
_TEXTS = ("string", "string, logical type unknown")


def _pseudonym(sort: Sort) -> str:
    assert sort.hashed is not None
    return hmac.new(SECRET + b"\1", sort.hashed, hashlib.sha256).hexdigest()[:32]


def _redacted(sort: Sort) -> Any:
    """The constant as fastavro reads it."""
    constant, name = sort.redacted, sort.avro.get("logicalType", "") if isinstance(sort.avro, dict) else ""
    if not isinstance(constant, str):
        return constant
    if name == "date":
        return date.fromisoformat(constant)
    if name.startswith("time-"):
        return time.fromisoformat(constant)
    if "timestamp" in name:
        return datetime.fromisoformat(constant)
    return Decimal(constant) if name == "decimal" else UUID(constant) if name == "uuid" else constant


def _band(value: Any) -> Any:
    """The lower bound of the band of ten."""
    lower = (int(value) if value >= 0 else -int(-value // 1 + (value % 1 != 0))) // 10 * 10
    return Decimal(lower).quantize(Decimal("0.01")) if isinstance(value, Decimal) else type(value)(lower)


_Expected = Callable[[Sort], Any]

COLUMNS: dict[str, tuple[Callable[[Sort], Any], _Expected, Callable[[str, Sort], bool]]] = {
    # column: what the grant says, what comes out, whether it fits
    "keep": (lambda _: "keep", lambda s: s.value, lambda _n, _s: True),
    "null": (lambda _: "null", lambda _: None, lambda _n, _s: True),
    "redact": (
        lambda s: {"redact": "x" if s.redacted is None else s.redacted},
        _redacted,
        lambda _n, s: s.redacted is not None,
    ),
    "partial": (
        lambda _: {"partial": {"head": 1, "tail": 1}},
        lambda s: s.value[0] + "*" * (len(s.value) - 2) + s.value[-1],
        lambda n, _: n in _TEXTS,
    ),
    "truncate": (lambda _: {"truncate": 3}, lambda s: s.value[:3], lambda n, _: n in _TEXTS),
    "prefix": (
        lambda _: {"generalise": {"prefix": 2}},
        lambda s: s.value[:2],
        lambda n, _: n in _TEXTS,
    ),
    "year": (
        lambda _: {"generalise": "year"},
        lambda s: s.value.year,
        lambda n, _: n in ("date", *_TIMES),
    ),
    "month": (
        lambda _: {"generalise": "month"},
        lambda s: s.value.strftime("%Y-%m"),
        lambda n, _: n in ("date", *_TIMES),
    ),
    "date": (lambda _: {"generalise": "date"}, lambda s: s.value.date(), lambda n, _: n in _TIMES),
    "hour": (
        lambda _: {"generalise": "hour"},
        lambda s: s.value.replace(minute=0, second=0, microsecond=0),
        lambda n, _: n in ("time-millis", "time-micros", *_TIMES),
    ),
    "band": (
        lambda _: {"generalise": {"band": 10}},
        lambda s: _band(s.value),
        lambda n, _: n in ("int", "long", "float", "double", "decimal (bytes)", "decimal (fixed)"),
    ),
    "pseudonym": (lambda _: "pseudonym", _pseudonym, lambda _n, s: s.hashed is not None),
}

CELLS = [(name, column) for name in SORTS for column in COLUMNS]


def _grant_and_contract(avro: Any, spec: Any) -> tuple[Any, Any]:
    contract = contract_of(record(("id", "string"), ("value", avro)), "id")
    return grant_of({"id": "keep", "value": spec}), contract


def _delivered(avro: Any, spec: Any, value: Any) -> Any:
    """Through the real view, from bytes to bytes; then read by fastavro."""
    grant, contract = _grant_and_contract(avro, spec)
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(dict(contract.schema)), {"id": "7", "value": value})
    view, walker = compiled(contract, {"id": "keep", "value": spec})
    walker.walk(stream.getvalue())
    body = view.project(walker)[5:]
    reader = BytesIO(body)
    row = schemaless_reader(reader, parse_schema(json.loads(json.dumps(view_schema(grant, contract)))), None)
    assert reader.tell() == len(body)
    return row["value"]


def _nullable(avro: Any) -> Any:
    if isinstance(avro, list):
        return ["null", *avro]
    return avro if avro == "null" else ["null", avro]


@pytest.mark.parametrize(("name", "column"), CELLS)
@pytest.mark.parametrize("nullable", [False, True], ids=["plain", "nullable"])
def test_a_transform_works_on_a_type_or_is_refused_when_the_grant_is_made(
    name: str, column: str, nullable: bool
) -> None:
    sort, (spec, expected, fits) = SORTS[name], COLUMNS[column]
    avro = _nullable(sort.avro) if nullable else sort.avro
    grant, contract = _grant_and_contract(avro, spec(sort))

    if not fits(name, sort):
        with pytest.raises(TransformRefusedError):
            check_grant(grant, contract, ShareType.CONDITIONAL)
        with pytest.raises(TransformRefusedError):
            view_schema(grant, contract)
        return

    check_grant(grant, contract, ShareType.CONDITIONAL)
    shown = _delivered(avro, spec(sort), sort.value)
    assert shown == expected(sort)
    assert type(shown) is type(expected(sort))
    if column != "keep" and name != "null":
        assert shown != sort.value, "passed through unchanged"
    if nullable:
        hidden = _delivered(avro, spec(sort), None)
        assert hidden == (_redacted(sort) if column == "redact" else None)


def test_the_page_has_the_table_that_these_tests_prove() -> None:
    columns = list(COLUMNS)
    lines = [
        "| type | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
        *(
            f"| {name} | "
            + " | ".join("yes" if COLUMNS[column][2](name, sort) else "·" for column in columns)
            + " |"
            for name, sort in SORTS.items()
        ),
    ]

    table = "\n".join(lines)

    assert table in PAGE, f"docs/permissions.md should have:\n{table}"


def test_the_table_has_every_type_of_avro_and_every_transform_there_is() -> None:
    kinds = {valuekind.value_kind(sort.avro) for sort in SORTS.values() if not isinstance(sort.avro, list)}
    assert kinds >= valuekind._PRIMITIVES | valuekind._NESTED - {"error"} | set(valuekind._LOGICAL.values())
    logical = {sort.avro.get("logicalType") for sort in SORTS.values() if isinstance(sort.avro, dict)}
    assert logical >= {name for _, name in valuekind._LOGICAL}
    named = {
        type(transform.parse_transform(spec(sort)))
        for sort in SORTS.values()
        for spec, _, _ in COLUMNS.values()
    }
    assert named == set(get_args(transform.Transform))
    grains = set(transform.Grain)
    assert grains == {grain for grain in transform.Grain if grain.value in COLUMNS}


def test_the_columns_of_the_page_are_explained_on_it() -> None:
    for word in ("partial", "truncate", "prefix", "band", "pseudonym"):
        assert re.search(rf"`[^`]*{word}", PAGE), word
