"""A row filter gives the same answer as SQLite for every filter and every row, and survives any text."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from govbus.errors import FilterRefusedError
from govbus.rowfilter import RowFilter, parse_filter

FIELDS: dict[str, Any] = {
    "code": "string",
    "name": ["null", "string"],
    "level": ["int", "null"],
    "size": ["null", "long"],
    "area": ["null", "double"],
    "price": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 1}],
    "open": ["null", "boolean"],
    "kind": ["null", {"type": "enum", "name": "Kind", "symbols": ["CITY", "COUNTY"]}],
    "date": ["null", {"type": "int", "logicalType": "date"}],
    "at": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
    "note": ["null", {"type": "map", "values": "string"}],
}
"""Every kind that can be compared, all but one nullable; ``date`` is also a word of SQL."""

_TEXTS = [
    "",
    "3",
    "33",
    "3308",
    "330802",
    "Zhejiang",
    "zhejiang",
    "衢州",
    "衢",
    "it's",
    "\U0001f600",
    "é",
    "～",
]
_WHOLE = [-(2**63), -(2**53) - 1, -1, 0, 1, 2, 3, 2**31 - 1, 2**53 + 1, 2**63 - 1]
_DAYS = [date(1, 1, 1), date(1999, 12, 31), date(2024, 2, 29), date(9999, 12, 31)]

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "code": st.one_of(st.sampled_from(_TEXTS), st.text(max_size=4)),
    "name": st.one_of(st.sampled_from(_TEXTS), st.text(max_size=4)),
    "level": st.integers(-3, 3),
    "size": st.one_of(st.sampled_from(_WHOLE), st.integers(-(2**63), 2**63 - 1)),
    "area": st.one_of(st.sampled_from([-1.5, -0.0, 0.0, 0.5, 2.0, 2.0**53]), st.floats()),
    "price": st.integers(-20, 20).map(lambda halves: Decimal(halves) / 2),
    "open": st.booleans(),
    "kind": st.sampled_from(["CITY", "COUNTY"]),
    "date": st.sampled_from(_DAYS),
    "at": st.datetimes(datetime(2024, 1, 1), datetime(2024, 1, 2)).map(lambda at: at.replace(tzinfo=UTC)),  # noqa: DTZ001
    "note": st.just({"a": "b"}),
}


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_LITERALS: dict[str, st.SearchStrategy[str]] = {
    "code": st.sampled_from(_TEXTS).map(quoted),
    "name": st.sampled_from(_TEXTS).map(quoted),
    "level": st.integers(-3, 3).map(str),
    "size": st.sampled_from([number for number in _WHOLE if number > -(2**63)]).map(str),
    "area": st.sampled_from(["-1.5", "0", "0.0", "0.50", "2", "9007199254740993", "- 2.5"]),
    "price": st.sampled_from(["-1.5", "0", "0.5", "2", "10.00"]),
    "open": st.sampled_from(["TRUE", "false"]),
    "kind": st.sampled_from(["'CITY'", "'COUNTY'"]),
    "date": st.sampled_from(_DAYS).map(lambda day: f"DATE '{day}'"),
    "at": st.sampled_from(
        ["TIMESTAMP '2024-01-01 12:00:00Z'", "TIMESTAMP '2024-01-01T12:00:00.000001+08:00'"]
    ),
}
_PLAIN = ("code", "name", "level", "size", "area", "price", "open", "kind")
"""Fields whose literals SQLite spells as the filter does."""

_ORDERED = [name for name in _LITERALS if name not in ("open", "kind")]
_OPERATORS = ["=", "<>", "!=", "<", "<=", ">", ">="]
_TWINS = [("code", "name"), ("level", "size"), ("size", "level"), ("name", "code")]


def name_of(field: str) -> st.SearchStrategy[str]:
    return st.sampled_from([field, f'"{field}"'])


@st.composite
def comparisons(draw: st.DrawFn, names: Sequence[str]) -> str:
    """One allowed test of a field."""
    form = draw(st.sampled_from(["compare", "flipped", "twins", "in", "between", "like", "null", "truth"]))
    field = draw(st.sampled_from(names))
    written = draw(name_of(field))
    negated = draw(st.sampled_from(["", "NOT "]))
    if form == "null" or field == "note":
        return f"{written} IS {negated}NULL"
    literal = _LITERALS[field]
    operator = draw(
        st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="] if field in _ORDERED else ["=", "<>"])
    )
    if form == "flipped":
        return f"{draw(literal)} {operator} {written}"
    if form == "twins" and field in ("code", "name", "level", "size"):
        one, other = draw(st.sampled_from(_TWINS))
        return f"{one} {operator} {other}"
    if form == "in":
        return f"{written} {negated}IN ({', '.join(draw(st.lists(literal, min_size=1, max_size=3)))})"
    if form == "between" and field in _ORDERED:
        return f"{written} {negated}BETWEEN {draw(literal)} AND {draw(literal)}"
    if form == "like" and field in ("code", "name"):
        prefix = draw(st.sampled_from([text for text in _TEXTS if text]))
        return f"{written} {negated}LIKE {quoted(prefix + '%')}"
    if form == "truth" and field == "open":
        return written
    return f"{written} {operator} {draw(literal)}"


def filters(names: Sequence[str]) -> st.SearchStrategy[str]:
    """Any allowed filter, with and without the parentheses that precedence makes needless."""
    return st.recursive(
        comparisons(names),
        lambda inner: st.one_of(
            st.lists(inner, min_size=2, max_size=3).map(" AND ".join),
            st.lists(inner, min_size=2, max_size=3).map(" or ".join),
            inner.map(lambda text: f"NOT {text}"),
            inner.map(lambda text: f"({text})"),
        ),
        max_leaves=6,
    )


def rows() -> st.SearchStrategy[dict[str, Any]]:
    """A row of values as they are decoded, with nulls wherever the type allows them."""
    return st.fixed_dictionaries(
        {name: values if name == "code" else st.one_of(st.none(), values) for name, values in _VALUES.items()}
    )


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA case_sensitive_like = ON")
    columns = (
        "code TEXT, name TEXT, level INTEGER, size INTEGER, area REAL, price REAL, open INTEGER, kind TEXT"
    )
    connection.execute(f'CREATE TABLE place ({columns}, "date" TEXT, at TEXT, note TEXT)')
    yield connection
    connection.close()


def stored(value: Any) -> Any:
    """A value as SQLAlchemy stores it in SQLite."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")
    if isinstance(value, date | dict):
        return str(value)
    return float(value) if isinstance(value, Decimal) else value


def asked(database: sqlite3.Connection, sql: str, row: dict[str, Any]) -> bool | None:
    """What SQLite answers for one row."""
    database.execute("DELETE FROM place")
    marks = ", ".join("?" * len(FIELDS))
    database.execute(f"INSERT INTO place VALUES ({marks})", [stored(row[name]) for name in FIELDS])
    (answer,) = database.execute(f"SELECT ({sql}) FROM place").fetchone()
    return None if answer is None else bool(answer)


def answered(row_filter: RowFilter, row: dict[str, Any]) -> bool | None:
    return row_filter.compile()(*(row[name] for name in row_filter.fields))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(text=filters(_PLAIN), row=rows())
def test_the_filter_as_it_is_written_means_what_sqlite_takes_it_to_mean(
    database: sqlite3.Connection, text: str, row: dict[str, Any]
) -> None:
    """Precedence, three-valued logic and comparison in one: SQLite reads the very same text."""
    assert answered(parse_filter(text, FIELDS), row) is asked(database, text, row)


@settings(max_examples=400)
@given(text=filters(tuple(FIELDS)), row=rows())
def test_the_pushed_down_filter_gives_the_same_answer_in_sqlite(
    database: sqlite3.Connection, text: str, row: dict[str, Any]
) -> None:
    # SQLite's substr() ends at a zero character; no contract has a use for one.
    assume(not any(isinstance(value, str) and "\0" in value for value in row.values()))
    row_filter = parse_filter(text, FIELDS)

    assert answered(row_filter, row) is asked(database, row_filter.sql("sqlite"), row)


@given(text=filters(tuple(FIELDS)), row=rows())
def test_the_normalised_text_is_the_same_filter_and_stays_as_it_is(text: str, row: dict[str, Any]) -> None:
    row_filter = parse_filter(text, FIELDS)
    again = parse_filter(row_filter.text, FIELDS)

    assert again.text == row_filter.text
    assert again.fields == row_filter.fields
    assert answered(again, row) is answered(row_filter, row)


@given(text=filters(tuple(FIELDS)), spaces=st.sampled_from([" ", "  ", "\n", "\t "]))
def test_spacing_and_outer_parentheses_do_not_make_another_filter(text: str, spaces: str) -> None:
    spread = f"({spaces}{text}{spaces})"

    assert parse_filter(spread, FIELDS).text == parse_filter(text, FIELDS).text


@given(text=filters(tuple(FIELDS)), row=rows())
def test_not_turns_true_and_false_round_and_leaves_unknown(text: str, row: dict[str, Any]) -> None:
    answer = answered(parse_filter(text, FIELDS), row)
    opposite = answered(parse_filter(f"NOT ({text})", FIELDS), row)

    assert opposite is (None if answer is None else not answer)


@given(text=filters(tuple(FIELDS)))
def test_a_row_of_nulls_passes_only_a_filter_that_asks_for_null(text: str) -> None:
    row_filter = parse_filter(text, FIELDS)
    assume("IS NULL" not in row_filter.text)

    assert row_filter.compile()(*(None for _ in row_filter.fields)) is None


@given(text=filters(("area",)), number=st.sampled_from([math.nan, None]))
def test_nan_counts_as_null(text: str, number: float | None) -> None:
    matches = parse_filter(text, FIELDS).compile()

    assert matches(number) is matches(None)


_WORDS = st.one_of(
    st.sampled_from(list(FIELDS)),
    st.sampled_from(
        "( ) , ; . * + - / % || = <> != < <= > >= == :: -- /* */ ' \" ` [ ] ? :x $1 @a {{ 1=1 0x1f 1e5 .5 "
        "007 AND OR NOT IN LIKE ILIKE GLOB REGEXP BETWEEN SYMMETRIC IS NULL ISNULL NOTNULL TRUE FALSE "
        "UNKNOWN DISTINCT FROM SELECT WHERE UNION EXISTS ALL ANY CASE WHEN THEN ELSE END CAST AS DATE "
        "TIMESTAMP INTERVAL COLLATE NOCASE ESCAPE upper length XOR ROW VALUES SHOW SET DROP TABLE x N'a' "
        "X'41' B'1' E'a' U&'a' $$a$$".split()
    ),
    st.sampled_from(["'a'", "'3308%'", "'%'", "'it''s'", "DATE '2024-01-01'", "1", "-1", "2.5", "'CITY'"]),
    st.text(max_size=3),
)


@settings(max_examples=500)
@given(words=st.lists(_WORDS, max_size=9), row=rows(), glue=st.sampled_from([" ", ""]))
def test_any_text_is_refused_or_means_the_same_to_sqlite(
    database: sqlite3.Connection, words: list[str], row: dict[str, Any], glue: str
) -> None:
    """Nothing but a refusal ever comes out of a bad filter, and nothing odd is read as something harmless."""
    text = glue.join(words)
    try:
        row_filter = parse_filter(text, FIELDS)
    except FilterRefusedError:
        return

    if "DATE" not in text and "TIMESTAMP" not in text:
        assert answered(row_filter, row) is asked(database, text, row)


@given(text=st.text())
def test_any_string_at_all_is_read_or_refused(text: str) -> None:
    try:
        row_filter = parse_filter(text, FIELDS)
    except FilterRefusedError:
        return

    assert row_filter.fields
