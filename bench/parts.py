"""Where the time of one record goes, in one process and without a broker.

The steps that an exchange worker takes for a record of the benchmark under its
two grants, each timed alone on the same records, and what others take for the
same: fastavro to decode and encode, librdkafka's binding to queue. Each figure is
the best of many rounds, because noise only ever adds. What is not in them: the
broker, the network, librdkafka's own threads (they compress and send while the
next records are worked out), and waiting for the commit.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from confluent_kafka import Message, Producer

from bench.records import CITY, MASKED, PROJECTED, ROWS, Coder, contract_schema, key_schema, rows
from govbus import topics
from govbus.catalogue import Resource, ShareType
from govbus.codec import HEADER_BYTES, Schema, header, parse_schema
from govbus.contract import parse_contract
from govbus.grant import FieldRule, Grant, GrantState, PublishedGrant
from govbus.splice import COMPILED, Walker
from govbus.transform import Keep, Partial
from govbus.view import view_schema
from govbus_processors.batch import Batch, Output, Slice
from govbus_processors.exchange import Exchange
from govbus_processors.membership import Membership
from govbus_processors.queueing import PACKED, Queue
from govbus_processors.routes import Policy, Route

RECORDS = 20_000
ROUNDS = 15
_BATCH = 10_000
_VALUE_ID, _KEY_ID, _PROJECTED_ID, _FULL_ID = 1, 2, 3, 4
_TOPIC = topics.captured("bench", "residents")
_BEGAN_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class _Book:
    """The schemas that the records name, as a worker's schema book gives them."""

    schemas: Mapping[int, Schema]

    def get(self, schema_id: int) -> Schema | None:
        return self.schemas.get(schema_id)


def parts(*, records: int = RECORDS, rounds: int = ROUNDS) -> dict[str, float]:
    """Time each step and return microseconds a record of the input, by its name."""
    schema, key = contract_schema(), key_schema()
    coder, key_coder = Coder(schema), Coder(key)
    keys = [header(_KEY_ID) + key_coder.encode(row) for row in rows(records)]
    values = [header(_VALUE_ID) + coder.encode(row) for row in rows(records)]
    bodies = [value[HEADER_BYTES:] for value in values]
    decoded = [coder.decode(body) for body in bodies]
    projected, full = _routes(schema, key)
    exchange = Exchange(
        worker="parts",
        schemas=_Book({_VALUE_ID: parse_schema(_VALUE_ID, schema), _KEY_ID: parse_schema(_KEY_ID, key)}),  # type: ignore[arg-type]
        membership=Membership(),
        pseudonym_secret=None,
    )
    policy = Policy(offset=0, resources={_TOPIC: projected.resource}, routes={_TOPIC: (projected, full)})

    def work(*routes: Route) -> list[Sequence[Output]]:
        deliveries: list[Sequence[Output]] = []
        for start, messages in batches:
            part = Slice(place=(_TOPIC, 0), start=start, messages=messages, routes=routes)
            outcome = exchange.process(Batch(policy=policy, now=datetime.now(UTC), slices=[part]))
            if outcome.dead_letters or outcome.waiting:
                raise ValueError("the benchmark's own records must pass")
            deliveries += outcome.deliveries.values()
        return deliveries

    batches = [
        (start, _messages(start, keys[start : start + _BATCH], values[start : start + _BATCH]))
        for start in range(0, records, _BATCH)
    ]
    made = work(projected, full)
    walker, subset = Walker(schema), _subset(schema)

    def walk() -> None:
        for value in values:
            walker.walk(value, HEADER_BYTES)

    steps: dict[str, Callable[[], object]] = {
        "walk_us": walk,
        "exchange_no_view_us": work,
        "exchange_projected_us": lambda: work(projected),
        "exchange_full_us": lambda: work(full),
        "exchange_both_us": lambda: work(projected, full),
        "fastavro_decode_us": lambda: [coder.decode(body) for body in bodies],
        "fastavro_encode_four_us": lambda: [subset.encode(row) for row in decoded],
    }
    gc.disable()  # as in a worker (govbus_processors.garbage)
    try:
        found = {name: _best(step, rounds) for name, step in steps.items()}
        found["queue_deliveries_us"] = min(_queue(made) for _ in range(rounds))
    finally:
        gc.enable()
    return {name: seconds / records * 1e6 for name, seconds in found.items()}


def table(found: Mapping[str, float]) -> list[list[str]]:
    """Lay the figures out."""
    kernel = "compiled" if COMPILED else "interpreted"
    titles = {
        "walk_us": f"the splice kernel checks every byte of 13 fields ({kernel})",
        "exchange_no_view_us": "the exchange without any view: that, and the key against its row",
        "exchange_projected_us": "the exchange with the view of four fields, one masked",
        "exchange_full_us": f"the exchange with the view of all fields where city = {CITY}",
        "exchange_both_us": "the exchange with both views",
        "queue_deliveries_us": "handing what both views deliver to librdkafka (1.5 records)",
        "fastavro_decode_us": "for comparison: fastavro decodes the record",
        "fastavro_encode_four_us": "for comparison: fastavro encodes four fields",
    }
    return [["step", "us"], *([title, f"{found[name]:.2f}"] for name, title in titles.items())]


def _messages(start: int, keys: Sequence[bytes], values: Sequence[bytes]) -> Sequence[Any]:
    """A batch in the form in which the worker has it."""
    stamped = [
        (key, value, start + n, _BEGAN_MS + n)
        for n, (key, value) in enumerate(zip(keys, values, strict=True))
    ]
    if not PACKED:
        return [
            Message(topic=_TOPIC, partition=0, offset=offset, key=key, value=value, timestamp=(1, at))
            for key, value, offset, at in stamped
        ]
    from govbus_processors.bulk import Records

    packed = Records(_TOPIC, 0)
    for record in stamped:
        packed.add(*record)
    return packed


def _best(step: Callable[[], object], rounds: int) -> float:
    step()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return min(times)


def _queue(deliveries: Sequence[Sequence[Output]]) -> float:
    """Queue everything in a producer that has nobody to send it to."""
    producer = Producer(
        {
            "bootstrap.servers": "127.0.0.1:1",
            "log_level": 0,
            "linger.ms": 60_000,
            "queue.buffering.max.messages": 2_000_000,
            "delivery.report.only.error": True,
        }
    )
    queue = Queue(producer)
    began = time.perf_counter()
    for records in deliveries:
        queue.put("bench.parts", records)
    taken = time.perf_counter() - began
    producer.purge()
    producer.flush(5.0)
    return taken


def _subset(schema: Mapping[str, Any]) -> Coder:
    return Coder(dict(schema) | {"fields": [f for f in schema["fields"] if f["name"] in PROJECTED]})


def _routes(schema: dict[str, Any], key: dict[str, Any]) -> tuple[Route, Route]:
    contract = parse_contract(json.dumps(schema), owner="bench", resource="residents")
    resource = Resource(
        owner=contract.owner,
        name=contract.resource,
        title="Made-up residents",
        share_type=ShareType.CONDITIONAL,
        kind=contract.kind,
        contract_version=contract.version,
        key=contract.key,
        partitions=1,
        value_schema_id=_VALUE_ID,
        key_schema_id=_KEY_ID,
    )
    now = datetime.now(UTC)

    def route(name: str, fields: Sequence[str], filter_text: str | None, schema_id: int) -> Route:
        mask = Partial(head=1) if filter_text is None else Keep()
        grant = Grant(
            id=name,
            version=1,
            state=GrantState.ACTIVE,
            subscriber="health",
            owner=contract.owner,
            resource=contract.resource,
            fields=tuple(
                FieldRule(name=field, transform=mask if field == MASKED else Keep()) for field in fields
            ),
            rows=filter_text,
            purpose="Benchmark",
            starts_at=now,
            expires_at=now + timedelta(days=1),
        )
        published = PublishedGrant(
            grant=grant,
            view=f"v-{name}",
            delivery_topic=topics.delivered(grant.subscriber, name),
            value_schema_id=schema_id,
            key_schema_id=_KEY_ID,
        )
        return Route(
            resource=resource,
            grants=(published,),
            view_raw=view_schema(grant, contract, None),
            key_raw=key,
        )

    every = [field["name"] for field in schema["fields"]]
    return (
        route("projected", PROJECTED, None, _PROJECTED_ID),
        route("full", every, ROWS, _FULL_ID),
    )
