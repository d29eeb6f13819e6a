"""The guard on the real path: an exchange that shows too much is stopped before anyone can read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from govbus import topics
from support.broker import RunningBus
from support.exchanges import World, eventually

SHOWS_TOO_MUCH = """
from govbus_processors.batch import Output
from govbus_processors.exchange import Exchange

honest = Exchange.process

def process(self, batch):
    outcome = honest(self, batch)
    for topic, outputs in outcome.deliveries.items():
        if topic.endswith("-tax"):
            outcome.deliveries[topic] = [Output(k, v and v + b"SECRET", p, at) for k, v, p, at in outputs]
    return outcome

Exchange.process = process
"""


@pytest.fixture
def world(bus: RunningBus, tmp_path: Path):
    made = World(bus.embedded, tmp_path)
    yield made
    made.close()


def test_a_delivery_that_its_grant_does_not_allow_is_never_committed_and_stops_that_grant_alone(
    world: World,
) -> None:
    tax, _ = world.publish(world.new_grant("tax"))
    health, _ = world.publish(world.new_grant("health"))
    world.put("A")
    world.put("B")
    world.flush()

    worker = world.worker("careless", first=SHOWS_TOO_MUCH)
    eventually(lambda: len(world.table(health.delivery_topic)) == 2, what="the other grant goes on")
    decisions = eventually(
        lambda: [
            d
            for d in map(world.registry.decode, (m.value() for m in world.read(topics.DECISIONS)))
            if d["grant"] == tax.grant.id and d["reason"] == "guard-violation"
        ]
    )
    assert decisions[0]["effect"] == "deny"
    assert world.read(tax.delivery_topic, isolation="read_uncommitted") == []
    assert "guard violation" in worker.output()
    assert "SECRET" not in worker.output()

    worker.stop()
    world.worker("honest")
    eventually(lambda: len(world.table(tax.delivery_topic)) == 2, what="nothing is lost")
