"""The guard: catches what an exchange should never have made, and holds back that grant alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from govbus import topics
from govbus.codec import Schema, decode_body, encode, parse_schema, unframe
from govbus.errors import GuardViolationError, UnknownSchemaError
from govbus_processors.batch import Batch, Outcome, Output, Slice
from govbus_processors.exchange import Exchange
from govbus_processors.guard import SAMPLES, Guard
from govbus_processors.routes import Policy
from support.avro_strategies import counted, varint
from support.intake_bench import BUS_SCHEMAS, IntakeBench
from support.policies import KEY, NOON, SOURCE, VALUE, a_grant, a_policy, firm, published, rules

TOPIC = "govbus.delivered.tax.tax-firms"
OTHER = "govbus.delivered.health.health-firms"


class Known:
    """A registry that knows the schemas of a policy, and others in their place where it was told so."""

    def __init__(self, policy: Policy, **instead: Any) -> None:
        self.schemas = {VALUE.id: VALUE, KEY.id: KEY}
        for route in policy.routes[SOURCE]:
            first = route.first
            self.schemas[first.value_schema_id] = parse_schema(first.value_schema_id, route.view_raw)
            self.schemas[first.key_schema_id] = parse_schema(first.key_schema_id, route.key_raw)
        for number, raw in instead.items():
            self.schemas[int(number[1:])] = parse_schema(int(number[1:]), raw)

    def schema(self, schema_id: int) -> Schema:
        if schema_id not in self.schemas:
            raise UnknownSchemaError("unknown")
        return self.schemas[schema_id]


def look(policy: Policy, *rows: dict[str, Any] | bytes, key: bytes | None = None, **instead: Any) -> None:
    """Show a guard some deliveries of the first grant, as rows under its schema or as bytes."""
    registry = Known(policy, **instead)
    (route,) = policy.routes[SOURCE]
    first = route.first
    outputs = []
    for row in rows:
        value = row if isinstance(row, bytes) else encode(registry.schema(first.value_schema_id), row)
        shown = encode(registry.schema(first.key_schema_id), {"code": "A"}) if key is None else key
        outputs.append(Output(shown, value, 0))
    part = Slice(place=(SOURCE, 0), start=0, messages=[], routes=(route,))
    outcome = Outcome(deliveries={route.topic: outputs})
    Guard(registry).check(Batch(policy=policy, now=NOON, slices=[part]), outcome)


def masked(spec: Any, field: str = "name") -> Policy:
    """One grant of one masked field."""
    return a_policy(published(a_grant(fields=rules("code", (field, spec)))))


def test_what_a_grant_allows_passes() -> None:
    look(a_policy(published(a_grant())), {"code": "A", "name": "someone"})


def test_a_value_under_another_schema_is_caught() -> None:
    with pytest.raises(GuardViolationError):
        look(a_policy(published(a_grant())), encode(VALUE, dict(code="A", name="n", city=None, staff=1)))


def test_one_stray_record_among_the_samples_is_caught() -> None:
    good = {"code": "A", "name": "someone"}
    stray = encode(VALUE, dict(code="A", name="n", city=None, staff=1))

    with pytest.raises(GuardViolationError):
        look(a_policy(published(a_grant())), *[good] * (SAMPLES - 1), stray)


def test_a_key_under_another_schema_is_caught() -> None:
    pseudonymised = a_policy(published(a_grant(fields=rules(("code", "pseudonym"), "name"))))

    with pytest.raises(GuardViolationError):
        look(pseudonymised, {"code": "0" * 32, "name": "n"}, key=encode(KEY, {"code": "A"}))


@pytest.mark.parametrize("body", [b"\x02A\x02n!", b"\x02A", b"\x02A\xff"])
def test_a_body_that_is_not_of_its_schema_is_caught(body: bytes) -> None:
    policy = a_policy(published(a_grant()))
    head = encode(Known(policy).schema(200), {"code": "", "name": ""})[:5]

    with pytest.raises(GuardViolationError):
        look(policy, head + body)


def test_a_registered_schema_with_a_field_more_is_caught() -> None:
    policy = a_policy(published(a_grant()))
    raw = dict(policy.routes[SOURCE][0].view_raw)
    wider = {**raw, "fields": [*raw["fields"], {"name": "staff", "type": "int"}]}

    with pytest.raises(GuardViolationError):
        look(policy, {"code": "A", "name": "n", "staff": 7}, _200=wider)


def test_a_schema_of_another_grant_is_caught() -> None:
    policy = a_policy(published(a_grant()))
    raw = dict(policy.routes[SOURCE][0].view_raw)
    foreign = {**raw, "govbus": {"grant": "health-firms", "version": 1, "purpose": "care"}}

    with pytest.raises(GuardViolationError):
        look(policy, {"code": "A", "name": "n"}, _200=foreign)


def test_a_schema_that_the_registry_does_not_have_is_caught() -> None:
    policy = a_policy(published(a_grant()))
    (route,) = policy.routes[SOURCE]
    part = Slice(place=(SOURCE, 0), start=0, messages=[], routes=(route,))
    value = encode(Known(policy).schema(200), {"code": "A", "name": "n"})
    outcome = Outcome(deliveries={TOPIC: [Output(encode(KEY, {"code": "A"}), value, 0)]})
    forgetful = Known(policy)
    del forgetful.schemas[200]

    with pytest.raises(GuardViolationError):
        Guard(forgetful).check(Batch(policy=policy, now=NOON, slices=[part]), outcome)


def test_a_delivery_topic_that_the_grant_does_not_lead_to_is_caught() -> None:
    """A policy record that sends one department's deliveries to another's topic."""
    given = published(a_grant())
    policy = a_policy(replace(given, grant=replace(given.grant, delivery_topic=OTHER)))

    with pytest.raises(GuardViolationError):
        look(policy, {"code": "A", "name": "n"})


@pytest.mark.parametrize(
    ("spec", "field", "good", "bad"),
    [
        ("null", "name", None, "张三"),
        ({"redact": "***"}, "name", "***", "张三"),
        ({"redact": 0}, "staff", 0, 7),
        ({"partial": {"head": 1}}, "name", "张**", "张三丰"),
        ({"partial": {"head": 2, "tail": 2}}, "name", "****", "张三丰满"),
        ({"truncate": 2}, "name", "张三", "张三丰"),
        ({"generalise": {"prefix": 2}}, "name", "33", "330"),
        ({"generalise": {"band": 10}}, "staff", -40, 37),
        ("pseudonym", "name", "0123456789abcdef" * 2, "张三"),
        ("pseudonym", "name", "0123456789abcdef" * 2, "0123456789ABCDEF" * 2),
    ],
)
def test_a_masked_field_that_its_mask_cannot_have_made_is_caught(
    spec: Any, field: str, good: Any, bad: Any
) -> None:
    policy = masked(spec, field)
    look(policy, {"code": "A", field: good})

    if bad is None or spec == "null":
        shown = dict(policy.routes[SOURCE][0].view_raw)
        assert shown["fields"][1]["type"] == ["null", "string"]

    with pytest.raises(GuardViolationError):
        look(policy, {"code": "A", field: bad})


@pytest.mark.parametrize("spec", [{"truncate": 2}, "pseudonym", {"generalise": {"prefix": 2}}])
def test_a_masked_field_of_a_type_that_its_mask_cannot_have_made_is_caught(spec: Any) -> None:
    policy = masked(spec)
    raw = dict(policy.routes[SOURCE][0].view_raw)
    other = {**raw, "fields": [raw["fields"][0], {"name": "name", "type": "bytes"}]}

    with pytest.raises(GuardViolationError):
        look(policy, {"code": "A", "name": b"x"}, _200=other)


FAR_AWAY = 600_000_000_000_000
"""Milliseconds: the year 20983, which Avro can hold and Python cannot."""


def test_a_date_that_only_avro_can_hold_is_no_violation_and_hides_none() -> None:
    policy = a_policy(published(a_grant(fields=rules("code", "staff", ("name", {"partial": {"head": 1}})))))
    raw = dict(policy.routes[SOURCE][0].view_raw)
    moment = {"type": "long", "logicalType": "timestamp-millis"}
    fields = [{**f, "type": moment} if f["name"] == "staff" else f for f in raw["fields"]]
    types = {field["name"]: field["type"] for field in fields}

    def framed(name: str, *, tail: bytes = b"") -> bytes:
        texts = {"code": "A", "name": name}
        body = b"".join(
            varint(FAR_AWAY)
            if field == "staff"
            else (varint(types[field].index("string")) if isinstance(types[field], list) else b"")
            + counted(texts[field].encode())
            for field in types
        )
        return b"\x00" + (200).to_bytes(4, "big") + body + tail

    look(policy, framed("张**"), _200={**raw, "fields": fields})
    for bad in (framed("张三丰"), framed("张**", tail=b"!")):
        with pytest.raises(GuardViolationError):
            look(policy, bad, _200={**raw, "fields": fields})


# ---- on the path of a worker ----


class AddsAField(Exchange):
    """An exchange that lets tax see a field more, under a schema that says so."""

    def process(self, batch: Batch) -> Outcome:
        outcome = super().process(batch)
        if TOPIC in outcome.deliveries:
            outcome.deliveries[TOPIC] = [
                Output(k, v and b"\0\0\0\0\x64" + v[5:] + b"\0\x0e", p, at)
                for k, v, p, at in outcome.deliveries[TOPIC]
            ]
        return outcome


def two_grants(version: int = 1) -> Policy:
    return a_policy(
        published(a_grant(version=version)),
        published(a_grant(id="health-firms", subscriber="health"), value_schema_id=220),
    )


def caught(grant: str) -> float:
    return REGISTRY.get_sample_value("govbus_guard_violations_total", {"grant": grant}) or 0.0


def decisions(bench: IntakeBench) -> list[tuple[str, str, str]]:
    found = [decode_body(BUS_SCHEMAS["decision"], unframe(o.value)[1]) for o in bench.sent(topics.DECISIONS)]
    return [(d["grant"], d["effect"], d["reason"]) for d in found]


def test_a_violation_stops_that_grant_and_no_other() -> None:
    policy = two_grants()
    bench = IntakeBench(policy, Known(policy), exchange=AddsAField)
    before = caught("tax-firms")

    bench.live([firm(0, "A")])
    after_the_catch = bench.outlet.sent.copy()
    bench.live([firm(0, "A")])
    bench.live([firm(1, "B")])

    assert after_the_catch == [], "nothing of the batch was committed"
    assert bench.sent(TOPIC) == []
    assert len(bench.sent(OTHER)) == 2
    assert caught("tax-firms") == before + 1
    assert caught("health-firms") == 0
    assert ("tax-firms", "deny", "guard-violation") in decisions(bench)
    report = decode_body(BUS_SCHEMAS["worker"], unframe(bench.sent(topics.WORKERS)[-1].value)[1])
    assert report["held"] == [{"grant": "tax-firms", "reason": "guard-violation"}]


def test_a_grant_that_was_caught_loses_nothing_and_goes_on_when_it_is_published_anew() -> None:
    policy = two_grants()
    bench = IntakeBench(policy, Known(policy), exchange=AddsAField)
    bench.live([firm(0, "A")])
    bench.live([firm(0, "A")])
    behind = bench.intake._cursors.behind

    again = two_grants(version=2)

    assert behind(policy, now=NOON, fresh=True, held=bench.intake._holder(NOON)) == []
    ((place, offset, routes),) = behind(again, now=NOON, fresh=True, held=bench.intake._holder(NOON))
    assert (place, offset, [route.label for route in routes]) == ((SOURCE, 0), 0, ["tax-firms"])


def test_the_guard_shares_no_code_with_what_it_guards() -> None:
    import ast
    import inspect

    from govbus_processors import guard

    tree = ast.parse(inspect.getsource(guard))
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    named |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not named & {
        "govbus.view",
        "govbus.compiledview",
        "govbus.splice",
        "govbus.avro",
        "govbus_processors.slicework",
        "govbus_processors.exchange",
    }
    from_transform = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "govbus.transform"
        for alias in node.names
    }
    assert not from_transform & {"compile_transform", "result_type"}


def test_a_sweep_may_take_away_rows_under_keys_of_an_earlier_version_and_nothing_else() -> None:
    policy = a_policy(published(a_grant(fields=rules(("code", "pseudonym"), "name"))))
    (route,) = policy.routes[SOURCE]
    guard = Guard(Known(policy))
    key = encode(KEY, {"code": "A"})

    guard.check_swept(route, Outcome(deliveries={route.topic: [Output(key, None, 0)]}))
    assert not guard.suspends(route)

    with pytest.raises(GuardViolationError):
        guard.check_swept(route, Outcome(deliveries={route.topic: [Output(key, key, 0)]}))
    assert guard.suspends(route)


def test_a_sweep_of_another_grants_topic_is_caught() -> None:
    policy = a_policy(published(a_grant()))
    (route,) = policy.routes[SOURCE]

    with pytest.raises(GuardViolationError):
        Guard(Known(policy)).check_swept(
            route, Outcome(deliveries={OTHER: [Output(encode(KEY, {"code": "A"}), None, 0)]})
        )
