"""Receipts with the store and the broker at hand. Does I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from govbus.errors import NotFoundError
from govbus_console.control import endings, receipts, shown
from govbus_console.control.direct import Clock, OpenBus, OpenStore, now_utc
from govbus_console.control.shown import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectReceipts:
    """:class:`~govbus_console.control.interface.Receipts` over store and broker."""

    store: OpenStore
    bus: OpenBus
    who: str
    """For the audit."""

    clock: Clock = now_utc

    def receipts(self, *, department: str = "") -> Sequence[Shown]:
        """Collect what has come, and show what there is."""
        with self.bus() as bus, self.store() as store:
            endings.follow_up(store, bus, now=self.clock())
            found = receipts.standings(store)
        return [shown.receipt(each) for each in found if department in ("", each.department)]

    def key(self, department: str) -> Shown:
        """The key that is pinned."""
        with self.store() as store:
            if department not in store.snapshot().departments:
                raise NotFoundError(f"there is no department {department!r}")
            pinned = receipts.pinned_key(store, department)
        return {"department": department, "pinned": pinned.hex() if pinned else None}

    def enrol(self, department: str, public_key: str, *, why: str) -> Shown:
        """Pin a key that came another way."""
        now = self.clock()
        with self.store() as store:
            receipts.enrol(store, department, public_key, who=self.who, why=why, now=now)
        return self.key(department)
