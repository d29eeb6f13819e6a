"""The two departments of the demo as they would work without a bus."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

from stdnum.cn import ric

from govbus_console.demo.departments import CivilAffairs, Edit, StatisticsBureau
from govbus_console.demo.divisions import EDITIONS, Detail, Division, archive, read
from govbus_console.demo.people import People, Place, check_character, spread

PLACES = [Place(code=f"3308{n:05}", name=f"街道{n}") for n in range(2_001, 2_011)]


def test_the_bureau_holds_exactly_the_edition_that_it_took_over(tmp_path: Path) -> None:
    bureau = StatisticsBureau(tmp_path / "stats.db")

    for edition in EDITIONS:
        bureau.take_over(read(archive(edition, Detail.AREAS), Detail.AREAS))

        held = _rows(tmp_path / "stats.db", "SELECT code, name, level, parent, province, city FROM divisions")
        assert held == sorted(read(archive(edition, Detail.AREAS), Detail.AREAS))


def test_an_edition_that_changes_nothing_touches_no_row(tmp_path: Path) -> None:
    bureau = StatisticsBureau(tmp_path / "stats.db")
    rows = list(read(archive(EDITIONS[0], Detail.AREAS), Detail.AREAS))
    bureau.take_over(rows)

    assert bureau.take_over(rows) == Edit(inserted=0, updated=0, deleted=0)


def test_a_later_edition_becomes_inserts_updates_and_deletes(tmp_path: Path) -> None:
    bureau = StatisticsBureau(tmp_path / "stats.db")
    kept = Division("11", "甲", "province", None, "11", None)
    renamed = Division("1101", "乙", "city", "11", "11", "1101")
    gone = Division("1102", "丙", "city", "11", "11", "1102")
    new = Division("1103", "丁", "city", "11", "11", "1103")
    bureau.take_over([kept, renamed, gone])
    before = dict(_rows(tmp_path / "stats.db", "SELECT code, updated_at FROM divisions"))

    edit = bureau.take_over([kept, renamed._replace(name="戊"), new])

    after = dict(_rows(tmp_path / "stats.db", "SELECT code, updated_at FROM divisions"))
    assert edit == Edit(inserted=1, updated=1, deleted=1)
    assert after["11"] == before["11"]
    assert after["1101"] >= before["1101"]
    assert after.keys() == {"11", "1101", "1103"}


def test_a_province_that_an_edition_no_longer_has_is_deleted_whole(tmp_path: Path) -> None:
    bureau = StatisticsBureau(tmp_path / "stats.db")
    bureau.take_over([Division("11", "甲", "province", None, "11", None)])

    edit = bureau.take_over([Division("12", "乙", "province", None, "12", None)])

    assert edit == Edit(inserted=1, updated=0, deleted=1)


def test_people_live_in_the_most_detailed_divisions_that_are_held(tmp_path: Path) -> None:
    bureau = StatisticsBureau(tmp_path / "stats.db")
    bureau.take_over(read(archive(EDITIONS[0], Detail.AREAS), Detail.AREAS))

    assert {len(place.code) for place in bureau.places()} == {6}


def test_an_identification_number_is_well_formed_and_can_be_nobodys() -> None:
    """Check character by GB 11643; serial set aside for people born before 1900."""
    people = People(seed=1)

    for place in PLACES:
        person = people.of_any_age(place, on=date(2019, 12, 31))

        assert check_character(person.id_number[:17]) == person.id_number[17]
        assert ric.calc_check_digit(person.id_number) == person.id_number[17]
        assert person.id_number[14:17] in {"996", "997", "998", "999"}
        assert (int(person.id_number[16]) % 2 == 1) == (person.sex == "male")
        assert person.id_number[6:14] == f"{person.birth_date:%Y%m%d}"
        assert person.birth_date.year > 1900
        assert person.phone is None or person.phone.startswith("100")


def test_no_two_people_have_the_same_number() -> None:
    """A hundred people born in one place in a month: 4 serials a day are soon used up."""
    people = People(seed=1)

    numbers = {
        people.born(PLACES[0], first=date(2000, 1, 1), last=date(2000, 2, 1)).id_number for _ in range(100)
    }

    assert len(numbers) == 100


def test_the_same_seed_makes_the_same_register(tmp_path: Path) -> None:
    registers = []
    for name in ("a.db", "b.db"):
        civil = CivilAffairs(tmp_path / name, seed=7)
        civil.open_register(PLACES, count=200, year=2019)
        civil.live_through(2020, PLACES[2:])
        registers.append(_without_clock(tmp_path / name))

    assert registers[0] == registers[1]


def test_a_second_demo_opens_the_register_anew(tmp_path: Path) -> None:
    """The home is used again, and must not hold last time's people as well."""
    first = CivilAffairs(tmp_path / "civil.db", seed=7)
    first.open_register(PLACES, count=200, year=2019)
    register = _without_clock(tmp_path / "civil.db")
    first.live_through(2020, PLACES)

    CivilAffairs(tmp_path / "civil.db", seed=7).open_register(PLACES, count=200, year=2019)

    assert _without_clock(tmp_path / "civil.db") == register


def test_nobody_lives_on_a_street_that_was_abolished(tmp_path: Path) -> None:
    civil = CivilAffairs(tmp_path / "civil.db", seed=7)
    civil.open_register(PLACES, count=200, year=2019)

    civil.live_through(2020, PLACES[5:])

    lived_on = _rows(tmp_path / "civil.db", "SELECT DISTINCT division FROM residents")
    assert {row[0] for row in lived_on} <= {place.code for place in PLACES[5:]}


def test_a_year_brings_every_kind_of_change(tmp_path: Path) -> None:
    """Rows must be inserted, updated and deleted, and leave views: people die, marriages end."""
    civil = CivilAffairs(tmp_path / "civil.db", seed=7)
    civil.open_register(PLACES, count=1_000, year=2019)

    edit = civil.live_through(2020, PLACES)

    assert min(edit.inserted, edit.updated, edit.deleted) > 0
    deceased = "SELECT count(*) FROM residents WHERE status = 'deceased'"
    assert _rows(tmp_path / "civil.db", deceased)[0][0] > 0
    states = _rows(tmp_path / "civil.db", "SELECT DISTINCT state FROM marriages ORDER BY 1")
    assert states == [("dissolved",), ("in_force",)]
    orphans = (
        "SELECT count(*) FROM protected_persons WHERE id_number NOT IN (SELECT id_number FROM residents)"
    )
    assert _rows(tmp_path / "civil.db", orphans) == [(0,)]


def test_a_share_of_the_people_lives_in_the_city_that_is_watched() -> None:
    places = [Place(code="330802001", name="a"), *(Place(code=f"1101010{n:02}", name="b") for n in range(9))]

    settled = spread(places, 1_000, seed=1, city="3308", share=0.5)

    assert 450 < sum(place.code.startswith("3308") for place in settled) < 650


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def _without_clock(path: Path) -> list[list[tuple[Any, ...]]]:
    tables = ("residents", "marriages", "protected_persons")
    return [sorted(tuple(row[:-1]) for row in _rows(path, f"SELECT * FROM {table}")) for table in tables]
