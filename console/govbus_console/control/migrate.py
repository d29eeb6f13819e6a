"""Bring the control store's tables to another version, without a configuration file. Does I/O."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

HEAD = "0005"
"""The newest revision. Alembic finds it by itself; naming it spares most commands loading Alembic."""


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def is_current(engine: Engine) -> bool:
    """Whether the tables are at :data:`HEAD` already."""
    from sqlalchemy import inspect, text

    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        return list(connection.scalars(text("SELECT version_num FROM alembic_version"))) == [HEAD]


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Go up to ``revision``; nothing happens when the tables are there already."""
    from alembic import command

    with engine.connect() as plain:
        # Two processes may start at once; the second waits for the first and finds nothing to do.
        connection = plain.execution_options(govbus_writes=True)
        with connection.begin():
            command.upgrade(_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Go down to ``revision``; what only later versions can hold is lost."""
    from alembic import command

    with engine.connect() as plain:
        connection = plain.execution_options(govbus_writes=True)
        with connection.begin():
            command.downgrade(_config(connection), revision)
