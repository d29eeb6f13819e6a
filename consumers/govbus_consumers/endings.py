"""What a sink knows of grants that ended: what it owes an answer for, and how far the last rows have come.

Two tables beside those of :mod:`.sink`, written in its transactions:

- ``_govbus_receipts``: the facts of each receipt, from the transaction that dealt with the rows, and
  when the broker had it. What has no such time is sent, and sent again, until it has.
- ``_govbus_read_out``: the partitions of an ended grant that were read to their end after it ended, by
  whichever process reads them. Only when all are may *keep* be carried out: what was delivered before
  the end is still the subscriber's.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from govbus.grant import DataDuty, GrantState
from govbus.receipt import Receipt

metadata = MetaData()
_receipts = Table(
    "_govbus_receipts",
    metadata,
    Column("grant_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("department", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("duty", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("rows_before", BigInteger, nullable=False),
    Column("rows_after", BigInteger, nullable=False),
    Column("rows_blanked", BigInteger, nullable=False),
    Column("digest_before", Text, nullable=False),
    Column("digest_after", Text, nullable=False),
    Column("carried_out_at", DateTime(timezone=True), nullable=False),
    Column("process", Text, nullable=False),
    Column("answered_at", DateTime(timezone=True)),
)
_read_out = Table(
    "_govbus_read_out",
    metadata,
    Column("grant_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("partition", Integer, primary_key=True, autoincrement=False),
)


def write_down(connection: Connection, receipt: Receipt) -> None:
    """Keep the facts of a receipt, in the transaction that made them true."""
    connection.execute(
        insert(_receipts).values(
            grant_id=receipt.grant,
            version=receipt.version,
            department=receipt.department,
            state=receipt.state.value,
            duty=receipt.duty.value,
            table_name=receipt.table,
            rows_before=receipt.rows_before,
            rows_after=receipt.rows_after,
            rows_blanked=receipt.rows_blanked,
            digest_before=receipt.digest_before,
            digest_after=receipt.digest_after,
            carried_out_at=receipt.carried_out_at,
            process=receipt.process,
        )
    )
    connection.execute(delete(_read_out).where(_read_out.c.grant_id == receipt.grant))


def is_written_down(connection: Connection, grant: str, version: int) -> bool:
    """Whether this version's duty has been done."""
    found = select(_receipts.c.version).where(_receipts.c.grant_id == grant, _receipts.c.version == version)
    return connection.execute(found).first() is not None


def unanswered(connection: Connection) -> list[Receipt]:
    """List the receipts that the broker is not known to have, oldest first."""
    rows = connection.execute(
        select(_receipts)
        .where(_receipts.c.answered_at.is_(None))
        .order_by(_receipts.c.carried_out_at, _receipts.c.grant_id)
    ).mappings()
    return [
        Receipt(
            grant=row["grant_id"],
            version=row["version"],
            department=row["department"],
            state=GrantState(row["state"]),
            duty=DataDuty(row["duty"]),
            table=row["table_name"],
            rows_before=row["rows_before"],
            rows_after=row["rows_after"],
            rows_blanked=row["rows_blanked"],
            digest_before=row["digest_before"],
            digest_after=row["digest_after"],
            carried_out_at=_in_utc(row["carried_out_at"]),
            process=row["process"],
        )
        for row in rows
    ]


def note_answered(connection: Connection, grant: str, version: int, *, at: datetime) -> None:
    """Take down that the broker has a receipt."""
    connection.execute(
        update(_receipts)
        .where(_receipts.c.grant_id == grant, _receipts.c.version == version)
        .values(answered_at=at)
    )


def note_read_out(
    connection: Connection, grant: str, version: int, partitions: Iterable[int]
) -> frozenset[int]:
    """Take down partitions that were read to their end after the grant had ended; return all that were."""
    place = (_read_out.c.grant_id == grant, _read_out.c.version == version)
    known = frozenset(connection.execute(select(_read_out.c.partition).where(*place)).scalars())
    new = sorted(set(partitions) - known)
    if new:
        connection.execute(
            insert(_read_out),
            [{"grant_id": grant, "version": version, "partition": partition} for partition in new],
        )
    return known | set(new)


def _in_utc(moment: datetime) -> datetime:
    """Give a moment back the zone that SQLite does not keep."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
