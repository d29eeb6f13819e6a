"""The table of transitions is the whole of a request's life: no path leads round it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govbus.errors import TransitionRefusedError
from govbus.grant import GrantState
from govbus.request import (
    FINAL,
    FOLLOWS,
    TRANSITIONS,
    Action,
    Effect,
    Party,
    RequestState,
    approval_action,
    transition,
    wider,
)
from support.permission_strategies import grants

PARTIES = st.frozensets(st.sampled_from(Party))
STEPS = {(line.before, line.action): line for line in TRANSITIONS}


@given(state=st.sampled_from(RequestState), action=st.sampled_from(Action), parties=PARTIES)
def test_a_step_is_possible_exactly_when_the_table_has_it_for_one_of_the_parties(
    state: RequestState, action: Action, parties: frozenset[Party]
) -> None:
    line = STEPS.get((state, action))

    if line is not None and line.who & parties:
        assert transition(state, action, parties) == line
    else:
        with pytest.raises(TransitionRefusedError):
            transition(state, action, parties)


def test_nobody_gets_data_without_a_decision_of_the_owner_an_emergency_or_the_rules() -> None:
    deciding = {Action.APPROVE, Action.CONFIRM, Action.OPEN, Action.BREAK_GLASS}
    undecided = {RequestState.DRAFT}
    for _ in RequestState:
        undecided |= {
            line.after for line in TRANSITIONS if line.before in undecided and line.action not in deciding
        }

    assert undecided.isdisjoint({RequestState.APPROVED, RequestState.PROVISIONED, RequestState.SUSPENDED})
    assert {line.before for line in TRANSITIONS if line.after is RequestState.PROVISIONED} == {
        RequestState.APPROVED,
        RequestState.SUSPENDED,
    }


def test_the_table_has_no_two_lines_for_one_step_and_reaches_every_state() -> None:
    assert len(STEPS) == len(TRANSITIONS)
    reached = {RequestState.DRAFT}
    for _ in RequestState:
        reached |= {line.after for line in TRANSITIONS if line.before in reached}
    assert reached == set(RequestState)


def test_exactly_the_final_states_are_left_by_nothing() -> None:
    assert set(RequestState) - {line.before for line in TRANSITIONS} == FINAL


def test_whoever_asks_never_decides() -> None:
    deciding = {Action.TAKE, Action.ASK, Action.ENDORSE, Action.APPROVE, Action.CONFIRM, Action.REJECT}
    assert all(Party.REQUESTER not in line.who for line in TRANSITIONS if line.action in deciding)
    granting = [line for line in TRANSITIONS if Effect.MAKE_GRANT in line.effects]
    assert all(Party.REQUESTER not in line.who for line in granting)
    assert {line.after for line in granting} == {RequestState.APPROVED}


def test_only_an_emergency_skips_the_review_and_it_causes_one_afterwards() -> None:
    for line in TRANSITIONS:
        assert (Effect.AFTER_REVIEW in line.effects) == (line.action is Action.BREAK_GLASS)


@given(needed=st.sampled_from([1, 2]))
def test_the_last_approval_that_is_needed_grants_and_none_before(needed: int) -> None:
    steps = [approval_action(needed, given) for given in range(needed)]

    afters = [STEPS[RequestState.IN_REVIEW, step].after for step in steps]
    assert afters == [RequestState.IN_REVIEW] * (needed - 1) + [RequestState.APPROVED]
    assert (Party.SECOND_APPROVER in STEPS[RequestState.IN_REVIEW, steps[-1]].who) == (needed == 2)


@given(
    state=st.sampled_from([RequestState.PROVISIONED, RequestState.SUSPENDED]),
    grant=st.sampled_from(GrantState),
)
def test_following_a_grant_ends_in_the_state_that_says_the_same(
    state: RequestState, grant: GrantState
) -> None:
    same = {
        GrantState.ACTIVE: RequestState.PROVISIONED,
        GrantState.SUSPENDED: RequestState.SUSPENDED,
        GrantState.REVOKED: RequestState.REVOKED,
        GrantState.EXPIRED: RequestState.EXPIRED,
    }
    action = FOLLOWS.get((state, grant))

    after = state if action is None else STEPS[state, action].after
    assert after is same[grant]


@given(old=grants(), new=grants())
def test_a_version_that_is_not_wider_shows_no_field_row_or_day_more(old: object, new: object) -> None:
    from dataclasses import replace

    from govbus.grant import Grant

    assert isinstance(old, Grant)
    assert isinstance(new, Grant)
    assert not wider(old, old)
    assert wider(old, replace(old, expires_at=old.expires_at + timedelta(seconds=1)))
    if not wider(old, new):
        assert set(new.fields) <= set(old.fields)
        assert old.rows in (None, new.rows)
        assert new.expires_at <= old.expires_at
        assert new.starts_at >= old.starts_at
    if old.fields:
        assert not wider(old, replace(old, fields=old.fields[1:]))
        assert wider(replace(old, fields=old.fields[1:]), old)
