"""Policies, grants and records as the exchange's tests need them: short, complete, synthetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from govbus import topics
from govbus.catalogue import Resource, ResourceKind, ShareType
from govbus.codec import Schema, encode, header, parse_schema
from govbus.contract import parse_contract
from govbus.grant import FieldRule, Grant, GrantState, PublishedGrant
from govbus.policy import view_id
from govbus.transform import parse_transform
from govbus.view import key_schema, view_schema
from govbus_processors.routes import Policy, Routing

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

CONTRACT_TEXT = """
{
  "type": "record", "name": "Firm", "namespace": "govbus.registrar",
  "govbus": {"version": 1, "kind": "state", "key": ["code"], "partitions": 1},
  "fields": [
    {"name": "code", "type": "string", "classification": "public"},
    {"name": "name", "type": "string", "classification": "public"},
    {"name": "city", "type": ["null", "string"], "default": null, "classification": "public"},
    {"name": "staff", "type": "int", "classification": "internal"}
  ]
}
"""
CONTRACT = parse_contract(CONTRACT_TEXT, owner="registrar", resource="firms")
SOURCE = topics.captured("registrar", "firms")
VALUE = parse_schema(100, CONTRACT.schema)
KEY = parse_schema(101, CONTRACT.key_schema)


def a_resource(**changes: Any) -> Resource:
    """The firms' register."""
    given: dict[str, Any] = {
        "owner": "registrar",
        "name": "firms",
        "title": "Firms",
        "share_type": ShareType.CONDITIONAL,
        "kind": ResourceKind.STATE,
        "contract_version": 1,
        "key": ("code",),
        "partitions": 1,
        "value_schema_id": VALUE.id,
        "key_schema_id": KEY.id,
    }
    return Resource(**given | changes)


def a_grant(**changes: Any) -> Grant:
    """Tax may see code and name of every firm until a year from noon."""
    given: dict[str, Any] = {
        "id": "tax-firms",
        "version": 1,
        "state": GrantState.ACTIVE,
        "subscriber": "tax",
        "owner": "registrar",
        "resource": "firms",
        "fields": rules("code", "name"),
        "rows": None,
        "purpose": "assessment",
        "starts_at": NOON - timedelta(days=1),
        "expires_at": NOON + timedelta(days=365),
    }
    return Grant(**given | changes)


def rules(*specs: Any) -> tuple[FieldRule, ...]:
    """Field rules from names, or from pairs of a name and a transform."""
    pairs = [(spec, "keep") if isinstance(spec, str) else spec for spec in specs]
    return tuple(FieldRule(name=name, transform=parse_transform(spec)) for name, spec in pairs)


@dataclass(frozen=True)
class Published:
    """A grant with the schemas that were registered for it."""

    grant: PublishedGrant
    schemas: dict[int, Any]


def published(grant: Grant, *, value_schema_id: int = 200, shared: bool = False) -> Published:
    """What control would publish for a grant."""
    view = view_id(grant, 1)
    keys = key_schema(grant, CONTRACT)
    schemas: dict[int, Any] = {value_schema_id: view_schema(grant, CONTRACT), KEY.id: KEY.raw}
    if keys is not None:
        schemas[value_schema_id + 1] = keys
    topic = (
        topics.shared(grant.owner, grant.resource, view)
        if shared
        else topics.delivered(grant.subscriber, grant.id)
    )
    return Published(
        PublishedGrant(
            grant=grant,
            view=view,
            delivery_topic=topic,
            value_schema_id=value_schema_id,
            key_schema_id=KEY.id if keys is None else value_schema_id + 1,
        ),
        schemas,
    )


def a_policy(*grants: Published, resource: Resource | None = None, offset: int = 1) -> Policy:
    """The policy that holds these grants."""
    held = resource or a_resource()
    schemas = {VALUE.id: VALUE.raw, KEY.id: KEY.raw}
    for one in grants:
        schemas |= one.schemas
    return policy_of([held], [one.grant for one in grants], schemas, offset=offset)


def policy_of(
    resources: Iterable[Resource],
    grants: Iterable[PublishedGrant],
    schemas: Mapping[int, Any],
    *,
    offset: int = 1,
) -> Policy:
    """The policy of a worker that has read all of these."""
    routing = Routing()
    for schema_id, raw in schemas.items():
        routing.put_schema(schema_id, raw)
    for one in resources:
        routing.put_resource(one)
    for granted in grants:
        routing.put_grant(granted)
    return routing.policy(offset)


class Record:
    """What a Kafka client hands over, as far as the exchange looks at it."""

    def __init__(self, offset: int, key: bytes | None, value: bytes | None, *, at: int = 1_000) -> None:
        self._offset, self._key, self._value, self._at = offset, key, value, at

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def offset(self) -> int:
        return self._offset

    def topic(self) -> str:
        return SOURCE

    def partition(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return (1, self._at)

    def error(self) -> None:
        return None


def firm(offset: int, code: str, *, schema: Schema = VALUE, **fields: Any) -> Record:
    """A firm as it is after a change."""
    row = {"code": code, "name": f"name of {code}", "city": "3308", "staff": 7} | fields
    return Record(offset, encode(KEY, {"code": code}), encode(schema, row))


def gone(offset: int, code: str) -> Record:
    """A firm that was deleted."""
    return Record(offset, encode(KEY, {"code": code}), None)


def mangled(record: Record, value: bytes | None) -> Record:
    """The same record with other bytes."""
    return Record(record.offset(), record.key(), value)


__all__ = [
    "CONTRACT", "KEY", "NOON", "SOURCE", "VALUE", "Published", "Record", "a_grant", "a_policy",
    "a_resource", "firm", "gone", "header", "mangled", "policy_of", "published", "rules",
]  # fmt: skip
