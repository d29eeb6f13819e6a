"""Revoking returns when nothing more can be delivered: reported, fenced, or gone, and never before."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from govbus import topics
from govbus.codec import bus_schema, encode, parse_schema
from govbus.errors import BrokerUnavailableError, GrantRefusedError
from govbus.grant import DataDuty, GrantState
from govbus_console.acls import shared_acl
from govbus_console.control import barrier, lifecycle, outbox
from govbus_console.control.bus import set_up
from govbus_console.keeper import keep
from support.broker import RunningBus, unique_name
from support.control import ControlSide, read_all

LEASE = 2.0


class PretendedWorker:
    """Reports as an exchange worker does, and says what it is told to say."""

    def __init__(self, control: ControlSide, *, grants_offset: int = -1, lease: float = LEASE) -> None:
        self.name = unique_name("pretended")
        self.grants_offset = grants_offset
        self._control = control
        self._lease = lease
        set_up(control.bus)
        registry = control.bus.registry
        self._schema = parse_schema(registry.latest(f"{topics.WORKERS}-value").id, bus_schema("worker"))
        self._producer = Producer(
            control.running.client(transactional_id=f"govbus.exchange.{self.name}", linger_ms=0)
            | {"log_level": 0}
        )
        self._producer.init_transactions(20)
        self._silent = threading.Event()
        self._thread = threading.Thread(target=self._report_often, daemon=True)

    def report(self, *, stopping: bool = False, commit: bool = True) -> None:
        """Send one report, in a transaction of its own."""
        self._producer.begin_transaction()
        record = {
            "worker": self.name,
            "held": [],
            "transactional_id": f"govbus.exchange.{self.name}",
            "grants_offset": self.grants_offset,
            "lease_seconds": self._lease,
            "partitions": 0,
            "reported_at": datetime.now(UTC),
            "stopping": stopping,
        }
        self._producer.produce(topics.WORKERS, key=self.name, value=encode(self._schema, record))
        self._producer.flush(10)
        if commit:
            self._producer.commit_transaction(10)

    def commit(self) -> None:
        """Commit what :meth:`report` left open."""
        self._producer.commit_transaction(10)

    def start(self) -> None:
        """Report now, and about every tenth of a second from now on."""
        self.report()
        self._thread.start()

    def leave(self) -> None:
        """Report no more, and say so."""
        self._silent.set()
        self._thread.join()
        self.report(stopping=True)

    def _report_often(self) -> None:
        while not self._silent.wait(0.1):
            self.report()


@pytest.fixture
def control(bus: RunningBus, tmp_path: Path) -> Iterator[ControlSide]:
    side = ControlSide(bus, tmp_path)
    forget_workers(side)
    yield side
    side.close()


def forget_workers(control: ControlSide) -> None:
    """Take off the list whom other tests have killed: the barrier would wait for them."""
    if topics.WORKERS not in control.bus.cluster.topics():
        return
    producer = Producer(control.bus.broker.client())
    for name in listed(control):
        producer.produce(topics.WORKERS, key=name.encode(), value=None)
    assert producer.flush(20) == 0


def end_of_grants(control: ControlSide) -> int:
    return control.bus.cluster.end_offsets(topics.GRANTS)[0]


def listed(control: ControlSide) -> set[str]:
    """Workers whose last record on the topic is a report."""
    latest = {m.key().decode(): m.value() for m in read_all(control.running.client(), topics.WORKERS)}
    return {name for name, value in latest.items() if value is not None}


def test_without_workers_the_barrier_is_passed_at_once(control: ControlSide) -> None:
    control.apply()

    passed = barrier.wait(control.bus, end_of_grants(control))

    assert (passed.confirmed, passed.fenced) == ((), ())


def test_a_worker_that_reports_the_offset_lets_the_barrier_pass(control: ControlSide) -> None:
    worker = PretendedWorker(control, grants_offset=5, lease=10.0)
    worker.start()
    threading.Timer(1.0, lambda: setattr(worker, "grants_offset", 10)).start()

    passed = barrier.wait(control.bus, 10, silent_seconds=30.0)

    worker.leave()
    assert (passed.confirmed, passed.fenced) == ((worker.name,), ())
    assert passed.seconds >= 0.9


def test_a_worker_behind_is_waited_for_while_it_reports_and_its_lease_runs(control: ControlSide) -> None:
    """It may be in the middle of a batch that it decided before the revocation."""
    worker = PretendedWorker(control, grants_offset=9, lease=10.0)
    worker.start()
    passed: list[barrier.Passed] = []
    waiting = threading.Thread(target=lambda: passed.append(barrier.wait(control.bus, 10, silent_seconds=5)))
    waiting.start()

    time.sleep(3)
    too_early = list(passed)
    worker.grants_offset = 10
    waiting.join(30)

    worker.leave()
    assert too_early == []
    assert passed[0].confirmed == (worker.name,)


def test_a_worker_that_reports_and_stays_behind_does_not_hold_up_the_barrier(control: ControlSide) -> None:
    """It cannot read the policy on; whatever it still has open when its lease is over is aborted."""
    worker = PretendedWorker(control, grants_offset=9, lease=LEASE)
    worker.report()
    stop = threading.Event()
    refused: list[KafkaException] = []

    def go_on_reporting() -> None:
        while not stop.wait(0.1):
            try:
                worker.report()
            except KafkaException as error:
                refused.append(error)
                return

    reporting = threading.Thread(target=go_on_reporting)
    reporting.start()

    passed = barrier.wait(control.bus, 10, silent_seconds=1.0)

    reporting.join(10)
    stop.set()
    assert passed.fenced == (worker.name,)
    assert LEASE <= passed.seconds < LEASE + 5
    assert "fenced" in str(refused[0])


def test_a_silent_worker_is_fenced_and_its_lease_waited_for(control: ControlSide) -> None:
    worker = PretendedWorker(control, grants_offset=3)
    worker.report()

    passed = barrier.wait(control.bus, 10, silent_seconds=0.5)

    assert passed.fenced == (worker.name,)
    assert passed.seconds >= LEASE
    with pytest.raises(KafkaException, match="fenced"):
        worker.report()


def test_what_a_frozen_worker_holds_open_never_becomes_visible(control: ControlSide) -> None:
    """Frozen between its check and its commit: the check is old, so the commit must fail."""
    worker = PretendedWorker(control, grants_offset=3)
    worker.report()
    worker.report(commit=False)

    passed = barrier.wait(control.bus, 10, silent_seconds=0.5)

    with pytest.raises(KafkaException, match="fenced"):
        worker.commit()
    assert passed.fenced == (worker.name,)


def test_a_frozen_worker_does_not_hide_the_reports_of_the_others(control: ControlSide) -> None:
    frozen = PretendedWorker(control, grants_offset=3)
    frozen.report(commit=False)
    well = PretendedWorker(control, grants_offset=10, lease=10.0)
    well.start()

    passed = barrier.wait(control.bus, 10, silent_seconds=1.5)

    well.leave()
    assert (passed.confirmed, passed.fenced) == ((well.name,), (frozen.name,))


def test_a_worker_that_said_goodbye_is_not_waited_for(control: ControlSide) -> None:
    worker = PretendedWorker(control, grants_offset=3, lease=10.0)
    worker.report(stopping=True)

    passed = barrier.wait(control.bus, 10, silent_seconds=30.0)

    assert (passed.confirmed, passed.fenced) == ((), ())


def test_the_next_revocation_does_not_wait_for_a_worker_that_is_gone(control: ControlSide) -> None:
    gone = PretendedWorker(control, grants_offset=3)
    gone.report()

    first = barrier.wait(control.bus, 10, silent_seconds=0.2)
    still_there = gone.name in listed(control)
    second = barrier.wait(control.bus, 11, silent_seconds=0.2)

    assert first.seconds >= LEASE
    assert not still_there
    assert second.seconds < LEASE


def test_a_revoked_grant_is_published_enforced_and_then_told(control: ControlSide) -> None:
    control.apply()
    worker = PretendedWorker(control, lease=10.0)
    worker.start()
    seen: list[int] = []

    def follow() -> None:
        """Do what a worker does: read the policy, then report it; not before the subscriber was looked at."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            states = [version["state"] for version in control.policy(control.health_grant)]
            if states == ["active", "revoked"]:
                seen.append(len(control.told(control.health)))
                worker.grants_offset = end_of_grants(control)
                return

    following = threading.Thread(target=follow)
    following.start()
    changed = lifecycle.revoke(
        control.health_grant, control.store, control.bus, who="tester", why="a test", data=DataDuty.KEEP
    )
    following.join()

    worker.leave()
    assert seen == [1], "the subscriber was told before nothing more could arrive"
    assert changed.settled.barriers[0].confirmed == (worker.name,)
    last = control.told(control.health)[-1]
    assert (last["state"], last["version"], last["data_on_end"]) == ("revoked", 2, "keep")


def test_revoking_a_shared_grant_closes_the_topic_to_that_department_only(control: ControlSide) -> None:
    control.write(share_type="unconditional")
    control.apply()
    topic = control.policy(control.tax_grant)[0]["delivery_topic"]

    lifecycle.revoke(control.tax_grant, control.store, control.bus, who="tester", why="a test")

    assert shared_acl(control.tax, topic) not in control.bus.cluster.acls(control.tax)
    assert shared_acl(control.health, topic) in control.bus.cluster.acls(control.health)


def test_a_revocation_that_was_cut_short_is_carried_through(
    control: ControlSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.apply()

    def unplugged(*_: object, **__: object) -> barrier.Passed:
        raise BrokerUnavailableError("pulled the plug")

    monkeypatch.setattr(barrier, "wait", unplugged)
    with pytest.raises(BrokerUnavailableError, match="plug"):
        lifecycle.revoke(control.health_grant, control.store, control.bus, who="tester", why="a test")
    told_too_early = [told["state"] for told in control.told(control.health)]
    monkeypatch.undo()

    again = lifecycle.revoke(control.health_grant, control.store, control.bus, who="tester", why="again")

    assert told_too_early == ["active"]
    assert (again.already, again.grant.version) == (True, 2)
    assert [told["state"] for told in control.told(control.health)] == ["active", "revoked"]
    assert outbox.pending(control.store) == 0


def test_a_suspended_grant_can_be_resumed_and_a_revoked_one_cannot(control: ControlSide) -> None:
    control.apply()
    name, store, bus = control.health_grant, control.store, control.bus

    lifecycle.suspend(name, store, bus, who="tester", why="a test")
    resumed = lifecycle.resume(name, store, bus, who="tester", why="a test")
    lifecycle.revoke(name, store, bus, who="tester", why="a test")

    assert resumed.settled.barriers == ()
    assert [v["state"] for v in control.policy(name)] == ["active", "suspended", "active", "revoked"]
    with pytest.raises(GrantRefusedError, match="is revoked and stays so"):
        lifecycle.resume(name, store, bus, who="tester", why="a test")
    with pytest.raises(GrantRefusedError, match="there is no grant"):
        lifecycle.revoke("no-such-grant", store, bus, who="tester", why="a test")


def test_a_grant_whose_term_is_over_is_recorded_and_told(control: ControlSide) -> None:
    control.apply()
    later = datetime.now(UTC) + timedelta(days=31)

    ended = lifecycle.expire_due(control.store, control.bus, now=later)
    again = lifecycle.expire_due(control.store, control.bus, now=later)

    assert set(ended) == {control.health_grant, control.tax_grant}
    assert again == []
    assert [told["state"] for told in control.told(control.tax)] == ["active", "expired"]


def test_the_keeper_ends_a_term_and_closes_its_shared_topic(control: ControlSide) -> None:
    """Nobody gives a command: the clock does it."""
    ends = datetime.now(UTC) + timedelta(seconds=20)
    control.write(share_type="unconditional", change=("term_days: 30", f"expires_at: {ends.isoformat()}"))
    control.apply()
    topic = control.policy(control.tax_grant)[0]["delivery_topic"]
    open_before = shared_acl(control.tax, topic) in control.bus.cluster.acls(control.tax)
    stop = threading.Event()
    keeping = threading.Thread(target=keep, args=(control.store, control.bus), kwargs={"stop": stop})

    keeping.start()
    while datetime.now(UTC) < ends + timedelta(seconds=30) and outbox_is_behind(control):
        time.sleep(0.2)
    stop.set()
    keeping.join()

    assert open_before
    assert shared_acl(control.tax, topic) not in control.bus.cluster.acls(control.tax)
    assert [told["state"] for told in control.told(control.tax)] == ["active", "expired"]


def outbox_is_behind(control: ControlSide) -> bool:
    """Whether the term has not been recorded, or Kafka has not been told."""
    states = {stored.grant.state for stored in control.store.snapshot().grants.values()}
    return states != {GrantState.EXPIRED} or outbox.pending(control.store) > 0
