"""The exchange: what becomes of each record, for each route, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from govbus.catalogue import ResourceKind
from govbus.codec import Schema, decode_body, encode, frame, parse_schema, unframe
from govbus.errors import RegistryUnavailableError, UnknownSchemaError
from govbus_processors.batch import Batch, Outcome, Slice
from govbus_processors.exchange import Exchange, SchemaBook
from govbus_processors.keyset import KeySet
from govbus_processors.membership import Membership
from govbus_processors.queueing import bulk
from govbus_processors.routes import Policy
from support.policies import (
    CONTRACT,
    KEY,
    NOON,
    SOURCE,
    VALUE,
    a_grant,
    a_policy,
    a_resource,
    firm,
    gone,
    mangled,
    published,
    rules,
)

TOPIC = "govbus.delivered.tax.tax-firms"


class KnownSchemas:
    """A registry that knows what it was given."""

    def __init__(self, *schemas: Schema) -> None:
        self.schemas = {schema.id: schema for schema in schemas}

    def schema(self, schema_id: int) -> Schema:
        if schema_id not in self.schemas:
            raise UnknownSchemaError("unknown")
        return self.schemas[schema_id]


class AbsentRegistry:
    """A registry that does not answer."""

    def schema(self, schema_id: int) -> Schema:
        raise RegistryUnavailableError("away")


@pytest.fixture(
    autouse=True,
    params=[
        "objects",
        pytest.param(
            "packed", marks=pytest.mark.skipif(bulk is None, reason="installed without a C compiler")
        ),
    ],
)
def _records_in_both_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange is given records as the client's objects, or packed."""
    monkeypatch.setattr(Bench, "packed", request.param == "packed")


class Bench:
    """An exchange with its surroundings, driven by hand."""

    packed = False

    def __init__(self, policy: Policy, *, registry: Any = None, wait_seconds: float = 0.0) -> None:
        self.policy = policy
        self.membership = Membership()
        self.schemas = SchemaBook(registry or KnownSchemas(VALUE, KEY), wait_seconds=wait_seconds)
        self.exchange = Exchange(
            worker="w", schemas=self.schemas, membership=self.membership, pseudonym_secret=b"s" * 32
        )
        for route in policy.routes.get(SOURCE, ()):
            self.membership.install((route.topic, 0), KeySet())

    def run(self, *records: Any, live: bool = True) -> Outcome:
        routes = self.policy.routes.get(SOURCE, ())
        messages = as_packed(records) if self.packed else records
        part = Slice(place=(SOURCE, 0), start=0, messages=messages, routes=routes, live=live)
        outcome = self.exchange.process(Batch(policy=self.policy, now=NOON, slices=[part]))
        while outcome.waiting and self.schemas.fetch():
            self.exchange.rollback()
            outcome = self.exchange.process(Batch(policy=self.policy, now=NOON, slices=[part]))
        self.membership.commit()
        return outcome


def as_packed(records: Sequence[Any]) -> Sequence[Any]:
    packed = bulk.Records(SOURCE, 0)
    for record in records:
        packed.add(record.key(), record.value(), record.offset(), record.timestamp()[1])
    return packed


def shown(bench: Bench, outcome: Outcome, topic: str = TOPIC) -> list[tuple[dict, dict | None]]:
    """Deliveries as their subscriber reads them."""
    (route,) = [r for r in bench.policy.routes[SOURCE] if r.topic == topic]
    value = parse_schema(route.first.value_schema_id, route.view_raw)
    key = parse_schema(route.first.key_schema_id, route.key_raw)
    seen = []
    for record in outcome.deliveries[topic]:
        row = None
        if record[1] is not None:
            schema_id, body = unframe(record[1])
            assert schema_id == value.id
            row = decode_body(value, body)
        seen.append((decode_body(key, unframe(record[0])[1]), row))
    return seen


def test_a_subscriber_receives_exactly_the_granted_fields() -> None:
    bench = Bench(a_policy(published(a_grant())))

    outcome = bench.run(firm(0, "A", staff=12_345))

    assert shown(bench, outcome) == [({"code": "A"}, {"code": "A", "name": "name of A"})]
    assert outcome.next_offsets == {(SOURCE, 0): 1}


def test_a_row_that_stops_matching_leaves_the_view_once() -> None:
    bench = Bench(a_policy(published(a_grant(rows="city = '3308'"))))

    outcome = bench.run(firm(0, "A"), firm(1, "A", city="1100"), firm(2, "A", city="1101"))

    assert shown(bench, outcome) == [
        ({"code": "A"}, {"code": "A", "name": "name of A"}),
        ({"code": "A"}, None),
    ]
    assert (outcome.decisions[0]["delivered"], outcome.decisions[0]["left_view"]) == (1, 1)


def test_the_key_of_a_row_that_was_never_in_the_view_is_never_mentioned() -> None:
    bench = Bench(a_policy(published(a_grant(rows="city = '3308'"))))

    outcome = bench.run(firm(0, "B", city="1100"), firm(1, "B", city=None), gone(2, "B"))

    assert not outcome.deliveries[TOPIC]
    assert outcome.decisions[0]["filtered"] == 3


def test_a_deleted_row_reaches_those_who_hold_it() -> None:
    bench = Bench(a_policy(published(a_grant(rows="city = '3308'"))))
    bench.run(firm(0, "A"), firm(1, "B", city="1100"))

    outcome = bench.run(gone(2, "A"), gone(3, "B"))

    assert shown(bench, outcome) == [({"code": "A"}, None)]


def test_a_row_comes_back_when_it_matches_again() -> None:
    bench = Bench(a_policy(published(a_grant(rows="city = '3308'"))))
    bench.run(firm(0, "A"), firm(1, "A", city="1100"))

    outcome = bench.run(firm(2, "A"), gone(3, "A"))

    assert [row is None for _, row in shown(bench, outcome)] == [False, True]


def test_a_key_is_pseudonymised_in_the_key_the_row_and_the_tombstone_alike() -> None:
    bench = Bench(a_policy(published(a_grant(fields=rules(("code", "pseudonym"), "name")))))

    outcome = bench.run(firm(0, "A"), gone(1, "A"))

    (key, row), (tombstone_key, tombstone) = shown(bench, outcome)
    assert key == tombstone_key == {"code": row["code"]}
    assert row["code"] != "A"
    assert tombstone is None


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "undecodable"),
        (b"\x00\x00", "undecodable"),
        (b"\x01" + firm(0, "A").value()[1:], "undecodable"),
        (firm(0, "A").value()[:-1], "undecodable"),
        (firm(0, "A").value() + b"\x00", "undecodable"),
        (frame(999, b"\x02A"), "unknown-schema"),
        (firm(0, "B").value(), "contract-violation"),
        (frame(KEY.id, b"\x02A"), "contract-violation"),
    ],
)
def test_one_bad_record_is_dead_lettered_and_the_next_one_goes_on(value: bytes, code: str) -> None:
    bench = Bench(a_policy(published(a_grant())))

    outcome = bench.run(mangled(firm(0, "A"), value), firm(1, "C"))

    ((topic, _key, letter),) = outcome.dead_letters
    assert topic == "govbus.dead-letter.registrar.firms"
    assert (letter["code"], letter["offset"], letter["value"]) == (code, 0, value)
    assert [key for key, _ in shown(bench, outcome)] == [{"code": "C"}]
    assert outcome.next_offsets == {(SOURCE, 0): 2}


def test_a_key_under_another_schema_is_a_violation() -> None:
    bench = Bench(a_policy(published(a_grant())))
    record = firm(0, "A")
    record._key = frame(VALUE.id, record.key()[5:])

    outcome = bench.run(record)

    assert [letter["code"] for _, _, letter in outcome.dead_letters] == ["contract-violation"]
    assert not outcome.deliveries[TOPIC]


def test_no_field_value_stands_in_the_cause_of_a_dead_letter() -> None:
    bench = Bench(a_policy(published(a_grant())))
    record = firm(0, "A", name="SECRET-NAME", staff=77_777)

    outcome = bench.run(mangled(record, record.value() + b"!"))

    ((_, _, letter),) = outcome.dead_letters
    assert "SECRET" not in letter["detail"]
    assert "77" not in letter["detail"]


def test_a_record_that_was_dead_lettered_when_live_is_not_again_while_catching_up() -> None:
    bench = Bench(a_policy(published(a_grant())))

    outcome = bench.run(mangled(firm(0, "A"), b"junk!!"), firm(1, "C"), live=False)

    assert outcome.dead_letters == []
    assert len(outcome.deliveries[TOPIC]) == 1


def test_records_under_an_older_and_a_newer_writer_schema_interleave() -> None:
    fields = [*CONTRACT.schema["fields"], {"name": "web", "type": "string"}]
    newer = parse_schema(110, {**CONTRACT.schema, "fields": fields})
    bench = Bench(a_policy(published(a_grant())), registry=KnownSchemas(VALUE, KEY, newer))

    outcome = bench.run(firm(0, "A"), firm(1, "B", schema=newer, web="x"), firm(2, "C"))

    assert [key["code"] for key, _ in shown(bench, outcome)] == ["A", "B", "C"]


def test_a_schema_that_lacks_a_granted_field_without_default_gives_that_grant_nothing() -> None:
    older = parse_schema(
        111,
        {**CONTRACT.schema, "fields": [f for f in CONTRACT.schema["fields"] if f["name"] != "name"]},
    )
    bench = Bench(a_policy(published(a_grant())), registry=KnownSchemas(VALUE, KEY, older))
    row = {"code": "A", "city": None, "staff": 1}

    outcome = bench.run(mangled(firm(0, "A"), encode(older, row)))

    ((_, _, letter),) = outcome.dead_letters
    assert (letter["code"], letter["grant"]) == ("view-failed", "tax-firms")
    assert not outcome.deliveries[TOPIC]


def test_while_the_registry_is_away_the_partition_waits_and_loses_nothing() -> None:
    bench = Bench(a_policy(published(a_grant())), registry=AbsentRegistry())

    outcome = bench.run(firm(0, "A"), firm(1, "B"))

    assert outcome.waiting == {(SOURCE, 0): "schema-not-there"}
    assert outcome.next_offsets == {}
    assert outcome.dead_letters == []


class LateRegistry(KnownSchemas):
    """A registry that comes to know a schema later."""

    def __init__(self, *schemas: Schema) -> None:
        super().__init__(*schemas)
        self.asked = 0

    def schema(self, schema_id: int) -> Schema:
        self.asked += 1
        return super().schema(schema_id)


def test_an_unknown_schema_is_waited_for_up_to_a_bound_and_then_dead_lettered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("govbus_processors.exchange.time.monotonic", lambda: now[0])
    bench = Bench(a_policy(published(a_grant())), wait_seconds=5.0)
    stranger = mangled(firm(0, "A"), frame(999, b"\x02A"))

    outcomes = []
    for now[0] in (1_000.0, 1_004.9, 1_005.0):
        outcomes.append(bench.run(stranger, firm(1, "B")))

    assert [bool(outcome.waiting) for outcome in outcomes] == [True, True, False]
    assert [outcome.dead_letters for outcome in outcomes[:2]] == [[], []]
    assert [letter["code"] for _, _, letter in outcomes[2].dead_letters] == ["unknown-schema"]
    assert [key["code"] for key, _ in shown(bench, outcomes[2])] == ["B"]


def test_a_schema_that_came_within_the_bound_costs_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr("govbus_processors.exchange.time.monotonic", lambda: now[0])
    registry = LateRegistry(KEY)
    bench = Bench(a_policy(published(a_grant())), registry=registry, wait_seconds=5.0)

    first = bench.run(firm(0, "A"))
    registry.schemas[VALUE.id] = VALUE
    now[0] += 4.0
    second = bench.run(firm(0, "A"))

    assert first.waiting
    assert [key["code"] for key, _ in shown(bench, second)] == ["A"]
    assert second.dead_letters == []


def test_a_schema_that_came_too_late_for_one_record_is_there_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And records under an id that stays unknown do not ask the registry each time."""
    now = [1_000.0]
    monkeypatch.setattr("govbus_processors.exchange.time.monotonic", lambda: now[0])
    fields = [*CONTRACT.schema["fields"], {"name": "web", "type": "string"}]
    newer = parse_schema(110, {**CONTRACT.schema, "fields": fields})
    registry = LateRegistry(VALUE, KEY)
    bench = Bench(a_policy(published(a_grant())), registry=registry, wait_seconds=0.0)

    early = bench.run(firm(0, "A", schema=newer, web="x"))
    asked = registry.asked
    for offset in range(1, 50):
        bench.run(firm(offset, "A", schema=newer, web="x"))
    asked_meanwhile = registry.asked - asked
    registry.schemas[newer.id] = newer
    now[0] += 5.0
    late = bench.run(firm(50, "A", schema=newer, web="x"))

    assert [letter["code"] for _, _, letter in early.dead_letters] == ["unknown-schema"]
    assert asked_meanwhile == 0
    assert late.dead_letters == []
    assert [key["code"] for key, _ in shown(bench, late)] == ["A"]


def test_a_granted_field_that_the_owner_removed_is_its_default_where_the_contract_has_one() -> None:
    """``city`` has one, ``name`` has none: the one grant goes on, the other gets nothing of such a record."""
    fields = [f for f in CONTRACT.schema["fields"] if f["name"] not in ("city", "name")]
    shorter = parse_schema(112, {**CONTRACT.schema, "fields": fields})
    city = published(a_grant(id="city", fields=rules("code", "city")))
    name = published(a_grant(id="name", fields=rules("code", "name")), value_schema_id=220)
    bench = Bench(a_policy(city, name), registry=KnownSchemas(VALUE, KEY, shorter))

    outcome = bench.run(mangled(firm(0, "A"), encode(shorter, {"code": "A", "staff": 1})), firm(1, "B"))

    assert shown(bench, outcome, "govbus.delivered.tax.city") == [
        ({"code": "A"}, {"code": "A", "city": None}),
        ({"code": "B"}, {"code": "B", "city": "3308"}),
    ]
    assert [key["code"] for key, _ in shown(bench, outcome, "govbus.delivered.tax.name")] == ["B"]
    assert [(x["code"], x["grant"]) for _, _, x in outcome.dead_letters] == [("view-failed", "name")]


def test_a_record_before_the_one_that_waits_is_delivered_and_the_rest_is_read_again() -> None:
    bench = Bench(a_policy(published(a_grant())), wait_seconds=60.0)
    stranger = mangled(firm(1, "B"), frame(999, b"\x02B"))

    outcome = bench.run(firm(0, "A"), stranger, firm(2, "C"))

    assert outcome.next_offsets == {(SOURCE, 0): 1}
    assert list(outcome.waiting) == [(SOURCE, 0)]
    assert [key["code"] for key, _ in shown(bench, outcome)] == ["A"]


def test_an_event_that_does_not_match_is_not_delivered_and_takes_nothing_away() -> None:
    resource = a_resource(kind=ResourceKind.EVENT)
    bench = Bench(a_policy(published(a_grant(rows="city = '3308'")), resource=resource))

    outcome = bench.run(firm(0, "A"), firm(1, "A", city="1100"), gone(2, "A"))

    assert [row is None for _, row in shown(bench, outcome)] == [False]
    assert [letter["code"] for _, _, letter in outcome.dead_letters] == ["contract-violation"]


def test_every_grant_gets_its_own_decision_record() -> None:
    one = published(a_grant())
    two = published(a_grant(id="health-firms", subscriber="health", rows="staff > 100"), value_schema_id=220)
    bench = Bench(a_policy(one, two))

    outcome = bench.run(firm(0, "A"), firm(1, "B", staff=500))

    told = {d["grant"]: (d["considered"], d["delivered"], d["filtered"]) for d in outcome.decisions}
    assert told == {"tax-firms": (2, 2, 0), "health-firms": (2, 1, 1)}
    assert all(d["effect"] == "permit" and d["grants_offset"] == 1 for d in outcome.decisions)


def test_grants_that_share_a_view_cost_one_copy() -> None:
    shared = [published(a_grant(id=f"g{n}", subscriber=f"dep{n}"), shared=True) for n in range(300)]
    bench = Bench(a_policy(*shared))

    outcome = bench.run(firm(0, "A"))

    assert sum(len(records) for records in outcome.deliveries.values()) == 1
    assert len(outcome.decisions) == 1
