"""While one batch is committed the next is worked out: nobody can tell, whatever goes wrong meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from govbus.errors import RetriableError
from govbus.grant import GrantState
from govbus_processors.batch import Output, Place
from govbus_processors.intake import RebalancedError
from govbus_processors.routes import Policy
from support.intakes import HandDriven, Hours, MemoryBus, Policies, decisions
from support.policies import NOON, SOURCE, a_grant, a_policy, a_resource, firm, gone, published

TOPIC = "govbus.delivered.tax.tax-firms"
PLACES = [(SOURCE, partition) for partition in range(2)]
HERE = "city = '3308'"


@dataclass
class Change:
    """One change of the source: where the firm is now, or that it is gone."""

    code: str
    city: str | None

    @property
    def partition(self) -> int:
        return int(self.code[1:]) % 2


changes = st.builds(
    Change, code=st.sampled_from([f"k{n}" for n in range(6)]), city=st.sampled_from(["3308", "1100", None])
)
faults = st.sampled_from(["none", "failed commit", "rebalance", "crash", "new policy", "both", "stale"])


class World:
    """One worker after another on a bus in memory, with a batch of four records at most."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        self.bus = MemoryBus()
        self.folder = folder
        self.directory = Policies(policy)
        self.ahead = 0
        """How many batches were given to the agent before the one before them was committed."""

        self.start()

    def start(self) -> None:
        self.worker = HandDriven(self.bus, self.directory, self.folder, batch_records=4).assign(*PLACES)

    def put(self, change: Change, at: int) -> None:
        record = (
            gone(at, change.code)
            if change.city is None
            else firm(at, change.code, city=change.city, name=f"change {at}")
        )
        self.bus.put((SOURCE, change.partition), record)

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.worker.turn()
            read = self.worker.intake._ahead
            self.ahead += read is not None and read.batch is not None

    def harm(self, fault: str, number: int) -> None:
        """Let something go wrong in the next turn, between putting its records and committing them."""
        transactions, consumer = self.worker.transactions, self.worker.consumer
        if fault in ("rebalance", "both"):
            consumer.after = lambda: self.worker.assign(*PLACES)
        if fault in ("failed commit", "both"):
            transactions.fail_at = transactions.commits
        if fault == "new policy":
            self.directory.versions.append(amended(number))
            self.worker.learn(self.directory.versions[-1])
        if fault == "stale":
            self.directory.stale = 2 + number % 4
        if fault == "crash":
            self.start()


def amended(number: int) -> Policy:
    grant = a_grant(version=number + 2, rows=HERE, expires_at=NOON + timedelta(days=number + 2))
    return a_policy(published(grant, value_schema_id=1_000 + number), offset=number + 2)


def first_policy() -> Policy:
    return a_policy(published(a_grant(rows=HERE)))


def expected(made: Iterable[Change]) -> dict[str, list[str | None]]:
    """What a subscriber must have been told of each row, in order: its name, or None for gone."""
    told: dict[str, list[str | None]] = {}
    for at, change in enumerate(made):
        log = told.setdefault(change.code, [])
        if change.city == "3308":
            log.append(f"change {at}")
        elif log and log[-1] is not None:
            log.append(None)
    return {code: log for code, log in told.items() if log}


def delivered(bus: MemoryBus) -> dict[str, list[str | None]]:
    told: dict[str, list[str | None]] = {}
    for _, partition in PLACES:
        for record in bus.logs.get((TOPIC, partition), []):
            row = None if record.value() is None else bus.read(record.value())["name"]
            told.setdefault(bus.read(record.key())["code"], []).append(row)
    return told


@settings(deadline=None, max_examples=150)
@given(
    made=st.lists(changes, min_size=10, max_size=60),
    harm=st.lists(st.tuples(st.integers(0, 12), faults), max_size=8),
)
def test_whatever_goes_wrong_while_one_batch_is_ahead_of_another_each_change_is_told_once_and_in_order(
    made: list[Change], harm: list[tuple[int, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), first_policy())
        world.turn(2)
        due = sorted(harm, key=lambda pair: pair[0])
        for at, change in enumerate(made):
            world.put(change, at)
        for number in range(13):
            for _, fault in (pair for pair in due if pair[0] == number):
                world.harm(fault, number)
            world.turn()

        world.turn(60)

        assert delivered(world.bus) == expected(made)
        # Each transaction under one version; and no version after it was replaced by a later one.
        versions = [{d["version"] for d in decisions(t, world.bus)} for t in world.bus.transactions]
        assert all(len(found) <= 1 for found in versions)
        flat = [version for found in versions for version in found]
        assert flat == sorted(flat)


def test_a_batch_is_worked_out_while_the_one_before_it_is_committed(tmp_path: Path) -> None:
    """Or none of the tests here would look at anything."""
    world = World(tmp_path, first_policy())
    world.turn(2)
    for at in range(40):
        world.put(Change(f"k{at % 6}", "3308" if at % 3 else "1100"), at)

    world.turn(20)

    assert world.ahead >= 6


def test_nothing_is_read_ahead_while_hardly_anything_comes(tmp_path: Path) -> None:
    """A transaction for the last millisecond would cost as much as one for the next hundred records."""
    world = World(tmp_path, first_policy())
    world.put(Change("k0", "3308"), 0)
    world.turn(20)
    before = len(world.bus.transactions)

    for at in range(1, 11):
        world.put(Change("k0", "3308"), at)
        world.turn()

    assert world.ahead == 0
    assert len([one for one in world.bus.transactions[before:] if TOPIC in one]) == 10


def test_nothing_is_worked_out_ahead_where_a_quota_counts(tmp_path: Path) -> None:
    """How far the next batch may go depends on what this one uses, and that is not committed yet."""
    grant = a_grant(rows=HERE, quota_records_per_day=1_000)
    world = World(tmp_path, a_policy(published(grant), resource=a_resource(partitions=2)))
    world.turn(2)
    for at in range(40):
        world.put(Change(f"k{at % 6}", "3308"), at)

    world.turn(30)

    assert world.ahead == 0
    assert sum(map(len, delivered(world.bus).values())) == 40


def test_a_grant_that_expires_between_two_batches_gets_nothing_of_the_second(tmp_path: Path) -> None:
    hours = Hours()
    bus = MemoryBus()
    grant = a_grant(rows=HERE, expires_at=NOON + timedelta(hours=1))
    worker = HandDriven(bus, Policies(a_policy(published(grant))), tmp_path, hours=hours, batch_records=4)
    worker.assign(*PLACES)
    worker.turn(2)
    for at in range(8):
        bus.put(PLACES[0], firm(at, f"k{at}", city="3308"))
    put = worker.transactions.put

    def put_and_wait(topic: str, records: Iterable[Output]) -> None:
        put(topic, records)
        if topic == TOPIC:
            hours.pass_by(timedelta(hours=2))

    worker.transactions.put = put_and_wait  # type: ignore[method-assign]
    worker.turn(10)

    assert len(bus.logs[TOPIC, 0]) == 4
    reasons = [d["reason"] for t in bus.transactions for d in decisions(t, bus) if d["effect"] == "deny"]
    assert reasons, "the second batch was decided after the hour had come"


def test_a_policy_that_comes_while_a_batch_is_committed_decides_the_next_one(tmp_path: Path) -> None:
    """The next one had been worked out under the policy before: the subscriber may not see it any more."""
    world = World(tmp_path, first_policy())
    world.put(Change("k0", "3308"), 0)
    world.turn(20)
    for at in range(1, 9):
        world.put(Change("k0", "3308"), at)
    commit = world.worker.transactions.commit
    before = len(world.bus.transactions)

    def commit_and_revoke(offsets: Sequence[TopicPartition], group: Any) -> None:
        commit(offsets, group)
        if TOPIC in world.bus.transactions[-1]:
            world.directory.versions.append(a_policy(published(revoked), offset=2))

    revoked = a_grant(version=2, rows=HERE, state=GrantState.REVOKED)
    world.worker.transactions.commit = commit_and_revoke  # type: ignore[method-assign]
    world.turn(20)

    assert world.ahead == 1
    assert [len(one[TOPIC]) for one in world.bus.transactions[before:] if TOPIC in one] == [4]


def test_a_rebalance_that_is_noticed_before_the_commit_stops_the_commit(tmp_path: Path) -> None:
    world = World(tmp_path, first_policy())
    for at in range(6):
        world.put(Change(f"k{at}", "3308"), at)
    world.turn(20)
    for at in range(6, 12):
        world.put(Change(f"k{at % 6}", "3308"), at)
    set_back: list[str] = []
    take_back = world.worker.intake._take_back

    def noting(error: RetriableError) -> set[Place]:
        set_back.append(error.code)
        return take_back(error)

    world.worker.intake._take_back = noting  # type: ignore[method-assign]
    world.worker.consumer.after = lambda: world.worker.assign(*PLACES)
    before = len(world.bus.transactions)

    world.turn()

    assert set_back == [RebalancedError.code]
    assert not [one for one in world.bus.transactions[before:] if TOPIC in one]
    world.turn(20)
    assert sum(map(len, delivered(world.bus).values())) == 12
