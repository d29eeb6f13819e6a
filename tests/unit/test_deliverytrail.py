"""What is told of a row behind the decision: only what was seen, and when it cannot be seen, why."""

from __future__ import annotations

from datetime import timedelta

from govbus.deliverytrail import LandingFacts, Trail, follow
from govbus.explanation import Circumstances, Gate, GateName, Status, judge
from govbus.grant import GrantState
from support.explaining import BEFORE, TOPIC, a_decision, a_trail, circumstances, delivered, gate
from support.policies import NOON, a_grant

LATER = BEFORE + timedelta(minutes=5)


def followed(
    c: Circumstances, trail: Trail | None, landing: LandingFacts | None = None
) -> dict[GateName, Gate]:
    gates = follow(c, judge(c), trail, landing)
    assert [one.name for one in gates] == [GateName.ROUTED, GateName.LANDED, GateName.AFTERWARDS]
    return {one.name: gate(gates, one.name) for one in gates}


def test_the_delivery_of_a_change_is_found_by_its_key_and_time() -> None:
    trail = a_trail(
        delivered(3, changed_at=BEFORE - timedelta(minutes=1)), delivered(7), decisions=(a_decision(),)
    )

    told = followed(circumstances(), trail)

    assert told[GateName.ROUTED].status is Status.PASS
    assert told[GateName.ROUTED].why == f"delivered under schema 200 at {TOPIC}[0]@7"
    assert told[GateName.ROUTED].at == NOON
    assert told[GateName.AFTERWARDS].status is Status.PASS


def test_of_two_deliveries_of_one_change_that_under_the_agreement_in_question_counts() -> None:
    told = followed(circumstances(), a_trail(delivered(3, schema_id=150), delivered(7)))

    assert told[GateName.ROUTED].why.endswith("@7")


def test_a_denied_batch_is_not_the_time_of_a_delivery() -> None:
    trail = a_trail(
        delivered(7), decisions=(a_decision(permitted=False), a_decision(first_offset=1, version=2))
    )

    assert followed(circumstances(), trail)[GateName.ROUTED].at is None


def test_a_tombstone_for_a_row_that_left_the_view_is_told_as_one() -> None:
    c = circumstances(a_grant(rows="staff > 9"))

    told = followed(c, a_trail(delivered(3, changed_at=BEFORE - timedelta(1)), delivered(4, schema_id=None)))

    assert told[GateName.ROUTED].why == f"a tombstone at {TOPIC}[0]@4"


def test_each_reason_for_not_seeing_a_delivery_is_told_apart() -> None:
    shared, denied = circumstances(), circumstances(a_grant(state=GrantState.REVOKED))
    later = delivered(9, changed_at=LATER)
    earlier = delivered(2, changed_at=BEFORE - timedelta(1))
    cases = [
        (shared, a_trail(there=False), Status.UNKNOWN, "is not there"),
        (shared, a_trail(key_known=False, decisions=(a_decision(),)), Status.UNKNOWN, "1 delivered from"),
        (shared, a_trail(exchanged_to=0), Status.UNKNOWN, "has not come to this record yet"),
        (shared, a_trail(later), Status.UNKNOWN, "compacted away: govbus.delivered.tax.tax-firms[0]@9"),
        (shared, a_trail(), Status.STOP, "no delivery of it stands in the topic"),
        (denied, a_trail(), Status.STOP, "nothing was delivered of it"),
        (denied, a_trail(earlier), Status.STOP, "what was delivered before stands at"),
    ]
    for c, trail, status, why in cases:
        routed = followed(c, trail)[GateName.ROUTED]

        assert (routed.status, why in routed.why) == (status, True), routed.why


def test_nothing_is_looked_for_without_a_grant_or_a_row() -> None:
    told = followed(circumstances(no_grant=True), None)

    assert {one.status for one in told.values()} == {Status.NOT_ASKED}


def test_what_came_after_a_delivery_is_its_overwriting_or_its_removal() -> None:
    c = circumstances(latest=False)

    over = followed(c, a_trail(delivered(3), delivered(9, schema_id=201, changed_at=LATER)))
    gone = followed(c, a_trail(delivered(3), delivered(9, schema_id=None, changed_at=LATER)))

    assert (over[GateName.AFTERWARDS].status, over[GateName.AFTERWARDS].at) == (Status.STOP, LATER)
    assert "overwritten by" in over[GateName.AFTERWARDS].why
    assert "told to remove the row" in gone[GateName.AFTERWARDS].why


def test_nothing_on_the_bus_says_whether_a_delivery_has_landed() -> None:
    landed = followed(circumstances(), a_trail(delivered(3)))[GateName.LANDED]

    assert (landed.status, "in its own database alone" in landed.why) == (Status.UNKNOWN, True)


def test_the_departments_own_store_says_what_became_of_a_delivery() -> None:
    cases = [
        (
            LandingFacts(next_offset=4, row_offset=3, landed_at=NOON),
            Status.PASS,
            "stands in the landing table",
        ),
        (LandingFacts(next_offset=9, row_offset=8, landed_at=NOON), Status.PASS, "a later delivery"),
        (LandingFacts(next_offset=9, purged_at=NOON), Status.PASS, "purged with its grant"),
        (LandingFacts(next_offset=9), Status.PASS, "not there any more"),
        (LandingFacts(next_offset=3), Status.STOP, "has not come to it yet"),
        (LandingFacts(next_offset=None), Status.STOP, "has not come to it yet"),
        (LandingFacts(next_offset=9, dead_letter="undecodable"), Status.STOP, "put aside by landing"),
    ]
    for facts, status, why in cases:
        landed = followed(circumstances(), a_trail(delivered(3)), facts)[GateName.LANDED]

        assert (landed.status, why in landed.why) == (status, True), landed.why
