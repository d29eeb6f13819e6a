"""Who may read a shared topic: exactly those with a grant in force."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from govbus import topics
from govbus.catalogue import Department, ShareType
from govbus.grant import GrantState
from govbus_console.acls import shared_acl
from govbus_console.control.shared_access import due
from govbus_console.control.store import Snapshot, StoredGrant, StoredResource, contract_text
from support.policies import CONTRACT, NOON, a_grant, a_resource, published

TOPIC = topics.shared("registrar", "firms", "v1")


def known(share_type: ShareType = ShareType.UNCONDITIONAL, topic: str = TOPIC, **changes: Any) -> Snapshot:
    made = replace(published(a_grant(**changes)).grant, delivery_topic=topic)
    return Snapshot(
        departments={made.grant.subscriber: Department(name=made.grant.subscriber, title="Tax")},
        resources={
            "registrar.firms": StoredResource(
                resource=a_resource(share_type=share_type),
                contract=CONTRACT,
                contract_text=contract_text(CONTRACT),
                synthetic=False,
                owner_allows=(),
            )
        },
        grants={made.grant.id: StoredGrant(published=made, contract_version=1, made_at=NOON)},
    )


def test_a_grant_in_force_opens_its_shared_topic_to_its_subscriber_alone() -> None:
    assert due(known(), now=NOON) == {shared_acl(a_grant().subscriber, TOPIC)}


@pytest.mark.parametrize(
    "closed",
    [
        known(state=GrantState.SUSPENDED),
        known(state=GrantState.REVOKED),
        known(state=GrantState.EXPIRED),
        known(starts_at=NOON + timedelta(seconds=1)),
        known(expires_at=NOON),
        known(ShareType.WITHHELD),
        known(topic=topics.delivered("tax", "tax-firms")),
    ],
    ids=["suspended", "revoked", "expired", "not begun", "over", "withheld", "a topic of its own"],
)
def test_nothing_else_opens_one(closed: Snapshot) -> None:
    assert due(closed, now=NOON) == frozenset()
