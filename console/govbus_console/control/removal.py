"""Work out what the ``remove:`` of a catalogue file takes away, and refuse what others depend on. Pure.

1. A grant that holds is revoked; one that has ended stays as it is.
2. A resource goes when no grant of it holds any more, those of the same file included, and no request for it
   is open.
3. A department goes when it owns no resource, receives nothing, asks for nothing, stands above no department,
   and no account acts for it.
4. Of each thing that stands in the way it is said who has to do what first. A request is ended by whoever
   decides about it: removing what it asks for is no decision.
5. What has been removed already is no mistake; a name that was never there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from govbus.catalogue import Department
from govbus.errors import BusError, CatalogueError, GrantRefusedError
from govbus.grant import Grant
from govbus.request import RequestState
from govbus_console.control.catalogue_file import Removal
from govbus_console.control.planned import LIVING, Action, Change, PlannedGrant, PlannedResource
from govbus_console.control.store import OpenRequest, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Removals:
    """What goes, by kind, and what stands against it."""

    changes: tuple[Change, ...]
    problems: tuple[BusError, ...]
    grants: tuple[str, ...]
    resources: tuple[str, ...]
    departments: tuple[str, ...]
    """Also those that were removed before: shutting them out at the broker is done again."""


def plan_removals(
    asked: Iterable[Removal],
    known: Snapshot,
    *,
    departments: Mapping[str, Department],
    resources: Mapping[str, PlannedResource],
    grants: Iterable[PlannedGrant],
) -> Removals:
    """Hold what is to go against what will count when the rest of the file has been applied.

    Args:
        asked: in any order; grants go first, departments last.
        known: the store.
        departments: those of the store and of the file, by name.
        resources: those of the store and of the file, by ``owner.resource``.
        grants: the versions that the file makes.
    """
    work = _Removing(known, tuple(asked))
    work.grants()
    living = work.living(grants)
    work.resources(living)
    work.departments(living, departments, resources)
    return work.result()


class _Removing:
    def __init__(self, known: Snapshot, asked: tuple[Removal, ...]) -> None:
        self._known = known
        self._asked = asked
        self._changes: list[Change] = []
        self._problems: list[BusError] = []
        self._going: dict[str, set[str]] = {"grant": set(), "resource": set(), "department": set()}

    def result(self) -> Removals:
        return Removals(
            changes=tuple(self._changes),
            problems=tuple(self._problems),
            grants=tuple(sorted(self._going["grant"])),
            resources=tuple(sorted(self._going["resource"])),
            departments=tuple(sorted(self._going["department"])),
        )

    def grants(self) -> None:
        for removal in self._of("grant"):
            stored = self._known.grants.get(removal.name)
            if stored is None:
                self._never_there(removal)
            elif stored.grant.state in LIVING:
                self._going["grant"].add(removal.name)
                self._change(removal, Action.REMOVE, (stored.grant.subscriber,))
            else:
                self._change(removal, Action.NOTHING)

    def living(self, grants: Iterable[PlannedGrant]) -> list[Grant]:
        """Grants that will hold."""
        kept = {
            name: stored.grant
            for name, stored in self._known.grants.items()
            if stored.grant.state in LIVING and name not in self._going["grant"]
        }
        return [*(kept | {planned.grant.id: planned.grant for planned in grants}).values()]

    def resources(self, living: Iterable[Grant]) -> None:
        living = tuple(living)
        for removal in self._of("resource"):
            users = [_grant(grant) for grant in _sorted(living) if grant.resource_ref == removal.name]
            users += [_request(one) for one in self._known.open_requests if one.resource_ref == removal.name]
            self._one(removal, self._known.resources, self._known.removed_resources, users)

    def departments(
        self,
        living: Iterable[Grant],
        departments: Mapping[str, Department],
        resources: Mapping[str, PlannedResource],
    ) -> None:
        living = tuple(living)
        going = {removal.name for removal in self._of("department")}
        for removal in self._of("department"):
            users = [_grant(grant) for grant in _sorted(living) if grant.subscriber == removal.name]
            users += [_request(one) for one in self._known.open_requests if one.subscriber == removal.name]
            users += sorted(
                f"resource {ref} (name it under remove)"
                for ref, resource in resources.items()
                if resource.contract.owner == removal.name and ref not in self._going["resource"]
            )
            users += sorted(
                f"department {department.name} below it (give it another parent, or name it under remove)"
                for department in departments.values()
                if department.parent == removal.name and department.name not in going
            )
            users += [
                f"account {name} (govbus account disable {name})"
                for name, department in self._known.accounts.items()
                if department == removal.name
            ]
            self._one(removal, self._known.departments, self._known.removed_departments, users)

    def _of(self, kind: str) -> list[Removal]:
        return [removal for removal in self._asked if removal.kind == kind]

    def _one(
        self, removal: Removal, there: Mapping[str, object], removed: Mapping[str, object], users: list[str]
    ) -> None:
        if users:
            self._problems.append(
                GrantRefusedError(
                    f"{removal.place}: {removal.kind} {removal.name} cannot be removed; "
                    f"end first what depends on it: {', '.join(users)}"
                )
            )
        elif removal.name in there:
            self._going[removal.kind].add(removal.name)
            self._change(removal, Action.REMOVE)
        elif removal.name in removed:
            if removal.kind == "department":
                self._going[removal.kind].add(removal.name)
            self._change(removal, Action.NOTHING)
        else:
            self._never_there(removal)

    def _never_there(self, removal: Removal) -> None:
        self._problems.append(
            CatalogueError(f"{removal.place}: there is no {removal.kind} {removal.name!r}; take the line out")
        )

    def _change(self, removal: Removal, action: Action, whom: tuple[str, ...] = ()) -> None:
        self._changes.append(Change(kind=removal.kind, name=removal.name, action=action, whom=whom))


def _sorted(grants: Iterable[Grant]) -> list[Grant]:
    return sorted(grants, key=lambda grant: grant.id)


def _grant(grant: Grant) -> str:
    return f"grant {grant.id} (govbus revoke {grant.id}, or name it under remove)"


def _request(one: OpenRequest) -> str:
    back = "" if one.state == RequestState.APPROVED else f", or {one.subscriber} withdraws it"
    return f"request {one.id}, {one.state} (its owner rejects it{back})"
