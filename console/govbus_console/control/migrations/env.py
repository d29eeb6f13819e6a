"""What Alembic runs: migrations go over the connection that :mod:`govbus_console.control.migrate` holds."""

from __future__ import annotations

from alembic import context

from govbus_console.control.store import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    # SQLite can hardly alter a table; Alembic then copies it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
