"""Quotas of a grant: records a day and distinct keys a day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both bounds; grants that exist have none."""
    with op.batch_alter_table("grants") as grants:
        grants.add_column(sa.Column("quota_records_per_day", sa.Integer(), nullable=True))
        grants.add_column(sa.Column("quota_keys_per_day", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Forget the bounds."""
    with op.batch_alter_table("grants") as grants:
        grants.drop_column("quota_keys_per_day")
        grants.drop_column("quota_records_per_day")
