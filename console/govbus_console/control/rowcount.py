"""How many rows a grant lets through, now and as it would be: numbers, never values. Does I/O.

The captured topic is the owner's table, so counting there needs nobody's
database: the administrator's reader goes through it once for each resource,
keeps for every key which of the filters its newest record passes, and forgets
the record. A delete forgets the key. What the exchange would reject does not count.

Counting is bounded in time: a resource that takes longer, and one whose bus
does not answer, has an unknown count. A number that is shown is exact for the
moment at which the topic was read.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Message

from govbus import topics
from govbus.catalogue import ResourceKind
from govbus.codec import Registry, unframe
from govbus.contract import DataContract
from govbus.errors import BusError, FilterRefusedError, RefusedError, RejectedRecordError
from govbus.grant import Grant
from govbus.policy import field_types
from govbus.rowfilter import parse_filter
from govbus.settings import BrokerSettings
from govbus_console.control.planned import Impact
from govbus_console.control.reading import last_records
from govbus_console.control.store import StoredResource


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChange:
    """Rows under one grant."""

    before: int
    after: int
    more: int
    """Rows that would pass and do not pass now."""

    less: int
    """Rows that pass and would not any more."""


_Test = Callable[[Mapping[str, Any]], bool]


class Counting:
    """One reader of captured topics, with a budget of time for all that it is asked."""

    def __init__(self, broker: BrokerSettings, registry: Registry, *, seconds: float) -> None:
        self._broker = broker
        self._registry = registry
        self._until = time.monotonic() + seconds

    def changes(
        self, impacts: Iterable[Impact], resources: Mapping[str, StoredResource]
    ) -> Mapping[str, RowChange]:
        """Count for each grant what it lets through before and after, by id; unknown ones are left out.

        ``resources`` are those of record; one that is not among them has no rows yet.
        """
        by_ref: dict[str, list[Impact]] = defaultdict(list)
        for impact in impacts:
            by_ref[impact.grant.resource_ref].append(impact)
        counted: dict[str, RowChange] = {}
        for ref, concerned in by_ref.items():
            stored = resources.get(ref)
            sides = [side for impact in concerned for side in (impact.before, impact.after)]
            filters = list(dict.fromkeys(side.rows for side in sides if side is not None))
            found = Counter[int]() if stored is None else self._patterns(stored, filters)
            if found is not None:
                counted |= {impact.grant.id: _change(impact, filters, found) for impact in concerned}
        return counted

    def count(self, stored: StoredResource, rows: str | None) -> int | None:
        """Count the rows of a resource that pass a filter; None when that is not known in time."""
        found = self._patterns(stored, [rows])
        return None if found is None else sum(number for pattern, number in found.items() if pattern)

    def _patterns(self, stored: StoredResource, filters: Sequence[str | None]) -> Counter[int] | None:
        """How many rows pass which filters: filter number n is bit n of a pattern."""
        resource = stored.resource
        tests = [_test(rows, stored.contract) for rows in filters]
        look = any(rows is not None for rows in filters)
        topic = topics.captured(resource.owner, resource.name)
        newest: dict[bytes, int] = {}
        events = Counter[int]()
        try:
            for message in last_records(self._broker, topic, None):
                if time.monotonic() > self._until:
                    return None
                key = message.key() or b""
                try:
                    pattern = self._pattern(message, tests, look=look, key_schema=resource.key_schema_id)
                except RejectedRecordError:
                    continue  # the exchange rejects it, too: what was delivered before still counts
                if resource.kind is ResourceKind.EVENT:
                    events[pattern or 0] += 1
                elif pattern is None:
                    newest.pop(key, None)
                else:
                    newest[key] = pattern
        except RefusedError:
            return Counter()  # there is no such topic yet, so there are no rows
        except BusError:
            return None
        return events if resource.kind is ResourceKind.EVENT else Counter(newest.values())

    def _pattern(
        self, message: Message, tests: Sequence[_Test], *, look: bool, key_schema: int
    ) -> int | None:
        if unframe(message.key())[0] != key_schema:
            raise RejectedRecordError("a key of another schema")
        if message.value() is None:
            return None
        record = self._registry.decode(message.value()) if look else {}
        return sum(1 << number for number, passes in enumerate(tests) if passes(record))


def _test(rows: str | None, contract: DataContract) -> _Test:
    if rows is None:
        return lambda _record: True
    try:
        checked = parse_filter(rows, field_types(contract))
    except FilterRefusedError:
        # It looks at a field that the contract of record does not have: no record has it yet.
        return lambda _record: False
    matches, names = checked.compile(), checked.fields

    def passes(record: Mapping[str, Any]) -> bool:
        # Written before a field of the filter was in the contract: the exchange has no view for it.
        if any(name not in record for name in names):
            return False
        return matches(*(record[name] for name in names)) is True

    return passes


def _change(impact: Impact, filters: Sequence[str | None], found: Counter[int]) -> RowChange:
    def passes(side: Grant | None, pattern: int) -> bool:
        return side is not None and bool(pattern >> filters.index(side.rows) & 1)

    total = Counter[tuple[bool, bool]]()
    for pattern, number in found.items():
        total[passes(impact.before, pattern), passes(impact.after, pattern)] += number
    return RowChange(
        before=total[True, False] + total[True, True],
        after=total[False, True] + total[True, True],
        more=total[False, True],
        less=total[True, False],
    )
