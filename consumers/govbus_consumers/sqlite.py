"""Landing into SQLite: one file, one writer at a time, upserts of many rows in one statement.

The file is in WAL mode with ``synchronous=NORMAL``: a commit does not wait for the disk. That is safe
here, not in general: after a power failure the last commits may be missing, but rows, offsets and
purges are missing together, and what is missing is read from Kafka again. The file itself cannot
break. ``BEGIN IMMEDIATE`` takes the write lock first, so a transaction never fails half way for
want of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL

from govbus.errors import SinkUnavailableError
from govbus_consumers.sink import Row, RowRefusedError, SqlSink, quoted
from govbus_consumers.tables import ColumnType, Kind, LandingTable

_TYPES = {
    Kind.BOOLEAN: "BOOLEAN",
    Kind.INTEGER: "INTEGER",
    Kind.BIGINT: "INTEGER",
    Kind.REAL: "REAL",
    Kind.DOUBLE: "REAL",
    Kind.BYTES: "BLOB",
}
"""Everything else is TEXT: exact, and in an order that is the order of the values (but decimals)."""

_BUSY_SECONDS = 1.0
_ROWS_A_STATEMENT = 60
_VARIABLES = 900
"""SQLite took 999 in one statement before 3.32; more than this gains nothing."""


def _instant(value: datetime) -> str:
    return value.replace(tzinfo=None).isoformat(" ", "microseconds")


class SqliteSink(SqlSink):
    """A sink in one SQLite file."""

    converts: Mapping[Kind, Callable[[Any], Any]] = {
        Kind.DATE: date.isoformat,
        Kind.TIME: time.isoformat,
        Kind.INSTANT: _instant,
        Kind.LOCAL: _instant,
        Kind.DECIMAL: lambda value: format(value, "f") if isinstance(value, Decimal) else str(value),
        Kind.UUID: lambda value: str(value) if isinstance(value, UUID) else value,
    }

    # A type says how SQLite would like its values, not what they are.
    _enforces_types = False
    _driver_error = sqlite3.Error

    def __init__(self, url: URL, *, clock: Callable[[], datetime]) -> None:
        # One connection: landing has one thread, and SQLite one writer.
        engine = create_engine(url, pool_size=1, max_overflow=0, connect_args={"timeout": _BUSY_SECONDS})
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        super().__init__(engine, clock=clock)

    def _sql_type(self, column_type: ColumnType) -> str:
        return _TYPES.get(column_type.kind, "TEXT")

    def _upsert(self, connection: Connection, table: LandingTable, rows: Sequence[Row]) -> None:
        width = len(table.names)
        size = max(1, min(_ROWS_A_STATEMENT, _VARIABLES // width))
        full = len(rows) - len(rows) % size
        if full:
            batches = [tuple(chain.from_iterable(rows[at : at + size])) for at in range(0, full, size)]
            connection.exec_driver_sql(
                _upsert_statement(table.name, table.names, table.primary_key, size), batches
            )
        if full < len(rows):
            one = _upsert_statement(table.name, table.names, table.primary_key, 1)
            connection.exec_driver_sql(one, list(rows[full:]))

    def _delete(self, connection: Connection, table: LandingTable, keys: Sequence[Row]) -> None:
        where = " AND ".join(f"{quoted(name)} = ?" for name in table.primary_key)
        statement = f"DELETE FROM {quoted(table.name)} WHERE {where}"  # noqa: S608 - quoted
        connection.exec_driver_sql(statement, list(keys))

    def _fault(self, error: Exception) -> Exception:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if isinstance(error, sqlite3.OperationalError) or not isinstance(error, sqlite3.Error):
            return SinkUnavailableError(f"SQLite: {name}")
        if isinstance(error, sqlite3.DataError | sqlite3.IntegrityError | sqlite3.InterfaceError):
            return RowRefusedError(name)
        if isinstance(error, sqlite3.ProgrammingError) and not hasattr(error, "sqlite_errorname"):
            # Raised by Python itself: a value of a type that cannot be bound.
            return RowRefusedError(name)
        return SinkUnavailableError(f"SQLite: {name}")

    def _scrub(self, connection: Connection) -> None:
        # A deleted row stays readable in the file until its page is used again, unless the library was
        # built otherwise, as Debian's is.
        connection.exec_driver_sql("PRAGMA secure_delete = ON")

    def _scrubbed(self) -> None:
        # And in the write-ahead log, until that is written over.
        with self._faults_translated(), self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _configure(connection: Any, _record: object) -> None:
    # Transactions are begun by _begin; the driver's own way would begin them too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "cache_size = -65536",
        "temp_store = MEMORY",
        "wal_autocheckpoint = 4000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@lru_cache(maxsize=4_096)
def _upsert_statement(table: str, names: tuple[str, ...], key: tuple[str, ...], rows: int) -> str:
    columns = ", ".join(map(quoted, names))
    marks = "(" + ", ".join("?" * len(names)) + ")"
    others = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names if name not in key)
    into = f"INSERT INTO {quoted(table)} ({columns}) VALUES"
    merge = f"ON CONFLICT ({', '.join(map(quoted, key))}) DO UPDATE SET {others}"
    return f"{into} {', '.join([marks] * rows)} {merge}"
