"""What a poll finds, in both modes, whatever happened before it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from govbus.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    SourceUnavailableError,
)
from govbus_producers import polling
from govbus_producers.config import TableConfig
from support.capturing import (
    AbsentPublisher,
    Capture,
    CrashingPublisher,
    RecordingPublisher,
    Register,
    a_contract,
    column_mode,
    published_contract,
)

HASH = TableConfig(resource="divisions", table="divisions")


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "register.db", [("33", "浙江省"), ("3308", "衢州市"), ("330802", "柯城区")])


@pytest.fixture
def bus() -> RecordingPublisher:
    return RecordingPublisher()


@pytest.fixture(params=[HASH, column_mode()], ids=["hash", "column"])
def capture(request: pytest.FixtureRequest, register: Register, tmp_path: Path) -> Iterator[Capture]:
    capture = Capture(register, tmp_path, table=request.param)
    yield capture
    capture.close()


@pytest.fixture
def hashing(register: Register, tmp_path: Path) -> Iterator[Capture]:
    capture = Capture(register, tmp_path)
    yield capture
    capture.close()


def test_the_first_poll_publishes_every_row(capture: Capture, bus: RecordingPublisher) -> None:
    capture.poll(bus)

    assert bus.topic == capture.register.rows()
    assert len(bus.published) == 3


def test_a_table_that_did_not_change_publishes_nothing(capture: Capture, bus: RecordingPublisher) -> None:
    capture.poll(bus)
    bus.drain()

    published = capture.poll(bus)

    assert published == 0
    assert bus.drain() == []


def test_an_insert_and_an_update_are_found_and_nothing_else(
    capture: Capture, bus: RecordingPublisher
) -> None:
    capture.poll(bus)
    bus.drain()

    capture.register.put("3308", "衢州", version=2)
    capture.register.put("3309", "舟山市", version=2)
    capture.poll(bus)

    assert bus.drain() == [("3308", "衢州"), ("3309", "舟山市")]


def test_a_delete_is_found_by_comparing_with_the_snapshot(hashing: Capture, bus: RecordingPublisher) -> None:
    hashing.poll(bus)
    bus.drain()

    hashing.register.remove("3308")
    hashing.poll(bus)

    assert bus.drain() == [("3308", None)]
    assert bus.topic == hashing.register.rows()
    assert hashing.poll(bus) == 0


def test_a_row_that_comes_back_after_its_delete_is_published_again(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    hashing.poll(bus)
    hashing.register.remove("3308")
    hashing.poll(bus)
    bus.drain()

    hashing.register.put("3308", "衢州市")
    hashing.poll(bus)

    assert bus.drain() == [("3308", "衢州市")]


def test_a_table_that_is_emptied_leaves_nothing_on_the_bus(hashing: Capture, bus: RecordingPublisher) -> None:
    hashing.poll(bus)

    hashing.register.do("DELETE FROM divisions")
    hashing.poll(bus)

    assert bus.topic == {}


def test_more_rows_than_one_batch_are_all_found(
    hashing: Capture, bus: RecordingPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes that do not divide each other, so that every boundary is crossed."""
    monkeypatch.setattr(polling, "READ_ROWS", 7)
    monkeypatch.setattr(polling, "BATCH_ROWS", 10)
    with closing(sqlite3.connect(hashing.register.path)) as connection, connection:
        connection.executemany(
            "INSERT INTO divisions VALUES (?, 'x', 4, NULL, 1)", [(str(code),) for code in range(1000, 1103)]
        )

    assert hashing.poll(bus) == 106
    hashing.register.do("DELETE FROM divisions WHERE level = 4 AND code % 2 = 0")
    assert hashing.poll(bus) == 52
    assert bus.topic == hashing.register.rows()
    assert hashing.poll(bus) == 0


def test_what_was_published_but_not_remembered_and_then_undone_is_published_again(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    """The topic says B, the source and the snapshot say A: only the pending mark tells."""
    hashing.poll(bus)
    hashing.register.put("3308", "B")
    hashing.crash(CrashingPublisher(bus, survives=1))
    assert bus.topic["3308"]["name"] == "B"

    hashing.register.put("3308", "衢州市")
    hashing.poll(bus)

    assert bus.topic == hashing.register.rows()


def test_a_delete_that_was_published_but_not_remembered_and_then_undone_is_published_again(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    hashing.poll(bus)
    hashing.register.remove("3308")
    hashing.crash(CrashingPublisher(bus, survives=1))
    assert "3308" not in bus.topic

    hashing.register.put("3308", "衢州市")
    hashing.poll(bus)

    assert bus.topic == hashing.register.rows()


def test_a_new_row_that_was_published_but_not_remembered_and_then_deleted_gets_a_tombstone(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    hashing.crash(CrashingPublisher(bus, survives=3))
    assert len(bus.topic) == 3

    hashing.register.remove("3308")
    hashing.poll(bus)

    assert bus.topic == hashing.register.rows()


def test_a_new_row_that_crashed_twice_and_is_then_rejected_and_deleted_gets_a_tombstone(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    """Rejecting a row must not forget that an earlier attempt may have put the key on the topic."""
    hashing.crash(CrashingPublisher(bus, survives=3))
    hashing.register.put("3308", name=None)
    hashing.poll(bus)
    assert "3308" in bus.topic

    hashing.register.remove("3308")
    hashing.poll(bus)

    assert bus.topic == hashing.register.rows()


def test_an_outage_of_the_broker_loses_nothing(capture: Capture, bus: RecordingPublisher) -> None:
    capture.poll(bus)
    capture.register.put("3308", "衢州", version=2)

    with pytest.raises(BrokerUnavailableError):
        capture.poll(AbsentPublisher())
    capture.poll(bus)

    assert bus.topic == capture.register.rows()
    assert capture.poll(bus) == 0


def test_column_mode_looks_at_everything_again_after_a_poll_that_failed(
    register: Register, bus: RecordingPublisher, tmp_path: Path
) -> None:
    """The failed poll has moved past 2; a row of version 2 that it did not publish must not be skipped."""
    capture = Capture(register, tmp_path, table=column_mode(overlap=0))
    capture.poll(bus)
    register.put("3308", "衢州", version=2)
    register.put("3309", "舟山市", version=9)

    with pytest.raises(BrokerUnavailableError):
        capture.poll(AbsentPublisher())
    capture.poll(bus)
    capture.close()

    assert bus.topic == register.rows()


def test_column_mode_finds_a_delete_at_the_next_sweep(
    register: Register, bus: RecordingPublisher, tmp_path: Path
) -> None:
    capture = Capture(register, tmp_path, table=column_mode(sweep_every=3))
    capture.poll(bus)
    bus.drain()
    register.remove("3308")

    found = []
    for _ in range(3):
        capture.poll(bus)
        found.append(bus.drain())
    capture.close()

    assert found == [[], [], [("3308", None)]]


def test_column_mode_reads_only_what_the_column_says_is_new(
    register: Register, bus: RecordingPublisher, tmp_path: Path
) -> None:
    """A row that changes without its version is not read before the sweep: that is the mode's promise."""
    capture = Capture(register, tmp_path, table=column_mode(sweep_every=2, overlap=0))
    register.put("3309", "舟山市", version=9)
    capture.poll(bus)
    bus.drain()

    register.put("3308", "衢州", version=1)
    register.put("3310", "台州市", version=9)
    capture.poll(bus)
    between = bus.drain()
    capture.poll(bus)
    swept = bus.drain()
    capture.close()

    assert between == [("3310", "台州市")]
    assert swept == [("3308", "衢州")]


def test_column_mode_finds_a_late_commit_inside_the_overlap(
    register: Register, bus: RecordingPublisher, tmp_path: Path
) -> None:
    """A transaction that took version 95 commits after one that took 100 was read."""
    capture = Capture(register, tmp_path, table=column_mode(overlap=10))
    register.put("3309", "舟山市", version=100)
    capture.poll(bus)
    bus.drain()

    register.put("3310", "台州市", version=95)
    capture.poll(bus)
    capture.close()

    assert bus.drain() == [("3310", "台州市")]


@pytest.mark.parametrize(
    ("highest", "start"),
    [
        (5_000, 4_000),
        (datetime(2024, 5, 1, 12, tzinfo=UTC), datetime(2024, 5, 1, 11, 59, tzinfo=UTC)),
        ("2024-05-01 12:00:30.5", "2024-05-01 11:59:30"),
        ("2024-05-01T12:00:30Z", "2024-05-01T11:59:30"),
        ("2024-05-01", "2024-04-30"),
        (datetime(2999, 1, 1, tzinfo=UTC), datetime(2025, 12, 31, 23, 59, tzinfo=UTC)),
        ("2999-01-01 00:00:00", "2026-01-01 13:59:00"),
    ],
)
def test_a_poll_reads_back_an_overlap_and_never_starts_in_the_future(highest: object, start: object) -> None:
    assert polling._back(highest, None, datetime(2026, 1, 1, tzinfo=UTC)) == start


def test_a_version_column_of_mixed_kinds_is_refused(
    register: Register, bus: RecordingPublisher, tmp_path: Path
) -> None:
    register.put("3309", version="later")
    capture = Capture(register, tmp_path, table=column_mode())

    with pytest.raises(ConfigurationError, match="column version must hold"):
        capture.poll(bus)
    capture.close()


def test_a_row_that_breaks_the_contract_stays_away_until_it_changes_and_the_others_go_on(
    capture: Capture, bus: RecordingPublisher
) -> None:
    capture.register.put("3309", name=None, version=1)
    capture.poll(bus)
    assert set(bus.topic) == {"33", "3308", "330802"}
    bus.drain()

    assert capture.poll(bus) == 0
    capture.register.put("3309", "舟山市", version=2)
    capture.poll(bus)

    assert bus.drain() == [("3309", "舟山市")]


def test_a_row_that_was_only_ever_rejected_leaves_without_a_tombstone(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    hashing.register.put("3309", name=None)
    hashing.poll(bus)
    bus.drain()

    hashing.register.remove("3309")
    hashing.poll(bus)

    assert bus.drain() == []


@pytest.mark.parametrize("code", [None, b"\xff", 7.5])
def test_a_row_without_a_proper_key_is_set_aside_once(
    hashing: Capture, bus: RecordingPublisher, code: object
) -> None:
    hashing.register.do("ALTER TABLE divisions RENAME TO old")
    hashing.register.do("CREATE TABLE divisions (code, name, level, parent, version)")
    hashing.register.put(code)
    hashing.register.put("33")

    assert hashing.poll(bus) == 1
    assert hashing.poll(bus) == 0
    assert set(bus.topic) == {"33"}


def test_a_row_whose_bad_key_looks_like_another_s_does_not_stand_in_its_way(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    """SQLite keeps bytes and numbers in a text column: they are not the text that spells them."""
    hashing.register.do("ALTER TABLE divisions RENAME TO old")
    hashing.register.do("CREATE TABLE divisions (code, name, level, parent, version)")
    hashing.register.put(b"\xff")
    hashing.register.put(33)
    hashing.register.put("ff")
    hashing.register.put("33")

    hashing.poll(bus)

    assert set(bus.topic) == {"ff", "33"}
    assert hashing.poll(bus) == 0


def test_two_rows_with_one_key_publish_the_first_and_set_the_other_aside_once(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    hashing.register.do("ALTER TABLE divisions RENAME TO old")
    hashing.register.do("CREATE TABLE divisions (code, name, level, parent, version)")
    hashing.register.put("33", "first")
    hashing.register.put("33", "second")
    hashing.register.put("34", "安徽省")

    refused = [batch.refused for batch in _settled(hashing)]
    bus_again = hashing.poll(bus)

    assert [list(places) for places in refused if places] == [[2]]
    assert bus_again == 0


def _settled(capture: Capture) -> Iterator[polling.ChangeBatch]:
    for batch in capture.source.poll():
        capture.source.remember(())
        yield batch


def test_text_that_is_not_utf8_costs_its_own_row_only(hashing: Capture, bus: RecordingPublisher) -> None:
    """sqlite3 gives up the whole reading; the next one takes the text in a form no contract allows."""
    hashing.register.do("UPDATE divisions SET name = CAST(x'ff41' AS TEXT) WHERE code = '33'")

    with pytest.raises(SourceUnavailableError):
        hashing.poll(bus)
    hashing.poll(bus)

    assert set(bus.topic) == {"3308", "330802"}


def test_a_source_file_that_is_not_there_is_not_an_empty_table(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    hashing.poll(bus)
    bus.drain()
    hashing.register.path.rename(hashing.register.path.with_suffix(".moved"))

    with pytest.raises(SourceUnavailableError, match="there is no file"):
        hashing.poll(bus)

    assert bus.drain() == []
    assert not hashing.register.path.exists()


def test_a_table_or_column_that_is_not_there_is_named(register: Register, tmp_path: Path) -> None:
    bus = RecordingPublisher()
    nowhere = Capture(register, tmp_path, table=TableConfig(resource="divisions", table="regions"))
    with pytest.raises(ConfigurationError, match="no table regions"):
        nowhere.poll(bus)
    nowhere.close()

    renamed = Capture(
        register,
        tmp_path,
        table=TableConfig(resource="divisions", table="divisions", columns={"name": "title"}),
    )
    with pytest.raises(ConfigurationError, match="no column title"):
        renamed.poll(bus)
    renamed.close()


def test_a_column_may_have_another_name_than_its_field(register: Register, tmp_path: Path) -> None:
    register.do("ALTER TABLE divisions RENAME COLUMN name TO title")
    table = TableConfig(resource="divisions", table="divisions", columns={"name": "title"})
    capture = Capture(register, tmp_path, table=table)
    bus = RecordingPublisher()

    capture.poll(bus)
    capture.close()

    assert bus.topic["3308"]["name"] == "衢州市"


def test_the_time_of_change_comes_from_its_column(register: Register, tmp_path: Path) -> None:
    register.do("ALTER TABLE divisions ADD COLUMN updated_at TEXT")
    register.do("UPDATE divisions SET updated_at = '2024-05-01 08:30:00' WHERE code = '33'")
    table = TableConfig(resource="divisions", table="divisions", changed_at="updated_at")
    capture = Capture(register, tmp_path, table=table)
    bus = RecordingPublisher()

    capture.poll(bus)
    capture.close()

    moments = {change.key["code"]: change.changed_at for change in bus.published}
    assert moments["33"] == datetime(2024, 5, 1, 8, 30, tzinfo=UTC)
    assert moments["3308"] is None


def test_a_change_that_the_contract_does_not_show_is_not_a_change(
    hashing: Capture, bus: RecordingPublisher
) -> None:
    hashing.poll(bus)
    bus.drain()

    hashing.register.do("UPDATE divisions SET version = 99")

    assert hashing.poll(bus) == 0


def test_capture_cannot_write_to_the_source(hashing: Capture) -> None:
    with hashing.engine.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM divisions")


def test_nothing_is_sent_while_the_source_is_being_read(hashing: Capture, bus: RecordingPublisher) -> None:
    """A slow broker must not hold a lock in the department's database."""
    changed = []
    for batch in hashing.source.poll():
        hashing.register.put("3399", "written meanwhile")
        changed.append(batch)
        hashing.source.remember(())

    assert len(changed) == 1


def test_keys_of_every_kind_come_back_for_a_tombstone(register: Register, tmp_path: Path) -> None:
    schema = {
        "type": "record",
        "name": "Thing",
        "govbus": {"version": 1, "key": ["code", "part", "seal", "open"]},
        "fields": [
            {"name": "code", "type": "string", "classification": "public"},
            {"name": "part", "type": "long", "classification": "public"},
            {"name": "seal", "type": "bytes", "classification": "public"},
            {"name": "open", "type": "boolean", "classification": "public"},
        ],
    }
    register.do("CREATE TABLE things (code TEXT, part INTEGER, seal BLOB, open INTEGER)")
    register.do("INSERT INTO things VALUES ('甲', 9007199254740993, x'00ff', 1)")
    capture = Capture(
        register,
        tmp_path,
        contract=a_contract(schema),
        table=TableConfig(resource="divisions", table="things"),
    )
    bus = RecordingPublisher(published_contract(schema))

    capture.poll(bus)
    register.do("DELETE FROM things")
    capture.poll(bus)
    capture.close()

    created, deleted = bus.published
    assert deleted.row is None
    assert (
        dict(created.key)
        == dict(deleted.key)
        == {"code": "甲", "part": 9007199254740993, "seal": b"\x00\xff", "open": True}
    )


def test_the_snapshot_keeps_no_content(hashing: Capture, bus: RecordingPublisher, tmp_path: Path) -> None:
    hashing.poll(bus)
    hashing.close()

    stored = (tmp_path / "stats.divisions.sqlite").read_bytes()
    assert b"3308" in stored
    assert "衢州市".encode() not in stored
    assert (tmp_path / "stats.divisions.sqlite").stat().st_mode & 0o077 == 0
    hashing.start()


def test_a_damaged_snapshot_is_named_with_what_to_do(tmp_path: Path, register: Register) -> None:
    (tmp_path / "stats.divisions.sqlite").write_bytes(b"not a database, but long enough to look at" * 50)

    with pytest.raises(ConfigurationError, match="damaged"):
        Capture(register, tmp_path)
