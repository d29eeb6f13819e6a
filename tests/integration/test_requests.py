"""From a request to records in the subscriber's topic, typed as people would, on the real broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Producer

from govbus import topics
from govbus.codec import encode, parse_schema
from govbus_console import render
from govbus_console.control.bus import PSEUDONYM_SECRET
from support.broker import RunningBus, unique_name
from support.control import CONTRACT, ControlSide
from support.exchanges import WorkerProcess, World, eventually

Run = Callable[..., tuple[int, Any]]

SENSITIVE = {
    **CONTRACT,
    "fields": [
        {**field, "classification": "sensitive"} if field["name"] == "street" else field
        for field in CONTRACT["fields"]
    ],
}


@pytest.fixture
def control(bus: RunningBus, tmp_path: Path) -> Iterator[ControlSide]:
    side = ControlSide(bus, tmp_path)
    side.write(contract=SENSITIVE)
    side.apply()
    yield side
    side.close()


@pytest.fixture
def worker(control: ControlSide) -> Iterator[None]:
    secret = control.running.home.secrets / f"{PSEUDONYM_SECRET}.password"
    world = SimpleNamespace(folder=control.folder, bus=control.running.embedded, secret_file=secret)
    process = WorkerProcess(cast(World, world), unique_name("worker"), {})
    yield
    process.stop()


def publish(control: ControlSide, rows: list[tuple[str, str]]) -> None:
    """Put residents on the owner's captured topic, as its capture would."""
    topic = topics.captured(control.owner, "residents")
    registry = control.bus.registry
    value, key = (registry.latest(f"{topic}-{side}") for side in ("value", "key"))
    producer = Producer(control.running.client(enable_idempotence=True))
    for number, street in rows:
        record = {"id_number": number, "name": "某", "street": street}
        producer.produce(
            topic,
            key=encode(parse_schema(key.id, key.raw), {"id_number": number}),
            value=encode(parse_schema(value.id, value.raw), record),
        )
    assert producer.flush(20) == 0


@pytest.mark.usefixtures("worker")
def test_a_request_that_two_have_approved_delivers_exactly_what_it_asked_for(
    control: ControlSide, run: Run
) -> None:
    publish(control, [(f"{n:03}", "North" if n < 25 else "South") for n in range(40)])
    for name, department, role in (
        ("li", control.tax, "subscriber"),
        ("wang", control.owner, "steward"),
        ("zhao", control.owner, "steward"),
    ):
        assert run("account", "add", name, "--department", department, "--role", role)[0] == render.DONE

    _, made = run(
        "request", "new", f"{control.owner}.residents", "--as", "li",
        "--field", "id_number", "--field", "street={truncate: 2}", "--rows", "street = 'North'",
        "--purpose", "Assessment", "--legal-basis", "Tax law, article 6", "--days", "30",
    )  # fmt: skip
    _, counted = run("request", "count", made["id"], "--as", "li")
    _, submitted = run("request", "submit", made["id"], "--as", "li")
    refused, _ = run("review", "approve", made["id"], "--as", "li")
    run("review", "take", made["id"], "--as", "wang")
    _, first = run("review", "approve", made["id"], "--as", "wang")
    again, _ = run("review", "approve", made["id"], "--as", "wang")
    _, done = run("review", "approve", made["id"], "--as", "zhao")

    assert (made["state"], counted["matching"], submitted["state"]) == ("draft", 20, "submitted")
    assert (refused, again) == (render.REFUSED, render.REFUSED)
    assert (first["state"], first["approved_by"]) == ("in_review", ["wang"])
    assert (done["state"], done["grant_version"]) == ("provisioned", 1)
    topic = topics.delivered(control.tax, done["grant"])
    told = control.told(control.tax)[-1]
    assert (told["topic"], told["purpose"]) == (topic, "Assessment")
    delivered = eventually(
        lambda: (found := control.records(topic)) and len(found) == 25 and found, what="deliveries"
    )
    assert {json.dumps(value, sort_keys=True) for _, value in delivered} == {
        json.dumps({"id_number": f"{n:03}", "street": "No"}, sort_keys=True) for n in range(25)
    }

    run("revoke", done["grant"], "--why", "the end")
    _, ended = run("request", "show", made["id"], "--as", "li")

    assert ended["state"] == "revoked"
    assert [event["action"] for event in ended["history"]] == [
        "draft", "count", "submit", "take", "endorse", "confirm", "provision", "revoke",
    ]  # fmt: skip
