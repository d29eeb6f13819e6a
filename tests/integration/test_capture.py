"""Capture from a department's database onto a real broker, through crashes and outages."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from govbus.errors import AccessDeniedError, SourceUnavailableError, UnknownContractError
from govbus_console.cluster import TopicSpec
from govbus_producers.capture import run
from govbus_producers.config import CaptureConfig, PollMode, TableConfig
from govbus_producers.polling import open_source
from support.broker import RunningBus
from support.capturing import DIVISIONS, Register
from support.published import PublishedResource, ResourceFactory, published_resources, register_contract

TABLE = TableConfig(resource="divisions", table="divisions", interval_seconds=0.05)


@pytest.fixture
def a_resource(bus: RunningBus) -> Iterator[ResourceFactory]:
    with published_resources(bus) as make:
        yield make


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "register.db", [("33", "浙江省"), ("3308", "衢州市"), ("330802", "柯城区")])


def config_of(resource: PublishedResource, state: Path, source: Any, *tables: TableConfig) -> CaptureConfig:
    return CaptureConfig(
        department=resource.owner.name, source=make_url(source), state=state, tables=tables or (TABLE,)
    )


def capture_once(resource: PublishedResource, config: CaptureConfig) -> int:
    return run(config, resource.owner.settings, resource.registry, stop=threading.Event(), once=True)


@contextmanager
def capturing(resource: PublishedResource, config: CaptureConfig) -> Iterator[None]:
    """Run the capture in a thread for as long as the block; its failure is the test's."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run(config, resource.owner.settings, resource.registry, stop=stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert failures == []


def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.1)


def test_a_table_is_captured_and_followed(
    a_resource: ResourceFactory, register: Register, tmp_path: Path
) -> None:
    resource = a_resource()
    config = config_of(resource, tmp_path, register.url)

    with capturing(resource, config):
        eventually(lambda: resource.table() == register.rows())
        register.put("3308", "衢州")
        register.put("3309", "舟山市")
        register.remove("33")
        eventually(lambda: resource.table() == register.rows())

    assert len(resource.records()) == 6


def test_a_restart_publishes_only_what_changed_meanwhile(
    a_resource: ResourceFactory, register: Register, tmp_path: Path
) -> None:
    resource = a_resource()
    config = config_of(resource, tmp_path, register.url)

    assert capture_once(resource, config) == 3
    register.put("3309", "舟山市")
    assert capture_once(resource, config) == 1
    assert capture_once(resource, config) == 0


def test_several_resources_are_captured_by_one_process(
    a_resource: ResourceFactory, register: Register, tmp_path: Path
) -> None:
    resource = a_resource()
    offices = replace(resource, name="offices")
    register_contract(resource.registry, resource.owner.name, "offices", DIVISIONS)
    resource.bus.cluster.ensure_topic(TopicSpec.compacted(offices.topic))
    register.do("CREATE TABLE offices AS SELECT * FROM divisions WHERE code = '33'")
    second = TableConfig(resource="offices", table="offices")

    published = capture_once(resource, config_of(resource, tmp_path, register.url, TABLE, second))

    assert published == 4
    assert set(offices.table()) == {"33"}


def test_a_topic_that_was_made_anew_is_filled_again(
    a_resource: ResourceFactory, register: Register, tmp_path: Path
) -> None:
    """The snapshot says that everything is published; of the new topic that is not true."""
    resource = a_resource()
    config = config_of(resource, tmp_path, register.url)
    capture_once(resource, config)
    resource.bus.cluster.delete_topic(resource.topic)
    resource.bus.cluster.ensure_topic(TopicSpec.compacted(resource.topic))

    capture_once(resource, config)

    assert resource.table() == register.rows()


def test_a_new_version_of_the_contract_republishes_under_it(
    a_resource: ResourceFactory, register: Register, tmp_path: Path
) -> None:
    resource = a_resource()
    config = config_of(resource, tmp_path, register.url)
    capture_once(resource, config)
    wider = json.loads(json.dumps(DIVISIONS))
    wider["govbus"]["version"] = 2
    wider["fields"].append(
        {"name": "version", "type": ["null", "long"], "default": None, "classification": "public"}
    )
    register_contract(resource.registry, resource.owner.name, "divisions", wider)

    capture_once(resource, config)

    assert resource.table()["33"] == {**register.rows()["33"], "version": 1}


def test_a_source_that_is_away_is_waited_for(
    a_resource: ResourceFactory, register: Register, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resource = a_resource()
    config = config_of(resource, tmp_path, register.url)
    away = register.path.with_suffix(".away")

    with capturing(resource, config):
        eventually(lambda: resource.table() == register.rows())
        register.path.rename(away)
        eventually(lambda: "waiting, nothing is lost" in caplog.text)
        away.rename(register.path)
        register.put("3309", "舟山市")
        eventually(lambda: "3309" in resource.table())

    assert "33" in resource.table()


def test_an_outage_is_raised_when_polling_only_once(
    a_resource: ResourceFactory, register: Register, tmp_path: Path
) -> None:
    resource = a_resource()

    with pytest.raises(SourceUnavailableError):
        capture_once(resource, config_of(resource, tmp_path, f"sqlite:///{tmp_path}/nowhere.db"))


def test_a_broker_that_is_away_costs_nothing_but_time(
    a_resource: ResourceFactory, register: Register, tmp_path: Path
) -> None:
    resource = a_resource()
    kafka = resource.bus.embedded.kafka
    assert kafka is not None

    with capturing(resource, config_of(resource, tmp_path, register.url)):
        eventually(lambda: resource.table() == register.rows())
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            register.put("3309", "舟山市")
            register.remove("33")
            time.sleep(2)
            register.put("3309", "舟山")
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        eventually(lambda: resource.table() == register.rows(), 60)


def test_a_resource_without_contract_ends_the_process(
    a_resource: ResourceFactory, register: Register, tmp_path: Path
) -> None:
    resource = a_resource()
    unknown = TableConfig(resource="unknown", table="divisions")

    with pytest.raises(UnknownContractError):
        capture_once(resource, config_of(resource, tmp_path, register.url, unknown))


_CHILD = """
import sys, threading
from pathlib import Path
sys.path.insert(0, {tests!r})
from govbus.codec import Registry
from govbus.settings import BrokerSettings, RegistrySettings
from govbus_producers import polling
from govbus_producers.capture import run
from govbus_producers.config import load_config

polling.BATCH_ROWS = 500
run(load_config(Path({config!r})), BrokerSettings(), Registry(RegistrySettings().url), stop=threading.Event())
"""


def test_a_process_killed_again_and_again_loses_nothing_and_keeps_each_key_in_order(
    a_resource: ResourceFactory, register: Register, tmp_path: Path
) -> None:
    """Each row's level only rises at the source; on the topic it must never fall."""
    resource = a_resource(partitions=2)
    with closing(sqlite3.connect(register.path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executemany(
            "INSERT INTO divisions VALUES (?, 'x', 0, NULL, 1)",
            [(str(code),) for code in range(10_000, 18_000)],
        )
    config = tmp_path / "capture.yaml"
    config.write_text(
        f"department: {resource.owner.name}\nsource: sqlite:///{register.path}\nstate: {tmp_path / 'state'}\n"
        "resources:\n  divisions: {table: divisions, interval_seconds: 0.05}\n"
    )
    settings = resource.owner.settings
    environment = {
        **os.environ,
        "GOVBUS_BROKER_BOOTSTRAP": settings.bootstrap,
        "GOVBUS_BROKER_USER": settings.user,
        "GOVBUS_BROKER_PASSWORD_FILE": str(settings.password_file),
        "GOVBUS_REGISTRY_URL": resource.bus.registry_url,
    }
    child = textwrap.dedent(_CHILD).format(tests=str(Path(__file__).parents[1]), config=str(config))
    chance = random.Random(7)  # noqa: S311 - no secret

    def edit(number: int) -> None:
        with closing(sqlite3.connect(register.path, timeout=30)) as connection, connection:
            connection.execute("UPDATE divisions SET level = level + 1 WHERE code % 7 = ?", (number % 7,))
            connection.execute("DELETE FROM divisions WHERE code = ?", (str(10_000 + number),))

    for round_ in range(4):
        edit(round_ * 10)
        published = _published(resource)
        process = subprocess.Popen([sys.executable, "-c", child], env=environment)
        try:
            # Not before it has come to publishing, or the kill would hit an import.
            eventually(partial(_has_more, resource, published), 60)
            for step in range(1, chance.randint(1, 4)):
                edit(round_ * 10 + step)
                time.sleep(chance.uniform(0.0, 0.3))
            assert process.poll() is None, "the capture ended by itself"
        finally:
            process.kill()
            process.wait()
    capture_once(resource, config_of(resource, tmp_path / "state", register.url))

    assert resource.table() == register.rows()
    levels: dict[str, int] = {}
    for record in resource.records():
        if record.value is not None:
            assert record.value["level"] >= levels.get(record.key["code"], 0)
            levels[record.key["code"]] = record.value["level"]
    assert max(levels.values()) > 0


def _published(resource: PublishedResource) -> int:
    return sum(resource.bus.cluster.end_offsets(resource.topic).values())


def _has_more(resource: PublishedResource, than: int) -> bool:
    return _published(resource) > than


PAYMENTS: dict[str, Any] = {
    "type": "record",
    "name": "Payment",
    "govbus": {"version": 1, "kind": "state", "key": ["code"]},
    "fields": [
        {"name": "code", "type": "long", "classification": "public"},
        {"name": "name", "type": ["null", "string"], "classification": "public"},
        {
            "name": "amount",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
            "classification": "public",
        },
        {"name": "day", "type": {"type": "int", "logicalType": "date"}, "classification": "public"},
        {
            "name": "at",
            "type": {"type": "long", "logicalType": "timestamp-millis"},
            "classification": "public",
        },
        {"name": "paid", "type": "boolean", "classification": "public"},
        {"name": "seal", "type": ["null", "bytes"], "classification": "public"},
        {"name": "guid", "type": "string", "classification": "public"},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "classification": "public"},
    ],
}
PAYMENTS_TABLE = """
CREATE TABLE payments (code numeric(12, 0) PRIMARY KEY, name text, amount numeric(12, 3), day date,
    at timestamptz, paid boolean, seal bytea, guid uuid, tags text[])
"""


@pytest.mark.parametrize("mode", list(PollMode))
def test_postgresql_is_captured_with_its_own_types(
    a_resource: ResourceFactory, postgres_url: str, tmp_path: Path, mode: PollMode
) -> None:
    resource = a_resource(schema=PAYMENTS)
    table = TableConfig(
        resource="divisions",
        table="payments",
        schema="public",
        changed_at="at",
        mode=mode,
        column="at" if mode is PollMode.COLUMN else None,
    )
    config = config_of(resource, tmp_path, postgres_url, table)
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(PAYMENTS_TABLE)
        connection.exec_driver_sql(
            "INSERT INTO payments SELECT n, 'n' || n, n + 0.5, '2024-05-01', '2024-05-01 20:00+08',"
            " mod(n, 2) = 0, '\\x00ff', '12345678-1234-5678-1234-567812345678', '{a,b}'"
            " FROM generate_series(1, 12000) AS n"
        )

    engine.dispose()
    first = capture_once(resource, config)
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE payments SET name = NULL, at = '2024-06-01Z' WHERE code = 5")
        connection.exec_driver_sql("DELETE FROM payments WHERE code = 6")
    second = capture_once(resource, config)
    engine.dispose()

    records = resource.records()
    assert (first, second) == (12_000, 2)
    assert records[1].value == {
        "code": 2,
        "name": "n2",
        "amount": Decimal("2.50"),
        "day": date(2024, 5, 1),
        "at": datetime(2024, 5, 1, 12, tzinfo=UTC),
        "paid": True,
        "seal": b"\x00\xff",
        "guid": "12345678-1234-5678-1234-567812345678",
        "tags": ["a", "b"],
    }
    assert records[1].timestamp_ms == datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp() * 1_000
    assert (records[-2].key["code"], records[-2].value["name"]) == (5, None)
    assert (records[-1].key["code"], records[-1].value) == (6, None)


def test_capture_cannot_write_to_postgresql_and_is_told_of_a_wrong_user(
    a_resource: ResourceFactory, postgres_url: str, tmp_path: Path
) -> None:
    engine = open_source(make_url(postgres_url))
    with engine.connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError, match="read-only"):
        connection.exec_driver_sql("CREATE TABLE t (x int)")
    engine.dispose()

    writer = sqlalchemy.create_engine(postgres_url)
    with writer.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE divisions (code text, name text, level int, parent text)")
        connection.exec_driver_sql("CREATE ROLE stranger LOGIN")
    resource = a_resource()
    stranger = make_url(postgres_url).set(username="stranger")
    try:
        with pytest.raises(AccessDeniedError, match="42501"):
            capture_once(resource, config_of(resource, tmp_path, stranger))
    finally:
        with writer.begin() as connection:
            connection.exec_driver_sql("DROP ROLE stranger")
        writer.dispose()
