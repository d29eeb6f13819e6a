"""Work out what a catalogue file would change, and refuse what cannot be. Pure: the clock is an argument.

1. Nothing is planned unless everything is right: every grant is checked against
   the contract that will count, and every problem is reported at once.
2. A grant that differs from its newest version gets a new version. Its id,
   subscriber and resource are its identity and cannot change.
3. A contract that changes needs a higher version; what the topics were made
   with (key, kind, partitions) cannot change under a resource's name.
4. When a contract or a share type changes, every living grant of the resource is
   checked again and gets a new version, because its view or its topic changes.
5. What is not in the file is left as it is: a line that someone deleted by mistake must not end an
   agreement, and a line that is still there must not bring an ended one back. What is to go is named
   under ``remove``, and goes only when nothing depends on it any more: no grant on a resource, no
   grant, resource or department on a department.
6. For every grant that is touched the plan says what its subscriber would see more and less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from govbus.avro import SchemaError
from govbus.catalogue import Classification, ShareType, check_parent
from govbus.contract import ContractField, DataContract
from govbus.entry import Entry, entry_to_facts
from govbus.errors import BusError, CatalogueError, GrantRefusedError, RefusedError
from govbus.grant import Grant, GrantState
from govbus.policy import check_grant
from govbus.rowfilter import parse_filter
from govbus.view import view_schema
from govbus_console.control.catalogue_file import (
    CatalogueFile,
    DepartmentEntry,
    GrantEntry,
    ResourceEntry,
    raise_all,
)
from govbus_console.control.planned import (
    LIVING,
    Action,
    Change,
    Impact,
    Plan,
    PlannedGrant,
    PlannedResource,
    agreed_facts,
    differences,
)
from govbus_console.control.removal import plan_removals
from govbus_console.control.store import Snapshot, StoredGrant, StoredResource, contract_text
from govbus_console.control.yaml_nodes import Place

__all__ = ["Action", "Change", "Impact", "Plan", "PlannedGrant", "PlannedResource", "plan"]


def plan(catalogue: CatalogueFile, known: Snapshot, *, now: datetime) -> Plan:
    """Compare a file with what counts.

    Raises:
        CatalogueError: something in the file contradicts the rest of it, or the store.
        GrantRefusedError, FilterRefusedError, TransformRefusedError: a grant is not allowed.
    """
    return _Planner(catalogue, known, now).plan()


class _Planner:
    def __init__(self, catalogue: CatalogueFile, known: Snapshot, now: datetime) -> None:
        self._catalogue = catalogue
        self._known = known
        # What Kafka and the store keep; a finer start would differ from itself when read back.
        self._now = now.astimezone(UTC).replace(microsecond=now.microsecond // 1000 * 1000)
        self._problems: list[BusError] = []
        self._changes: list[Change] = []
        self._departments = dict(known.departments)
        self._resources = {ref: _as_planned(stored) for ref, stored in known.resources.items()}

    def plan(self) -> Plan:
        departments = [entry.department for entry in self._catalogue.departments if self._department(entry)]
        self._check_parents()
        resources = [planned for entry in self._catalogue.resources if (planned := self._resource(entry))]
        changed = {planned.ref for planned in resources}
        grants = [granted for entry in self._catalogue.grants if (granted := self._grant(entry))]
        removed = {removal.name for removal in self._catalogue.removals if removal.kind == "grant"}
        grants += self._carried_over(changed, removed | {entry.id for entry in self._catalogue.grants})
        removals = plan_removals(
            self._catalogue.removals,
            self._known,
            departments=self._departments,
            resources=self._resources,
            grants=grants,
        )
        self._changes += removals.changes
        raise_all([*self._problems, *removals.problems])
        self._not_in_file()
        return Plan(
            path=self._catalogue.path,
            changes=tuple(self._changes),
            departments=tuple(departments),
            resources=tuple(resources),
            grants=tuple(grants),
            impacts=tuple(self._impacts(grants, removals.grants)),
            removed_grants=removals.grants,
            removed_resources=removals.resources,
            removed_departments=removals.departments,
            warnings=tuple(self._warnings()),
        )

    def _department(self, entry: DepartmentEntry) -> bool:
        department = entry.department
        before = self._known.departments.get(department.name)
        self._departments[department.name] = department
        if before is None:
            return self._change("department", department.name, Action.CREATE)
        return self._change(
            "department",
            department.name,
            Action.AMEND,
            differences(
                (word, getattr(before, word), getattr(department, word))
                for word in ("title", "level", "parent", "credit_code", "contact")
            ),
        )

    def _check_parents(self) -> None:
        """Also of departments that the file does not name: their parent may have another level now."""
        places = {entry.department.name: entry.place for entry in self._catalogue.departments}
        for department in self._departments.values():
            if department.parent is None:
                continue
            place = places.get(department.name) or places.get(department.parent)
            if place is None:
                continue  # neither is stated here, and both were checked when they were
            parent = self._departments.get(department.parent)
            if parent is None:
                self._refuse(
                    CatalogueError,
                    place,
                    f"department {department.name}: there is no department {department.parent!r}; "
                    "add its parent under departments",
                )
                continue
            try:
                check_parent(department, parent)
            except ValueError as error:
                self._refuse(CatalogueError, place, f"department {department.name}: {error}")

    def _resource(self, entry: ResourceEntry) -> PlannedResource | None:
        planned = PlannedResource(
            title=entry.title,
            share_type=entry.share_type,
            contract=entry.contract,
            synthetic=entry.synthetic,
            owner_allows=entry.owner_allows,
            entry=entry.entry,
        )
        before = self._known.resources.get(entry.ref)
        removed = self._known.removed_resources.get(entry.ref)
        if entry.contract.owner not in self._departments:
            self._refuse(
                CatalogueError,
                entry.place,
                f"resource {entry.ref}: there is no department {entry.contract.owner!r}; "
                "add it under departments, or correct the name before the dot",
            )
        self._resources[entry.ref] = planned
        if before is None:
            # Its topics and contract versions outlive a resource's removal.
            if removed is None or self._may_follow(entry, removed):
                self._change("resource", entry.ref, Action.CREATE)
            return planned
        if not self._may_follow(entry, before):
            return None
        details = differences(
            [
                ("title", before.resource.title, planned.title),
                ("share_type", before.resource.share_type.value, planned.share_type.value),
                ("synthetic", before.synthetic, planned.synthetic),
                ("owner_allows", list(before.owner_allows), list(planned.owner_allows)),
                ("contract", before.contract.version, planned.contract.version),
                *_entry_facts(before.entry, planned.entry),
            ]
        )
        whom = sorted(
            stored.grant.subscriber
            for stored in self._known.grants.values()
            if stored.grant.resource_ref == entry.ref and stored.grant.state in LIVING
        )
        changed = self._change("resource", entry.ref, Action.AMEND, details, tuple(dict.fromkeys(whom)))
        return planned if changed else None

    def _may_follow(self, entry: ResourceEntry, before: StoredResource) -> bool:
        old, new = before.contract, entry.contract
        same = before.contract_text == contract_text(new)
        if same or new.version > old.version:
            fixed = differences(
                [
                    ("key", list(old.key), list(new.key)),
                    ("kind", old.kind.value, new.kind.value),
                    ("partitions", old.partitions, new.partitions),
                ]
            )
            if fixed:
                self._refuse(
                    CatalogueError,
                    entry.place,
                    f"contract of {entry.ref}: its topics were made with another {'; '.join(fixed)}; "
                    "publish the new form as a resource of another name",
                )
            return not fixed
        said = "is older than the one in force" if new.version < old.version else "has changed"
        self._refuse(
            CatalogueError,
            entry.place,
            f"contract of {entry.ref}: version {new.version} {said}; "
            f"write govbus.version {old.version + 1} in the contract, or take the change back",
        )
        return False

    def _grant(self, entry: GrantEntry) -> PlannedGrant | None:
        resource = self._resources.get(entry.ref)
        if resource is None:
            self._refuse(
                CatalogueError,
                entry.place,
                f"grant {entry.id}: there is no resource {entry.ref}; add it under resources",
            )
        if entry.subscriber not in self._departments:
            self._refuse(
                CatalogueError,
                entry.place,
                f"grant {entry.id}: there is no department {entry.subscriber!r}; add it under departments",
            )
        if resource is None or entry.subscriber not in self._departments:
            return None
        before = self._known.grants.get(entry.id)
        if before is None:
            grant = self._checked(entry, resource, None)
            if grant is None:
                return None
            self._change("grant", entry.id, Action.CREATE, whom=(entry.subscriber,))
            return PlannedGrant(grant=grant, contract=resource.contract, share_type=resource.share_type)
        return self._amended(entry, resource, before)

    def _amended(
        self, entry: GrantEntry, resource: PlannedResource, before: StoredGrant
    ) -> PlannedGrant | None:
        old = before.grant
        if old.state not in LIVING:
            self._changes.append(
                Change(
                    kind="grant",
                    name=entry.id,
                    action=Action.ENDED,
                    details=(f"{old.state}; to grant it anew, give it another id",),
                )
            )
            return None
        for word, was, becomes in (
            ("subscriber", old.subscriber, entry.subscriber),
            ("resource", old.resource_ref, entry.ref),
        ):
            if was != becomes:
                self._refuse(
                    CatalogueError,
                    entry.place,
                    f"grant {entry.id}: its {word} is {was} and cannot become {becomes}; "
                    "revoke it and write a grant of another id",
                )
                return None
        grant = self._checked(entry, resource, old)
        if grant is None:
            return None
        details = differences(
            [
                *agreed_facts(old, grant),
                *self._of_the_resource(before, resource),
            ]
        )
        if not self._change("grant", entry.id, Action.AMEND, details, (entry.subscriber,)):
            return None
        return PlannedGrant(grant=grant, contract=resource.contract, share_type=resource.share_type)

    def _checked(self, entry: GrantEntry, resource: PlannedResource, old: Grant | None) -> Grant | None:
        """Make the grant that an entry asks for, or note why it cannot be."""
        try:
            grant = self._asked_for(entry, resource.contract, old)
            if old is not None and resource.share_type is ShareType.WITHHELD:
                # Withholding a resource must not wait until every grant has been taken out of
                # the file: the exchange denies them all from then on.
                return grant
            _allowed(grant, resource)
        except RefusedError as error:
            self._problems.append(_placed(error, entry.place, entry.id))
            return None
        return grant

    def _asked_for(self, entry: GrantEntry, contract: DataContract, old: Grant | None) -> Grant:
        starts_at = entry.starts_at or (old.starts_at if old else self._now)
        expires_at = entry.expires_at or starts_at + (entry.term or timedelta())
        if expires_at <= starts_at:
            raise GrantRefusedError("its end is not after its start; write a later expires_at")
        rows = entry.rows
        if rows is not None:
            rows = parse_filter(rows, {field.name: field.avro_type for field in contract.fields}).text
        order = {name: number for number, name in enumerate(contract.names)}
        # A field that the contract lacks stays in, last, for the check to name.
        fields = sorted(entry.fields, key=lambda rule: order.get(rule.name, len(order)))
        return Grant(
            id=entry.id,
            version=old.version + 1 if old else 1,
            state=old.state if old else GrantState.ACTIVE,
            subscriber=entry.subscriber,
            owner=entry.owner,
            resource=entry.resource,
            fields=tuple(fields),
            rows=rows,
            purpose=entry.purpose,
            starts_at=starts_at.astimezone(UTC),
            expires_at=expires_at.astimezone(UTC),
            data_on_end=entry.data_on_end,
            quota_records_per_day=entry.quota_records_per_day,
            quota_keys_per_day=entry.quota_keys_per_day,
        )

    def _carried_over(self, changed: set[str], in_file: set[str]) -> Iterable[PlannedGrant]:
        """Living grants that the file does not name, of resources that it changes."""
        for stored in self._known.grants.values():
            grant = stored.grant
            if grant.id in in_file or grant.resource_ref not in changed or grant.state not in LIVING:
                continue
            resource = self._resources[grant.resource_ref]
            details = differences(self._of_the_resource(stored, resource))
            renewed = replace(grant, version=grant.version + 1)
            if resource.share_type is not ShareType.WITHHELD:
                try:
                    _allowed(renewed, resource)
                except RefusedError as error:
                    place = next(e.place for e in self._catalogue.resources if e.ref == grant.resource_ref)
                    self._problems.append(_placed(error, place, grant.id))
                    continue
            if not details:
                # Its view stays as it is; what the entry says of its fields had to be asked all the same.
                continue
            self._change("grant", grant.id, Action.AMEND, details, (grant.subscriber,))
            yield PlannedGrant(grant=renewed, contract=resource.contract, share_type=resource.share_type)

    def _of_the_resource(self, stored: StoredGrant, resource: PlannedResource) -> list[tuple[str, Any, Any]]:
        """Facts of the resource that a grant version rests on."""
        before = self._known.resources[stored.grant.resource_ref]
        return [
            ("contract", stored.contract_version, resource.contract.version),
            ("share_type", before.resource.share_type.value, resource.share_type.value),
        ]

    def _impacts(self, grants: Iterable[PlannedGrant], removed: Iterable[str]) -> Iterable[Impact]:
        for planned in grants:
            grant = planned.grant
            withheld = planned.share_type is ShareType.WITHHELD
            impact = Impact(before=self._seen_now(grant.id), after=None if withheld else grant)
            if impact.before or impact.after:
                yield impact
        for name in removed:
            before = self._seen_now(name)
            if before is not None:
                yield Impact(before=before, after=None)

    def _seen_now(self, grant_id: str) -> Grant | None:
        stored = self._known.grants.get(grant_id)
        if stored is None:
            return None
        resource = self._known.resources[stored.grant.resource_ref].resource
        return None if resource.share_type is ShareType.WITHHELD else stored.grant

    def _warnings(self) -> Iterable[str]:
        for resource in self._catalogue.resources:
            for warning in () if resource.entry is None else resource.entry.warnings:
                yield f"{resource.place}: resource {resource.ref}: {warning}"

    def _not_in_file(self) -> None:
        planned = {(change.kind, change.name) for change in self._changes}
        stored = [("department", name) for name in self._known.departments]
        stored += [("resource", ref) for ref in self._known.resources]
        stored += [("grant", name) for name, kept in self._known.grants.items() if kept.grant.state in LIVING]
        for kind, name in stored:
            if (kind, name) not in planned:
                self._changes.append(Change(kind=kind, name=name, action=Action.LEFT))

    def _change(
        self,
        kind: str,
        name: str,
        action: Action,
        details: tuple[str, ...] = (),
        whom: tuple[str, ...] = (),
    ) -> bool:
        if action is Action.AMEND and not details:
            action, whom = Action.NOTHING, ()
        change = Change(kind=kind, name=name, action=action, details=details, whom=whom)
        self._changes.append(change)
        return change.pending

    def _refuse(self, kind: type[RefusedError], place: Place, text: str) -> None:
        self._problems.append(kind(f"{place}: {text}"))


def _allowed(grant: Grant, resource: PlannedResource) -> None:
    """Hold a grant against the permission model; fields that the owner has opened need no more."""
    contract = replace(
        resource.contract,
        fields=tuple(
            _opened(field) if field.name in resource.owner_allows else field
            for field in resource.contract.fields
        ),
    )
    check_grant(grant, contract, resource.share_type)
    try:
        view_schema(grant, resource.contract)
    except SchemaError as error:
        raise GrantRefusedError(f"its view has no schema: {error}") from None


def _opened(field: ContractField) -> ContractField:
    """A field as unconditional sharing may have it; what is withheld stays withheld."""
    return replace(
        field,
        classification=Classification.INTERNAL if field.classification.needs_owner else field.classification,
        share_type=None if field.share_type is ShareType.CONDITIONAL else field.share_type,
    )


def check_against(grant: Grant, resource: StoredResource) -> None:
    """Hold a grant against the permission model and the catalogue as it stands.

    Raises:
        GrantRefusedError, FilterRefusedError, TransformRefusedError: it is not allowed.
    """
    _allowed(grant, _as_planned(resource))


def _placed(error: RefusedError, place: Place, grant_id: str) -> RefusedError:
    text = str(error)
    named = text if text.startswith(f"grant {grant_id}") else f"grant {grant_id}: {text}"
    return type(error)(f"{place}: {named}")


def _as_planned(stored: StoredResource) -> PlannedResource:
    return PlannedResource(
        title=stored.resource.title,
        share_type=stored.resource.share_type,
        contract=stored.contract,
        synthetic=stored.synthetic,
        owner_allows=stored.owner_allows,
        entry=stored.entry,
    )


def _entry_facts(before: Entry | None, after: Entry | None) -> list[tuple[str, Any, Any]]:
    """What differs between two entries, word by word; items one by one."""
    if before is None or after is None:
        return [("entry", "none" if before is None else "stated", "none" if after is None else "stated")]
    old, new = entry_to_facts(before), entry_to_facts(after)
    facts: list[tuple[str, Any, Any]] = [(word, old[word], new[word]) for word in new if word != "items"]
    was = {item["name"]: item for item in old["items"]}
    becomes = {item["name"]: item for item in new["items"]}
    for name in sorted(was.keys() | becomes.keys()):
        facts.append((f"item {name}", _said(was.get(name)), _said(becomes.get(name))))
    return facts


def _said(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return "none"
    return " ".join(str(value) for word, value in item.items() if word != "name" and value not in (None, ""))
