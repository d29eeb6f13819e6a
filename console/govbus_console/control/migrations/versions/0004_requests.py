"""Accounts, requests, approvals, history, holidays and notices; quotas of a grant.

The triggers hold whoever writes, with whatever program: nobody approves their
own request, approvals are two different people's where two are needed, an ask
does not change after it was submitted, and states change by the table of
transitions alone. SQLite and PostgreSQL have them; a database that has no
triggers written for it is refused rather than left without.

A later revision that copies one of these tables (Alembic does so on SQLite when
a column is dropped or altered) has to make its triggers again.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STEPS = (
    "draft>submitted",
    "draft>approved",
    "draft>withdrawn",
    "submitted>approved",
    "submitted>in_review",
    "submitted>withdrawn",
    "in_review>needs_info",
    "in_review>approved",
    "in_review>rejected",
    "in_review>withdrawn",
    "needs_info>in_review",
    "needs_info>rejected",
    "needs_info>withdrawn",
    "approved>provisioned",
    "approved>rejected",
    "provisioned>suspended",
    "provisioned>revoked",
    "provisioned>expired",
    "suspended>provisioned",
    "suspended>revoked",
    "suspended>expired",
)
"""The changes of state that there are, as govbus.request had them when this revision was written."""

_ASK = (
    "kind",
    "owner",
    "resource",
    "fields",
    "row_filter",
    "purpose",
    "legal_basis",
    "term_hours",
    "data_on_end",
    "quota_records_per_day",
    "quota_keys_per_day",
    "share_type",
    "approvals_needed",
)


def _differs(column: str) -> str:
    """Whether a column changes, null included; as text, because PostgreSQL cannot compare JSON."""
    old, new = f"CAST(OLD.{column} AS TEXT)", f"CAST(NEW.{column} AS TEXT)"
    return f"({old} <> {new} OR ({old} IS NULL) <> ({new} IS NULL))"


_STEWARD_OF_OWNER = "a.department = NEW.owner AND a.steward AND NOT a.disabled"

RULES: tuple[tuple[str, str, str, str], ...] = (
    (
        "approvals",
        "INSERT",
        "EXISTS (SELECT 1 FROM requests r WHERE r.id = NEW.request AND r.requester = NEW.approver)",
        "nobody approves their own request",
    ),
    (
        "approvals",
        "INSERT",
        "NOT EXISTS (SELECT 1 FROM requests r JOIN accounts a ON a.name = NEW.approver "
        "WHERE r.id = NEW.request AND a.department = r.owner AND a.steward AND NOT a.disabled)",
        "an approval is given by a steward of the owner",
    ),
    (
        "approvals",
        "INSERT",
        "NOT EXISTS (SELECT 1 FROM requests r WHERE r.id = NEW.request AND r.state = 'in_review')",
        "only a request in review is approved",
    ),
    ("approvals", "UPDATE", "1 = 1", "an approval is never changed"),
    ("approvals", "DELETE", "1 = 1", "an approval is never taken out"),
    ("request_events", "UPDATE", "1 = 1", "history is never changed"),
    ("request_events", "DELETE", "1 = 1", "history is never taken out"),
    ("requests", "DELETE", "1 = 1", "a request is never taken out"),
    ("requests", "INSERT", "NEW.state <> 'draft'", "a request begins as a draft"),
    (
        "requests",
        "INSERT",
        "NOT EXISTS (SELECT 1 FROM accounts a WHERE a.name = NEW.requester AND NOT a.disabled AND "
        "((a.department = NEW.subscriber AND a.subscriber) "
        "OR (NEW.kind = 'amend' AND a.department = NEW.owner AND a.steward)))",
        "a department asks for itself",
    ),
    (
        "requests",
        "UPDATE",
        f"{_differs('id')} OR {_differs('requester')} OR {_differs('subscriber')}",
        "who asks for whom never changes",
    ),
    (
        "requests",
        "UPDATE",
        "OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN ("
        + ", ".join(f"'{step}'" for step in STEPS)
        + ")",
        "there is no such change of state",
    ),
    (
        "requests",
        "UPDATE",
        "OLD.state <> 'draft' AND (" + " OR ".join(_differs(column) for column in _ASK) + ")",
        "what was submitted never changes",
    ),
    (
        "requests",
        "UPDATE",
        f"OLD.grant_id IS NOT NULL AND {_differs('grant_id')}",
        "a request keeps its grant",
    ),
    (
        "requests",
        "UPDATE",
        "NEW.state = 'approved' AND OLD.state <> 'approved' AND NEW.kind <> 'emergency' AND "
        "(SELECT COUNT(*) FROM approvals p WHERE p.request = NEW.id) < NEW.approvals_needed",
        "too few have approved",
    ),
    (
        "requests",
        "UPDATE",
        "NEW.state NOT IN ('draft', 'withdrawn') AND NEW.kind = 'amend' AND NEW.approvals_needed = 0 "
        "AND NEW.share_type <> 'unconditional' AND NOT EXISTS "
        "(SELECT 1 FROM accounts a WHERE a.name = NEW.requester AND a.department = NEW.owner AND a.steward)",
        "a subscriber's amendment needs an approval",
    ),
    (
        "requests",
        "UPDATE",
        f"NEW.granted_by IS NOT NULL AND {_differs('granted_by')} AND NOT EXISTS "  # noqa: S608  all constants
        "(SELECT 1 FROM accounts a WHERE a.name = NEW.granted_by AND NOT a.disabled "
        "AND (a.operator OR (a.department = NEW.owner AND a.steward)) "
        "AND (a.department IS NULL OR a.department <> NEW.subscriber))",
        "an emergency is granted by an operator or a steward of the owner",
    ),
    (
        "requests",
        "UPDATE",
        "NEW.kind = 'emergency' AND NEW.state NOT IN ('draft', 'withdrawn') AND NEW.review IS NULL",
        "the review after an emergency cannot be left out",
    ),
    (
        "requests",
        "UPDATE",
        "OLD.review = 'done' AND "
        f"({_differs('review')} OR {_differs('reviewed_by')} OR {_differs('upheld')})",
        "a review is never changed",
    ),
    (
        "requests",
        "UPDATE",
        f"NEW.reviewed_by IS NOT NULL AND {_differs('reviewed_by')} AND NOT EXISTS "  # noqa: S608  all constants
        f"(SELECT 1 FROM accounts a WHERE a.name = NEW.reviewed_by AND {_STEWARD_OF_OWNER})",
        "an emergency is reviewed by a steward of the owner",
    ),
)
"""Table, what is tried, when it is refused, and what is said."""


def upgrade() -> None:
    """Make the tables, then what guards them."""
    with op.batch_alter_table("grants") as grants:
        grants.add_column(sa.Column("quota_records_per_day", sa.Integer(), nullable=True))
        grants.add_column(sa.Column("quota_keys_per_day", sa.Integer(), nullable=True))
    _accounts()
    _requests()
    _around_requests()
    for statement in _guards(op.get_bind().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    """Remove tables and guards, then the bounds."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    for table in ("notices", "holidays", "request_events", "approvals", "requests", "accounts"):
        # Its triggers go with a table; PostgreSQL keeps the functions.
        op.drop_table(table)
    if postgresql:
        for number in range(len(RULES)):
            op.execute(f"DROP FUNCTION govbus_guard_{number}()")
    with op.batch_alter_table("grants") as grants:
        grants.drop_column("quota_keys_per_day")
        grants.drop_column("quota_records_per_day")


def _guards(dialect: str) -> Iterator[str]:
    for number, (table, operation, refused_when, said) in enumerate(RULES):
        name, text = f"govbus_guard_{number}", said.replace("'", "''")
        if dialect == "sqlite":
            yield (
                f"CREATE TRIGGER {name} BEFORE {operation} ON {table} WHEN {refused_when} "
                f"BEGIN SELECT RAISE(ABORT, '{text}'); END"
            )
        elif dialect == "postgresql":
            row = "OLD" if operation == "DELETE" else "NEW"
            yield (
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF {refused_when} THEN RAISE EXCEPTION '{text}' USING ERRCODE = 'check_violation'; END IF; "
                f"RETURN {row}; END $$"
            )
            yield (
                f"CREATE TRIGGER {name} BEFORE {operation} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
            )
        else:
            raise NotImplementedError(f"no guards are written for {dialect}; use SQLite or PostgreSQL")


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("department", sa.String(80), sa.ForeignKey("departments.name"), nullable=True),
        sa.Column("steward", sa.Boolean(), nullable=False),
        sa.Column("subscriber", sa.Boolean(), nullable=False),
        sa.Column("operator", sa.Boolean(), nullable=False),
        sa.Column("auditor", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint(
            "department IS NOT NULL OR NOT (steward OR subscriber)", name="ck_accounts_of_a_department"
        ),
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("requester", sa.String(80), sa.ForeignKey("accounts.name"), nullable=False),
        sa.Column("subscriber", sa.String(80), sa.ForeignKey("departments.name"), nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("resource", sa.String(80), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("row_filter", sa.Text(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("legal_basis", sa.Text(), nullable=False),
        sa.Column("term_hours", sa.Integer(), nullable=False),
        sa.Column("data_on_end", sa.String(10), nullable=False),
        sa.Column("quota_records_per_day", sa.Integer(), nullable=True),
        sa.Column("quota_keys_per_day", sa.Integer(), nullable=True),
        sa.Column("grant_id", sa.String(80), nullable=True),
        sa.Column("grant_version", sa.Integer(), nullable=True),
        sa.Column("share_type", sa.String(20), nullable=False),
        sa.Column("approvals_needed", sa.Integer(), nullable=False),
        sa.Column("ground", sa.String(30), nullable=True),
        sa.Column("matching", sa.BigInteger(), nullable=True),
        sa.Column("counted_at", sa.DateTime(), nullable=True),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.Column("submitted_at", sa.DateTime(), nullable=True),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=True),
        sa.Column("days_left", sa.Integer(), nullable=True),
        sa.Column("granted_by", sa.String(80), sa.ForeignKey("accounts.name"), nullable=True),
        sa.Column("review", sa.String(4), nullable=True),
        sa.Column("review_due_at", sa.DateTime(), nullable=True),
        sa.Column("reviewed_by", sa.String(80), sa.ForeignKey("accounts.name"), nullable=True),
        sa.Column("upheld", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(["owner", "resource"], ["resources.owner", "resources.name"]),
        sa.CheckConstraint("subscriber <> owner", name="ck_requests_not_to_oneself"),
        sa.CheckConstraint("term_hours > 0 OR kind = 'amend'", name="ck_requests_have_an_end"),
        sa.CheckConstraint("approvals_needed BETWEEN 0 AND 2", name="ck_requests_approvals"),
        sa.CheckConstraint(
            "state = 'draft' OR state = 'withdrawn' OR approvals_needed > 0 "
            "OR kind IN ('emergency', 'amend') OR share_type = 'unconditional'",
            name="ck_requests_conditional_needs_approval",
        ),
        sa.CheckConstraint(
            "kind <> 'emergency' OR row_filter IS NOT NULL", name="ck_requests_emergency_is_narrow"
        ),
        sa.CheckConstraint(
            "kind <> 'emergency' OR state IN ('draft', 'withdrawn') OR granted_by IS NOT NULL",
            name="ck_requests_emergency_is_granted",
        ),
        sa.CheckConstraint("granted_by <> requester", name="ck_requests_granted_by_another"),
        sa.CheckConstraint(
            "reviewed_by <> requester AND reviewed_by <> granted_by", name="ck_requests_reviewed_by_another"
        ),
        sa.CheckConstraint(
            "(COALESCE(review, '') = 'done') = (reviewed_by IS NOT NULL)",
            name="ck_requests_review_has_reviewer",
        ),
        sa.CheckConstraint(
            "state <> 'rejected' OR ground IS NOT NULL", name="ck_requests_rejected_on_a_ground"
        ),
    )
    op.create_index("ix_requests_subscriber", "requests", ["subscriber"])
    op.create_index("ix_requests_resource", "requests", ["owner", "resource"])
    op.create_index("ix_requests_grant", "requests", ["grant_id"])
    op.create_index(
        "ux_requests_review_due",
        "requests",
        ["subscriber", "owner", "resource"],
        unique=True,
        sqlite_where=sa.text("review = 'due'"),
        postgresql_where=sa.text("review = 'due'"),
    )


def _around_requests() -> None:
    op.create_table(
        "approvals",
        sa.Column("request", sa.String(20), sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("approver", sa.String(80), sa.ForeignKey("accounts.name"), primary_key=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
    )
    op.create_table(
        "request_events",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("request", sa.String(20), sa.ForeignKey("requests.id"), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("state_before", sa.String(12), nullable=False),
        sa.Column("state_after", sa.String(12), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
    )
    op.create_index("ix_request_events_request", "request_events", ["request"])
    op.create_table(
        "holidays",
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("kind", sa.String(6), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
    )
    op.create_table(
        "notices",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("request", sa.String(20), sa.ForeignKey("requests.id"), nullable=False),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("about", sa.String(20), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("department", sa.String(80), nullable=True),
        sa.Column("account", sa.String(80), nullable=True),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.Column("sent_at", sa.DateTime(), nullable=True),
        sa.UniqueConstraint("request", "kind", "about", "role", "due_at", name="ux_notices_once"),
    )
    op.create_index("ix_notices_sent", "notices", ["sent_at"])
