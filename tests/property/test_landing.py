"""Landing, whatever is delivered and whenever it is interrupted: twice is once, and nothing breaks it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govbus.catalogue import ResourceKind
from govbus.codec import frame
from govbus.errors import ContractViolationError, FencedError
from govbus.grant import DataDuty
from govbus_consumers.tables import (
    RESERVED,
    AddColumn,
    BlankColumn,
    ColumnType,
    DropColumn,
    GrowColumn,
    Kind,
    LandingTable,
    MakeAnew,
    ViewField,
    evolve,
    identifier,
    new_table,
    parse_layout,
)
from support.avro_strategies import Sample, decoded, samples
from support.broker import unique_name
from support.hostile_deliveries import CODE, optional
from support.landing_doubles import PaperLanding

FIELDS = (CODE, optional("value", "string"))

codes = st.sampled_from(["a", "b", "c", "d", "é", "'"])
deliveries = st.lists(
    st.tuples(codes, st.one_of(st.none(), st.text(max_size=5), st.just(b"bad")), st.integers(1, 4)),
    max_size=40,
)


@contextmanager
def a_landing() -> Iterator[PaperLanding]:
    with tempfile.TemporaryDirectory() as folder:
        landing = PaperLanding(f"sqlite:///{Path(folder) / 'landed.db'}")
        yield landing
        landing.close()


def deliver(landing: PaperLanding, what: list[tuple[str, str | bytes | None, int]]) -> dict[str, str]:
    """Deliver, and return the table that should come of it, worked out with a dictionary."""
    expected: dict[str, str] = {}
    for code, value, gap in what:
        key = landing.key_of({"code": code})
        if value is None:
            landing.deliver(key, None, gap=gap)
            expected.pop(code, None)
        elif isinstance(value, bytes):
            landing.deliver(key, value, gap=gap)
        else:
            landing.put({"code": code, "value": value})
            expected[code] = value
    return expected


@settings(max_examples=50)
@given(what=deliveries, data=st.data())
def test_landing_twice_is_landing_once_wherever_it_is_cut_and_repeated(
    what: list[tuple[str, str | bytes | None, int]], data: st.DataObject
) -> None:
    """A crash before the commit loses the batch, one after it reads it again; neither may show."""
    with a_landing() as landing:
        landing.agree(FIELDS)
        expected = deliver(landing, what)
        done = 0
        while done < len(landing.log):
            start = data.draw(st.integers(0, done), label="read again from")
            stop = data.draw(st.integers(done + 1, len(landing.log)), label="up to")
            batch = landing.read(landing.log[start:stop])
            if data.draw(st.booleans(), label="dies before the commit"):
                landing.claim()
                continue
            landing.sink.apply([batch])
            with pytest.raises(FencedError):
                landing.sink.apply([batch])
            landing.claim()
            done = stop

        assert dict(landing.rows()) == expected
        bad = [message.at for message in landing.log if message.value() == b"bad"]
        assert landing.dead_letters() == [(offset, "undecodable") for offset in bad]


@settings(max_examples=50)
@given(what=deliveries)
def test_rows_land_alike_one_by_one_and_all_at_once(what: list[tuple[str, str | bytes | None, int]]) -> None:
    with a_landing() as landing:
        landing.agree(FIELDS)
        expected = deliver(landing, what)

        for message in landing.log:
            landing.land([message])
        one_by_one = landing.rows("code, value, _govbus_schema, _govbus_offset")
        landing.sink.restart(landing.table)
        landing.claim()
        landing.land()

        assert landing.rows("code, value, _govbus_schema, _govbus_offset") == one_by_one
        assert {row[0]: row[1] for row in one_by_one} == expected


def _land_one(landing: PaperLanding, sample: Sample) -> None:
    """Land one record of any schema, under a key that the schema need not show."""
    landing.version = 1
    says = {"grant": landing.grant, "version": 1, "purpose": "tests"}
    key = {"type": "record", "name": "TheKey", "fields": [{"name": "the key", "type": "string"}]}
    landing.agree_on({**sample.schema, "govbus": says}, key)
    landing.deliver(landing.key_of({"the key": "k"}), frame(landing.value_schema.id, sample.body))
    landing.land()


def _can_be_decoded(sample: Sample) -> bool:
    try:
        decoded(sample.schema, sample.body)
    except Exception:
        return False
    return True


@given(sample=samples())
def test_a_record_of_any_avro_schema_lands_or_is_set_aside(sample: Sample) -> None:
    with a_landing() as landing:
        landing.key = ("the key",)

        _land_one(landing, sample)

        landed, set_aside = len(landing.rows("1")), len(landing.dead_letters())
        assert (landed, set_aside) == ((1, 0) if _can_be_decoded(sample) else (0, 1))


@pytest.mark.postgres
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sample=samples())
def test_the_same_in_postgresql_where_only_what_it_cannot_hold_is_set_aside(
    postgres_url: str, sample: Sample
) -> None:
    with closing(PaperLanding(postgres_url, key=("the key",), grant=unique_name("g"))) as landing:
        _land_one(landing, sample)

        letters = [code for _, code in landing.dead_letters()]
        assert len(landing.rows("1")) + len(letters) == 1
        if not _can_be_decoded(sample):
            assert letters == ["undecodable"]
        elif letters:
            assert letters == ["contract-violation"]
            assert b"\x00" in sample.body


# Tables

names = st.one_of(
    st.sampled_from(["code", "Code", "CODE", "select", "_govbus_offset", "_GOVBUS_x", "field_govbus_offset"]),
    st.text("ab\"'", min_size=1, max_size=3),
    st.text("x", min_size=60, max_size=90),
)
types = st.sampled_from(
    [
        *(ColumnType(kind) for kind in Kind if kind is not Kind.DECIMAL),
        ColumnType(Kind.DECIMAL, 10, 2),
        ColumnType(Kind.DECIMAL, 12, 2),
        ColumnType(Kind.DECIMAL, 12, 3),
    ]
)
views = st.lists(
    st.builds(ViewField, names, types), min_size=1, max_size=6, unique_by=lambda field: field.name
)


class TableOnPaper:
    """What a store holds when it does as it is told."""

    def __init__(self, table: LandingTable) -> None:
        self.columns: dict[str, ColumnType] = {}
        self._make(table)

    def _make(self, table: LandingTable) -> None:
        self.columns = dict(zip(table.names, table.types, strict=True))
        assert len({name.casefold() for name in self.columns}) == len(self.columns)

    def follow(self, table: LandingTable, steps: tuple[object, ...]) -> None:
        for step in steps:
            match step:
                case AddColumn(column):
                    assert column.name.casefold() not in {name.casefold() for name in self.columns}
                    self.columns[column.name] = column.type
                case DropColumn(column):
                    del self.columns[column.name]
                case BlankColumn(column):
                    assert column.name in self.columns
                case GrowColumn(column):
                    assert column.type.holds(self.columns[column.name])
                    self.columns[column.name] = column.type
                case MakeAnew():
                    self._make(table)


@given(first=views, later=st.lists(st.tuples(views, st.sampled_from(DataDuty), st.booleans()), max_size=5))
def test_a_table_follows_its_view_through_any_versions(
    first: list[ViewField], later: list[tuple[list[ViewField], DataDuty, bool]]
) -> None:
    key = [first[0]]
    table = new_table(
        grant="g",
        version=1,
        name="t",
        kind=ResourceKind.STATE,
        topic="x",
        key_name="K",
        key=key,
        fields=first,
    )
    store = TableOnPaper(table)

    for version, (fields, duty, only_add) in enumerate(later, start=2):
        before = table
        table, steps = evolve(
            table, version=version, key_name="K", key=key, fields=fields, duty=duty, only_add=only_add
        )
        store.follow(table, steps)

        shown = {column.field: column.type for column in table.columns}
        wanted = {field.name: field.type for field in fields if field.name != key[0].name}
        left = {column.field for column in before.columns} - wanted.keys()
        if only_add:
            assert shown.keys() == wanted.keys() | {column.field for column in before.columns}
            assert not any(
                isinstance(step, DropColumn | BlankColumn) and step.column in before.columns for step in steps
            )
        else:
            assert shown.keys() == wanted.keys()
            assert all(shown[name].holds(wanted[name]) for name in wanted)
            retired = {column.field for column in table.retired}
            assert (left <= retired) if duty is not DataDuty.DELETE else not left & retired
        kept = (*table.key, *table.columns, *table.retired)
        assert {column.name: column.type for column in kept}.items() <= store.columns.items()
        assert set(store.columns) - {column.name for column in kept} == set(table.names[-3:])
        assert (
            LandingTable(
                grant="g",
                name="t",
                version=table.version,
                kind=table.kind,
                topic="x",
                **parse_layout(table.layout()),
            )
            == table
        )


@given(texts=st.lists(names, unique=True, max_size=12))
def test_names_of_columns_never_meet(texts: list[str]) -> None:
    taken: list[str] = []
    for text in texts:
        taken.append(identifier(text, taken))

    assert len({name.casefold() for name in taken}) == len(taken)
    assert all(len(name.encode()) <= 63 and not name.casefold().startswith(RESERVED) for name in taken)


@given(first=views, fields=views)
def test_another_key_is_another_table_and_never_an_addition(
    first: list[ViewField], fields: list[ViewField]
) -> None:
    table = new_table(
        grant="g",
        version=1,
        name="t",
        kind=ResourceKind.STATE,
        topic="x",
        key_name="K",
        key=first[:1],
        fields=first,
    )

    remade, steps = evolve(
        table, version=4, key_name="Pseudonym", key=first[:1], fields=fields, duty=DataDuty.KEEP
    )

    assert steps == (MakeAnew(),)
    assert remade.ended == 3
    with pytest.raises(ContractViolationError):
        evolve(
            table,
            version=4,
            key_name="Pseudonym",
            key=first[:1],
            fields=fields,
            duty=DataDuty.KEEP,
            only_add=True,
        )
