"""Every route has one cursor per partition; whoever holds it exchanges the record."""

from __future__ import annotations

from datetime import timedelta

import pytest

from govbus.grant import GrantState
from govbus_processors.cursors import Cursor, Cursors
from support.policies import NOON, SOURCE, a_grant, a_policy, firm, published

PLACE = (SOURCE, 0)


def live(cursors: Cursors, policy, start: int = 0):
    return cursors.live_slice(PLACE, [firm(start, "1")], policy=policy, now=NOON, fresh=True)


@pytest.fixture
def cursors() -> Cursors:
    return Cursors(forgets_after=timedelta(days=6))


def test_routes_of_a_partition_that_nobody_read_before_are_live_from_its_first_record(cursors) -> None:
    policy = a_policy(published(a_grant()))
    cursors.assign(PLACE, None, {})

    part = live(cursors, policy)

    assert [route.label for route in part.routes] == ["tax-firms"]
    assert cursors.staged()["govbus.delivered.tax.tax-firms", 0].live


def test_a_grant_that_is_new_to_a_partition_with_a_past_is_behind_and_takes_no_part(cursors) -> None:
    policy = a_policy(published(a_grant()))
    cursors.assign(PLACE, 500, {})

    part = live(cursors, policy, 500)

    assert part.routes == ()
    assert [(place, at) for place, at, _ in cursors.behind(policy, now=NOON, fresh=True)] == [(PLACE, 0)]


def test_a_route_that_arrived_at_the_present_takes_part_again(cursors) -> None:
    policy = a_policy(published(a_grant()))
    cursors.assign(PLACE, 500, {})
    ((_, _, routes),) = cursors.behind(policy, now=NOON, fresh=True)

    cursors.caught_up_to(PLACE, routes, 500, live=True, begun=begun(routes), now=NOON)
    cursors.commit({})

    assert len(live(cursors, policy, 500).routes) == 1
    assert cursors.behind(policy, now=NOON, fresh=True) == []


def begun(routes, *, sweep: int = 0, since=NOON) -> dict[str, Cursor]:
    """Cursors of routes that begin from the start."""
    return {r.topic: Cursor(r.first.view, live=False, offset=0, since=since, sweep=sweep) for r in routes}


def test_a_route_that_has_something_to_sweep_arrives_and_is_live_only_after_it(cursors) -> None:
    policy = a_policy(published(a_grant()))
    cursors.assign(PLACE, 500, {})
    ((_, _, routes),) = cursors.behind(policy, now=NOON, fresh=True)

    cursors.caught_up_to(PLACE, routes, 500, live=True, begun=begun(routes, sweep=70), now=NOON)
    cursors.commit({})
    arrived = live(cursors, policy, 500).routes
    cursors.sweeping(PLACE, routes[0], NOON, done=False)
    cursors.commit({})
    swept_in_part = live(cursors, policy, 500).routes
    cursors.sweeping(PLACE, routes[0], NOON, done=True)
    cursors.commit({})

    assert (arrived, swept_in_part) == ((), ())
    assert len(live(cursors, policy, 500).routes) == 1


def test_what_was_swept_while_the_partition_went_on_is_brought_on_before_it_is_live(cursors) -> None:
    policy = a_policy(published(a_grant()))
    cursors.assign(PLACE, 500, {})
    ((_, _, routes),) = cursors.behind(policy, now=NOON, fresh=True)
    cursors.caught_up_to(PLACE, routes, 500, live=True, begun=begun(routes, sweep=70), now=NOON)
    cursors.commit({PLACE: 600})

    cursors.sweeping(PLACE, routes[0], NOON, done=True)
    cursors.commit({})

    assert [at for _, at, _ in cursors.behind(policy, now=NOON, fresh=True)] == [500]
    assert cursors.of(routes[0], 0).sweep == 0


@pytest.mark.parametrize(("days", "goes_on_from"), [(5, 300), (7, 0)])
def test_a_route_that_was_behind_for_longer_than_deletions_are_kept_begins_again(
    cursors, days: int, goes_on_from: int
) -> None:
    grant = published(a_grant())
    stood = Cursor(grant.grant.view, live=False, offset=300, since=NOON - timedelta(days=days))
    cursors.assign(PLACE, 500, {grant.grant.delivery_topic: stood})

    assert [at for _, at, _ in cursors.behind(a_policy(grant), now=NOON, fresh=True)] == [goes_on_from]


def test_a_long_way_from_the_start_does_not_begin_again_while_it_goes_on(cursors) -> None:
    """Its sweep makes up for what was missed before; only standing still counts."""
    policy = a_policy(published(a_grant()))
    cursors.assign(PLACE, 500, {})
    ((_, _, routes),) = cursors.behind(policy, now=NOON, fresh=True)
    cursors.caught_up_to(PLACE, routes, 100, live=False, begun=begun(routes, sweep=70), now=NOON)
    cursors.commit({})
    for day in (4, 8, 12):
        at = NOON + timedelta(days=day)
        assert [offset for _, offset, _ in cursors.behind(policy, now=at, fresh=True)] == [100]
        cursors.caught_up_to(PLACE, routes, 100, live=False, begun={}, now=at)
        cursors.commit({})

    late = NOON + timedelta(days=19)
    assert [offset for _, offset, _ in cursors.behind(policy, now=late, fresh=True)] == [0]


def test_catching_up_goes_on_from_the_stored_cursor(cursors) -> None:
    grant = published(a_grant())
    stored = {grant.grant.delivery_topic: Cursor(grant.grant.view, live=False, offset=300)}

    cursors.assign(PLACE, 500, stored)

    assert [at for _, at, _ in cursors.behind(a_policy(grant), now=NOON, fresh=True)] == [300]


def test_an_amended_view_begins_again_from_the_start_and_is_out_of_live_batches_at_once(cursors) -> None:
    before = published(a_grant())
    amended = published(a_grant(version=2, rows="city = '3308'"), value_schema_id=210)
    stored = {before.grant.delivery_topic: Cursor(before.grant.view, live=True, offset=0)}
    cursors.assign(PLACE, 500, stored)

    part = live(cursors, a_policy(amended), 500)

    assert part.routes == ()
    assert [at for _, at, _ in cursors.behind(a_policy(amended), now=NOON, fresh=True)] == [0]


def test_a_renewed_grant_with_the_same_view_goes_on_where_it_is(cursors) -> None:
    before = published(a_grant())
    renewed = published(a_grant(version=2, expires_at=NOON + timedelta(days=900)), value_schema_id=210)
    stored = {before.grant.delivery_topic: Cursor(before.grant.view, live=True, offset=0)}
    cursors.assign(PLACE, 500, stored)

    part = live(cursors, a_policy(renewed), 500)

    assert len(part.routes) == 1


def test_a_suspended_grant_stands_still_and_catches_up_from_there(cursors) -> None:
    active = published(a_grant())
    suspended = published(a_grant(version=2, state=GrantState.SUSPENDED))
    stored = {active.grant.delivery_topic: Cursor(active.grant.view, live=True, offset=0)}
    cursors.assign(PLACE, 500, stored)

    part = live(cursors, a_policy(suspended), 500)
    cursors.commit({PLACE: 600})

    assert [reason for _, reason in part.refused] == ["grant-suspended"]
    assert cursors.behind(a_policy(suspended), now=NOON, fresh=True) == []
    assert [at for _, at, _ in cursors.behind(a_policy(active), now=NOON, fresh=True)] == [500]


def test_a_grant_that_cannot_be_read_for_a_while_gets_what_passed_meanwhile(cursors) -> None:
    """It has no route then, so nothing but its cursor says that the partition moved on without it."""
    known = published(a_grant())
    stored = {known.grant.delivery_topic: Cursor(known.grant.view, live=True, offset=0)}
    cursors.assign(PLACE, 500, stored)

    part = live(cursors, a_policy(), 500)
    source = cursors.source_of((known.grant.delivery_topic, 0))
    cursors.commit({PLACE: 600})

    assert part.routes == ()
    assert source == SOURCE
    assert live(cursors, a_policy(known), 600).routes == ()
    assert [at for _, at, _ in cursors.behind(a_policy(known), now=NOON, fresh=True)] == [500]


def test_a_revoked_grant_loses_its_cursor(cursors) -> None:
    active = published(a_grant())
    revoked = published(a_grant(version=2, state=GrantState.REVOKED))
    stored = {active.grant.delivery_topic: Cursor(active.grant.view, live=True, offset=0)}
    cursors.assign(PLACE, 500, stored)

    live(cursors, a_policy(revoked), 500)

    assert cursors.staged() == {(active.grant.delivery_topic, 0): None}


def test_nothing_is_brought_on_while_the_policy_is_stale(cursors) -> None:
    policy = a_policy(published(a_grant()))
    cursors.assign(PLACE, 500, {})

    assert cursors.behind(policy, now=NOON, fresh=False) == []


def test_what_an_aborted_batch_staged_did_not_happen(cursors) -> None:
    policy = a_policy(published(a_grant()))
    cursors.assign(PLACE, None, {})
    live(cursors, policy)

    cursors.rollback()

    assert cursors.staged() == {}
    assert cursors.position(PLACE) is None
