"""The oracle must see every kind of difference: it is what the demo's exit code rests on."""

from __future__ import annotations

import ast
import csv
import io
import sqlite3
import sys
import tarfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from govbus.transform import Pseudonym, compile_transform, derive_key
from govbus_console.demo import oracle
from govbus_console.demo.departments import CivilAffairs
from govbus_console.demo.divisions import EDITIONS, shipped
from govbus_console.demo.oracle import Pseudonyms, Verdict
from govbus_console.demo.people import Place

FILES = ("provinces", "cities", "areas")
MASTER = b"m" * 32
PSEUDONYMS = Pseudonyms(MASTER, subscriber="health", purpose="Planning of vaccinations")


def test_the_oracle_shares_no_code_with_the_bus() -> None:
    """What it says counts only because nothing but the standard library is in it."""
    tree = ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert imported
    assert imported <= sys.stdlib_module_names | {"__future__"}


def test_a_table_with_every_row_of_the_csv_files_is_equal(tmp_path: Path) -> None:
    landed = _land_divisions(tmp_path)

    verdict = oracle.check_divisions(shipped(EDITIONS[0]), FILES, landed, "divisions")

    assert verdict.equal
    assert verdict.expected == verdict.landed == 31 + 342 + 2995


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM divisions WHERE code = '330802'", (1, 0, 0)),
        ("DELETE FROM divisions WHERE code LIKE '33%'", (1 + 11 + 91, 0, 0)),
        ("DELETE FROM divisions WHERE code = (SELECT max(code) FROM divisions)", (1, 0, 0)),
        ("UPDATE divisions SET name = 'x' WHERE code = '330802'", (0, 0, 1)),
        ("UPDATE divisions SET parent = '' WHERE code = '33'", (0, 0, 1)),
        ("UPDATE divisions SET level = 'city' WHERE code = '330802'", (0, 0, 1)),
        ("INSERT INTO divisions VALUES ('330899', 'x', 'area', '3308', '33', '3308', 1)", (0, 1, 0)),
        ("INSERT INTO divisions VALUES ('999999', 'x', 'area', '9999', '99', '9999', 1)", (0, 1, 0)),
        ("INSERT INTO divisions VALUES ('330802001', 'x', 'street', '330802', '33', '3308', 1)", (0, 1, 0)),
        ("UPDATE divisions SET code = '330899' WHERE code = '330802'", (1, 1, 0)),
        ("DELETE FROM divisions", (3368, 0, 0)),
    ],
)
def test_every_kind_of_difference_is_seen(tmp_path: Path, damage: str, found: tuple[int, int, int]) -> None:
    landed = _land_divisions(tmp_path)
    _execute(landed, damage)

    verdict = oracle.check_divisions(shipped(EDITIONS[0]), FILES, landed, "divisions")

    assert (verdict.missing, verdict.unexpected, verdict.different) == found
    assert not verdict.equal


def test_another_edition_is_not_equal(tmp_path: Path) -> None:
    landed = _land_divisions(tmp_path)

    assert not oracle.check_divisions(shipped(EDITIONS[1]), FILES, landed, "divisions").equal


def test_a_column_that_was_not_granted_is_a_difference(tmp_path: Path) -> None:
    landed = _land_divisions(tmp_path)
    _execute(landed, "ALTER TABLE divisions ADD COLUMN updated_at TEXT")

    verdict = oracle.judge(lambda: oracle.check_divisions(shipped(EDITIONS[0]), FILES, landed, "divisions"))

    assert "columns" in verdict.fault
    assert not verdict.equal


def test_a_table_that_is_not_there_is_a_difference(tmp_path: Path) -> None:
    landed = _land_divisions(tmp_path)

    for place, table in ((landed, "other"), (tmp_path / "no.db", "divisions")):
        verdict = oracle.judge(
            lambda place=place, table=table: oracle.check_divisions(  # type: ignore[misc]
                shipped(EDITIONS[0]), FILES, place, table
            )
        )
        assert verdict.fault
        assert not verdict.equal


def test_a_city_gets_its_own_divisions_and_no_others(tmp_path: Path) -> None:
    landed = tmp_path / "quzhou.db"
    _execute(landed, "CREATE TABLE d (code TEXT PRIMARY KEY, name TEXT, _govbus_offset INTEGER)")
    rows = [row for row in _csv("areas") if row["cityCode"] == "3308"]
    _insert(landed, "d", [("3308", "衢州市", 0), *((row["code"], row["name"], 0) for row in rows)])

    right = oracle.check_city_divisions(shipped(EDITIONS[0]), FILES, landed, "d", "3308")
    _execute(landed, "INSERT INTO d VALUES ('330702', '婺城区', 0)")
    wrong = oracle.check_city_divisions(shipped(EDITIONS[0]), FILES, landed, "d", "3308")

    assert right.equal
    assert right.expected == 7
    assert (wrong.unexpected, wrong.equal) == (1, False)


def test_a_verdict_names_no_key_and_no_value(tmp_path: Path) -> None:
    landed = _land_divisions(tmp_path)
    _execute(landed, "DELETE FROM divisions WHERE code = '330802'")

    text = str(oracle.check_divisions(shipped(EDITIONS[0]), FILES, landed, "divisions"))

    assert "1 missing" in text
    assert "330802" not in text


def test_the_oracle_and_the_bus_reach_the_same_pseudonyms_on_separate_ways() -> None:
    key = derive_key(MASTER, subscriber="health", purpose="Planning of vaccinations", epoch=1)
    of_the_bus = compile_transform(Pseudonym(), "string", pseudonym_key=key)

    for text in ("330802199001019971", "", "张三"):
        assert PSEUDONYMS.of(text) == of_the_bus(text)


def test_pseudonyms_differ_between_agreements() -> None:
    other = Pseudonyms(MASTER, subscriber="health", purpose="Something else")

    assert other.of("330802199001019971") != PSEUDONYMS.of("330802199001019971")


def test_health_must_hold_the_living_and_only_what_it_was_granted(tmp_path: Path) -> None:
    civil, landed = _register(tmp_path), tmp_path / "health.db"
    _execute(
        landed,
        "CREATE TABLE r (id_number TEXT PRIMARY KEY, name TEXT, sex TEXT, birth_date INTEGER, division TEXT)",
    )
    with closing(sqlite3.connect(civil)) as db:
        people = db.execute(
            "SELECT id_number, name, sex, birth_date, division, status FROM residents"
        ).fetchall()
    _insert(
        landed,
        "r",
        [
            (PSEUDONYMS.of(number), f"{name[0]}{'*' * (len(name) - 1)}", sex, int(born[:4]), where[:6])
            for number, name, sex, born, where, status in people
            if status == "living"
        ],
    )

    right = oracle.check_residents_for_health(civil, landed, "r", PSEUDONYMS)
    _execute(landed, "UPDATE r SET name = '张三' WHERE rowid = 1")
    unmasked = oracle.check_residents_for_health(civil, landed, "r", PSEUDONYMS)
    dead = next(number for number, *_others, status in people if status == "deceased")
    _insert(landed, "r", [(PSEUDONYMS.of(dead), "张*", "male", 1950, "330802")])
    with_a_dead_one = oracle.check_residents_for_health(civil, landed, "r", PSEUDONYMS)

    assert right.equal
    assert right.expected > 0
    assert (unmasked.different, unmasked.equal) == (1, False)
    assert (with_a_dead_one.unexpected, with_a_dead_one.equal) == (1, False)


def test_quzhou_must_hold_the_marriages_that_are_in_force_there(tmp_path: Path) -> None:
    civil, landed = _register(tmp_path), tmp_path / "quzhou.db"
    _execute(
        landed, "CREATE TABLE m (certificate TEXT PRIMARY KEY, husband TEXT, wife TEXT, registered_on TEXT)"
    )
    with closing(sqlite3.connect(civil)) as db:
        marriages = db.execute(
            "SELECT certificate, husband, wife, registered_on FROM marriages WHERE state = 'in_force'"
        ).fetchall()
    _insert(
        landed,
        "m",
        [
            (number, PSEUDONYMS.of(husband), PSEUDONYMS.of(wife), day[:7])
            for number, husband, wife, day in marriages
        ],
    )

    right = oracle.check_marriages_for_quzhou(civil, landed, "m", PSEUDONYMS, "3308")
    _execute(landed, "DELETE FROM m WHERE rowid = 1")
    one_less = oracle.check_marriages_for_quzhou(civil, landed, "m", PSEUDONYMS, "3308")
    elsewhere = oracle.check_marriages_for_quzhou(civil, landed, "m", PSEUDONYMS, "1101")

    assert right.equal
    assert (one_less.missing, one_less.equal) == (1, False)
    assert not elsewhere.equal


def test_one_row_where_nothing_may_be_is_a_difference(tmp_path: Path) -> None:
    landed = tmp_path / "tax.db"
    empty: Verdict = oracle.check_nothing_landed(landed)
    _execute(landed, "CREATE TABLE _govbus_offsets (topic TEXT)")
    _insert(landed, "_govbus_offsets", [("t",)])
    bookkeeping = oracle.check_nothing_landed(landed)
    _execute(landed, "CREATE TABLE r (id TEXT)")
    _insert(landed, "r", [("1",)])

    assert empty.equal
    assert bookkeeping.equal
    assert not oracle.check_nothing_landed(landed).equal
    assert not oracle.check_empty(landed, "r").equal
    assert oracle.check_empty(landed, "other").equal


def test_a_secret_is_found_wherever_it_stands_in_a_file(tmp_path: Path) -> None:
    """Also where two blocks of reading meet."""
    store = tmp_path / "a.db"
    store.write_bytes(b"x" * ((1 << 20) - 4) + b"PROTECTED-1" + b"x" * 50)
    (tmp_path / "a.db-wal").write_bytes(b"PROTECTED-3")

    assert oracle.mentions(store, ["PROTECTED-1", "PROTECTED-2", "PROTECTED-3"]) == 2


def _csv(stem: str) -> list[dict[str, str]]:
    with tarfile.open(shipped(EDITIONS[0])) as archive:
        content = archive.extractfile(f"package/dist/{stem}.csv")
        assert content is not None
        return list(csv.DictReader(io.StringIO(content.read().decode())))


def _land_divisions(folder: Path) -> Path:
    """Write a landed table by hand, with a column of the bus's bookkeeping."""
    landed = folder / "civil.db"
    _execute(
        landed,
        "CREATE TABLE divisions (code TEXT PRIMARY KEY, name TEXT, level TEXT, parent TEXT, province TEXT, "
        "city TEXT, _govbus_offset INTEGER)",
    )
    rows: list[tuple[object, ...]] = [
        (row["code"], row["name"], "province", None, row["code"], None, 0) for row in _csv("provinces")
    ]
    rows += [
        (row["code"], row["name"], "city", row["provinceCode"], row["provinceCode"], row["code"], 0)
        for row in _csv("cities")
    ]
    rows += [
        (row["code"], row["name"], "area", row["cityCode"], row["provinceCode"], row["cityCode"], 0)
        for row in _csv("areas")
    ]
    _insert(landed, "divisions", rows)
    return landed


def _register(folder: Path) -> Path:
    path = folder / "civil.db"
    civil = CivilAffairs(path, seed=7)
    places = [Place(code="330802001", name="街道"), Place(code="330803001", name="镇")]
    civil.open_register(places, count=300, year=2019)
    civil.live_through(2020, places)
    return path


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


def _insert(path: Path, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    rows = list(rows)
    marks = ", ".join("?" * len(rows[0]))
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
