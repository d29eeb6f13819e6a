"""Who may read a shared topic now. Does I/O.

A shared topic is written once for many subscribers, so the exchange cannot end
one grant by not delivering: what ends it is the broker's refusal, which is
checked on every fetch as it arrives (and one that waits ends with its
connection: decision 0014). Exactly those departments may read one that have a grant
in force now which is delivered there, of a resource that is not withheld.

It is judged afresh, from the store and the clock alone, whenever something is
applied or ends, and as time passes by whoever keeps the bus (``govbus up``).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

from govbus.catalogue import ShareType
from govbus.topics import is_shared
from govbus_console.acls import Acl, Kind, shared_acl
from govbus_console.cluster import Cluster
from govbus_console.control.store import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessChange:
    """What was opened and closed."""

    opened: frozenset[Acl]
    closed: frozenset[Acl]


def due(known: Snapshot, *, now: datetime) -> frozenset[Acl]:
    """Permissions on shared topics that should exist at ``now``."""
    return frozenset(
        shared_acl(stored.grant.subscriber, stored.published.delivery_topic)
        for stored in known.grants.values()
        if stored.published.shared
        and stored.grant.in_force(now)
        and known.resources[stored.grant.resource_ref].resource.share_type is not ShareType.WITHHELD
    )


def reconcile(
    cluster: Cluster, known: Snapshot, *, now: datetime, only: AbstractSet[str] | None = None
) -> AccessChange:
    """Open what is due and close what is not, for all departments or ``only`` these."""
    wanted = due(known, now=now)
    departments = known.departments.keys() if only is None else only
    unwanted: set[Acl] = set()
    for department in departments:
        unwanted |= {
            acl
            for acl in cluster.acls(department)
            if acl.kind is Kind.TOPIC and is_shared(acl.name) and acl not in wanted
        }
    return AccessChange(
        closed=cluster.remove_acls(unwanted) if unwanted else frozenset(),
        opened=cluster.ensure_acls(acl for acl in wanted if acl.principal in departments),
    )
