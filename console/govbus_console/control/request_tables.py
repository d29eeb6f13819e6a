"""The tables of requests: accounts, requests, approvals, history, holidays, notices.

What must hold whoever writes stands in the database itself, as triggers that
the migration makes (``migrations/versions/0004_requests.py``): an approval is
never the requester's, always a steward's of the owner, and never changed; a
request is approved with as many approvals as it needs; its ask does not change
after it was submitted; its state changes by the table of transitions alone.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Date,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from govbus_console.control.store import Moment, Table


class AccountRow(Table):
    """Somebody who may act. A person's name is not asked for; the account's name stands in the audit."""

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint(
            "department IS NOT NULL OR NOT (steward OR subscriber)", name="ck_accounts_of_a_department"
        ),
    )

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    department: Mapped[str | None] = mapped_column(ForeignKey("departments.name"))
    steward: Mapped[bool]
    subscriber: Mapped[bool]
    operator: Mapped[bool]
    auditor: Mapped[bool]
    disabled: Mapped[bool]
    made_at: Mapped[datetime] = mapped_column(Moment)


class RequestRow(Table):
    """One request: the ask, which stays as it was submitted, and where it stands."""

    __tablename__ = "requests"
    __table_args__ = (
        ForeignKeyConstraint(["owner", "resource"], ["resources.owner", "resources.name"]),
        CheckConstraint("subscriber <> owner", name="ck_requests_not_to_oneself"),
        CheckConstraint("term_hours > 0 OR kind = 'amend'", name="ck_requests_have_an_end"),
        CheckConstraint("approvals_needed BETWEEN 0 AND 2", name="ck_requests_approvals"),
        CheckConstraint(
            "state = 'draft' OR state = 'withdrawn' OR approvals_needed > 0 "
            "OR kind IN ('emergency', 'amend') OR share_type = 'unconditional'",
            name="ck_requests_conditional_needs_approval",
        ),
        CheckConstraint(
            "kind <> 'emergency' OR row_filter IS NOT NULL", name="ck_requests_emergency_is_narrow"
        ),
        CheckConstraint(
            "kind <> 'emergency' OR state IN ('draft', 'withdrawn') OR granted_by IS NOT NULL",
            name="ck_requests_emergency_is_granted",
        ),
        CheckConstraint("granted_by <> requester", name="ck_requests_granted_by_another"),
        CheckConstraint(
            "reviewed_by <> requester AND reviewed_by <> granted_by", name="ck_requests_reviewed_by_another"
        ),
        CheckConstraint(
            "(COALESCE(review, '') = 'done') = (reviewed_by IS NOT NULL)",
            name="ck_requests_review_has_reviewer",
        ),
        CheckConstraint("state <> 'rejected' OR ground IS NOT NULL", name="ck_requests_rejected_on_a_ground"),
        Index("ix_requests_subscriber", "subscriber"),
        Index("ix_requests_resource", "owner", "resource"),
        Index("ix_requests_grant", "grant_id"),
        Index(
            "ux_requests_review_due",
            "subscriber",
            "owner",
            "resource",
            unique=True,
            sqlite_where=text("review = 'due'"),
            postgresql_where=text("review = 'due'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    state: Mapped[str] = mapped_column(String(12))
    requester: Mapped[str] = mapped_column(ForeignKey("accounts.name"))
    subscriber: Mapped[str] = mapped_column(ForeignKey("departments.name"))
    owner: Mapped[str] = mapped_column(String(80))
    resource: Mapped[str] = mapped_column(String(80))
    fields: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """``[{"name", "transform"}]`` in contract order."""

    rows: Mapped[str | None] = mapped_column("row_filter", Text)
    purpose: Mapped[str] = mapped_column(Text)
    legal_basis: Mapped[str] = mapped_column(Text)
    term_hours: Mapped[int]
    """From when the grant version is made; 0, in an amendment: the end stays."""

    data_on_end: Mapped[str] = mapped_column(String(10))
    quota_records_per_day: Mapped[int | None]
    quota_keys_per_day: Mapped[int | None]
    grant_id: Mapped[str | None] = mapped_column(String(80))
    """The grant to amend or renew; of other kinds, the grant that was made."""

    grant_version: Mapped[int | None]
    """To amend or renew: the version that the ask was made against. Afterwards: the version that was made."""

    share_type: Mapped[str] = mapped_column(String(20))
    """Of the resource when it was submitted."""

    approvals_needed: Mapped[int]
    ground: Mapped[str | None] = mapped_column(String(30))
    matching: Mapped[int | None] = mapped_column(BigInteger)
    """Rows that matched when it was counted, rounded down (:mod:`.requests`)."""

    counted_at: Mapped[datetime | None] = mapped_column(Moment)
    made_at: Mapped[datetime] = mapped_column(Moment)
    submitted_at: Mapped[datetime | None] = mapped_column(Moment)
    changed_at: Mapped[datetime] = mapped_column(Moment)
    due_at: Mapped[datetime | None] = mapped_column(Moment)
    """When whoever has to act next should have; None: nobody has to."""

    days_left: Mapped[int | None]
    """Working days that the owner had left when it asked for information."""

    granted_by: Mapped[str | None] = mapped_column(ForeignKey("accounts.name"))
    """Who granted in an emergency."""

    review: Mapped[str | None] = mapped_column(String(4))
    """``due`` or ``done``: the review after an emergency. None: there is none to make."""

    review_due_at: Mapped[datetime | None] = mapped_column(Moment)
    reviewed_by: Mapped[str | None] = mapped_column(ForeignKey("accounts.name"))
    upheld: Mapped[bool | None]


class ApprovalRow(Table):
    """One person's yes. Written once."""

    __tablename__ = "approvals"

    request: Mapped[str] = mapped_column(ForeignKey("requests.id"), primary_key=True)
    approver: Mapped[str] = mapped_column(ForeignKey("accounts.name"), primary_key=True)
    at: Mapped[datetime] = mapped_column(Moment)
    note: Mapped[str] = mapped_column(Text)


class RequestEventRow(Table):
    """One thing that happened to a request. Written once."""

    __tablename__ = "request_events"
    __table_args__ = (Index("ix_request_events_request", "request"),)

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    request: Mapped[str] = mapped_column(ForeignKey("requests.id"))
    at: Mapped[datetime] = mapped_column(Moment)
    who: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(20))
    before: Mapped[str] = mapped_column("state_before", String(12))
    after: Mapped[str] = mapped_column("state_after", String(12))
    said: Mapped[str] = mapped_column(Text)


class HolidayRow(Table):
    """A day that is not what its weekday says."""

    __tablename__ = "holidays"

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    kind: Mapped[str] = mapped_column(String(6))
    name: Mapped[str] = mapped_column(Text)


class NoticeRow(Table):
    """Something that a person has to be told, once; a sender drains it (:mod:`.notices`)."""

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("request", "kind", "about", "role", "due_at", name="ux_notices_once"),
        Index("ix_notices_sent", "sent_at"),
    )

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    request: Mapped[str] = mapped_column(ForeignKey("requests.id"))
    kind: Mapped[str] = mapped_column(String(12))
    """``changed``, ``reminder`` or ``escalation``."""

    about: Mapped[str] = mapped_column(String(20))
    """The request's state, or ``review`` of an emergency."""

    role: Mapped[str] = mapped_column(String(10))
    """To whom: ``requester``, ``steward`` (the owner's) or ``operator``."""

    department: Mapped[str | None] = mapped_column(String(80))
    """Whose; None: the bus's own operators."""

    account: Mapped[str | None] = mapped_column(String(80))
    """One person, where it is for one."""

    due_at: Mapped[datetime] = mapped_column(Moment)
    """Of a reminder or an escalation: the end of the term. Of a change: when it happened."""

    made_at: Mapped[datetime] = mapped_column(Moment)
    sent_at: Mapped[datetime | None] = mapped_column(Moment)
