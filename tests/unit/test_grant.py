"""What a grant must say to be one, when it is in force, and how it travels on ``govbus.grants``."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Any

import fastavro
import pytest

from govbus.catalogue import Resource, ResourceKind, ShareType
from govbus.codec import bus_schema
from govbus.grant import (
    DataDuty,
    FieldRule,
    Grant,
    GrantState,
    PublishedGrant,
    grant_from_record,
    grant_key,
    grant_to_record,
    resource_from_record,
    resource_key,
    resource_to_record,
)
from govbus.transform import Generalise, Grain, Keep, Partial, Pseudonym, Redact

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_grant(**changes: Any) -> Grant:
    grant = Grant(
        id="divisions-for-quzhou",
        version=2,
        state=GrantState.ACTIVE,
        subscriber="quzhou",
        owner="stats",
        resource="divisions",
        fields=(
            FieldRule(name="code", transform=Keep()),
            FieldRule(name="name", transform=Partial(head=1, mask="某")),
            FieldRule(name="born", transform=Generalise(to=Grain.BAND, size=10)),
            FieldRule(name="id", transform=Pseudonym(epoch=2)),
            FieldRule(name="phone", transform=Redact(constant="保密")),
        ),
        rows="code LIKE '3308%'",
        purpose="城市规划",
        starts_at=NOON,
        expires_at=NOON + timedelta(days=365),
        data_on_end=DataDuty.BLANK,
        quota_records_per_day=5_000,
        quota_keys_per_day=1_000,
    )
    return replace(grant, **changes)


def published(**changes: Any) -> PublishedGrant:
    return PublishedGrant(
        grant=a_grant(**changes),
        view="v1",
        delivery_topic="govbus.delivered.quzhou.divisions-for-quzhou",
        value_schema_id=11,
        key_schema_id=12,
    )


def a_resource() -> Resource:
    return Resource(
        owner="stats",
        name="divisions",
        title="统计用区划代码",
        share_type=ShareType.WITHHELD,
        kind=ResourceKind.EVENT,
        contract_version=3,
        key=("code", "year"),
        partitions=4,
        value_schema_id=7,
        key_schema_id=8,
    )


def over_the_bus(schema_name: str, record: dict[str, Any]) -> Any:
    """What a reader gets of a record that was written under the bus's own schema."""
    schema = fastavro.parse_schema(bus_schema(schema_name))
    stream = BytesIO()
    fastavro.schemaless_writer(stream, schema, record)
    stream.seek(0)
    return fastavro.schemaless_reader(stream, schema)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"id": "Divisions"}, "Grant names"),
        ({"id": "a.b"}, "Grant names"),
        ({"subscriber": ""}, "Grant names"),
        ({"owner": "stats."}, "Grant names"),
        ({"resource": "stats.divisions"}, "Grant names"),
        ({"version": 0}, "counts from 1"),
        ({"starts_at": NOON.replace(tzinfo=None)}, "time zone"),
        ({"expires_at": NOON.replace(tzinfo=None)}, "time zone"),
        ({"purpose": "  "}, "what the data is for"),
    ],
)
def test_a_grant_that_cannot_be_is_refused_at_birth(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        a_grant(**changes)


def test_a_grant_is_never_edited() -> None:
    with pytest.raises(FrozenInstanceError):
        a_grant().rows = None  # type: ignore[misc]


def test_a_grant_names_its_resource_as_everything_else_does() -> None:
    assert a_grant().resource_ref == "stats.divisions"


def test_a_grant_is_in_force_from_its_start_until_just_before_its_end() -> None:
    tick = timedelta(microseconds=1)
    grant = a_grant()

    assert not grant.in_force(grant.starts_at - tick)
    assert grant.in_force(grant.starts_at)
    assert grant.in_force(grant.expires_at - tick)
    assert not grant.in_force(grant.expires_at)


def test_the_term_is_an_instant_in_whatever_zone_it_is_written() -> None:
    hangzhou = timezone(timedelta(hours=8))
    grant = a_grant(expires_at=datetime(2026, 3, 2, tzinfo=hangzhou))

    assert grant.in_force(datetime(2026, 3, 1, 15, 59, tzinfo=UTC))
    assert not grant.in_force(datetime(2026, 3, 1, 16, tzinfo=UTC))


@pytest.mark.parametrize("state", [state for state in GrantState if state is not GrantState.ACTIVE])
def test_only_an_active_grant_is_in_force(state: GrantState) -> None:
    assert not a_grant(state=state).in_force(NOON)


@pytest.mark.parametrize("changes", [{}, {"rows": None}, {"fields": ()}, {"state": GrantState.REVOKED}])
def test_a_grant_comes_back_from_the_bus_as_it_went_on_it(changes: dict[str, Any]) -> None:
    sent = published(**changes)

    assert grant_from_record(over_the_bus("grant", grant_to_record(sent))) == sent


def test_a_resource_comes_back_from_the_bus_as_it_went_on_it() -> None:
    sent = a_resource()

    assert resource_from_record(over_the_bus("resource", resource_to_record(sent))) == sent


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "paused"},
        {"data_on_end": "forget"},
        {"version": 0},
        {"purpose": ""},
        {"starts_at": None},
        {"fields": [{"name": "code", "transform": "{"}]},
        {"fields": [{"name": "code", "transform": '"show"'}]},
        {"fields": [{"name": "code"}]},
        {"fields": None},
    ],
)
def test_a_record_that_cannot_be_a_grant_is_a_value_error_that_does_not_repeat_it(
    changes: dict[str, Any],
) -> None:
    """The exchange then enforces nothing for it, which means that it delivers nothing."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each case words it differently
        grant_from_record(grant_to_record(published()) | changes)

    assert "城市规划" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"share_type": "open"}, {"kind": "table"}, {"key": []}, {"key": None}])
def test_a_record_that_cannot_be_a_resource_is_a_value_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each case words it differently
        resource_from_record(resource_to_record(a_resource()) | changes)


def test_grants_and_resources_never_share_a_key() -> None:
    assert grant_key("stats") == b"grant/stats"
    assert resource_key("stats.divisions") == b"resource/stats.divisions"


def test_a_topic_that_other_grants_may_use_too_is_known_by_its_name() -> None:
    assert not published().shared
    assert replace(published(), delivery_topic="govbus.shared.stats.divisions.v1").shared


@pytest.mark.parametrize("quota", [0, -1, 2**31])
@pytest.mark.parametrize("name", ["quota_records_per_day", "quota_keys_per_day"])
def test_a_quota_that_is_none_is_refused(name: str, quota: int) -> None:
    with pytest.raises(ValueError, match="quota"):
        a_grant(**{name: quota})


def test_a_grant_that_was_published_before_there_were_quotas_has_none() -> None:
    record = grant_to_record(published())
    del record["quota_records_per_day"], record["quota_keys_per_day"]

    grant = grant_from_record(record).grant

    assert not grant.has_quota


def test_a_quota_that_is_no_number_makes_the_record_no_grant() -> None:
    with pytest.raises(ValueError, match="not a grant"):
        grant_from_record(grant_to_record(published()) | {"quota_keys_per_day": "10"})
