"""The control side as one caller may use it: every object is asked for before it is touched.

A desk is made for one request to the API, or for one command in which an account
acts on the store itself: there is one set of rules. It holds what was asked against
:mod:`.access` and hands on what may pass; nothing behind it asks again. What the
caller may not see does not exist for it: it is left out of lists, and by name it is
not found, in the same words as a name that never was.
"""

from __future__ import annotations

from collections.abc import Sequence

from govbus.catalogue import ShareType
from govbus.errors import NotAllowedError, NotFoundError
from govbus.grant import DataDuty
from govbus_console.api.access import Right, may
from govbus_console.control import shown
from govbus_console.control.interface import Control
from govbus_console.control.roles import Account
from govbus_console.control.shown import Shown


class Desk:
    """:class:`~govbus_console.control.interface.Control`, as far as an account may use it."""

    def __init__(self, account: Account, control: Control) -> None:
        self._account = account
        self._control = control

    def departments(self) -> Sequence[Shown]:
        """Everybody on the bus."""
        self._must(Right.SEE_CATALOGUE)
        return self._control.departments()

    def resources(self, *, text: str = "", share_type: str = "") -> Sequence[Shown]:
        """Catalogue entries, as far as the catalogue makes them public."""
        self._must(Right.SEE_CATALOGUE)
        public = [self._public(entry) for entry in self._control.resources(share_type=share_type)]
        # Searched after fields were taken away: what is not shown must not be found by its words either.
        return [entry for entry in public if shown.mentions(entry, text)]

    def resource(self, ref: str) -> Shown:
        """One entry, as far as the catalogue makes it public."""
        self._must(Right.SEE_CATALOGUE)
        return self._public(self._control.resource(ref))

    def grants(
        self, *, owner: str = "", resource: str = "", subscriber: str = "", state: str = ""
    ) -> Sequence[Shown]:
        """Those that the caller may see."""
        found = self._control.grants(owner=owner, resource=resource, subscriber=subscriber, state=state)
        return [grant for grant in found if self._may(Right.SEE_GRANTS, grant)]

    def grant(self, grant_id: str) -> Shown:
        """One that the caller may see."""
        found = self._control.grant(grant_id)
        if not self._may(Right.SEE_GRANTS, found):
            raise NotFoundError("there is no such grant")
        return found

    def grant_history(self, grant_id: str) -> Shown:
        """All of one that the caller may see: its owner and its subscriber see who decided about it."""
        self.grant(grant_id)
        return self._control.grant_history(grant_id)

    def suspend(self, grant_id: str, *, why: str) -> Shown:
        """Stop one that the caller may stop."""
        self._must(Right.STOP_GRANTS, self.grant(grant_id))
        return self._control.suspend(grant_id, why=why)

    def resume(self, grant_id: str, *, why: str) -> Shown:
        """Resume one that the caller may stop."""
        self._must(Right.STOP_GRANTS, self.grant(grant_id))
        return self._control.resume(grant_id, why=why)

    def revoke(
        self, grant_id: str, *, why: str, data: DataDuty | None = None, wait_seconds: float = 0.0
    ) -> Shown:
        """End one that the caller may end."""
        self._must(Right.END_GRANTS, self.grant(grant_id))
        return self._control.revoke(grant_id, why=why, data=data, wait_seconds=wait_seconds)

    def status(self) -> Shown:
        """How the bus is doing."""
        self._must(Right.SEE_BUS)
        return self._control.status()

    def _must(self, right: Right, grant: Shown | None = None) -> None:
        allowed = may(self._account, right) if grant is None else self._may(right, grant)
        if not allowed:
            raise NotAllowedError("your role does not allow this here")

    def _may(self, right: Right, grant: Shown) -> bool:
        owner = str(grant["resource"]).partition(".")[0]
        return may(self._account, right, owner=owner, subscriber=grant["subscriber"])

    def _public(self, entry: Shown) -> Shown:
        """A withheld resource stands in the catalogue; what its fields are is the owner's own affair."""
        if entry["share_type"] != ShareType.WITHHELD:
            return entry
        if may(self._account, Right.SEE_GRANTS, owner=entry["owner"]):
            return entry
        return entry | {"fields": [], "key": []}
