"""Who receives what, and whether somebody may, is answered as the exchange would decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from govbus.catalogue import Department, Resource, ResourceKind, ShareType
from govbus.contract import parse_contract
from govbus.errors import RefusedError
from govbus.grant import FieldRule, Grant, GrantState, PublishedGrant
from govbus.transform import Keep, Truncate
from govbus_console.control.store import ControlStore, StoredGrant, StoredResource, contract_text
from govbus_console.control.usage import What, can, who_uses
from support.policies import CONTRACT_TEXT

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONTRACT = parse_contract(CONTRACT_TEXT, owner="registrar", resource="firms")
FIRMS = What(owner="registrar", resource="firms", field=None)
NAME = replace(FIRMS, field="name")
STAFF = replace(FIRMS, field="staff")


def a_resource(share_type: ShareType = ShareType.CONDITIONAL) -> StoredResource:
    return StoredResource(
        resource=Resource(
            owner="registrar",
            name="firms",
            title="Firms",
            share_type=share_type,
            kind=ResourceKind.STATE,
            contract_version=1,
            key=("code",),
            partitions=1,
            value_schema_id=1,
            key_schema_id=2,
        ),
        contract=CONTRACT,
        contract_text=contract_text(CONTRACT),
        synthetic=False,
        owner_allows=(),
    )


def a_grant(
    subscriber: str,
    *,
    version: int = 1,
    state: GrantState = GrantState.ACTIVE,
    starts_at: datetime = NOON - timedelta(days=1),
    name: str = "",
) -> StoredGrant:
    grant = Grant(
        id=name or f"firms-for-{subscriber}",
        version=version,
        state=state,
        subscriber=subscriber,
        owner="registrar",
        resource="firms",
        fields=(
            FieldRule(name="code", transform=Keep()),
            FieldRule(name="name", transform=Truncate(length=2)),
        ),
        rows="city = '3308'",
        purpose="Assessment",
        starts_at=starts_at,
        expires_at=starts_at + timedelta(days=30),
    )
    return StoredGrant(
        published=PublishedGrant(
            grant=grant, view="v", delivery_topic="t", value_schema_id=3, key_schema_id=4
        ),
        contract_version=1,
        made_at=NOON,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    opened = ControlStore.open(f"sqlite:///{tmp_path / 'control.db'}")
    with opened.writing(who="li", why="first", now=NOON) as writing:
        for name in ("registrar", "tax", "health", "quzhou", "civil"):
            writing.department(Department(name=name, title=name.title()))
        writing.resource(a_resource())
        writing.grant(a_grant("tax"))
        writing.grant(a_grant("health"))
        writing.grant(a_grant("health", version=2, state=GrantState.SUSPENDED))
        writing.grant(a_grant("quzhou", starts_at=NOON + timedelta(days=1)))
    yield opened
    opened.close()


def test_who_uses_a_resource_is_who_receives_it_now(store: ControlStore) -> None:
    (use,) = who_uses(store, FIRMS, now=NOON)

    assert (use.department, use.grant.id, use.grant.version) == ("Tax", "firms-for-tax", 1)
    assert [rule.name for rule in use.fields] == ["code", "name"]
    assert [use.grant.subscriber for use in who_uses(store, NAME, now=NOON)] == ["tax"]
    assert who_uses(store, STAFF, now=NOON) == ()
    assert who_uses(store, FIRMS, now=NOON + timedelta(days=60)) == ()


def test_who_received_it_before_is_told_with_the_reason(store: ControlStore) -> None:
    uses = who_uses(store, FIRMS, now=NOON, ended=True)

    assert [(use.grant.subscriber, use.grant.version, use.decision.reason) for use in uses] == [
        ("health", 2, "grant-suspended"),
        ("quzhou", 1, "grant-not-started"),
        ("tax", 1, "permitted"),
    ]


@pytest.mark.parametrize(
    ("department", "what", "yes", "reason"),
    [
        ("tax", FIRMS, True, "permitted"),
        ("tax", NAME, True, "permitted"),
        ("tax", STAFF, False, "field-not-granted"),
        ("health", NAME, False, "grant-suspended"),
        ("quzhou", NAME, False, "grant-not-started"),
        ("civil", NAME, False, "no-grant"),
    ],
)
def test_a_question_has_the_reason_that_the_policy_gives(
    store: ControlStore, department: str, what: What, yes: bool, reason: str
) -> None:
    answer = can(store, department, what, now=NOON)

    assert (answer.yes, answer.reason) == (yes, reason)


def test_nobody_may_see_what_is_withheld(store: ControlStore) -> None:
    with store.writing(who="li", why="withheld", now=NOON) as writing:
        writing.resource(a_resource(ShareType.WITHHELD))

    assert who_uses(store, FIRMS, now=NOON) == ()
    assert {can(store, name, FIRMS, now=NOON).reason for name in ("tax", "civil")} == {"resource-withheld"}


def test_of_several_grants_the_one_that_permits_decides(store: ControlStore) -> None:
    with store.writing(who="li", why="another", now=NOON) as writing:
        writing.grant(a_grant("health", name="firms-again"))

    answer = can(store, "health", NAME, now=NOON)

    assert answer.use is not None
    assert (answer.yes, answer.use.grant.id) == (True, "firms-again")


@pytest.mark.parametrize("text", ["firms", "registrar.", "registrar.firms.", "Registrar.firms", ""])
def test_what_is_asked_about_is_a_resource_or_a_field_of_one(text: str) -> None:
    with pytest.raises(RefusedError, match=r"neither owner.resource nor owner.resource.field"):
        What.parse(text)


def test_what_is_not_there_is_named(store: ControlStore) -> None:
    assert What.parse("registrar.firms.name") == NAME
    with pytest.raises(RefusedError, match="no resource registrar.shops"):
        who_uses(store, What.parse("registrar.shops"), now=NOON)
    with pytest.raises(RefusedError, match="registrar.firms has no field 'phone'; it has code, "):
        can(store, "tax", What.parse("registrar.firms.phone"), now=NOON)
    with pytest.raises(RefusedError, match="no department 'finance'"):
        can(store, "finance", FIRMS, now=NOON)


def test_what_was_removed_is_not_there(store: ControlStore) -> None:
    with store.writing(who="li", why="gone", now=NOON) as writing:
        writing.remove_resource(a_resource())
        writing.remove_department("civil")

    with pytest.raises(RefusedError, match="no resource"):
        can(store, "tax", FIRMS, now=NOON)
    with pytest.raises(RefusedError, match="no department"):
        can(store, "civil", FIRMS, now=NOON)
