"""Who may act on the bus: accounts, their departments and roles. Does I/O.

An account is one person or program. Whoever may write the control store
directly is trusted to say who acts; the API is told by a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from govbus.errors import NotAllowedError, NotFoundError, RefusedError
from govbus.topics import is_name
from govbus_console.control.request_tables import AccountRow
from govbus_console.control.roles import Account, Role
from govbus_console.control.store import AuditRow, ControlStore, DepartmentRow


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAccount:
    """An account of record."""

    account: Account
    disabled: bool
    made_at: datetime


def add(store: ControlStore, account: Account, *, who: str, why: str, now: datetime) -> None:
    """Make an account.

    Raises:
        RefusedError: the name is taken or is no name, or it has no role.
        NotFoundError: there is no such department.
    """
    if not is_name(account.name):
        raise RefusedError("an account's name is lower-case words joined by hyphens")
    if not account.roles:
        raise RefusedError(f"account {account.name} needs a role: {', '.join(Role)}")
    with store.locked() as session:
        if session.get(AccountRow, account.name) is not None:
            raise RefusedError(f"there is an account {account.name!r} already; names are not used twice")
        if account.department is not None:
            department = session.get(DepartmentRow, account.department)
            if department is None or department.removed_at is not None:
                raise NotFoundError(f"there is no department {account.department!r}")
        session.add(
            AccountRow(
                name=account.name,
                department=account.department,
                disabled=False,
                made_at=now,
                **{role.value: role in account.roles for role in Role},
            )
        )
        after = {"department": account.department, "roles": sorted(account.roles)}
        session.add(
            AuditRow(at=now, who=who, what=f"account {account.name}", before=None, after=after, why=why)
        )


def disable(store: ControlStore, name: str, *, who: str, why: str, now: datetime) -> None:
    """Let an account act no more; what it did stays. NotFoundError when there is none."""
    with store.locked() as session:
        row = session.get(AccountRow, name)
        if row is None:
            raise NotFoundError(f"there is no account {name!r}")
        if row.disabled:
            return
        row.disabled = True
        session.add(
            AuditRow(
                at=now,
                who=who,
                what=f"account {name}",
                before={"disabled": False},
                after={"disabled": True},
                why=why,
            )
        )


def listing(store: ControlStore) -> Sequence[StoredAccount]:
    """All accounts, by name."""
    with store.reading() as session:
        return [stored(row) for row in session.scalars(select(AccountRow).order_by(AccountRow.name))]


def acting(store: ControlStore, name: str) -> Account:
    """The account that acts under a name.

    Raises:
        NotFoundError: there is none.
        NotAllowedError: it is disabled.
    """
    with store.reading() as session:
        row = session.get(AccountRow, name)
        if row is None:
            raise NotFoundError(f"there is no account {name!r}; `govbus account list` shows those there are")
        if row.disabled:
            raise NotAllowedError(f"account {name} is disabled")
        return stored(row).account


def stored(row: AccountRow) -> StoredAccount:
    """Read one account back."""
    return StoredAccount(
        account=Account(
            name=row.name,
            department=row.department,
            roles=frozenset(role for role in Role if getattr(row, role.value)),
        ),
        disabled=row.disabled,
        made_at=row.made_at,
    )
