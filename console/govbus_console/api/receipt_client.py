"""Receipts from afar. Does I/O."""

from __future__ import annotations

from collections.abc import Sequence

from govbus_console.api.client import Connection, named
from govbus_console.control.shown import Shown


class RemoteReceipts:
    """:class:`~govbus_console.control.interface.Receipts` over the API."""

    def __init__(self, connection: Connection) -> None:
        self._to = connection

    def receipts(self, *, department: str = "") -> Sequence[Shown]:
        """Those that this token may see."""
        found = self._to.all("/v1/receipts", {"department": department})
        # What was not answered has no facts; at hand they are left out as well.
        return [{word: fact for word, fact in each.items() if fact is not None} for each in found]

    def key(self, department: str) -> Shown:
        """The key that is pinned."""
        return self._to.ask("GET", f"/v1/departments/{named(department)}/receipt-key")

    def enrol(self, department: str, public_key: str, *, why: str) -> Shown:
        """Pin a key that came another way."""
        given = {"key": public_key.casefold(), "why": why}
        return self._to.ask("POST", f"/v1/departments/{named(department)}/receipt-key", given)
