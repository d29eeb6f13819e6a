"""Departments with level, parent, code and contact; catalogue entries and the index to find them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

from govbus.contract import parse_contract
from govbus_console.control.entries import INDEX_POSTGRESQL, INDEX_SQLITE, row_of
from govbus_console.control.words import tsvector

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CATEGORIES = ("category_1", "category_2", "category_3", "category_4")


def upgrade() -> None:
    """Add columns and the table, and an entry for every resource that is there."""
    for name, kind in (
        ("level", sa.String(20)),
        ("parent", sa.String(80)),
        ("credit_code", sa.String(18)),
        ("contact", sa.Text()),
        ("removed_at", sa.DateTime()),
    ):
        op.add_column("departments", sa.Column(name, kind, nullable=True))
    op.add_column("resources", sa.Column("removed_at", sa.DateTime(), nullable=True))
    postgresql = op.get_bind().dialect.name == "postgresql"
    table = op.create_table(
        "catalogue_entries",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("code", sa.String(80), nullable=True),
        *(sa.Column(name, sa.String(200), nullable=True) for name in _CATEGORIES),
        sa.Column("share_type", sa.String(20), nullable=False),
        sa.Column("classification", sa.String(20), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("facts", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("words", TSVECTOR() if postgresql else sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["owner", "name"], ["resources.owner", "resources.name"]),
        sa.UniqueConstraint("owner", "name", name="uq_catalogue_entries_resource"),
    )
    op.create_index("ix_catalogue_entries_owner", "catalogue_entries", ["owner", "id"])
    op.create_index("ix_catalogue_entries_code", "catalogue_entries", ["code"])
    op.create_index("ix_catalogue_entries_category", "catalogue_entries", list(_CATEGORIES))
    op.create_index("ix_catalogue_entries_share_type", "catalogue_entries", ["share_type", "id"])
    op.create_index("ix_catalogue_entries_classification", "catalogue_entries", ["classification", "id"])
    for statement in INDEX_POSTGRESQL if postgresql else INDEX_SQLITE:
        op.execute(statement)
    rows = [_entry(row, postgresql=postgresql) for row in op.get_bind().execute(_THERE)]
    if rows:
        op.bulk_insert(table, rows)


def downgrade() -> None:
    """Remove what was added, unless that would bring back what has been removed.

    Raises:
        RuntimeError: something has been removed; the older tables cannot say so.
    """
    removed = op.get_bind().scalar(
        sa.text(
            "SELECT (SELECT count(*) FROM departments WHERE removed_at IS NOT NULL)"
            " + (SELECT count(*) FROM resources WHERE removed_at IS NOT NULL)"
        )
    )
    if removed:
        raise RuntimeError("departments or resources have been removed, which the older tables cannot say")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE catalogue_words")
    op.drop_table("catalogue_entries")
    op.drop_column("resources", "removed_at")
    for name in ("removed_at", "contact", "credit_code", "parent", "level"):
        op.drop_column("departments", name)


_THERE = sa.text(
    "SELECT r.owner, r.name, r.title, r.share_type, c.avro_schema FROM resources r JOIN contracts c"
    " ON c.owner = r.owner AND c.resource = r.name AND c.version = r.contract_version"
    " ORDER BY r.owner, r.name"
)


def _entry(row: sa.Row[tuple[str, str, str, str, str]], *, postgresql: bool) -> dict[str, object]:
    contract = parse_contract(row.avro_schema, owner=row.owner, resource=row.name)
    facts = {"owner": row.owner, "name": row.name, "title": row.title, "share_type": row.share_type}
    columns = row_of(facts, contract, None)
    words = columns["words"]
    return columns | {"words": tsvector(words) if postgresql else " ".join(words)}
