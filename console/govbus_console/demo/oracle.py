"""Say what each subscriber's table must hold, without the bus. Reads files.

The oracle shares no code with govbus, not even with the rest of the demo: it
reads the division codes with the csv module out of the same archives, the
register out of the civil affairs database, and works out filters, masks and
pseudonyms in plain Python from what the catalogue and the documentation
promise. What it says is compared with each landed table row by row.

A difference is reported as counts and as digests of keys, never as values.

Both sides of a comparison are read in the order of their keys, so that memory
does not grow with the tables. Pseudonyms have no order in common with the rows
they stand for: those tables are compared through a dictionary.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

Row = tuple[object, ...]
"""The values of the granted fields in contract order, the key first."""

_SHOWN_KEYS = 5
_CODES = {
    "provinces": ("province", 2),
    "cities": ("city", 4),
    "areas": ("area", 6),
    "streets": ("street", 9),
    "villages": ("village", 12),
}


@dataclass(slots=True)
class Verdict:
    """How one landed table differs from what it must be."""

    expected: int = 0
    landed: int = 0
    missing: int = 0
    unexpected: int = 0
    different: int = 0
    keys: list[str] = field(default_factory=list)
    """Digests of some of the keys concerned: enough to look for them, not to read them."""

    fault: str = ""
    """Why there is nothing to compare: no such table, or other columns than were granted."""

    @property
    def equal(self) -> bool:
        """Whether every row is there, is right, and is the only one of its key."""
        wrong = self.missing or self.unexpected or self.different
        return not self.fault and not wrong and self.expected == self.landed

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        return (
            f"{self.expected} expected, {self.landed} landed: {self.missing} missing, "
            f"{self.unexpected} unexpected, {self.different} different"
            + (f"; keys with sha256 {', '.join(self.keys)}…" if self.keys else "")
        )

    def _note(self, key: object) -> None:
        if len(self.keys) < _SHOWN_KEYS:
            self.keys.append(hashlib.sha256(str(key).encode()).hexdigest()[:12])


def judge(check: Callable[[], Verdict]) -> Verdict:
    """Run one of the checks; a table that cannot be compared is a difference, not an end of the run."""
    try:
        return check()
    except (LookupError, ValueError) as error:
        return Verdict(fault=str(error))
    except sqlite3.Error as error:
        return Verdict(fault=f"the landed database cannot be read: {type(error).__name__}")


# -- divisions -------------------------------------------------------------------------------------


def check_divisions(archive: Path, files: Iterable[str], landed: Path, table: str) -> Verdict:
    """Compare a table of all divisions with every row of the CSV files."""
    columns = ("code", "name", "level", "parent", "province", "city")
    return _check_codes(archive, files, landed, table, columns=columns, view=lambda row: row)


def check_city_divisions(archive: Path, files: Iterable[str], landed: Path, table: str, city: str) -> Verdict:
    """Compare a table of code and name of one city's divisions with the CSV files."""

    def view(row: Row) -> Row | None:
        return (row[0], row[1]) if row[5] == city else None

    return _check_codes(archive, files, landed, table, columns=("code", "name"), view=view)


def _check_codes(
    archive: Path,
    files: Iterable[str],
    landed: Path,
    table: str,
    *,
    columns: tuple[str, ...],
    view: Callable[[Row], Row | None],
) -> Verdict:
    verdict = Verdict()
    wanted = set(files)
    with closing(_open(landed)) as db, tarfile.open(archive, "r:gz") as members:
        if not _has_table(db, table):
            raise LookupError(f"{landed.name} has no table {table}")
        digits_seen = {_CODES[stem][1] for stem in wanted}
        for member in members:
            stem = member.name.removeprefix("package/dist/").removesuffix(".csv")
            if stem not in wanted or member.name != f"package/dist/{stem}.csv":
                continue
            wanted.remove(stem)
            content = members.extractfile(member)
            if content is None:
                raise LookupError(f"{archive.name} has no {stem}")
            with io.TextIOWrapper(content, encoding="utf-8", newline="") as text:
                expected = (
                    seen for row in _divisions(csv.DictReader(text), stem) if (seen := view(row)) is not None
                )
                digits = _CODES[stem][1]
                _merge(verdict, expected, _landed(db, table, columns, f"length(code) = {digits}"))
            if not wanted:
                break
        others = ", ".join(map(str, sorted(digits_seen)))
        for row in _landed(db, table, columns, f"length(code) NOT IN ({others})"):
            verdict.landed += 1
            verdict.unexpected += 1
            verdict._note(row[0])
    if wanted:
        raise LookupError(f"{archive.name} has no {', '.join(sorted(wanted))}")
    return verdict


def _divisions(rows: Iterable[Mapping[str, str]], stem: str) -> Iterator[Row]:
    """Turn the CSV's rows into what the contract promises."""
    level = _CODES[stem][0]
    for row in rows:
        if level == "province":
            yield row["code"], row["name"], level, None, row["code"], None
        elif level == "city":
            yield row["code"], row["name"], level, row["provinceCode"], row["provinceCode"], row["code"]
        else:
            above = {"area": "cityCode", "street": "areaCode", "village": "streetCode"}[level]
            yield row["code"], row["name"], level, row[above], row["provinceCode"], row["cityCode"]


def _merge(verdict: Verdict, expected: Iterator[Row], landed: Iterator[Row]) -> None:
    """Walk two runs of rows in key order side by side."""
    want, have = next(expected, None), next(landed, None)
    while want is not None or have is not None:
        if have is None or (want is not None and str(want[0]) < str(have[0])):
            assert want is not None  # noqa: S101 - one of the two is there, for the type checker
            verdict.expected += 1
            verdict.missing += 1
            verdict._note(want[0])
            want = _following(expected, want)
        elif want is None or str(have[0]) < str(want[0]):
            verdict.landed += 1
            verdict.unexpected += 1
            verdict._note(have[0])
            have = _following(landed, have)
        else:
            verdict.expected += 1
            verdict.landed += 1
            if want != have:
                verdict.different += 1
                verdict._note(want[0])
            want, have = _following(expected, want), _following(landed, have)


def _following(rows: Iterator[Row], before: Row) -> Row | None:
    row = next(rows, None)
    if row is not None and str(row[0]) <= str(before[0]):
        raise ValueError("rows are not in the order of their keys, or a key is there twice")
    return row


# -- the register ----------------------------------------------------------------------------------


def check_residents_for_health(civil: Path, landed: Path, table: str, pseudonyms: Pseudonyms) -> Verdict:
    """Compare health's residents: the living, id replaced, name masked, year of birth, area, no phone."""
    expected: dict[object, Row] = {}
    with closing(_open(civil)) as db:
        for id_number, name, sex, birth_date, division, status in db.execute(
            "SELECT id_number, name, sex, birth_date, division, status FROM residents"
        ):
            if status == "living":
                masked = name[0] + "*" * (len(name) - 1) if len(name) > 1 else "*"
                key = pseudonyms.of(id_number)
                expected[key] = (key, masked, sex, int(birth_date[:4]), division[:6])
    columns = ("id_number", "name", "sex", "birth_date", "division")
    return _check_keyed(expected, landed, table, columns)


def check_marriages_for_quzhou(
    civil: Path, landed: Path, table: str, pseudonyms: Pseudonyms, city: str
) -> Verdict:
    """Compare Quzhou's marriages: in force there, both spouses replaced, the month only."""
    expected: dict[object, Row] = {}
    with closing(_open(civil)) as db:
        for certificate, husband, wife, registered_on, where, state in db.execute(
            "SELECT certificate, husband, wife, registered_on, city, state FROM marriages"
        ):
            if where == city and state == "in_force":
                expected[certificate] = (
                    certificate,
                    pseudonyms.of(husband),
                    pseudonyms.of(wife),
                    registered_on[:7],
                )
    columns = ("certificate", "husband", "wife", "registered_on")
    return _check_keyed(expected, landed, table, columns)


def check_empty(landed: Path, table: str) -> Verdict:
    """Compare with nothing: the table may be gone, but holds no row."""
    verdict = Verdict()
    if not landed.exists():
        return verdict
    with closing(_open(landed)) as db:
        if _has_table(db, table):
            (verdict.landed,) = db.execute(f"SELECT count(*) FROM {_quoted(table)}").fetchone()  # noqa: S608
            verdict.unexpected = verdict.landed
    return verdict


def check_nothing_landed(landed: Path) -> Verdict:
    """Compare a whole database with nothing: no table but the bus's own bookkeeping may hold a row."""
    verdict = Verdict()
    if not landed.exists():
        return verdict
    with closing(_open(landed)) as db:
        tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            if not table.startswith(("_govbus", "sqlite_")):
                (count,) = db.execute(f"SELECT count(*) FROM {_quoted(table)}").fetchone()  # noqa: S608
                verdict.landed += count
                verdict.unexpected += count
    return verdict


def mentions(store: Path, texts: Iterable[str]) -> int:
    """Count the texts that stand anywhere in the bytes of a store: its file, and its write-ahead log."""
    patterns = [text.encode() for text in texts]
    longest = max((len(pattern) for pattern in patterns), default=1)
    found: set[bytes] = set()
    for path in (store, store.with_name(f"{store.name}-wal")):
        if not path.is_file():
            continue
        with path.open("rb") as content:
            before = b""
            while block := content.read(1 << 20):
                window = before + block
                found |= {pattern for pattern in patterns if pattern in window}
                before = window[-longest:]
    return len(found)


class Pseudonyms:
    """The pseudonyms of one agreement, by the documentation of the transform.

    Key: HKDF-SHA-256 (RFC 5869), salt ``govbus pseudonym 1``, info the JSON list of subscriber,
    purpose and epoch, 32 bytes. Pseudonym of a text: the first 32 hexadecimal digits of
    HMAC-SHA-256 over ``s`` and the text in UTF-8.
    """

    def __init__(self, master: bytes, *, subscriber: str, purpose: str, epoch: int = 1) -> None:
        extracted = hmac.new(b"govbus pseudonym 1", master, hashlib.sha256).digest()
        info = json.dumps([subscriber, purpose, epoch]).encode()
        self._key = hmac.new(extracted, info + bytes([1]), hashlib.sha256).digest()

    def of(self, text: str) -> str:
        """Give the pseudonym of one text."""
        return hmac.new(self._key, b"s" + text.encode(), hashlib.sha256).hexdigest()[:32]


def _check_keyed(expected: dict[object, Row], landed: Path, table: str, columns: tuple[str, ...]) -> Verdict:
    verdict = Verdict(expected=len(expected))
    with closing(_open(landed)) as db:
        if not _has_table(db, table):
            raise LookupError(f"{landed.name} has no table {table}")
        for row in _landed(db, table, columns, "TRUE"):
            verdict.landed += 1
            want = expected.pop(row[0], None)
            if want is None:
                verdict.unexpected += 1
                verdict._note(row[0])
            elif want != row:
                verdict.different += 1
                verdict._note(row[0])
    for key in expected:
        verdict.missing += 1
        verdict._note(key)
    return verdict


# -- reading what was landed -----------------------------------------------------------------------


def _landed(db: sqlite3.Connection, table: str, columns: tuple[str, ...], condition: str) -> Iterator[Row]:
    """Read a landed table in key order, and insist that it has the granted columns and no others."""
    present = {
        name
        for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))
        if not name.startswith("_govbus_")
    }
    if present != set(columns):
        raise LookupError(f"{table} has the columns {sorted(present)}, not {sorted(columns)}")
    listed = ", ".join(map(_quoted, columns))
    yield from db.execute(
        f"SELECT {listed} FROM {_quoted(table)} WHERE {condition} ORDER BY {_quoted(columns[0])}"  # noqa: S608
    )


def _open(path: Path) -> sqlite3.Connection:
    """Open a database that others write, and write nothing."""
    if not path.exists():
        raise LookupError(f"{path.name} does not exist")
    connection = sqlite3.connect(path, timeout=30.0)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _has_table(db: sqlite3.Connection, table: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return db.execute(query, (table,)).fetchone() is not None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
