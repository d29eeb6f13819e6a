"""A request outside its table: what is asked, how it stands, what happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from govbus.errors import GrantRefusedError
from govbus.grant import DataDuty, FieldRule, Grant
from govbus.request import Ground, RequestKind, RequestState
from govbus.rowfilter import parse_filter
from govbus.transform import parse_transform
from govbus_console.control.request_tables import ApprovalRow, RequestRow
from govbus_console.control.store import StoredResource

HOUR = timedelta(hours=1)
_LONGEST_TERM = timedelta(days=36_500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a department asks for."""

    resource: str
    """``owner.resource``"""

    fields: tuple[FieldRule, ...]
    rows: str | None
    """The row filter as SQL text; None asks for every row."""

    purpose: str
    legal_basis: str
    term: timedelta
    """In whole hours, from when the grant is made."""

    data_on_end: DataDuty = DataDuty.DELETE
    quota_records_per_day: int | None = None
    quota_keys_per_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """What is to become different in a grant; what is None stays."""

    fields: tuple[FieldRule, ...] | None = None
    rows: str | None = None
    """SQL text, or the word ``all``."""

    term: timedelta | None = None
    """From when the version is made."""

    data_on_end: DataDuty | None = None
    quota_records_per_day: int | None = None
    """0 takes the bound away."""

    quota_keys_per_day: int | None = None
    """0 takes the bound away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it stands."""

    id: str
    kind: RequestKind
    state: RequestState
    requester: str
    subscriber: str
    ask: Ask
    grant_id: str | None
    grant_version: int | None
    approvals_needed: int
    approved_by: tuple[str, ...]
    ground: Ground | None
    matching: int | None
    """Rows that match, rounded down to a multiple of the count step; None: not counted."""

    counted_at: datetime | None
    made_at: datetime
    submitted_at: datetime | None
    changed_at: datetime
    due_at: datetime | None
    """When whoever has to act next should have."""

    granted_by: str | None
    review: str | None
    """``due`` or ``done``, of an emergency."""

    review_due_at: datetime | None
    reviewed_by: str | None
    upheld: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One line of a request's history."""

    at: datetime
    who: str
    action: str
    before: str
    after: str
    said: str


def read_request(session: Session, row: RequestRow) -> Request:
    """Read one request back."""
    session.flush()
    return Request(
        id=row.id,
        kind=RequestKind(row.kind),
        state=RequestState(row.state),
        requester=row.requester,
        subscriber=row.subscriber,
        ask=Ask(
            resource=f"{row.owner}.{row.resource}",
            fields=tuple(
                FieldRule(name=rule["name"], transform=parse_transform(rule["transform"]))
                for rule in row.fields
            ),
            rows=row.rows,
            purpose=row.purpose,
            legal_basis=row.legal_basis,
            term=timedelta(hours=row.term_hours),
            data_on_end=DataDuty(row.data_on_end),
            quota_records_per_day=row.quota_records_per_day,
            quota_keys_per_day=row.quota_keys_per_day,
        ),
        grant_id=row.grant_id,
        grant_version=row.grant_version,
        approvals_needed=row.approvals_needed,
        approved_by=approvers(session, row),
        ground=None if row.ground is None else Ground(row.ground),
        matching=row.matching,
        counted_at=row.counted_at,
        made_at=row.made_at,
        submitted_at=row.submitted_at,
        changed_at=row.changed_at,
        due_at=row.due_at,
        granted_by=row.granted_by,
        review=row.review,
        review_due_at=row.review_due_at,
        reviewed_by=row.reviewed_by,
        upheld=row.upheld,
    )


def approvers(session: Session, row: RequestRow) -> tuple[str, ...]:
    """Who has approved a request, first one first."""
    approvals = select(ApprovalRow.approver).where(ApprovalRow.request == row.id)
    return tuple(session.scalars(approvals.order_by(ApprovalRow.at, ApprovalRow.approver)))


def amended(old: Grant, change: Amendment, legal_basis: str) -> Ask:
    """What a grant is to become; a term of 0 leaves its end where it is."""

    def bound(new: int | None, before: int | None) -> int | None:
        return before if new is None else new or None

    rows = old.rows if change.rows is None else None if change.rows == "all" else change.rows
    return Ask(
        resource=old.resource_ref,
        fields=old.fields if change.fields is None else change.fields,
        rows=rows,
        purpose=old.purpose,
        legal_basis=legal_basis,
        term=checked_term(change.term) if change.term is not None else timedelta(),
        data_on_end=change.data_on_end or old.data_on_end,
        quota_records_per_day=bound(change.quota_records_per_day, old.quota_records_per_day),
        quota_keys_per_day=bound(change.quota_keys_per_day, old.quota_keys_per_day),
    )


def checked_term(term: timedelta) -> timedelta:
    """Give a term back, or GrantRefusedError for one that no grant can have."""
    if term % HOUR or not HOUR <= term <= _LONGEST_TERM:
        raise GrantRefusedError("a term is whole hours, at least one, at most 36500 days")
    return term


def spelled(fields: Sequence[FieldRule], stored: StoredResource) -> list[dict[str, Any]]:
    """Fields as they are stored: in contract order, a field that the contract lacks last."""
    order = {name: place for place, name in enumerate(stored.contract.names)}
    # A field that the contract lacks stays in, last, for the check to name.
    ordered = sorted(fields, key=lambda rule: order.get(rule.name, len(order)))
    return [{"name": rule.name, "transform": rule.transform.spec()} for rule in ordered]


def normalised(rows: str | None, stored: StoredResource) -> str | None:
    """A row filter in the one form in which it is stored and compared."""
    if rows is None:
        return None
    return parse_filter(rows, {field.name: field.avro_type for field in stored.contract.fields}).text
