"""The one place where a request's state changes in the store, with what that causes.

Every change goes through :func:`move`: it looks the step up in the table of
transitions, writes the new state, a line of history, an audit row and the
notices, and starts or stops the clocks. All of it happens in the transaction of
whoever calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from govbus.errors import GrantRefusedError
from govbus.grant import Grant
from govbus.request import (
    FOLLOWS,
    Action,
    Effect,
    Party,
    RequestKind,
    RequestState,
    Transition,
    transition,
    wider,
)
from govbus.workingdays import DayKind, WorkCalendar
from govbus_console.control.request_tables import (
    AccountRow,
    HolidayRow,
    NoticeRow,
    RequestEventRow,
    RequestRow,
)
from govbus_console.control.store import AuditRow, GrantRow, stored_grant

if TYPE_CHECKING:
    from govbus_console.settings import RequestSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """How long each may take, and by which calendar."""

    rules: RequestSettings
    calendar: WorkCalendar


def read_calendar(session: Session, rules: RequestSettings) -> WorkCalendar:
    """The calendar of record, at the office's time."""
    return WorkCalendar(
        exceptions={row.day: DayKind(row.kind) for row in session.scalars(select(HolidayRow))},
        zone=timezone(timedelta(hours=rules.utc_offset_hours)),
    )


def move(
    session: Session,
    row: RequestRow,
    action: Action,
    parties: Iterable[Party],
    *,
    who: str,
    said: str,
    now: datetime,
    clocks: Clocks | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Transition:
    """Make one step of the table.

    Args:
        session: in a write transaction.
        row: the request.
        action: what is done.
        parties: how whoever does it stands to the request.
        who: for history and audit.
        said: a question, an answer, a note or a reason; it stands in the history.
        now: the clock.
        clocks: needed by steps that start one.
        changes: columns that change together with the state, such as the ground of a rejection.

    Raises:
        TransitionRefusedError: the table has no such step, or not for these parties.
    """
    step = transition(RequestState(row.state), action, parties)
    for name, value in (changes or {}).items():
        setattr(row, name, value)
    _set_clocks(row, step, now, clocks)
    row.state = step.after.value
    row.changed_at = now
    note(session, row, action.value, step.before.value, who=who, said=said, now=now)
    _tell(session, row, step, now)
    session.flush()
    return step


def note(
    session: Session, row: RequestRow, action: str, before: str, *, who: str, said: str, now: datetime
) -> None:
    """Write a line of history, and an audit row."""
    session.add(
        RequestEventRow(
            request=row.id, at=now, who=who, action=action, before=before, after=row.state, said=said
        )
    )
    session.add(
        AuditRow(
            at=now,
            who=who,
            what=f"request {row.id}",
            before={"state": before},
            after={"state": row.state, "action": action},
            why=said,
        )
    )


def follow_grant(session: Session, grant: Grant, *, who: str, why: str, now: datetime) -> None:
    """Let the requests that led to a grant follow it into its state.

    Raises:
        GrantRefusedError: the version is wider than what was granted in an emergency, or lasts longer.
    """
    _stay_narrow(session, grant)
    rows = session.scalars(
        select(RequestRow).where(
            RequestRow.grant_id == grant.id,
            RequestRow.state.in_([RequestState.PROVISIONED.value, RequestState.SUSPENDED.value]),
        )
    ).all()
    for row in rows:
        action = FOLLOWS.get((RequestState(row.state), grant.state))
        if action is not None:
            party = Party.CLOCK if action is Action.EXPIRE else Party.BUS
            move(session, row, action, {party}, who=who, said=why, now=now)


def _stay_narrow(session: Session, grant: Grant) -> None:
    """An emergency grant stays as narrow and as short as it was made, whatever path a version comes by."""
    emergency = select(RequestRow.id).where(
        RequestRow.grant_id == grant.id, RequestRow.kind == RequestKind.EMERGENCY.value
    )
    if grant.version > 1 and session.scalar(emergency) is not None:
        made = stored_grant(session.get_one(GrantRow, (grant.id, 1))).grant
        if wider(made, grant):
            raise GrantRefusedError(f"grant {grant.id} was made in an emergency and does not become wider")


def _set_clocks(row: RequestRow, step: Transition, now: datetime, clocks: Clocks | None) -> None:
    if Effect.STOP_CLOCK in step.effects:
        row.due_at = None
    starts = step.effects & {
        Effect.REVIEW_CLOCK,
        Effect.ANSWER_CLOCK,
        Effect.PROVIDE_CLOCK,
        Effect.AFTER_REVIEW,
    }
    if not starts:
        return
    if clocks is None:
        raise ValueError(f"{step.action} starts a clock, so it needs them")
    rules, calendar = clocks.rules, clocks.calendar
    if Effect.REVIEW_CLOCK in starts:
        days = rules.review_days if row.days_left is None else row.days_left
        row.due_at = calendar.due(now, days)
    if Effect.ANSWER_CLOCK in starts:
        # The owner's term stands still while it waits for an answer; a day is left to it in any case.
        row.days_left = max(1, calendar.left(now, row.due_at)) if row.due_at else rules.review_days
        row.due_at = calendar.due(now, rules.answer_days)
    if Effect.PROVIDE_CLOCK in starts:
        row.due_at = calendar.due(now, rules.provide_days)
    if Effect.AFTER_REVIEW in starts:
        row.review = "due"
        row.review_due_at = calendar.due(now, rules.emergency_review_days)


def _tell(session: Session, row: RequestRow, step: Transition, now: datetime) -> None:
    if Effect.TELL_OWNER in step.effects:
        tell(session, row, "changed", step.action.value, "steward", due_at=now, now=now)
    if Effect.TELL_REQUESTER in step.effects:
        tell(session, row, "changed", step.action.value, "requester", due_at=now, now=now)


def tell(
    session: Session, row: RequestRow, kind: str, about: str, role: str, *, due_at: datetime, now: datetime
) -> bool:
    """Queue a notice unless there is one of this kind, about this, for this role and term; say whether."""
    there = session.scalar(
        select(NoticeRow.seq).where(
            NoticeRow.request == row.id,
            NoticeRow.kind == kind,
            NoticeRow.about == about,
            NoticeRow.role == role,
            NoticeRow.due_at == due_at,
        )
    )
    if there is not None:
        return False
    department: str | None = None
    if role == "steward":
        department = row.owner
    elif role == "requester":
        department = session.scalar(select(AccountRow.department).where(AccountRow.name == row.requester))
    session.add(
        NoticeRow(
            request=row.id,
            kind=kind,
            about=about,
            role=role,
            department=department,
            account=row.requester if role == "requester" else None,
            due_at=due_at,
            made_at=now,
        )
    )
    session.flush()
    return True
