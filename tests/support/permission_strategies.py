"""Hypothesis strategies for the permission model: transforms and grants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from govbus.grant import DataDuty, FieldRule, Grant, GrantState
from govbus.transform import (
    Generalise,
    Grain,
    Keep,
    Null,
    Partial,
    Pseudonym,
    Redact,
    Transform,
    Truncate,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""The moment around which the terms of drawn grants lie."""

_CONSTANTS = st.one_of(
    st.text(max_size=5),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.dates().map(str),
    st.datetimes().map(lambda at: at.isoformat()),
    st.uuids().map(str),
    st.sampled_from(["S0", "0.00", "00:00:00", "1900-01-01T00:00:00Z"]),
)
_TIMES = [Grain.YEAR, Grain.MONTH, Grain.DATE, Grain.HOUR]


def transforms() -> st.SearchStrategy[Transform]:
    """Any transform at all, whether or not it fits a type."""
    return st.one_of(
        st.just(Keep()),
        st.just(Null()),
        st.just(Pseudonym()),
        st.integers(1, 2**31 - 1).map(lambda epoch: Pseudonym(epoch=epoch)),
        st.just(Pseudonym(hash="sm3")),
        st.builds(Partial, head=st.integers(0, 4), tail=st.integers(0, 4), mask=st.sampled_from("*#某")),
        st.integers(1, 8).map(lambda length: Truncate(length=length)),
        st.sampled_from(_TIMES).map(lambda to: Generalise(to=to)),
        st.integers(1, 8).map(lambda size: Generalise(to=Grain.PREFIX, size=size)),
        st.one_of(st.integers(1, 100), st.integers(1, 2**63 - 1)).map(
            lambda size: Generalise(to=Grain.BAND, size=size)
        ),
        _CONSTANTS.map(lambda constant: Redact(constant=constant)),
    )


@st.composite
def grants(draw: st.DrawFn, *, names: tuple[str, ...] = ("code", "name", "level", "phone")) -> Grant:
    """Any grant on ``stats.divisions``, in any state, with a term anywhere around :data:`NOON`."""
    moments = st.sampled_from([-400, -1, 0, 1, 400]).map(lambda days: NOON + timedelta(days=days))
    chosen = draw(st.lists(st.sampled_from(names), unique=True))
    return Grant(
        id=draw(st.sampled_from(["divisions-for-health", "g1"])),
        version=draw(st.integers(1, 3)),
        state=draw(st.sampled_from(GrantState)),
        subscriber=draw(st.sampled_from(["health", "tax"])),
        owner="stats",
        resource="divisions",
        fields=tuple(FieldRule(name=name, transform=draw(transforms())) for name in chosen),
        rows=draw(st.sampled_from([None, "code LIKE '3308%'", "level = 2"])),
        purpose=draw(st.sampled_from(["planning", "care"])),
        starts_at=draw(moments),
        expires_at=draw(moments),
        data_on_end=draw(st.sampled_from(DataDuty)),
        quota_records_per_day=draw(st.sampled_from([None, 1, 10_000])),
        quota_keys_per_day=draw(st.sampled_from([None, 1, 10_000])),
    )
