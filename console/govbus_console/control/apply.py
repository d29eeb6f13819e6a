"""Bring the bus in line with a catalogue file. Does I/O.

In this order, so that whoever reads a record finds what it names, and so that
doing it again after a crash anywhere ends the same:

1. Plan; nothing has happened when it is refused.
2. Register the schemas of contracts, keys and views; make topics and users;
   give departments their standing permissions. All of it is idempotent, and none
   of it shows anyone anything: deliveries follow from grants alone.
3. Write catalogue, grant versions, audit and outbox in one transaction, if what
   the plan rested on is still so; otherwise plan again.
4. Open and close shared topics (:mod:`.shared_access`).
5. Tell Kafka (:mod:`.outbox`), and follow up what has ended (:mod:`.endings`).
6. Revoke the grants that the file removes, each behind its barrier; then take resources and
   departments out of the catalogue that nothing depends on any more, and shut the departments'
   users out at the broker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from govbus import topics
from govbus.catalogue import Resource, ResourceKind
from govbus.codec import bus_schema
from govbus.errors import CatalogueError, FencedError, PlanMovedError, RetriableError
from govbus.grant import Grant, PublishedGrant
from govbus.policy import may_share, view_id
from govbus.view import key_schema, view_schema
from govbus_console.cluster import DAY_MS, TopicSpec
from govbus_console.control import endings, outbox, shared_access
from govbus_console.control.bus import Bus, ensure_user, register, set_up
from govbus_console.control.catalogue_file import CatalogueFile, read_catalogue
from govbus_console.control.licence import Licence
from govbus_console.control.plan import Plan, PlannedGrant, PlannedResource, check_against, plan
from govbus_console.control.planned import LIVING
from govbus_console.control.receipts import receipts_topic
from govbus_console.control.saved_plan import Basis
from govbus_console.control.store import (
    ControlStore,
    Snapshot,
    StoredGrant,
    StoredResource,
    Writing,
    contract_text,
)

_EVENT_DAYS = 30
_DEAD_LETTER_DAYS = 30
_DEAD_LETTER_BYTES = str(4 * 1_048_576 + 65_536)
"""A dead letter carries the whole record that was rejected, and a little about it."""

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What applying came to."""

    plan: Plan
    published: int
    """Records that Kafka was told of, those of an earlier run that had been cut short included."""


class StalePlanError(RetriableError):
    """Somebody else has written in between; plan again."""

    code = "stale-plan"


def apply_file(
    path: Path,
    store: ControlStore,
    bus: Bus,
    *,
    who: str,
    why: str,
    now: datetime | None = None,
    saved: Basis | None = None,
) -> Applied:
    """Apply a catalogue file, as :func:`apply_stated` does."""
    return apply_stated(read_catalogue(path), store, bus, who=who, why=why, now=now, saved=saved)


def apply_stated(
    catalogue: CatalogueFile,
    store: ControlStore,
    bus: Bus,
    *,
    who: str,
    why: str,
    now: datetime | None = None,
    saved: Basis | None = None,
    licence: Licence | None = None,
) -> Applied:
    """Apply what a catalogue file states.

    Args:
        catalogue: as it was read.
        store: the catalogue of record.
        bus: where it is enforced.
        who: for the audit.
        why: for the audit.
        now: the moment of the plan, with time zone; None: the present.
        saved: what a plan rests on that was made before: it is applied as it was shown, or not at all.
        licence: what may be stated and changed; None: everything.

    Raises:
        NotAllowedError: beyond the licence; nothing has been applied.
        CatalogueError, GrantRefusedError, FilterRefusedError, TransformRefusedError: refused; nothing
            has been applied.
        PlanMovedError: the saved plan rests on what is no longer so; nothing has been applied.
        BrokerUnavailableError, RegistryUnavailableError: cut short; apply again to finish.
    """
    for _ in range(_TRIES):
        moment = now or datetime.now(UTC)
        try:
            done = apply_catalogue(
                catalogue, store, bus, who=who, why=why, now=moment, saved=saved, licence=licence
            )
            published = done.published + _remove(done.plan, store, bus, who=who, why=why, now=moment)
            return Applied(plan=done.plan, published=published)
        except StalePlanError:
            if saved is not None:
                raise PlanMovedError("the store has changed while the plan was being applied") from None
    raise StalePlanError("the catalogue is being changed by others all the time; apply again later")


def apply_catalogue(
    catalogue: CatalogueFile,
    store: ControlStore,
    bus: Bus,
    *,
    who: str,
    why: str,
    now: datetime,
    saved: Basis | None = None,
    licence: Licence | None = None,
) -> Applied:
    """Apply what was read from a file, removals left out.

    Raises:
        StalePlanError: somebody else was faster.
        PlanMovedError: the file or the store is not what the saved plan rests on.
    """
    known = store.snapshot()
    if saved is not None:
        saved.check(catalogue, known)
    made = licensed_plan(catalogue, known, now=now, licence=licence)
    set_up(bus)
    _departments(bus, known.departments.keys() | {department.name for department in made.departments})
    resources = [_stored_resource(bus, planned) for planned in made.resources]
    by_ref = dict(known.resources) | {stored.resource.ref: stored for stored in resources}
    grants = [_with_view(bus, planned, by_ref, now=now) for planned in made.grants]
    bus.cluster.ensure_topics([*_resource_topics(by_ref.values()), *_delivery_topics(known, grants, by_ref)])
    with store.writing(who=who, why=why, now=now) as writing:
        if writing.snapshot() != known:
            raise StalePlanError("the store has changed since the plan was made")
        for department in made.departments:
            writing.department(department)
        for resource in resources:
            writing.resource(resource)
        for grant in grants:
            writing.grant(grant)
            tell_subscriber(writing, grant, by_ref[grant.grant.resource_ref])
    settled = settle(store, bus, now=now)
    return Applied(plan=made, published=settled.published)


def licensed_plan(
    catalogue: CatalogueFile, known: Snapshot, *, now: datetime, licence: Licence | None
) -> Plan:
    """Plan within a licence. Raises what :func:`.plan.plan` and the licence raise."""
    if licence is None:
        return plan(catalogue, known, now=now)
    licence.stating(catalogue, known)
    made = plan(catalogue, known, now=now)
    licence.changing(made, known)
    return made


def _remove(made: Plan, store: ControlStore, bus: Bus, *, who: str, why: str, now: datetime) -> int:
    """Take away what the file removes; return how many records Kafka was told of."""
    if not (made.removed_grants or made.removed_resources or made.removed_departments):
        return 0
    # Ending a grant is one thing, wherever it is asked for; the module builds on this one.
    from govbus_console.control import lifecycle

    told = 0
    for name in made.removed_grants:
        told += lifecycle.revoke(name, store, bus, who=who, why=why).settled.published
    with store.writing(who=who, why=why, now=now) as writing:
        known = writing.snapshot()
        living = [stored.grant for stored in known.grants.values() if stored.grant.state in LIVING]
        asked_for = {one.resource_ref for one in known.open_requests}
        asking = {one.subscriber for one in known.open_requests} | set(known.accounts.values())
        for ref in made.removed_resources:
            if ref in asked_for or any(grant.resource_ref == ref for grant in living):
                raise StalePlanError(f"{ref} has been granted or asked for since the plan was made")
            if ref in known.resources:
                writing.remove_resource(known.resources[ref])
        for name in made.removed_departments:
            owned = any(
                stored.resource.owner == name and ref not in made.removed_resources
                for ref, stored in known.resources.items()
            )
            if owned or name in asking or any(grant.subscriber == name for grant in living):
                raise StalePlanError(f"{name} has something again since the plan was made")
            if name in known.departments:
                writing.remove_department(name)
    told += settle(store, bus, now=now).published
    for name in made.removed_departments:
        bus.cluster.delete_user(name)
    return told


def settle(
    store: ControlStore, bus: Bus, *, now: datetime, departments: AbstractSet[str] | None = None
) -> outbox.Settled:
    """Finish what any earlier command may have left undone: shared topics, the outbox, ended grants.

    ``departments`` are those whose access to shared topics is looked at; None: all of them, and
    grants that have ended are followed up (:mod:`.endings`).
    """
    shared_access.reconcile(bus.cluster, store.snapshot(), now=now, only=departments)
    try:
        settled = outbox.settle(store, bus)
    except FencedError:
        # Somebody else was publishing; what is left is still to be seen in the outbox.
        settled = outbox.settle(store, bus)
    if departments is None:
        endings.follow_up(store, bus, now=now)
    return settled


def _with_view(
    bus: Bus, planned: PlannedGrant, resources: Mapping[str, StoredResource], *, now: datetime
) -> StoredGrant:
    """Register a grant's view, and say where its deliveries go."""
    grant, contract = planned.grant, planned.contract
    view = view_id(grant, contract.version)
    shared = may_share(grant, planned.share_type)
    topic = (
        topics.shared(grant.owner, grant.resource, view)
        if shared
        else topics.delivered(grant.subscriber, grant.id)
    )
    value = view_schema(grant, contract, view if shared else None)
    key = key_schema(grant, contract)
    return StoredGrant(
        published=PublishedGrant(
            grant=grant,
            view=view,
            delivery_topic=topic,
            value_schema_id=register(bus.registry, f"{topic}-value", value),
            key_schema_id=resources[grant.resource_ref].resource.key_schema_id
            if key is None
            else register(bus.registry, f"{topic}-key", key),
        ),
        contract_version=contract.version,
        made_at=now,
    )


def provide(
    make: Callable[[Snapshot], Grant],
    store: ControlStore,
    bus: Bus,
    *,
    who: str,
    why: str,
    now: datetime,
    also: Callable[[Writing, Grant], None],
) -> StoredGrant:
    """Bring one grant version into being, on the way on which a catalogue file's are.

    Args:
        make: works the version out from what counts, and checks it; asked again when somebody else
            has written in between.
        store: of record.
        bus: to enforce it on.
        who: for the audit.
        why: for the audit.
        now: the clock.
        also: writes what belongs to it, in the same transaction.

    Raises:
        RefusedError: by ``make`` or ``also``; nothing has changed.
        BrokerUnavailableError, RegistryUnavailableError: before the transaction, nothing has changed;
            after it, whoever settles next finishes.
    """
    for _ in range(_TRIES):
        known = store.snapshot()
        grant = make(known)
        resource = known.resources[grant.resource_ref]
        check_against(grant, resource)
        set_up(bus)
        _departments(bus, {grant.subscriber})
        planned = PlannedGrant(
            grant=grant, contract=resource.contract, share_type=resource.resource.share_type
        )
        stored = _with_view(bus, planned, known.resources, now=now)
        bus.cluster.ensure_topics([_data_topic(stored.published.delivery_topic, resource.resource)])
        with store.writing(who=who, why=why, now=now) as writing:
            if writing.snapshot() != known:
                continue
            writing.grant(stored)
            tell_subscriber(writing, stored, resource)
            also(writing, grant)
        settle(store, bus, now=now, departments={grant.subscriber})
        return stored
    raise StalePlanError("the catalogue is being changed by others all the time; try again later")


def tell_subscriber(
    writing: Writing, stored: StoredGrant, resource: StoredResource, *, held_for: int | None = None
) -> int:
    """Queue what a department is told of its grant."""
    grant = stored.grant
    record = {
        "grant": grant.id,
        "version": grant.version,
        "state": grant.state.value,
        "resource": grant.resource_ref,
        "title": resource.resource.title,
        "purpose": grant.purpose,
        "topic": stored.published.delivery_topic,
        "partitions": resource.resource.partitions,
        "kind": resource.resource.kind.value,
        "value_schema_id": stored.published.value_schema_id,
        "key_schema_id": stored.published.key_schema_id,
        "key": list(resource.resource.key),
        "expires_at": grant.expires_at,
        "data_on_end": grant.data_on_end.value,
        "table": grant.id.replace("-", "_"),
    }
    return writing.queue(
        topics.subscriptions(grant.subscriber),
        grant.id.encode(),
        "subscription",
        record,
        held_for=held_for,
    )


def _departments(bus: Bus, names: Iterable[str]) -> None:
    """Users, standing permissions, and the topics that tell each of its grants and take its answers."""
    departments = sorted(names)
    bus.cluster.ensure_topics(
        [
            *(TopicSpec.compacted(topics.subscriptions(name)) for name in departments),
            *(receipts_topic(name) for name in departments),
        ]
    )
    for name in departments:
        register(bus.registry, f"{topics.receipts(name)}-value", bus_schema("receipt"))
        ensure_user(bus, name)
        bus.cluster.allow_owner(name)
        bus.cluster.allow_subscriber(name)


def _stored_resource(bus: Bus, planned: PlannedResource) -> StoredResource:
    contract = planned.contract
    topic = topics.captured(contract.owner, contract.resource)
    try:
        value_id = register(bus.registry, f"{topic}-value", dict(contract.schema), "FULL_TRANSITIVE")
        key_id = register(bus.registry, f"{topic}-key", contract.key_schema, "FULL_TRANSITIVE")
    except ValueError as error:
        raise CatalogueError(
            f"contract of {planned.ref}: {error}; give a new field a default, keep the types of the others, "
            "or publish the new form as a resource of another name"
        ) from None
    register(
        bus.registry,
        f"{topics.dead_letter(contract.owner, contract.resource)}-value",
        bus_schema("dead-letter"),
    )
    return StoredResource(
        resource=Resource(
            owner=contract.owner,
            name=contract.resource,
            title=planned.title,
            share_type=planned.share_type,
            kind=contract.kind,
            contract_version=contract.version,
            key=contract.key,
            partitions=contract.partitions,
            value_schema_id=value_id,
            key_schema_id=key_id,
        ),
        contract=contract,
        contract_text=contract_text(contract),
        synthetic=planned.synthetic,
        owner_allows=planned.owner_allows,
        entry=planned.entry,
    )


def _resource_topics(resources: Iterable[StoredResource]) -> list[TopicSpec]:
    specs = []
    for stored in resources:
        resource = stored.resource
        specs.append(_data_topic(topics.captured(resource.owner, resource.name), resource))
        specs.append(
            TopicSpec.retained(
                topics.dead_letter(resource.owner, resource.name),
                retention_ms=_DEAD_LETTER_DAYS * DAY_MS,
                max_message_bytes=_DEAD_LETTER_BYTES,
            )
        )
    return specs


def _delivery_topics(
    known: Snapshot, grants: Iterable[StoredGrant], resources: Mapping[str, StoredResource]
) -> list[TopicSpec]:
    """As many partitions as the source has: a delivery keeps its partition, and so its order."""
    living = [s for s in known.grants.values() if s.grant.state in LIVING]
    refs = {s.published.delivery_topic: s.grant.resource_ref for s in (*living, *grants)}
    return [_data_topic(topic, resources[ref].resource) for topic, ref in refs.items()]


def _data_topic(name: str, resource: Resource) -> TopicSpec:
    if resource.kind is ResourceKind.STATE:
        return TopicSpec.compacted(name, partitions=resource.partitions)
    return TopicSpec.retained(name, retention_ms=_EVENT_DAYS * DAY_MS, partitions=resource.partitions)
