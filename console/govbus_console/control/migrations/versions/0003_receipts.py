"""What departments answer when a grant has ended, and the keys that they sign with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of :mod:`govbus_console.control.receipts`."""
    op.create_table(
        "receipt_sources",
        sa.Column("department", sa.String(80), sa.ForeignKey("departments.name"), primary_key=True),
        sa.Column("public_key", sa.String(64), nullable=True),
        sa.Column("pinned_at", sa.DateTime(), nullable=True),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "receipts",
        sa.Column("grant_id", sa.String(80), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("department", sa.String(80), sa.ForeignKey("departments.name"), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("duty", sa.String(10), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("rows_before", sa.BigInteger(), nullable=False),
        sa.Column("rows_after", sa.BigInteger(), nullable=False),
        sa.Column("rows_blanked", sa.BigInteger(), nullable=False),
        sa.Column("digest_before", sa.Text(), nullable=False),
        sa.Column("digest_after", sa.Text(), nullable=False),
        sa.Column("carried_out_at", sa.DateTime(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("public_key", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(128), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["grant_id", "version"], ["grants.id", "grants.version"]),
    )


def downgrade() -> None:
    """Remove them. The receipts themselves are still on the departments' topics."""
    op.drop_table("receipts")
    op.drop_table("receipt_sources")
