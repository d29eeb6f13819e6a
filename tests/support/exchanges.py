"""The exchange on a real broker, with a control side just large enough to publish grants.

Everything is named uniquely per :class:`World`, so tests share one broker. The
exchange workers are real processes; a world ends those that it started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from govbus import topics
from govbus.catalogue import Resource, ResourceKind, ShareType
from govbus.codec import Registry, Schema, bus_schema, encode, parse_schema
from govbus.contract import DataContract, parse_contract
from govbus.grant import (
    Grant,
    GrantState,
    PublishedGrant,
    grant_key,
    grant_to_record,
    resource_key,
    resource_to_record,
)
from govbus.policy import view_id
from govbus.view import key_schema, view_schema
from govbus_console.cluster import Cluster, TopicSpec
from govbus_console.embedded.bus import EmbeddedBus
from support.policies import CONTRACT_TEXT, rules

_WORKER = """
import sys
from govbus.observe import setup_logging
from govbus.settings import BrokerSettings, ProcessSettings, RegistrySettings
from govbus_processors.app import run
setup_logging("exchange-" + sys.argv[1])
sys.exit(run(sys.argv[1], BrokerSettings(), RegistrySettings(), ProcessSettings()))
"""


def eventually(true: Callable[[], Any], *, seconds: float = 90.0, what: str = "") -> Any:
    """Wait until something holds, and return what it gave."""
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until, f"still not so after {seconds} s: {what}"
        time.sleep(0.05)
    return found


class WorkerProcess:
    """One exchange worker, as a process that the test may kill or freeze."""

    def __init__(
        self, world: World, name: str, environment: Mapping[str, str], script: str = _WORKER
    ) -> None:
        self.name = name
        self.log = world.folder / f"{name}-{uuid.uuid4().hex[:6]}.log"
        settings = world.bus.broker_settings("exchange")
        self._file = self.log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, name],
            env={
                **os.environ,
                "GOVBUS_BROKER_BOOTSTRAP": settings.bootstrap,
                "GOVBUS_BROKER_USER": "exchange",
                "GOVBUS_BROKER_PASSWORD_FILE": str(settings.password_file),
                "GOVBUS_HOME": str(world.folder),
                "GOVBUS_REGISTRY_URL": world.bus.endpoints.registry_url,
                "GOVBUS_EXCHANGE_PSEUDONYM_SECRET_FILE": str(world.secret_file),
                **environment,
            },
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        """Send a signal to this worker."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()
        self._file.close()
        return self.process.returncode

    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


class World:
    """A resource with its grants on a shared broker."""

    def __init__(self, bus: EmbeddedBus, folder: Path, *, partitions: int = 1, kind: str = "state") -> None:
        self.bus = bus
        self.folder = folder
        self.tag = "t" + uuid.uuid4().hex[:8]
        self.owner = f"{self.tag}-registrar"
        self.partitions = partitions
        self.cluster = Cluster(bus.broker_settings().client())
        self.registry = Registry(bus.endpoints.registry_url)
        self.secret_file = folder / "pseudonym.secret"
        self.secret_file.write_text("s" * 64)
        self.workers: list[WorkerProcess] = []
        self._producer = Producer(bus.broker_settings().client(enable_idempotence=True, linger_ms=5))
        self.contract = self._contract(kind)
        self._set_up_bus()
        self.resource = self._set_up_resource()

    def _contract(self, kind: str) -> DataContract:
        text = json.loads(CONTRACT_TEXT)
        text["govbus"] |= {"partitions": self.partitions, "kind": kind}
        return parse_contract(json.dumps(text), owner=self.owner, resource="firms")

    def _set_up_bus(self) -> None:
        for name in (topics.GRANTS, topics.WORKERS, topics.PROGRESS):
            self.cluster.ensure_topic(TopicSpec.compacted(name))
        self.cluster.ensure_topic(TopicSpec.retained(topics.DECISIONS, retention_ms=-1))
        self.cluster.ensure_user("exchange", self.bus.home.password("exchange"))
        self.cluster.allow_exchange()
        for topic, name in (
            (topics.DECISIONS, "decision"),
            (topics.WORKERS, "worker"),
            (topics.PROGRESS, "progress"),
        ):
            self.registry.register(f"{topic}-value", bus_schema(name))
        self._grant_schema = self._registered(f"{topics.GRANTS}-grant", bus_schema("grant"))
        self._resource_schema = self._registered(f"{topics.GRANTS}-resource", bus_schema("resource"))

    def _registered(self, subject: str, raw: Mapping[str, Any]) -> Schema:
        return parse_schema(self.registry.register(subject, raw), raw)

    @property
    def source(self) -> str:
        """The captured topic."""
        return topics.captured(self.owner, "firms")

    @property
    def dead_letter_topic(self) -> str:
        return topics.dead_letter(self.owner, "firms")

    def _set_up_resource(self) -> Resource:
        self.cluster.ensure_topic(TopicSpec.compacted(self.source, partitions=self.partitions))
        self.cluster.ensure_topic(TopicSpec.retained(self.dead_letter_topic, retention_ms=-1))
        self.registry.register(f"{self.dead_letter_topic}-value", bus_schema("dead-letter"))
        self.value = self._registered(f"{self.source}-value", self.contract.schema)
        self.key = self._registered(f"{self.source}-key", self.contract.key_schema)
        resource = Resource(
            owner=self.owner,
            name="firms",
            title="Firms",
            share_type=ShareType.CONDITIONAL,
            kind=ResourceKind(self.contract.kind),
            contract_version=1,
            key=("code",),
            partitions=self.partitions,
            value_schema_id=self.value.id,
            key_schema_id=self.key.id,
        )
        self.say(resource_key(resource.ref), encode(self._resource_schema, resource_to_record(resource)))
        return resource

    def say(self, key: bytes, value: bytes | None) -> int:
        """Publish on ``govbus.grants`` and return the offset."""
        offsets: list[int] = []
        self._producer.produce(
            topics.GRANTS, key=key, value=value, on_delivery=lambda _e, m: offsets.append(m.offset())
        )
        self._producer.flush(20)
        return offsets[0]

    def new_grant(self, name: str = "tax", **changes: Any) -> Grant:
        """A grant of this world's resource; nothing is published yet."""
        given: dict[str, Any] = {
            "id": f"{self.tag}-{name}",
            "version": 1,
            "state": GrantState.ACTIVE,
            "subscriber": f"{self.tag}-{name}",
            "owner": self.owner,
            "resource": "firms",
            "fields": rules("code", "name"),
            "rows": None,
            "purpose": "assessment",
            "starts_at": datetime.now(UTC) - timedelta(days=1),
            "expires_at": datetime.now(UTC) + timedelta(days=365),
        }
        return Grant(**given | changes)

    def publish(self, grant: Grant) -> tuple[PublishedGrant, int]:
        """Do what control does for a grant version; returns it with its offset on ``govbus.grants``."""
        topic = topics.delivered(grant.subscriber, grant.id)
        self.cluster.ensure_topic(TopicSpec.compacted(topic, partitions=self.partitions))
        value_id = self.registry.register(f"{topic}-value-{grant.version}", view_schema(grant, self.contract))
        keys = key_schema(grant, self.contract)
        key_id = self.key.id if keys is None else self.registry.register(f"{topic}-key", keys)
        published = PublishedGrant(
            grant=grant,
            view=view_id(grant, 1),
            delivery_topic=topic,
            value_schema_id=value_id,
            key_schema_id=key_id,
        )
        record = encode(self._grant_schema, grant_to_record(published))
        return published, self.say(grant_key(grant.id), record)

    def again(self, published: PublishedGrant, **changes: Any) -> tuple[PublishedGrant, int]:
        """Publish the next version of a grant with changes."""
        grant = replace(published.grant, version=published.grant.version + 1, **changes)
        return self.publish(grant)

    def worker(self, name: str = "w", *, first: str = "", **environment: str) -> WorkerProcess:
        """Start an exchange worker; ``first`` is Python that its process runs before."""
        worker = WorkerProcess(self, f"{self.tag}-{name}", environment, first + _WORKER)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        """End what this world started, and leave nothing for later workers to serve."""
        for worker in self.workers:
            worker.stop()
        self.say(resource_key(self.resource.ref), None)
        del self._producer
        self.registry.close()

    # ---- records ----

    def put(self, code: str, partition: int = 0, **fields: Any) -> None:
        """Produce a firm as it is after a change."""
        row = {"code": code, "name": f"name of {code}", "city": "3308", "staff": 7} | fields
        self.put_bytes(encode(self.key, {"code": code}), encode(self.value, row), partition)

    def remove(self, code: str, partition: int = 0) -> None:
        """Produce a deletion."""
        self.put_bytes(encode(self.key, {"code": code}), None, partition)

    def put_bytes(
        self, key: bytes | None, value: bytes | None, partition: int = 0, *, timestamp_ms: int = 0
    ) -> None:
        """Produce anything."""
        while True:
            try:
                self._producer.produce(
                    self.source, key=key, value=value, partition=partition, timestamp=timestamp_ms
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def flush(self) -> None:
        """Wait until everything produced is acknowledged."""
        assert self._producer.flush(30) == 0

    def read(self, topic: str, *, isolation: str = "read_committed") -> list[Any]:
        """All records of a topic, partition by partition, as committed now."""
        return list(self._read(topic, isolation))

    def _read(self, topic: str, isolation: str) -> Iterator[Any]:
        consumer = Consumer(
            self.bus.broker_settings().client(
                group_id=f"reader-{uuid.uuid4().hex}",
                enable_auto_commit=False,
                isolation_level=isolation,
                auto_offset_reset="earliest",
                enable_partition_eof=True,
            )
        )
        try:
            parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in parts])
            open_parts = set(parts)
            while open_parts:
                for message in consumer.consume(1_000, timeout=1.0):
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        open_parts.discard(message.partition())
                    else:
                        raise AssertionError(error.name())
        finally:
            consumer.close()

    def rows(self, topic: str) -> list[tuple[str, dict[str, Any] | None]]:
        """What a subscriber reads: key and row, in order."""
        return [
            (
                self.registry.decode(message.key())["code"],
                None if message.value() is None else self.registry.decode(message.value()),
            )
            for message in self.read(topic)
        ]

    def table(self, topic: str) -> dict[str, dict[str, Any]]:
        """The subscriber's table: the last row of each key that is not gone."""
        held: dict[str, dict[str, Any]] = {}
        for code, row in self.rows(topic):
            held.pop(code, None)
            if row is not None:
                held[code] = row
        return held

    def reported_offset(self, worker: WorkerProcess) -> int:
        """The policy offset in a worker's last committed report."""
        found = -2
        for message in self.read(topics.WORKERS):
            if message.key().decode() == worker.name:
                found = self.registry.decode(message.value())["grants_offset"]
        return found
