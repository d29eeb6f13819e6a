"""Contracts, grants and views of any schema, short enough for a test to say what matters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from govbus.catalogue import Resource, ResourceKind, ShareType
from govbus.contract import DataContract, parse_contract
from govbus.grant import FieldRule, Grant, GrantState, PublishedGrant
from govbus.splice import Walker
from govbus.transform import parse_transform
from govbus.view import CompiledView, compile_view, key_schema, view_schema

WRITER, VIEW, SOURCE_KEY, VIEW_KEY = 100, 200, 101, 201
"""Schema ids."""

SECRET = b"a key for pseudonyms in tests only"


@dataclass(frozen=True)
class Written:
    """A writer schema as the registry would hand it over."""

    raw: Mapping[str, Any]
    id: int = WRITER


def record(*fields: tuple[Any, ...], name: str = "Row", namespace: str = "gov") -> dict[str, Any]:
    """A record schema from (name, type) or (name, type, default)."""
    listed = [dict(zip(("name", "type", "default"), field, strict=False)) for field in fields]
    return {"type": "record", "name": name, "namespace": namespace, "fields": listed}


def contract_of(schema: Mapping[str, Any], *key: str) -> DataContract:
    """A data contract for any record schema; every field is public."""
    promised = {
        **schema,
        "govbus": {"version": 1, "kind": "state", "key": list(key), "partitions": 1},
        "fields": [{**field, "classification": "public"} for field in schema["fields"]],
    }
    return parse_contract(json.dumps(promised), owner="stats", resource="rows")


def grant_of(rules: Mapping[str, Any], *, rows: str | None = None) -> Grant:
    """A grant of some fields, each with its transform as a catalogue has it."""
    return Grant(
        id="tax-rows",
        version=3,
        state=GrantState.ACTIVE,
        subscriber="tax",
        owner="stats",
        resource="rows",
        fields=tuple(FieldRule(name=name, transform=parse_transform(spec)) for name, spec in rules.items()),
        rows=rows,
        purpose="assessment",
        starts_at=datetime(2026, 1, 1, tzinfo=UTC),
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
    )


def resource_of(contract: DataContract) -> Resource:
    """The catalogue's entry for a contract."""
    return Resource(
        owner=contract.owner,
        name=contract.resource,
        title="Rows",
        share_type=ShareType.CONDITIONAL,
        kind=ResourceKind.STATE,
        contract_version=1,
        key=contract.key,
        partitions=1,
        value_schema_id=WRITER,
        key_schema_id=SOURCE_KEY,
    )


def published(grant: Grant, contract: DataContract, **changes: Any) -> PublishedGrant:
    """What control would publish for a grant."""
    given: dict[str, Any] = {
        "grant": grant,
        "view": "v1",
        "delivery_topic": "govbus.delivered.tax.tax-rows",
        "value_schema_id": VIEW,
        "key_schema_id": SOURCE_KEY if key_schema(grant, contract) is None else VIEW_KEY,
    }
    return PublishedGrant(**given | changes)


def compiled(
    contract: DataContract,
    rules: Mapping[str, Any],
    *,
    rows: str | None = None,
    writer: Mapping[str, Any] | None = None,
    view_raw: Mapping[str, Any] | None = None,
    secret: bytes | None = SECRET,
) -> tuple[CompiledView, Walker]:
    """A compiled view, and a walker of the writer schema: the contract's own unless another is given."""
    grant = grant_of(rules, rows=rows)
    written = Written(contract.schema if writer is None else writer)
    view = compile_view(
        writer=written,
        resource=resource_of(contract),
        published=published(grant, contract),
        view_raw=view_schema(grant, contract) if view_raw is None else view_raw,
        pseudonym_key=None if secret is None else lambda epoch: secret + bytes([epoch]),
    )
    return view, Walker(written.raw)
