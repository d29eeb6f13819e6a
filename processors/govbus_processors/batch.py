"""What passes between the intake and the exchange agent: a batch in, an outcome out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from govbus_processors.routes import Policy, Route

Place = tuple[str, int]
"""A topic and a partition of it."""


@dataclass(slots=True, kw_only=True)
class Slice:
    """Consecutive records of one source partition, and the routes that they are exchanged for."""

    place: Place
    start: int
    """The offset that the slice begins at: where its partition stood before."""

    messages: Sequence[Any]
    """Records, in order of offset (:class:`govbus_processors.polling.Inlet`)."""

    routes: tuple[Route, ...]
    refused: tuple[tuple[Route, str], ...] = ()
    """Routes that may not deliver now, each with the reason code."""

    live: bool = True
    """False while a route is brought up to the present: then the record itself was judged before."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """Some slices that are decided under one policy and committed in one transaction."""

    policy: Policy
    now: datetime
    slices: list[Slice]
    outcome: Future[Outcome] = field(default_factory=Future)


def decision_record(
    batch: Batch, part: Slice, route: Route, *, worker: str, considered: int, last: int
) -> dict[str, Any]:
    """What an auditor is told of every slice and route, whatever was decided; the counts come on top.

    Args:
        batch: that the slice is of.
        part: the slice.
        route: one of those that it was exchanged for.
        worker: who did it.
        considered: how many records of the slice were.
        last: the offset of the last of them.
    """
    published = route.first
    return {
        "grant": route.label,
        "version": published.grant.version,
        "subscriber": "" if published.shared else published.grant.subscriber,
        "resource": route.resource.ref,
        "topic": part.place[0],
        "partition": part.place[1],
        "first_offset": part.start,
        "last_offset": last,
        "considered": considered,
        "value_schema_id": published.value_schema_id,
        "grants_offset": batch.policy.offset,
        "worker": worker,
        "decided_at": batch.now,
    }


class Output(NamedTuple):
    """One record to be written."""

    key: bytes | None
    value: bytes | None
    partition: int
    timestamp_ms: int = 0
    """0: the time of writing."""


@dataclass(slots=True)
class Outcome:
    """What one batch leads to. Nothing of it is visible to anyone before the commit."""

    deliveries: dict[str, Sequence[Output]] = field(default_factory=dict)
    """By delivery topic."""

    dead_letters: list[tuple[str, bytes | None, dict[str, Any]]] = field(default_factory=list)
    """Dead-letter topic, key of the record, dead-letter record."""

    decisions: list[dict[str, Any]] = field(default_factory=list)
    next_offsets: dict[Place, int] = field(default_factory=dict)
    """Where each slice's partition stands afterwards."""

    considered: dict[Place, int] = field(default_factory=dict)
    """How many records of each slice were worked out: all of them, unless the slice is in ``waiting``."""

    waiting: dict[Place, str] = field(default_factory=dict)
    """Partitions that stopped short because something outside is away, with the code of what."""
