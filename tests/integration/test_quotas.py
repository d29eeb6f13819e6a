"""Quotas on the real broker: exact through kill -9 and a change of workers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from govbus import topics
from support.broker import RunningBus
from support.exchanges import World, eventually


@pytest.fixture
def world(bus: RunningBus, tmp_path: Path) -> Iterator[World]:
    made = World(bus.embedded, tmp_path, partitions=2)
    yield made
    made.close()


def where_it_is_noon() -> str:
    """A time zone whose day does not end while the test runs."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


def test_a_quota_is_never_exceeded_and_survives_a_killed_worker(world: World) -> None:
    """Two partitions have a share of five each; a worker that takes over counts on, keys included."""
    tax, _ = world.publish(world.new_grant("tax", quota_records_per_day=10, quota_keys_per_day=8))
    free, _ = world.publish(world.new_grant("free"))
    for partition in (0, 1):
        for number in range(3):
            world.put(f"P{partition}-{number}", partition)
    world.flush()
    zone = {"GOVBUS_EXCHANGE_QUOTA_ZONE": where_it_is_noon()}
    first = world.worker("one", **zone)
    eventually(lambda: len(world.read(tax.delivery_topic)) == 6, what="below the quota everything arrives")

    first.kill()
    for partition in (0, 1):
        for number in range(3, 9):
            world.put(f"P{partition}-{number}", partition)
        world.put(f"P{partition}-0", partition)
    world.flush()
    world.worker("two", **zone)
    eventually(lambda: len(world.table(free.delivery_topic)) == 18, what="the other grant goes on")
    eventually(
        lambda: (
            any(
                d["grant"] == tax.grant.id and d["reason"] == "quota-used-up"
                for d in map(world.registry.decode, (m.value() for m in world.read(topics.DECISIONS)))
            )
            or (world.put("P0-0", 0), world.flush())[1]
        ),
        what="it says that the quota is used up",
    )

    def report() -> object:
        reports = [world.registry.decode(m.value()) for m in world.read(topics.WORKERS) if m.value()]
        return {"grant": tax.grant.id, "reason": "quota-used-up"} in reports[-1]["held"]

    eventually(report, what="operators see it")
    # Four keys a partition: three are from before the kill, so one more, and then a fifth has to wait.
    keys = {world.registry.decode(m.key())["code"] for m in world.read(tax.delivery_topic)}
    assert keys == {f"P{partition}-{number}" for partition in (0, 1) for number in range(4)}
    assert len(world.read(tax.delivery_topic)) == 8
