"""Two departments' own systems, as they would be without a bus. Writes SQLite files.

Neither knows of govbus: there are tables, and people who insert, update and
delete rows in ordinary transactions. What the bus shares is found by capture,
which polls these files.

- The statistics bureau takes over an edition of the division codes province by
  province, one transaction each.
- Civil affairs registers people, moves, marriages and deaths. A street that an
  edition abolishes is nobody's address afterwards: whoever lived there is moved
  to another one of the same area, or of the same city.

``updated_at`` is the time in UTC, taken within the transaction that changes the
row. Transactions are short, so latency can be measured from it.
"""

from __future__ import annotations

import random
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from govbus_console.demo.divisions import Division
from govbus_console.demo.people import People, Person, Place, spread

_BUSY_SECONDS = 30.0
QUZHOU = "3308"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """How many rows a department changed."""

    inserted: int
    updated: int
    deleted: int

    def __add__(self, other: Edit) -> Edit:
        return Edit(
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            deleted=self.deleted + other.deleted,
        )

    @property
    def total(self) -> int:
        """All rows touched, each once."""
        return self.inserted + self.updated + self.deleted


_NO_EDIT = Edit(inserted=0, updated=0, deleted=0)


def _connect(path: Path) -> sqlite3.Connection:
    """Open a department's database; one who reads (capture) and one who writes do not wait for each other."""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


class StatisticsBureau:
    """The bureau's system: one table ``divisions``, always the newest edition."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(path)) as db:
            db.executescript("""
                CREATE TABLE IF NOT EXISTS divisions (
                    code TEXT PRIMARY KEY,
                    name TEXT NOT NULL,
                    level TEXT NOT NULL,
                    parent TEXT,
                    province TEXT NOT NULL,
                    city TEXT,
                    updated_at TIMESTAMP NOT NULL
                ) WITHOUT ROWID;
                CREATE INDEX IF NOT EXISTS divisions_by_province ON divisions (province);
                CREATE INDEX IF NOT EXISTS divisions_by_update ON divisions (updated_at);
            """)

    def take_over(self, edition: Iterable[Division]) -> Edit:
        """Bring the table to an edition: delete what is gone, change what differs, insert what is new."""
        with closing(_connect(self._path)) as db:
            db.execute("PRAGMA temp_store = FILE")  # an edition down to the villages should not fill memory
            db.execute(
                "CREATE TEMP TABLE edition (code TEXT PRIMARY KEY, name TEXT NOT NULL, level TEXT NOT NULL, "
                "parent TEXT, province TEXT NOT NULL, city TEXT) WITHOUT ROWID"
            )
            db.execute("BEGIN")
            db.executemany("INSERT INTO edition VALUES (?, ?, ?, ?, ?, ?)", edition)
            db.execute("COMMIT")
            db.execute("CREATE INDEX edition_by_province ON edition (province)")
            provinces = [
                row[0]
                for row in db.execute(
                    "SELECT province FROM edition UNION SELECT province FROM divisions ORDER BY 1"
                )
            ]
            edit = _NO_EDIT
            for province in provinces:
                edit += self._take_over_province(db, province)
        return edit

    def _take_over_province(self, db: sqlite3.Connection, province: str) -> Edit:
        db.execute("BEGIN IMMEDIATE")
        deleted = db.execute(
            "DELETE FROM divisions WHERE province = ? "
            "AND code NOT IN (SELECT code FROM edition WHERE province = ?)",
            (province, province),
        ).rowcount
        now = _now()
        updated = db.execute(
            """
            UPDATE divisions
            SET name = e.name, level = e.level, parent = e.parent, city = e.city, updated_at = ?
            FROM edition AS e
            WHERE divisions.province = ? AND e.code = divisions.code
              AND (divisions.name, divisions.level, divisions.parent, divisions.city)
                  IS NOT (e.name, e.level, e.parent, e.city)
            """,
            (now, province),
        ).rowcount
        inserted = db.execute(
            """
            INSERT INTO divisions SELECT code, name, level, parent, province, city, ? FROM edition AS e
            WHERE e.province = ? AND NOT EXISTS (SELECT 1 FROM divisions WHERE divisions.code = e.code)
            """,
            (now, province),
        ).rowcount
        db.execute("COMMIT")
        return Edit(inserted=inserted, updated=updated, deleted=deleted)

    def places(self) -> list[Place]:
        """List where people can live: the streets, or the areas where no streets are held."""
        with closing(_connect(self._path)) as db:
            for level in ("street", "area"):
                rows = db.execute("SELECT code, name FROM divisions WHERE level = ? ORDER BY code", (level,))
                found = [Place(code=code, name=name) for code, name in rows]
                if found:
                    return found
        return []


class CivilAffairs:
    """The civil affairs register: residents, marriages, and people under protection."""

    _ADULT_DAYS = 22 * 366
    _CHANGES_EACH_YEAR = 0.04
    """Share of the residents that move, and about twice the share of each other kind of change."""

    def __init__(self, path: Path, *, seed: int) -> None:
        self._path = path
        self._seed = seed
        self._people = People(seed=seed)
        self._certificates = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(path)) as db:
            db.executescript("""
                CREATE TABLE IF NOT EXISTS residents (
                    id_number TEXT PRIMARY KEY,
                    name TEXT NOT NULL,
                    sex TEXT NOT NULL,
                    birth_date DATE NOT NULL,
                    phone TEXT,
                    division TEXT NOT NULL,
                    city TEXT NOT NULL,
                    address TEXT NOT NULL,
                    marital_state TEXT NOT NULL,
                    status TEXT NOT NULL,
                    updated_at TIMESTAMP NOT NULL
                );
                CREATE INDEX IF NOT EXISTS residents_by_division ON residents (division);
                CREATE INDEX IF NOT EXISTS residents_by_update ON residents (updated_at);
                CREATE TABLE IF NOT EXISTS marriages (
                    certificate TEXT PRIMARY KEY,
                    husband TEXT NOT NULL REFERENCES residents (id_number),
                    wife TEXT NOT NULL REFERENCES residents (id_number),
                    registered_on DATE NOT NULL,
                    city TEXT NOT NULL,
                    state TEXT NOT NULL,
                    updated_at TIMESTAMP NOT NULL
                );
                CREATE TABLE IF NOT EXISTS protected_persons (
                    case_number TEXT PRIMARY KEY,
                    id_number TEXT NOT NULL REFERENCES residents (id_number),
                    division TEXT NOT NULL,
                    updated_at TIMESTAMP NOT NULL
                );
            """)

    def open_register(self, places: Sequence[Place], *, count: int, year: int) -> Edit:
        """Register the first residents, some of them married, a few of them protected.

        Whoever an earlier demo has registered is struck off first, in the same transaction.
        """
        on = date(year, 12, 31)
        settled = spread(places, count, seed=self._seed, city=QUZHOU, share=0.1)
        people = [self._people.of_any_age(place, on=on) for place in settled]
        with closing(_connect(self._path)) as db:
            db.execute("BEGIN IMMEDIATE")
            for table in ("protected_persons", "marriages", "residents"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - the three names above
            edit = self._register(db, people)
            edit += self._marry(db, year, count // 20)
            edit += self._protect(db, year, max(1, count // 400))
            db.execute("COMMIT")
        return edit

    def live_through(self, year: int, places: Sequence[Place]) -> Edit:
        """Let a year pass: people move, are born, marry, divorce and die; one transaction for each kind."""
        chooser = random.Random(f"{self._seed}/{year}")  # noqa: S311 - made-up lives
        edit = _NO_EDIT
        with closing(_connect(self._path)) as db:
            (residents,) = db.execute("SELECT count(*) FROM residents").fetchone()
            some = max(2, int(residents * self._CHANGES_EACH_YEAR))
            births = [
                self._people.born(place, first=date(year, 1, 1), last=date(year, 12, 31))
                for place in chooser.choices(places, k=some // 4)
            ]
            steps: tuple[Callable[[], Edit], ...] = (
                lambda: self._leave_abolished(db, places, chooser),
                lambda: self._move(db, places, chooser, some),
                lambda: self._register(db, births),
                lambda: self._marry(db, year, some // 8),
                lambda: self._divorce(db, chooser, some // 16),
                lambda: self._die(db, chooser, some // 4),
                lambda: self._strike_off(db, chooser, some // 8),
                lambda: self._protect(db, year, max(1, some // 40)),
            )
            for step in steps:
                db.execute("BEGIN IMMEDIATE")
                edit += step()
                db.execute("COMMIT")
        return edit

    def _register(self, db: sqlite3.Connection, people: Sequence[Person]) -> Edit:
        now = _now()
        db.executemany(
            "INSERT INTO residents VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'single', 'living', ?)",
            (
                (
                    person.id_number,
                    person.name,
                    person.sex,
                    person.birth_date.isoformat(),
                    person.phone,
                    person.place.code,
                    person.place.code[:4],
                    person.address,
                    now,
                )
                for person in people
            ),
        )
        return Edit(inserted=len(people), updated=0, deleted=0)

    def _leave_abolished(
        self, db: sqlite3.Connection, places: Sequence[Place], chooser: random.Random
    ) -> Edit:
        still = {place.code for place in places}
        near: dict[str, list[Place]] = defaultdict(list)
        for place in places:
            near[place.code[:6]].append(place)
            near[place.code[:4]].append(place)
        moves = []
        for id_number, division in db.execute("SELECT id_number, division FROM residents ORDER BY id_number"):
            if division not in still:
                choices = near.get(division[:6]) or near.get(division[:4]) or places
                moves.append((id_number, chooser.choice(choices)))
        return self._rehouse(db, moves)

    def _move(
        self, db: sqlite3.Connection, places: Sequence[Place], chooser: random.Random, count: int
    ) -> Edit:
        movers = self._some(db, "status = 'living'", (), chooser, count)
        return self._rehouse(db, [(id_number, chooser.choice(places)) for id_number in movers])

    def _rehouse(self, db: sqlite3.Connection, moves: Sequence[tuple[str, Place]]) -> Edit:
        now = _now()
        db.executemany(
            "UPDATE residents SET division = ?, city = ?, address = ?, updated_at = ? WHERE id_number = ?",
            (
                (place.code, place.code[:4], self._people.address(place), now, id_number)
                for id_number, place in moves
            ),
        )
        return Edit(inserted=0, updated=len(moves), deleted=0)

    def _marry(self, db: sqlite3.Connection, year: int, count: int) -> Edit:
        chooser = random.Random(f"{self._seed}/{year}/marry")  # noqa: S311 - made-up lives
        born_before = (date(year, 1, 1) - timedelta(days=self._ADULT_DAYS)).isoformat()
        single = "status = 'living' AND marital_state = 'single' AND birth_date < ? AND sex = ?"
        husbands = self._some(db, single, (born_before, "male"), chooser, count)
        wives = self._some(db, single, (born_before, "female"), chooser, count)
        pairs = list(zip(husbands, wives, strict=False))
        now = _now()
        for husband, wife in pairs:
            (city,) = db.execute("SELECT city FROM residents WHERE id_number = ?", (wife,)).fetchone()
            self._certificates += 1
            day = date(year, 1, 1) + timedelta(days=chooser.randrange(365))
            db.execute(
                "INSERT INTO marriages VALUES (?, ?, ?, ?, ?, 'in_force', ?)",
                (f"J{city}-{year}-{self._certificates:06}", husband, wife, day.isoformat(), city, now),
            )
        self._set_marital_state(db, [spouse for pair in pairs for spouse in pair], "married", now)
        return Edit(inserted=len(pairs), updated=2 * len(pairs), deleted=0)

    def _divorce(self, db: sqlite3.Connection, chooser: random.Random, count: int) -> Edit:
        rows = db.execute(
            "SELECT certificate, husband, wife FROM marriages WHERE state = 'in_force' ORDER BY certificate"
        ).fetchall()
        ended = chooser.sample(rows, min(count, len(rows)))
        now = _now()
        self._dissolve(db, [certificate for certificate, _husband, _wife in ended], now)
        spouses = [spouse for _certificate, husband, wife in ended for spouse in (husband, wife)]
        self._set_marital_state(db, spouses, "divorced", now)
        return Edit(inserted=0, updated=3 * len(ended), deleted=0)

    def _die(self, db: sqlite3.Connection, chooser: random.Random, count: int) -> Edit:
        dead = self._some(db, "status = 'living'", (), chooser, count)
        now = _now()
        db.executemany(
            "UPDATE residents SET status = 'deceased', phone = NULL, updated_at = ? WHERE id_number = ?",
            ((now, id_number) for id_number in dead),
        )
        widowed, ended = [], []
        for id_number in dead:
            row = db.execute(
                "SELECT certificate, CASE husband WHEN ? THEN wife ELSE husband END FROM marriages "
                "WHERE state = 'in_force' AND ? IN (husband, wife)",
                (id_number, id_number),
            ).fetchone()
            if row is not None:
                ended.append(row[0])
                widowed.append(row[1])
                # Before the next one: the two spouses may die in the same year.
                self._dissolve(db, [row[0]], now)
        self._set_marital_state(db, widowed, "widowed", now)
        return Edit(inserted=0, updated=len(dead) + len(ended) + len(widowed), deleted=0)

    def _strike_off(self, db: sqlite3.Connection, chooser: random.Random, count: int) -> Edit:
        """Delete the rows of some who died and whom no other register mentions."""
        gone = self._some(
            db,
            "status = 'deceased' AND id_number NOT IN "
            "(SELECT husband FROM marriages UNION SELECT wife FROM marriages "
            "UNION SELECT id_number FROM protected_persons)",
            (),
            chooser,
            count,
        )
        db.executemany("DELETE FROM residents WHERE id_number = ?", ((id_number,) for id_number in gone))
        return Edit(inserted=0, updated=0, deleted=len(gone))

    def _protect(self, db: sqlite3.Connection, year: int, count: int) -> Edit:
        chooser = random.Random(f"{self._seed}/{year}/protect")  # noqa: S311 - made-up lives
        chosen = self._some(
            db,
            "status = 'living' AND id_number NOT IN (SELECT id_number FROM protected_persons)",
            (),
            chooser,
            count,
        )
        now = _now()
        db.executemany(
            "INSERT INTO protected_persons "
            "SELECT ?, id_number, division, ? FROM residents WHERE id_number = ?",
            (
                (f"PROTECTED-{year}-{number:05}", now, id_number)
                for number, id_number in enumerate(chosen, start=1)
            ),
        )
        return Edit(inserted=len(chosen), updated=0, deleted=0)

    @staticmethod
    def _dissolve(db: sqlite3.Connection, certificates: Sequence[str], now: str) -> None:
        db.executemany(
            "UPDATE marriages SET state = 'dissolved', updated_at = ? WHERE certificate = ?",
            ((now, certificate) for certificate in certificates),
        )

    @staticmethod
    def _set_marital_state(db: sqlite3.Connection, ids: Sequence[str], state: str, now: str) -> None:
        db.executemany(
            "UPDATE residents SET marital_state = ?, updated_at = ? WHERE id_number = ?",
            ((state, now, id_number) for id_number in ids),
        )

    @staticmethod
    def _some(
        db: sqlite3.Connection,
        condition: str,
        values: Sequence[str],
        chooser: random.Random,
        count: int,
    ) -> list[str]:
        """Choose residents; in the order of their numbers first, so that the seed alone decides."""
        rows = db.execute(
            f"SELECT id_number FROM residents WHERE {condition} ORDER BY id_number",  # noqa: S608 - fixed texts
            values,
        ).fetchall()
        return [row[0] for row in chooser.sample(rows, min(count, len(rows)))]
