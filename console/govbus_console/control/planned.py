"""What a plan consists of: changes, what is to be written, and what subscribers would see of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from govbus.catalogue import Department, ShareType
from govbus.contract import DataContract
from govbus.entry import Entry
from govbus.grant import FieldRule, Grant, GrantState

LIVING = (GrantState.ACTIVE, GrantState.SUSPENDED)
"""States in which a grant holds, if only on paper; whatever depends on one depends on these."""


class Action(StrEnum):
    """What applying would do with one entry."""

    CREATE = "create"
    AMEND = "amend"
    NOTHING = "nothing"
    LEFT = "left as is"
    """In the store and not in the file."""

    ENDED = "ended"
    """In the file, but revoked or expired: it does not come back under its id."""

    REMOVE = "remove"
    """Named under ``remove``: a grant is revoked, anything else taken out of the catalogue."""

    @property
    def pending(self) -> bool:
        """Whether applying would do something."""
        return self in (Action.CREATE, Action.AMEND, Action.REMOVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of a plan."""

    kind: str
    """department, resource or grant"""

    name: str
    action: Action
    details: tuple[str, ...] = ()
    """What becomes what, one fact each."""

    whom: tuple[str, ...] = ()
    """Departments that receive something else because of it."""

    @property
    def pending(self) -> bool:
        """Whether applying would do something."""
        return self.action.pending


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedResource:
    """A resource to be written; the registry's ids are not known yet."""

    title: str
    share_type: ShareType
    contract: DataContract
    synthetic: bool
    owner_allows: tuple[str, ...]
    entry: Entry | None = None

    @property
    def ref(self) -> str:
        """``owner.resource``."""
        return f"{self.contract.owner}.{self.contract.resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGrant:
    """A grant version to be written; topic and schemas are not known yet."""

    grant: Grant
    contract: DataContract
    share_type: ShareType


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What one subscriber would see otherwise under one grant."""

    before: Grant | None
    """None: it receives nothing under this grant now."""

    after: Grant | None
    """None: it would receive nothing any more."""

    @property
    def grant(self) -> Grant:
        """Either of the two, for what both have in common."""
        found = self.after or self.before
        if found is None:
            raise ValueError("an impact has a before or an after")
        return found

    @property
    def fields_more(self) -> tuple[str, ...]:
        """Fields that it would see and does not see now."""
        return tuple(name for name in _names(self.after) if name not in _names(self.before))

    @property
    def fields_less(self) -> tuple[str, ...]:
        """Fields that it sees and would not see any more."""
        return tuple(name for name in _names(self.before) if name not in _names(self.after))

    @property
    def fields_otherwise(self) -> tuple[str, ...]:
        """Fields that it would see through another transform, as ``name: before → after``."""
        before = {} if self.before is None else {r.name: r.transform.spec() for r in self.before.fields}
        after = {} if self.after is None else {r.name: r.transform.spec() for r in self.after.fields}
        return differences((name, before[name], after[name]) for name in after if name in before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that applying a file would do, in the order in which it is done."""

    path: Path
    changes: tuple[Change, ...]
    departments: tuple[Department, ...]
    resources: tuple[PlannedResource, ...]
    grants: tuple[PlannedGrant, ...]
    impacts: tuple[Impact, ...] = ()
    removed_grants: tuple[str, ...] = ()
    """Living grants that are to be revoked."""

    removed_resources: tuple[str, ...] = ()
    removed_departments: tuple[str, ...] = ()
    """Also those that were removed before: shutting them out at the broker is done again."""

    warnings: tuple[str, ...] = ()
    """What is accepted, and unusual enough to be said."""

    @property
    def pending(self) -> bool:
        """Whether applying would change anything."""
        return any(change.pending for change in self.changes)


def agreed_facts(old: Grant, new: Grant) -> list[tuple[str, Any, Any]]:
    """What may differ between two versions of a grant, word by word, as people read it."""
    return [
        ("fields", _written(old.fields), _written(new.fields)),
        ("rows", old.rows or "all", new.rows or "all"),
        ("purpose", old.purpose, new.purpose),
        ("starts_at", old.starts_at.isoformat(), new.starts_at.isoformat()),
        ("expires_at", old.expires_at.isoformat(), new.expires_at.isoformat()),
        ("data_on_end", old.data_on_end.value, new.data_on_end.value),
        ("quota_records_per_day", old.quota_records_per_day, new.quota_records_per_day),
        ("quota_keys_per_day", old.quota_keys_per_day, new.quota_keys_per_day),
    ]


def _written(fields: Iterable[FieldRule]) -> list[Any]:
    return [rule.name if (spec := rule.transform.spec()) == "keep" else {rule.name: spec} for rule in fields]


def _names(grant: Grant | None) -> tuple[str, ...]:
    return () if grant is None else tuple(rule.name for rule in grant.fields)


def differences(facts: Iterable[tuple[str, Any, Any]]) -> tuple[str, ...]:
    """Write what differs as ``word: before → after``."""
    return tuple(f"{word}: {before} → {after}" for word, before, after in facts if before != after)
