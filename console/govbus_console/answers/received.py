"""Gather who received one row: every grant of its resource, held against what the bus still holds. Does I/O.

It judges nothing: what is certain and what is possible is in :mod:`govbus.reception`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from govbus.explanation import Answer, RowVersion, answer_of, judge
from govbus.reception import Evidence, Period, Reception, periods, receive
from govbus.recordkey import parse_key, split_record
from govbus_console.answers.explain import Search
from govbus_console.answers.record import Agreement, look_up
from govbus_console.answers.trail import Tracks
from govbus_console.control.bus import Bus
from govbus_console.control.store import ControlStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Receptions:
    """The answer to one question."""

    record: str
    at: datetime
    found: tuple[Reception, ...]
    """By department, grant and version."""

    history_complete: bool
    """Nothing about the row has been forgotten by its captured topic."""

    def as_json(self) -> dict[str, Any]:
        """In the shape that ``--json`` prints."""
        return {
            "record": self.record,
            "at": self.at.isoformat(),
            "history_complete": self.history_complete,
            "received": [_as_json(one) for one in self.found],
        }


def _as_json(one: Reception) -> dict[str, Any]:
    times = [given.decided_at or given.delivery.changed_at for given in one.deliveries]
    return {
        "department": one.grant.subscriber,
        "grant": one.grant.id,
        "version": one.grant.version,
        "purpose": one.grant.purpose,
        "fields": [{"name": rule.name, "transform": rule.transform.spec()} for rule in one.grant.fields],
        "certainty": one.certainty.value,
        "first": min(times).isoformat() if times else None,
        "last": max(times).isoformat() if times else None,
        "deliveries": [
            {
                "topic": given.delivery.at.topic,
                "partition": given.delivery.at.partition,
                "offset": given.delivery.at.offset,
                "changed_at": given.delivery.changed_at.isoformat(),
                "decided_at": None if given.decided_at is None else given.decided_at.isoformat(),
            }
            for given in one.deliveries
        ],
        "in_force_from": one.start.isoformat(),
        "in_force_until": None if one.end is None else one.end.isoformat(),
        "shared": one.shared,
        "why": one.why,
    }


def who_received(record: str, store: ControlStore, bus: Bus, *, now: datetime) -> Receptions:
    """Say which departments received a row, under which agreements, or may have.

    Args:
        record: ``OWNER.RESOURCE/KEY``, see :mod:`govbus.recordkey`.
        store: of record.
        bus: to look at.
        now: with time zone.

    Raises:
        RefusedError: there is no such resource, or the key cannot be read.
        BrokerUnavailableError, RegistryUnavailableError: something does not answer.
    """
    ref, key_text = split_record(record)
    known = look_up(store, ref)
    key = parse_key(key_text, known.stored.contract)
    tracks = Tracks(bus, known.stored.resource, known.stored.contract, key)
    search = Search(known, tracks)
    found = [one for agreement in known.agreements for one in _received(agreement, search, tracks, now)]
    found.sort(key=lambda one: (one.grant.subscriber, one.grant.id, one.grant.version))
    return Receptions(record=record, at=now, found=tuple(found), history_complete=search.history.complete)


def _received(agreement: Agreement, search: Search, tracks: Tracks, now: datetime) -> list[Reception]:
    """Answer for one grant; its versions may have had different topics, each is looked into."""

    def judged(period: Period, row: RowVersion) -> Answer:
        place = agreement.versions.index(period.version)
        moment = max(period.start, row.changed_at)
        return answer_of(judge(search.circumstances(agreement, place, moment, row)))[0]

    spans = periods(agreement.versions, now)
    answers: list[Reception] = []
    for topic in dict.fromkeys(period.version.published.delivery_topic for period in spans):
        evidence = _evidence(agreement, topic, search, tracks)
        answers += receive(agreement.versions, topic, search.history, evidence, judged, now=now)
    return answers


def _evidence(agreement: Agreement, topic: str, search: Search, tracks: Tracks) -> Evidence:
    place = next(
        number
        for number, version in enumerate(agreement.versions)
        if version.published.delivery_topic == topic
    )
    version = agreement.versions[place]
    key = search.delivered_key(search.circumstances(agreement, place, version.made_at, None))
    found = None if key is None else tracks.deliveries(topic, key)
    label = version.published.view if version.published.shared else version.published.grant.id
    return Evidence(
        there=key is None or found is not None,
        key_known=key is not None,
        found=found or (),
        decisions=search.decisions.of(label),
        counts_whole=search.decisions.whole,
    )
