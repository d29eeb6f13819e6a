"""Receipts, as far as a caller may see them.

1. What was answered for an ended grant is seen by those who may see the grant.
2. A department's key is seen by the department, by operators and by auditors; to others it
   does not exist. It is no secret: the answer would say whether the department has had to
   purge anything yet.
3. Pinning one is an operator's act: it decides whose word counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from govbus.errors import NotAllowedError, NotFoundError
from govbus_console.api.access import Right, may
from govbus_console.control.interface import Receipts
from govbus_console.control.roles import Account
from govbus_console.control.shown import Shown


class ReceiptDesk:
    """:class:`~govbus_console.control.interface.Receipts`, as far as an account may use it."""

    def __init__(self, account: Account, receipts: Receipts) -> None:
        self._account = account
        self._receipts = receipts

    def receipts(self, *, department: str = "") -> Sequence[Shown]:
        """Ended grants that the caller may see, with what was answered for them."""
        return [each for each in self._receipts.receipts(department=department) if self._may_see(each)]

    def key(self, department: str) -> Shown:
        """The key that is pinned for a department."""
        if not may(self._account, Right.SEE_GRANTS, subscriber=department):
            raise NotFoundError("there is no such key")
        return self._receipts.key(department)

    def enrol(self, department: str, public_key: str, *, why: str) -> Shown:
        """Pin another."""
        if not may(self._account, Right.ENROL_KEYS):
            raise NotAllowedError("your role does not allow this here")
        return self._receipts.enrol(department, public_key, why=why)

    def _may_see(self, each: Shown) -> bool:
        owner = each["resource"].partition(".")[0]
        return may(self._account, Right.SEE_GRANTS, owner=owner, subscriber=each["department"])
