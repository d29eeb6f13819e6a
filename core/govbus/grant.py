"""The owner's time-limited yes, and the form in which the exchange is told of it.

A grant is never edited. Amending, suspending and revoking publish a new
version, so the history of ``govbus.grants`` is a list of facts, not of changes
to facts. There is no grant without an end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from govbus.catalogue import Resource, ResourceKind, ShareType
from govbus.errors import TransformRefusedError
from govbus.topics import is_name, is_shared
from govbus.transform import Transform, parse_transform

LARGEST_QUOTA = 2**31 - 1
"""What the store's integer columns hold; more records a day than any one grant delivers."""


class GrantState(StrEnum):
    """What a grant version says about delivery. Expiry is the clock's doing, see ``expires_at``."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    EXPIRED = "expired"


class DataDuty(StrEnum):
    """What happens to the rows that a subscriber has landed when the grant ends."""

    KEEP = "keep"
    BLANK = "blank"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRule:
    """One granted field and what is done to it on the way."""

    name: str
    transform: Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Leave for one department to receive some fields of some rows of one resource."""

    id: str
    version: int
    state: GrantState
    subscriber: str
    owner: str
    resource: str
    """The resource's name without its owner."""

    fields: tuple[FieldRule, ...]
    """What the subscriber may see, in contract order. Empty shares nothing; nothing means "all"."""

    rows: str | None
    """The row filter as SQL text; None lets every row through."""

    purpose: str
    starts_at: datetime
    expires_at: datetime
    """Exclusive: at that instant the answer is already no."""

    data_on_end: DataDuty = DataDuty.DELETE
    quota_records_per_day: int | None = None
    """The most records that may be delivered in one day; None sets no bound."""

    quota_keys_per_day: int | None = None
    """The most distinct keys that may be delivered in one day; None sets no bound."""

    def __post_init__(self) -> None:
        for name in (self.id, self.subscriber, self.owner, self.resource):
            if not is_name(name):
                raise ValueError("Grant names: lower-case words joined by hyphens")
        if self.version < 1:
            raise ValueError("Grant.version counts from 1")
        if self.starts_at.tzinfo is None or self.expires_at.tzinfo is None:
            raise ValueError("Grant.starts_at and Grant.expires_at need a time zone")
        if not self.purpose.strip():
            raise ValueError("Grant.purpose must say what the data is for")
        for quota in (self.quota_records_per_day, self.quota_keys_per_day):
            if quota is not None and not 1 <= quota <= LARGEST_QUOTA:
                raise ValueError(f"a quota is a whole number from 1 to {LARGEST_QUOTA}; None sets no bound")

    @property
    def has_quota(self) -> bool:
        """Whether deliveries have to be counted."""
        return self.quota_records_per_day is not None or self.quota_keys_per_day is not None

    @property
    def resource_ref(self) -> str:
        """``owner.resource``."""
        return f"{self.owner}.{self.resource}"

    def in_force(self, now: datetime) -> bool:
        """Whether the grant's own state and term allow delivery at ``now``."""
        return self.state is GrantState.ACTIVE and self.starts_at <= now < self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedGrant:
    """A grant version as it stands on ``govbus.grants``: the agreement, and where its deliveries go."""

    grant: Grant
    view: str
    """Identifies rows, fields and transforms; equal for grants that may share one topic."""

    delivery_topic: str
    value_schema_id: int
    """Registry id of the view schema: what every delivered record carries."""

    key_schema_id: int
    """Registry id of the delivered key's schema; the resource's own when all key fields are kept."""

    @property
    def shared(self) -> bool:
        """Whether other grants may be delivered by the same records."""
        return is_shared(self.delivery_topic)


def grant_key(grant_id: str) -> bytes:
    """The key of a grant on ``govbus.grants``."""
    return f"grant/{grant_id}".encode()


def resource_key(ref: str) -> bytes:
    """The key of a resource on ``govbus.grants``."""
    return f"resource/{ref}".encode()


def grant_to_record(published: PublishedGrant) -> dict[str, Any]:
    """Turn a grant version into the record that avro_schemas/bus/grant.avsc describes."""
    grant = published.grant
    return {
        "id": grant.id,
        "version": grant.version,
        "state": grant.state.value,
        "subscriber": grant.subscriber,
        "owner": grant.owner,
        "resource": grant.resource,
        "fields": [
            {"name": rule.name, "transform": json.dumps(rule.transform.spec(), ensure_ascii=False)}
            for rule in grant.fields
        ],
        "rows": grant.rows,
        "purpose": grant.purpose,
        "starts_at": grant.starts_at,
        "expires_at": grant.expires_at,
        "data_on_end": grant.data_on_end.value,
        "quota_records_per_day": grant.quota_records_per_day,
        "quota_keys_per_day": grant.quota_keys_per_day,
        "view": published.view,
        "delivery_topic": published.delivery_topic,
        "value_schema_id": published.value_schema_id,
        "key_schema_id": published.key_schema_id,
    }


def grant_from_record(record: Mapping[str, Any]) -> PublishedGrant:
    """Read back what :func:`grant_to_record` wrote; ValueError when it cannot be a grant."""
    try:
        return _grant(record)
    except (KeyError, TypeError, AttributeError, TransformRefusedError) as error:
        raise ValueError(f"not a grant: {type(error).__name__}") from None


def _grant(record: Mapping[str, Any]) -> PublishedGrant:
    return PublishedGrant(
        grant=Grant(
            id=record["id"],
            version=record["version"],
            state=GrantState(record["state"]),
            subscriber=record["subscriber"],
            owner=record["owner"],
            resource=record["resource"],
            fields=tuple(
                FieldRule(name=rule["name"], transform=parse_transform(json.loads(rule["transform"])))
                for rule in record["fields"]
            ),
            rows=record["rows"],
            purpose=record["purpose"],
            starts_at=record["starts_at"].astimezone(UTC),
            expires_at=record["expires_at"].astimezone(UTC),
            data_on_end=DataDuty(record["data_on_end"]),
            quota_records_per_day=_quota(record, "quota_records_per_day"),
            quota_keys_per_day=_quota(record, "quota_keys_per_day"),
        ),
        view=record["view"],
        delivery_topic=record["delivery_topic"],
        value_schema_id=record["value_schema_id"],
        key_schema_id=record["key_schema_id"],
    )


def _quota(record: Mapping[str, Any], name: str) -> int | None:
    """Read a bound; records from before there were quotas have none."""
    quota = record.get(name)
    if quota is not None and (not isinstance(quota, int) or isinstance(quota, bool)):
        raise TypeError(name)
    return quota


def resource_to_record(resource: Resource) -> dict[str, Any]:
    """Turn a resource into the record that avro_schemas/bus/resource.avsc describes."""
    return {
        "owner": resource.owner,
        "name": resource.name,
        "title": resource.title,
        "share_type": resource.share_type.value,
        "kind": resource.kind.value,
        "contract_version": resource.contract_version,
        "key": list(resource.key),
        "partitions": resource.partitions,
        "value_schema_id": resource.value_schema_id,
        "key_schema_id": resource.key_schema_id,
    }


def resource_from_record(record: Mapping[str, Any]) -> Resource:
    """Read back what :func:`resource_to_record` wrote; ValueError when it cannot be a resource."""
    try:
        return _resource(record)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a resource: {type(error).__name__}") from None


def _resource(record: Mapping[str, Any]) -> Resource:
    return Resource(
        owner=record["owner"],
        name=record["name"],
        title=record["title"],
        share_type=ShareType(record["share_type"]),
        kind=ResourceKind(record["kind"]),
        contract_version=record["contract_version"],
        key=tuple(record["key"]),
        partitions=record["partitions"],
        value_schema_id=record["value_schema_id"],
        key_schema_id=record["key_schema_id"],
    )
