"""What was seen of one row behind the decision: its delivery, where it landed, and what came after.

Evidence, not judgement: :mod:`govbus.explanation` says whether a row comes
through, this says what still stands on the bus of it. A compacted topic forgets
a delivery when a later one takes its place, landing tells nobody how far it is,
and a pseudonym cannot be looked up without its secret: then the gate is
*unknown* and says which of these it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from govbus.event import RecordAddress
from govbus.explanation import (
    Answer,
    Circumstances,
    Gate,
    GateName,
    RowVersion,
    Status,
    answer_of,
    not_asked,
    stopped,
    unknown,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One record under the row's delivered key."""

    at: RecordAddress
    schema_id: int | None
    """Names the agreement; None: a tombstone."""

    changed_at: datetime
    """The time of the change that it delivers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDecision:
    """What the exchange wrote down of one batch and grant: counts, and which offsets they are about."""

    label: str
    """The grant, or the view where several grants share it."""

    version: int
    partition: int
    first_offset: int
    last_offset: int
    permitted: bool
    delivered: int
    value_schema_id: int
    decided_at: datetime

    def covers(self, at: RecordAddress) -> bool:
        """Whether a captured record was part of the batch."""
        return self.partition == at.partition and self.first_offset <= at.offset <= self.last_offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """What could be found of the row's deliveries under one grant."""

    topic: str
    there: bool
    """The topic exists."""

    key_known: bool
    """False: the key is a pseudonym and the secret is not at hand, so nothing could be looked up."""

    found: tuple[Delivered, ...] = ()
    """Oldest first."""

    exchanged_to: int | None = None
    """The exchange has worked off the source partition up to here (exclusive)."""

    decisions: tuple[BatchDecision, ...] = ()
    """Of this grant; those that are still kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingFacts:
    """What the department's own store says of one delivery."""

    next_offset: int | None
    """Of the delivery's partition; None: the store has none for it."""

    landed_at: datetime | None = None
    """When the row that is there now came."""

    row_offset: int | None = None
    """Which delivery that was; None: no row with this key is there."""

    dead_letter: str | None = None
    """The code under which this delivery was put aside."""

    purged_at: datetime | None = None


def follow(
    c: Circumstances, gates: Sequence[Gate], trail: Trail | None, landing: LandingFacts | None
) -> tuple[Gate, ...]:
    """Tell what was seen of the row behind the decision: routed, landed, afterwards."""
    row = c.row
    names = (GateName.ROUTED, GateName.LANDED, GateName.AFTERWARDS)
    if trail is None or row is None:
        why = "there was no grant" if c.granted is None else "no version of the row is known to look for"
        return tuple(not_asked(name, why) for name in names)
    delivery = find_delivery(c, row, trail)
    return (
        _routed(row, answer_of(gates)[0], trail, delivery),
        _landed(delivery, landing),
        _afterwards(row, trail, delivery),
    )


def find_delivery(c: Circumstances, row: RowVersion, trail: Trail) -> Delivered | None:
    """Find the delivery of this version: of the same change, under this agreement if possible."""
    same = [one for one in trail.found if one.changed_at == row.changed_at]
    if c.granted is not None:
        agreed = [one for one in same if one.schema_id == c.granted.published.value_schema_id]
        same = agreed or same
    return same[0] if same else None


def _routed(row: RowVersion, answer: Answer, trail: Trail, delivery: Delivered | None) -> Gate:
    name = GateName.ROUTED
    if delivery is not None:
        decided = [
            one.decided_at
            for one in trail.decisions
            if one.covers(row.at) and one.permitted and delivery.schema_id in (None, one.value_schema_id)
        ]
        what = "a tombstone" if delivery.schema_id is None else f"delivered under schema {delivery.schema_id}"
        return Gate(
            name=name, status=Status.PASS, why=f"{what} at {delivery.at}", at=decided[0] if decided else None
        )
    if not trail.there:
        return unknown(name, f"{trail.topic} is not there: what stood in it is gone")
    if not trail.key_known:
        batch = [one for one in trail.decisions if one.covers(row.at)]
        said = ", ".join(f"{one.delivered} delivered from its batch" for one in batch)
        why = "the delivered key is a pseudonym, and its secret is not here to look it up"
        return unknown(name, f"{why}; {said}" if said else why)
    if trail.exchanged_to is not None and trail.exchanged_to <= row.at.offset:
        return unknown(name, "the exchange has not come to this record yet")
    later = [one for one in trail.found if one.changed_at > row.changed_at]
    if answer is not Answer.NOT_SHARED and later:
        return unknown(name, f"compacted away: {later[-1].at} has taken its place")
    if answer is Answer.NOT_SHARED:
        held = [one for one in trail.found if one.changed_at < row.changed_at]
        stands = f"; what was delivered before stands at {held[-1].at}" if held else ""
        return stopped(name, f"nothing was delivered of it{stands}")
    return stopped(name, "no delivery of it stands in the topic; the grant may still be catching up")


def _landed(delivery: Delivered | None, facts: LandingFacts | None) -> Gate:
    name = GateName.LANDED
    if delivery is None:
        return not_asked(name, "there is no delivery to look for")
    if facts is None:
        return unknown(
            name, "how far a department has landed stands in its own database alone, and nowhere on the bus"
        )
    if facts.dead_letter is not None:
        return stopped(name, f"put aside by landing as {facts.dead_letter}")
    if facts.next_offset is None or facts.next_offset <= delivery.at.offset:
        return stopped(name, "landing has not come to it yet")
    if facts.row_offset == delivery.at.offset:
        return Gate(
            name=name, status=Status.PASS, why="the row stands in the landing table", at=facts.landed_at
        )
    if facts.row_offset is not None:
        why = "landed; the row that stands there now came with a later delivery"
        return Gate(name=name, status=Status.PASS, why=why, at=facts.landed_at)
    if facts.purged_at is not None:
        return Gate(
            name=name, status=Status.PASS, why="landed, and purged with its grant", at=facts.purged_at
        )
    return Gate(name=name, status=Status.PASS, why="landed; the row is not there any more")


def _afterwards(row: RowVersion, trail: Trail, delivery: Delivered | None) -> Gate:
    name = GateName.AFTERWARDS
    if not (trail.there and trail.key_known):
        return unknown(name, "what came after cannot be looked up")
    start = -1 if delivery is None else delivery.at.offset
    later = [one for one in trail.found if one.at.offset > start and one.changed_at >= row.changed_at]
    if not later:
        if delivery is None:
            return not_asked(name, "nothing was delivered after it")
        return Gate(name=name, status=Status.PASS, why="it is what the delivery topic holds of this row")
    last = later[-1]
    if last.schema_id is None:
        return stopped(name, f"the subscriber was told to remove the row, at {last.at}", last.changed_at)
    return stopped(
        name, f"overwritten by {last.at}, delivered under schema {last.schema_id}", last.changed_at
    )
