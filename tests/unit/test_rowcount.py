"""Rows are counted exactly or not at all, from the newest record of each key, and no value is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from govbus.catalogue import ResourceKind
from govbus.codec import Schema, decode_body, unframe
from govbus.errors import BrokerUnavailableError, RefusedError
from govbus_console.control import rowcount
from govbus_console.control.plan import Impact
from govbus_console.control.rowcount import Counting, RowChange
from govbus_console.control.store import StoredResource, contract_text
from support.policies import CONTRACT, KEY, VALUE, Record, a_grant, a_resource, firm, gone, mangled

FIRMS = StoredResource(
    resource=a_resource(),
    contract=CONTRACT,
    contract_text=contract_text(CONTRACT),
    synthetic=False,
    owner_allows=(),
)
ALL = a_grant()
QUZHOU = a_grant(rows="city = '3308'")
LARGE = a_grant(rows="staff > 9")


class KnowsSchemas:
    """Decodes as the registry does, from the schemas at hand."""

    def __init__(self, *schemas: Schema) -> None:
        self._schemas = {schema.id: schema for schema in schemas}

    def decode(self, data: bytes) -> dict[str, Any]:
        schema_id, body = unframe(data)
        return decode_body(self._schemas[schema_id], body)


class Topic:
    """Records as the reader hands them out; may end in an error."""

    def __init__(self, *records: Record, error: Exception | None = None) -> None:
        self.records, self.error, self.read = records, error, 0

    def __call__(self, *_: object) -> Iterator[Record]:
        self.read += 1
        yield from self.records
        if self.error is not None:
            raise self.error


def counted(
    monkeypatch: pytest.MonkeyPatch,
    topic: Topic,
    *impacts: Impact,
    stored: StoredResource | None = FIRMS,
    seconds: float = 60,
) -> dict[str, RowChange]:
    monkeypatch.setattr(rowcount, "last_records", topic)
    registry: Any = KnowsSchemas(VALUE, KEY)
    nowhere: Any = None  # the reader is a double and connects to nothing
    counting = Counting(nowhere, registry, seconds=seconds)
    return dict(counting.changes(impacts, {} if stored is None else {stored.resource.ref: stored}))


RECORDS = (
    firm(0, "a", staff=5),
    firm(1, "b", staff=50),
    firm(2, "c", city="3301", staff=50),
    firm(3, "d", city=None, staff=50),
    firm(4, "a", staff=10),
    firm(5, "e"),
    gone(6, "e"),
)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (None, ALL, RowChange(before=0, after=4, more=4, less=0)),
        (ALL, None, RowChange(before=4, after=0, more=0, less=4)),
        (ALL, QUZHOU, RowChange(before=4, after=2, more=0, less=2)),
        (QUZHOU, LARGE, RowChange(before=2, after=4, more=2, less=0)),
        (QUZHOU, a_grant(rows="city = '3301'"), RowChange(before=2, after=1, more=1, less=2)),
        (QUZHOU, QUZHOU, RowChange(before=2, after=2, more=0, less=0)),
        (a_grant(rows="NOT city = '3308'"), None, RowChange(before=1, after=0, more=0, less=1)),
    ],
)
def test_the_newest_record_of_each_key_counts(
    monkeypatch: pytest.MonkeyPatch, before: Any, after: Any, change: RowChange
) -> None:
    topic = Topic(*RECORDS)

    assert counted(monkeypatch, topic, Impact(before=before, after=after)) == {"tax-firms": change}


def test_one_pass_over_a_topic_serves_all_its_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic(*RECORDS)
    other = replace(LARGE, id="other")

    found = counted(monkeypatch, topic, Impact(before=None, after=QUZHOU), Impact(before=ALL, after=None),
                    Impact(before=None, after=other))  # fmt: skip

    assert topic.read == 1
    assert found["other"] == RowChange(before=0, after=4, more=4, less=0)


def test_a_record_that_the_exchange_rejects_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = mangled(firm(1, "a"), b"\x00\x00\x00\x00\x64\xff")
    foreign = Record(2, b"no key of ours", VALUE.id.to_bytes(5, "big"))

    found = counted(monkeypatch, Topic(firm(0, "a"), broken, foreign), Impact(before=None, after=QUZHOU))

    assert found["tax-firms"].after == 1


def test_of_events_every_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    events = replace(FIRMS, resource=a_resource(kind=ResourceKind.EVENT))

    found = counted(
        monkeypatch, Topic(firm(0, "a"), firm(1, "a")), Impact(before=None, after=QUZHOU), stored=events
    )

    assert found["tax-firms"].after == 2


def test_what_is_not_there_yet_has_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    none = {"tax-firms": RowChange(before=0, after=0, more=0, less=0)}
    new = Impact(before=None, after=ALL)

    assert counted(monkeypatch, Topic(*RECORDS), new, stored=None) == none
    assert counted(monkeypatch, Topic(error=RefusedError("no topic")), new) == none
    unknown_field = Impact(before=None, after=a_grant(rows="opened_later = 'x'"))
    assert counted(monkeypatch, Topic(*RECORDS), unknown_field) == none


def test_a_count_that_is_not_complete_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Impact(before=None, after=ALL)

    assert counted(monkeypatch, Topic(*RECORDS, error=BrokerUnavailableError("gone")), new) == {}
    assert counted(monkeypatch, Topic(*RECORDS), new, seconds=-1) == {}
