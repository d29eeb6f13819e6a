"""Tokens of the control API: made, checked, listed, revoked. Does I/O.

1. A token is 256 random bits. It is shown once, when it is made; the store keeps
   its SHA-256 and cannot give it back.
2. A plain hash is right here. Slow hashes (argon2, scrypt) make guessing a
   *password* dear, because people choose from few; nobody guesses 256 random
   bits at any speed, and a slow hash on every request would be a way to make the
   server busy.
3. A token has an end and can be revoked before it; from that moment it is as
   unknown as one that never was, because every request asks the store.
4. A token stands for an account, and may be used for what the account may do at
   that moment: a role that is taken away is gone from all its tokens, and the
   tokens of an account that is disabled open nothing.
5. Making and revoking leave an audit row, which names the token by its id.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from govbus.errors import NotFoundError, RefusedError
from govbus_console.control.accounts import stored
from govbus_console.control.request_tables import AccountRow
from govbus_console.control.roles import Account
from govbus_console.control.store import AuditRow, ControlStore
from govbus_console.control.token_tables import TokenRow

PREFIX = "govbus_"
"""Begins every token, so that scanners for secrets in repositories and logs can know one."""

LONGEST_TERM = timedelta(days=366)
_RANDOM_BYTES = 32
_ID_BYTES = 6
_TOKENS = select(TokenRow, AccountRow).join(AccountRow, AccountRow.name == TokenRow.account)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What the store knows of a token: everything but the token."""

    id: str
    account: Account
    made_at: datetime
    expires_at: datetime
    revoked_at: datetime | None

    def valid(self, now: datetime) -> bool:
        """Whether it opens anything at ``now``."""
        return self.revoked_at is None and now < self.expires_at

    def as_json(self) -> dict[str, Any]:
        """The form that the command line and the API show."""
        return {
            "id": self.id,
            "account": self.account.name,
            "department": self.account.department,
            "roles": sorted(role.value for role in self.account.roles),
            "made_at": self.made_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "revoked_at": None if self.revoked_at is None else self.revoked_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token that was just made: the one moment at which it can be read."""

    token: Token
    secret: str

    def __repr__(self) -> str:
        return f"Issued(token={self.token!r}, secret=…)"


def new_token(
    store: ControlStore, account: str, *, term: timedelta, who: str, why: str, now: datetime
) -> Issued:
    """Make a token for an account and return it, this once.

    Raises:
        NotFoundError: there is no such account.
        RefusedError: the account is disabled, or the term is none or too long.
    """
    if not timedelta() < term <= LONGEST_TERM:
        raise RefusedError(f"a token lasts from one to {LONGEST_TERM.days} days")
    secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    row = TokenRow(
        id=secrets.token_hex(_ID_BYTES),
        digest=digest_of(secret),
        account=account,
        made_at=now,
        expires_at=now + term,
    )
    with store.locked() as session:
        holder = session.get(AccountRow, account)
        if holder is None:
            raise NotFoundError("there is no such account")
        if holder.disabled:
            raise RefusedError("the account is disabled")
        session.add(row)
        made = _token(row, holder)
        session.add(
            AuditRow(at=now, who=who, what=f"token {row.id}", before=None, after=made.as_json(), why=why)
        )
    return Issued(token=made, secret=secret)


def find_token(store: ControlStore, secret: str, *, now: datetime) -> Token | None:
    """The token that ``secret`` is, if it is one and opens something at ``now``."""
    if not secret.startswith(PREFIX):
        return None
    with store.reading() as session:
        row = session.execute(_TOKENS.where(TokenRow.digest == digest_of(secret))).one_or_none()
        if row is None or row.AccountRow.disabled:
            return None
        found = _token(row.TokenRow, row.AccountRow)
    return found if found.valid(now) else None


def list_tokens(store: ControlStore, *, account: str | None = None) -> Sequence[Token]:
    """All tokens that were ever made, or those of one account, oldest first."""
    wanted = _TOKENS if account is None else _TOKENS.where(TokenRow.account == account)
    with store.reading() as session:
        rows = session.execute(wanted.order_by(TokenRow.made_at, TokenRow.id))
        return [_token(row.TokenRow, row.AccountRow) for row in rows]


def revoke_token(
    store: ControlStore,
    token_id: str,
    *,
    who: str,
    why: str,
    now: datetime,
    account: str | None = None,
) -> Token:
    """End a token at once and return it; revoking it again changes nothing.

    Args:
        store: of record.
        token_id: which one; the token itself is not needed, so that a lost one can be revoked.
        who: for the audit.
        why: for the audit.
        now: the clock.
        account: only a token of this account; None: anybody's.

    Raises:
        NotFoundError: there is no such token, or not of this account.
    """
    with store.locked() as session:
        row = session.get(TokenRow, token_id)
        if row is None or account not in (None, row.account):
            raise NotFoundError("there is no token with this id")
        holder = session.get_one(AccountRow, row.account)
        before = _token(row, holder)
        if row.revoked_at is None:
            row.revoked_at = now
            after = _token(row, holder)
            what = f"token {row.id}"
            session.add(
                AuditRow(at=now, who=who, what=what, before=before.as_json(), after=after.as_json(), why=why)
            )
        return _token(row, holder)


def digest_of(secret: str) -> str:
    """What the store keeps of a token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: TokenRow, holder: AccountRow) -> Token:
    return Token(
        id=row.id,
        account=stored(holder).account,
        made_at=row.made_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
