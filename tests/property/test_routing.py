"""A policy that is carried on from change to change is the one that making all of it at once would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from govbus import topics
from govbus.catalogue import Resource, ShareType
from govbus.grant import GrantState, PublishedGrant
from govbus_processors.routes import Policy, Route, Routing
from support.policies import a_grant, a_resource

RESOURCES = ("firms", "shares", "taxes")
SCHEMAS: Mapping[int, Mapping[str, Any]] = {number: {"name": f"schema-{number}"} for number in (1, 2, 3)}
UNKNOWN = 4
"""The id of a schema that could not be had."""


class Read:
    """What was read of ``govbus.grants``, and the policy as it would be made of it at once."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.grants: dict[str, PublishedGrant] = {}
        self.unusable: dict[str, str] = {}

    def policy(self, offset: int) -> Policy:
        by_topic: dict[str, dict[str, list[PublishedGrant]]] = {}
        faulty = dict(self.unusable)
        for name in sorted(self.grants):
            published = self.grants[name]
            if published.grant.resource_ref not in self.resources:
                faulty[name] = "unknown-contract"
            elif not {published.value_schema_id, published.key_schema_id} <= SCHEMAS.keys():
                faulty[name] = "unknown-schema"
            else:
                source = topics.captured(published.grant.owner, published.grant.resource)
                by_topic.setdefault(source, {}).setdefault(published.delivery_topic, []).append(published)
        routes = {
            source: tuple(
                Route(
                    resource=self.resources[topics.resource_of(source)],
                    grants=tuple(found[topic]),
                    view_raw=SCHEMAS[found[topic][0].value_schema_id],
                    key_raw=SCHEMAS[found[topic][0].key_schema_id],
                )
                for topic in sorted(found)
            )
            for source, found in by_topic.items()
        }
        return Policy(
            offset=offset,
            resources={topics.captured(r.owner, r.name): r for r in self.resources.values()},
            routes=routes,
            deliveries={route.topic: route for one in routes.values() for route in one},
            unusable=faulty,
        )


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, Any]:
    """One record of ``govbus.grants``."""
    name = draw(st.sampled_from(("tax-firms", "health-firms", "civil-firms", "quzhou-firms")))
    ref = draw(st.sampled_from(RESOURCES))
    kind = draw(
        st.sampled_from(("grant", "grant", "grant", "resource", "no grant", "bad grant", "no resource"))
    )
    if kind in ("no grant", "bad grant"):
        return kind, name
    if kind == "no resource":
        return kind, f"registrar.{ref}"
    if kind == "resource":
        share_type = draw(st.sampled_from(ShareType))
        return kind, a_resource(name=ref, share_type=share_type, contract_version=draw(st.integers(1, 3)))
    grant = a_grant(
        id=name,
        subscriber=name.partition("-")[0],
        resource=ref,
        version=draw(st.integers(1, 3)),
        state=draw(st.sampled_from(GrantState)),
    )
    shared = draw(st.booleans())
    view = draw(st.sampled_from(("v1", "v2")))
    return kind, PublishedGrant(
        grant=grant,
        view=view,
        delivery_topic=topics.shared("registrar", ref, view)
        if shared
        else topics.delivered(grant.subscriber, grant.id),
        # In a shared topic there is one schema for all.
        value_schema_id=1 if shared else draw(st.sampled_from((1, 2, UNKNOWN))),
        key_schema_id=3 if shared else draw(st.sampled_from((3, UNKNOWN))),
    )


def note(change: tuple[str, Any], routing: Routing, read: Read) -> None:
    """Note one change in both."""
    kind, what = change
    if kind == "resource":
        routing.put_resource(what)
        read.resources[what.ref] = what
    elif kind == "no resource":
        routing.take_resource(what)
        read.resources.pop(what, None)
    elif kind == "grant":
        routing.put_grant(what)
        read.grants[what.grant.id] = what
        read.unusable.pop(what.grant.id, None)
    else:
        code = "unreadable" if kind == "bad grant" else ""
        routing.take_grant(what, unusable=code)
        read.grants.pop(what, None)
        read.unusable.pop(what, None)
        if code:
            read.unusable[what] = code


def a_routing() -> Routing:
    """One that knows every schema that can be had."""
    routing = Routing()
    for schema_id, raw in SCHEMAS.items():
        routing.put_schema(schema_id, raw)
    return routing


@given(batches=st.lists(st.lists(changes(), min_size=1, max_size=4), max_size=12))
def test_after_any_changes_the_policy_is_the_one_made_at_once(batches: list[list[tuple[str, Any]]]) -> None:
    routing, read = a_routing(), Read()
    for offset, batch in enumerate(batches):
        for change in batch:
            note(change, routing, read)

        assert routing.policy(offset) == read.policy(offset)


@given(before=st.lists(changes(), max_size=12), change=changes())
def test_a_policy_that_was_given_away_is_never_altered(
    before: list[tuple[str, Any]], change: tuple[str, Any]
) -> None:
    """A batch under way holds one: it must not see half of an amendment."""
    routing, read = a_routing(), Read()
    for one in before:
        note(one, routing, read)
    held, as_it_was = routing.policy(1), read.policy(1)

    note(change, routing, read)
    routing.policy(2)

    assert held == as_it_was


def test_what_a_change_does_not_touch_is_not_made_again() -> None:
    """So the cost of a change does not grow with the grants that there are."""
    routing, read = a_routing(), Read()
    for resource in RESOURCES:
        note(("resource", a_resource(name=resource)), routing, read)
        for department in ("tax", "health"):
            grant = a_grant(id=f"{department}-{resource}", subscriber=department, resource=resource)
            published = PublishedGrant(
                grant=grant,
                view="v1",
                delivery_topic=topics.delivered(department, grant.id),
                value_schema_id=1,
                key_schema_id=3,
            )
            note(("grant", published), routing, read)
    before = routing.policy(1)

    amended = replace(before.deliveries["govbus.delivered.tax.tax-firms"].first, value_schema_id=2)
    note(("grant", amended), routing, read)
    after = routing.policy(2)

    made = {topic for topic, route in after.deliveries.items() if before.deliveries[topic] is not route}
    assert made == {"govbus.delivered.tax.tax-firms"}
    shares = topics.captured("registrar", "shares")
    assert after.routes[shares] is before.routes[shares]
