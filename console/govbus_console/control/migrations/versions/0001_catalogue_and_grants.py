"""The catalogue, grants, outbox and audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "departments",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("title", sa.Text(), nullable=False),
    )
    op.create_table(
        "resources",
        sa.Column("owner", sa.String(80), sa.ForeignKey("departments.name"), primary_key=True),
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("share_type", sa.String(20), nullable=False),
        sa.Column("synthetic", sa.Boolean(), nullable=False),
        sa.Column("owner_allows", sa.JSON(), nullable=False),
        sa.Column("contract_version", sa.Integer(), nullable=False),
    )
    op.create_table(
        "contracts",
        sa.Column("owner", sa.String(80), primary_key=True),
        sa.Column("resource", sa.String(80), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("avro_schema", sa.Text(), nullable=False),
        sa.Column("value_schema_id", sa.Integer(), nullable=False),
        sa.Column("key_schema_id", sa.Integer(), nullable=False),
        sa.Column("added_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["owner", "resource"], ["resources.owner", "resources.name"]),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("subscriber", sa.String(80), sa.ForeignKey("departments.name"), nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("resource", sa.String(80), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("row_filter", sa.Text(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("data_on_end", sa.String(10), nullable=False),
        sa.Column("contract_version", sa.Integer(), nullable=False),
        sa.Column("view", sa.String(80), nullable=False),
        sa.Column("delivery_topic", sa.String(249), nullable=False),
        sa.Column("value_schema_id", sa.Integer(), nullable=False),
        sa.Column("key_schema_id", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["owner", "resource"], ["resources.owner", "resources.name"]),
    )
    op.create_index("ix_grants_resource", "grants", ["owner", "resource"])
    op.create_index("ix_grants_subscriber", "grants", ["subscriber"])
    op.create_table(
        "outbox",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("topic", sa.String(249), nullable=False),
        sa.Column("record_key", sa.LargeBinary(), nullable=False),
        sa.Column("bus_schema", sa.String(20), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("held_for", sa.Integer(), sa.ForeignKey("outbox.seq"), nullable=True),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.Column("published_at", sa.DateTime(), nullable=True),
        sa.Column("kafka_offset", sa.BigInteger(), nullable=True),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("value_before", sa.JSON(), nullable=True),
        sa.Column("value_after", sa.JSON(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    """Remove all tables, those that refer to others first."""
    for table in ("audit", "outbox", "grants", "contracts", "resources", "departments"):
        op.drop_table(table)
