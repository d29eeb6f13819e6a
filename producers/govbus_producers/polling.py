"""Find what changed in a table by reading it again, through SQLAlchemy.

One poll has three parts:

1. *Read.* One SELECT, in a read-only transaction, sees one state of the table.
   Each row's digest is compared with the snapshot; rows that differ are noted
   as pending there and spooled to an anonymous file. Nothing is sent while the
   transaction is open: a slow broker never holds a lock in the department's
   database.
2. *Hand out.* The spooled rows come back in batches; the caller publishes and
   settles each.
3. *Deletes.* Rows of the snapshot that the reading did not meet are handed out
   as deletes, in the same way.

Nothing depends on the order in which the database returns rows, so no index
and no collation is needed. Memory holds a batch and one bit for each row.

``hash`` mode does this at every poll. ``column`` mode reads, between two such
*sweeps*, only rows whose version or timestamp column is not below the highest
value seen, less an overlap: transactions that took their value early and
committed late, and rows with equal values, are read again and recognised by
their digest. Such a poll cannot find a delete, nor a row whose column was not
advanced; the sweep does. The first poll of a process and the first after an
error are sweeps, so the snapshot is all that has to outlive a crash.

What the digest covers is the row as the source has it, in the contract's
fields. A change that the contract does not show is not a change.
"""

from __future__ import annotations

import hashlib
import marshal
import math
import pickle
import tempfile
from array import array
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import orjson
import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError

from govbus import observe
from govbus.contract import DataContract
from govbus.errors import (
    AccessDeniedError,
    BusError,
    ConfigurationError,
    ContractViolationError,
    RejectedRecordError,
    SourceUnavailableError,
)
from govbus.event import Change
from govbus_producers.config import PollMode, TableConfig
from govbus_producers.conformance import Check, compile_check
from govbus_producers.conversion import Conversion, compile_conversion, to_instant
from govbus_producers.snapshot import NO_KEY, Line, Snapshot
from govbus_producers.source import ChangeBatch

READ_ROWS = 5_000
"""Rows that are fetched and compared at a time."""

BATCH_ROWS = 10_000
"""At most so many changes are handed out at a time: about 2 MB of small rows."""

_MOST_AHEAD = timedelta(hours=14)
_OVERLAP_SECONDS = 60.0
_OVERLAP_STEPS = 1_000


def open_source(url: URL) -> Engine:
    """Make the engine of a department's database: it can read, and nothing it says quotes a value.

    Raises:
        ConfigurationError: the URL names a driver that is not installed.
    """
    options: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        options["execution_options"] = {"postgresql_readonly": True}
    try:
        engine = sqlalchemy.create_engine(url, hide_parameters=True, pool_pre_ping=True, **options)
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigurationError(f"the source URL cannot be used: {type(error).__name__}") from None
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _read_only_sqlite)
    return engine


def _read_only_sqlite(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA query_only = ON")


class TablePolling:
    """A :class:`~govbus_producers.source.ChangeSource` that reads one table again and again."""

    def __init__(
        self,
        *,
        engine: Engine,
        contract: DataContract,
        table: TableConfig,
        snapshot: Snapshot,
        spool: Path,
    ) -> None:
        """Compile the reading of one table; the source is first asked when polled.

        Args:
            engine: the department's database, from :func:`open_source`; shared with other tables.
            contract: what is read: its fields are the columns, its key identifies a row.
            table: where and how.
            snapshot: what is on the bus already; closed with this source.
            spool: folder for the anonymous file that holds changed rows during a poll.
        """
        self._engine = engine
        self._contract = contract
        self._table = table
        self._snapshot = snapshot
        self._spool_folder = spool
        self._layout = _Layout(contract, table)
        self._checked = False
        self._lenient = False
        self._swept = False
        self._polls_since_sweep = 0
        self._watermark: Any = None
        self._handed_out: Sequence[int] = ()
        self._deletes = False

    def poll(self) -> Generator[ChangeBatch, None, None]:
        """Look once for what has changed; see :class:`~govbus_producers.source.ChangeSource`."""
        sweep = (
            self._table.mode is PollMode.HASH
            or not self._swept
            or self._polls_since_sweep + 1 >= self._table.sweep_every
        )
        # Until this poll has come to its end, the next one is a sweep: only that meets pending rows again.
        self._swept = False
        with tempfile.TemporaryFile(dir=self._spool_folder) as spool:
            with self._snapshot.writing():
                refused, gone = self._read(spool, sweep=sweep)
            spool.seek(0)
            if refused:
                self._handed_out, self._deletes = (), False
                yield ChangeBatch(changes=(), places=(), refused=refused)
            yield from self._hand_out_rows(spool)
        yield from self._hand_out_deletes(gone)
        self._swept = True
        self._polls_since_sweep = 0 if sweep else self._polls_since_sweep + 1

    def remember(self, rejected: Collection[int]) -> None:
        """Settle the batch that was handed out last."""
        ids, self._handed_out = self._handed_out, ()
        if self._deletes:
            # A key that the contract no longer allows has no tombstone; there is nothing to keep of it.
            self._snapshot.settle(published=(), rejected=(), gone=ids)
            return
        refused = [ids[position] for position in rejected]
        published = [id_ for position, id_ in enumerate(ids) if position not in rejected] if refused else ids
        self._snapshot.settle(published=published, rejected=refused, gone=())

    def close(self) -> None:
        """Close the snapshot."""
        self._snapshot.close()

    def _read(self, spool: IO[bytes], *, sweep: bool) -> tuple[dict[int, RejectedRecordError], array[int]]:
        """Read the table, note what differs as pending, and spool it.

        Returns the rows that cannot be told from others, and the ids of rows that are gone.
        """
        snapshot = self._snapshot
        count, highest = snapshot.extent()
        comparison = _Comparison(snapshot, highest)
        spooled: list[_Spooled] = []
        for rows in self._select(sweep=sweep):
            observe.heartbeat("capture")
            keys, digests = self._layout.identify(rows)
            spooled += comparison.compare(rows, keys, digests)
            self._advance_watermark(rows)
            while len(spooled) >= BATCH_ROWS:
                pickle.dump(spooled[:BATCH_ROWS], spool)
                del spooled[:BATCH_ROWS]
        if spooled:
            pickle.dump(spooled, spool)
        gone: array[int] = array("q")
        if sweep and comparison.met < count:
            gone = snapshot.mark_gone(comparison.seen, highest)
        return comparison.refused, gone

    def _hand_out_rows(self, spool: IO[bytes]) -> Iterator[ChangeBatch]:
        while True:
            try:
                # Written a moment ago by this process, to a file that has no name.
                spooled: list[_Spooled] = pickle.load(spool)  # noqa: S301
            except EOFError:
                return
            self._handed_out, self._deletes = [found[0] for found in spooled], False
            yield ChangeBatch(
                changes=[self._layout.change(row) for _, _, row, _ in spooled],
                places=[place for _, place, _, _ in spooled],
                created=sum(new for _, _, _, new in spooled),
            )

    def _hand_out_deletes(self, gone: Sequence[int]) -> Iterator[ChangeBatch]:
        for start in range(0, len(gone), BATCH_ROWS):
            ids = gone[start : start + BATCH_ROWS]
            keys = self._snapshot.keys(ids)
            self._handed_out, self._deletes = ids, True
            yield ChangeBatch(changes=[self._layout.delete(key) for key in keys], places=[0] * len(keys))

    def _select(self, *, sweep: bool) -> Iterator[list[tuple[Any, ...]]]:
        """Read the rows of this poll, a few thousand at a time."""
        statement = self._layout.statement
        if not sweep and self._watermark is not None:
            statement = statement.where(self._layout.monotonic >= self._since())
        with self._connected() as connection:
            if not self._checked:
                self._check(connection)
            result = connection.execute(statement, execution_options={"yield_per": READ_ROWS})
            for part in result.partitions():
                yield [tuple(row) for row in part]

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        url = self._engine.url
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
            # sqlite3 would make an empty database, and every row of the resource would look deleted
            raise SourceUnavailableError(f"there is no file {url.database}")
        try:
            with self._engine.connect() as connection:
                if self._lenient:
                    connection.connection.driver_connection.text_factory = _text_or_surrogates  # type: ignore[union-attr]
                yield connection
        except DBAPIError as error:
            if "Could not decode to UTF-8" in str(error.orig):
                # sqlite3 gives up the whole reading for one bad text. Read once more so that the text
                # arrives in a form which no contract allows, and only its row is refused.
                self._lenient = True
            raise _explained(error, self._table) from None
        except SQLAlchemyError as error:
            raise SourceUnavailableError(f"table {self._table.table}: {type(error).__name__}") from None

    def _check(self, connection: Connection) -> None:
        """Compare the table with the contract once, so that a wrong name is told as such."""
        table = self._table
        try:
            there = {
                column["name"]
                for column in sqlalchemy.inspect(connection).get_columns(table.table, schema=table.schema)
            }
        except NoSuchTableError:
            raise ConfigurationError(
                f"resource {table.resource}: the source has no table {table.table}"
            ) from None
        for wanted in self._layout.columns:
            if wanted not in there:
                raise ConfigurationError(
                    f"resource {table.resource}: table {table.table} has no column {wanted}; "
                    "name the right one under `columns`, or read a view that has it"
                )
        self._checked = True

    def _advance_watermark(self, rows: Sequence[tuple[Any, ...]]) -> None:
        index = self._layout.monotonic_index
        if index is None:
            return
        try:
            values = [row[index] for row in rows if row[index] is not None]
            if self._watermark is not None:
                values.append(self._watermark)
            if values:
                self._watermark = max(values)
        except TypeError:
            raise self._unordered() from None

    def _since(self) -> Any:
        """Where a poll between sweeps starts to read."""
        highest, overlap = self._watermark, self._table.overlap
        try:
            return _back(highest, overlap, datetime.now(UTC))
        except (TypeError, ValueError, OverflowError):
            raise self._unordered() from None

    def _unordered(self) -> ConfigurationError:
        return ConfigurationError(
            f"resource {self._table.resource}: column {self._table.column} must hold whole numbers, dates, "
            "date-times or ISO 8601 text, and one of these only; use `mode: hash` otherwise"
        )


_Spooled = tuple[int, int, tuple[Any, ...], bool]
"""Line id, place in the reading, the row, and whether it is new."""


class _Comparison:
    """One reading of the table against the snapshot."""

    def __init__(self, snapshot: Snapshot, highest: int) -> None:
        self._snapshot = snapshot
        self._highest = highest
        self._next_id = highest + 1
        self._place = 0
        self._followed = 0
        self.seen = bytearray((highest >> 3) + 1)
        self.met = 0
        """How many lines of the snapshot were seen."""

        self.refused: dict[int, RejectedRecordError] = {}

    def compare(
        self, rows: Sequence[tuple[Any, ...]], keys: Sequence[bytes], digests: Sequence[bytes]
    ) -> list[_Spooled]:
        """Return the rows that differ, and note them in the snapshot as pending."""
        known = self._known(keys)
        seen, highest, place = self.seen, self._highest, self._place
        added: list[tuple[int, bytes, bytes]] = []
        changed: list[tuple[bytes, int]] = []
        differing: list[_Spooled] = []
        again: list[tuple[int, bytes]] = []
        for row, key, digest in zip(rows, keys, digests, strict=True):
            place += 1
            line = known.get(key)
            if line is None:
                if key[:1] == NO_KEY:
                    again.append((place, digest))
                    continue
                id_ = self._next_id
                self._next_id += 1
                known[key] = (id_, digest, 1)
                added.append((id_, key, digest))
                differing.append((id_, place, row, True))
                continue
            id_, before, pending = line
            if id_ > highest or seen[id_ >> 3] & (1 << (id_ & 7)):
                again.append((place, digest))
                continue
            seen[id_ >> 3] |= 1 << (id_ & 7)
            self.met += 1
            if (before != digest or pending) and key[:1] != NO_KEY:
                changed.append((digest, id_))
                differing.append((id_, place, row, False))
        self._place = place
        self._snapshot.add_pending(added)
        self._snapshot.mark_pending(changed)
        for where, digest in again:
            self._refuse(where, NO_KEY + digest)
        return differing

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, Line]:
        """What the snapshot knows of these keys, and perhaps of others.

        A table comes mostly in the order in which it came before, which is that of the ids: so the next
        lines are read in one go, and only what is not among them is searched.
        """
        if self._followed >= self._highest:
            return self._snapshot.find(keys)
        known = self._snapshot.after(self._followed, len(keys))
        missing = [key for key in keys if key not in known]
        if len(missing) == len(keys):
            self._followed = self._highest  # another order: from now on everything is searched
        else:
            self._followed = max(known[key][0] for key in keys if key in known)
        known.update(self._snapshot.find(missing))
        return known

    def _refuse(self, place: int, key: bytes) -> None:
        """Note a row that has no key of its own, and report it unless that was done before."""
        line = self._snapshot.find([key]).get(key)
        if line is None:
            self._snapshot.add_rejected([(self._next_id, key, b"")])
            self._next_id += 1
            self.refused[place] = ContractViolationError(
                "no key that the contract allows, or the key of another row of the table"
            )
        elif line[0] <= self._highest and not self.seen[line[0] >> 3] & (1 << (line[0] & 7)):
            self.seen[line[0] >> 3] |= 1 << (line[0] & 7)
            self.met += 1


@dataclass(frozen=True, slots=True)
class _KeyPart:
    """One field of the key. In the snapshot a key is the JSON list of its fields in the contract's form."""

    index: int
    """Where it stands in a row."""

    exact: type | None
    """Values of this class have the contract's form already."""

    convert: Callable[[object], object]
    check: Check
    restore: Callable[[object], object]
    """From JSON back to the contract's form."""

    @classmethod
    def of(cls, contract: DataContract, name: str) -> _KeyPart:
        avro_type = contract.field(name).avro_type
        exact, convert = compile_conversion(avro_type) or Conversion(None, _same)
        kind = avro_type.get("type") if isinstance(avro_type, dict) else avro_type
        return cls(
            index=contract.names.index(name),
            exact=exact,
            convert=convert,
            check=compile_check(avro_type),
            restore=_from_hex if kind == "bytes" else convert,
        )


class _Layout:
    """How a row of the table becomes a key, a digest and a change."""

    def __init__(self, contract: DataContract, table: TableConfig) -> None:
        self._names = contract.names
        self._key_names = contract.key
        self._key_parts = [_KeyPart.of(contract, name) for name in contract.key]
        self._conversions: list[tuple[str, type | None, Callable[[object], object]]] = [
            (field.name, *conversion)
            for field in contract.fields
            if (conversion := compile_conversion(field.avro_type)) is not None
        ]
        columns = [table.columns.get(name, name) for name in contract.names]
        for extra in (table.changed_at, table.column):
            if extra is not None and extra not in columns:
                columns.append(extra)
        self.columns = columns
        self._changed_at = columns.index(table.changed_at) if table.changed_at else None
        self.monotonic_index = columns.index(table.column) if table.column else None
        # Columns without a type: the driver's own values, converted here and nowhere else.
        wanted: list[sqlalchemy.ColumnElement[Any]] = [sqlalchemy.column(name) for name in columns]
        self.statement: sqlalchemy.Select[*tuple[Any, ...]] = sqlalchemy.select(*wanted).select_from(
            sqlalchemy.table(table.table, schema=table.schema)
        )
        self.monotonic: sqlalchemy.ColumnElement[Any] = sqlalchemy.column(table.column or columns[0])

    def identify(self, rows: Sequence[tuple[Any, ...]]) -> tuple[list[bytes], list[bytes]]:
        """The key and the digest of each row."""
        width = len(self._names)
        digests = [_digest(row[:width]) for row in rows]
        # Nearly always every key already has the form that the contract gives it.
        if all({type(row[part.index]) for row in rows} <= {part.exact} for part in self._key_parts):
            indexes = [part.index for part in self._key_parts]
            try:
                if len(indexes) == 1:
                    index = indexes[0]
                    return [orjson.dumps((row[index],), _hex) for row in rows], digests
                return [orjson.dumps([row[index] for index in indexes], _hex) for row in rows], digests
            except TypeError:  # text with surrogates, a whole number beyond 64 bits
                pass
        return [self._key(row) or NO_KEY + digest for row, digest in zip(rows, digests, strict=True)], digests

    def _key(self, row: tuple[Any, ...]) -> bytes | None:
        """The key in the contract's form, or None when the row has none that the contract allows."""
        values = []
        for part in self._key_parts:
            value = part.convert(row[part.index])
            if not part.check(value):
                return None
            values.append(value)
        return orjson.dumps(values, _hex)

    def change(self, row: tuple[Any, ...]) -> Change:
        """The change that puts this row on the bus."""
        values = dict(zip(self._names, row, strict=False))
        for name, exact, convert in self._conversions:
            value = values[name]
            if value is not None and type(value) is not exact:
                values[name] = convert(value)
        changed_at = None
        if self._changed_at is not None:
            moment = to_instant(row[self._changed_at])
            changed_at = moment if isinstance(moment, datetime) else None
        return Change(key={name: values[name] for name in self._key_names}, row=values, changed_at=changed_at)

    def delete(self, key: bytes) -> Change:
        """The change that takes the row of this key off the bus."""
        values = orjson.loads(key)
        return Change(
            key={
                name: part.restore(value)
                for name, part, value in zip(self._key_names, self._key_parts, values, strict=True)
            },
            row=None,
        )


def _digest(row: tuple[Any, ...]) -> bytes:
    try:
        # Version 2: later ones depend on which objects happen to be shared.
        content = marshal.dumps(row, 2)
    except ValueError:  # date-times, Decimals and other types that only some drivers return
        content = repr(row).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest()


def _same(value: object) -> object:
    return value


def _from_hex(value: object) -> object:
    return bytes.fromhex(value) if isinstance(value, str) else value


def _hex(value: object) -> str:
    """The JSON form of bytes, the one type of a key that JSON has not."""
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError


def _back(highest: Any, overlap: float | None, now: datetime) -> Any:
    """``highest`` less the overlap, in the form that the column has.

    A time is first brought back to now (a time without zone to the latest now that any zone has): one
    row with a date far ahead must not keep polls from everything that is changed until then.
    """
    seconds = timedelta(seconds=_OVERLAP_SECONDS if overlap is None else overlap)
    if isinstance(highest, bool):
        raise TypeError
    if isinstance(highest, int):
        return highest - math.ceil(_OVERLAP_STEPS if overlap is None else overlap)
    if isinstance(highest, Decimal):
        return highest - Decimal(_OVERLAP_STEPS if overlap is None else overlap)
    if isinstance(highest, float):
        return highest - (_OVERLAP_STEPS if overlap is None else overlap)
    if isinstance(highest, datetime):
        latest = now if highest.tzinfo is not None else now.replace(tzinfo=None) + _MOST_AHEAD
        return min(highest, latest) - seconds
    if isinstance(highest, date):
        return min(highest, (now + _MOST_AHEAD).date()) - timedelta(
            days=math.ceil(seconds / timedelta(days=1))
        )
    if isinstance(highest, str):
        return _back_in_text(highest, seconds, now)
    raise TypeError


def _back_in_text(highest: str, seconds: timedelta, now: datetime) -> str:
    """The same for ISO 8601 text, whose order is that of its characters: a prefix comes first."""
    if len(highest) == len("2020-01-01"):
        return str(_back(date.fromisoformat(highest), seconds.total_seconds(), now).isoformat())
    if highest[10] not in "T ":
        raise ValueError
    moment = datetime.fromisoformat(highest).replace(tzinfo=None)
    start: datetime = _back(moment, seconds.total_seconds(), now)
    return start.replace(microsecond=0).isoformat(sep=highest[10])


def _text_or_surrogates(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _explained(error: DBAPIError, table: TableConfig) -> BusError:
    """What the capture does next, from the database's code: its text may quote a row."""
    original = error.orig
    state = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)
    detail = f"table {table.table}: {state or type(original).__name__}"
    if isinstance(state, str) and (state.startswith("28") or state == "42501"):
        return AccessDeniedError(f"the source refuses this user, {detail}")
    return SourceUnavailableError(f"the source cannot be read, {detail}")
