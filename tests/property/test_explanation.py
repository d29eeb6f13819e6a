"""The answer of an explanation is what the exchange does: for any grant, row, moment and share type."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from govbus.catalogue import ShareType
from govbus.errors import RefusedError
from govbus.explanation import Answer, Circumstances, answer_of, judge
from govbus.grant import Grant, GrantState
from govbus.policy import check_grant, decide
from govbus.transform import Transform
from govbus_processors.batch import Batch, Slice
from govbus_processors.exchange import Exchange, SchemaBook
from govbus_processors.keyset import KeySet
from govbus_processors.membership import Membership
from support.explaining import circumstances, version_of
from support.permission_strategies import transforms
from support.policies import (
    CONTRACT,
    KEY,
    NOON,
    SOURCE,
    VALUE,
    Record,
    a_grant,
    a_policy,
    a_resource,
    firm,
    gone,
    mangled,
    published,
    rules,
)

SECRET = b"s" * 32
_TERMS = st.sampled_from([(-9, 9), (-9, 9), (-9, 1), (0, 9), (-9, 0), (1, 9), (-9, -1)])
"""Days around noon from which and until which a grant runs; mostly in force, so that the row is asked."""

_STATES = st.sampled_from([GrantState.ACTIVE] * 6 + list(GrantState))
_ROWS = [None, "city = '3308'", "NOT city = '3308'", "staff > 5 AND city IS NOT NULL", "name LIKE 'n%'"]


class _Known:
    """A registry that knows the firms' schemas."""

    def schema(self, schema_id: int) -> Any:
        return {VALUE.id: VALUE, KEY.id: KEY}[schema_id]


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    """Any grant of firms that can come into being, in any state and term."""

    def fits(rule: tuple[str, Transform]) -> bool:
        try:
            given = rules("code", (rule[0], rule[1].spec()))
            check_grant(a_grant(fields=given), CONTRACT, ShareType.CONDITIONAL)
        except RefusedError:
            return False
        return True

    names = draw(st.lists(st.sampled_from(["name", "city", "staff"]), unique=True))
    shown = [(name, draw(transforms().filter(lambda how, name=name: fits((name, how))))) for name in names]
    start, end = (NOON + timedelta(days=days) for days in draw(_TERMS))
    key = draw(st.sampled_from(["code", ("code", {"pseudonym": {"epoch": 1}})]))
    return a_grant(
        fields=rules(key, *[(name, how.spec()) for name, how in shown]),
        rows=draw(st.sampled_from(_ROWS)),
        state=draw(_STATES),
        starts_at=start,
        expires_at=end,
    )


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A firm as its owner may publish it: whole, deleted, mangled, or under another firm's key."""
    row = firm(
        0,
        "A",
        name=draw(st.sampled_from(["name", "other", ""])),
        city=draw(st.sampled_from(["3308", "3301", None])),
        staff=draw(st.integers(0, 10)),
    )
    value = row.value()
    assert value is not None
    kind = draw(st.sampled_from(["whole"] * 5 + ["gone", "mangled", "another's"]))
    if kind == "gone":
        return gone(0, "A")
    if kind == "mangled":
        return mangled(row, value[: draw(st.integers(0, len(value) - 1))])
    return mangled(firm(0, "B"), value) if kind == "another's" else row


def _delivers(grant: Grant, record: Record, share_type: ShareType) -> bool:
    """Let the exchange itself work on the record, under the policy of the moment."""
    known = published(grant)
    policy = a_policy(known, resource=a_resource(share_type=share_type))
    (route,) = policy.routes[SOURCE]
    if not route.decide(now=NOON, fresh=True).permits:
        return False
    membership, schemas = Membership(), SchemaBook(_Known(), wait_seconds=0.0)  # type: ignore[arg-type]
    membership.install((route.topic, 0), KeySet())
    exchange = Exchange(worker="w", schemas=schemas, membership=membership, pseudonym_secret=SECRET)
    part = Slice(place=(SOURCE, 0), start=0, messages=[record], routes=(route,))
    batch = Batch(policy=policy, now=NOON, slices=[part])
    outcome = exchange.process(batch)
    while outcome.waiting and schemas.fetch():
        exchange.rollback()
        outcome = exchange.process(batch)
    assert not outcome.waiting
    return any(output[1] is not None for output in outcome.deliveries.get(route.topic, []))


def _asked(grant: Grant, record: Record, share_type: ShareType) -> Circumstances:
    return circumstances(grant, version_of(record), share_type=share_type)


@given(
    grant=grants(),
    record=records(),
    share_type=st.sampled_from([ShareType.CONDITIONAL, ShareType.CONDITIONAL, *ShareType]),
)
def test_the_answer_is_what_the_exchange_does(grant: Grant, record: Record, share_type: ShareType) -> None:
    answer, stopped_by = answer_of(judge(_asked(grant, record, share_type)))

    assert answer is (Answer.SHARED if _delivers(grant, record, share_type) else Answer.NOT_SHARED)
    assert (stopped_by is None) == (answer is Answer.SHARED)


@given(grant=grants(), record=records(), share_type=st.sampled_from(ShareType))
def test_what_the_policy_denies_is_never_explained_as_shared(
    grant: Grant, record: Record, share_type: ShareType
) -> None:
    decision = decide(share_type=share_type, grant=grant, now=NOON, fresh=True)

    answer, _ = answer_of(judge(_asked(grant, record, share_type)))

    assert decision.permits or answer is Answer.NOT_SHARED
