"""How an account stands to a request, held against the store."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy.orm import Session

from govbus.errors import NotAllowedError
from govbus.request import Party
from govbus_console.control.request_tables import AccountRow, RequestRow
from govbus_console.control.roles import Account, Role


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
