"""Follow up grants that have ended: collect receipts, remove delivery topics. Does I/O.

A grant has ended when its subscriber has been told so, which is past the barrier:
nothing more is delivered under it. Then its own delivery topic goes:

- at once, where landed rows are to be blanked or deleted. That does not need the
  topic, and what stands on it is the very data that the subscriber may not have;
- where they are to be kept, what was delivered before the end is still the
  subscriber's: when its receipt has come, for landing answers only after it has
  read to the end; or, should it never come, when deletions are not kept any more
  and a reader would have to begin again anyway (:data:`KEPT`).

A topic that several share stays: what stands on it is the same for everyone who is
granted the view, also for the next; the permission to read it has gone.

All of it is judged from the store, the broker and the clock, so it can be cut short
anywhere and done again by whoever comes next: ``govbus revoke``, ``apply``, ``up``.
"""

from __future__ import annotations

import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from govbus import topics
from govbus.grant import DataDuty
from govbus_console.acls import Acl, Kind
from govbus_console.control import receipts
from govbus_console.control.bus import Bus
from govbus_console.control.receipts import Standing
from govbus_console.control.store import AuditRow, ControlStore, OutboxRow

KEPT = timedelta(days=7)
"""How long deliveries under *keep* wait for a subscriber that does not answer: as long as deletions."""

_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedUp:
    """What following up came to."""

    standings: tuple[Standing, ...] = ()
    """Of the grants that were looked at."""

    removed: tuple[str, ...] = ()
    """Delivery topics."""

    concluded: frozenset[str] = field(default=frozenset())
    """Grants of which nothing is left to do."""


def follow_up(
    store: ControlStore,
    bus: Bus,
    *,
    now: datetime,
    only: str | None = None,
    concluded: AbstractSet[str] = frozenset(),
) -> FollowedUp:
    """Collect the receipts that have come and remove the topics that are due; idempotent.

    Args:
        store: of record.
        bus: to look at and change.
        now: the clock.
        only: look at this grant alone.
        concluded: grants to leave out, because nothing was left to do the last time.

    Raises:
        BrokerUnavailableError, RegistryUnavailableError: cut short; follow up again.
    """

    def wanted(standing: Standing) -> bool:
        return standing.grant not in concluded and only in (None, standing.grant)

    open_ones = [standing for standing in receipts.standings(store) if wanted(standing)]
    if not open_ones:
        return FollowedUp()
    waiting = receipts.departments_of(open_ones)
    if waiting and receipts.collect(store, bus, waiting, now=now):
        open_ones = [standing for standing in receipts.standings(store) if wanted(standing)]
    there = bus.cluster.topics().keys()
    untold = _untold(store)
    removed, done = [], []
    for standing in open_ones:
        topic = topics.delivered(standing.department, standing.grant)
        if topic in there:
            if standing.grant in untold or not _due(standing, now):
                continue
            _remove(topic, standing, store, bus, now)
            removed.append(topic)
        if standing.answered:
            done.append(standing.grant)
    return FollowedUp(
        standings=tuple(open_ones), removed=tuple(removed), concluded=frozenset(concluded) | frozenset(done)
    )


def conclude(grant: str, store: ControlStore, bus: Bus, *, wait_seconds: float) -> Standing | None:
    """Follow one ended grant up until its subscriber has answered, but not for longer than ``wait_seconds``.

    None when the grant has not ended. Raises as :func:`follow_up` does.
    """
    until = time.monotonic() + wait_seconds
    while True:
        found = follow_up(store, bus, now=datetime.now(UTC), only=grant).standings
        if not found or found[0].answered or time.monotonic() >= until:
            return found[0] if found else None
        time.sleep(_LOOK_SECONDS)


def _due(standing: Standing, now: datetime) -> bool:
    return standing.duty is not DataDuty.KEEP or standing.answered or now - standing.ended_at >= KEPT


def _untold(store: ControlStore) -> frozenset[str]:
    """Grants of which Kafka, and so perhaps a subscriber, has still to be told something."""
    with store.reading() as session:
        keys = session.scalars(select(OutboxRow.record_key).where(OutboxRow.published_at.is_(None)))
        return frozenset(key.decode().removeprefix("grant/") for key in keys)


def _remove(topic: str, standing: Standing, store: ControlStore, bus: Bus, now: datetime) -> None:
    """Remove a delivery topic and permissions that name it; a group's offsets go with the topic."""
    bus.cluster.delete_topic(topic)
    literal = {acl for acl in bus.cluster.acls(standing.department) if _names(acl, topic)}
    if literal:
        bus.cluster.remove_acls(literal)
    with store.locked() as session:
        session.add(
            AuditRow(
                at=now,
                who="govbus",
                what=f"topic {topic}",
                before={"grant": standing.grant, "version": standing.version},
                after=None,
                why=f"the grant is {standing.state}",
            )
        )


def _names(acl: Acl, topic: str) -> bool:
    return acl.kind is Kind.TOPIC and acl.name == topic and not acl.prefixed
