"""Whatever the catalogue, the clock and the grant say, a decision never shows more than the grant."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from govbus.catalogue import Classification, ShareType
from govbus.contract import DataContract, parse_contract
from govbus.errors import RefusedError
from govbus.grant import Grant, GrantState, PublishedGrant, grant_from_record, grant_to_record
from govbus.policy import Effect, Reason, check_grant, decide, may_share, view_id
from govbus.topics import is_name
from govbus.transform import Keep, Null, Pseudonym, Redact, result_type
from support.permission_strategies import NOON, grants

MOMENTS = st.integers(-500, 500).map(lambda days: NOON + timedelta(days=days))
IN_FORCE = grants().map(
    lambda grant: replace(
        grant,
        state=GrantState.ACTIVE,
        starts_at=NOON - timedelta(days=501),
        expires_at=NOON + timedelta(days=501),
    )
)
"""At each of the moments. Of grants drawn at random hardly any would be: every rule denies the others."""

NAMES = ("code", "name", "level", "phone")


@st.composite
def contracts(draw: st.DrawFn) -> DataContract:
    """A contract for ``stats.divisions`` with any classifications and any key."""
    types: dict[str, Any] = {"code": "string", "name": ["null", "string"], "level": "int", "phone": "string"}
    return parse_contract(
        json.dumps(
            {
                "type": "record",
                "name": "Divisions",
                "govbus": {"key": draw(st.sampled_from([["code"], ["code", "level"]]))},
                "fields": [
                    {
                        "name": name,
                        "type": types[name],
                        "classification": draw(st.sampled_from(Classification)),
                    }
                    for name in NAMES
                ],
            }
        ),
        owner="stats",
        resource="divisions",
    )


@given(
    share_type=st.sampled_from(ShareType),
    grant=st.one_of(st.none(), grants()),
    now=MOMENTS,
    fresh=st.booleans(),
)
def test_no_decision_ever_shows_more_than_the_grant(
    share_type: ShareType, grant: Grant | None, now: datetime, fresh: bool
) -> None:
    decision = decide(share_type=share_type, grant=grant, now=now, fresh=fresh)

    granted = grant.fields if grant is not None else ()
    assert set(decision.fields) <= set(granted)
    assert decision.permits == (decision.effect is Effect.PERMIT) == bool(decision.fields)
    assert decision.permits == (decision.reason is Reason.PERMITTED)


@given(
    share_type=st.sampled_from(ShareType),
    grant=st.one_of(st.none(), grants(), IN_FORCE),
    now=MOMENTS,
    fresh=st.booleans(),
)
def test_a_permit_means_that_every_single_rule_allows_it(
    share_type: ShareType, grant: Grant | None, now: datetime, fresh: bool
) -> None:
    """Each rule by itself can deny; written here without looking at how the decision is made."""
    allowed = (
        share_type in (ShareType.UNCONDITIONAL, ShareType.CONDITIONAL)
        and fresh
        and grant is not None
        and grant.state is GrantState.ACTIVE
        and grant.starts_at <= now < grant.expires_at
        and len(grant.fields) > 0
    )

    assert decide(share_type=share_type, grant=grant, now=now, fresh=fresh).permits == allowed


_ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.binary(max_size=3))


@given(share_type=_ANYTHING, grant=_ANYTHING, now=_ANYTHING, fresh=_ANYTHING)
def test_nonsense_is_denied_and_never_raises(share_type: Any, grant: Any, now: Any, fresh: Any) -> None:
    assert not decide(share_type=share_type, grant=grant, now=now, fresh=fresh).permits


@given(share_type=st.sampled_from(ShareType), grant=grants(), now=MOMENTS)
def test_asking_again_gives_the_same_answer(share_type: ShareType, grant: Grant, now: datetime) -> None:
    """An auditor replays a decision from what was recorded."""
    first = decide(share_type=share_type, grant=grant, now=now, fresh=True)

    assert decide(share_type=share_type, grant=replace(grant), now=now, fresh=True) == first


@given(
    grant=grants(), contract=contracts(), share_type=st.sampled_from(ShareType), owner_allows=st.booleans()
)
def test_a_grant_that_is_accepted_keeps_the_permission_model(
    grant: Grant, contract: DataContract, share_type: ShareType, owner_allows: bool
) -> None:
    try:
        check_grant(grant, contract, share_type, owner_allows=owner_allows)
    except RefusedError:
        return

    by_name = {rule.name: rule.transform for rule in grant.fields}
    assert share_type is not ShareType.WITHHELD
    assert set(contract.key) <= set(by_name)
    assert all(isinstance(by_name[name], Keep | Pseudonym) for name in contract.key)
    for name, transform in by_name.items():
        result_type(transform, contract.field(name).avro_type)
        told = not isinstance(transform, Null | Redact)
        if share_type is ShareType.UNCONDITIONAL and not owner_allows and told:
            assert not contract.field(name).classification.needs_owner


@given(one=grants(), other=grants(), version=st.integers(1, 3))
def test_grants_share_a_view_exactly_when_they_let_through_the_same(
    one: Grant, other: Grant, version: int
) -> None:
    def let_through(grant: Grant) -> object:
        rules = {rule.name: json.dumps(rule.transform.spec()) for rule in grant.fields}
        own = any(isinstance(rule.transform, Pseudonym) for rule in grant.fields)
        counted = grant.id if grant.has_quota else None
        return rules, grant.rows, (grant.subscriber, grant.purpose) if own else None, counted

    assert (view_id(one, version) == view_id(other, version)) == (let_through(one) == let_through(other))
    assert is_name(view_id(one, version))


@given(grant=grants(), share_type=st.sampled_from(ShareType))
def test_what_is_shared_between_subscribers_holds_nothing_of_one_subscriber(
    grant: Grant, share_type: ShareType
) -> None:
    if may_share(grant, share_type):
        assert share_type is ShareType.UNCONDITIONAL
        assert not grant.has_quota
        assert view_id(replace(grant, subscriber="quzhou", purpose="other"), 1) == view_id(grant, 1)


@given(grant=grants())
def test_a_grant_on_the_bus_reads_back_as_it_was_written(grant: Grant) -> None:
    published = PublishedGrant(
        grant=grant, view=view_id(grant, 1), delivery_topic="t", value_schema_id=1, key_schema_id=2
    )

    assert grant_from_record(grant_to_record(published)) == published
