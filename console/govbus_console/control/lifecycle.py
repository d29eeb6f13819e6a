"""Revoke, suspend, resume and expire grants. Does I/O.

Revoking, in this order:

1. One transaction in the store: the version with state ``revoked``, and what the
   subscriber will be told, held back.
2. The permission on a shared topic goes, where the grant was delivered by one:
   the broker refuses the subscriber's next fetch.
3. The version is published, and the revocation barrier waited for
   (:mod:`.barrier`). From here on nothing more is delivered under the grant.
4. The subscriber is told, so that landing purges, blanks or keeps what it has.

A crash after 1 leaves a revocation that the next command, or ``govbus up``,
carries through; revoking again does so too. Revoked and expired are final.

Suspending is the same without an end: nothing is purged, and the grant can be
resumed. A grant's term ends by the exchange's own clock; recording it as
``expired`` tells the subscriber, past the same barrier, and closes shared topics.

What is left after that, the subscriber's receipt and the delivery topic, is
followed up by :mod:`.endings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from govbus.errors import GrantRefusedError
from govbus.grant import DataDuty, Grant, GrantState
from govbus_console.control import outbox
from govbus_console.control.apply import settle, tell_subscriber
from govbus_console.control.bus import Bus
from govbus_console.control.store import ControlStore, Snapshot, StoredGrant

_ENDED = (GrantState.REVOKED, GrantState.EXPIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A grant after its state has changed, and how the bus was told."""

    grant: Grant
    """The version that counts now."""

    already: bool
    """It was in that state before; what an earlier run had left undone has been finished."""

    settled: outbox.Settled

    @property
    def barrier_seconds(self) -> float:
        """How long it took until nothing more could be delivered; 0 when no barrier was needed."""
        return max((passed.seconds for passed in self.settled.barriers), default=0.0)


def revoke(
    grant_id: str,
    store: ControlStore,
    bus: Bus,
    *,
    who: str,
    why: str,
    data: DataDuty | None = None,
    now: datetime | None = None,
) -> Changed:
    """End a grant for good and return when nothing more is delivered under it.

    Args:
        grant_id: which one.
        store: of record.
        bus: to enforce it on.
        who: for the audit.
        why: for the audit.
        data: what happens to the landed rows, where it differs from what the grant says.
        now: the clock.

    Raises:
        GrantRefusedError: there is no such grant, or it has expired already.
        BrokerUnavailableError, RegistryUnavailableError: revoked on record, not yet enforced; call again.
    """
    return _change(grant_id, GrantState.REVOKED, store, bus, who=who, why=why, data=data, now=now)


def suspend(grant_id: str, store: ControlStore, bus: Bus, *, who: str, why: str) -> Changed:
    """Stop deliveries for the time being; returns and raises as :func:`revoke` does."""
    return _change(grant_id, GrantState.SUSPENDED, store, bus, who=who, why=why)


def resume(grant_id: str, store: ControlStore, bus: Bus, *, who: str, why: str) -> Changed:
    """Let a suspended grant deliver again, from where it stopped."""
    return _change(grant_id, GrantState.ACTIVE, store, bus, who=who, why=why)


def expire_due(store: ControlStore, bus: Bus, *, now: datetime) -> Sequence[str]:
    """Record grants whose term is over, tell their subscribers, and return their ids."""
    over = [stored for stored in store.snapshot().grants.values() if _over(stored, now)]
    if over:
        with store.writing(who="govbus", why="the term is over", now=now) as writing:
            known = writing.snapshot()
            for name in [stored.grant.id for stored in over]:
                stored = known.grants[name]
                if _over(stored, now):
                    ended = _next_version(stored, GrantState.EXPIRED, None, now)
                    place = writing.grant(ended)
                    resource = known.resources[stored.grant.resource_ref]
                    # A worker's clock may be behind this one; past the barrier none delivers any more.
                    tell_subscriber(writing, ended, resource, held_for=place)
        settle(store, bus, now=now)
    return [stored.grant.id for stored in over]


def _over(stored: StoredGrant, now: datetime) -> bool:
    return stored.grant.state not in _ENDED and stored.grant.expires_at <= now


def _change(
    grant_id: str,
    state: GrantState,
    store: ControlStore,
    bus: Bus,
    *,
    who: str,
    why: str,
    data: DataDuty | None = None,
    now: datetime | None = None,
) -> Changed:
    moment = now or datetime.now(UTC)
    already = True
    with store.writing(who=who, why=why, now=moment) as writing:
        known = writing.snapshot()
        stored = _find(known, grant_id)
        if stored.grant.state is not state:
            already = False
            _check(stored.grant, state)
            stored = _next_version(stored, state, data, moment)
            place = writing.grant(stored)
            tell_subscriber(
                writing,
                stored,
                known.resources[stored.grant.resource_ref],
                # Resuming needs no barrier: nothing is taken away.
                held_for=None if state is GrantState.ACTIVE else place,
            )
    # A revocation must not wait until the access of every department has been looked at.
    concerned = {stored.grant.subscriber} if stored.published.shared else frozenset[str]()
    settled = settle(store, bus, now=moment, departments=concerned)
    return Changed(grant=stored.grant, already=already, settled=settled)


def _find(known: Snapshot, grant_id: str) -> StoredGrant:
    stored = known.grants.get(grant_id)
    if stored is None:
        raise GrantRefusedError(f"there is no grant {grant_id!r}; govbus status lists those that there are")
    return stored


def _check(grant: Grant, state: GrantState) -> None:
    if grant.state in _ENDED:
        raise GrantRefusedError(
            f"grant {grant.id} is {grant.state} and stays so; to grant it anew, give it another id"
        )
    if state is GrantState.ACTIVE and grant.state is not GrantState.SUSPENDED:
        raise GrantRefusedError(f"grant {grant.id} is not suspended")


def _next_version(
    stored: StoredGrant, state: GrantState, data: DataDuty | None, now: datetime
) -> StoredGrant:
    grant = replace(
        stored.grant,
        version=stored.grant.version + 1,
        state=state,
        data_on_end=data or stored.grant.data_on_end,
    )
    return replace(stored, published=replace(stored.published, grant=grant), made_at=now)
