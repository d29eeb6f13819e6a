"""Agreements on record about one resource, as they were at any moment. Reads the control store.

``govbus.grants`` is compacted: it says what counts now. What counted then is in
the store, which keeps every grant version, every contract and an audit row for
every change of the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select

from govbus.catalogue import Classification, ShareType
from govbus.contract import DataContract, parse_contract
from govbus.errors import NotFoundError
from govbus.explanation import GrantVersion
from govbus_console.control.store import (
    AuditRow,
    ContractRow,
    ControlStore,
    GrantRow,
    StoredResource,
    stored_grant,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One grant in all its versions, oldest first."""

    id: str
    subscriber: str
    versions: tuple[GrantVersion, ...]
    contracts: tuple[int, ...]
    """The contract version that each grant version was made for."""

    def as_of(self, moment: datetime) -> int | None:
        """Return the position of the version that counted at a moment; None before the first."""
        counted = [place for place, version in enumerate(self.versions) if version.made_at <= moment]
        return counted[-1] if counted else None

    def until(self, place: int) -> datetime | None:
        """When the version at this position stopped to count; None: it counts still."""
        return self.versions[place + 1].made_at if place + 1 < len(self.versions) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRecord:
    """Everything that the store says about one resource and its grants."""

    stored: StoredResource
    """As it is now."""

    agreements: tuple[Agreement, ...]
    _entries: tuple[tuple[datetime, Mapping[str, Any]], ...]
    _contracts: Mapping[int, DataContract]

    def share_type(self, moment: datetime) -> ShareType | None:
        """Return the share type at a moment; None when the resource was not in the catalogue yet."""
        entry = self._entry(moment)
        return None if entry is None else ShareType(entry["share_type"])

    def contract(self, version: int, moment: datetime) -> DataContract:
        """Return a contract version; fields that the owner had opened at a moment count as internal."""
        contract = self._contracts[version]
        opened = frozenset((self._entry(moment) or {}).get("owner_allows", ()))
        return replace(
            contract,
            fields=tuple(
                replace(field, classification=Classification.INTERNAL)
                if field.name in opened and field.classification.needs_owner
                else field
                for field in contract.fields
            ),
        )

    def _entry(self, moment: datetime) -> Mapping[str, Any] | None:
        found = None
        for at, facts in self._entries:
            if at <= moment:
                found = facts
        return found


def look_up(store: ControlStore, ref: str, *, subscriber: str | None = None) -> OnRecord:
    """Read what is on record about a resource, for one subscriber or for all.

    Raises:
        NotFoundError: there is no such resource, or no such department.
    """
    known = store.snapshot()
    stored = known.resources.get(ref)
    if stored is None:
        raise NotFoundError(f"there is no resource {ref}; govbus status lists those that there are")
    if subscriber is not None and subscriber not in known.departments:
        raise NotFoundError(f"there is no department {subscriber}")
    owner, name = stored.resource.owner, stored.resource.name
    with store.reading() as session:
        wanted = select(GrantRow).where(GrantRow.owner == owner, GrantRow.resource == name)
        if subscriber is not None:
            wanted = wanted.where(GrantRow.subscriber == subscriber)
        rows = list(session.scalars(wanted.order_by(GrantRow.id, GrantRow.version)))
        entries = session.execute(
            select(AuditRow.at, AuditRow.after)
            .where(AuditRow.what == f"resource {ref}")
            .order_by(AuditRow.seq)
        ).all()
        contracts = session.scalars(
            select(ContractRow).where(ContractRow.owner == owner, ContractRow.resource == name)
        )
        parsed = {
            row.version: parse_contract(row.schema, owner=row.owner, resource=row.resource)
            for row in contracts
        }
        agreements = _agreements(rows)
    return OnRecord(
        stored=stored,
        agreements=agreements,
        _entries=tuple((at, after) for at, after in entries if after is not None),
        _contracts=parsed,
    )


def _agreements(rows: Sequence[GrantRow]) -> tuple[Agreement, ...]:
    by_id: dict[str, list[GrantRow]] = {}
    for row in rows:
        by_id.setdefault(row.id, []).append(row)
    return tuple(
        Agreement(
            id=name,
            subscriber=versions[0].subscriber,
            versions=tuple(
                GrantVersion(published=stored_grant(row).published, made_at=row.made_at) for row in versions
            ),
            contracts=tuple(row.contract_version for row in versions),
        )
        for name, versions in by_id.items()
    )
