"""Holds what was delivered against the model, record by record, and names each promise that is broken.

A delivery topic is filled in *runs*: under one view, the records of a source
partition are gone through in order, each at most once, none left out. A run
goes on over suspensions, crashes and changes of worker. Only an amendment that
changes the view may begin another, and that one begins at the first record,
because the subscriber is brought to the present anew. Within a run it is known
for each record of the source whether a delivery is due, and which:

- the row is in the view: the row as the view shows it;
- it is not, or it is gone, and the subscriber holds it: a tombstone;
- otherwise nothing.

What the subscriber holds is what the topic itself says. So a partition of a
delivery topic is right if, and only if, it can be cut into such runs, in the
order of the grant's versions, and nothing stands where a barrier said that
nothing would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from chaos.model import Agreement, Barrier, Row, Version, View

_NAMED_AT_MOST = 20


class Broken(StrEnum):
    """A promise that does not hold."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    OUT_OF_ORDER = "out of order"
    LEAKED = "leaked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One record that a subscriber has read."""

    partition: int
    offset: int
    key: str
    row: Row | None
    at: int
    """The timestamp in milliseconds."""

    version: int | None
    """The grant version that the record's schema names; None for a tombstone, and where grants share."""


@dataclass(slots=True)
class Findings:
    """How often each promise was broken, with some of the cases."""

    counts: Counter[Broken] = field(default_factory=Counter)
    cases: list[str] = field(default_factory=list)

    def note(self, broken: Broken, topic: str, place: str, why: str) -> None:
        """Take down one case."""
        self.counts[broken] += 1
        if len(self.cases) < _NAMED_AT_MOST:
            self.cases.append(f"{broken.value}: {topic} {place}: {why}")


@dataclass(slots=True)
class _Partition:
    """How far one partition of a delivery topic has been followed."""

    number: int
    version: int = 0
    """Position of the run's newest version among the agreement's."""

    next: int = 0
    """The source record that the run goes on with."""

    held: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    delivered: set[tuple[str, int]] = field(default_factory=set)
    """View and source record of everything that came, to tell a repetition from a disorder."""


class Judge:
    """Follows one delivery topic."""

    def __init__(self, agreement: Agreement, findings: Findings) -> None:
        self._agreement = agreement
        self._findings = findings
        self._partitions = [_Partition(number) for number in range(agreement.source.partitions)]
        self.records = 0

    def take(self, seen: Seen) -> None:
        """Judge the next record of a partition."""
        self.records += 1
        part = self._partitions[seen.partition]
        index = self._agreement.source.index(seen.partition, seen.at)
        if index is None:
            self._note(Broken.LEAKED, seen, "comes from no record of this partition's source")
        elif self._may_be_there(seen, index) and self._has_place(part, seen, index):
            part.delivered.add((self._view(part).name, index))
        if seen.row is None:
            part.held.pop(seen.key, None)
        else:
            part.held[seen.key] = seen.row

    def complete(self) -> bool:
        """Whether nothing is due any more: every partition has been brought to the present."""
        if not self._agreement.open:
            return True
        latest = len(self._agreement.versions) - 1
        view = self._agreement.latest.view
        for part in self._partitions:
            end = len(self._agreement.source.written[part.number])
            goes_on = self._view(part).name == view.name and self._nothing_due(part, view, part.next, end)
            if not goes_on and not (
                self._begins_anew(part, latest) and self._nothing_due(part, view, 0, end)
            ):
                return False
        return True

    def close(self) -> None:
        """Judge what the subscriber holds in the end."""
        if not self._agreement.open:
            return
        held = {key: row for part in self._partitions for key, row in part.held.items()}
        expected = self._agreement.table()
        for key in expected.keys() - held.keys():
            self._at_the_end(Broken.LOST, key, "is not there")
        for key in held.keys() - expected.keys():
            self._at_the_end(Broken.LEAKED, key, "should have left the subscriber's table")
        for key in held.keys() & expected.keys():
            if held[key] != expected[key]:
                self._at_the_end(Broken.LOST, key, "is not as the owner has it, or not as the view shows it")
        if not self.complete() and held == expected:
            self._note_topic(Broken.LOST, "changes are missing that later ones cover")

    # ---- what may be there at all ----

    def _may_be_there(self, seen: Seen, index: int) -> bool:
        barrier = self._forbidding(seen)
        if barrier is not None:
            self._note(Broken.LEAKED, seen, "was delivered after a barrier that ruled it out")
            return False
        source = self._agreement.source.written[seen.partition][index]
        view = self._agreement.latest.view
        if seen.key != view.key.shown(source.code):
            self._note(Broken.LEAKED, seen, "has the key of another row, or not as the view shows it")
            return False
        if seen.row is None:
            return True
        version = self._version_of(seen)
        if version is None or not version.active:
            self._note(Broken.LEAKED, seen, f"was delivered under version {seen.version}")
            return False
        if source.row is None or not version.view.rows.true(source.row):
            self._note(Broken.LEAKED, seen, f"is outside the row filter of version {version.number}")
            return False
        if dict(seen.row) != version.view.show(source.row):
            self._note(
                Broken.LEAKED,
                seen,
                f"does not have exactly what version {version.number} shows; fields {sorted(seen.row)}",
            )
            return False
        return True

    def _forbidding(self, seen: Seen) -> Barrier | None:
        for barrier in self._agreement.barriers:
            if seen.offset < barrier.offsets[seen.partition]:
                continue
            reopened = barrier.reopened and seen.offset >= barrier.reopened[seen.partition]
            if barrier.closed and not reopened:
                return barrier
            if seen.version is not None and seen.version < barrier.least_version:
                return barrier
        return None

    def _version_of(self, seen: Seen) -> Version | None:
        versions = self._agreement.versions
        if seen.version is None:
            return versions[-1]  # a shared topic has one view for ever
        return versions[seen.version - 1] if 1 <= seen.version <= len(versions) else None

    # ---- its place in the order ----

    def _has_place(self, part: _Partition, seen: Seen, index: int) -> bool:
        if seen.row is None:
            going_on, anew = part.version, range(part.version + 1, len(self._agreement.versions))
        else:
            going_on = len(self._agreement.versions) - 1 if seen.version is None else seen.version - 1
            anew = range(going_on, going_on + 1)
        versions = self._agreement.versions
        if (
            going_on >= part.version
            and versions[going_on].view.name == self._view(part).name
            and self._is_next(part, versions[going_on].view, part.next, index, seen)
        ):
            part.version, part.next = going_on, index + 1
            return True
        for candidate in anew:
            if self._begins_anew(part, candidate) and self._is_next(
                part, versions[candidate].view, 0, index, seen
            ):
                part.version, part.next = candidate, index + 1
                return True
        self._find_the_reason(part, seen, index, going_on)
        part.version, part.next = max(part.version, going_on), index + 1
        return False

    def _begins_anew(self, part: _Partition, version: int) -> bool:
        """Whether a run may begin with this version: only if the view has changed on the way there."""
        name = self._view(part).name
        return any(v.view.name != name for v in self._agreement.versions[part.version + 1 : version + 1])

    def _is_next(self, part: _Partition, view: View, begin: int, index: int, seen: Seen) -> bool:
        if index < begin or not self._nothing_due(part, view, begin, index):
            return False
        due = self._due(part, view, index)
        return due == ("tombstone" if seen.row is None else "row")

    def _nothing_due(self, part: _Partition, view: View, begin: int, end: int) -> bool:
        return all(self._due(part, view, index) == "" for index in range(begin, end))

    def _due(self, part: _Partition, view: View, index: int) -> str:
        record = self._agreement.source.written[part.number][index]
        if record.row is not None and view.rows.true(record.row):
            return "row"
        if self._agreement.source.event or (record.row is not None and not view.filtered):
            return ""
        if not view.filtered or view.key.shown(record.code) in part.held:
            return "tombstone"
        return ""

    def _find_the_reason(self, part: _Partition, seen: Seen, index: int, going_on: int) -> None:
        view = self._agreement.versions[going_on].view
        if going_on < part.version:
            self._note(Broken.OUT_OF_ORDER, seen, "is of an older version than what came before it")
        elif (view.name, index) in part.delivered and index < part.next:
            self._note(Broken.DUPLICATED, seen, f"source record {index} was delivered before")
        elif seen.row is None and view.filtered and seen.key not in part.held:
            self._note(Broken.LEAKED, seen, "names a key that the subscriber does not hold")
        elif index < part.next:
            self._note(Broken.OUT_OF_ORDER, seen, f"source record {index} after record {part.next - 1}")
        else:
            self._note(
                Broken.LOST,
                seen,
                f"a delivery of a source record between {part.next} and {index} is missing "
                f"(version {self._agreement.versions[part.version].number} to {going_on + 1})",
            )

    def _view(self, part: _Partition) -> View:
        return self._agreement.versions[part.version].view

    def _note(self, broken: Broken, seen: Seen, why: str) -> None:
        place = f"partition {seen.partition} offset {seen.offset}"
        self._findings.note(broken, self._agreement.topic, place, why)

    def _at_the_end(self, broken: Broken, key: str, why: str) -> None:
        self._findings.note(broken, self._agreement.topic, f"key {key}", why)

    def _note_topic(self, broken: Broken, why: str) -> None:
        self._findings.note(broken, self._agreement.topic, "in the end", why)
