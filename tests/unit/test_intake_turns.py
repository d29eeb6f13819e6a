"""The intake: one batch, one policy, one transaction; and what a crash or a failure leaves behind."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from govbus import topics
from govbus.catalogue import ResourceKind
from govbus.codec import unframe
from govbus.grant import GrantState
from govbus_processors.batch import Batch
from govbus_processors.polling import Objects
from govbus_processors.routes import Policy
from support.intakes import HandDriven, Hours, MemoryBus, Policies, decisions
from support.policies import (
    NOON,
    SOURCE,
    VALUE,
    a_grant,
    a_policy,
    a_resource,
    firm,
    gone,
    policy_of,
    published,
)

TOPIC = "govbus.delivered.tax.tax-firms"
PLACES = [(SOURCE, partition) for partition in range(3)]
ONE = (SOURCE, 0)


def versions(count: int, *, amended_every: int) -> list[Policy]:
    """The same grant again and again: renewed, and now and then with another filter."""
    found = []
    for version in range(1, count + 1):
        grant = a_grant(
            version=version,
            expires_at=NOON + timedelta(days=version),
            rows=f"staff <> {version // amended_every}",
        )
        found.append(a_policy(published(grant, value_schema_id=1_000 + 2 * version), offset=version))
    return found


@pytest.mark.parametrize("amended_every", [10_000, 130], ids=["renewed", "renewed and amended"])
def test_no_transaction_holds_records_under_two_versions_of_one_grant(
    tmp_path: Path, amended_every: int
) -> None:
    """The policy changes at every look at it: between slices, between deciding and committing."""
    bus = MemoryBus()
    directory = Policies(*versions(400, amended_every=amended_every), running=True)
    worker = HandDriven(bus, directory, tmp_path, batch_records=200).assign(*PLACES)
    for number in range(90):
        bus.put(PLACES[number % 3], firm(number, f"{number % 50}", staff=number))
        worker.turn()

    worker.turn(30)

    seen = set()
    for transaction in bus.transactions:
        under = {unframe(r.value)[0] for r in transaction.get(TOPIC, []) if r.value is not None}
        told = {(d["version"], d["value_schema_id"]) for d in decisions(transaction, bus)}
        assert len(under) <= 1
        assert len(told) <= 1
        assert under <= {schema_id for _, schema_id in told}
        seen |= under
    assert len(seen) > 10, "the versions hardly changed while records were delivered"
    assert len(bus.table(TOPIC)) == 50


def test_a_worker_reports_the_policy_that_it_has_applied_and_no_later_one(tmp_path: Path) -> None:
    """The revocation barrier counts on it: who reports past a revocation delivers nothing under the grant."""
    bus = MemoryBus()
    worker = HandDriven(bus, Policies(*versions(400, amended_every=10_000), running=True), tmp_path)
    worker.assign(*PLACES)
    for number in range(30):
        bus.put(PLACES[number % 3], firm(number, f"{number}", staff=number))
        worker.turn()

    reported, told = -1, []
    for transaction in bus.transactions:
        applied = {d["version"] for d in decisions(transaction, bus)}
        assert all(version >= reported for version in applied)
        for record in transaction.get(topics.WORKERS, []):
            reported = bus.read(record.value)["grants_offset"]
        if applied:
            told.append((applied, {reported}))

    assert len(told) > 10
    assert [applied for applied, latest in told if applied != latest] == []


class Traffic:
    """One worker under one policy, records of one partition, and a clock in whose time they come."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("govbus_processors.intake.time.monotonic", lambda: self.now)
        self.bus = MemoryBus()
        self.worker = HandDriven(self.bus, Policies(*versions(1, amended_every=10_000)), folder).assign(ONE)
        self._numbers = itertools.count()

    def arrive(self, *, after: float) -> None:
        """A record comes so many seconds later, and the worker takes a turn."""
        self.now += after
        number = next(self._numbers)
        self.bus.put(ONE, firm(number, f"{number}", staff=number))
        self.worker.turn()


@pytest.fixture
def traffic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Traffic:
    return Traffic(tmp_path, monkeypatch)


def test_a_report_goes_with_the_first_output_under_a_policy_and_then_only_now_and_then(
    traffic: Traffic,
) -> None:
    """Every worker reads every report: one in each transaction was a quarter of what a busy one did."""
    for _ in range(30):
        traffic.arrive(after=0.1)

    transactions = traffic.bus.transactions
    assert sum(topics.DECISIONS in transaction for transaction in transactions) > 25
    assert 5 <= sum(topics.WORKERS in transaction for transaction in transactions) <= 8


def test_what_comes_right_after_a_batch_waits_for_more_and_what_comes_after_a_pause_for_nothing(
    traffic: Traffic,
) -> None:
    inlet = traffic.worker.intake._inlet
    fills: list[float] = []

    class Noting(Objects):
        def fetch(self, wait: float, fill: float, limit: int) -> Any:
            fills.append(round(fill, 3))
            return inlet.fetch(wait, fill, limit)

    traffic.worker.turn(3)
    traffic.worker.intake._inlet = Noting(traffic.worker.consumer)  # type: ignore[arg-type]
    for pause in (1.0, 0.02, 0.2):
        traffic.arrive(after=pause)

    assert fills == [0.0, 0.03, 0.0]


def test_what_is_read_in_the_same_call_as_an_assignment_is_not_lost(tmp_path: Path) -> None:
    """A client that has served a rebalance goes on to read, and the caller sees only what was read."""
    bus = MemoryBus()
    policy = a_policy(published(a_grant()))
    first = HandDriven(bus, Policies(policy), tmp_path).assign(*PLACES)
    for number in range(30):
        bus.put(PLACES[number % 3], firm(0, f"k{number}"))
    first.turn(4)
    for number in range(30, 60):
        bus.put(PLACES[number % 3], firm(0, f"k{number}"))

    again = HandDriven(bus, Policies(policy), tmp_path)
    again.turn()
    again.consumer.serve = lambda: again.assign(*PLACES)
    again.turn(5)

    delivered = [bus.read(r.key())["code"] for place in PLACES for r in bus.logs[TOPIC, place[1]]]
    assert sorted(delivered) == sorted(f"k{number}" for number in range(60))


class Lease(Policies):
    """A directory whose policy is confirmed for so many questions, and then no more."""

    def __init__(self, policy: Policy, events: list[str]) -> None:
        super().__init__(policy)
        self.events = events
        self.left = 1_000

    def fresh(self, *, since: float = 0.0) -> bool:
        self.left -= 1
        self.events.append("fresh" if self.left >= 0 else "stale")
        return self.left >= 0


@pytest.mark.parametrize("holds_for", range(6))
def test_nothing_is_committed_unless_the_lease_holds_after_it_was_decided(
    tmp_path: Path, holds_for: int
) -> None:
    """It may run out at any moment of a turn; what was not delivered then is, when it holds again."""
    bus = MemoryBus()
    events: list[str] = []
    lease = Lease(a_policy(published(a_grant())), events)
    worker = HandDriven(bus, lease, tmp_path).assign(ONE)
    decide, commit = worker.intake._submit, worker.transactions.commit

    def decided(batch: Batch) -> None:
        events.append("decided")
        decide(batch)

    def committed(offsets: Sequence[TopicPartition], group: object) -> None:
        if TOPIC in worker.transactions._open:
            events.append("delivered")
        commit(offsets, group)

    worker.intake._submit = decided
    worker.transactions.commit = committed  # type: ignore[method-assign]
    worker.turn(2)
    bus.put(ONE, firm(0, "A"))

    lease.left = holds_for
    worker.turn()
    out = events.count("delivered")
    lease.left = 1_000
    worker.turn(3)

    assert events.count("delivered") == 1, "and not again, where it was delivered before"
    assert out == 0 or holds_for > 0
    since = events[: events.index("delivered")][::-1]
    asked = since[: since.index("decided")]
    assert asked, "the lease was not asked for between decision and commit"
    assert set(asked) == {"fresh"}


def test_bringing_a_new_grant_on_leaves_live_batches_the_larger_share(tmp_path: Path) -> None:
    """A backlog of 400 records, eight a batch: other grants get what comes in the turn in which it comes."""
    bus = MemoryBus()
    first = published(a_grant())
    late = published(a_grant(id="late", subscriber="late"), value_schema_id=300)
    worker = HandDriven(bus, Policies(a_policy(first)), tmp_path, batch_records=8).assign(ONE)
    for number in range(400):
        bus.put(ONE, firm(0, f"k{number}"))
    worker.turn(60)
    directory = Policies(a_policy(first, late, offset=2))
    worker = HandDriven(bus, directory, tmp_path, batch_records=8).assign(ONE)
    worker.turn(2)
    brought_on = lambda: len(bus.logs.get(("govbus.delivered.late.late", 0), []))  # noqa: E731

    stretches = []
    for number in range(30):
        before = brought_on()
        bus.put(ONE, firm(0, f"new{number}"))
        worker.turn()
        assert bus.read(bus.logs[TOPIC, 0][-1].key())["code"] == f"new{number}"
        stretches.append(brought_on() - before)

    assert set(stretches) == {4}, "half of what a live batch may hold"
    assert brought_on() < 400
    worker.turn(200)
    assert bus.table("govbus.delivered.late.late").keys() == bus.table(TOPIC).keys()


class Calls:
    """Counts the calls of, and from, the exchange's own functions: work, not time."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_call") and Path(frame.f_code.co_filename).parent.name in _COUNTED:
            self.count += 1


_COUNTED = {"govbus_processors", "govbus"}


def among(others: int, *, filtered: bool) -> Policy:
    """The policy of one grant among others on other resources, fifty on each."""
    mine = published(a_grant())
    resources = {a_resource().ref: a_resource()}
    grants = {mine.grant.grant.id: mine.grant}
    schemas = {VALUE.id: VALUE.raw} | mine.schemas
    for number in range(others):
        resource = a_resource(name=f"other-{number // 50}")
        resources[resource.ref] = resource
        grant = a_grant(
            id=f"other-{number}",
            subscriber=f"dep{number % 50}",
            resource=resource.name,
            rows=f"staff > {number}" if filtered else None,
        )
        made = published(grant, value_schema_id=1_000 + number)
        grants[grant.id] = made.grant
        schemas |= made.schemas
    return policy_of(resources.values(), grants.values(), schemas)


def rest(worker: HandDriven) -> None:
    """Let nothing be due by the clock in the next turn."""
    worker.intake._measured_at = worker.intake._reported_at = worker.intake._looked_at = float("inf")
    worker.intake._look_at = float("inf")
    worker.intake._behind_seen = None
    worker.intake._behind(worker.intake._directory.policy, NOON)


def calls_for_a_batch(folder: Path, policy: Policy) -> int:
    """The work of one live batch of a worker that serves every resource of a policy."""
    bus = MemoryBus()
    for source in policy.resources:
        bus.append((source, 0), firm(0, "A").key(), firm(0, "A").value())
    worker = HandDriven(bus, Policies(policy), folder, batch_records=100)
    worker.assign(*[(source, 0) for source in policy.resources])
    worker.turn(2)
    while worker.intake._loader or len(bus.committed) < len(policy.resources):
        worker.turn()
    assert len(bus.logs[TOPIC, 0]) == 1
    for number in range(50):
        bus.put(ONE, firm(0, f"k{number}"))
    rest(worker)
    with Calls() as calls:
        worker.turn()
    assert len(bus.logs[TOPIC, 0]) == 51
    return calls.count


@pytest.mark.parametrize(("others", "filtered"), [(10_000, False), (1_000, True)])
def test_a_batch_costs_the_same_among_ten_and_ten_thousand_grants_on_other_resources(
    tmp_path: Path, others: int, filtered: bool
) -> None:
    """All served by one worker; counted in calls, so a busy machine cannot make it fail or pass."""
    few = calls_for_a_batch(tmp_path, among(10, filtered=filtered))
    many = calls_for_a_batch(tmp_path, among(others, filtered=filtered))

    assert few > 10
    assert many == few


def test_three_hundred_subscribers_of_one_view_cost_one_copy_and_the_work_of_one(tmp_path: Path) -> None:
    def cost(subscribers: int) -> tuple[int, int]:
        shared = [
            published(a_grant(id=f"g{n}", subscriber=f"dep{n}"), shared=True) for n in range(subscribers)
        ]
        bus = MemoryBus()
        worker = HandDriven(bus, Policies(a_policy(*shared)), tmp_path).assign(ONE)
        worker.turn(2)
        bus.put(ONE, firm(0, "first"))  # with it, the guard looks at every grant of the route, once
        worker.turn()
        for number in range(50):
            bus.put(ONE, firm(0, f"k{number}"))
        rest(worker)
        with Calls() as calls:
            worker.turn()
        delivered = [r for place, log in bus.logs.items() if "shared" in place[0] for r in log]
        return len(delivered), calls.count

    copies, work = cost(300)

    assert copies == 51
    assert work < 1.05 * cost(1)[1]


def suspended(grant_policy: Policy) -> Policy:
    """The same policy after its only grant was suspended."""
    (route,) = grant_policy.routes[SOURCE]
    grant = replace(route.first.grant, version=2, state=GrantState.SUSPENDED)
    still = replace(route, grants=(replace(route.first, grant=grant),))
    return replace(
        grant_policy,
        offset=grant_policy.offset + 1,
        routes={SOURCE: (still,)},
        deliveries={still.topic: still},
    )


class Forgotten:
    """A subscriber that was suspended for longer than its source keeps deletions."""

    def __init__(
        self, folder: Path, rows: str | None, *, away: timedelta = timedelta(days=30), **quota: int
    ) -> None:
        self.folder = folder
        self.bus = MemoryBus()
        self.hours = Hours()
        self.active = a_policy(published(a_grant(rows=rows, **quota)))
        first = self.worker(self.active)
        self.bus.put(ONE, firm(0, "out", city="1100"))
        for number in range(30):
            self.bus.put(ONE, firm(0, f"k{number}"))
        first.turn(10)
        before = len(self.bus.table(TOPIC))
        assert before == (30 if rows else 31)
        self.worker(suspended(self.active)).turn(2)
        self.bus.put(ONE, firm(0, "seen"))
        self.worker(suspended(self.active)).turn(3)
        for number in range(0, 30, 2):
            self.bus.put(ONE, gone(0, f"k{number}"))
        self.bus.put(ONE, firm(0, "k1", name="changed"))
        self.bus.put(ONE, firm(0, "new"))
        self.bus.compact(ONE)
        self.worker(suspended(self.active)).turn(3)
        self.hours.pass_by(away)
        self.expected = {f"k{number}" for number in range(1, 30, 2)} | {"new", "seen"}
        self.expected |= set() if rows else {"out"}

    def worker(self, policy: Policy) -> HandDriven:
        """A worker that begins with what the bus remembers."""
        return HandDriven(self.bus, Policies(policy), self.folder, hours=self.hours, batch_records=8).assign(
            ONE
        )

    def tombstones(self) -> list[str]:
        """The rows that were taken away, each as often as it was."""
        return [self.bus.read(r.key())["code"] for r in self.bus.logs[TOPIC, 0] if r.value() is None]


ROWS = pytest.mark.parametrize("rows", [None, "city = '3308'"], ids=["whole table", "filtered"])


@ROWS
def test_what_the_source_forgot_while_a_grant_was_suspended_is_taken_away(
    tmp_path: Path, rows: str | None
) -> None:
    world = Forgotten(tmp_path, rows)

    world.worker(world.active).turn(40)

    assert set(world.bus.table(TOPIC)) == world.expected
    assert world.bus.table(TOPIC)["k1"]["name"] == "changed"
    assert sorted(world.tombstones()) == sorted(f"k{number}" for number in range(0, 30, 2))


@ROWS
@pytest.mark.parametrize("crash_after", range(2, 16))
@pytest.mark.parametrize("how", ["crash", "failed commit"])
def test_a_sweep_that_is_cut_short_anywhere_takes_each_row_away_once(
    tmp_path: Path, rows: str | None, crash_after: int, how: str
) -> None:
    world = Forgotten(tmp_path, rows)
    worker = world.worker(world.active)

    if how == "crash":
        while worker.transactions.commits < crash_after and worker.transactions.commits < 12:
            worker.turn()
        worker = world.worker(world.active)
    else:
        worker.transactions.fail_at = crash_after
    worker.turn(60)

    assert set(world.bus.table(TOPIC)) == world.expected
    assert sorted(world.tombstones()) == sorted(f"k{number}" for number in range(0, 30, 2))


@ROWS
def test_a_swept_route_is_live_again_and_knows_who_holds_what(tmp_path: Path, rows: str | None) -> None:
    world = Forgotten(tmp_path, rows)
    worker = world.worker(world.active)
    worker.turn(40)

    world.bus.put(ONE, gone(0, "k0"))
    world.bus.put(ONE, firm(0, "k2"))
    world.bus.put(ONE, gone(0, "k1"))
    worker.turn(3)

    assert set(world.bus.table(TOPIC)) == world.expected - {"k1"} | {"k2"}
    if rows is not None:
        assert world.tombstones().count("k0") == 1, "it was not held any more"
    stored = [world.bus.read(r.value()) for r in world.bus.logs[topics.PROGRESS, 0]]
    assert (stored[-1]["live"], stored[-1]["sweep_before"], stored[-1]["behind_since"]) == (True, 0, None)


@ROWS
@pytest.mark.parametrize("replaced", [False, True], ids=["same worker", "another worker"])
@pytest.mark.parametrize("quota", ["quota_records_per_day", "quota_keys_per_day"])
def test_what_a_sweep_takes_away_counts_towards_the_quota_and_goes_on_the_next_day(
    tmp_path: Path, rows: str | None, replaced: bool, quota: str
) -> None:
    """31 a day: 17 or 18 rows are delivered again, then as many are taken away as are left of the day."""
    world = Forgotten(tmp_path, rows, **{quota: 31})
    shown = len(world.expected)
    before = len(world.bus.logs[TOPIC, 0])
    worker = world.worker(world.active)

    worker.turn(60)

    assert len(world.bus.logs[TOPIC, 0]) - before == 31
    assert len(world.tombstones()) == 31 - shown < 15
    worker.turn(20)
    assert len(world.tombstones()) == 31 - shown
    if replaced:
        worker = world.worker(world.active)
        worker.turn(20)
        assert len(world.tombstones()) == 31 - shown, "another worker knows what was used"
    world.hours.pass_by(timedelta(days=1))
    worker.intake._behind_seen = None  # or it notices within half a second
    worker.turn(60)
    assert set(world.bus.table(TOPIC)) == world.expected
    assert sorted(world.tombstones()) == sorted(f"k{number}" for number in range(0, 30, 2))
    stored = [world.bus.read(r.value()) for r in world.bus.logs[topics.PROGRESS, 0]]
    assert (stored[-1]["live"], stored[-1]["sweep_before"]) == (True, 0)


class Away:
    """A subscriber whose exchange did not run for a while; its grant was live all the time."""

    def __init__(self, folder: Path, rows: str | None, *, kind: ResourceKind = ResourceKind.STATE) -> None:
        self.folder = folder
        self.bus = MemoryBus()
        self.hours = Hours()
        self.policy = a_policy(published(a_grant(rows=rows)), resource=a_resource(kind=kind))
        for number in range(30):
            self.bus.put(ONE, firm(0, f"k{number}"))
        worker = self.worker()
        worker.turn(10)
        worker.look_for_ends()
        assert len(self.bus.table(TOPIC)) == 30

    def worker(self) -> HandDriven:
        """A worker that begins with what the bus remembers."""
        return HandDriven(
            self.bus, Policies(self.policy), self.folder, hours=self.hours, batch_records=8
        ).assign(ONE)

    def half_are_deleted(self, *, forgotten: bool) -> None:
        """What the owner does meanwhile."""
        for number in range(0, 30, 2):
            self.bus.put(ONE, gone(0, f"k{number}"))
        self.bus.put(ONE, firm(0, "new"))
        if forgotten:
            self.bus.compact(ONE)

    def tombstones(self) -> list[str]:
        """The rows that were taken away, each as often as it was."""
        return [self.bus.read(r.key())["code"] for r in self.bus.logs[TOPIC, 0] if r.value() is None]

    def delivered_since(self, before: int) -> list[str]:
        """The keys that were delivered after so many records, in order."""
        return [self.bus.read(r.key())["code"] for r in self.bus.logs[TOPIC, 0][before:]]


LEFT = {f"k{number}" for number in range(1, 30, 2)}
DELETED = sorted(f"k{number}" for number in range(0, 30, 2))


@ROWS
@pytest.mark.parametrize("crash_after", range(12))
def test_what_the_source_forgot_while_no_exchange_ran_is_taken_away_also_after_a_crash(
    tmp_path: Path, rows: str | None, crash_after: int
) -> None:
    """A worker ends after so many transactions, and the next one has to know what the first found out."""
    world = Away(tmp_path, rows)
    world.half_are_deleted(forgotten=True)
    world.hours.pass_by(timedelta(days=8))

    first = world.worker()
    for _ in range(40):
        if first.transactions.commits >= crash_after:
            break
        first.turn()
        first.look_for_ends()
    world.worker().turn(60)

    assert set(world.bus.table(TOPIC)) == LEFT | {"new"}
    assert sorted(world.tombstones()) == DELETED


def test_rows_are_taken_away_also_when_nothing_is_left_to_read(tmp_path: Path) -> None:
    """The owner has deleted and done nothing else: no batch comes, and yet something was missed."""
    world = Away(tmp_path, None)
    for number in range(0, 30, 2):
        world.bus.put(ONE, gone(0, f"k{number}"))
    world.bus.compact(ONE)
    world.hours.pass_by(timedelta(days=8))

    world.worker().turn(60)

    assert set(world.bus.table(TOPIC)) == LEFT
    assert sorted(world.tombstones()) == DELETED


@pytest.mark.parametrize("days", [1, 5])
def test_an_exchange_that_was_away_for_a_shorter_time_delivers_nothing_again(
    tmp_path: Path, days: int
) -> None:
    world = Away(tmp_path, None)
    before = len(world.bus.logs[TOPIC, 0])
    world.half_are_deleted(forgotten=False)
    world.hours.pass_by(timedelta(days=days))

    world.worker().turn(60)

    assert world.delivered_since(before) == [f"k{number}" for number in range(0, 30, 2)] + ["new"]


def test_nothing_is_delivered_again_where_nothing_was_written_meanwhile(tmp_path: Path) -> None:
    """However long it was: a partition that has not grown has lost nothing that was not read."""
    world = Away(tmp_path, None)
    before = len(world.bus.logs[TOPIC, 0])
    world.hours.pass_by(timedelta(days=100))

    world.worker().turn(60)

    assert world.delivered_since(before) == []


def test_a_resource_that_was_quiet_for_long_is_not_taken_for_one_that_nobody_read(tmp_path: Path) -> None:
    """No batch says that it is read: the workers say so now and then."""
    world = Away(tmp_path, None)
    before = len(world.bus.logs[TOPIC, 0])
    worker = world.worker()
    for _ in range(100):
        world.hours.pass_by(timedelta(hours=6))
        worker.turn()
        worker.look_for_ends()
    world.half_are_deleted(forgotten=False)

    world.worker().turn(60)

    assert world.delivered_since(before) == [f"k{number}" for number in range(0, 30, 2)] + ["new"]


def test_an_exchange_that_is_behind_for_long_is_not_taken_for_one_that_reads(tmp_path: Path) -> None:
    """It runs, and never gets to what was the end when it looked: time alone does not make it current."""
    world = Away(tmp_path, None)
    worker = world.worker()
    world.half_are_deleted(forgotten=False)
    world.hours.pass_by(timedelta(days=1))
    for place in worker.consumer.positions:
        worker.consumer.positions[place] = 10**6  # the broker gives it nothing
    worker.look_for_ends()
    world.hours.pass_by(timedelta(days=7))
    worker.look_for_ends()
    world.bus.compact(ONE)

    world.worker().turn(60)

    assert set(world.bus.table(TOPIC)) == LEFT | {"new"}


def test_events_are_not_delivered_again_after_a_long_absence(tmp_path: Path) -> None:
    world = Away(tmp_path, None, kind=ResourceKind.EVENT)
    before = len(world.bus.logs[TOPIC, 0])
    world.bus.put(ONE, firm(0, "new"))
    world.hours.pass_by(timedelta(days=100))

    worker = world.worker()
    worker.turn(60)
    world.bus.put(ONE, firm(0, "newer"))
    worker.turn(3)

    assert world.delivered_since(before) == ["new", "newer"]


def test_rows_are_taken_away_also_when_the_broker_has_forgotten_the_offset(tmp_path: Path) -> None:
    """A broker keeps the offsets of a group that nobody is a member of for a while, and then does not."""
    world = Away(tmp_path, None)
    world.half_are_deleted(forgotten=True)
    world.bus.committed.clear()
    world.bus.notes.clear()

    world.worker().turn(60)

    assert set(world.bus.table(TOPIC)) == LEFT | {"new"}
    assert sorted(world.tombstones()) == DELETED


def days_until_live(world: MemoryBus, worker: HandDriven, hours: Hours, *, at_most: int) -> list[int]:
    """How much was delivered on each day, until the grant takes part in the live stream."""
    found = []
    while not found or not worker.intake._cursors._cursors[TOPIC, 0].live:
        assert len(found) < at_most
        before = len(world.logs.get((TOPIC, 0), []))
        worker.turn(40)
        found.append(len(world.logs[TOPIC, 0]) - before)
        hours.pass_by(timedelta(days=1))
        worker.intake._behind_seen = None  # or it notices within half a second
    return found


def test_a_grant_that_its_quota_keeps_behind_for_weeks_gets_there(tmp_path: Path) -> None:
    """After six days it begins again, as the source may have forgotten deletions; then it goes through."""
    bus, hours = MemoryBus(), Hours()
    policy = a_policy(published(a_grant(quota_records_per_day=3)))
    worker = HandDriven(bus, Policies(policy), tmp_path, hours=hours, batch_records=8).assign(ONE)
    for number in range(40):
        bus.put(ONE, firm(0, f"k{number}"))
    worker.turn(10)
    bus.put(ONE, gone(0, "k0"))
    bus.compact(ONE)

    days = days_until_live(bus, worker, hours, at_most=40)

    assert max(days) == 3
    assert set(bus.table(TOPIC)) == {f"k{number}" for number in range(1, 40)}
    assert [bus.read(r.key())["code"] for r in bus.logs[TOPIC, 0] if r.value() is None] == ["k0"]


def test_events_that_a_quota_keeps_back_for_weeks_arrive_once_and_in_order(tmp_path: Path) -> None:
    bus, hours = MemoryBus(), Hours()
    policy = a_policy(
        published(a_grant(quota_records_per_day=3)), resource=a_resource(kind=ResourceKind.EVENT)
    )
    worker = HandDriven(bus, Policies(policy), tmp_path, hours=hours, batch_records=8).assign(ONE)
    for number in range(40):
        bus.put(ONE, firm(0, f"k{number}"))
    worker.turn(10)

    days = days_until_live(bus, worker, hours, at_most=16)

    assert max(days) == 3
    assert [bus.read(r.key())["code"] for r in bus.logs[TOPIC, 0]] == [f"k{number}" for number in range(40)]


def test_a_row_that_comes_back_while_the_sweep_goes_on_stays(tmp_path: Path) -> None:
    world = Forgotten(tmp_path, None)
    worker = world.worker(world.active)
    while not worker.intake._sweeps:
        worker.turn()
    world.bus.put(ONE, firm(0, "k0", name="back"))

    worker.turn(40)

    assert world.bus.table(TOPIC)["k0"]["name"] == "back"
    assert set(world.bus.table(TOPIC)) == world.expected | {"k0"}


def test_a_grant_that_was_suspended_for_a_short_time_goes_on_where_it_stood(tmp_path: Path) -> None:
    world = Forgotten(tmp_path, None, away=timedelta(days=1))
    before = len(world.bus.logs[TOPIC, 0])

    world.worker(world.active).turn(40)

    again = [world.bus.read(r.key())["code"] for r in world.bus.logs[TOPIC, 0][before:]]
    assert sorted(again) == ["k1", "new", "seen"]
