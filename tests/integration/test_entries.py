"""The catalogue in the store, on SQLite and on PostgreSQL: kept, found by an index, migrated with data in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, inspect, select, text

from govbus.catalogue import (
    Classification,
    Department,
    DepartmentLevel,
    Resource,
    ResourceKind,
    ShareType,
)
from govbus.contract import parse_contract
from govbus.entry import Entry, SaidItem, items_of, with_items
from govbus_console.control import migrate
from govbus_console.control.entries import EntryRow, Question, find, row_of, statement
from govbus_console.control.store import (
    AuditRow,
    ContractRow,
    ControlStore,
    ResourceRow,
    StoredResource,
    contract_text,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MANY = 20_000

CIVIL = Department(
    name="civil",
    title="民政局",
    level=DepartmentLevel.PROVINCE,
    credit_code="11330000DEM0000025",
    contact="Data office",
)
QUZHOU = Department(name="quzhou", title="衢州市", level=DepartmentLevel.CITY, parent="civil")


def a_contract(name: str, *fields: str, grade: str = "internal") -> Any:
    schema = {
        "type": "record",
        "name": "Row",
        "govbus": {"version": 1, "kind": "state", "key": ["id"]},
        "fields": [{"name": field, "type": "string", "classification": grade} for field in ("id", *fields)],
    }
    return parse_contract(json.dumps(schema), owner="civil", resource=name)


def a_resource(name: str, title: str, *, grade: str = "internal", **words: Any) -> StoredResource:
    share_type = words.pop("share_type", ShareType.CONDITIONAL)
    contract = a_contract(name, "phone", grade=grade)
    items = items_of(contract, [SaidItem(name="phone", title="联系电话", length=20)])
    entry = Entry(items=items, **({"abstract": "An abstract"} | words)) if words else None
    return StoredResource(
        resource=Resource(
            owner="civil",
            name=name,
            title=title,
            share_type=share_type,
            kind=ResourceKind.STATE,
            contract_version=1,
            key=("id",),
            partitions=1,
            value_schema_id=1,
            key_schema_id=2,
        ),
        contract=with_items(contract, entry),
        contract_text=contract_text(contract),
        synthetic=False,
        owner_allows=(),
        entry=entry,
    )


RESIDENTS = a_resource(
    "residents",
    "常住人口",
    grade="core",
    code="330000B07/000012",
    category=("基础信息资源", "人口", "常住人口"),
    abstract="One row for each registered resident",
    condition="Needed for a duty",
)
MARRIAGES = a_resource(
    "marriages", "婚姻登记", category=("部门信息资源", "民政"), condition="By application", open=True
)
DIVISIONS = a_resource("divisions", "区划代码", grade="public", share_type=ShareType.UNCONDITIONAL)


BY_TEXT: list[tuple[str, list[str]]] = [
    ("人口", ["residents"]),
    ("常住人口", ["residents"]),
    ("人", ["residents"]),
    ("口人", []),
    ("婚姻", ["marriages"]),
    ("民政", ["marriages"]),
    ("联系电话", ["residents", "marriages"]),
    ("phone", ["residents", "marriages", "divisions"]),
    ("REGISTERED resid", ["residents"]),
    ("330000B07/000012", ["residents"]),
    ("人口 婚姻", []),
    ("nothing", []),
]

BY_WORD: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["residents", "marriages", "divisions"]),
    ({"owner": "civil"}, ["residents", "marriages", "divisions"]),
    ({"owner": "quzhou"}, []),
    ({"share_type": ShareType.UNCONDITIONAL}, ["divisions"]),
    ({"classification": Classification.CORE}, ["residents"]),
    ({"classification": Classification.PUBLIC}, ["divisions"]),
    ({"category": ("基础信息资源",)}, ["residents"]),
    ({"category": ("基础信息资源", "人口")}, ["residents"]),
    ({"category": ("人口",)}, []),
    ({"level": DepartmentLevel.PROVINCE}, ["residents", "marriages", "divisions"]),
    ({"level": DepartmentLevel.CITY}, []),
    ({"open": True}, ["marriages"]),
    ({"open": False}, ["residents", "divisions"]),
    ({"code": "330000B07/000012"}, ["residents"]),
    ({"code": "330000B07"}, []),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'control.db'}"
    given: str = request.getfixturevalue("postgres_url")
    return given


@pytest.fixture
def store(url: str) -> Iterator[ControlStore]:
    opened = ControlStore.open(url)
    with opened.writing(who="li", why="first", now=NOON) as writing:
        for department in (CIVIL, QUZHOU):
            writing.department(department)
        for resource in (RESIDENTS, MARRIAGES, DIVISIONS):
            writing.resource(resource)
    yield opened
    opened.close()


def found(store: ControlStore, text: str = "", **words: Any) -> list[str]:
    return [one.ref.removeprefix("civil.") for one in find(store, Question(text=text, **words)).found]


def test_what_is_written_comes_back(store: ControlStore) -> None:
    known = store.snapshot()

    assert known.departments == {"civil": CIVIL, "quzhou": QUZHOU}
    assert known.resources["civil.residents"] == RESIDENTS
    assert known.resources["civil.divisions"].entry is None


def test_an_entry_is_found_by_title_code_category_abstract_and_items(store: ControlStore) -> None:
    assert [(text, found(store, text)) for text, _ in BY_TEXT] == BY_TEXT


def test_entries_are_picked_by_each_word_alone_and_with_a_text(store: ControlStore) -> None:
    assert [(words, found(store, **words)) for words, _ in BY_WORD] == BY_WORD
    assert [(words, found(store, "phone", **words)) for words, _ in BY_WORD] == BY_WORD


def test_an_entry_that_changes_or_goes_is_found_as_it_is(store: ControlStore) -> None:
    with store.writing(who="li", why="renamed", now=NOON) as writing:
        writing.resource(a_resource("marriages", "结婚证", condition="By application"))
        writing.remove_resource(DIVISIONS)

    assert (found(store, "婚姻"), found(store, "结婚证")) == ([], ["marriages"])
    assert found(store, "phone") == ["residents", "marriages"]
    known = store.snapshot()
    assert set(known.resources) == {"civil.residents", "civil.marriages"}
    assert known.removed_resources == {"civil.divisions": DIVISIONS}


def test_the_audit_says_what_an_entry_was_and_became(store: ControlStore) -> None:
    with store.writing(who="wang", why="corrected", now=NOON) as writing:
        writing.department(Department(name="quzhou", title="衢州市"))
        writing.resource(a_resource("marriages", "婚姻登记", condition="Agreed", open=True))
        writing.remove_resource(RESIDENTS)
        writing.remove_department("quzhou")

    with store.reading() as session:
        rows = list(session.scalars(select(AuditRow).order_by(AuditRow.seq)))[-4:]
    changed, corrected, gone, left = rows
    assert (changed.before, changed.after) == (
        {"title": "衢州市", "level": "city", "parent": "civil"},
        {"title": "衢州市"},
    )
    assert corrected.before is not None
    assert corrected.after is not None
    assert corrected.before["entry"]["condition"] == "By application"
    assert corrected.after["entry"]["condition"] == "Agreed"
    assert (gone.what, gone.after, left.what, left.after) == (
        "resource civil.residents",
        None,
        "department quzhou",
        None,
    )
    assert gone.before is not None
    assert gone.before["entry"]["code"] == "330000B07/000012"
    assert {row.who for row in rows} == {"wang"}


def test_what_was_removed_can_come_back(store: ControlStore) -> None:
    with store.writing(who="li", why="mistake", now=NOON) as writing:
        writing.remove_resource(RESIDENTS)
        writing.remove_department("quzhou")
    with store.writing(who="li", why="corrected", now=NOON) as writing:
        writing.resource(RESIDENTS)
        writing.department(QUZHOU)

    known = store.snapshot()
    assert known.resources["civil.residents"] == RESIDENTS
    assert known.departments["quzhou"] == QUZHOU
    assert (dict(known.removed_resources), dict(known.removed_departments)) == ({}, {})
    assert "residents" in found(store, "人口")


def fill(store: ControlStore) -> None:
    """Put thousands of entries in, with a word that one in a thousand has."""
    resources, contracts, entries = [], [], []
    for number in range(MANY):
        name = f"r{number}"
        contract = a_contract(name)
        common = {"owner": "civil", "name": name, "title": f"资源{number}", "share_type": "conditional"}
        if number % 1_000 == 999:
            common["title"] += "不动产"
        resources.append(common | {"synthetic": False, "owner_allows": [], "contract_version": 1})
        contracts.append(
            {
                "owner": "civil",
                "resource": name,
                "version": 1,
                "schema": contract_text(contract),
                "value_schema_id": 1,
                "key_schema_id": 2,
                "added_at": NOON,
            }
        )
        entries.append(row_of(common, contract, None))
    with store.locked() as session:
        session.execute(insert(ResourceRow), resources)
        session.execute(insert(ContractRow), contracts)
        session.execute(insert(EntryRow), entries)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def explained(store: ControlStore, question: Question) -> str:
    dialect = store.engine.dialect
    query = statement(question, dialect.name).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    how = "EXPLAIN QUERY PLAN" if dialect.name == "sqlite" else "EXPLAIN"
    with store.engine.connect() as connection:
        return "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(f"{how} {query}"))


def test_a_search_among_thousands_uses_an_index_and_comes_page_by_page(store: ControlStore) -> None:
    fill(store)
    sqlite = store.engine.dialect.name == "sqlite"

    by_word = explained(store, Question(text="不动产"))
    by_code = explained(store, Question(code="330000B07/000012"))
    by_category = explained(store, Question(category=("部门信息资源", "民政")))

    assert ("VIRTUAL TABLE INDEX" if sqlite else "ix_catalogue_entries_words") in by_word
    assert "TEMP B-TREE" not in by_word
    assert "ix_catalogue_entries_code" in by_code
    assert "ix_catalogue_entries_category" in by_category
    by_owner = explained(store, Question(owner="civil", after=MANY - 100))
    assert "TEMP B-TREE" not in by_owner
    for plan in (by_word, by_code, by_category, by_owner):
        assert "SCAN catalogue_entries" not in plan
        assert "Seq Scan on catalogue_entries" not in plan

    pages, after = [], 0
    while True:
        page = find(store, Question(text="不动产", limit=8, after=after))
        pages.append([one.ref for one in page.found])
        if page.next is None:
            break
        after = page.next
    assert [len(page) for page in pages] == [8, 8, 4]
    assert [ref for page in pages for ref in page] == [f"civil.r{n}" for n in range(999, MANY, 1_000)]


def test_the_migration_makes_entries_of_what_is_there_and_gives_everything_back(store: ControlStore) -> None:
    before = store.snapshot()
    migrate.downgrade(store.engine, "0001")

    tables = set(inspect(store.engine).get_table_names())
    columns = {column["name"] for column in inspect(store.engine).get_columns("departments")}
    with store.engine.connect() as connection:
        titles = set(connection.scalars(text("SELECT title FROM resources")))
    migrate.upgrade(store.engine)

    assert not {name for name in tables if name.startswith("catalogue_")}
    assert columns == {"name", "title"}
    assert titles == {"常住人口", "婚姻登记", "区划代码"}
    after = store.snapshot()
    assert after.resources.keys() == before.resources.keys()
    assert after.departments["civil"] == Department(name="civil", title="民政局")
    # What older tables cannot hold is gone; titles and fields are found all the same.
    assert found(store, "人口") == ["residents"]
    assert len(found(store, "phone")) == 3


def test_going_down_does_not_bring_back_what_was_removed(store: ControlStore) -> None:
    with store.writing(who="li", why="gone", now=NOON) as writing:
        writing.remove_department("quzhou")

    with pytest.raises(RuntimeError, match="have been removed"):
        migrate.downgrade(store.engine, "0001")

    assert set(store.snapshot().departments) == {"civil"}
