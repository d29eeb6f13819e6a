"""What the exchange enforces at one moment: resources, grants, and the routes they make.

A *route* leads from one captured topic through one view to one delivery topic.
A grant has a route of its own, except that grants of an unconditional resource
with the same view share one: three hundred subscribers, one copy.

A policy is a value. It is made anew for each change of ``govbus.grants`` and
never altered, so a batch that holds one cannot see half of an amendment.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def build_policy(
    offset: int,
    resources: Mapping[str, Resource],
    grants: Mapping[str, PublishedGrant],
    schemas: Mapping[int, Mapping[str, Any]],
    unusable: Mapping[str, str],
) -> Policy:
    """Put routes together from what was read.

    Args:
        offset: the last offset of ``govbus.grants`` that was read.
        resources: by ``owner.name``.
        grants: the newest version of each, by id.
        schemas: the registered schemas of delivered values and keys, by id; a grant whose schema is
            missing here gets no route.
        unusable: grants that were found faulty while reading, with a code.
    """
    by_topic: dict[str, dict[str, list[PublishedGrant]]] = {}
    faulty = dict(unusable)
    for published in grants.values():
        grant = published.grant
        if grant.resource_ref not in resources:
            faulty[grant.id] = "unknown-contract"
        elif published.value_schema_id not in schemas or published.key_schema_id not in schemas:
            faulty.setdefault(grant.id, "unknown-schema")
        else:
            source = topics.captured(grant.owner, grant.resource)
            by_topic.setdefault(source, {}).setdefault(published.delivery_topic, []).append(published)
    routes = {
        source: tuple(
            Route(
                resource=resources[topics.resource_of(source)],
                grants=tuple(sorted(together, key=lambda p: p.grant.id)),
                view_raw=schemas[together[0].value_schema_id],
                key_raw=schemas[together[0].key_schema_id],
            )
            for _, together in sorted(deliveries.items())
        )
        for source, deliveries in by_topic.items()
    }
    return Policy(
        offset=offset,
        resources={topics.captured(r.owner, r.name): r for r in resources.values()},
        routes=routes,
        deliveries={route.topic: route for one in routes.values() for route in one},
        unusable=faulty,
    )
