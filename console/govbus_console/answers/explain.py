"""Gather what one question needs, and answer it: why did this row reach this department, or not? Does I/O.

It decides nothing: the gates are in :mod:`govbus.explanation`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from govbus import topics
from govbus.deliverytrail import Trail, find_delivery, follow
from govbus.errors import RejectedRecordError
from govbus.explanation import (
    Answer,
    Circumstances,
    Gate,
    GateName,
    GrantVersion,
    RowHistory,
    RowVersion,
    answer_of,
    delivered_key,
    judge,
)
from govbus.recordkey import parse_key, split_record
from govbus.transform import Pseudonym
from govbus_console.answers.landed import LandedLookup
from govbus_console.answers.record import Agreement, OnRecord, look_up
from govbus_console.answers.trail import Decisions, Tracks
from govbus_console.control.bus import Bus
from govbus_console.control.store import ControlStore
from govbus_processors.slicework import LARGEST_RECORD


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One grant's gates for one row at one moment."""

    granted: GrantVersion | None
    gates: tuple[Gate, ...]

    @property
    def answer(self) -> Answer:
        """What the gates come to."""
        return answer_of(self.gates)[0]

    @property
    def stopped_by(self) -> GateName | None:
        """The first gate that stopped the row."""
        return answer_of(self.gates)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer to one question."""

    record: str
    """As it was asked for."""

    department: str
    at: datetime
    explained: Explained
    """Of the grant that lets the row through, or of the one that comes nearest."""

    others: tuple[Explained, ...]
    """The department's other grants for the resource."""

    same_now: bool
    """The same question about now has the same answer, and is stopped by the same gate."""

    next_command: str

    def as_json(self) -> dict[str, Any]:
        """In the shape that ``--json`` prints."""
        granted = self.explained.granted
        return {
            "record": self.record,
            "to": self.department,
            "at": self.at.isoformat(),
            "answer": self.explained.answer.value,
            "stopped_by": _word(self.explained.stopped_by),
            "grant": None if granted is None else granted.grant.id,
            "version": None if granted is None else granted.grant.version,
            "gates": [
                {
                    "gate": gate.name.value,
                    "status": gate.status.value,
                    "why": gate.why,
                    "at": None if gate.at is None else gate.at.isoformat(),
                }
                for gate in self.explained.gates
            ],
            "others": [
                {
                    "grant": other.granted.grant.id,
                    "version": other.granted.grant.version,
                    "answer": other.answer.value,
                    "stopped_by": _word(other.stopped_by),
                }
                for other in self.others
                if other.granted is not None
            ],
            "same_answer_now": self.same_now,
            "next": self.next_command,
        }


def _word(name: GateName | None) -> str | None:
    return None if name is None else name.value


def explain(
    record: str,
    department: str,
    store: ControlStore,
    bus: Bus,
    *,
    at: datetime | None,
    now: datetime,
    landed: LandedLookup | None = None,
) -> Explanation:
    """Answer for one row and one department.

    Args:
        record: ``OWNER.RESOURCE/KEY``, see :mod:`govbus.recordkey`.
        department: the subscriber.
        store: of record.
        bus: to look at.
        at: the moment in question, with time zone; None: now.
        now: with time zone.
        landed: looks into the department's own store; None: that stays unknown.

    Raises:
        RefusedError: there is no such resource or department, or the key cannot be read.
        BrokerUnavailableError, RegistryUnavailableError, SinkUnavailableError: something does not answer.
    """
    ref, key_text = split_record(record)
    known = look_up(store, ref, subscriber=department)
    key = parse_key(key_text, known.stored.contract)
    search = Search(known, Tracks(bus, known.stored.resource, known.stored.contract, key))
    asked = search.explained(at, now, landed)
    best = min(asked, key=_distance)
    today = asked if at is None else search.explained(None, now, None)
    now_best = min(today, key=_distance)
    return Explanation(
        record=record,
        department=department,
        at=at or now,
        explained=best,
        others=tuple(other for other in asked if other is not best),
        same_now=(best.answer, best.stopped_by) == (now_best.answer, now_best.stopped_by),
        next_command=next_command(best, record, department, ref, looked_landed=landed is not None),
    )


def _distance(explained: Explained) -> tuple[int, int, float]:
    """How far from sharing: shared first, then unknown, then whichever is stopped last and is newest."""
    order = [Answer.SHARED, Answer.UNKNOWN, Answer.NOT_SHARED]
    stopped = explained.stopped_by
    gate = 0 if stopped is None else -list(GateName).index(stopped)
    made = 0.0 if explained.granted is None else -explained.granted.made_at.timestamp()
    return order.index(explained.answer), gate, made


class Search:
    """One row, sought on the bus; what was read once is kept for the next question about it."""

    def __init__(self, known: OnRecord, tracks: Tracks) -> None:
        self._known = known
        self._tracks = tracks
        self.history: RowHistory = tracks.history()
        # Where versions of the row were forgotten, the decisions about them may be from any time.
        known_from = self.history.versions[0].changed_at if self.history.versions else None
        self.decisions: Decisions = tracks.decisions(known_from if self.history.complete else None)

    def explained(
        self, at: datetime | None, now: datetime, landed: LandedLookup | None
    ) -> tuple[Explained, ...]:
        """Ask the gates for each grant that the department had at a moment; None means now."""
        moment = at or now
        found = []
        for agreement in self._known.agreements:
            place = agreement.as_of(moment)
            if place is not None:
                found.append(self._one(agreement, place, moment, landed, latest=at is None))
        if not found:
            found.append(self._without_grant(moment, latest=at is None))
        return tuple(found)

    def _without_grant(self, moment: datetime, *, latest: bool) -> Explained:
        stored = self._known.stored
        c = self._circumstances(None, stored.resource.contract_version, moment, moment, latest=latest)
        gates = judge(c)
        return Explained(granted=None, gates=(*gates, *follow(c, gates, None, None)))

    def _one(
        self,
        agreement: Agreement,
        place: int,
        moment: datetime,
        landed: LandedLookup | None,
        *,
        latest: bool,
    ) -> Explained:
        granted = agreement.versions[place]
        c = self._circumstances(granted, agreement.contracts[place], moment, granted.made_at, latest=latest)
        gates = judge(c)
        row = c.row
        trail = None if row is None else self.trail(c)
        facts = None
        if landed is not None and trail is not None and row is not None:
            delivery, key = find_delivery(c, row, trail), self.delivered_key(c)
            if delivery is not None and key is not None:
                facts = landed(granted, delivery, key, self._tracks.key_schema(granted))
        return Explained(granted=granted, gates=(*gates, *follow(c, gates, trail, facts)))

    def circumstances(
        self, agreement: Agreement, place: int, moment: datetime, row: RowVersion | None
    ) -> Circumstances:
        """Put together what a decision about one version of the row rests on."""
        granted = agreement.versions[place]
        c = self._circumstances(granted, agreement.contracts[place], moment, granted.made_at, latest=True)
        return replace(c, history=RowHistory(versions=() if row is None else (row,), complete=True))

    def _circumstances(
        self,
        granted: GrantVersion | None,
        contract_version: int,
        moment: datetime,
        opened_at: datetime,
        *,
        latest: bool,
    ) -> Circumstances:
        resource = self._known.stored.resource
        wanted = {resource.value_schema_id, resource.key_schema_id}
        wanted |= {
            int.from_bytes(row.value[1:5], "big")
            for row in self.history.versions
            if row.value is not None and len(row.value) >= 5
        }
        if granted is not None:
            wanted |= {granted.published.value_schema_id, granted.published.key_schema_id}
        return Circumstances(
            at=moment,
            latest=latest,
            resource=resource,
            share_type=self._known.share_type(moment),
            granted=granted,
            contract=self._known.contract(contract_version, opened_at),
            history=self.history,
            schemas=self._tracks.schemas(wanted),
            pseudonym_key=None if granted is None else self._tracks.pseudonym_key(granted.grant),
            largest=LARGEST_RECORD,
        )

    def trail(self, c: Circumstances) -> Trail:
        """Look for the row's deliveries under the grant in question."""
        assert c.granted is not None  # noqa: S101 - asked for a grant
        published = c.granted.published
        label = published.view if published.shared else published.grant.id
        key = self.delivered_key(c)
        found = None if key is None else self._tracks.deliveries(published.delivery_topic, key)
        return Trail(
            topic=published.delivery_topic,
            there=key is None or found is not None,
            key_known=key is not None,
            found=found or (),
            exchanged_to=self._tracks.exchanged_to(),
            decisions=self.decisions.of(label),
        )

    def delivered_key(self, c: Circumstances) -> bytes | None:
        """Work out the key that the row is delivered under; None without the secret that it takes."""
        assert c.granted is not None  # noqa: S101 - asked for a grant
        hidden = any(
            isinstance(rule.transform, Pseudonym) and rule.name in c.resource.key
            for rule in c.granted.grant.fields
        )
        if hidden and c.pseudonym_key is None:
            return None
        try:
            return delivered_key(c, self._tracks.key)
        except RejectedRecordError:
            return None


def next_command(explained: Explained, record: str, department: str, ref: str, *, looked_landed: bool) -> str:
    """Name the command that goes on from here. Each of them exists; a test types them."""
    stopped = explained.stopped_by
    grant = None if explained.granted is None else explained.granted.grant
    dead_letters = topics.dead_letter(*ref.split(".", 1))
    words: Sequence[str]
    if explained.answer is Answer.UNKNOWN:
        words = ("who-received", record)
    elif stopped is None:
        words = ("explain", "--record", record, "--to", department, "--landing", "land.yaml")
        if looked_landed:
            words = ("who-received", record)
    elif stopped is GateName.GRANT and grant is not None and grant.state == "suspended":
        words = ("resume", grant.id)
    else:
        by_gate: Mapping[GateName, Sequence[str]] = {
            GateName.CAPTURED: ("tail", ref),
            GateName.VALID: ("tail", dead_letters),
            GateName.FIELDS: ("tail", dead_letters),
        }
        words = by_gate.get(stopped, ("plan", "--file", "catalogue.yaml"))
    return shlex.join(["govbus", *words])
