"""The exchange on a real broker: exactly once, in order, fails closed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from govbus import topics
from govbus.codec import frame
from govbus.grant import GrantState, grant_key
from govbus_console.control import barrier
from govbus_console.control.bus import Bus
from support.broker import RunningBus
from support.exchanges import World, eventually
from support.policies import firm, rules
from support.registries import gate_before

pytestmark = pytest.mark.broker


@pytest.fixture
def world(bus, tmp_path: Path) -> Iterator[World]:
    world = World(bus.embedded, tmp_path)
    yield world
    world.close()


@pytest.fixture
def wide(bus, tmp_path: Path) -> Iterator[World]:
    """A resource of four partitions."""
    world = World(bus.embedded, tmp_path, partitions=4)
    yield world
    world.close()


def test_a_granted_record_arrives_with_the_granted_fields_and_nothing_else(world: World) -> None:
    published, _ = world.publish(world.new_grant(rows="city = '3308'"))
    world.worker()
    world.put("A")
    world.put("B", city="1100")
    world.flush()

    eventually(lambda: world.read(published.delivery_topic), what="a delivery")

    assert world.rows(published.delivery_topic) == [("A", {"code": "A", "name": "name of A"})]


def test_a_delivery_carries_the_time_of_the_commit_at_its_source(world: World) -> None:
    """Rows and tombstones alike: latency and lag in seconds are measured from it."""
    published, _ = world.publish(world.new_grant())
    world.worker()
    an_hour_ago = int(time.time() * 1_000) - 3_600_000
    record = firm(0, "A")
    key = frame(world.key.id, record.key()[5:])
    world.put_bytes(key, frame(world.value.id, record.value()[5:]), timestamp_ms=an_hour_ago)
    world.put_bytes(key, None, timestamp_ms=an_hour_ago + 1)
    world.flush()

    eventually(lambda: len(world.read(published.delivery_topic)) == 2, what="both records")

    delivered = world.read(published.delivery_topic)
    assert [message.timestamp()[1] for message in delivered] == [an_hour_ago, an_hour_ago + 1]


def test_a_new_grant_is_picked_up_without_a_restart_and_brought_to_the_present(world: World) -> None:
    first, _ = world.publish(world.new_grant("first"))
    world.worker()
    for number in range(500):
        world.put(f"{number}")
    world.remove("7")
    world.flush()
    eventually(lambda: len(world.rows(first.delivery_topic)) == 501, what="the first grant's rows")

    late, _ = world.publish(world.new_grant("late", rows="staff = 7"))

    eventually(lambda: len(world.table(late.delivery_topic)) == 499, seconds=10, what="the backfill")
    world.put("new")
    world.flush()
    eventually(lambda: "new" in world.table(late.delivery_topic), seconds=5, what="the live record")
    assert "7" not in world.table(late.delivery_topic)


def test_an_amended_filter_takes_rows_away_and_gives_new_ones(world: World) -> None:
    published, _ = world.publish(world.new_grant(rows="city = '3308'"))
    world.worker()
    for number in range(20):
        world.put(f"{number}", city="3308" if number % 2 else "1100")
    world.flush()
    eventually(lambda: len(world.table(published.delivery_topic)) == 10, what="the odd ones")

    world.again(published, rows="city = '1100'")

    eventually(
        lambda: set(world.table(published.delivery_topic)) == {f"{n}" for n in range(0, 20, 2)},
        what="the even ones in place of the odd ones",
    )


def test_a_filter_that_comes_back_knows_what_was_delivered_while_there_was_none(world: World) -> None:
    """Its key set is from before: rows that came and went unfiltered never passed it."""
    published, _ = world.publish(world.new_grant(rows="city = '3308'"))
    world.worker()
    world.put("before", city="3308")
    world.flush()
    eventually(lambda: set(world.table(published.delivery_topic)) == {"before"}, what="the first row")
    whole, _ = world.again(published, rows=None)
    world.put("meanwhile", city="1100")
    world.remove("before")
    world.flush()
    eventually(lambda: set(world.table(published.delivery_topic)) == {"meanwhile"}, what="the whole table")

    world.again(whole, rows="city = '3308'")

    eventually(lambda: world.table(published.delivery_topic) == {}, seconds=20, what="the row left the view")
    world.remove("meanwhile")
    world.put("after")
    world.flush()
    eventually(lambda: "after" in world.table(published.delivery_topic), what="the row after it")
    assert [row for code, row in world.rows(published.delivery_topic) if code == "meanwhile"][1:] == [None]


def test_a_narrowed_field_list_rewrites_the_rows_that_were_delivered(world: World) -> None:
    published, _ = world.publish(world.new_grant(fields=rules("code", "name", "city")))
    world.worker()
    world.put("A")
    world.flush()
    eventually(lambda: world.table(published.delivery_topic), what="the wide row")

    world.again(published, fields=rules("code", "city"))

    eventually(
        lambda: world.table(published.delivery_topic) == {"A": {"code": "A", "city": "3308"}},
        what="the narrow row",
    )


def test_a_suspended_grant_gets_nothing_and_a_resumed_one_everything_it_missed(world: World) -> None:
    published, _ = world.publish(world.new_grant())
    worker = world.worker()
    world.put("A")
    world.flush()
    eventually(lambda: world.table(published.delivery_topic), what="the first row")

    suspended, offset = world.again(published, state=GrantState.SUSPENDED)
    eventually(lambda: world.reported_offset(worker) >= offset, what="the suspension applied")
    world.put("B")
    world.remove("A")
    world.flush()
    time.sleep(1.0)
    assert set(world.table(published.delivery_topic)) == {"A"}

    world.again(suspended, state=GrantState.ACTIVE)
    eventually(lambda: set(world.table(published.delivery_topic)) == {"B"}, what="what was missed")


def test_a_grant_that_cannot_be_read_gets_nothing_and_everything_once_it_can(
    soiled_bus: RunningBus, tmp_path: Path
) -> None:
    """A version that this worker does not understand, say, because it is older than who wrote it."""
    with closing(World(soiled_bus.embedded, tmp_path)) as world:
        _unreadable_gets_nothing(world)


def _unreadable_gets_nothing(world: World) -> None:
    published, _ = world.publish(world.new_grant())
    worker = world.worker()
    world.put("A")
    world.flush()
    eventually(lambda: world.table(published.delivery_topic), what="the first row")

    offset = world.say(grant_key(published.grant.id), b"not a grant")
    eventually(lambda: world.reported_offset(worker) >= offset, what="the unreadable version applied")
    world.put("B")
    world.flush()
    other, _ = world.publish(world.new_grant("other"))
    eventually(lambda: set(world.table(other.delivery_topic)) == {"A", "B"}, what="B passed by")
    without = [code for code, _ in world.rows(published.delivery_topic)]
    worker.kill()
    world.again(published)
    world.worker()

    eventually(lambda: "B" in world.table(published.delivery_topic), what="what it missed")
    assert without == ["A"]
    assert [code for code, _ in world.rows(published.delivery_topic)] == ["A", "B"]


def test_after_the_barrier_nothing_is_delivered_under_a_revoked_grant(world: World) -> None:
    published, _ = world.publish(world.new_grant())
    worker = world.worker()
    world.put("A")
    world.flush()
    eventually(lambda: world.table(published.delivery_topic), what="the first row")

    _, offset = world.again(published, state=GrantState.REVOKED)
    eventually(lambda: world.reported_offset(worker) >= offset, seconds=10, what="the barrier")
    before = len(world.rows(published.delivery_topic))
    for number in range(200):
        world.put(f"{number}")
    world.flush()
    time.sleep(2.0)

    assert len(world.rows(published.delivery_topic)) == before


def test_bad_records_are_dead_lettered_with_their_bytes_and_the_partition_goes_on(world: World) -> None:
    published, _ = world.publish(world.new_grant())
    world.worker(GOVBUS_EXCHANGE_SCHEMA_WAIT_SECONDS="0")
    key = b"\x00" + world.key.id.to_bytes(4, "big") + b"\x02A"
    for value in (b"junk", b"\x00\x00\x0f\xff\xff\x02A", b"\x00" + world.value.id.to_bytes(4, "big")):
        world.put_bytes(key, value)
    world.put("C")
    world.flush()

    eventually(lambda: world.table(published.delivery_topic), what="the good record")
    letters = [world.registry.decode(m.value()) for m in world.read(world.dead_letter_topic)]

    assert [letter["code"] for letter in letters] == ["undecodable", "unknown-schema", "undecodable"]
    assert letters[0]["value"] == b"junk"
    assert [letter["offset"] for letter in letters] == [0, 1, 2]


def test_an_open_transaction_of_an_owner_is_not_delivered_and_an_aborted_one_never(world: World) -> None:
    from confluent_kafka import Producer

    from govbus.codec import encode

    published, _ = world.publish(world.new_grant())
    world.worker()
    owner = Producer(world.bus.broker_settings().client(transactional_id=f"{world.tag}-owner"))
    owner.init_transactions(20)
    owner.begin_transaction()
    row = {"code": "X", "name": "never", "city": None, "staff": 1}
    owner.produce(world.source, key=encode(world.key, {"code": "X"}), value=encode(world.value, row))
    owner.flush(10)
    owner.abort_transaction(20)
    world.put("A")
    world.flush()

    eventually(lambda: world.table(published.delivery_topic), what="the record after it")

    assert set(world.table(published.delivery_topic)) == {"A"}


def _produce_numbered(world: World, first: int, count: int) -> None:
    """Each key is written in rising order of ``staff``, spread over four partitions."""
    for number in range(first, first + count):
        world.put(f"k{number % 97}", partition=number % 97 % 4, staff=number)
    world.flush()


def test_killing_and_freezing_workers_loses_duplicates_and_reorders_nothing(wide: World) -> None:
    grant = wide.new_grant(fields=rules("code", "staff"))
    published, _ = wide.publish(grant)
    total, names = 0, ["a", "b"]
    workers = {name: wide.worker(name) for name in names}
    for fault in range(6):
        _produce_numbered(wide, total, 4_000)
        total += 4_000
        victim = names[fault % 2]
        time.sleep(0.3)
        if fault % 3 == 2:
            workers[victim].signal(signal.SIGSTOP)
            time.sleep(7.0)
            workers[victim].signal(signal.SIGCONT)
        else:
            workers[victim].kill()
            workers[victim] = wide.worker(victim)
    for name, worker in list(workers.items()):
        if worker.process.poll() is not None:
            workers[name] = wide.worker(name)

    eventually(lambda: len(wide.read(published.delivery_topic)) >= total, seconds=90, what="all records")
    time.sleep(1.0)

    seen: dict[str, list[int]] = {}
    for code, row in wide.rows(published.delivery_topic):
        assert row is not None
        seen.setdefault(code, []).append(row["staff"])
    assert sum(len(values) for values in seen.values()) == total
    assert all(values == sorted(set(values)) for values in seen.values())


def test_a_moved_partition_rebuilds_what_it_knows_before_it_delivers(wide: World) -> None:
    published, _ = wide.publish(wide.new_grant(rows="city = '3308'"))
    first = wide.worker("a")
    for number in range(40):
        wide.put(f"{number}", partition=number % 4)
        wide.put(f"out{number}", partition=number % 4, city="1100")
    wide.flush()
    eventually(lambda: len(wide.table(published.delivery_topic)) == 40, what="the rows in the view")

    first.kill()
    wide.worker("b")
    for number in range(40):
        wide.put(f"{number}", partition=number % 4, city="1100")
        wide.remove(f"out{number}", partition=number % 4)
    wide.flush()

    eventually(lambda: wide.table(published.delivery_topic) == {}, what="every row left the view")
    assert all(not code.startswith("out") for code, _ in wide.rows(published.delivery_topic))


@pytest.mark.parametrize("damage", ["none", "cut short", "a bit flipped"])
def test_a_restarted_worker_knows_who_holds_what_whatever_became_of_its_checkpoint(
    world: World, damage: str
) -> None:
    published, _ = world.publish(world.new_grant(rows="city = '3308'"))
    worker = world.worker()
    for number in range(50):
        world.put(f"{number}")
    world.flush()
    eventually(lambda: len(world.table(published.delivery_topic)) == 50, what="the rows in the view")
    assert worker.stop() == 0
    (checkpoint,) = (world.folder / "state").rglob("*.keys")
    if damage != "none":
        data = bytearray(checkpoint.read_bytes())
        data[-40] ^= 1
        checkpoint.write_bytes(data[:-7] if damage == "cut short" else data)

    again = world.worker()
    for number in range(0, 50, 2):
        world.put(f"{number}", city="1100")
    world.put("never", city="1100")
    world.remove("never")
    world.flush()

    eventually(lambda: len(world.table(published.delivery_topic)) == 25, what="half left the view")
    assert "never" not in [code for code, _ in world.rows(published.delivery_topic)]
    assert ("checkpoint not used" in again.output()) == (damage != "none")


def test_a_frozen_worker_that_wakes_after_the_barrier_delivers_nothing_under_the_old_grant(
    wide: World,
) -> None:
    """Frozen between check and commit it holds a transaction open; otherwise its lease is over."""
    published, _ = wide.publish(wide.new_grant())
    workers = [wide.worker("a"), wide.worker("b")]
    _produce_numbered(wide, 0, 400)
    eventually(lambda: len(wide.read(published.delivery_topic)) == 400, what="the first rows")
    frozen = workers[0]
    _produce_numbered(wide, 400, 20_000)
    frozen.signal(signal.SIGSTOP)

    _, offset = wide.again(published, state=GrantState.REVOKED)
    control = Bus.at(wide.bus.broker_settings(), wide.bus.endpoints.registry_url, wide.bus.home)
    passed = barrier.wait(control, offset)
    control.registry.close()
    assert frozen.name in passed.fenced
    delivered = len(wide.read(published.delivery_topic))
    frozen.signal(signal.SIGCONT)
    _produce_numbered(wide, 20_400, 2_000)
    time.sleep(8.0)

    assert len(wide.read(published.delivery_topic)) == delivered


def test_a_worker_that_cannot_read_the_policy_on_delivers_nothing_once_its_lease_is_over(
    world: World,
) -> None:
    """It lives, reads and could commit; only that its policy is current it cannot know. Nothing is lost."""
    published, _ = world.publish(world.new_grant())
    with gate_before(world.bus.endpoints.registry_url) as gate:
        worker = world.worker(GOVBUS_EXCHANGE_LEASE_SECONDS="1", GOVBUS_REGISTRY_URL=gate.url)
        world.put("A")
        world.flush()
        eventually(lambda: world.table(published.delivery_topic), what="the first row")

        gate.is_open = False
        world.publish(world.new_grant("other"))  # under a schema that the worker has to ask for
        time.sleep(2.5)
        world.put("B")
        world.flush()
        time.sleep(2.0)

        assert set(world.table(published.delivery_topic)) == {"A"}
        assert worker.process.poll() is None
        gate.is_open = True
        eventually(
            lambda: set(world.table(published.delivery_topic)) == {"A", "B"}, what="what was held back"
        )


def test_a_worker_that_may_not_read_the_policy_delivers_nothing(world: World) -> None:
    """Its permission is gone: it ends, and every one that is started in its place does."""
    published, _ = world.publish(world.new_grant())
    world.worker(GOVBUS_EXCHANGE_LEASE_SECONDS="1")
    world.put("A")
    world.flush()
    eventually(lambda: world.table(published.delivery_topic), what="the first row")
    from govbus_console.acls import Kind, Operation

    (read,) = [
        acl
        for acl in world.cluster.acls("exchange")
        if acl.kind is Kind.TOPIC and acl.name == topics.GRANTS and acl.operation is Operation.READ
    ]
    world.cluster.remove_acls([read])
    try:
        time.sleep(2.5)
        world.put("B")
        world.flush()
        time.sleep(2.0)

        assert set(world.table(published.delivery_topic)) == {"A"}
    finally:
        world.cluster.ensure_acls([read])


def test_a_worker_without_the_pseudonym_secret_gives_such_grants_nothing(world: World) -> None:
    hidden, _ = world.publish(world.new_grant("hidden", fields=rules(("code", "pseudonym"), "name")))
    plain, _ = world.publish(world.new_grant("plain"))
    worker = world.worker(GOVBUS_EXCHANGE_PSEUDONYM_SECRET_FILE="")
    world.put("A")
    world.flush()

    eventually(lambda: world.table(plain.delivery_topic), what="the plain grant's row")

    assert world.read(hidden.delivery_topic) == []
    assert worker.process.poll() is None


def test_at_least_once_loses_nothing_when_a_worker_is_killed(wide: World) -> None:
    """It may deliver a batch twice; it may not leave one out."""
    published, _ = wide.publish(wide.new_grant(fields=rules("code", "staff")))
    setting = {"GOVBUS_EXCHANGE_GUARANTEE": "at-least-once"}
    worker = wide.worker("a", **setting)
    _produce_numbered(wide, 0, 5_000)
    eventually(lambda: wide.read(published.delivery_topic), what="the first deliveries")

    worker.kill()
    wide.worker("a", **setting)
    _produce_numbered(wide, 5_000, 1_000)

    def seen() -> set[int]:
        return {row["staff"] for _, row in wide.rows(published.delivery_topic) if row}

    eventually(lambda: len(seen()) == 6_000, seconds=60, what="every record")


def test_junk_on_the_bus_s_own_topics_stops_neither_a_worker_nor_a_revocation(
    soiled_bus: RunningBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(World(soiled_bus.embedded, tmp_path)) as world:
        _junk_stops_nothing(world, monkeypatch)


def _junk_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    published, _ = world.publish(world.new_grant())
    for topic in (topics.PROGRESS, topics.WORKERS, topics.GRANTS):
        for key, value in ((b"junk", b"junk"), (b"grant/x", b"\x00\x00\x00"), (b"\xff/0", b"\x00" * 9)):
            world._producer.produce(topic, key=key, value=value)
    world.put("A")
    world.flush()

    world.worker()

    eventually(lambda: world.table(published.delivery_topic), what="a delivery all the same")
    # Whoever left the junk may be a worker: it is shut out, waited for, and taken off the list.
    monkeypatch.setattr(barrier, "LONGEST_LEASE_SECONDS", 1.5)
    control = Bus.at(world.bus.broker_settings(), world.bus.endpoints.registry_url, world.bus.home)
    _, offset = world.again(published, state=GrantState.REVOKED)
    assert "junk" in barrier.wait(control, offset).fenced
    assert "junk" not in barrier.wait(control, offset).fenced
    control.registry.close()


def test_a_worker_says_goodbye_when_it_is_asked_to_stop(world: World) -> None:
    worker = world.worker()
    eventually(lambda: world.reported_offset(worker) >= 0, what="a first report")

    assert worker.stop() == 0

    reports = [m for m in world.read(topics.WORKERS) if m.key().decode() == worker.name]
    assert world.registry.decode(reports[-1].value())["stopping"] is True
