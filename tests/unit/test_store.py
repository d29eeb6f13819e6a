"""The control store keeps what was decided, tells Kafka through the outbox, and never rewrites history."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, select, text

from govbus.catalogue import Department, Resource, ResourceKind, ShareType
from govbus.contract import parse_contract
from govbus.errors import ConfigurationError, SinkUnavailableError
from govbus.grant import DataDuty, FieldRule, Grant, GrantState, PublishedGrant
from govbus.transform import Keep, Pseudonym
from govbus_console.control import (
    migrate,
    receipts,  # noqa: F401  its tables join those of the models
    request_tables,  # noqa: F401  and so do these
    token_tables,  # noqa: F401  and these
)
from govbus_console.control.store import (
    AuditRow,
    ControlStore,
    GrantRow,
    Moment,
    OutboxRow,
    StoredGrant,
    StoredResource,
    Table,
    Writing,
    contract_text,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

CONTRACT = parse_contract(
    json.dumps(
        {
            "type": "record",
            "name": "Division",
            "govbus": {"version": 1, "kind": "state", "key": ["code"], "partitions": 3},
            "fields": [
                {"name": "code", "type": "string", "classification": "public"},
                {"name": "name", "type": "string", "classification": "public"},
            ],
        }
    ),
    owner="stats",
    resource="divisions",
)


def a_resource(**changes: object) -> StoredResource:
    facts = {
        "owner": "stats",
        "name": "divisions",
        "title": "Division codes",
        "share_type": ShareType.CONDITIONAL,
        "kind": ResourceKind.STATE,
        "contract_version": 1,
        "key": ("code",),
        "partitions": 3,
        "value_schema_id": 11,
        "key_schema_id": 12,
    }
    return StoredResource(
        resource=Resource(**(facts | changes)),  # type: ignore[arg-type]
        contract=CONTRACT,
        contract_text=contract_text(CONTRACT),
        synthetic=True,
        owner_allows=("name",),
    )


def a_grant(version: int = 1, state: GrantState = GrantState.ACTIVE) -> StoredGrant:
    return StoredGrant(
        published=PublishedGrant(
            grant=Grant(
                id="quzhou-divisions",
                version=version,
                state=state,
                subscriber="quzhou",
                owner="stats",
                resource="divisions",
                fields=(
                    FieldRule(name="code", transform=Pseudonym(epoch=2)),
                    FieldRule(name="name", transform=Keep()),
                ),
                rows="code LIKE '3308%'",
                purpose="Address register",
                starts_at=NOON,
                expires_at=NOON + timedelta(days=1),
                data_on_end=DataDuty.BLANK,
                quota_records_per_day=100,
                quota_keys_per_day=10,
            ),
            view="v-1",
            delivery_topic="govbus.delivered.quzhou.quzhou-divisions",
            value_schema_id=13,
            key_schema_id=14,
        ),
        contract_version=1,
        made_at=NOON,
    )


def write_everything(writing: Writing) -> None:
    writing.department(Department(name="stats", title="Statistics bureau"))
    writing.department(Department(name="quzhou", title="Quzhou"))
    writing.resource(a_resource())
    writing.grant(a_grant())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    opened = ControlStore.open(f"sqlite:///{tmp_path / 'control.db'}")
    yield opened
    opened.close()


def test_what_is_written_is_what_counts(store: ControlStore) -> None:
    with store.writing(who="li", why="first", now=NOON) as writing:
        write_everything(writing)

    found = store.snapshot()

    assert found.departments["stats"] == Department(name="stats", title="Statistics bureau")
    assert found.resources == {"stats.divisions": a_resource()}
    assert found.grants == {"quzhou-divisions": a_grant()}


def test_the_newest_version_of_a_grant_counts_and_the_older_ones_stay(store: ControlStore) -> None:
    with store.writing(who="li", why="first", now=NOON) as writing:
        write_everything(writing)
    with store.writing(who="wang", why="asked to stop", now=NOON) as writing:
        writing.grant(a_grant(version=2, state=GrantState.REVOKED))

    with store.reading() as session:
        versions = list(session.scalars(select(GrantRow).order_by(GrantRow.version)))

    assert [(row.version, row.state) for row in versions] == [(1, "active"), (2, "revoked")]
    assert store.snapshot().grants["quzhou-divisions"].grant.version == 2


@pytest.mark.parametrize("version", [1, 3])
def test_a_grant_version_can_neither_be_replaced_nor_skipped(store: ControlStore, version: int) -> None:
    with store.writing(who="li", why="first", now=NOON) as writing:
        write_everything(writing)

    with (
        pytest.raises(ValueError, match=f"version {version} does not follow 1"),
        store.writing(who="li", why="again", now=NOON) as writing,
    ):
        writing.grant(a_grant(version=version))


def test_a_grant_version_is_never_edited_in_place(store: ControlStore) -> None:
    with store.writing(who="li", why="first", now=NOON) as writing:
        write_everything(writing)

    with pytest.raises(TypeError, match="written once"), store.locked() as session:
        session.get_one(GrantRow, ("quzhou-divisions", 1)).purpose = "something else"


def test_every_write_says_who_when_what_and_why(store: ControlStore) -> None:
    with store.writing(who="li", why="first", now=NOON) as writing:
        write_everything(writing)
    with store.writing(who="wang", why="renamed", now=NOON + timedelta(hours=1)) as writing:
        writing.department(Department(name="quzhou", title="Quzhou city"))

    with store.reading() as session:
        audit = list(session.scalars(select(AuditRow).order_by(AuditRow.seq)))

    assert [row.what for row in audit] == [
        "department stats",
        "department quzhou",
        "resource stats.divisions",
        "grant quzhou-divisions",
        "department quzhou",
    ]
    last = audit[-1]
    assert (last.who, last.why, last.at) == ("wang", "renamed", NOON + timedelta(hours=1))
    assert (last.before, last.after) == ({"title": "Quzhou"}, {"title": "Quzhou city"})
    assert audit[0].before is None


def test_an_audit_row_is_never_changed(store: ControlStore) -> None:
    with store.writing(who="li", why="first", now=NOON) as writing:
        write_everything(writing)

    with pytest.raises(TypeError, match="written once"), store.locked() as session:
        session.get_one(AuditRow, 1).who = "somebody else"


def test_what_kafka_must_be_told_is_queued_with_what_was_decided(store: ControlStore) -> None:
    with store.writing(who="li", why="first", now=NOON) as writing:
        write_everything(writing)

    with store.reading() as session:
        queued = list(session.scalars(select(OutboxRow).order_by(OutboxRow.seq)))

    assert [(row.topic, row.record_key, row.schema) for row in queued] == [
        ("govbus.grants", b"resource/stats.divisions", "resource"),
        ("govbus.grants", b"grant/quzhou-divisions", "grant"),
    ]
    assert queued[1].record["expires_at"] == round((NOON + timedelta(days=1)).timestamp() * 1000)
    assert [row.published_at for row in queued] == [None, None]


def test_a_write_that_fails_leaves_nothing_behind(store: ControlStore) -> None:
    def write_and_die() -> None:
        with store.writing(who="li", why="first", now=NOON) as writing:
            write_everything(writing)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_and_die()

    found = store.snapshot()
    with store.reading() as session:
        left = session.scalars(select(OutboxRow)).all() + session.scalars(select(AuditRow)).all()

    assert (found.departments, found.grants, left) == ({}, {}, [])


def _hold_the_lock(url: str, held: multiprocessing.synchronize.Event, release: object) -> None:
    with ControlStore(url).locked():
        held.set()
        release.wait(30)  # type: ignore[attr-defined]


def test_a_second_writer_waits_and_then_sees_what_the_first_wrote(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'control.db'}"
    store = ControlStore.open(url)
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold_the_lock, args=(url, held, release))
    other.start()
    assert held.wait(30)

    blocked = sqlite3.connect(tmp_path / "control.db", timeout=0.1, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        blocked.execute("BEGIN IMMEDIATE")
    blocked.close()
    release.set()
    with store.writing(who="li", why="after the other", now=NOON) as writing:
        write_everything(writing)
    other.join(30)

    assert len(store.snapshot().grants) == 1
    store.close()


def test_a_store_that_cannot_be_opened_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "control.db").mkdir()

    with pytest.raises(SinkUnavailableError, match="control store"):
        ControlStore.open(f"sqlite:///{tmp_path / 'control.db'}")


@pytest.mark.parametrize("url", ["", "nonsense", "nodriver://here/there"])
def test_a_url_that_is_none_is_a_named_error_without_the_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match="GOVBUS_CONTROL_URL") as caught:
        ControlStore(url)

    assert "there" not in str(caught.value)


def test_moments_come_back_with_their_zone(store: ControlStore) -> None:
    shanghai = timezone(timedelta(hours=8))

    with store.writing(who="li", why="first", now=datetime(2026, 1, 1, 20, tzinfo=shanghai)) as writing:
        writing.department(Department(name="stats", title="Statistics bureau"))

    with store.reading() as session:
        assert session.scalars(select(AuditRow.at)).one() == NOON
    with pytest.raises(ValueError, match="needs a time zone"):
        Moment().process_bind_param(datetime(2026, 1, 1), store.engine.dialect)  # noqa: DTZ001


def test_the_migrations_make_exactly_the_tables_of_the_models(tmp_path: Path) -> None:
    store = ControlStore.open(f"sqlite:///{tmp_path / 'migrated.db'}")
    modelled = create_engine("sqlite://")
    Table.metadata.create_all(modelled)

    def shape(engine: object) -> dict[str, object]:
        found = inspect(engine)
        return {
            table: (
                [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)],
                found.get_pk_constraint(table)["constrained_columns"],
                sorted(
                    (f["constrained_columns"], f["referred_table"]) for f in found.get_foreign_keys(table)
                ),
                sorted((i["name"], i["column_names"]) for i in found.get_indexes(table)),
            )
            for table in found.get_table_names()
            if table != "alembic_version"
        }

    assert shape(store.engine) == shape(modelled)
    store.close()
    modelled.dispose()


def test_migrations_go_down_and_up_again_with_data_in(store: ControlStore) -> None:
    with store.writing(who="li", why="first", now=NOON) as writing:
        write_everything(writing)

    migrate.downgrade(store.engine, "base")
    gone = set(inspect(store.engine).get_table_names())
    migrate.upgrade(store.engine)

    assert gone == {"alembic_version"}
    assert store.snapshot().departments == {}
    with store.writing(who="li", why="again", now=NOON) as writing:
        write_everything(writing)
    assert store.snapshot().grants == {"quzhou-divisions": a_grant()}


def test_opening_twice_keeps_what_is_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'control.db'}"
    first = ControlStore.open(url)
    with first.writing(who="li", why="first", now=NOON) as writing:
        write_everything(writing)
    first.close()

    second = ControlStore.open(url)

    assert second.snapshot().grants == {"quzhou-divisions": a_grant()}
    with second.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    second.close()


def test_the_newest_revision_is_the_one_that_is_named() -> None:
    """Otherwise a store that needs a migration would pass for a current one."""
    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))

    assert scripts.get_current_head() == migrate.HEAD
