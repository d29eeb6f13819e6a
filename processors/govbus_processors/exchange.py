"""The exchange: decide for every record and route, project, and route.

This is the one place where a record of an owner becomes a record for a
subscriber. It does no I/O and decides nothing about time or policy: both come
with the batch. For each record of a slice:

1. It must be a record of this resource: framed, under the resource's key
   schema, well-formed to the last byte, its key equal to the key fields of its
   row. Otherwise it is dead-lettered, and no route sees it.
2. For each route in force the row filter is asked. TRUE: the projected record
   goes to the delivery topic. Not TRUE, or the row is gone: a tombstone goes
   there if, and only if, the subscriber holds the row.
3. If a view fails for a record, that view gets nothing of it, and the record is
   dead-lettered in that grant's name. The other routes go on.

What a batch leads to is an :class:`~govbus_processors.batch.Outcome`; it counts
for nothing until the intake has committed it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from govbus import topics
from govbus.catalogue import Resource, ResourceKind
from govbus.codec import HEADER_BYTES, MAGIC, Registry, Schema, header
from govbus.compiledview import CompiledView
from govbus.errors import (
    ContractViolationError,
    RegistryUnavailableError,
    RejectedRecordError,
    UndecodableRecordError,
    UnknownSchemaError,
    ViewError,
)
from govbus.policy import Effect, Reason
from govbus.splice import Walker
from govbus.transform import derive_key
from govbus.view import compile_view
from govbus_processors.batch import Batch, Outcome, Slice, decision_record
from govbus_processors.slicework import SliceWork

if TYPE_CHECKING:
    from collections.abc import Callable

    from govbus_processors.keyset import KeySet
    from govbus_processors.membership import Membership
    from govbus_processors.routes import Route


_ASK_AGAIN = 5.0
"""Seconds after which the registry is asked once more for a schema that it did not know."""


class SchemaBook:
    """The writer schemas that records name, fetched outside the exchange and looked up inside it."""

    def __init__(self, registry: Registry, *, wait_seconds: float) -> None:
        self._registry = registry
        self._wait_seconds = wait_seconds
        self._known: dict[int, Schema] = {}
        self._wanted: dict[int, float] = {}
        """Since when an id is asked for in vain (monotonic seconds)."""

        self._unknown: dict[int, float] = {}
        """When the registry last answered that it does not know an id."""

        self._due: set[int] = set()
        """What the next fetch asks for."""

    def get(self, schema_id: int) -> Schema | None:
        """Return a writer schema, or None: ask again after :meth:`fetch`.

        Raises:
            UnknownSchemaError: the registry has not known it for ``wait_seconds``.
        """
        known = self._known.get(schema_id)
        if known is None:
            now = time.monotonic()
            since = self._wanted.setdefault(schema_id, now)
            answered = self._unknown.get(schema_id)
            # Asked again now and then: a schema that came too late for one record is there for the next.
            if answered is not None and now - since >= self._wait_seconds and now - answered < _ASK_AGAIN:
                raise UnknownSchemaError(f"the registry does not know schema {schema_id}")
            self._due.add(schema_id)
        return known

    def fetch(self) -> bool:
        """Ask the registry for every schema that is wanted, and say whether any came. Blocks."""
        came = False
        for schema_id in sorted(self._due):
            try:
                self._known[schema_id] = self._registry.schema(schema_id)
            except UnknownSchemaError:
                self._unknown[schema_id] = time.monotonic()
            except RegistryUnavailableError:
                return came
            else:
                self._unknown.pop(schema_id, None)
                self._wanted.pop(schema_id, None)
                came = True
            self._due.discard(schema_id)
        return came


@dataclass(slots=True)
class _Plan:
    """How records under one writer schema are read, for one resource."""

    walker: Walker
    key_fields: tuple[int, ...]
    """Positions of the key fields in the writer schema, in the order of the key."""

    views: dict[tuple[object, ...], CompiledView | None] = field(default_factory=dict)
    """By route identity; None where the view cannot be made for this writer schema."""


class Exchange:
    """Works out batches. One per worker; used by one thread at a time."""

    def __init__(
        self,
        *,
        worker: str,
        schemas: SchemaBook,
        membership: Membership,
        pseudonym_secret: bytes | None,
    ) -> None:
        self._worker = worker
        self._schemas = schemas
        self._membership = membership
        self._secret = pseudonym_secret
        self._plans: dict[tuple[str, bytes], _Plan | RejectedRecordError] = {}
        self._key_walkers: dict[int, Walker] = {}
        self._contract: dict[str, tuple[int, int]] = {}

    def process(self, batch: Batch) -> Outcome:
        """Work out one batch, staging membership changes as it goes."""
        outcome = Outcome()
        for part in batch.slices:
            self._exchange(part, batch, outcome)
        return outcome

    def rollback(self) -> None:
        """Forget what a batch has staged, because it is worked out again or given up."""
        self._membership.rollback()

    def _exchange(self, part: Slice, batch: Batch, outcome: Outcome) -> None:
        topic, partition = part.place
        resource = batch.policy.resources[topic]
        self._forget_old_plans(topic, resource)
        work = SliceWork(self, part, resource, batch, outcome)
        done = work.run()
        if done:
            last = part.messages[done - 1].offset()
            outcome.next_offsets[part.place] = last + 1
            outcome.considered[part.place] = done
            for route, counts in zip(part.routes, work.lane_counts(), strict=True):
                outcome.decisions.append(
                    self._decision(part, route, batch, done, last)
                    | {"effect": Effect.PERMIT.value, "reason": Reason.PERMITTED.value}
                    | counts
                )
            for route, reason in part.refused:
                outcome.decisions.append(
                    self._decision(part, route, batch, done, last)
                    | {"effect": Effect.DENY.value, "reason": reason}
                    | dict.fromkeys(("delivered", "filtered", "left_view", "rejected"), 0)
                )

    def _decision(
        self, part: Slice, route: Route, batch: Batch, considered: int, last: int
    ) -> dict[str, Any]:
        return decision_record(batch, part, route, worker=self._worker, considered=considered, last=last)

    def _forget_old_plans(self, topic: str, resource: Resource) -> None:
        """A new contract or key schema makes every plan of the resource anew."""
        contract = (resource.value_schema_id, resource.key_schema_id)
        if self._contract.get(topic) != contract:
            self._contract[topic] = contract
            self._plans = {place: plan for place, plan in self._plans.items() if place[0] != topic}

    # ---- what a slice needs, kept from one batch to the next ----

    def plan(self, topic: str, head: bytes, resource: Resource) -> _Plan | None:
        """Return how to read records that begin with ``head``, or None while its schema is not there.

        Raises:
            RejectedRecordError: no record that begins so can be one of this resource.
        """
        known = self._plans.get((topic, head))
        if known is None:
            known = self._make_plan(head, resource)
            if known is not None:
                self._plans[topic, head] = known
        if isinstance(known, RejectedRecordError):
            raise known
        return known

    def _make_plan(self, head: bytes, resource: Resource) -> _Plan | RejectedRecordError | None:
        if len(head) < HEADER_BYTES or head[0] != MAGIC:
            return UndecodableRecordError("no Confluent header")
        writer = self._schemas.get(int.from_bytes(head[1:], "big"))
        contract = self._schemas.get(resource.value_schema_id)
        if writer is None or contract is None:
            return None
        if _full_name(writer.raw) != _full_name(contract.raw):
            return ContractViolationError(f"schema {writer.id} describes another kind of record")
        names = [f["name"] for f in writer.raw["fields"]]
        if any(name not in names for name in resource.key):
            return ContractViolationError(f"schema {writer.id} lacks a key field")
        try:
            walker = Walker(writer.raw)
        except ValueError:
            return UndecodableRecordError(f"schema {writer.id} cannot be used to read records")
        return _Plan(walker, tuple(names.index(name) for name in resource.key))

    def view(self, plan: _Plan, head: bytes, route: Route) -> CompiledView | None:
        """Return a route's view of records under one writer schema, compiled once; None if that fails."""
        identity = route.identity
        if identity not in plan.views:
            writer = self._schemas.get(int.from_bytes(head[1:], "big"))
            assert writer is not None  # noqa: S101 - there is a plan, so there is a schema
            try:
                plan.views[identity] = compile_view(
                    writer=writer,
                    resource=route.resource,
                    published=route.first,
                    view_raw=route.view_raw,
                    pseudonym_key=self._pseudonym_key(route),
                )
            except (ViewError, ValueError):
                plan.views[identity] = None
        return plan.views[identity]

    def key_view(self, route: Route) -> tuple[bool, CompiledView | None]:
        """Return a view good for keys alone, for records whose row is gone; False: ask again later."""
        resource = route.resource
        head = header(resource.value_schema_id)
        plan = self.plan(topics.captured(resource.owner, resource.name), head, resource)
        return (False, None) if plan is None else (True, self.view(plan, head, route))

    def key_walker(self, resource: Resource) -> Walker | None:
        """Return what reads this resource's keys, or None while the key schema is not there."""
        walker = self._key_walkers.get(resource.key_schema_id)
        if walker is None:
            schema = self._schemas.get(resource.key_schema_id)
            if schema is None:
                return None
            walker = self._key_walkers[resource.key_schema_id] = Walker(schema.raw)
        return walker

    def key_set(self, route: Route, partition: int) -> KeySet | None:
        """Return the keys that the subscriber holds, where rows can leave the view while they stay."""
        if route.filtered and route.resource.kind is ResourceKind.STATE:
            return self._membership.of(route.topic, partition)
        return None

    def _pseudonym_key(self, route: Route) -> Callable[[int], bytes] | None:
        secret, grant = self._secret, route.first.grant
        if secret is None:
            return None
        return lambda epoch: derive_key(
            secret, subscriber=grant.subscriber, purpose=grant.purpose, epoch=epoch
        )


def _full_name(raw: Mapping[str, Any]) -> str:
    """An Avro record's full name: name and namespace, however they are written."""
    name: str = raw.get("name", "")
    return name if "." in name or not raw.get("namespace") else f"{raw['namespace']}.{name}"
