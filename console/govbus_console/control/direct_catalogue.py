"""Planning and applying with the store and the broker at hand. Does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from govbus.errors import BusError
from govbus_console.control import shown_plan
from govbus_console.control.apply import apply_stated, licensed_plan
from govbus_console.control.direct import Clock, OpenBus, OpenStore, now_utc
from govbus_console.control.licence import Licence
from govbus_console.control.plan import Plan
from govbus_console.control.rowcount import Counting, RowChange
from govbus_console.control.saved_plan import Basis
from govbus_console.control.shown import Shown
from govbus_console.control.statement import Statement
from govbus_console.control.store import StoredResource


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectCatalogue:
    """:class:`~govbus_console.control.interface.Catalogue` over store and broker."""

    store: OpenStore
    bus: OpenBus
    """For planning opened only to count rows, and not needed: without it no number is known."""

    who: str
    """For the audit."""

    licence: Licence | None = None
    """What may be stated and changed; None: everything."""

    clock: Clock = now_utc

    def plan(self, stated: Statement, *, count_seconds: int) -> tuple[Shown, Basis]:
        """What applying would change."""
        catalogue = stated.read()
        with self.store() as store:
            known = store.snapshot()
        made = licensed_plan(catalogue, known, now=self.clock(), licence=self.licence)
        rows = self._count(made, known.resources, count_seconds)
        return shown_plan.plan(made, rows), Basis.of(catalogue, known)

    def apply(self, stated: Statement, *, basis: Basis | None, why: str, count_seconds: int) -> Shown:
        """Do it."""
        catalogue = stated.read()
        with self.bus() as bus, self.store() as store:
            done = apply_stated(
                catalogue,
                store,
                bus,
                who=self.who,
                why=why,
                now=self.clock(),
                saved=basis,
                licence=self.licence,
            )
            known = store.snapshot()
        resources = {**known.removed_resources, **known.resources}
        rows = self._count(done.plan, resources, count_seconds)
        return shown_plan.plan(done.plan, rows) | {"published": done.published}

    def _count(
        self, made: Plan, resources: Mapping[str, StoredResource], seconds: int
    ) -> Mapping[str, RowChange]:
        if not made.impacts or not seconds:
            return {}
        try:
            with self.bus() as bus:
                return Counting(bus.broker, bus.registry, seconds=seconds).changes(made.impacts, resources)
        except BusError:
            return {}
