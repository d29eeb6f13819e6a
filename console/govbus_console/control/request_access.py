"""How accounts stand to requests, held against the store, and which of both are in use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from govbus.errors import NotAllowedError
from govbus.request import Party, RequestState
from govbus_console.control.request_tables import AccountRow, RequestRow
from govbus_console.control.roles import Account, Role
from govbus_console.control.store import OpenRequest

_OPEN = (RequestState.SUBMITTED, RequestState.IN_REVIEW, RequestState.NEEDS_INFO, RequestState.APPROVED)
"""Not the drafts: nobody but the requester can take one back, so it must not keep others' things in place."""


def held(session: Session, actor: Account) -> Account:
    """Hold an account against the store; whoever is not in it, or is in it as somebody else, may nothing."""
    row = session.get(AccountRow, actor.name)
    if row is None or row.disabled or row.department != actor.department:
        raise NotAllowedError(f"account {actor.name} may not act here, or not for this department")
    return replace(actor, roles=frozenset(role for role in actor.roles if getattr(row, role.value)))


def has_role(account: Account, role: Role, department: str) -> bool:
    """Whether an account has a role, for this department."""
    return role in account.roles and account.department == department


def subscriber_of(account: Account) -> str:
    """For which department an account asks; NotAllowedError when for none."""
    if Role.SUBSCRIBER not in account.roles or account.department is None:
        raise NotAllowedError(f"account {account.name} is no subscriber's, so it cannot ask for a department")
    return account.department


def parties_of(row: RequestRow, account: Account, given: Collection[str]) -> frozenset[Party]:
    """How an account stands to a request."""
    parties = set()
    if account.name == row.requester or has_role(account, Role.SUBSCRIBER, row.subscriber):
        parties.add(Party.REQUESTER)
    if has_role(account, Role.STEWARD, row.owner) and account.name != row.requester:
        parties.add(Party.STEWARD)
        if given and account.name not in given:
            parties.add(Party.SECOND_APPROVER)
    if Role.OPERATOR in account.roles:
        parties.add(Party.OPERATOR)
    return frozenset(parties)


def may_see(row: RequestRow, account: Account) -> bool:
    """A department sees its own requests and those for its resources; operators and auditors see all."""
    if account.roles & {Role.OPERATOR, Role.AUDITOR}:
        return True
    return account.department is not None and account.department in (row.subscriber, row.owner)


def open_requests(session: Session) -> tuple[OpenRequest, ...]:
    """Requests that somebody still has to decide, answer or provide."""
    rows = session.execute(
        select(RequestRow.id, RequestRow.state, RequestRow.subscriber, RequestRow.owner, RequestRow.resource)
        .where(RequestRow.state.in_([state.value for state in _OPEN]))
        .order_by(func.length(RequestRow.id), RequestRow.id)
    )
    return tuple(
        OpenRequest(id=name, state=state, subscriber=subscriber, resource_ref=f"{owner}.{resource}")
        for name, state, subscriber, owner, resource in rows
    )


def active_accounts(session: Session) -> Mapping[str, str]:
    """The departments of the accounts that may act; the bus's own accounts are of none."""
    rows = session.execute(
        select(AccountRow.name, AccountRow.department)
        .where(~AccountRow.disabled, AccountRow.department.is_not(None))
        .order_by(AccountRow.name)
    )
    return {name: str(department) for name, department in rows}
