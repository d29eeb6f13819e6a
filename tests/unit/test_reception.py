"""Who received a row: what is certain, what is only possible, and nobody else."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from govbus import topics
from govbus.deliverytrail import Delivered
from govbus.explanation import Answer, GrantVersion, RowHistory, RowVersion, answer_of, judge
from govbus.grant import GrantState
from govbus.reception import Certainty, Evidence, Period, Reception, periods, receive
from support.explaining import (
    BEFORE,
    TOPIC,
    a_decision,
    circumstances,
    delivered,
    history,
    version_of,
)
from support.policies import NOON, a_grant, firm, gone, published

DAY = timedelta(days=1)
EAST = "city = '3308'"


def a_version(
    number: int = 1, *, made_at: datetime = BEFORE - 10 * DAY, schema_id: int = 200, **changes: Any
) -> GrantVersion:
    """A version of tax's grant, with a term that began long ago."""
    given: dict[str, Any] = {"version": number, "rows": EAST, "starts_at": NOON - 100 * DAY} | changes
    shown = published(a_grant(**given), value_schema_id=schema_id)
    return GrantVersion(published=shown.grant, made_at=made_at)


def evidence(*found: Delivered, **changes: Any) -> Evidence:
    given: dict[str, Any] = {"there": True, "key_known": True, "found": found}
    return Evidence(**given | changes)


def judged(period: Period, row: RowVersion) -> Answer:
    """Decide about a version of the row as the exchange would."""
    grant = period.grant
    c = circumstances(grant, row, at=max(period.start, row.changed_at))
    return answer_of(judge(c))[0]


def received(
    *versions: GrantVersion, rows: RowHistory | None = None, seen: Evidence | None = None
) -> list[Reception]:
    known = rows or history(version_of(firm(0, "A")))
    return list(receive(versions, TOPIC, known, seen or evidence(), judged, now=NOON))


def test_a_record_that_stands_in_the_topic_was_delivered_under_the_version_that_it_names() -> None:
    first = a_version()
    second = a_version(2, made_at=BEFORE - DAY, schema_id=210)

    seen = evidence(delivered(4, schema_id=210), decisions=(a_decision(version=2, value_schema_id=210),))
    found = received(first, second, rows=history(version_of(firm(0, "A"))), seen=seen)

    (one,) = [got for got in found if got.certainty is Certainty.DELIVERED]
    assert one.grant.version == 2
    assert [(d.delivery.at.offset, d.decided_at) for d in one.deliveries] == [(4, NOON)]


def test_the_time_of_a_delivery_is_that_of_the_batch_that_held_its_change() -> None:
    other_batch = a_decision(first_offset=5)

    (one,) = received(a_version(), seen=evidence(delivered(4), decisions=(other_batch,)))

    assert [d.decided_at for d in one.deliveries] == [None]


def test_a_row_outside_the_view_was_not_received() -> None:
    assert received(a_version(), rows=history(version_of(firm(0, "A", city="3301")))) == []


def test_a_row_that_was_within_the_view_and_cannot_be_seen_was_possibly_received() -> None:
    cases = [
        (evidence(there=False), "its delivery topic is not there any more"),
        (evidence(key_known=False), "its key there is a pseudonym"),
        (evidence(delivered(9, schema_id=999)), "a later delivery has taken the place"),
        (evidence(), "no delivery of it stands in the topic"),
    ]
    for seen, why in cases:
        (one,) = received(a_version(), seen=seen)

        assert (one.certainty, one.deliveries) == (Certainty.POSSIBLE, ())
        assert one.why.startswith("the row was within the view; ")
        assert why in one.why


def test_a_row_whose_past_is_forgotten_was_possibly_received_even_if_it_is_outside_the_view_now() -> None:
    outside = version_of(firm(7, "A", city="3301"))

    (one,) = received(a_version(), rows=history(outside, complete=False))
    after = received(a_version(made_at=BEFORE + timedelta(minutes=1)), rows=history(outside, complete=False))

    assert (one.certainty, "not known any more" in one.why) == (Certainty.POSSIBLE, True)
    assert after == []


def test_counts_of_nothing_delivered_exclude_what_would_be_possible() -> None:
    nothing = (a_decision(delivered=0),)

    assert received(a_version(), seen=evidence(decisions=nothing, counts_whole=True)) == []
    assert received(a_version(), seen=evidence(decisions=nothing, counts_whole=False))
    assert received(a_version(), seen=evidence(decisions=(a_decision(),), counts_whole=True))


def test_only_who_held_a_row_is_told_that_it_left() -> None:
    left = history(version_of(firm(0, "A"), BEFORE - DAY), version_of(firm(1, "A", city="3301")))
    told = evidence(delivered(9, schema_id=None))

    (filtered,) = received(a_version(), rows=left, seen=told)
    (whole,) = received(a_version(rows=None), rows=left, seen=told)

    assert (filtered.certainty, whole.certainty) == (Certainty.DELIVERED, Certainty.POSSIBLE)
    assert "told to remove the row" in filtered.why


def test_a_tombstone_does_not_say_under_which_of_two_agreements_the_row_came() -> None:
    versions = (a_version(), a_version(2, made_at=BEFORE - 5 * DAY, schema_id=210))
    rows = history(version_of(firm(0, "A"), BEFORE - 20 * DAY), version_of(gone(1, "A")))

    found = received(*versions, rows=rows, seen=evidence(delivered(9, schema_id=None)))

    assert [one.certainty for one in found] == [Certainty.POSSIBLE] * 2
    assert all("it came under one of these agreements" in one.why for one in found)


def test_a_grant_delivers_only_while_it_is_active_and_within_its_term() -> None:
    versions = (
        a_version(1, made_at=NOON - 9 * DAY),
        a_version(2, made_at=NOON - 7 * DAY, state=GrantState.SUSPENDED),
        a_version(3, made_at=NOON - 5 * DAY, expires_at=NOON - 2 * DAY),
        a_version(4, made_at=NOON - DAY, starts_at=NOON + DAY),
    )

    found = periods(versions, NOON)

    assert [(one.grant.version, one.start, one.end) for one in found] == [
        (1, NOON - 9 * DAY, NOON - 7 * DAY),
        (3, NOON - 5 * DAY, NOON - 2 * DAY),
    ]
    assert periods((a_version(made_at=NOON - DAY),), NOON)[0].end is None


def test_a_row_that_came_after_the_grant_had_ended_was_not_received() -> None:
    versions = (
        a_version(made_at=BEFORE - 9 * DAY),
        a_version(2, made_at=BEFORE - 7 * DAY, state=GrantState.REVOKED),
    )

    assert received(*versions) == []
    assert received(*versions, rows=history(version_of(firm(0, "A"), BEFORE - 8 * DAY)))


def test_a_new_grant_begins_with_the_row_as_it_stands() -> None:
    (one,) = received(a_version(), rows=history(version_of(firm(0, "A"), BEFORE - 500 * DAY)))

    assert one.certainty is Certainty.POSSIBLE


def test_a_row_that_had_left_the_view_before_the_grant_began_was_not_received() -> None:
    left = history(
        version_of(firm(0, "A"), BEFORE - 20 * DAY),
        version_of(firm(1, "A", city="3301"), BEFORE - 15 * DAY),
    )

    assert received(a_version(made_at=BEFORE - 10 * DAY), rows=left) == []
    assert received(a_version(made_at=BEFORE - 16 * DAY), rows=left)


def test_of_a_shared_topic_a_department_received_only_what_came_while_it_could_read() -> None:
    topic = topics.shared("registrar", "firms", "v1")
    given = a_version(rows=None, made_at=BEFORE - 9 * DAY)
    shared = replace(given, published=replace(given.published, delivery_topic=topic))
    ended = replace(
        shared,
        published=replace(shared.published, grant=replace(shared.grant, version=2, state=GrantState.REVOKED)),
        made_at=BEFORE - 7 * DAY,
    )
    rows = history(version_of(firm(0, "A"), BEFORE))
    seen = evidence(delivered(4, changed_at=BEFORE))

    still = receive((shared,), topic, rows, seen, judged, now=NOON)
    not_any_more = receive((shared, ended), topic, rows, seen, judged, now=NOON)

    assert [(one.certainty, one.shared) for one in still] == [(Certainty.DELIVERED, True)]
    assert not_any_more == ()


def test_versions_that_are_delivered_elsewhere_are_left_out() -> None:
    found = receive((a_version(),), "govbus.delivered.tax.other", history(), evidence(), judged, now=NOON)

    assert found == ()
