"""What the exchange enforces at one moment: resources, grants, and the routes they make.

A *route* leads from one captured topic through one view to one delivery topic.
A grant has a route of its own, except that grants of an unconditional resource
with the same view share one: three hundred subscribers, one copy.

A policy is a value. Each change of ``govbus.grants`` leads to another one, and none
is ever altered, so a batch that holds one cannot see half of an amendment. What a
change does not touch is the same in both: making the next one costs what has
changed, not what there is (:class:`Routing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from govbus import topics
from govbus.catalogue import Resource
from govbus.grant import GrantState, PublishedGrant
from govbus.policy import Decision, Effect, decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One view of one resource and the topic that it fills."""

    resource: Resource
    grants: tuple[PublishedGrant, ...]
    """The grants that it serves: one, or all that share it. Each has the same view."""

    view_raw: Mapping[str, Any]
    """The registered schema of the delivered values."""

    key_raw: Mapping[str, Any]
    """The registered schema of the delivered keys."""

    @property
    def first(self) -> PublishedGrant:
        """Any one of the grants: rows, fields and transforms are the same in all of them."""
        return self.grants[0]

    @property
    def topic(self) -> str:
        """The delivery topic; also what a route is told apart by."""
        return self.first.delivery_topic

    @property
    def label(self) -> str:
        """What decision records and metrics call it: the grant, or the view where several share it."""
        return self.first.view if self.first.shared else self.first.grant.id

    @property
    def filtered(self) -> bool:
        """Whether rows can leave the view while they stay in the source."""
        return self.first.grant.rows is not None

    @property
    def identity(self) -> tuple[object, ...]:
        """Changes exactly when a compiled view of this route has to be compiled again."""
        return (self.topic, self.first.view, self.first.value_schema_id, self.first.key_schema_id)

    @property
    def ended(self) -> bool:
        """Whether no grant of this route can come into force again as it stands."""
        return all(p.grant.state in (GrantState.REVOKED, GrantState.EXPIRED) for p in self.grants)

    def decide(self, *, now: datetime, fresh: bool) -> Decision:
        """Permit when one of the grants does; otherwise the first grant's refusal."""
        refusal = None
        for published in self.grants:
            decision = decide(
                share_type=self.resource.share_type, grant=published.grant, now=now, fresh=fresh
            )
            if decision.effect is Effect.PERMIT:
                return decision
            refusal = refusal or decision
        assert refusal is not None  # noqa: S101 - a route has at least one grant
        return refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything that ``govbus.grants`` says up to and with one offset."""

    offset: int = -1
    """The last offset that is in it; -1 before anything was read."""

    resources: Mapping[str, Resource] = field(default_factory=dict)
    """By captured topic."""

    routes: Mapping[str, tuple[Route, ...]] = field(default_factory=dict)
    """By captured topic."""

    deliveries: Mapping[str, Route] = field(default_factory=dict)
    """The same routes by delivery topic."""

    unusable: Mapping[str, str] = field(default_factory=dict)
    """Grants that could not be made into a route, with the code of the reason: they get nothing."""


class Routing:
    """What was read of ``govbus.grants``, and the routes that were made of it so far.

    On a bus with ten thousand grants there is a change every few seconds, and each leads to a new
    policy. So a change is only noted, and :meth:`policy` makes those routes again that it touches: the
    grant's own, the shared one that it joins or leaves, all of a resource that has become another.
    Whatever the order of the changes, the policy is the one that making all routes at once would give.

    Used by one thread. The policies may go anywhere: what they hold is never altered.
    """

    def __init__(self) -> None:
        self._resources: dict[str, Resource] = {}
        self._grants: dict[str, PublishedGrant] = {}
        self._schemas: dict[int, Mapping[str, Any]] = {}
        self._unusable: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        """The unusable ones, and those that lead nowhere."""

        self._granted: dict[str, set[str]] = {}
        """The ids of the grants of a resource, whether it is known or not."""

        self._places: dict[str, tuple[str, str]] = {}
        """Captured and delivery topic of each grant that has a route."""

        self._together: dict[tuple[str, str], dict[str, PublishedGrant]] = {}
        """The grants of each route."""

        self._by_source: dict[str, dict[str, Route]] = {}
        self._touched: set[str] = set()
        """Grants whose routes have to be made again."""

        self._policy = Policy()

    def grant(self, grant_id: str) -> PublishedGrant | None:
        """The version of a grant that was read last, where it could be."""
        return self._grants.get(grant_id)

    def has_schema(self, schema_id: int) -> bool:
        """Whether a schema is known."""
        return schema_id in self._schemas

    def put_schema(self, schema_id: int, raw: Mapping[str, Any]) -> None:
        """Note a registered schema of values or keys. It has to be here before the grant that names it."""
        self._schemas[schema_id] = raw

    def put_resource(self, resource: Resource) -> None:
        """Note a resource, new or as it has become."""
        self._resources[resource.ref] = resource
        self._touched |= self._granted.get(resource.ref, set())

    def take_resource(self, ref: str) -> None:
        """Forget a resource: its grants lead nowhere."""
        if self._resources.pop(ref, None) is not None:
            self._touched |= self._granted.get(ref, set())

    def put_grant(self, published: PublishedGrant) -> None:
        """Note the newest version of a grant."""
        self.take_grant(published.grant.id)
        self._grants[published.grant.id] = published
        self._granted.setdefault(published.grant.resource_ref, set()).add(published.grant.id)

    def take_grant(self, grant_id: str, *, unusable: str = "") -> None:
        """Forget a grant; ``unusable`` is a code that says why it could not be read."""
        before = self._grants.pop(grant_id, None)
        if before is not None:
            self._granted[before.grant.resource_ref].discard(grant_id)
        self._unusable.pop(grant_id, None)
        if unusable:
            self._unusable[grant_id] = unusable
        self._touched.add(grant_id)

    def policy(self, offset: int) -> Policy:
        """What is to be enforced, up to and with an offset of ``govbus.grants``."""
        changed = {place for name in self._touched for place in self._moved(name)}
        self._touched.clear()
        deliveries = dict(self._policy.deliveries)
        # First what goes, then what comes: a delivery topic may have gone over to another resource.
        for source, topic in changed:
            self._by_source.setdefault(source, {}).pop(topic, None)
            deliveries.pop(topic, None)
        for source, topic in changed:
            if together := self._together.get((source, topic)):
                deliveries[topic] = self._by_source[source][topic] = self._route(together)
        routes = dict(self._policy.routes)
        for source in {source for source, _ in changed}:
            found = self._by_source[source]
            if found:
                routes[source] = tuple(found[topic] for topic in sorted(found))
            else:
                routes.pop(source, None)
                del self._by_source[source]
        self._policy = Policy(
            offset=offset,
            resources={topics.captured(r.owner, r.name): r for r in self._resources.values()},
            routes=routes,
            deliveries=deliveries,
            unusable=dict(self._faults),
        )
        return self._policy

    def _moved(self, grant_id: str) -> Iterable[tuple[str, str]]:
        """Put a grant where it belongs now; give the place where it was and the one where it is."""
        before = self._places.pop(grant_id, None)
        if before is not None:
            del self._together[before][grant_id]
            if not self._together[before]:
                del self._together[before]
            yield before
        self._faults.pop(grant_id, None)
        fault = self._fault(grant_id)
        if fault:
            self._faults[grant_id] = fault
        elif (published := self._grants.get(grant_id)) is not None:
            grant = published.grant
            place = topics.captured(grant.owner, grant.resource), published.delivery_topic
            self._places[grant_id] = place
            self._together.setdefault(place, {})[grant_id] = published
            yield place

    def _fault(self, grant_id: str) -> str:
        """Why a grant has no route, as a code; empty when it has one, or there is no such grant."""
        published = self._grants.get(grant_id)
        if published is None:
            return self._unusable.get(grant_id, "")
        if published.grant.resource_ref not in self._resources:
            return "unknown-contract"
        known = self.has_schema(published.value_schema_id) and self.has_schema(published.key_schema_id)
        return "" if known else "unknown-schema"

    def _route(self, together: Mapping[str, PublishedGrant]) -> Route:
        grants = tuple(together[name] for name in sorted(together))
        first = grants[0]
        return Route(
            resource=self._resources[first.grant.resource_ref],
            grants=grants,
            view_raw=self._schemas[first.value_schema_id],
            key_raw=self._schemas[first.key_schema_id],
        )
