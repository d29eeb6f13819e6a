"""The leak proof kit: generated resources and grants through the real exchange, and everything that leaves.

A case is one generated resource with two grants and some records: good ones,
rows that leave the view, deletions, and broken ones of every kind. They go
through the functions that a worker uses, from the record batch to what is put
into the transaction: :class:`~govbus_processors.intake.Intake`,
:class:`~govbus_processors.exchange.Exchange` and everything beneath. Only
Kafka is a double: it keeps what it is given.

What then leaves is searched for the canaries of :mod:`support.canaries`:

==============================  =====================================================
channel                         may hold
==============================  =====================================================
delivery topic of a grant       what the grant shows: never what it hides
decisions, reports, progress    no value at all
dead letters                    the original key and value, for the owner, whose topic
                                it is; beside those two no value at all
metrics, log, error texts       no value at all
==============================  =====================================================

After that one grant's hidden values are all changed, and the same case is run
again: that grant's deliveries and decisions must be the same to the byte.
"""

from __future__ import annotations

import io
import json
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import generate_latest

from govbus import observe, topics
from govbus.avro import Definitions
from govbus.catalogue import Resource, ResourceKind, ShareType
from govbus.codec import Schema, decode_body, frame, parse_schema, unframe
from govbus.contract import DataContract
from govbus.errors import GuardViolationError, UnknownSchemaError
from govbus.grant import FieldRule, Grant, GrantState, PublishedGrant
from govbus.policy import check_grant, view_id
from govbus.transform import parse_transform
from govbus.view import key_schema, view_schema
from govbus_processors.batch import Batch, Outcome, Output
from govbus_processors.exchange import Exchange, SchemaBook
from govbus_processors.guard import Guard
from govbus_processors.membership import Membership
from govbus_processors.routes import Policy
from support.canaries import Planted, hidden_by, plant, twin
from support.intake_bench import BUS_SCHEMAS, IntakeBench
from support.policies import NOON, policy_of
from support.views import contract_of

VALUE_ID, KEY_ID, UNKNOWN_ID = 100, 101, 999
SECRET = b"the pseudonym secret of the leak proof kit"
SOURCE = topics.captured("stats", "rows")
DEAD_LETTERS = topics.dead_letter("stats", "rows")
_METRICS_EVERY = 25
"""Cases; the text of the metrics takes as long to make as half a case."""

Row = dict[str, Planted]


@dataclass
class Leak:
    """A value where none may be."""

    channel: str
    field: str

    def __str__(self) -> str:
        return f"{self.channel}: field {self.field}"


@dataclass
class Tally:
    """What was looked at, so that a run can say how much it proves."""

    cases: int = 0
    records: int = 0
    deliveries: int = 0
    searched_bytes: int = 0
    kept_found: int = 0
    """Canaries that a grant shows and that were found where they belong: the search works."""

    twins: int = 0
    guarded: int = 0
    """Batches that the guard would not have let pass: a leak, or a mistake of the guard."""

    leaks: list[Leak] = field(default_factory=list)
    unsearched: list[Row] = field(default_factory=list)
    """Rows that the metrics have not been searched for yet."""

    def __str__(self) -> str:
        return (
            f"{self.cases} cases, {self.records} records, {self.deliveries} deliveries, "
            f"{self.searched_bytes:,} bytes searched, {self.kept_found} granted canaries found, "
            f"{self.twins} twins compared, {len(self.leaks)} leaks"
        )


@dataclass(frozen=True)
class Case:
    """A resource, two grants of it, and its records as fields."""

    contract: DataContract
    rules: tuple[dict[str, Any], ...]
    """Per grant: field and transform."""

    filters: tuple[str | None, ...]
    rows: tuple[Row, ...]
    seed: int
    """Of everything that is drawn while the case runs."""


class Message:
    """What a Kafka client hands over."""

    def __init__(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        self._offset, self._key, self._value = offset, key, value

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def offset(self) -> int:
        return self._offset

    def topic(self) -> str:
        return SOURCE

    def partition(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_000)

    def error(self) -> None:
        return None


class Watched(Guard):
    """A guard that counts what it catches and lets it pass: the kit has to see what the exchange does."""

    caught = 0

    def check(self, batch: Batch, outcome: Outcome) -> None:
        try:
            super().check(batch, outcome)
        except GuardViolationError:
            self.caught += 1
            self._suspended.clear()


class Schemas:
    """A registry that knows what it was given."""

    def __init__(self, *schemas: Schema) -> None:
        self._schemas = {schema.id: schema for schema in schemas}

    def schema(self, schema_id: int) -> Schema:
        if schema_id not in self._schemas:
            raise UnknownSchemaError("unknown")
        return self._schemas[schema_id]

    def latest(self, _subject: str) -> Schema:
        return BUS_SCHEMAS["dead-letter"]


# ---- making cases ----


def a_case(
    schema: dict[str, Any],
    choose: Callable[[str, Any], list[Any]],
    rng: random.Random,
    *,
    granted_share: float = 0.5,
) -> Case:
    """Turn a record schema into a case.

    Args:
        schema: any record; a key and a field for the row filter are added.
        choose: gives the transforms that a grant may name for a field and its type, as specifications.
        rng: decides everything else.
        granted_share: how many of the fields a grant names, roughly; the key it always does.
    """
    key_type = rng.choice(["string", "string", "long", "bytes"])
    fields = [*schema["fields"], {"name": "zone", "type": "string"}]
    fields.insert(rng.randrange(len(fields) + 1), {"name": "id", "type": key_type})
    contract = contract_of({**schema, "fields": fields}, "id")
    definitions = Definitions(contract.schema)
    nodes = {item["name"]: item["type"] for item in definitions.record["fields"]}
    types = {name: definitions.spell(node, home="alone") for name, node in nodes.items()}
    rules = []
    for _ in range(2):
        granted: dict[str, Any] = {"id": rng.choice(["keep", "pseudonym"])}
        for name, avro_type in types.items():
            if name != "id" and rng.random() < granted_share:
                granted[name] = rng.choice(choose(name, avro_type))
        rules.append(granted)
    rows = []
    for _ in range(2):
        row = {name: plant(definitions, node, rng) for name, node in nodes.items()}
        rows.append(row | {"zone": _in_zone(b"33", row["zone"])})
    filters = tuple(rng.choice([None, "zone LIKE '33%'"]) for _ in rules)
    return Case(contract, tuple(rules), filters, tuple(rows), rng.getrandbits(64))


def _in_zone(zone: bytes, planted: Planted) -> Planted:
    """The same text with other first characters: the row filter looks at them, and they are no canary."""
    length, text = planted.body[:1], planted.body[1:]
    # A text's first needle comes with two words: in hexadecimal, and as it stands.
    return Planted(length + zone + text[len(zone) :], planted.needles[1:], planted.words[2:])


def _grants(case: Case) -> list[Grant]:
    return [
        Grant(
            id=f"grant-{number}",
            version=1,
            state=GrantState.ACTIVE,
            subscriber=f"department-{number}",
            owner="stats",
            resource="rows",
            fields=tuple(
                FieldRule(name=name, transform=parse_transform(case.rules[number][name]))
                for name in case.contract.names
                if name in case.rules[number]
            ),
            rows=case.filters[number],
            purpose="assessment",
            starts_at=NOON.replace(year=2026),
            expires_at=NOON.replace(year=2099),
        )
        for number in range(len(case.rules))
    ]


def _policy(case: Case) -> Policy:
    resource = Resource(
        owner="stats",
        name="rows",
        title="Rows",
        share_type=ShareType.CONDITIONAL,
        kind=ResourceKind.STATE,
        contract_version=1,
        key=case.contract.key,
        partitions=1,
        value_schema_id=VALUE_ID,
        key_schema_id=KEY_ID,
    )
    schemas: dict[int, Any] = {VALUE_ID: case.contract.schema, KEY_ID: case.contract.key_schema}
    published: dict[str, PublishedGrant] = {}
    for number, grant in enumerate(_grants(case)):
        check_grant(grant, case.contract, ShareType.CONDITIONAL)
        value_id, key_id = 200 + 10 * number, 201 + 10 * number
        schemas[value_id] = view_schema(grant, case.contract)
        keys = key_schema(grant, case.contract)
        if keys is not None:
            schemas[key_id] = keys
        published[grant.id] = PublishedGrant(
            grant=grant,
            view=view_id(grant, 1),
            delivery_topic=topics.delivered(grant.subscriber, grant.id),
            value_schema_id=value_id,
            key_schema_id=KEY_ID if keys is None else key_id,
        )
    return policy_of([resource], published.values(), schemas)


def _registry(case: Case, policy: Policy) -> Schemas:
    known = {VALUE_ID: case.contract.schema, KEY_ID: case.contract.key_schema}
    for route in policy.routes[SOURCE]:
        known |= {route.first.value_schema_id: route.view_raw, route.first.key_schema_id: route.key_raw}
    return Schemas(*(parse_schema(number, raw) for number, raw in known.items()))


def _messages(case: Case, rows: tuple[Row, ...]) -> tuple[list[Message], int]:
    """The case's records, and how many of them, from the start, are as they should be."""
    rng = random.Random(case.seed)
    one, two = rows
    away = {**one, "zone": _in_zone(b"44", one["zone"])}
    good = [
        (_key(one), _value(case, one)),
        (_key(two), _value(case, two)),
        (_key(one), _value(case, away)),
        (_key(two), None),
    ]
    body = _value(case, one)
    bad: list[tuple[bytes | None, bytes | None]] = [
        (_key(one), body[: rng.randrange(5, len(body))]),
        (_key(one), body + rng.randbytes(3)),
        (_key(one), b"\x01" + body[1:]),
        (_key(one), frame(UNKNOWN_ID, body[5:])),
        (_key(two), body),
        (None, body),
        (frame(VALUE_ID, _key(one)[5:]), body),
        (_key(one), body[: len(body) // 2] + b"\xff\xff\xff" + body[len(body) // 2 :]),
    ]
    chosen = good + rng.sample(bad, 3)
    return [Message(offset, *record) for offset, record in enumerate(chosen)], len(good)


def _key(row: Row) -> bytes:
    return frame(KEY_ID, row["id"].body)


def _value(case: Case, row: Row) -> bytes:
    return frame(VALUE_ID, b"".join(row[name].body for name in case.contract.names))


# ---- running them ----


@dataclass
class Left:
    """Everything that left, by channel."""

    deliveries: dict[str, list[Output]]
    silent: dict[str, bytes]
    """Channels that may hold no value of any field."""

    first: list[tuple[str, Output]]
    """What the well-formed records alone led to."""

    caught: int
    """Batches in which the exchange's own guard found something."""


def send(
    case: Case,
    rows: tuple[Row, ...],
    *,
    log: io.StringIO,
    exchange: Callable[..., Exchange] = Exchange,
    broken: bool = True,
) -> Left:
    """Run a case's records through a worker without a broker; the broken ones if wanted."""
    policy = _policy(case)
    registry = _registry(case, policy)
    bench = IntakeBench(policy, registry, exchange=exchange, secret=SECRET)
    bench.intake._guard = guard = Watched(registry)
    messages, good = _messages(case, rows)
    bench.live(messages[:good])
    first = bench.outlet.sent.copy()
    reached = good
    while broken and reached < len(messages):
        bench.live(messages[reached:])
        reached = bench.intake._cursors.position((SOURCE, 0)) or 0
    return _sorted(bench.outlet.sent + bench.outlet.aborted, first, log, guard.caught)


def _sorted(
    sent: list[tuple[str, Output]], first: list[tuple[str, Output]], log: io.StringIO, caught: int
) -> Left:
    deliveries: dict[str, list[Output]] = {}
    silent: dict[str, bytes] = {}
    for topic, output in sent:
        if topic.startswith("govbus.delivered."):
            deliveries.setdefault(topic, []).append(output)
            continue
        if topic == DEAD_LETTERS:
            letter = decode_body(BUS_SCHEMAS["dead-letter"], unframe(output.value)[1])
            letter["key"] = letter["value"] = None
            held = json.dumps(letter, default=str).encode()
        else:
            held = (output.key or b"") + b"\0" + (output.value or b"")
        silent[topic] = silent.get(topic, b"") + held
    silent["log"] = log.getvalue().encode()
    return Left(deliveries, silent, first, caught)


def errors_of(case: Case, rows: tuple[Row, ...]) -> bytes:
    """The full texts, causes and contexts included, of every error that the case's records provoke."""
    policy = _policy(case)
    registry = _registry(case, policy)
    book = SchemaBook(registry, wait_seconds=0.0)
    exchange = Exchange(worker="w", schemas=book, membership=Membership(), pseudonym_secret=SECRET)
    resource = policy.resources[SOURCE]
    texts: list[str] = []
    messages, good = _messages(case, rows)
    key_walker = exchange.key_walker(resource)
    book.get(VALUE_ID)
    book.fetch()
    key_walker = exchange.key_walker(resource)
    for route in policy.routes[SOURCE]:
        head = frame(VALUE_ID, b"")
        plan = exchange.plan(SOURCE, head, resource)
        assert plan is not None
        view = exchange.view(plan, head, route)
        assert view is not None
        for message in messages[good:]:
            texts += _text_of_fault(plan.walker.walk, message.value(), 5)
            texts += _text_of_fault(view.matches, plan.walker)
            texts += _text_of_fault(view.project, plan.walker)
            texts += _text_of_fault(view.key, message.key() or b"", key_walker)
    return "\n".join(texts).encode()


def _text_of_fault(step: Callable[..., Any], *arguments: Any) -> list[str]:
    try:
        step(*arguments)
    except Exception as error:
        return [text_of(error)]
    return []


def text_of(error: BaseException) -> str:
    """All that printing an error could show: its text, what it was raised from, and what it was raised in.

    Not by the traceback module, which compiles source lines to underline them: that takes milliseconds.
    """
    told = [repr(error), str(error), *getattr(error, "__notes__", ())]
    told += [text_of(inner) for inner in (error.__cause__, error.__context__) if inner is not None]
    return "\n".join(told)


@contextmanager
def captured_log() -> Iterator[io.StringIO]:
    """What a worker process would write on standard error, as it would write it."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    text = io.StringIO()
    observe.setup_logging("leak-kit", "DEBUG")
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(text)
    try:
        yield text
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def check(case: Case, tally: Tally, *, exchange: Callable[..., Exchange] = Exchange) -> None:
    """Run one case and add what was found to the tally."""
    with captured_log() as log:
        left = send(case, case.rows, log=log, exchange=exchange)
    left.silent["errors"] = errors_of(case, case.rows)
    tally.unsearched += case.rows
    tally.guarded += left.caught
    tally.cases += 1
    if tally.cases % _METRICS_EVERY == 1:
        look_at_metrics(tally)
    tally.records += len(_messages(case, case.rows)[0])
    _search_deliveries(case, left, tally)
    for channel, held in left.silent.items():
        _search_silent(channel, held, case.rows, tally)
    _compare_twins(case, left, tally, exchange)


def _search_deliveries(case: Case, left: Left, tally: Tally) -> None:
    definitions = Definitions(case.contract.schema)
    nodes = {item["name"]: item["type"] for item in definitions.record["fields"]}
    types = {name: definitions.spell(node, home="alone") for name, node in nodes.items()}
    for grant, rules in zip(_grants(case), case.rules, strict=True):
        topic = topics.delivered(grant.subscriber, grant.id)
        outputs = left.deliveries.get(topic, [])
        tally.deliveries += len(outputs)
        held = b"\0".join((output.key or b"") + b"\0" + (output.value or b"") for output in outputs)
        tally.searched_bytes += len(held)
        for row in case.rows:
            for name, planted in row.items():
                spec = rules.get(name)
                hidden = planted.needles if spec is None else hidden_by(spec, planted, types[name])
                if any(needle in held for needle in (*hidden, *(planted.words if spec is None else ()))):
                    tally.leaks.append(Leak(topic, name))
                if spec == "keep":
                    tally.kept_found += sum(needle in held for needle in planted.needles)


def look_at_metrics(tally: Tally) -> None:
    """Search what Prometheus would scrape now for all values that were planted since the last look."""
    _search_silent("metrics", generate_latest(), tuple(tally.unsearched), tally)
    tally.unsearched.clear()


def _search_silent(channel: str, held: bytes, rows: tuple[Row, ...], tally: Tally) -> None:
    tally.searched_bytes += len(held)
    for row in rows:
        for name, planted in row.items():
            if any(needle in held for needle in (*planted.needles, *planted.words)):
                tally.leaks.append(Leak(channel, name))


def _compare_twins(case: Case, left: Left, tally: Tally, exchange: Callable[..., Exchange]) -> None:
    """Change whatever one grant hides: what that grant gets must be the same, byte for byte."""
    rng = random.Random(case.seed + 1)
    chosen = rng.randrange(len(case.rules))
    rules, grant = case.rules[chosen], _grants(case)[chosen]
    definitions = Definitions(case.contract.schema)
    nodes = {item["name"]: item["type"] for item in definitions.record["fields"]}
    changed = []
    for row in case.rows:
        other = {
            name: Planted(twin(rules.get(name), planted, definitions, nodes[name], rng), (), ())
            for name, planted in row.items()
        }
        # The key always travels, and the row filter has to give the same answer.
        changed.append(other | {"id": row["id"], "zone": _in_zone(b"33", other["zone"])})
    with captured_log() as log:
        again = send(case, tuple(changed), log=log, exchange=exchange, broken=False)
    tally.twins += 1
    one, other_one = _told(left.first, grant), _told(again.first, grant)
    tally.leaks += [Leak(topic, "one that has a twin") for topic in one if one[topic] != other_one.get(topic)]


def _told(sent: list[tuple[str, Output]], grant: Grant) -> dict[str, list[Output]]:
    """What left for one grant: its deliveries, and the decisions about it."""
    delivered = topics.delivered(grant.subscriber, grant.id)
    return {
        delivered: [output for topic, output in sent if topic == delivered],
        topics.DECISIONS: [
            output for topic, output in sent if topic == topics.DECISIONS and output.key == grant.id.encode()
        ],
    }
