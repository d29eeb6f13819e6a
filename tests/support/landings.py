"""Landing on a real broker, with a control side and an exchange just large enough to feed it.

Everything is named uniquely per :class:`LandingWorld`, so tests share one broker.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from govbus import topics
from govbus.codec import Registry, Schema, bus_schema, encode
from govbus.settings import BrokerSettings
from govbus_console.cluster import TopicSpec
from govbus_consumers.config import LandConfig, parse_config
from govbus_consumers.land import run
from support.broker import RunningBus

_PROCESS = """
import signal, sys, threading
from pathlib import Path
from govbus.codec import Registry
from govbus.observe import setup_logging
from govbus.settings import BrokerSettings, RegistrySettings
from govbus_consumers.config import load_config
from govbus_consumers.land import run
setup_logging("land")
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
registry = Registry(RegistrySettings().url)
run(load_config(Path(sys.argv[1])), BrokerSettings(), registry, stop=stop)
registry.close()
"""

FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "code", "type": "string"},
    {"name": "name", "type": ["null", "string"], "default": None},
    {"name": "staff", "type": ["null", "int"], "default": None},
)


def eventually(true: Callable[[], Any], *, seconds: float = 30.0, what: str = "") -> Any:
    """Wait until something holds, and return what it gave."""
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until, f"still not so after {seconds} s: {what}"
        time.sleep(0.02)
    return found


@dataclass(frozen=True, kw_only=True)
class Granted:
    """One version of a grant, with what is needed to deliver under it."""

    id: str
    version: int
    topic: str
    partitions: int
    state: str
    duty: str
    table: str
    kind: str
    value: Schema
    key: Schema


class LandProcess:
    """A landing process that a test may kill or freeze."""

    def __init__(self, world: LandingWorld, config: Path) -> None:
        self.log = world.folder / f"land-{uuid.uuid4().hex[:6]}.log"
        settings = world.settings
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROCESS, str(config)],
                env={
                    **os.environ,
                    "GOVBUS_BROKER_BOOTSTRAP": settings.bootstrap,
                    "GOVBUS_BROKER_USER": settings.user,
                    "GOVBUS_BROKER_PASSWORD_FILE": str(settings.password_file),
                    "GOVBUS_REGISTRY_URL": world.bus.registry_url,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self.process.returncode)

    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@dataclass
class LandingWorld:
    """One department with its grants, and the topics that feed its landing."""

    bus: RunningBus
    folder: Path
    fields: Sequence[Mapping[str, Any]] = FIELDS
    key: Sequence[str] = ("code",)
    partitions: int = 1
    _processes: list[LandProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = self.bus.department("land")
        self.department = made.name
        self.settings: BrokerSettings = made.settings
        self.registry = Registry(self.bus.registry_url)
        self.database = self.folder / f"{self.department}.db"
        self.key_file = self.folder / f"{self.department}.receipt-key"
        self.bus.cluster.ensure_topic(TopicSpec.compacted(topics.subscriptions(self.department)))
        self._plain = Producer(self.bus.client(enable_idempotence=True))
        self._writer = Producer(self.bus.client(transactional_id=f"{self.department}.exchange", linger_ms=5))
        self._writer.init_transactions(20)

    def close(self) -> None:
        """End what this world started."""
        for process in self._processes:
            process.stop()
        self.registry.close()

    # The control side

    def grant(
        self,
        name: str = "divisions",
        *,
        version: int = 1,
        state: str = "active",
        duty: str = "delete",
        fields: Sequence[Mapping[str, Any]] | None = None,
        topic: str | None = None,
        table: str | None = None,
        kind: str = "state",
        agreement: Mapping[str, Any] | None = None,
    ) -> Granted:
        """Register schemas, make the topic, and tell the department."""
        topic = topic or topics.delivered(self.department, name)
        self.bus.cluster.ensure_topic(TopicSpec.compacted(topic, partitions=self.partitions))
        if topic.startswith("govbus.shared."):
            self.bus.cluster.allow_read_shared(self.department, topic)
        fields = self.fields if fields is None else fields
        says = agreement or {"grant": name, "version": version, "purpose": "tests"}
        named = {"type": "record", "namespace": "tests"}
        value = {**named, "name": "RowView", "fields": list(fields), "govbus": says}
        key = {**named, "name": "RowKey", "fields": [each for each in fields if each["name"] in self.key]}
        made = Granted(
            id=name,
            version=version,
            topic=topic,
            partitions=self.partitions,
            state=state,
            duty=duty,
            table=table or name.replace("-", "_"),
            kind=kind,
            value=self._registered(f"{topic}-value", value),
            key=self._registered(f"{topic}-key", key),
        )
        self.tell(made)
        return made

    def end(self, granted: Granted, state: str = "revoked") -> Granted:
        """Tell the department that a grant is over."""
        ended = replace(granted, version=granted.version + 1, state=state)
        self.tell(ended)
        return ended

    def tell(self, granted: Granted) -> None:
        """Write one line of the department's subscriptions topic."""
        record = {
            "grant": granted.id,
            "version": granted.version,
            "state": granted.state,
            "resource": "tests.rows",
            "title": "Rows",
            "purpose": "tests",
            "topic": granted.topic,
            "partitions": granted.partitions,
            "kind": granted.kind,
            "value_schema_id": granted.value.id,
            "key_schema_id": granted.key.id,
            "key": list(self.key),
            "expires_at": datetime.now(UTC) + timedelta(days=1),
            "data_on_end": granted.duty,
            "table": granted.table,
        }
        schema = self._registered("tests-subscription", bus_schema("subscription"))
        topic = topics.subscriptions(self.department)
        self._plain.produce(topic, key=granted.id.encode(), value=encode(schema, record))
        assert self._plain.flush(20) == 0

    def _registered(self, subject: str, raw: Mapping[str, Any]) -> Schema:
        # A subject for each: landing goes by ids, and compatibility is not what is tested.
        unique = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()[:12]
        return self.registry.schema(self.registry.register(f"{subject}-{unique}", raw))

    # The exchange

    @contextmanager
    def transaction(self, *, commit: bool = True) -> Iterator[None]:
        """Deliver in one Kafka transaction."""
        self._writer.begin_transaction()
        yield
        if commit:
            self._writer.commit_transaction(20)
        else:
            self._writer.flush(20)
            self._writer.abort_transaction(20)

    def put(self, granted: Granted, *rows: Mapping[str, Any], at: datetime | None = None) -> None:
        """Deliver rows, inside a transaction of the caller's."""
        for row in rows:
            self.deliver(granted, self.key_of(granted, row), encode(granted.value, row), at=at)

    def remove(self, granted: Granted, *codes: str) -> None:
        """Deliver tombstones."""
        for code in codes:
            self.deliver(granted, self.key_of(granted, {"code": code}), None)

    def key_of(self, granted: Granted, row: Mapping[str, Any]) -> bytes:
        """Give the delivered key of a row."""
        return encode(granted.key, {name: row[name] for name in self.key})

    def deliver(
        self, granted: Granted, key: bytes | None, value: bytes | None, *, at: datetime | None = None
    ) -> None:
        """Deliver bytes as they are, to the partition that their key always goes to."""
        moment = {} if at is None else {"timestamp": int(at.timestamp() * 1_000)}
        partition = sum(key or b"") % granted.partitions
        while True:
            try:
                self._writer.produce(granted.topic, key=key, value=value, partition=partition, **moment)
                return
            except BufferError:
                self._writer.poll(0.1)

    def all_at_once(self, granted: Granted, rows: Iterable[Mapping[str, Any]]) -> None:
        """Deliver rows in one transaction."""
        with self.transaction():
            self.put(granted, *rows)

    # Landing

    def config_text(self, sink: str | None = None, tables: Mapping[str, str] | None = None) -> str:
        """What this department's land.yaml says."""
        said = {
            "department": self.department,
            "sink": sink or f"sqlite:///{self.database}",
            "tables": tables or {},
            "receipt_key": str(self.key_file),
        }
        return json.dumps(said, ensure_ascii=False)

    def config(self, sink: str | None = None, tables: Mapping[str, str] | None = None) -> LandConfig:
        """The same, read."""
        return parse_config(self.config_text(sink, tables), name="land.yaml", environment={})

    @contextmanager
    def landing(self, config: LandConfig | None = None) -> Iterator[threading.Thread]:
        """Land in a thread for as long as the block."""
        stop = threading.Event()
        failure: list[BaseException] = []

        def land() -> None:
            try:
                run(config or self.config(), self.settings, self.registry, stop=stop)
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=land, name="land")
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join(30)
        if failure:
            raise failure[0]

    def land_until_it_ends(self, seconds: float = 30.0) -> None:
        """Land in this thread until landing gives up by itself; raises what it raises."""
        stop = threading.Event()
        timer = threading.Timer(seconds, stop.set)
        timer.start()
        try:
            run(self.config(), self.settings, self.registry, stop=stop)
        finally:
            timer.cancel()

    def process(self, sink: str | None = None) -> LandProcess:
        """Land in a process of its own."""
        path = self.folder / "land.yaml"
        path.write_text(self.config_text(sink), encoding="utf-8")
        process = LandProcess(self, path)
        self._processes.append(process)
        return process

    # What has landed

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the department's SQLite file; empty while there is no such table."""
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            try:
                return connection.execute(statement).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def rows(self, table: str = "divisions", columns: str = "code, name, staff") -> list[tuple[Any, ...]]:
        """The landed rows, by code."""
        return self.query(f"SELECT {columns} FROM {table} ORDER BY 1")
