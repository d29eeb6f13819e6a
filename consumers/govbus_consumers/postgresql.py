"""Landing into PostgreSQL: COPY into a temporary table, then one merge; small batches go directly.

COPY is several times faster than INSERT for thousands of rows, and costs three round trips and a
temporary table, which for a handful of rows is more than it saves. So up to a hundred rows go as
pipelined upserts. The temporary table is dropped with its transaction: kept, it would be emptied at
every later commit, one by one for each grant of the department.

A text that contains the character U+0000 cannot be stored in PostgreSQL: such a row becomes a dead letter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL

from govbus.errors import AccessDeniedError, SinkUnavailableError
from govbus_consumers.sink import Row, RowRefusedError, SqlSink
from govbus_consumers.tables import ColumnType, Kind, LandingTable

_TYPES = {
    Kind.BOOLEAN: "boolean",
    Kind.INTEGER: "integer",
    Kind.BIGINT: "bigint",
    Kind.REAL: "real",
    Kind.DOUBLE: "double precision",
    Kind.TEXT: "text",
    Kind.BYTES: "bytea",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.INSTANT: "timestamp with time zone",
    Kind.LOCAL: "timestamp",
    Kind.UUID: "uuid",
    Kind.JSON: "text",
}
_FEW = 100
_LAYOUT_LOCK = 0x676F7662  # "govb": any number that nothing else in the database locks

_CONNECT_SECONDS = 5
_OPTIONS = "-c lock_timeout=5s -c timezone=UTC"
"""Longer than a batch takes; a table that someone else has locked is then said to be unavailable."""

_DENIED_CLASSES = ("28", "42501")
"""Invalid authorization; insufficient privilege (SQLSTATE)."""

_ROW_CLASSES = ("22", "23", "54")
"""Data exception; integrity violation; a limit of PostgreSQL exceeded, such as the size of an index row."""


class PostgresqlSink(SqlSink):
    """A sink in one PostgreSQL database, in the first schema of the search path."""

    _driver_error = psycopg.Error

    def __init__(self, url: URL, *, clock: Callable[[], datetime]) -> None:
        options = " ".join(filter(None, (_OPTIONS, str(url.query.get("options", "")))))
        engine = create_engine(
            url,
            # One connection: landing has one thread. It is replaced when it breaks.
            pool_size=1,
            max_overflow=0,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "options": options,
                "application_name": "govbus land",
            },
        )
        super().__init__(engine, clock=clock)

    def _sql_type(self, column_type: ColumnType) -> str:
        if column_type.kind is Kind.DECIMAL:
            return f"numeric({column_type.precision},{column_type.scale})"
        return _TYPES[column_type.kind]

    def _lock_layouts(self, connection: Connection) -> None:
        _cursor(connection).execute("SELECT pg_advisory_xact_lock(%s)", (_LAYOUT_LOCK,))

    def _execute(self, connection: Connection, statement: str) -> int:
        # Without parameters, so that a % in a name is only a %.
        return int(_cursor(connection).execute(statement.encode()).rowcount)

    def _upsert(self, connection: Connection, table: LandingTable, rows: Sequence[Row]) -> None:
        cursor = _cursor(connection)
        if len(rows) <= _FEW:
            marks = sql.SQL(", ").join(sql.Placeholder() * len(table.names))
            values = sql.SQL("VALUES ({})").format(marks)
            cursor.executemany(self._insert(table, values, _with_values), rows)
            return
        stage = sql.Identifier("_govbus_stage_" + hashlib.sha256(table.name.encode()).hexdigest()[:16])
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(self._sql_type(kind)))
            for name, kind in zip(table.names, table.types, strict=True)
        )
        names = _names(table.names)
        cursor.execute(sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(stage, columns))
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(stage, names)) as copy:
            for row in rows:
                copy.write_row(row)
        cursor.execute(self._insert(table, sql.SQL("SELECT {} FROM {}").format(names, stage)))
        cursor.execute(sql.SQL("DROP TABLE {}").format(stage))

    def _insert(
        self,
        table: LandingTable,
        source: sql.Composed,
        name: Callable[[str], sql.Identifier] = sql.Identifier,
    ) -> sql.Composed:
        others = [each for each in table.names if each not in table.primary_key]
        return sql.SQL("INSERT INTO {} ({}) {} ON CONFLICT ({}) DO UPDATE SET {}").format(
            name(table.name),
            sql.SQL(", ").join(map(name, table.names)),
            source,
            sql.SQL(", ").join(map(name, table.primary_key)),
            sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name(each)) for each in others),
        )

    def _delete(self, connection: Connection, table: LandingTable, keys: Sequence[Row]) -> None:
        types = dict(zip(table.names, table.types, strict=True))
        arrays = sql.SQL(", ").join(
            sql.SQL("%s::{}[]").format(sql.SQL(self._sql_type(types[name]))) for name in table.primary_key
        )
        gone = sql.SQL(", ").join(sql.Identifier(f"k{place}") for place in range(len(table.primary_key)))
        matches = sql.SQL(" AND ").join(
            sql.SQL("landed.{} = gone.{}").format(_with_values(name), sql.Identifier(f"k{place}"))
            for place, name in enumerate(table.primary_key)
        )
        statement = sql.SQL("DELETE FROM {} AS landed USING unnest({}) AS gone({}) WHERE {}").format(
            _with_values(table.name), arrays, gone, matches
        )
        _cursor(connection).execute(statement, [list(column) for column in zip(*keys, strict=True)])

    def _fault(self, error: Exception) -> Exception:
        state = getattr(error, "sqlstate", None) or ""
        if state.startswith(_DENIED_CLASSES) or "authentication failed" in str(error):
            return AccessDeniedError("PostgreSQL refuses the user, its password or what it may do")
        if state.startswith(_ROW_CLASSES) or (isinstance(error, psycopg.DataError) and not state):
            return RowRefusedError(f"SQLSTATE {state}" if state else type(error).__name__)
        return SinkUnavailableError(f"PostgreSQL: {type(error).__name__} {state}".rstrip())


def _cursor(connection: Connection) -> Any:
    return connection.connection.cursor()


def _with_values(name: str) -> sql.Identifier:
    """Quote a name for a statement that also has values, where the driver reads % as their mark."""
    return sql.Identifier(name.replace("%", "%%"))


def _names(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
