"""The landing loop, turn by turn: Kafka, the registry and subscriptions on paper, and a real SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError
from prometheus_client import REGISTRY, CollectorRegistry

from govbus.catalogue import ResourceKind
from govbus.codec import Schema, encode, header
from govbus.errors import AccessDeniedError, FencedError, RegistryUnavailableError
from govbus.grant import DataDuty, GrantState
from govbus.observe import RecordHistogram
from govbus_consumers import land
from govbus_consumers.config import parse_config
from govbus_consumers.land import Landing
from govbus_consumers.sink import open_sink
from govbus_consumers.subscriptions import Subscription
from support.landing_doubles import (
    NOON,
    Consumed,
    ConsumerOnPaper,
    ReceiptsOnPaper,
    RegistryOnPaper,
    SubscriptionsOnPaper,
)

FIELDS = [{"name": "code", "type": "string"}, {"name": "name", "type": ["null", "string"]}]
KEY = {"type": "record", "name": "RowKey", "fields": FIELDS[:1]}


class RegistryThatMayBeAway(RegistryOnPaper):
    """Answers only while it is there."""

    away = False
    asked = 0

    def schema(self, schema_id: int) -> Schema:
        self.asked += 1
        if self.away:
            raise RegistryUnavailableError("registry: ConnectError")
        return super().schema(schema_id)


class Bench:
    """One landing and everything around it."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "landed.db"
        self.consumer = ConsumerOnPaper()
        self.subscriptions = SubscriptionsOnPaper()
        self.registry = RegistryThatMayBeAway()
        config = parse_config(
            f"department: quzhou\nsink: sqlite:///{self.database}\n", name="x", environment={}
        )
        self.sink = open_sink(config.sink, clock=lambda: NOON)
        self.receipts = ReceiptsOnPaper()
        self.landing = Landing(
            config,
            consumer=self.consumer,
            subscriptions=self.subscriptions,
            registry=self.registry,  # type: ignore[arg-type]
            sink=self.sink,
            receipts=self.receipts,
            stop=threading.Event(),
            clock=lambda: NOON,
        )

    def grant(self, name: str = "rows", *, version: int = 1, known: bool = True) -> Subscription:
        """Subscribe to a grant's deliveries."""
        says = {"grant": name, "version": version, "purpose": "tests"}
        self.value = self.registry.add(
            {"type": "record", "name": "RowView", "fields": FIELDS, "govbus": says}
        )
        self.key = self.registry.add(KEY)
        subscription = Subscription(
            grant=name,
            version=version,
            state=GrantState.ACTIVE,
            resource="tests.rows",
            topic=f"govbus.delivered.quzhou.{name}",
            partitions=1,
            kind=ResourceKind.STATE,
            value_schema_id=self.value.id if known else 9_999,
            key_schema_id=self.key.id,
            key=("code",),
            data_on_end=DataDuty.DELETE,
            table=name,
        )
        self.subscriptions.new.append(subscription)
        return subscription

    def put(self, subscription: Subscription, *codes: str) -> None:
        """Deliver rows."""
        for code in codes:
            row = {"code": code, "name": "x"}
            self.consumer.add(subscription.topic, encode(self.key, {"code": code}), encode(self.value, row))

    def turn(self, times: int = 12) -> None:
        """Go round the loop so often that whatever is due is done, back-offs aside."""
        for _ in range(times):
            self.landing.turn()

    def wait(self) -> None:
        """Let every back-off pass."""
        self.landing._resume_at = 0.0
        self.landing._not_before.clear()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(statement).fetchall()

    def codes(self, table: str = "rows") -> list[str]:
        """The landed keys in order."""
        return [code for (code,) in self.query(f"SELECT code FROM {table} ORDER BY 1")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.sink.close()


def metric(name: str, labels: Mapping[str, str] | None = None) -> float:
    return REGISTRY.get_sample_value(name, dict(labels or {})) or 0.0


def test_deliveries_land_and_offsets_come_from_the_store(bench: Bench) -> None:
    rows = bench.grant()
    bench.put(rows, *"abcdefgh")
    bench.turn()
    assert bench.codes() == list("abcdefgh")

    bench.consumer.rebalance()
    bench.put(rows, "i")
    bench.turn()

    assert bench.codes() == list("abcdefghi")
    assert bench.consumer.starts == [(rows.topic, -2), (rows.topic, 8)]


def test_what_comes_right_after_a_batch_is_gathered_for_a_moment_and_what_comes_after_a_pause_is_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, waits = 1_000.0, []
    consume = bench.consumer.consume

    def noting(count: int, timeout: float) -> list[Consumed]:
        if count > 1:
            waits.append(round(timeout, 3))
        return consume(count, timeout)

    monkeypatch.setattr(bench.consumer, "consume", noting)
    monkeypatch.setattr(land.time, "monotonic", lambda: now)
    rows = bench.grant()
    bench.turn(3)
    waits.clear()

    for pause, code in ((1.0, "11"), (0.02, "12"), (0.2, "13")):
        now += pause
        bench.put(rows, code)
        bench.landing.turn()

    assert waits == [0.0, 0.03, 0.0]
    assert bench.codes() == ["11", "12", "13"]


def test_what_was_fetched_before_a_rebalance_is_not_taken_for_what_comes_after(bench: Bench) -> None:
    """Records still in the queue when the partition went away would leave a gap behind them."""
    rows = bench.grant()
    bench.put(rows, "a")
    bench.turn()
    bench.put(rows, *"bcd")
    bench.consumer.rebalance()
    bench.consumer.events = bench.consumer.topics[rows.topic][3:]

    bench.turn()

    assert bench.codes() == list("abcd")


def test_a_registry_that_is_away_pauses_landing_and_sets_nothing_aside(bench: Bench) -> None:
    rows = bench.grant()
    bench.turn()
    bench.put(rows, *"abc")
    bench.registry.away = True
    bench.turn()
    assert bench.codes() == []
    assert bench.consumer.reading == {}

    bench.registry.away = False
    bench.wait()
    bench.turn()

    assert bench.codes() == list("abc")
    assert bench.query("SELECT count(*) FROM _govbus_dead_letters") == [(0,)]


def test_an_unknown_schema_is_waited_for_once_and_then_set_aside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(land, "_SCHEMA_PATIENCE_SECONDS", 0.5)
    rows = bench.grant()
    bench.turn()
    for _ in range(9):
        bench.consumer.add(rows.topic, encode(bench.key, {"code": "?"}), header(4_711) + b"\x00")
    bench.put(rows, "z")
    asked = bench.registry.asked

    bench.turn()

    assert bench.codes() == ["z"]
    assert bench.query("SELECT code, count(*) FROM _govbus_dead_letters GROUP BY 1") == [
        ("unknown-schema", 9)
    ]
    assert 2 <= bench.registry.asked - asked <= 6


def test_a_schema_that_the_registry_learns_of_in_time_is_not_set_aside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = bench.grant()
    bench.turn()
    bench.put(rows, "a")
    late = bench.registry.schemas.pop(bench.value.id)
    timer = threading.Timer(0.3, lambda: bench.registry.schemas.update({late.id: late}))
    timer.start()

    bench.turn()
    timer.join()

    assert bench.codes() == ["a"]


def test_a_subscription_whose_schema_is_not_there_does_not_stop_the_others(bench: Bench) -> None:
    bench.grant("early", known=False)
    rows = bench.grant()
    bench.put(rows, "a")

    bench.turn()

    assert bench.codes() == ["a"]


def test_a_writer_that_is_fenced_claims_again_and_goes_on(bench: Bench) -> None:
    rows = bench.grant()
    bench.put(rows, "a")
    bench.turn()
    bench.sink.claim(bench.landing._routes["rows"].table, [0])
    bench.put(rows, "b")
    bench.turn()
    assert bench.codes() == ["a"]

    bench.wait()
    bench.turn()

    assert bench.codes() == ["a", "b"]


def test_a_writer_that_is_fenced_again_and_again_gives_up(bench: Bench) -> None:
    rows = bench.grant()
    bench.put(rows, "a")
    bench.turn()

    def fenced() -> None:
        for number in range(50):
            bench.put(rows, f"{number}")
            bench.turn(3)
            bench.sink.claim(bench.landing._routes["rows"].table, [0])
            bench.wait()

    with pytest.raises(FencedError):
        fenced()


def test_a_grant_that_ends_while_the_store_is_locked_lands_nothing_more_and_is_purged_later(
    bench: Bench,
) -> None:
    rows = bench.grant()
    bench.put(rows, "a")
    bench.turn()
    with closing(sqlite3.connect(bench.database, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        bench.subscriptions.new.append(replace(rows, version=2, state=GrantState.REVOKED))
        bench.turn(2)
        assert metric("govbus_revocations_pending") == 1
        bench.put(rows, "b")
        lock.execute("ROLLBACK")

    bench.wait()
    bench.turn()

    assert bench.codes() == []
    assert bench.query("SELECT rows_before, rows_after FROM _govbus_purges") == [(1, 0)]
    bench.turn()
    assert metric("govbus_revocations_pending") == 0


def test_a_grant_that_is_not_listed_any_more_keeps_its_rows_and_lands_nothing_more(bench: Bench) -> None:
    rows = bench.grant()
    bench.put(rows, "a")
    bench.turn()

    bench.subscriptions.new.append("rows")
    bench.turn()
    bench.put(rows, "b")
    bench.turn()

    assert bench.codes() == ["a"]


def test_a_refused_topic_does_not_stop_the_others(bench: Bench) -> None:
    rows = bench.grant()
    bench.turn()
    bench.consumer.events = [
        Consumed(("govbus.shared.a.b.c", 0), -1, fault=KafkaError.TOPIC_AUTHORIZATION_FAILED)
    ]
    bench.put(rows, "a")

    bench.turn()

    assert bench.codes() == ["a"]


def test_a_refused_group_ends_the_process(bench: Bench) -> None:
    rows = bench.grant()
    bench.turn()
    bench.consumer.events = [Consumed((rows.topic, 0), -1, fault=KafkaError.GROUP_AUTHORIZATION_FAILED)]

    with pytest.raises(AccessDeniedError):
        bench.turn()


def test_a_stored_offset_that_the_topic_has_never_had_means_a_new_topic(bench: Bench) -> None:
    rows = bench.grant()
    bench.put(rows, *"abcdef")
    bench.turn()
    bench.consumer.topics[rows.topic].clear()
    bench.put(rows, "new")
    bench.consumer.events = [Consumed((rows.topic, 0), 6, fault=KafkaError._AUTO_OFFSET_RESET)]

    bench.turn()

    assert bench.codes() == ["new"]


def test_an_offset_that_retention_has_passed_is_read_from_what_is_left(bench: Bench) -> None:
    rows = bench.grant()
    bench.put(rows, *"ab")
    bench.turn()
    bench.put(rows, *"cd")
    bench.consumer.events = [Consumed((rows.topic, 0), 2, fault=KafkaError._AUTO_OFFSET_RESET)]

    bench.turn()

    assert bench.codes() == list("abcd")
    assert bench.consumer.starts[-1] == (rows.topic, -2)


def test_a_batch_is_observed_as_its_records_would_be_one_by_one() -> None:
    amounts = [-1.0, 0.0, 0.1, 0.10001, 1.0, 5.0, 5.0, 7.5]
    together, apart = CollectorRegistry(), CollectorRegistry()
    bounds = (0.1, 1.0, 5.0)
    RecordHistogram("x", "x", ["g"], buckets=bounds, registry=together).labels("g").observe_many(
        Counter(amounts)
    )
    histogram = RecordHistogram("x", "x", ["g"], buckets=bounds, registry=apart).labels("g")

    for amount in amounts:
        histogram.observe(amount)

    def samples(registry: CollectorRegistry) -> list[tuple[str, str, float]]:
        (family,) = registry.collect()
        return [
            (each.name, each.labels.get("le", ""), each.value)
            for each in family.samples
            if not each.name.endswith("_created")
        ]

    assert samples(together) == samples(apart)


def test_what_a_grant_lets_keep_is_landed_although_it_has_ended(bench: Bench) -> None:
    rows = bench.grant()
    bench.put(rows, "a")
    bench.turn()
    bench.put(rows, *"bcdefghijk")
    ended = replace(rows, version=2, state=GrantState.REVOKED, data_on_end=DataDuty.KEEP)
    bench.subscriptions.new.append(ended)

    bench.turn(2)
    early = list(bench.receipts.sent)
    bench.turn()

    assert early == []
    assert bench.codes() == list("abcdefghijk")
    assert [(receipt.rows_after, receipt.duty_done) for receipt in bench.receipts.sent] == [(11, True)]


def test_what_a_purge_takes_is_not_landed_first(bench: Bench) -> None:
    rows = bench.grant()
    bench.put(rows, "a")
    bench.turn()
    bench.put(rows, *"bcdefghijk")
    bench.subscriptions.new.append(replace(rows, version=2, state=GrantState.EXPIRED))

    bench.turn()

    assert bench.codes() == []
    assert [receipt.rows_before for receipt in bench.receipts.sent] == [1]


def test_a_topic_that_is_gone_ends_the_reading_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(land, "_READ_OUT_SECONDS", 0.0)
    rows = bench.grant()
    bench.put(rows, "a")
    bench.turn()
    bench.put(rows, *"bcdefghijk")
    ended = replace(rows, version=2, state=GrantState.REVOKED, data_on_end=DataDuty.KEEP)
    bench.subscriptions.new.append(ended)
    bench.turn(1)
    del bench.consumer.topics[rows.topic]
    bench.consumer._told.add((rows.topic, 0))  # nothing more is heard of its partition, not even its end

    bench.turn()

    assert [receipt.duty_done for receipt in bench.receipts.sent] == [True]


def test_a_receipt_is_sent_again_until_the_bus_has_it_and_then_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(land, "_SEND_AGAIN_SECONDS", 0.0)
    bench.receipts.reachable = False
    rows = bench.grant()
    bench.put(rows, "a")
    bench.turn()
    bench.subscriptions.new.append(replace(rows, version=2, state=GrantState.REVOKED))

    bench.turn(4)
    tried = len(bench.receipts.sent)
    bench.receipts.reachable = True
    bench.turn(4)
    settled = len(bench.receipts.sent)
    bench.turn(4)

    assert tried >= 3
    assert len(set(bench.receipts.sent)) == 1
    assert len(bench.receipts.sent) == settled


def test_a_receipt_that_a_dead_process_left_is_sent_by_the_next(bench: Bench) -> None:
    bench.sink.open()
    bench.sink.end(
        "rows", version=2, state=GrantState.REVOKED, duty=DataDuty.DELETE, by=bench.landing._signatory
    )

    bench.turn()

    assert [(receipt.grant, receipt.version) for receipt in bench.receipts.sent] == [("rows", 2)]
