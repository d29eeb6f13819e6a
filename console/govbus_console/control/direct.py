"""The control side at hand: the store and the broker, as the administrator. Does I/O.

Nothing here asks who may do what. Behind the API, and on the command line where an
account acts, :mod:`govbus_console.api.desk` has asked before; without an account
whoever can open the store may, and the audit says that no account acted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

from govbus.errors import AccessDeniedError, NotFoundError, RetriableError
from govbus.grant import DataDuty
from govbus_console.control import endings, grant_history, held, lifecycle, shown
from govbus_console.control.bus import Bus
from govbus_console.control.shown import Shown
from govbus_console.control.store import ControlStore

OpenStore = Callable[[], AbstractContextManager[ControlStore]]
OpenBus = Callable[[], AbstractContextManager[Bus]]
Clock = Callable[[], datetime]


def now_utc() -> datetime:
    """The clock of whoever has no other."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectControl:
    """:class:`~govbus_console.control.interface.Control` over store and broker."""

    store: OpenStore
    bus: OpenBus
    """Opened only by what changes a grant, so that looking needs no broker."""

    look: Callable[[], Shown]
    """What :meth:`status` answers; it looks at processes, which belong to no store."""

    who: str
    """For the audit."""

    def departments(self) -> Sequence[Shown]:
        """Everybody on the bus."""
        with self.store() as store:
            known = store.snapshot().departments
        return [shown.department(known[name]) for name in sorted(known)]

    def resources(self, *, text: str = "", share_type: str = "") -> Sequence[Shown]:
        """Entries that mention every word of ``text``."""
        with self.store() as store:
            known = store.snapshot().resources
        entries = (
            shown.resource(stored)
            for _, stored in sorted(known.items())
            if not share_type or stored.resource.share_type == share_type
        )
        return [entry for entry in entries if shown.mentions(entry, text)]

    def resource(self, ref: str) -> Shown:
        """One entry."""
        with self.store() as store:
            stored = store.snapshot().resources.get(ref)
        if stored is None:
            raise NotFoundError("there is no such resource")
        return shown.resource(stored)

    def grants(
        self, *, owner: str = "", resource: str = "", subscriber: str = "", state: str = ""
    ) -> Sequence[Shown]:
        """Those that match everything that is given."""
        now = datetime.now(UTC)
        with self.store() as store:
            known = store.snapshot().grants
        return [
            shown.grant(stored, now=now)
            for _, stored in sorted(known.items())
            if (not owner or stored.grant.owner == owner)
            and (not resource or stored.grant.resource_ref == resource)
            and (not subscriber or stored.grant.subscriber == subscriber)
            and (not state or stored.grant.state == state)
        ]

    def grant(self, grant_id: str) -> Shown:
        """One grant."""
        with self.store() as store:
            stored = store.snapshot().grants.get(grant_id)
        if stored is None:
            raise NotFoundError("there is no such grant")
        return shown.grant(stored, now=datetime.now(UTC))

    def grant_history(self, grant_id: str) -> Shown:
        """All of one grant. A bus that is away is no reason to show nothing: what it would say is unknown."""
        with self.store() as store:
            found = grant_history.read(store, grant_id, now=datetime.now(UTC))
        try:
            with self.bus() as bus:
                return found.as_json(held=held.of(found.newest, held.reports(bus)))
        except (RetriableError, AccessDeniedError):
            return found.as_json(held=None)

    def suspend(self, grant_id: str, *, why: str) -> Shown:
        """Stop it for the time being."""
        with self.bus() as bus, self.store() as store:
            return shown.change(lifecycle.suspend(grant_id, store, bus, who=self.who, why=why))

    def resume(self, grant_id: str, *, why: str) -> Shown:
        """Let it deliver again."""
        with self.bus() as bus, self.store() as store:
            return shown.change(lifecycle.resume(grant_id, store, bus, who=self.who, why=why))

    def revoke(
        self, grant_id: str, *, why: str, data: DataDuty | None = None, wait_seconds: float = 0.0
    ) -> Shown:
        """End it for good."""
        with self.bus() as bus, self.store() as store:
            changed = lifecycle.revoke(grant_id, store, bus, who=self.who, why=why, data=data)
            standing = endings.conclude(grant_id, store, bus, wait_seconds=wait_seconds)
            return shown.change(changed, standing)

    def status(self) -> Shown:
        """What ``look`` sees."""
        return self.look()
