"""Remember which rows of a source are on the bus, so that the next poll can tell what changed.

One SQLite file per resource, one line per row of the source: its key, a digest
of its content, and how far its publishing has come. No content is kept.

How far publishing has come is what makes a crash harmless:

- *pending* is committed before a row is handed out to be published, and taken
  back only after the broker has acknowledged it. A pending row's digest proves
  nothing: the bus may hold that content or the one before. So it is handed out
  again, whatever its content is by then. Without this mark a change that was
  published and not remembered, and then undone at the source, would look
  unchanged, and the bus would keep the undone content for ever.
- *on the topic* says that a record of the key may be there, so that a row
  which was only ever rejected goes without a tombstone.

Commits are durable against power loss (WAL, synchronous=FULL): the mark is
worth nothing if the disk forgets it and the broker does not.
"""

from __future__ import annotations

import fcntl
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from govbus.errors import ConfigurationError, SourceUnavailableError

_FORMAT = "1"
_LOOKUP = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS line (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    pending INTEGER NOT NULL,
    on_topic INTEGER NOT NULL
);
"""


NO_KEY = b"!"
"""Begins the key of a row that cannot be told from others; it was never published and never will be."""

Line = tuple[int, bytes, int]
"""Of one row: its id, its digest, and 1 while it is pending. A plain tuple: there are many."""


class Snapshot:
    """The snapshot of one resource. Used by one thread; nobody else may have the file open."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            ConfigurationError: the file is not a snapshot, or damaged.
            SourceUnavailableError: the folder cannot be written.
        """
        self._path = path
        with self._explained():
            self._db = sqlite3.connect(path, isolation_level=None)
            path.chmod(0o600)  # keys may be personal
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA cache_size = -16000")
            self._db.executescript(_SCHEMA)
        if self.about("format", _FORMAT) != _FORMAT:
            raise ConfigurationError(f"the snapshot {path} was written by another release of govbus")

    def about(self, name: str, default: str) -> str:
        """Read what was noted under ``name``; the first time, note ``default``."""
        with self._explained():
            self._db.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (name, default))
            (value,) = self._db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return str(value)

    def start_over(self, name: str, value: str) -> None:
        """Note ``value`` under ``name`` and forget every digest: each row will be published again."""
        with self.writing():
            self._db.execute("UPDATE line SET digest = x''")
            self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Everything inside is committed, durably, or none of it is."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def extent(self) -> tuple[int, int]:
        """How many lines there are, and the highest id among them; (0, 0) when there are none."""
        count, highest = self._db.execute("SELECT count(*), coalesce(max(id), 0) FROM line").fetchone()
        return int(count), int(highest)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Line]:
        """What is known of these keys; a key that is missing is new."""
        found: dict[bytes, Line] = {}
        for start in range(0, len(keys), _LOOKUP):
            part = keys[start : start + _LOOKUP]
            marks = ",".join("?" * len(part))
            statement = f"SELECT key, id, digest, pending FROM line WHERE key IN ({marks})"  # noqa: S608
            found.update(
                (key, (id_, digest, pending))
                for key, id_, digest, pending in self._db.execute(statement, part)
            )
        return found

    def after(self, id_: int, limit: int) -> dict[bytes, Line]:
        """The next ``limit`` lines by id. Rows mostly come in that order, and so need not be searched."""
        statement = "SELECT key, id, digest, pending FROM line WHERE id > ? ORDER BY id LIMIT ?"
        return {
            key: (found, digest, pending)
            for key, found, digest, pending in self._db.execute(statement, (id_, limit))
        }

    def add_pending(self, lines: Sequence[tuple[int, bytes, bytes]]) -> None:
        """Add new rows (id, key, digest) that are about to be published."""
        self._db.executemany("INSERT INTO line VALUES (?, ?, ?, 1, 0)", lines)

    def add_rejected(self, lines: Sequence[tuple[int, bytes, bytes]]) -> None:
        """Add new rows (id, key, digest) that will not be published."""
        self._db.executemany("INSERT INTO line VALUES (?, ?, ?, 0, 0)", lines)

    def mark_pending(self, lines: Sequence[tuple[bytes, int]]) -> None:
        """Mark known rows (digest, id) as about to be published with new content."""
        # A row that was pending already may have reached the topic in the attempt before.
        self._db.executemany(
            "UPDATE line SET digest = ?, on_topic = on_topic | pending, pending = 1 WHERE id = ?", lines
        )

    def mark_gone(self, seen: bytearray, highest: int) -> array[int]:
        """Mark every line up to ``highest`` that was not seen as about to get a tombstone.

        Lines that were never published are forgotten instead. Returns the ids that need a tombstone.

        Args:
            seen: one bit for each id, set when the row is still at the source.
            highest: lines above are newer than the reading of the source.
        """
        tombstones, forgotten = array("q"), array("q")
        for id_, published in self._db.execute(
            "SELECT id, on_topic OR pending FROM line WHERE id <= ? ORDER BY id", (highest,)
        ):
            if not seen[id_ >> 3] & (1 << (id_ & 7)):
                (tombstones if published else forgotten).append(id_)
        self._db.executemany("DELETE FROM line WHERE id = ?", ((id_,) for id_ in forgotten))
        self._db.executemany(
            "UPDATE line SET on_topic = 1, pending = 1 WHERE id = ?", ((id_,) for id_ in tombstones)
        )
        return tombstones

    def keys(self, ids: Sequence[int]) -> list[bytes]:
        """The keys of these lines, in the order of their ids."""
        marks = ",".join("?" * len(ids))
        statement = f"SELECT key FROM line WHERE id IN ({marks}) ORDER BY id"  # noqa: S608 - marks only
        with self._explained():
            return [key for (key,) in self._db.execute(statement, ids)]

    def settle(self, *, published: Sequence[int], rejected: Sequence[int], gone: Sequence[int]) -> None:
        """Note, durably, that these lines are done with."""
        with self.writing():
            self._db.executemany(
                "UPDATE line SET pending = 0, on_topic = 1 WHERE id BETWEEN ? AND ?", _runs(published)
            )
            # on_topic stays: of a rejected row an earlier, accepted state may be on the bus
            self._db.executemany("UPDATE line SET pending = 0 WHERE id BETWEEN ? AND ?", _runs(rejected))
            self._db.executemany("DELETE FROM line WHERE id BETWEEN ? AND ?", _runs(gone))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite raises into what the capture does next; its text may quote a key."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            if name in {"SQLITE_NOTADB", "SQLITE_CORRUPT"}:
                raise ConfigurationError(
                    f"{self._path} is not a snapshot, or damaged ({name}); put it back from a backup, or "
                    "remove it: every row is then published again, but rows that were deleted at the "
                    "source since the last poll stay on the bus"
                ) from None
            raise SourceUnavailableError(f"the snapshot {self._path} cannot be used: {name}") from None


def _runs(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each unbroken run: new rows have consecutive ids, and one statement does them all."""
    first = last = 0  # ids count from 1
    for id_ in ids:
        if id_ == last + 1 and first:
            last = id_
            continue
        if first:
            yield first, last
        first = last = id_
    if first:
        yield first, last


class StateFolder:
    """The folder of one department's snapshots, held by one process at a time."""

    def __init__(self, folder: Path, department: str) -> None:
        """Take the folder.

        Raises:
            ConfigurationError: another capture of this department holds it, or it cannot be made.
        """
        self._folder = folder
        self._department = department
        path = folder / f"{department}.lock"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = path.open("a")
        except OSError as error:
            raise ConfigurationError(f"cannot use the state folder {folder}: {error.strerror}") from None
        try:
            # The kernel lets go of it when the process dies, however it dies.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise ConfigurationError(
                f"another capture of {department} holds {path}: stop it, or give this one a state folder "
                "and resources of its own"
            ) from None

    @property
    def path(self) -> Path:
        """Where temporary files of this capture may go."""
        return self._folder

    def snapshot(self, resource: str) -> Snapshot:
        """Open the snapshot of one resource."""
        return Snapshot(self._folder / f"{self._department}.{resource}.sqlite")

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()
