"""Who received one row: what is certain, and what is only possible. The citizen's question.

Two things are known of the past. Delivery topics hold records, each naming the
agreement that it was delivered under, but a compacted topic forgets a delivery
when a later one takes its place, and a topic may be gone. Grant versions are
kept for good, and the decision about a row that is still known can be made
again. So for each agreement:

1. A record of the row under it stands in its topic: **delivered**.
2. A tombstone of the row stands there, and only those who held a row are told that it is gone (there is
   a row filter): **delivered** before, if only one agreement can be meant.
3. The row, as it is known to have been while the agreement was in force, was within its view, or how it
   was then is not known any more: **possible**. Not when the exchange's own counts say that it delivered
   nothing at all of the row's partition under the agreement.
4. Otherwise the agreement never let the row through, and is left out.

A department that could read a shared topic counts as one to whom it was
delivered; whether it fetched the record only its own store can say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from govbus.deliverytrail import BatchDecision, Delivered
from govbus.explanation import Answer, GrantVersion, RowHistory, RowVersion
from govbus.grant import Grant, GrantState


class Certainty(StrEnum):
    """How sure the answer is."""

    DELIVERED = "delivered"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """One grant version while it counted and was in force."""

    version: GrantVersion
    start: datetime
    end: datetime | None
    """Exclusive; None: it is in force still."""

    @property
    def grant(self) -> Grant:
        """The agreement itself."""
        return self.version.grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the bus holds about the row under one agreement."""

    there: bool
    """Its delivery topic exists."""

    key_known: bool
    """The delivered key can be worked out here."""

    found: tuple[Delivered, ...] = ()
    """Everything in the topic under that key, oldest first."""

    decisions: tuple[BatchDecision, ...] = ()
    counts_whole: bool = False
    """The decision records go back to before the agreement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredAt:
    """One delivery."""

    delivery: Delivered
    decided_at: datetime | None
    """When the exchange decided it; None: its decision record is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """One department and agreement under which the row was received, or may have been."""

    grant: Grant
    """As first made under this schema."""

    certainty: Certainty
    deliveries: tuple[DeliveredAt, ...]
    """Those that still stand in the topic, oldest first."""

    start: datetime
    end: datetime | None
    """From when to when the agreement could deliver."""

    shared: bool
    """Other departments were served by the same records."""

    why: str


def periods(versions: Sequence[GrantVersion], now: datetime) -> tuple[Period, ...]:
    """Say when each version of one grant could deliver; versions that never could are left out."""
    found = []
    for version, following in zip(versions, [*versions[1:], None], strict=True):
        grant = version.grant
        if grant.state is not GrantState.ACTIVE:
            continue
        start = max(version.made_at, grant.starts_at)
        ends = [grant.expires_at] + ([following.made_at] if following is not None else [])
        end = min(ends)
        if start < end and start <= now:
            found.append(Period(version=version, start=start, end=end if end <= now else None))
    return tuple(found)


def receive(
    versions: Sequence[GrantVersion],
    topic: str,
    history: RowHistory,
    evidence: Evidence,
    judge: Callable[[Period, RowVersion], Answer],
    *,
    now: datetime,
) -> tuple[Reception, ...]:
    """Say what one grant's subscriber received of a row through one delivery topic.

    Args:
        versions: of one grant, all of them, oldest first.
        topic: the versions that are delivered elsewhere are left out.
        history: of the row.
        evidence: about that topic.
        judge: decides about one version of the row under one version of the grant, as the exchange would.
        now: with time zone.
    """
    by_schema: dict[int, list[Period]] = {}
    for period in periods(versions, now):
        if period.version.published.delivery_topic != topic:
            continue
        by_schema.setdefault(period.version.published.value_schema_id, []).append(period)
    told = {
        schema_id: _received(schema_id, spans, history, evidence, judge)
        for schema_id, spans in by_schema.items()
    }
    if _told_that_it_is_gone(by_schema.values(), evidence):
        told = _held_before(told)
    return tuple(
        Reception(
            grant=spans[0].grant,
            certainty=known.certainty,
            deliveries=known.deliveries,
            start=spans[0].start,
            end=spans[-1].end,
            shared=spans[0].version.published.shared,
            why=known.why,
        )
        for schema_id, spans in by_schema.items()
        if (known := told[schema_id]) is not None
    )


class _Known(NamedTuple):
    certainty: Certainty
    deliveries: tuple[DeliveredAt, ...]
    why: str


def _received(
    schema_id: int,
    spans: Sequence[Period],
    history: RowHistory,
    evidence: Evidence,
    judge: Callable[[Period, RowVersion], Answer],
) -> _Known | None:
    standing = tuple(
        one
        for one in _standing(schema_id, history, evidence)
        # A shared topic is written on for others after a department may not read it any more.
        if any(
            period.end is None or (one.decided_at or one.delivery.changed_at) < period.end for period in spans
        )
        or not spans[0].version.published.shared
    )
    if standing:
        return _Known(Certainty.DELIVERED, standing, "its delivery stands in the topic")
    if _counted_nothing(schema_id, evidence):
        return None
    possible = _possible(spans, history, judge)
    if possible is None:
        return None
    return _Known(Certainty.POSSIBLE, (), f"{possible}; {_why_not_sure(evidence)}")


def _standing(schema_id: int, history: RowHistory, evidence: Evidence) -> Iterator[DeliveredAt]:
    for one in evidence.found:
        if one.schema_id == schema_id:
            yield DeliveredAt(delivery=one, decided_at=_decided_at(one, history, evidence))


def _told_that_it_is_gone(groups: Iterable[Sequence[Period]], evidence: Evidence) -> bool:
    """A tombstone stands in the topic, and every version of the grant has had a row filter.

    Without one a deletion is delivered to everybody, and says nothing of who held the row.
    """
    filtered = all(period.grant.rows is not None for spans in groups for period in spans)
    return filtered and any(one.schema_id is None for one in evidence.found)


def _held_before(told: Mapping[int, _Known | None]) -> dict[int, _Known | None]:
    """The subscriber was told to remove the row, so it held it: under the one agreement that is possible."""
    possible = [schema_id for schema_id, known in told.items() if known is not None]
    removed = "the subscriber was told to remove the row, and only who holds it is told"
    changed = dict(told)
    for schema_id in possible:
        known = told[schema_id]
        if known is not None and known.certainty is Certainty.POSSIBLE:
            if len(possible) == 1:
                changed[schema_id] = _Known(Certainty.DELIVERED, (), removed)
            else:
                why = f"{known.why}; {removed}: it came under one of these agreements"
                changed[schema_id] = _Known(Certainty.POSSIBLE, (), why)
    return changed


def _decided_at(one: Delivered, history: RowHistory, evidence: Evidence) -> datetime | None:
    """Find when a delivery was decided: the batch of the version of the row that it delivers."""
    for version in history.versions:
        if version.changed_at != one.changed_at:
            continue
        for decision in evidence.decisions:
            if (
                decision.covers(version.at)
                and decision.permitted
                and decision.value_schema_id == one.schema_id
            ):
                return decision.decided_at
    return None


def _counted_nothing(schema_id: int, evidence: Evidence) -> bool:
    """The exchange wrote down every batch of the agreement, and delivered nothing in any."""
    if not evidence.counts_whole:
        return False
    return not any(one.delivered for one in evidence.decisions if one.value_schema_id == schema_id)


def _possible(
    spans: Sequence[Period], history: RowHistory, judge: Callable[[Period, RowVersion], Answer]
) -> str | None:
    versions = history.versions
    unknown = False
    for period in spans:
        for row, following in zip(versions, [*versions[1:], None], strict=True):
            # A grant begins with the row as it stands then, so what counts is the time that a version
            # stood, not the moment at which it was made.
            over = following is not None and following.changed_at <= period.start
            not_yet = period.end is not None and row.changed_at >= period.end
            if not (over or not_yet):
                answer = judge(period, row)
                if answer is Answer.SHARED:
                    return "the row was within the view"
                unknown = unknown or answer is Answer.UNKNOWN
        if not history.complete and (not versions or versions[0].changed_at > period.start):
            unknown = True
    return "how the row was then is not known any more" if unknown else None


def _why_not_sure(evidence: Evidence) -> str:
    if not evidence.there:
        return "its delivery topic is not there any more"
    if not evidence.key_known:
        return "its key there is a pseudonym, and the secret is not here to look it up"
    if evidence.found:
        return "a later delivery has taken the place of what was delivered"
    return "no delivery of it stands in the topic"
