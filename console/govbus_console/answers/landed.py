"""What a department's own store says of one delivery. Does I/O, in that department's database alone.

Landing keeps its place in the same transaction as the rows, and tells nobody.
So nothing on the bus says whether a delivery has landed, and whoever wants to
know needs the landing configuration of the department, with its login.
Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    Table,
    column,
    create_engine,
    inspect,
    select,
    table,
)
from sqlalchemy.exc import DBAPIError

from govbus.codec import decode_body, unframe
from govbus.deliverytrail import Delivered, LandingFacts
from govbus.errors import ConfigurationError, SinkUnavailableError
from govbus.explanation import GrantVersion
from govbus_consumers.sqlite import SqliteSink
from govbus_consumers.tables import LANDED_AT_COLUMN, OFFSET_COLUMN, PARTITION_COLUMN, parse_layout

if TYPE_CHECKING:
    from govbus.codec import Schema
    from govbus_consumers.config import LandConfig

LandedLookup = Callable[[GrantVersion, Delivered, bytes, "Schema"], LandingFacts]
"""Takes the grant, its delivery, and the delivered key with its schema."""


@contextmanager
def landed_lookup(config: LandConfig, department: str) -> Iterator[LandedLookup]:
    """Open a department's store for reading.

    Raises:
        ConfigurationError: the file is another department's, or landing has never run there.
        SinkUnavailableError: the store does not answer.
    """
    if config.department != department:
        raise ConfigurationError(f"the landing file is that of {config.department}, not of {department}")
    never = "landing has never run on the store that the landing file names"
    if config.sink.get_backend_name() == "sqlite" and not Path(str(config.sink.database)).exists():
        raise ConfigurationError(never)  # to connect would make the file
    engine = create_engine(config.sink)
    try:
        with _named_errors():
            if not inspect(engine).has_table("_govbus_offsets"):
                raise ConfigurationError(never)
            yield lambda granted, delivery, key, schema: _look(engine, granted, delivery, key, schema)
    finally:
        engine.dispose()


def _look(
    engine: Engine, granted: GrantVersion, delivery: Delivered, key: bytes, schema: Schema
) -> LandingFacts:
    with engine.connect() as connection:
        own = MetaData()
        offsets = Table("_govbus_offsets", own, autoload_with=connection)
        letters = Table("_govbus_dead_letters", own, autoload_with=connection)
        purges = Table("_govbus_purges", own, autoload_with=connection)
        grant, at = granted.grant.id, delivery.at
        place = (grant, at.topic, at.partition)
        next_offset = connection.scalar(
            select(offsets.c.next_offset).where(
                offsets.c.grant_id == place[0], offsets.c.topic == place[1], offsets.c.partition == place[2]
            )
        )
        dead = connection.scalar(
            select(letters.c.code).where(
                letters.c.grant_id == place[0],
                letters.c.topic == place[1],
                letters.c.partition == place[2],
                letters.c.offset == at.offset,
            )
        )
        purged = connection.scalar(
            select(purges.c.purged_at).where(purges.c.grant_id == grant).order_by(purges.c.version.desc())
        )
        row = _row(connection, grant, delivery, decode_body(schema, unframe(key)[1]))
    return LandingFacts(
        next_offset=next_offset,
        landed_at=None if row is None else _moment(row[1]),
        row_offset=None if row is None else int(row[0]),
        dead_letter=dead,
        purged_at=_moment(purged),
    )


def _row(
    connection: Connection, grant: str, delivery: Delivered, key: dict[str, Any]
) -> tuple[Any, Any] | None:
    """Return offset and time of the row that stands in the landing table under the delivered key."""
    known = Table("_govbus_tables", MetaData(), autoload_with=connection)
    kept = connection.execute(
        select(known.c.table_name, known.c.layout).where(known.c.grant_id == grant)
    ).one_or_none()
    if kept is None or not inspect(connection).has_table(kept.table_name):
        return None
    layout = parse_layout(kept.layout)
    # Columns without types: values are compared as landing has written them, not as a type would read them.
    same: list[Any] = []
    there = {one["name"] for one in inspect(connection).get_columns(kept.table_name)}
    if PARTITION_COLUMN in there:
        same = [
            column(PARTITION_COLUMN) == delivery.at.partition,
            column(OFFSET_COLUMN) == delivery.at.offset,
        ]
    elif {one.field for one in layout["key"]} != key.keys():
        return None  # the table's key is that of another version of the grant
    else:
        converts = SqliteSink.converts if connection.dialect.name == "sqlite" else {}
        for one in layout["key"]:
            value = key[one.field]
            convert = converts.get(one.type.kind)
            same.append(column(one.name) == (value if convert is None else convert(value)))
    wanted: Any = select(column(OFFSET_COLUMN), column(LANDED_AT_COLUMN)).select_from(table(kept.table_name))
    found = connection.execute(wanted.where(*same)).first()
    return None if found is None else (found[0], found[1])


def _moment(value: Any) -> datetime | None:
    """Read back a moment in UTC, which SQLite keeps as a text without zone."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turn the database's refusal into the bus's; its text may quote a row, so it is left out."""
    try:
        yield
    except DBAPIError:
        raise SinkUnavailableError("the department's store cannot be read now") from None
