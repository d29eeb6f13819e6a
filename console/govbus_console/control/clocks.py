"""Remind and escalate when somebody has not acted in time. Does I/O.

For each request that waits for somebody, by working days: a reminder to whoever
has to act when few days are left, and when the term is over an escalation, to
them and to the bus's operators. Each is written once into the table of notices,
whoever runs the clocks and however often; a new term is a new occasion.

Nothing is decided by a clock but the end of a grant's term.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from govbus.request import RequestState
from govbus_console.control.request_steps import read_calendar, tell
from govbus_console.control.request_tables import NoticeRow, RequestRow
from govbus_console.control.store import ControlStore
from govbus_console.settings import RequestSettings

_WAITS_FOR = {
    RequestState.SUBMITTED: "steward",
    RequestState.IN_REVIEW: "steward",
    RequestState.NEEDS_INFO: "requester",
    RequestState.APPROVED: "operator",
}
_REVIEW = "review"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """One notice that should exist by now."""

    request: str
    kind: str
    about: str
    role: str
    due_at: datetime


def run_clocks(store: ControlStore, rules: RequestSettings, *, now: datetime) -> int:
    """Write the notices that are due now and not written yet; return how many."""
    with store.reading() as session:
        missing = [due for due in _due(session, rules, now) if not _written(session, due)]
    if not missing:
        # The usual case takes no write lock.
        return 0
    count = 0
    with store.locked() as session:
        for due in _due(session, rules, now):
            row = session.get_one(RequestRow, due.request)
            count += tell(session, row, due.kind, due.about, due.role, due_at=due.due_at, now=now)
    return count


def _due(session: Session, rules: RequestSettings, now: datetime) -> list[_Due]:
    calendar = read_calendar(session, rules)
    rows = session.scalars(
        select(RequestRow).where(
            or_(RequestRow.state.in_([state.value for state in _WAITS_FOR]), RequestRow.review == "due")
        )
    )
    found: list[_Due] = []
    for row in rows:
        role = _WAITS_FOR.get(RequestState(row.state))
        waits = [] if role is None else [(row.state, role, row.due_at)]
        if row.review == "due":
            waits.append((_REVIEW, "steward", row.review_due_at))
        for about, told, due_at in waits:
            if due_at is None:
                continue
            if now >= due_at:
                kind, roles = "escalation", dict.fromkeys((told, "operator"))
            elif calendar.left(now, due_at) <= rules.remind_days:
                kind, roles = "reminder", dict.fromkeys((told,))
            else:
                continue
            found += [_Due(request=row.id, kind=kind, about=about, role=one, due_at=due_at) for one in roles]
    return found


def _written(session: Session, due: _Due) -> bool:
    query = select(NoticeRow.seq).where(
        NoticeRow.request == due.request,
        NoticeRow.kind == due.kind,
        NoticeRow.about == due.about,
        NoticeRow.role == due.role,
        NoticeRow.due_at == due.due_at,
    )
    return session.scalar(query) is not None
