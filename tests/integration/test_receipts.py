"""From revocation to receipt, on a real broker: rows as promised, the topic gone, the rest goes on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer

from govbus import topics
from govbus.codec import bus_schema, encode, parse_schema
from govbus.grant import DataDuty, GrantState
from govbus.receipt import SignedReceipt, receipt_from_record, receipt_to_record
from govbus_console import render
from govbus_console.acls import Acl, Kind, Operation
from govbus_console.control import endings, lifecycle, receipts
from govbus_consumers.config import parse_config
from govbus_consumers.land import run
from govbus_consumers.receipts import load_key
from support.broker import RunningBus
from support.control import ControlSide, read_all
from support.exchanges import World
from support.landings import eventually

pytestmark = pytest.mark.broker

_DYING = """
import os, signal, sys, threading
from pathlib import Path
from govbus.codec import Registry
from govbus.settings import BrokerSettings, RegistrySettings
from govbus_consumers import receipts
from govbus_consumers.config import load_config
from govbus_consumers.land import run
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def die_once_acknowledged(self):
    if self._producer is not None and self._producer.flush(20) == 0:
        die()
    return []
if sys.argv[2] == "before":
    receipts.ReceiptSender.send = die
else:
    receipts.ReceiptSender.acknowledged = die_once_acknowledged
registry = Registry(RegistrySettings().url)
run(load_config(Path(sys.argv[1])), BrokerSettings(), registry, stop=threading.Event())
"""


class Subscriber:
    """The health commission of a control side, which lands what the test delivers to it."""

    def __init__(self, control: ControlSide) -> None:
        self.control = control
        self.name = control.health
        self.database = control.folder / "health.db"
        self.key_file = control.folder / "health.receipt-key"
        said = {
            "department": self.name,
            "sink": f"sqlite:///{self.database}",
            "receipt_key": str(self.key_file),
        }
        self.file = control.folder / "land.yaml"
        self.file.write_text(json.dumps(said), encoding="utf-8")
        self._config = parse_config(json.dumps(said), name="land.yaml", environment={})

    def deliver(self, grant: str, *codes: str) -> None:
        """Put residents on a grant's delivery topic, as the exchange would."""
        published = self.control.store.snapshot().grants[grant].published
        registry = self.control.bus.registry
        value, key = registry.schema(published.value_schema_id), registry.schema(published.key_schema_id)
        producer = Producer(self.control.running.client(enable_idempotence=True))
        for code in codes:
            row = {"id_number": code, "street": f"street {code}"}
            row = {field["name"]: row[field["name"]] for field in value.raw["fields"]}
            producer.produce(
                published.delivery_topic,
                key=encode(key, {"id_number": code}),
                value=encode(value, row),
                partition=len(code) % 2,
            )
        assert producer.flush(20) == 0

    @contextmanager
    def landing(self) -> Iterator[None]:
        """Land in a thread for as long as the block."""
        stop = threading.Event()
        failure: list[BaseException] = []

        def land() -> None:
            try:
                run(
                    self._config,
                    self.control.running.settings(self.name),
                    self.control.bus.registry,
                    stop=stop,
                )
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=land, name="land")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)
        if failure:
            raise failure[0]

    def land_and_be_killed(self, when: str) -> int:
        """Land in a process that is killed when it has dealt with the rows: before it sends, or after."""
        settings = self.control.running.settings(self.name)
        dying = subprocess.run(
            [sys.executable, "-c", _DYING, str(self.file), when],
            env={
                **os.environ,
                "GOVBUS_BROKER_BOOTSTRAP": settings.bootstrap,
                "GOVBUS_BROKER_USER": self.name,
                "GOVBUS_BROKER_PASSWORD_FILE": str(settings.password_file),
                "GOVBUS_REGISTRY_URL": self.control.running.registry_url,
            },
            timeout=60,
            check=False,
        )
        return dying.returncode

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the department's store; empty while there is no such table."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            try:
                return connection.execute(statement).fetchall()
            except sqlite3.OperationalError:
                return []

    def rows(self, grant: str) -> list[tuple[Any, ...]]:
        return self.query(f'SELECT id_number, street FROM "{grant.replace("-", "_")}" ORDER BY 1')

    def sent(self) -> list[SignedReceipt]:
        """What stands on the department's receipts topic."""
        found = read_all(self.control.running.client(), topics.receipts(self.name))
        return [receipt_from_record(self.control.bus.registry.decode(each.value())) for each in found]

    def send(self, signed: SignedReceipt, user: str | None = None) -> KafkaError | None:
        """Put a receipt on the department's topic, as anybody; gives the broker's refusal."""
        registry = self.control.bus.registry
        topic = topics.receipts(self.name)
        schema = parse_schema(registry.latest(f"{topic}-value").id, bus_schema("receipt"))
        errors: list[KafkaError | None] = []
        producer = Producer(
            self.control.running.client(user or self.name, message_timeout_ms=10_000) | {"log_level": 0}
        )
        producer.produce(
            topic,
            value=encode(schema, receipt_to_record(signed)),
            on_delivery=lambda error, _: errors.append(error),
        )
        producer.flush(20)
        return errors[0]


@pytest.fixture
def health(control: ControlSide) -> Subscriber:
    """Health has two grants: one that ends, and one that goes on."""
    lines = control.file.read_text(encoding="utf-8").replace(
        f"  - id: {control.tax_grant}\n    subscriber: {control.tax}",
        f"  - id: {control.tax_grant}\n    subscriber: {control.health}",
    )
    control.file.write_text(lines, encoding="utf-8")
    control.apply()
    return Subscriber(control)


def own_topic(control: ControlSide) -> str:
    return topics.delivered(control.health, control.health_grant)


def is_there(control: ControlSide) -> bool:
    return own_topic(control) in control.bus.cluster.topics()


def end(control: ControlSide, duty: DataDuty) -> None:
    lifecycle.revoke(control.health_grant, control.store, control.bus, who="tester", why="a test", data=duty)


def conclude(control: ControlSide, seconds: float = 30.0) -> receipts.Standing:
    found = endings.conclude(control.health_grant, control.store, control.bus, wait_seconds=seconds)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("duty", "left"),
    [
        (DataDuty.DELETE, []),
        (DataDuty.BLANK, [("1", None), ("22", None)]),
        (DataDuty.KEEP, [("1", "street 1"), ("22", "street 22")]),
    ],
)
def test_a_revoked_grant_is_dealt_with_answered_and_its_topic_gone_while_others_go_on(
    control: ControlSide, health: Subscriber, duty: DataDuty, left: Sequence[tuple[str, str | None]]
) -> None:
    literal = Acl(
        principal=control.health, kind=Kind.TOPIC, name=own_topic(control), operation=Operation.READ
    )
    control.bus.cluster.ensure_acls([literal])
    with health.landing():
        health.deliver(control.health_grant, "1", "22")
        health.deliver(control.tax_grant, "1")
        eventually(lambda: len(health.rows(control.health_grant)) == 2, what="the rows")

        end(control, duty)
        standing = conclude(control)
        health.deliver(control.tax_grant, "22")
        eventually(lambda: len(health.rows(control.tax_grant)) == 2, what="the other grant goes on")

    assert (standing.status, standing.duty) == ("answered", duty)
    assert standing.answer is not None
    assert (standing.answer.rows_before, standing.answer.rows_after) == (2, len(left))
    assert health.rows(control.health_grant) == left
    assert [signed.signed_by(load_key(health.key_file).public) for signed in health.sent()] == [True]
    assert not is_there(control)
    assert literal not in control.bus.cluster.acls(control.health)
    assert control.apply().plan.pending is False
    assert not is_there(control), "applying again has brought the topic back"


def test_what_may_be_kept_is_landed_before_its_topic_goes(control: ControlSide, health: Subscriber) -> None:
    with health.landing():
        health.deliver(control.health_grant, "1")
        eventually(lambda: health.rows(control.health_grant), what="the first row")
    health.deliver(control.health_grant, "22", "333", "4444")
    end(control, DataDuty.KEEP)
    unanswered = conclude(control, seconds=0.0)
    stays = is_there(control)

    with health.landing():
        standing = conclude(control)

    assert (unanswered.status, stays) == ("not answered", True)
    assert standing.answered
    assert [code for code, _ in health.rows(control.health_grant)] == ["1", "22", "333", "4444"]
    assert not is_there(control)


def test_a_purge_needs_no_topic(control: ControlSide, health: Subscriber) -> None:
    """The department is away when its grant ends; what it may not have is gone from the bus at once."""
    with health.landing():
        health.deliver(control.health_grant, "1")
        eventually(lambda: health.rows(control.health_grant), what="the row")
    health.deliver(control.health_grant, "22")
    end(control, DataDuty.DELETE)
    conclude(control, seconds=0.0)
    gone = not is_there(control)

    with health.landing():
        standing = conclude(control)

    assert gone
    assert standing.answered
    assert health.rows(control.health_grant) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_landing_that_is_killed_between_purge_and_receipt_answers_once(
    control: ControlSide, health: Subscriber, when: str
) -> None:
    with health.landing():
        health.deliver(control.health_grant, "1", "22")
        eventually(lambda: len(health.rows(control.health_grant)) == 2, what="the rows")
    end(control, DataDuty.DELETE)

    code = health.land_and_be_killed(when)
    purged = health.rows(control.health_grant)
    noted = health.query("SELECT rows_before FROM _govbus_receipts WHERE answered_at IS NULL")
    with health.landing():
        standing = conclude(control)
        eventually(
            lambda: not health.query("SELECT 1 FROM _govbus_receipts WHERE answered_at IS NULL"),
            what="the department knows that it has answered",
        )

    assert (code, purged, noted) == (-signal.SIGKILL, [], [(2,)])
    assert standing.answered
    assert standing.answer is not None
    assert standing.answer.rows_before == 2
    sent = health.sent()
    assert len(sent) == (1 if when == "before" else 2)
    assert len(set(sent)) == 1, "the same receipt, whoever sends it"


def test_a_forged_receipt_is_refused(control: ControlSide, health: Subscriber) -> None:
    """By the broker, when another department sends it; by control, when the department's login does."""
    key, others = load_key(health.key_file), load_key(control.folder / "tax.receipt-key")
    receipts.enrol(
        control.store, control.health, key.public.hex(), who="li", why="by courier", now=datetime.now(UTC)
    )
    health.deliver(control.health_grant, "1")
    end(control, DataDuty.DELETE)
    with health.landing():
        eventually(health.sent, what="the true receipt")
    (true,) = health.sent()
    with control.store.locked() as session:
        # As if the true one were still to come: only what follows it is read.
        session.get_one(receipts.ReceiptSourceRow, control.health).next_offset = 1

    foreign = health.send(others.sign(true.receipt), user=control.tax)
    found = []
    for forged in (
        others.sign(true.receipt),
        replace(true, receipt=replace(true.receipt, rows_before=7)),
    ):
        assert health.send(forged) is None
        found.append(conclude(control, seconds=0.0).status)
    assert health.send(true) is None
    found.append(conclude(control, seconds=0.0).status)

    assert foreign is not None
    assert foreign.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert found == ["unknown-key", "bad-signature", "answered"]


def test_a_term_that_is_over_is_answered_like_a_revocation(control: ControlSide, health: Subscriber) -> None:
    later = datetime.now(UTC) + timedelta(days=31)
    with health.landing():
        health.deliver(control.health_grant, "1")
        eventually(lambda: health.rows(control.health_grant), what="the row")

        lifecycle.expire_due(control.store, control.bus, now=later)
        standing = conclude(control)

    assert (standing.state, standing.status) == (GrantState.EXPIRED, "answered")
    assert health.rows(control.health_grant) == []
    assert not is_there(control)


def test_the_command_says_who_has_answered_and_exits_with_3_when_somebody_has_not(
    control: ControlSide, health: Subscriber, run: Callable[..., tuple[int, Any]]
) -> None:
    revoked, told = run("revoke", control.health_grant, "--wait", "0", "--data", "delete")
    topic_is_gone, _ = run("tail", control.health_grant)
    missing, before = run("receipts")
    with health.landing():
        eventually(health.sent, what="the receipt")
        done, after = run("receipts", "--department", control.health)
    _, key = run("receipt-key", control.health)

    assert (revoked, told["receipt"]["status"]) == (render.DONE, "not answered")
    assert topic_is_gone == render.FAILED
    assert (missing, before["missing"]) == (render.PENDING, 1)
    assert (done, after["receipts"][0]["status"]) == (render.DONE, "answered")
    assert key["pinned"] == load_key(health.key_file).public.hex()


def test_exchange_workers_go_on_when_the_topic_of_an_ended_grant_is_gone(
    bus: RunningBus, tmp_path: Path
) -> None:
    world = World(bus.embedded, tmp_path)
    try:
        ended, _ = world.publish(world.new_grant("ended", rows="staff = 7"))
        other, _ = world.publish(world.new_grant("other", rows="staff = 7"))
        worker = world.worker()
        world.put("A")
        world.flush()
        eventually(lambda: world.rows(ended.delivery_topic), seconds=90, what="the first delivery")
        _, offset = world.again(ended, state=GrantState.REVOKED)
        eventually(lambda: world.reported_offset(worker) >= offset, seconds=60, what="the barrier")
        world.cluster.delete_topic(ended.delivery_topic)

        world.put("B")
        world.remove("A")
        world.flush()
        eventually(lambda: set(world.table(other.delivery_topic)) == {"B"}, seconds=60, what="the others")
        code = worker.stop()
        again = world.worker("again")
        world.put("C")
        world.flush()
        eventually(
            lambda: set(world.table(other.delivery_topic)) == {"B", "C"}, seconds=90, what="a new worker"
        )

        assert code == 0
        assert again.process.poll() is None
        for log in (worker.output(), again.output()):
            assert '"error"' not in log
            assert ended.delivery_topic not in log
        assert ended.delivery_topic not in world.cluster.topics()
    finally:
        world.close()
