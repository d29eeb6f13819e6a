"""What a caller of the API may state in a catalogue file, and change by it. Pure.

A file does at once what otherwise goes step by step, so it may do no more than the steps:

1. Departments are taken in, changed and taken out by operators; anybody who may plan may
   state one that stays as it is, so that one file in git serves several.
2. Resources, and grants of them, are stated and taken out by the owner's stewards and by
   nobody else. Whoever states another's is refused before anything is planned, and learns
   nothing of what was agreed.
3. A grant that would take two stewards as a request (it shows sensitive or core fields, or
   filters by them) is not made or widened by a file that one of them brings.
4. Everything that a file changes has to be allowed, or nothing of it is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from govbus.catalogue import ShareType
from govbus.errors import CatalogueError, GrantRefusedError, NotAllowedError
from govbus.request import approvers_needed
from govbus_console.api.access import Right, may
from govbus_console.control.catalogue_file import CatalogueFile, Removal
from govbus_console.control.planned import Plan, PlannedGrant
from govbus_console.control.roles import Account
from govbus_console.control.store import Snapshot


@dataclass(frozen=True, slots=True)
class RoleLicence:
    """:class:`~govbus_console.control.licence.Licence` of an account."""

    account: Account

    def stating(self, catalogue: CatalogueFile, known: Snapshot) -> None:
        """Refuse what speaks of others' resources and grants."""
        for resource in catalogue.resources:
            self._must_own(resource.contract.owner, f"{resource.place}: resource {resource.ref}")
        for grant in catalogue.grants:
            self._must_own(grant.owner, f"{grant.place}: grant {grant.id}")
            there = known.grants.get(grant.id)
            if there is not None and there.grant.owner != grant.owner:
                raise GrantRefusedError(f"{grant.place}: the id {grant.id!r} is taken; choose another")
        for removal in catalogue.removals:
            self._may_name(removal, known)

    def changing(self, made: Plan, known: Snapshot) -> None:
        """Refuse changes that are not the caller's to make."""
        for change in made.changes:
            if (
                change.kind == "department"
                and change.pending
                and not may(self.account, Right.KEEP_DEPARTMENTS)
            ):
                raise NotAllowedError(f"department {change.name}: an operator takes departments in and out")
        for planned in made.grants:
            self._must_decide_alone(planned, known)
        for name in made.removed_grants:
            if not may(self.account, Right.END_GRANTS, owner=known.grants[name].grant.owner):
                raise NotAllowedError(f"grant {name}: your role does not end it")

    def _must_own(self, owner: str, what: str) -> None:
        if not may(self.account, Right.KEEP_RESOURCES, owner=owner):
            raise NotAllowedError(f"{what}: a steward of its owner states it, and nobody else")

    def _may_name(self, removal: Removal, known: Snapshot) -> None:
        if removal.kind == "department":
            if not may(self.account, Right.KEEP_DEPARTMENTS):
                raise NotAllowedError(
                    f"{removal.place}: department {removal.name}: an operator takes departments in and out"
                )
        elif removal.kind == "resource":
            self._must_own(removal.name.partition(".")[0], f"{removal.place}: resource {removal.name}")
        else:
            there = known.grants.get(removal.name)
            if there is None or not may(self.account, Right.END_GRANTS, owner=there.grant.owner):
                # In the planner's words for a name that never was: others' agreements are not told of.
                raise CatalogueError(
                    f"{removal.place}: there is no grant {removal.name!r}; take the line out"
                )

    def _must_decide_alone(self, planned: PlannedGrant, known: Snapshot) -> None:
        grant = planned.grant
        self._must_own(grant.owner, f"grant {grant.id}")
        there = known.grants.get(grant.id)
        before = None if there is None else there.grant
        if planned.share_type is not ShareType.CONDITIONAL:
            return
        if approvers_needed(grant, planned.contract, before=before) > 1:
            raise NotAllowedError(
                f"grant {grant.id}: it takes a second steward, whom a file does not have; "
                "let its subscriber ask by a request"
            )
