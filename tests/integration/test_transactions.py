"""Transactions of the exchange that something happens to while they are open.

What each test needs is an open transaction at the right moment. That is asked
of the broker, not hoped for: a partition's end for readers of uncommitted
records is beyond that for readers of committed ones exactly while one is open.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from chaos.ground import Ground, ground
from govbus import topics
from govbus.codec import unframe
from govbus.grant import GrantState, PublishedGrant
from govbus_console.control.reading import committed_offsets
from support.exchanges import WorkerProcess, World, eventually
from support.policies import rules

pytestmark = pytest.mark.broker

_KEYS = 97
_SMALL_BATCHES = {"GOVBUS_EXCHANGE_BATCH_RECORDS": "500"}


@pytest.fixture
def wide(bus, tmp_path: Path) -> Iterator[World]:
    """A resource of four partitions."""
    world = World(bus.embedded, tmp_path, partitions=4)
    yield world
    world.close()


def _produce_numbered(world: World, first: int, count: int) -> None:
    """Each key is written in rising order of ``staff``, spread over four partitions."""
    for number in range(first, first + count):
        world.put(f"k{number % _KEYS}", partition=number % _KEYS % 4, staff=number)
    world.flush()


def _open_transactions(world: World, topic: str) -> bool:
    """Whether some partition holds records that are neither committed nor aborted."""
    committed = world.cluster.end_offsets(topic, committed=True)
    return any(end > committed[number] for number, end in world.cluster.end_offsets(topic).items())


def _freeze_in_a_transaction(
    world: World, worker: WorkerProcess, topic: str, write: Callable[[], None]
) -> None:
    """Stop a worker for the time being while it holds a transaction open on ``topic``."""

    def frozen() -> bool:
        if not _open_transactions(world, topic):
            write()
            return False
        worker.signal(signal.SIGSTOP)
        # The end of the transaction may have been asked for already; the broker carries it out meanwhile.
        time.sleep(1.0)
        if _open_transactions(world, topic):
            return True
        worker.signal(signal.SIGCONT)
        return False

    eventually(frozen, what="a transaction that is open while its worker stands still")


def _assert_each_once_and_in_order(world: World, topic: str, total: int) -> None:
    seen: dict[str, list[int]] = {}
    for code, row in world.rows(topic):
        assert row is not None
        seen.setdefault(code, []).append(row["staff"])
    assert sum(len(values) for values in seen.values()) == total
    assert all(values == sorted(set(values)) for values in seen.values())


def test_a_worker_held_up_for_longer_than_its_transaction_may_last_loses_and_repeats_nothing(
    wide: World,
) -> None:
    """The broker ends the transaction for it; what it goes on with when it wakes must not count."""
    published, _ = wide.publish(wide.new_grant(fields=rules("code", "staff")))
    topic = published.delivery_topic
    worker = wide.worker("a", **_SMALL_BATCHES)
    total = 0

    def write() -> None:
        nonlocal total
        _produce_numbered(wide, total, 2_000)
        total += 2_000

    write()
    eventually(lambda: wide.read(topic), what="the first deliveries")
    _freeze_in_a_transaction(wide, worker, topic, write)

    eventually(lambda: not _open_transactions(wide, topic), seconds=40, what="the broker's patience to end")
    worker.signal(signal.SIGCONT)
    eventually(lambda: worker.process.poll() is not None, seconds=40, what="the worker to notice")
    wide.worker("a", **_SMALL_BATCHES)

    eventually(lambda: len(wide.read(topic)) >= total, what="all records")
    _assert_each_once_and_in_order(wide, topic, total)
    assert '"code": "fenced"' in worker.output()
    aborted = len(wide.read(topic, isolation="read_uncommitted")) - total
    assert aborted > 0, "nothing was written twice, so no transaction was cut off"


@pytest.fixture
def own_ground() -> Iterator[Ground]:
    """A broker of its own, which the test may end."""
    with ground() as mine:
        yield mine


@pytest.fixture
def alone(own_ground: Ground, tmp_path: Path) -> Iterator[World]:
    """A resource of four partitions on that broker."""
    world = World(own_ground.bus, tmp_path, partitions=4)
    yield world
    world.close()


def test_a_broker_that_is_stopped_and_one_that_crashes_in_the_middle_of_batches_cost_time_and_nothing_else(
    own_ground: Ground, alone: World
) -> None:
    """Every transaction that was begun ends as a whole, on all of its partitions."""
    published, _ = alone.publish(alone.new_grant(fields=rules("code", "staff")))
    topic = published.delivery_topic
    worker = alone.worker("a", **_SMALL_BATCHES)
    total = 0

    def write(count: int) -> None:
        nonlocal total
        _produce_numbered(alone, total, count)
        total += count

    def under_way() -> bool:
        if _open_transactions(alone, topic):
            return True
        write(1_000)
        return False

    def all_there() -> bool:
        nonlocal worker
        if worker.process.poll() is not None:
            # As a supervisor does: it may end when it cannot know what became of its transaction.
            worker = alone.worker("a", **_SMALL_BATCHES)
        ends = alone.cluster.end_offsets(topic, committed=True)
        return sum(ends.values()) >= total and len(alone.read(topic)) >= total

    for crash in (False, True):
        write(5_000)
        eventually(lambda: alone.cluster.end_offsets(topic, committed=True)[0], what="the first deliveries")
        eventually(under_way, what="a batch under way")
        own_ground.end_broker(kill=crash)
        own_ground.start_broker()
        eventually(all_there, what="all records")

    for name in (topic, topics.DECISIONS, topics.WORKERS, topics.PROGRESS):
        eventually(lambda name=name: not _open_transactions(alone, name), seconds=20, what=f"{name} closed")
    _assert_each_once_and_in_order(alone, topic, total)
    told = [alone.registry.decode(message.value()) for message in alone.read(topics.DECISIONS)]
    assert sum(decision["delivered"] for decision in told if decision["topic"] == alone.source) == total


def _transactions(messages: Iterable[Any]) -> Iterator[list[Any]]:
    """Records of one partition, transaction by transaction: the marker after each takes an offset."""
    run: list[Any] = []
    for message in messages:
        if run and message.offset() != run[-1].offset() + 1:
            yield run
            run = []
        run.append(message)
    if run:
        yield run


def test_no_transaction_delivers_under_two_versions_of_a_grant_that_is_amended_under_load(
    wide: World,
) -> None:
    """Renewed, which changes nothing but the agreement that is named, and now and then amended."""
    published, _ = wide.publish(wide.new_grant(fields=rules("code", "staff")))
    topic = published.delivery_topic
    wide.worker("a", **_SMALL_BATCHES)
    total = 0

    def delivered_under(version: PublishedGrant) -> bool:
        nonlocal total
        _produce_numbered(wide, total, 1_000)
        total += 1_000
        return any(unframe(m.value())[0] == version.value_schema_id for m in wide.read(topic))

    for number in range(2, 10):
        eventually(
            functools.partial(delivered_under, published), what=f"a delivery under version {number - 1}"
        )
        fields = rules("code", "staff", "city") if number % 4 < 2 else rules("code", "staff")
        term = published.grant.expires_at + timedelta(days=1)
        published, _ = wide.again(published, fields=fields, expires_at=term)
    eventually(
        lambda: (
            len(wide.table(topic)) == _KEYS
            and all(row["staff"] >= total - _KEYS for row in wide.table(topic).values())
        ),
        what="the newest of every row",
    )

    delivered = wide.read(topic)
    versions = set()
    for partition in range(4):
        for run in _transactions(m for m in delivered if m.partition() == partition):
            under = {unframe(m.value())[0] for m in run}
            assert len(under) == 1
            versions |= under
    assert len(versions) > 7
    for run in _transactions(wide.read(topics.DECISIONS)):
        told = [wide.registry.decode(m.value()) for m in run]
        assert len({(d["version"], d["value_schema_id"]) for d in told if d["topic"] == wide.source}) <= 1


@pytest.fixture
def world(bus, tmp_path: Path) -> Iterator[World]:
    world = World(bus.embedded, tmp_path)
    yield world
    world.close()


def _forget(world: World) -> None:
    """Let the captured topic lose what it holds, deletions included, as if compaction had been there."""
    from confluent_kafka.admin import (
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    admin = AdminClient(world.bus.broker_settings().client())
    # The broker deletes records on request only where a topic may lose them by age.
    entry = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, world.source, incremental_configs=[entry])
    for answer in admin.incremental_alter_configs([change]).values():
        answer.result(20)
    end = world.cluster.end_offsets(world.source)[0]

    def gone() -> bool:
        answers = admin.delete_records([TopicPartition(world.source, 0, end)])
        return all(answer.exception(20) is None for answer in answers.values())

    eventually(gone, seconds=20, what="the records to be deleted")


@pytest.mark.parametrize("rows", [None, "city = '3308'"], ids=["whole table", "filtered"])
def test_rows_whose_deletion_the_source_forgot_during_a_suspension_are_swept_also_after_a_crash(
    world: World, rows: str | None
) -> None:
    published, _ = world.publish(world.new_grant(rows=rows, fields=rules("code", "staff")))
    topic = published.delivery_topic
    small = {"GOVBUS_EXCHANGE_BATCH_RECORDS": "10"}
    worker = world.worker("a", **_SMALL_BATCHES)
    for number in range(1_000):
        world.put(f"k{number}", staff=1)
    world.flush()
    eventually(lambda: len(world.table(topic)) == 1_000, what="the rows")
    suspended, offset = world.again(published, state=GrantState.SUSPENDED)
    eventually(lambda: world.reported_offset(worker) >= offset, what="the suspension applied")
    world.put("any")
    world.flush()
    eventually(lambda: _lag(world) == 0, what="the suspended grant to stand still")
    assert worker.stop() == 0
    _forget(world)
    kept = {f"k{number}" for number in range(0, 1_000, 100)}
    for code in sorted(kept):
        world.put(code, staff=2)
    world.flush()

    before = world.cluster.end_offsets(topic)[0]
    worker = world.worker("a", **small, GOVBUS_EXCHANGE_SWEEP_AFTER_SECONDS="1")
    world.again(suspended, state=GrantState.ACTIVE)
    eventually(lambda: world.cluster.end_offsets(topic)[0] > before + 60, what="the sweep under way")
    worker.kill()
    left = len(world.table(topic))
    world.worker("a", **small)

    eventually(lambda: set(world.table(topic)) == kept, what="what is gone to be taken away")
    assert left > len(kept), "the sweep was over before the crash"
    tombstones = [code for code, row in world.rows(topic) if row is None]
    # A kept row that the live stream had still to bring may go and come again; none goes twice.
    assert set(tombstones) - kept == {f"k{number}" for number in range(1_000)} - kept
    assert len(tombstones) == len(set(tombstones))
    assert all(row["staff"] == 2 for row in world.table(topic).values())


def test_rows_whose_deletion_the_source_forgot_while_no_worker_ran_are_swept_also_after_a_crash(
    world: World,
) -> None:
    """The grant was live all the time; the note beside the offset tells that nobody read the partition."""
    published, _ = world.publish(world.new_grant(fields=rules("code", "staff")))
    topic = published.delivery_topic
    worker = world.worker("a", **_SMALL_BATCHES)
    for number in range(1_000):
        world.put(f"k{number}", staff=1)
    world.flush()
    eventually(lambda: len(world.table(topic)) == 1_000, what="the rows")
    eventually(lambda: _note(world), what="the worker to note up to when it has read")
    assert worker.stop() == 0
    _forget(world)
    kept = {f"k{number}" for number in range(0, 1_000, 100)}
    for code in sorted(kept):
        world.put(code, staff=2)
    world.flush()
    time.sleep(1.0)

    before = world.cluster.end_offsets(topic)[0]
    small = {"GOVBUS_EXCHANGE_BATCH_RECORDS": "10"}
    worker = world.worker("a", **small, GOVBUS_EXCHANGE_SWEEP_AFTER_SECONDS="1")
    eventually(lambda: world.cluster.end_offsets(topic)[0] > before + 60, what="the sweep under way")
    worker.kill()
    left = len(world.table(topic))
    world.worker("a", **small)  # by whose settings nothing was missed: it goes by what the first has stored

    eventually(lambda: set(world.table(topic)) == kept, what="what is gone to be taken away")
    assert left > len(kept), "the sweep was over before the crash"
    tombstones = [code for code, row in world.rows(topic) if row is None]
    assert set(tombstones) - kept == {f"k{number}" for number in range(1_000)} - kept
    assert len(tombstones) == len(set(tombstones))


def _note(world: World) -> str:
    """What the exchange's offset of partition 0 was committed with."""
    consumer = Consumer(world.bus.broker_settings().client(group_id=topics.EXCHANGE_GROUP))
    try:
        (place,) = consumer.committed([TopicPartition(world.source, 0)], timeout=10)
        return place.metadata or ""
    finally:
        consumer.close()


def _lag(world: World) -> int:
    """Captured records of partition 0 that the exchange has not dealt with."""
    done = committed_offsets(world.bus.broker_settings(), topics.EXCHANGE_GROUP, world.source, [0])
    return world.cluster.end_offsets(world.source)[0] - done.get(0, 0)
