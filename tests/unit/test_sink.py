"""Every sink: exactly once, fenced, survives whatever is delivered; PostgreSQL where there is one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from govbus.catalogue import ResourceKind
from govbus.codec import encode
from govbus.errors import (
    AccessDeniedError,
    ConfigurationError,
    ContractViolationError,
    FencedError,
    SinkUnavailableError,
)
from govbus.grant import DataDuty, GrantState
from govbus.receipt import EMPTY_DIGEST
from govbus_consumers.rows import SchemaAheadError
from govbus_consumers.tables import fields_of
from support.hostile_deliveries import CODE, HOSTILE, Hostile, optional
from support.landing_doubles import NOON, SIGNATORY, PaperLanding

FIELDS = (CODE, optional("name", "string"), optional("staff", "int"))
STORES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if store == "sqlite":
        return f"sqlite:///{tmp_path / 'landed.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def another(url: str) -> Iterator[Callable[..., PaperLanding]]:
    """Makes landings that write into the same store."""
    made: list[PaperLanding] = []

    def make(**options: object) -> PaperLanding:
        landing = PaperLanding(url, **options)  # type: ignore[arg-type]
        made.append(landing)
        return landing

    yield make
    for landing in made:
        landing.close()


@pytest.fixture
def landing(another: Callable[..., PaperLanding]) -> PaperLanding:
    return another()


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_a_sink_survives_hostile_deliveries(landing: PaperLanding, store: str, case: Hostile) -> None:
    landing.agree(case.fields, key=case.key)
    case.deliver(landing)

    landing.land()

    rows, letters = case.expected(store)
    assert landing.rows() == rows
    assert landing.dead_letters() == letters


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_how_deliveries_fall_into_batches_changes_nothing(
    landing: PaperLanding, store: str, case: Hostile
) -> None:
    landing.agree(case.fields, key=case.key)
    case.deliver(landing)

    for message in landing.log:
        landing.land([message])

    rows, letters = case.expected(store)
    assert landing.rows() == rows
    assert landing.dead_letters() == letters


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_landing_everything_again_changes_nothing(landing: PaperLanding, store: str, case: Hostile) -> None:
    landing.agree(case.fields, key=case.key)
    case.deliver(landing)
    landing.land()

    landing.claim()
    again = landing.land()
    landing.sink.restart(landing.table)
    landing.claim()
    landing.land()

    rows, letters = case.expected(store)
    assert again.changes == []
    assert landing.rows() == rows
    assert landing.dead_letters() == letters


def test_each_logical_type_is_itself_in_the_store(landing: PaperLanding, store: str) -> None:
    moment = datetime(2026, 2, 28, 23, 59, 59, 123000, tzinfo=UTC)
    row = {
        "code": "a",
        "born": date(1, 1, 1),
        "opens": time(23, 59, 59, 999000),
        "seen": moment,
        "local": datetime(9999, 12, 31, 23, 59, 59),  # noqa: DTZ001 - that is what it is
        "price": Decimal("-99999999.99"),
        "tiny": Decimal("0.0000001"),
        "id": UUID(int=1),
    }
    landing.agree(
        [
            CODE,
            optional("born", {"type": "int", "logicalType": "date"}),
            optional("opens", {"type": "int", "logicalType": "time-millis"}),
            optional("seen", {"type": "long", "logicalType": "timestamp-millis"}),
            optional("local", {"type": "long", "logicalType": "local-timestamp-micros"}),
            optional("price", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}),
            optional("tiny", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 7}),
            optional("id", {"type": "string", "logicalType": "uuid"}),
        ]
    )
    landing.put(row)
    landing.put(dict.fromkeys(row) | {"code": "b"})

    landing.land()

    landed = {
        "sqlite": (
            "a",
            "0001-01-01",
            "23:59:59.999000",
            "2026-02-28 23:59:59.123000",
            "9999-12-31 23:59:59.000000",
            "-99999999.99",
            "0.0000001",
            str(UUID(int=1)),
        ),
        "postgresql": tuple(row.values()),
    }[store]
    assert landing.rows() == [landed, ("b",) + (None,) * 7]


def test_a_date_that_no_calendar_has_is_set_aside(landing: PaperLanding) -> None:
    landing.agree([CODE, optional("born", {"type": "int", "logicalType": "date"})])
    key = landing.key_of({"code": "a"})
    # Day 2**31 - 1 after 1970 is in the year 5,881,580.
    landing.deliver(key, bytes([0, 0, 0, 0, landing.value_schema.id]) + b"\x02a\x02\xfe\xff\xff\xff\x0f")
    landing.put({"code": "z", "born": date(2026, 1, 1)})

    landing.land()

    assert landing.dead_letters() == [(0, "undecodable")]
    assert [row[0] for row in landing.rows()] == ["z"]


def test_a_row_says_from_where_under_what_and_when_it_came(landing: PaperLanding, store: str) -> None:
    landing.agree(FIELDS)
    landing.deliver(None, None)
    landing.put({"code": "a", "name": "x", "staff": 1})

    landing.land()

    stamp = "2026-07-01 12:00:00.000000" if store == "sqlite" else NOON
    assert landing.rows("_govbus_schema, _govbus_offset, _govbus_landed_at") == [
        (landing.value_schema.id, 1, stamp)
    ]


def test_a_dead_letter_keeps_the_original_bytes_and_says_nothing_of_their_content(
    landing: PaperLanding,
) -> None:
    landing.agree(FIELDS)
    key = landing.key_of({"code": "secret"})
    landing.deliver(key, b"\x00not a secret any more")

    landing.land()

    (row,) = landing.query("SELECT record_key, record_value, topic, detail FROM _govbus_dead_letters")
    assert (bytes(row[0]), bytes(row[1])) == (key, b"\x00not a secret any more")
    assert row[2] == landing.topic
    assert "secret" not in row[3]


def test_rows_and_offset_are_there_together_or_not_at_all(landing: PaperLanding) -> None:
    landing.agree(FIELDS)
    for number in range(300):
        landing.put({"code": f"{number}", "name": None, "staff": number})
    batch = landing.read(landing.log)

    with pytest.raises(ZeroDivisionError):
        # As if the process had died after the rows and before the commit.
        landing.sink.apply([replace(batch, dead_letters=_Dying())])

    assert landing.rows() == []
    assert landing.query("SELECT next_offset FROM _govbus_offsets") == [(0,)]
    landing.land()
    assert len(landing.rows()) == 300
    assert landing.query("SELECT next_offset FROM _govbus_offsets") == [(300,)]


class _Dying(list[object]):
    """Dead letters that cannot be written down."""

    def __iter__(self) -> Iterator[object]:
        raise ZeroDivisionError


def test_the_same_batch_cannot_be_written_twice(landing: PaperLanding) -> None:
    landing.agree(FIELDS)
    landing.put({"code": "a", "name": "first", "staff": 1})
    batch = landing.read(landing.log)
    landing.sink.apply([batch])

    with pytest.raises(FencedError):
        landing.sink.apply([batch])


def test_a_process_that_lost_its_partition_cannot_write_even_before_the_next_one_has(
    another: Callable[..., PaperLanding],
) -> None:
    zombie, heir = another(), another()
    for landing in (zombie, heir):
        landing.agree(FIELDS)
    zombie.claim()
    zombie.put({"code": "a", "name": "zombie", "staff": 1})
    batch = zombie.read(zombie.log)

    heir.table = zombie.table
    heir.claim()

    with pytest.raises(FencedError):
        zombie.sink.apply([batch])
    assert zombie.rows() == []
    heir.put({"code": "a", "name": "heir", "staff": 2})
    heir.land()
    assert heir.rows() == [("a", "heir", 2)]


def test_a_fenced_partition_takes_the_whole_batch_with_it(landing: PaperLanding) -> None:
    """One transaction: another partition's rows must not be there without the offsets."""
    landing.agree(FIELDS)
    landing.claim([0, 1])
    landing.put({"code": "a", "name": "x", "staff": 1})
    good, fenced = landing.read(landing.log, partition=0), landing.read(landing.log, partition=1)
    landing.sink.claim(landing.table, [1])

    with pytest.raises(FencedError):
        landing.sink.apply([good, fenced])

    assert landing.rows() == []


def test_preparing_again_changes_nothing(landing: PaperLanding) -> None:
    table = landing.agree(FIELDS)
    landing.put({"code": "a", "name": "x", "staff": 1})
    landing.land()

    assert landing.sink.prepare(landing.wanted) == table
    assert landing.rows() == [("a", "x", 1)]


def test_a_new_field_gets_a_column_and_old_rows_have_null_there(landing: PaperLanding) -> None:
    landing.agree(FIELDS[:2])
    landing.put({"code": "a", "name": "x"})
    landing.land()

    landing.agree(FIELDS)
    landing.put({"code": "b", "name": "y", "staff": 2})
    landing.land()

    assert landing.rows() == [("a", "x", None), ("b", "y", 2)]


@pytest.mark.parametrize(
    ("duty", "left"),
    [
        (DataDuty.KEEP, [("a", "x"), ("b", None)]),
        (DataDuty.BLANK, [("a", None), ("b", None)]),
        (DataDuty.DELETE, None),
    ],
)
def test_a_field_that_leaves_the_view_is_kept_blanked_or_dropped_as_the_grant_says(
    landing: PaperLanding, duty: DataDuty, left: list[tuple[str, str | None]] | None
) -> None:
    landing.agree(FIELDS)
    late = landing.value_schema
    landing.put({"code": "a", "name": "x", "staff": 1})
    landing.land()

    landing.agree((FIELDS[0], FIELDS[2]), duty=duty)
    landing.put({"code": "b", "name": "granted no more", "staff": 2}, late)
    landing.land()

    assert landing.rows() == [("a", 1), ("b", 2)]
    if left is None:
        with pytest.raises(Exception, match="name"):
            landing.rows("code, name")
    else:
        assert landing.rows("code, name") == left


def test_a_field_that_comes_back_fills_its_old_column(landing: PaperLanding) -> None:
    landing.agree(FIELDS)
    landing.put({"code": "a", "name": "x", "staff": 1})
    landing.land()
    landing.agree((FIELDS[0], FIELDS[2]), duty=DataDuty.KEEP)

    landing.agree(FIELDS, duty=DataDuty.KEEP)
    landing.put({"code": "b", "name": "y", "staff": 2})
    landing.land()

    assert landing.rows("code, name") == [("a", "x"), ("b", "y")]


def test_a_type_that_grew_keeps_its_values(landing: PaperLanding) -> None:
    landing.agree([CODE, optional("staff", "int")])
    narrow = landing.value_schema
    landing.put({"code": "a", "staff": 2**31 - 1})
    landing.land()

    landing.agree([CODE, optional("staff", "long")])
    landing.put({"code": "b", "staff": 2**40})
    landing.put({"code": "c", "staff": 3}, narrow)
    landing.land()

    assert landing.rows() == [("a", 2**31 - 1), ("b", 2**40), ("c", 3)]


def test_a_type_that_changed_does_not_show_values_of_the_old_meaning(landing: PaperLanding) -> None:
    landing.agree([CODE, optional("born", {"type": "int", "logicalType": "date"})])
    exact = landing.value_schema
    landing.put({"code": "a", "born": date(1970, 5, 5)})
    landing.land()

    landing.agree([CODE, optional("born", "int")])
    landing.put({"code": "b", "born": date(1980, 5, 5)}, exact)
    landing.put({"code": "c", "born": 1990})
    landing.land()

    assert landing.rows() == [("a", None), ("b", None), ("c", 1990)]


def test_another_key_makes_another_table(landing: PaperLanding) -> None:
    fields = [CODE, {"name": "number", "type": "long"}, optional("name", "string")]
    landing.agree(fields)
    landing.put({"code": "a", "number": 1, "name": "x"})
    landing.land()

    landing.agree(fields, key=["number"])
    landing.put({"code": "b", "number": 2, "name": "y"})
    landing.land()

    assert landing.rows("number, code, name") == [(2, "b", "y")]


def test_a_key_that_is_pseudonymised_from_now_on_makes_another_table_too(landing: PaperLanding) -> None:
    """Both are texts; only the name of the key's schema tells them apart."""
    landing.agree(FIELDS)
    landing.put({"code": "plain", "name": "x", "staff": 1})
    landing.land()
    plain = landing.key_of({"code": "plain"})
    landing.put({"code": "tail", "name": "still in the topic", "staff": 2})

    landing.agree(FIELDS, key_name="RowViewKey")
    landing.deliver(plain, None)
    landing.put({"code": "5f2a", "name": "x", "staff": 1})
    landing.land()

    assert landing.rows() == [("5f2a", "x", 1)]
    assert landing.dead_letters() == []


def test_a_row_under_a_key_of_another_form_is_set_aside(landing: PaperLanding) -> None:
    landing.agree(FIELDS)
    plain = landing.key_of({"code": "a"})
    landing.agree(FIELDS, key_name="RowViewKey")
    landing.deliver(plain, encode(landing.value_schema, {"code": "a", "name": "x", "staff": 1}))

    landing.land()

    assert landing.dead_letters() == [(0, "contract-violation")]
    assert landing.rows() == []


@pytest.mark.parametrize(("days", "left"), [(5, ["gone meanwhile", "still there"]), (7, [])])
def test_who_was_away_for_longer_than_deletions_are_kept_begins_again(
    landing: PaperLanding, days: int, left: list[str]
) -> None:
    landing.agree(FIELDS)
    for code in ("gone meanwhile", "still there"):
        landing.put({"code": code, "name": "x", "staff": 1})
    landing.land()
    landing.sink.note_caught_up(landing.table, [0])

    landing.now += timedelta(days=days)
    landing.claim()

    assert landing.rows("code") == [(code,) for code in left]
    compacted = landing.log[1:]  # the row and its tombstone are gone from the topic
    landing.land(compacted)
    assert ("still there",) in landing.rows("code")


def test_who_reads_to_the_end_now_and_then_never_begins_again(landing: PaperLanding) -> None:
    landing.agree(FIELDS)
    landing.put({"code": "a", "name": "x", "staff": 1})
    landing.land()
    for _ in range(4):
        landing.now += timedelta(days=5)
        landing.sink.note_caught_up(landing.table, [0])

    landing.claim()

    assert landing.positions[0].next_offset == 1


def test_a_schema_ahead_of_its_subscription_widens_the_table_and_takes_nothing_away(
    landing: PaperLanding,
) -> None:
    landing.agree(FIELDS[:2])
    landing.version = 2
    ahead = landing.registry.add(landing.view([CODE, *FIELDS[2:]]))
    landing.put({"code": "a", "staff": 7}, ahead)

    with pytest.raises(SchemaAheadError):
        landing.land()
    landing.table = landing.sink.widen(replace(landing.wanted, fields=fields_of(ahead.raw)))
    landing.land()

    assert landing.rows() == [("a", None, 7)]


def test_two_grants_of_one_resource_land_in_two_tables(another: Callable[..., PaperLanding]) -> None:
    first, second = another(grant="one"), another(grant="two")
    first.agree(FIELDS, name="divisions")
    second.agree(FIELDS, name="divisions")
    for landing in (first, second):
        landing.put({"code": landing.grant, "name": None, "staff": None})
        landing.land()

    assert first.table.name == "divisions"
    assert second.table.name == "divisions_two"
    assert first.rows() == [("one", None, None)]
    assert second.rows() == [("two", None, None)]


def test_a_table_of_someone_else_is_left_alone(landing: PaperLanding) -> None:
    landing.agree(FIELDS, name="_govbus_tables")

    assert landing.table.name != "_govbus_tables"
    assert landing.query("SELECT grant_id FROM _govbus_tables") == [("rows",)]


def test_a_configured_name_that_is_taken_is_refused_by_name_of_the_setting(
    another: Callable[..., PaperLanding],
) -> None:
    another(grant="one").agree(FIELDS, name="divisions")

    with pytest.raises(ConfigurationError, match=r"tables\.two"):
        another(grant="two").agree(FIELDS, configured_name="divisions")


def test_a_table_takes_the_name_that_the_department_gives_it_later(landing: PaperLanding) -> None:
    landing.agree(FIELDS)
    landing.put({"code": "a", "name": "x", "staff": 1})
    landing.land()

    landing.agree(FIELDS, configured_name='odd "name" 100%s')

    assert landing.table.name == 'odd "name" 100%s'
    landing.put({"code": "b", "name": "y", "staff": 2})
    landing.remove(code="a")
    landing.land()
    assert landing.rows() == [("b", "y", 2)]


def test_a_table_that_someone_dropped_is_made_again_and_read_from_the_beginning(
    landing: PaperLanding, url: str
) -> None:
    landing.agree(FIELDS)
    landing.put({"code": "a", "name": "x", "staff": 1})
    landing.land()
    _execute(url, "DROP TABLE rows")

    landing.agree(FIELDS)
    landing.land()

    assert landing.rows() == [("a", "x", 1)]


def test_another_topic_is_another_set_of_rows(landing: PaperLanding) -> None:
    landing.agree(FIELDS)
    landing.put({"code": "only in the old topic", "name": "x", "staff": 1})
    landing.land()
    landing.log.clear()

    landing.agree(FIELDS, topic="govbus.delivered.quzhou.other")
    landing.put({"code": "in the new one", "name": "x", "staff": 1})
    landing.land()

    assert landing.rows("code") == [("in the new one",)]


def test_events_are_all_kept_and_each_only_once(another: Callable[..., PaperLanding]) -> None:
    landing = another(kind=ResourceKind.EVENT)
    landing.agree(FIELDS)
    for staff in range(3):
        landing.put({"code": "a", "name": "same key", "staff": staff})
    landing.remove(code="a")

    landing.land()
    landing.sink.restart(landing.table)
    landing.claim()
    landing.land()

    assert landing.rows("staff, _govbus_partition, _govbus_offset") == [(0, 0, 0), (1, 0, 1), (2, 0, 2)]
    assert landing.dead_letters() == [(3, "contract-violation")]


# When a grant ends


def _landed(landing: PaperLanding) -> None:
    landing.agree(FIELDS)
    landing.put({"code": "a", "name": "x", "staff": 1})
    landing.put({"code": "b", "name": "y", "staff": 2})
    landing.deliver(landing.key_of({"code": "c"}), b"bad")
    landing.land()


@pytest.mark.parametrize(
    ("duty", "rows", "letters", "counts"),
    [
        (DataDuty.KEEP, [("a", "x", 1), ("b", "y", 2)], [b"bad"], (2, 2, 0)),
        (DataDuty.BLANK, [("a", None, None), ("b", None, None)], [None], (2, 2, 2)),
        (DataDuty.DELETE, [], [], (2, 0, 0)),
    ],
)
def test_landed_rows_are_dealt_with_as_the_grant_says_and_it_is_written_down(
    landing: PaperLanding,
    duty: DataDuty,
    rows: list[tuple[object, ...]],
    letters: list[bytes | None],
    counts: tuple[int, int, int],
) -> None:
    _landed(landing)

    landing.end(duty)

    assert landing.rows() == rows
    kept = [
        value and bytes(value) for (value,) in landing.query("SELECT record_value FROM _govbus_dead_letters")
    ]
    assert kept == letters
    assert landing.query(
        "SELECT grant_id, version, state, duty, table_name, rows_before, rows_after, rows_blanked"
        " FROM _govbus_purges"
    ) == [("rows", 2, "revoked", str(duty), "rows", *counts)]


def test_a_grant_ends_once_however_often_it_is_said(landing: PaperLanding) -> None:
    _landed(landing)

    assert landing.end(DataDuty.DELETE) is not None
    for version in (2, 1):
        again = landing.sink.end(
            "rows", version=version, state=GrantState.REVOKED, duty=DataDuty.DELETE, by=SIGNATORY
        )
        assert again is None
    assert landing.query("SELECT count(*) FROM _govbus_purges") == [(1,)]


def test_a_grant_that_never_landed_anything_is_answered_with_no_rows(landing: PaperLanding) -> None:
    receipt = landing.end(DataDuty.DELETE)

    assert receipt is not None
    assert (receipt.table, receipt.rows_before, receipt.rows_after) == ("", 0, 0)
    assert receipt.duty_done


def test_a_table_that_the_department_dropped_itself_is_answered_with_no_rows(landing: PaperLanding) -> None:
    _landed(landing)
    landing.execute('DROP TABLE "rows"')

    receipt = landing.end(DataDuty.BLANK)

    assert receipt is not None
    assert (receipt.rows_before, receipt.rows_after) == (0, 0)


@pytest.mark.parametrize("duty", DataDuty)
def test_a_receipt_counts_and_digests_what_was_there_before_and_after(
    landing: PaperLanding, duty: DataDuty
) -> None:
    _landed(landing)

    receipt = landing.end(duty)

    assert receipt is not None
    assert receipt.duty_done
    assert receipt.rows_before == 2
    assert receipt.digest_before != EMPTY_DIGEST
    assert (receipt.digest_after == receipt.digest_before) == (duty is DataDuty.KEEP)
    assert (receipt.digest_after == EMPTY_DIGEST) == (duty is DataDuty.DELETE)
    assert list(landing.sink.unanswered()) == [receipt]


def test_a_receipt_stays_unanswered_until_the_bus_has_it(landing: PaperLanding) -> None:
    _landed(landing)
    landing.end(DataDuty.DELETE)

    before = len(landing.sink.unanswered())
    landing.sink.answered("rows", 2)

    assert before == 1
    assert list(landing.sink.unanswered()) == []
    assert landing.sink.has_ended("rows", 2)
    assert not landing.sink.has_ended("rows", 3)


def test_what_several_processes_have_read_out_adds_up(landing: PaperLanding) -> None:
    landing.sink.note_read_out("rows", 2, [0, 2])
    landing.sink.note_read_out("rows", 3, [5])

    assert landing.sink.note_read_out("rows", 2, [2, 1]) == {0, 1, 2}


@pytest.mark.parametrize("duty", DataDuty)
def test_what_was_read_before_the_end_cannot_be_written_after_it(
    landing: PaperLanding, duty: DataDuty
) -> None:
    _landed(landing)
    before = landing.rows()
    landing.put({"code": "d", "name": "in flight", "staff": 4})
    batch = landing.read(landing.log)

    landing.end(duty)

    with pytest.raises(FencedError):
        landing.sink.apply([batch])
    assert landing.rows("code") == ([] if duty is DataDuty.DELETE else [row[:1] for row in before])


@pytest.mark.parametrize("duty", DataDuty)
def test_after_a_new_yes_only_what_is_delivered_under_it_lands(landing: PaperLanding, duty: DataDuty) -> None:
    _landed(landing)
    landing.put({"code": "tail", "name": "of the ended version", "staff": 3})
    landing.end(duty)

    landing.agree(FIELDS)
    landing.put({"code": "a", "name": "new", "staff": 9})
    landing.land()

    kept = {
        DataDuty.KEEP: [("a", "new", 9), ("b", "y", 2)],
        DataDuty.BLANK: [("a", "new", 9), ("b", None, None)],
        DataDuty.DELETE: [("a", "new", 9)],
    }
    assert landing.rows() == kept[duty]


def test_an_old_line_of_the_subscriptions_topic_does_not_bring_a_grant_back(landing: PaperLanding) -> None:
    _landed(landing)
    landing.end(DataDuty.DELETE)

    table = landing.sink.prepare(landing.wanted)

    assert (table.version, table.state) == (2, "revoked")


def test_a_purge_leaves_nothing_to_read_in_the_file(tmp_path: Path) -> None:
    landing = PaperLanding(f"sqlite:///{tmp_path / 'landed.db'}")
    with landing.sink._engine.connect() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql("PRAGMA secure_delete = OFF")  # some builds have it on
    landing.agree(FIELDS)
    for number in range(2_000):
        landing.put({"code": f"{number}", "name": f"MARK-{number:06}", "staff": number})
    landing.land()
    landing.query("PRAGMA wal_checkpoint(TRUNCATE)")
    landing.put({"code": "0", "name": "MARK-in the log", "staff": 0})
    landing.land()
    files = list(tmp_path.glob("landed.db*"))
    assert len(files) > 1
    assert any(b"MARK-000007" in path.read_bytes() for path in files)

    landing.end(DataDuty.DELETE)

    assert not any(b"MARK-" in path.read_bytes() for path in files if path.exists())
    landing.close()


# A store that cannot be used


def test_a_locked_file_is_said_to_be_unavailable_and_costs_nothing(tmp_path: Path) -> None:
    landing = PaperLanding(f"sqlite:///{tmp_path / 'landed.db'}")
    landing.agree(FIELDS)
    landing.put({"code": "a", "name": "x", "staff": 1})
    with closing(sqlite3.connect(tmp_path / "landed.db", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")

        with pytest.raises(SinkUnavailableError, match="SQLITE_BUSY"):
            landing.land()
        lock.execute("ROLLBACK")

    landing.land()
    assert landing.rows() == [("a", "x", 1)]
    landing.close()


def test_a_full_disk_is_said_to_be_unavailable_and_costs_nothing(tmp_path: Path) -> None:
    landing = PaperLanding(f"sqlite:///{tmp_path / 'landed.db'}")
    landing.agree(FIELDS)
    for number in range(5_000):
        landing.put({"code": f"{number}", "name": "x" * 200, "staff": 1})
    with landing.sink._engine.connect() as connection:  # type: ignore[attr-defined]
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")

    with pytest.raises(SinkUnavailableError, match="SQLITE_FULL"):
        landing.land()

    landing.land()  # a new connection: the limit is gone, as when the disk has space again
    assert len(landing.rows()) == 5_000
    landing.close()


def test_a_file_that_cannot_be_opened_is_said_to_be_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailableError, match="SQLITE_CANTOPEN"):
        PaperLanding(f"sqlite:///{tmp_path / 'no such folder' / 'landed.db'}")


@pytest.mark.postgres
def test_a_wrong_password_is_said_to_be_one(postgres_url: str) -> None:
    """A server that asks for no password still refuses a user that it does not have."""
    stranger = postgres_url.replace("://govbus", "://stranger")

    with pytest.raises((AccessDeniedError, SinkUnavailableError)):
        PaperLanding(stranger)


@pytest.mark.postgres
def test_a_server_that_went_away_and_came_back_costs_nothing(postgres_url: str) -> None:
    landing = PaperLanding(postgres_url)
    landing.agree(FIELDS)
    landing.put({"code": "a", "name": "x", "staff": 1})
    _execute(
        postgres_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'govbus land'",
    )

    with pytest.raises(SinkUnavailableError):
        landing.land()

    landing.land()
    assert landing.rows() == [("a", "x", 1)]
    landing.close()


def test_many_rows_and_deletions_at_once_end_as_one_by_one(landing: PaperLanding) -> None:
    """More than one statement or COPY holds."""
    landing.agree(FIELDS)
    for number in range(3_000):
        landing.put({"code": f"{number}", "name": None, "staff": number})
    landing.land()
    for number in range(0, 3_000, 2):
        landing.remove(code=f"{number}")
    for number in range(1, 3_000, 4):
        landing.put({"code": f"{number}", "name": "changed", "staff": None})

    landing.land()

    expected = [
        (f"{number}", "changed" if number % 4 == 1 else None, None if number % 4 == 1 else number)
        for number in range(1, 3_000, 2)
    ]
    assert landing.rows() == sorted(expected, key=repr)


def test_a_view_schema_without_an_agreement_is_no_view(landing: PaperLanding) -> None:
    with pytest.raises(ContractViolationError):
        fields_of({"type": "enum", "name": "E", "symbols": ["A"]})


def _execute(url: str, statement: str) -> None:
    from sqlalchemy import create_engine, text

    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
