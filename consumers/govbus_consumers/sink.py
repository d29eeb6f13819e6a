"""Where deliveries come to rest: the contract of a sink, and what every SQL sink does the same way.

**Rows and offsets move together.** Each :meth:`Sink.apply` is one database transaction that holds
the rows, the dead letters and, per partition, the next offset to read. Whatever happens to the
process, both are there or neither, so a delivery lands exactly once. Kafka's own committed offsets
play no part.

**A process that has lost its place cannot write.** Whoever takes a partition *claims* it: the epoch
of its offset row goes up by one. A batch moves the row only from the offset and the epoch that its
writer last saw. One that wakes up too late finds another epoch, and nothing of its batch is kept.
Ending a grant raises the epochs too, so no batch can bring back what a purge took away. Offsets are
compared with what was stored, never computed: transaction markers and compaction leave gaps.

What a sink keeps about itself stands in tables beside the landing tables:

- ``_govbus_tables``: the landing table of each grant, its layout, and the grant version it follows;
- ``_govbus_offsets``: the next offset and the epoch, per grant, topic and partition;
- ``_govbus_dead_letters``: deliveries that could not land, with cause, address and original bytes;
- ``_govbus_purges``: what was done about landed rows when a grant ended, and how many there were;
- ``_govbus_receipts`` and ``_govbus_read_out``: what is answered about that (:mod:`.endings`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from govbus import observe
from govbus.catalogue import ResourceKind
from govbus.errors import ConfigurationError, ContractViolationError, FencedError, SinkUnavailableError
from govbus.grant import DataDuty, GrantState
from govbus.receipt import EMPTY_DIGEST, Receipt, ReceiptKey
from govbus_consumers import endings
from govbus_consumers.digest import RowsDigest, digest_table
from govbus_consumers.tables import (
    RESERVED,
    AddColumn,
    BlankColumn,
    ColumnType,
    DropColumn,
    GrowColumn,
    Kind,
    LandingTable,
    MakeAnew,
    Step,
    ViewField,
    evolve,
    identifier,
    new_table,
    parse_layout,
)

log = logging.getLogger(__name__)

DELETIONS_KEPT = timedelta(days=6)
"""A delivery topic keeps a deletion for seven days; who has not read to its end for longer may miss one."""

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading a partition goes on, and the claim under which it was read."""

    next_offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The original bytes of a delivery."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A delivery that could not land, and why."""

    offset: int
    code: str
    detail: str
    """Never a field value."""

    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionChanges:
    """What a run of deliveries of one partition does to one landing table."""

    table: LandingTable
    partition: int
    position: Position
    """Of the partition before these deliveries: the only state from which they may be written."""

    next_offset: int
    """Of the partition after them."""

    changes: Sequence[tuple[Row, Row | None]]
    """In order: the row's key, and the row as ``table.names`` has it, or None when it is gone."""

    offsets: Sequence[int]
    """Of each change."""

    dead_letters: Sequence[DeadLetter]
    origin: Callable[[int], Origin]
    """Gives the bytes of the delivery at an offset, should the store refuse its row."""

    landed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTable:
    """What a subscription (or a schema ahead of it) asks of the sink."""

    grant: str
    version: int
    topic: str
    kind: ResourceKind
    key_name: str
    """Full name of the key's schema."""

    key: Sequence[ViewField]
    fields: Sequence[ViewField]
    duty: DataDuty
    name: str
    """As suggested."""

    configured_name: str | None = None
    """As the department wants it; must be free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatory:
    """Who answers for what was done about landed rows."""

    department: str
    process: str
    """What the department calls this landing process."""

    key: ReceiptKey = field(repr=False)


class Sink(Protocol):
    """A store in which one department's deliveries land.

    Called by one thread; another process may use the same store at the same time. Every method
    is all or nothing and may block for a few seconds. Each raises:

        SinkUnavailableError: the store cannot be used now; nothing has changed, and the same call
            is made again later.
        AccessDeniedError: the store refuses the credentials.
    """

    converts: Mapping[Kind, Callable[[Any], Any]]
    """What values of a kind (as fastavro has them, never None) become before they are in a row."""

    def open(self) -> None:
        """Make the sink's own tables where they are missing. Called first; again after a failure."""

    def prepare(self, wanted: WantedTable) -> LandingTable:
        """Make or evolve the table of a grant, and return it as it is.

        Called for each subscription version and at each start, so the same call again changes
        nothing. For a version older than what the store has seen, nothing changes either.

        Raises:
            ConfigurationError: the table that the department wants is not free.
        """

    def widen(self, wanted: WantedTable) -> LandingTable:
        """Add the columns of a schema that is ahead of its subscription, and change nothing else."""

    def claim(self, table: LandingTable, partitions: Sequence[int]) -> dict[int, Position]:
        """Take partitions over from whoever had them, and say where reading each goes on.

        Called for newly assigned partitions before anything of them is read. Where one has not been
        read to its end for longer than topics keep deletions, the table is emptied and every
        partition begins again: a row that was deleted meanwhile may have no one left to say so.
        """

    def note_caught_up(self, table: LandingTable, partitions: Sequence[int]) -> None:
        """Take down that partitions have been read to their end just now.

        Called now and then while nothing is left to read.
        """

    def apply(self, batches: Sequence[PartitionChanges]) -> Counter[tuple[str, str]]:
        """Write deliveries and positions, all or none; count what the store refused by grant and code.

        At most one item for each grant and partition. Of several changes of one row the last counts.
        A row that the store refuses becomes a dead letter.

        Raises:
            FencedError: a partition was claimed by another process or its grant has ended; nothing is
                written, and the caller must not write these deliveries again before it claims anew.
        """

    def end(
        self, grant: str, *, version: int, state: GrantState, duty: DataDuty, by: Signatory
    ) -> Receipt | None:
        """Do what the grant says about its landed rows; once for each version, None the second time.

        From then on no delivery read before can be written. What was done is written down in the same
        transaction, and stays :meth:`unanswered` until :meth:`answered` is called.
        """

    def has_ended(self, grant: str, version: int) -> bool:
        """Whether :meth:`end` has been done for this version, by whichever process."""

    def note_read_out(self, grant: str, version: int, partitions: Sequence[int]) -> frozenset[int]:
        """Take down that partitions were read to their end after this version had ended the grant.

        Returns every partition of which that is known, those that other processes read included.
        """

    def unanswered(self) -> Sequence[Receipt]:
        """What was done and not yet answered for."""

    def answered(self, grant: str, version: int) -> None:
        """Take down that the bus has the receipt."""

    def restart(self, table: LandingTable) -> None:
        """Empty a table and read its topic from the beginning: the topic is not the one it was."""

    def close(self) -> None:
        """Let go of the store."""


class RowRefusedError(Exception):
    """The store does not take some row of what was written. Never leaves a sink."""


_metadata = MetaData()
_tables = Table(
    "_govbus_tables",
    _metadata,
    Column("grant_id", Text, primary_key=True),
    Column("table_name", Text, nullable=False, unique=True),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("layout", Text, nullable=False),
    Column("ended", Integer, nullable=False),
)
_offsets = Table(
    "_govbus_offsets",
    _metadata,
    Column("grant_id", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("landed_at", DateTime(timezone=True)),
    Column("caught_up_at", DateTime(timezone=True), nullable=False),
)
_dead_letters = Table(
    "_govbus_dead_letters",
    _metadata,
    Column("grant_id", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("code", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("record_key", LargeBinary),
    Column("record_value", LargeBinary),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("landed_at", DateTime(timezone=True), nullable=False),
)
_purges = Table(
    "_govbus_purges",
    _metadata,
    Column("grant_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("duty", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("rows_before", BigInteger, nullable=False),
    Column("rows_after", BigInteger, nullable=False),
    Column("rows_blanked", BigInteger, nullable=False),
    Column("purged_at", DateTime(timezone=True), nullable=False),
)

_MOVE = (
    update(_offsets)
    .where(
        _offsets.c.grant_id == bindparam("of_grant"),
        _offsets.c.topic == bindparam("of_topic"),
        _offsets.c.partition == bindparam("of_partition"),
        _offsets.c.next_offset == bindparam("seen_offset"),
        _offsets.c.epoch == bindparam("seen_epoch"),
    )
    .values(next_offset=bindparam("to_offset"), landed_at=bindparam("at"))
)
"""Built once: for a batch of a few rows, building it costs more than writing them."""


class SqlSink:
    """What SQL stores have in common; a store adds how it spells types and writes many rows."""

    converts: Mapping[Kind, Callable[[Any], Any]] = {}
    _enforces_types = True
    """Whether a column takes only values of its type, so that the type has to grow with them."""

    _driver_error: type[Exception]
    """The base of the driver's own errors."""

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    # What a store must say.

    def _sql_type(self, column_type: ColumnType) -> str:
        """Spell a column type."""
        raise NotImplementedError

    def _upsert(self, connection: Connection, table: LandingTable, rows: Sequence[Row]) -> None:
        """Insert rows, or replace those that are there; no two of ``rows`` have the same key."""
        raise NotImplementedError

    def _delete(self, connection: Connection, table: LandingTable, keys: Sequence[Row]) -> None:
        """Delete rows by key; a key without a row is no fault."""
        raise NotImplementedError

    def _fault(self, error: Exception) -> Exception:
        """Say what an error of the driver means: a BusError, or RowRefusedError."""
        raise NotImplementedError

    def _lock_layouts(self, connection: Connection) -> None:
        """Let no other process make or change tables before this transaction ends."""

    def _scrub(self, connection: Connection) -> None:
        """Called before data that a subscriber may no longer have is removed: leave no trace of it."""

    def _scrubbed(self) -> None:
        """Called when such a removal is committed, or was at an earlier call."""

    # What every store does.

    def open(self) -> None:
        """Make the sink's own tables where they are missing."""
        with self._transaction() as connection:
            self._lock_layouts(connection)
            _metadata.create_all(connection)
            endings.metadata.create_all(connection)

    def close(self) -> None:
        """Let go of the store."""
        self._engine.dispose()

    def prepare(self, wanted: WantedTable) -> LandingTable:
        """Make or evolve the table of a grant; see :meth:`Sink.prepare`."""
        table, removed = self._prepare(wanted)
        if removed:
            self._scrubbed()
        return table

    def _prepare(self, wanted: WantedTable) -> tuple[LandingTable, bool]:
        """Do what :meth:`prepare` says; return also whether anything was taken from the store."""
        with self._transaction() as connection:
            self._lock_layouts(connection)
            table = self._load(connection, wanted.grant)
            if table is None:
                return self._create(connection, wanted), False
            if table.version > wanted.version:
                return table, False
            if not inspect(connection).has_table(table.name):
                log.warning(
                    "landing table is gone; it is made again and read from the beginning",
                    extra={"stage": "land", "grant": wanted.grant, "table": table.name},
                )
                self._forget(connection, table)
                return self._create(connection, wanted, ended=table.ended), False
            table = self._renamed(connection, table, wanted.configured_name)
            evolved, steps = evolve(
                table,
                version=wanted.version,
                key_name=wanted.key_name,
                key=wanted.key,
                fields=wanted.fields,
                duty=wanted.duty,
            )
            moved = table.topic != wanted.topic
            removed = moved or any(isinstance(step, DropColumn | BlankColumn | MakeAnew) for step in steps)
            if removed:
                self._scrub(connection)
            if moved:
                # Another topic is another set of rows: those that are only in the old one
                # have no one left to delete them.
                self._execute(connection, _empty(table))
                connection.execute(delete(_offsets).where(_offsets.c.grant_id == table.grant))
            evolved = replace(evolved, topic=wanted.topic, state="active")
            return self._save(connection, evolved, steps), removed

    def widen(self, wanted: WantedTable) -> LandingTable:
        """Add columns; see :meth:`Sink.widen`."""
        with self._transaction() as connection:
            self._lock_layouts(connection)
            table = self._load(connection, wanted.grant)
            if table is None:
                raise FencedError("the landing table is not registered any more")
            evolved, steps = evolve(
                table,
                version=wanted.version,
                key_name=wanted.key_name,
                key=wanted.key,
                fields=wanted.fields,
                duty=wanted.duty,
                only_add=True,
            )
            return self._save(connection, evolved, steps)

    def claim(self, table: LandingTable, partitions: Sequence[int]) -> dict[int, Position]:
        """Take partitions over; see :meth:`Sink.claim`."""
        with self._transaction() as connection:
            claimed = {
                partition: self._claim_one(connection, table, partition) for partition in sorted(partitions)
            }
            if table.kind is ResourceKind.STATE and not all(fresh for _, fresh in claimed.values()):
                log.warning(
                    "deletions may have been missed; the table is emptied and landed from the beginning",
                    extra={"stage": "land", "grant": table.grant, "table": table.name},
                )
                self._begin_again(connection, table)
                return {place: Position(0, position.epoch + 1) for place, (position, _) in claimed.items()}
        return {partition: position for partition, (position, _) in claimed.items()}

    def _claim_one(
        self, connection: Connection, table: LandingTable, partition: int
    ) -> tuple[Position, bool]:
        """Claim a partition; return also whether no deletion can have been missed in it."""
        row = connection.execute(
            update(_offsets)
            .where(*_place(table, partition))
            .values(epoch=_offsets.c.epoch + 1)
            .returning(_offsets.c.next_offset, _offsets.c.epoch, _offsets.c.caught_up_at)
        ).one_or_none()
        now = self._clock()
        if row is None:
            connection.execute(
                insert(_offsets).values(
                    grant_id=table.grant,
                    topic=table.topic,
                    partition=partition,
                    next_offset=0,
                    epoch=1,
                    caught_up_at=now,
                )
            )
            return Position(0, 1), True
        # SQLite gives the time back without its zone, which is UTC.
        caught_up_at = row.caught_up_at if row.caught_up_at.tzinfo else row.caught_up_at.replace(tzinfo=UTC)
        fresh = row.next_offset == 0 or now - caught_up_at < DELETIONS_KEPT
        return Position(row.next_offset, row.epoch), fresh

    def note_caught_up(self, table: LandingTable, partitions: Sequence[int]) -> None:
        """Take down that partitions were read to their end; see :meth:`Sink.note_caught_up`."""
        with self._transaction() as connection:
            connection.execute(
                update(_offsets)
                .where(
                    _offsets.c.grant_id == table.grant,
                    _offsets.c.topic == table.topic,
                    _offsets.c.partition.in_(sorted(partitions)),
                )
                .values(caught_up_at=self._clock())
            )

    def apply(self, batches: Sequence[PartitionChanges]) -> Counter[tuple[str, str]]:
        """Write deliveries and positions in one transaction; see :meth:`Sink.apply`."""
        # Every writer takes the offset rows in the same order, or two could wait for each other.
        batches = sorted(batches, key=lambda batch: (batch.table.grant, batch.table.topic, batch.partition))
        try:
            with self._transaction() as connection:
                self._advance(connection, batches)
                self._write_all(connection, batches)
                for batch in batches:
                    self._set_aside(connection, batch, batch.dead_letters)
                return Counter()
        except RowRefusedError:
            return self._apply_carefully(batches)

    def end(
        self, grant: str, *, version: int, state: GrantState, duty: DataDuty, by: Signatory
    ) -> Receipt | None:
        """Do what the grant says about its landed rows; see :meth:`Sink.end`."""
        receipt = self._end(grant, version, state, duty, by)
        if duty is not DataDuty.KEEP:
            self._scrubbed()
        return receipt

    def _end(
        self, grant: str, version: int, state: GrantState, duty: DataDuty, by: Signatory
    ) -> Receipt | None:
        with self._transaction() as connection:
            self._lock_layouts(connection)
            table = self._load(connection, grant)
            if endings.is_written_down(connection, grant, version):
                return None
            if table is not None and (table.version > version or table.ended >= version):
                return None
            now = self._clock()
            receipt = Receipt(
                grant=grant,
                version=version,
                department=by.department,
                state=state,
                duty=duty,
                table="" if table is None else table.name,
                rows_before=0,
                rows_after=0,
                rows_blanked=0,
                digest_before=EMPTY_DIGEST,
                digest_after=EMPTY_DIGEST,
                # What a receipt holds is what can be read back, whatever the store keeps of a moment.
                carried_out_at=now.replace(microsecond=now.microsecond // 1_000 * 1_000),
                process=by.process,
            )
            if table is not None:
                receipt = self._end_table(connection, table, receipt, by.key.digest_key(grant, version))
            endings.write_down(connection, receipt)
            return receipt

    def _end_table(
        self, connection: Connection, table: LandingTable, receipt: Receipt, digest_key: bytes
    ) -> Receipt:
        """Do the duty; return the receipt with what was there before and after."""
        if not inspect(connection).has_table(table.name):
            # The department has dropped it itself: there is nothing, as in an empty table.
            table = replace(table, retired=())
            self._execute(connection, self._create_statement(table))
        self._scrub(connection)
        # First the epochs: this waits for a batch that is being written, and fences the next.
        values: dict[str, Any] = {"epoch": _offsets.c.epoch + 1}
        if receipt.duty is not DataDuty.KEEP:
            # Should the grant come back, its rows are read again from the beginning; what was
            # delivered under versions up to this one is passed over then.
            values["next_offset"] = 0
        connection.execute(update(_offsets).where(_offsets.c.grant_id == table.grant).values(**values))
        before = after = self._digest(connection, table, digest_key)
        blanked = self._purge_rows(connection, table, receipt.duty)
        if receipt.duty is not DataDuty.KEEP:
            after = self._digest(connection, table, digest_key)
        receipt = replace(
            receipt,
            rows_before=before.rows,
            rows_after=after.rows,
            rows_blanked=blanked,
            digest_before=before.hexdigest(),
            digest_after=after.hexdigest(),
        )
        connection.execute(
            insert(_purges).values(
                grant_id=table.grant,
                version=receipt.version,
                state=str(receipt.state),
                duty=str(receipt.duty),
                table_name=table.name,
                rows_before=receipt.rows_before,
                rows_after=receipt.rows_after,
                rows_blanked=receipt.rows_blanked,
                purged_at=receipt.carried_out_at,
            )
        )
        ended = replace(table, version=receipt.version, state=str(receipt.state), ended=receipt.version)
        self._store(connection, ended)
        return receipt

    def has_ended(self, grant: str, version: int) -> bool:
        """Whether the duty has been done; see :meth:`Sink.has_ended`."""
        with self._transaction() as connection:
            return endings.is_written_down(connection, grant, version)

    def note_read_out(self, grant: str, version: int, partitions: Sequence[int]) -> frozenset[int]:
        """Take down what was read to its end; see :meth:`Sink.note_read_out`."""
        with self._transaction() as connection:
            # Two processes may take down the same partition.
            self._lock_layouts(connection)
            return endings.note_read_out(connection, grant, version, partitions)

    def unanswered(self) -> Sequence[Receipt]:
        """List what is not answered for; see :meth:`Sink.unanswered`."""
        with self._transaction() as connection:
            return endings.unanswered(connection)

    def answered(self, grant: str, version: int) -> None:
        """Take down that the bus has the receipt; see :meth:`Sink.answered`."""
        with self._transaction() as connection:
            endings.note_answered(connection, grant, version, at=self._clock())

    def restart(self, table: LandingTable) -> None:
        """Empty a table and begin again; see :meth:`Sink.restart`."""
        with self._transaction() as connection:
            self._begin_again(connection, table)

    def _begin_again(self, connection: Connection, table: LandingTable) -> None:
        connection.execute(
            update(_offsets)
            .where(_offsets.c.grant_id == table.grant)
            .values(epoch=_offsets.c.epoch + 1, next_offset=0, caught_up_at=self._clock())
        )
        self._execute(connection, _empty(table))

    # Writing.

    def _advance(self, connection: Connection, batches: Sequence[PartitionChanges]) -> None:
        """Move the offsets from where the writer last saw them, or raise FencedError."""
        for batch in batches:
            moved = connection.execute(
                _MOVE,
                {
                    "of_grant": batch.table.grant,
                    "of_topic": batch.table.topic,
                    "of_partition": batch.partition,
                    "seen_offset": batch.position.next_offset,
                    "seen_epoch": batch.position.epoch,
                    "to_offset": batch.next_offset,
                    "at": batch.landed_at,
                },
            )
            if moved.rowcount != 1:
                raise FencedError(
                    f"{batch.table.topic}[{batch.partition}] has another writer, or its grant has ended"
                )

    def _write_all(self, connection: Connection, batches: Sequence[PartitionChanges]) -> None:
        changes: dict[str, dict[Row, Row | None]] = {}
        tables: dict[str, LandingTable] = {}
        for batch in batches:
            tables[batch.table.grant] = batch.table
            changes.setdefault(batch.table.grant, {}).update(batch.changes)
        for grant, table in tables.items():
            self._write(connection, table, changes[grant])

    def _write(self, connection: Connection, table: LandingTable, latest: Mapping[Row, Row | None]) -> None:
        rows = [row for row in latest.values() if row is not None]
        if len(rows) < len(latest):
            self._delete(connection, table, [key for key, row in latest.items() if row is None])
        if rows:
            self._upsert(connection, table, rows)

    def _apply_carefully(self, batches: Sequence[PartitionChanges]) -> Counter[tuple[str, str]]:
        """Write again what holds a row that the store refuses, and set that row aside.

        Halving finds it in a few steps; each step is undone by itself. Nothing is merged across
        the refused row, so what lands does not depend on how deliveries fell into batches.
        """
        refused: Counter[tuple[str, str]] = Counter()
        with self._transaction() as connection:
            self._advance(connection, batches)
            for batch in batches:
                letters: list[DeadLetter] = []
                self._write_halves(connection, batch, 0, len(batch.changes), letters)
                self._set_aside(connection, batch, [*batch.dead_letters, *letters])
                refused.update((batch.table.grant, letter.code) for letter in letters)
        return refused

    def _write_halves(
        self,
        connection: Connection,
        batch: PartitionChanges,
        start: int,
        stop: int,
        letters: list[DeadLetter],
    ) -> None:
        if start == stop:
            return
        try:
            with connection.begin_nested(), self._faults_translated():
                self._write(connection, batch.table, dict(batch.changes[start:stop]))
        except RowRefusedError as error:
            if stop - start > 1:
                middle = (start + stop) // 2
                self._write_halves(connection, batch, start, middle, letters)
                self._write_halves(connection, batch, middle, stop, letters)
                return
            offset = batch.offsets[start]
            letters.append(
                DeadLetter(
                    offset=offset,
                    code=ContractViolationError.code,
                    detail=f"the store refuses the row: {error}",
                    origin=batch.origin(offset),
                )
            )

    def _set_aside(
        self, connection: Connection, batch: PartitionChanges, letters: Sequence[DeadLetter]
    ) -> None:
        for letter in letters:
            place = (
                *_place(batch.table, batch.partition, _dead_letters),
                _dead_letters.c.offset == letter.offset,
            )
            # A topic that is read again brings its bad records again.
            connection.execute(delete(_dead_letters).where(*place))
            connection.execute(
                insert(_dead_letters).values(
                    grant_id=batch.table.grant,
                    topic=batch.table.topic,
                    partition=batch.partition,
                    offset=letter.offset,
                    code=letter.code,
                    detail=letter.detail,
                    record_key=letter.origin.key,
                    record_value=letter.origin.value,
                    timestamp_ms=letter.origin.timestamp_ms,
                    landed_at=batch.landed_at,
                )
            )

    def _purge_rows(self, connection: Connection, table: LandingTable, duty: DataDuty) -> int:
        """Delete or blank rows and the bytes in dead letters; return how many rows were blanked."""
        if duty is DataDuty.KEEP:
            return 0
        letters = _dead_letters.c.grant_id == table.grant
        if duty is DataDuty.DELETE:
            self._execute(connection, _empty(table))
            connection.execute(delete(_dead_letters).where(letters))
            return 0
        connection.execute(update(_dead_letters).where(letters).values(record_key=None, record_value=None))
        columns = [column.name for column in (*table.columns, *table.retired)]
        if not columns:
            return 0
        return self._execute(connection, _blank(table.name, columns))

    def _digest(self, connection: Connection, table: LandingTable, key: bytes) -> RowsDigest:
        retired = [column.name for column in table.retired]
        return digest_table(
            connection, table.name, [*table.names, *retired], key, beat=lambda: observe.heartbeat("land")
        )

    # Tables.

    def _create(self, connection: Connection, wanted: WantedTable, *, ended: int = 0) -> LandingTable:
        table = new_table(
            grant=wanted.grant,
            version=wanted.version,
            name=self._free_name(connection, wanted),
            kind=wanted.kind,
            topic=wanted.topic,
            key_name=wanted.key_name,
            key=wanted.key,
            fields=wanted.fields,
        )
        table = replace(table, ended=ended)
        self._execute(connection, self._create_statement(table))
        self._store(connection, table)
        log.info("landing table made", extra={"stage": "land", "grant": table.grant, "table": table.name})
        return table

    def _create_statement(self, table: LandingTable) -> str:
        keys = set(table.primary_key)
        columns = [
            f"{quoted(name)} {self._sql_type(column_type)}{' NOT NULL' if name in keys else ''}"
            for name, column_type in zip(table.names, table.types, strict=True)
        ]
        primary = ", ".join(map(quoted, table.primary_key))
        return f"CREATE TABLE {quoted(table.name)} ({', '.join(columns)}, PRIMARY KEY ({primary}))"

    def _free_name(self, connection: Connection, wanted: WantedTable) -> str:
        ours = {name.casefold() for name in connection.execute(select(_tables.c.table_name)).scalars()}
        inspector = inspect(connection)

        def free(name: str) -> bool:
            return name.casefold() not in ours and not inspector.has_table(name)

        if wanted.configured_name is not None:
            if not free(wanted.configured_name):
                raise ConfigurationError(
                    f"land.yaml: tables.{wanted.grant}: the store has such a table already; give another name"
                )
            return wanted.configured_name
        for name in (wanted.name or wanted.grant, f"{wanted.name}_{wanted.grant}".replace("-", "_")):
            candidate = identifier(name)
            if not candidate.casefold().startswith(("sqlite_", "pg_")) and free(candidate):
                return candidate
        return identifier(f"{RESERVED}{wanted.name}_{wanted.grant}", ours)

    def _renamed(self, connection: Connection, table: LandingTable, name: str | None) -> LandingTable:
        if name is None or name == table.name:
            return table
        if inspect(connection).has_table(name) and name.casefold() != table.name.casefold():
            raise ConfigurationError(
                f"land.yaml: tables.{table.grant}: the store has such a table already; give another name"
            )
        self._execute(connection, f"ALTER TABLE {quoted(table.name)} RENAME TO {quoted(name)}")
        return replace(table, name=name)

    def _save(self, connection: Connection, table: LandingTable, steps: Sequence[Step]) -> LandingTable:
        name = quoted(table.name)
        for step in steps:
            match step:
                case AddColumn(column):
                    spelled = self._sql_type(column.type)
                    self._execute(
                        connection, f"ALTER TABLE {name} ADD COLUMN {quoted(column.name)} {spelled}"
                    )
                case DropColumn(column):
                    self._execute(connection, f"ALTER TABLE {name} DROP COLUMN {quoted(column.name)}")
                case BlankColumn(column):
                    self._execute(connection, _blank(table.name, [column.name]))
                case GrowColumn(column) if self._enforces_types:
                    spelled = self._sql_type(column.type)
                    self._execute(
                        connection, f"ALTER TABLE {name} ALTER COLUMN {quoted(column.name)} TYPE {spelled}"
                    )
                case MakeAnew():
                    self._execute(connection, f"DROP TABLE {name}")
                    self._execute(connection, self._create_statement(table))
        self._store(connection, table)
        if steps:
            log.info(
                "landing table changed",
                extra={"stage": "land", "grant": table.grant, "table": table.name, "count": len(steps)},
            )
        return table

    def _load(self, connection: Connection, grant: str) -> LandingTable | None:
        row = connection.execute(select(_tables).where(_tables.c.grant_id == grant)).mappings().one_or_none()
        return None if row is None else _table_from(row)

    def _store(self, connection: Connection, table: LandingTable) -> None:
        values = {
            "table_name": table.name,
            "version": table.version,
            "state": table.state,
            "kind": str(table.kind),
            "topic": table.topic,
            "layout": table.layout(),
            "ended": table.ended,
        }
        there = connection.execute(update(_tables).where(_tables.c.grant_id == table.grant).values(**values))
        if there.rowcount == 0:
            connection.execute(insert(_tables).values(grant_id=table.grant, **values))

    def _forget(self, connection: Connection, table: LandingTable) -> None:
        connection.execute(delete(_tables).where(_tables.c.grant_id == table.grant))
        connection.execute(delete(_offsets).where(_offsets.c.grant_id == table.grant))

    # Talking to the driver.

    def _execute(self, connection: Connection, statement: str) -> int:
        return connection.exec_driver_sql(statement).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._faults_translated(), self._engine.begin() as connection:
                yield connection
        except SinkUnavailableError:
            # The connection may be the reason; the next transaction gets a new one.
            self._engine.dispose()
            raise

    @contextmanager
    def _faults_translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            # The driver's message may quote a row; only its kind goes on.
            raise self._fault(error.orig if isinstance(error.orig, Exception) else error) from None
        except self._driver_error as error:
            raise self._fault(error) from None
        except SQLAlchemyError as error:
            raise SinkUnavailableError(f"the store: {type(error).__name__}") from None
        except (OverflowError, UnicodeEncodeError) as error:
            raise RowRefusedError(type(error).__name__) from None


def open_sink(url: URL, *, clock: Callable[[], datetime]) -> Sink:
    """Make the sink for a database URL; it connects when it is first used.

    Raises:
        ConfigurationError: landing does not know this kind of store.
    """
    if url.get_backend_name() == "sqlite":
        from govbus_consumers.sqlite import SqliteSink

        return SqliteSink(url, clock=clock)
    if url.get_backend_name() == "postgresql":
        from govbus_consumers.postgresql import PostgresqlSink

        return PostgresqlSink(url, clock=clock)
    raise ConfigurationError("sink: landing knows sqlite and postgresql")


def _place(table: LandingTable, partition: int, where: Table = _offsets) -> tuple[Any, ...]:
    return (
        where.c.grant_id == table.grant,
        where.c.topic == table.topic,
        where.c.partition == partition,
    )


def _table_from(row: RowMapping) -> LandingTable:
    return LandingTable(
        grant=row["grant_id"],
        name=row["table_name"],
        version=row["version"],
        state=row["state"],
        kind=ResourceKind(row["kind"]),
        topic=row["topic"],
        ended=row["ended"],
        **parse_layout(row["layout"]),
    )


def quoted(name: str) -> str:
    """Quote a name as standard SQL has it, so that nothing in it can end it."""
    return '"' + name.replace('"', '""') + '"'


def _empty(table: LandingTable) -> str:
    return f"DELETE FROM {quoted(table.name)}"  # noqa: S608 - quoted


def _blank(table: str, columns: Sequence[str]) -> str:
    blank = ", ".join(f"{quoted(name)} = NULL" for name in columns)
    return f"UPDATE {quoted(table)} SET {blank}"  # noqa: S608 - quoted
