"""A control side of one's own on the shared broker: store, catalogue file, commands."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from govbus import topics
from govbus.codec import Registry
from govbus.errors import RejectedRecordError
from govbus_console.control.apply import Applied, apply_file
from govbus_console.control.bus import Bus
from govbus_console.control.store import ControlStore
from support.broker import RunningBus, unique_name

CONTRACT: dict[str, Any] = {
    "type": "record",
    "name": "Resident",
    "govbus": {"version": 1, "kind": "state", "key": ["id_number"], "partitions": 2},
    "fields": [
        {"name": "id_number", "type": "string", "classification": "internal"},
        {"name": "name", "type": "string", "classification": "internal"},
        {"name": "street", "type": "string", "classification": "internal"},
    ],
}

CATALOGUE = """\
departments:
  - {{name: {owner}, title: Civil affairs}}
  - {{name: {health}, title: Health commission}}
  - {{name: {tax}, title: Tax office}}
resources:
  - ref: {owner}.residents
    title: Residents
    share_type: {share_type}
grants:
  - id: {health}-residents
    subscriber: {health}
    resource: {owner}.residents
    fields: [id_number, street]
    rows: all
    purpose: {purpose}
    term_days: 30
  - id: {tax}-residents
    subscriber: {tax}
    resource: {owner}.residents
    fields: [id_number, street]
    rows: all
    purpose: Assessment
    term_days: 30
"""


@cache
def _registry(url: str) -> Registry:
    """One for all tests: its connections stay open."""
    return Registry(url)


class ControlSide:
    """A catalogue of its own, with department names that no other test uses."""

    def __init__(self, running: RunningBus, folder: Path) -> None:
        self.folder = folder
        self.running = running
        self.bus = Bus(running.settings(), running.cluster, _registry(running.registry_url), running.home)
        self.store = ControlStore.open(f"sqlite:///{folder / 'control.db'}")
        self.owner, self.health, self.tax = (unique_name(stem) for stem in ("civil", "health", "tax"))
        self.health_grant = f"{self.health}-residents"
        self.tax_grant = f"{self.tax}-residents"
        self.file = folder / "catalogue.yaml"
        self.write()

    def write(
        self,
        *,
        share_type: str = "conditional",
        purpose: str = "Vaccination",
        contract: dict[str, Any] = CONTRACT,
        change: tuple[str, str] = ("", ""),
    ) -> None:
        """Write the catalogue file and its contract."""
        text = CATALOGUE.format(
            owner=self.owner, health=self.health, tax=self.tax, share_type=share_type, purpose=purpose
        )
        if change[0]:
            assert change[0] in text
            text = text.replace(*change)
        self.file.write_text(text, encoding="utf-8")
        place = self.folder / "avro_schemas" / self.owner / "residents.avsc"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(contract), encoding="utf-8")

    def apply(self, *, after: timedelta = timedelta()) -> Applied:
        """Apply the file as it is now."""
        return apply_file(
            self.file, self.store, self.bus, who="tester", why="a test", now=datetime.now(UTC) + after
        )

    def records(self, topic: str) -> list[tuple[str, dict[str, Any] | None]]:
        """Key and decoded value of every committed record, in order; the key as text.

        Keys of deliveries are framed Avro: what of them is no text is written as escapes. Without what
        cannot be read: other tests put such records on the bus's own topics.
        """
        found: list[tuple[str, dict[str, Any] | None]] = []
        for message in read_all(self.running.client(), topic):
            key = (message.key() or b"").decode("utf-8", "backslashreplace")
            try:
                found.append((key, message.value() and self.bus.registry.decode(message.value())))
            except RejectedRecordError:
                continue
        return found

    def policy(self, name: str) -> list[dict[str, Any]]:
        """Every version of a grant, or of a resource, that ``govbus.grants`` holds, oldest first."""
        return [
            value
            for key, value in self.records(topics.GRANTS)
            if key in (f"grant/{name}", f"resource/{name}") and value is not None
        ]

    def told(self, department: str) -> list[dict[str, Any]]:
        """What a department has been told, oldest first."""
        return [value for _, value in self.records(topics.subscriptions(department)) if value is not None]

    def environment(self) -> dict[str, str]:
        """The settings with which a command means this store and this bus, as the administrator."""
        broker = self.bus.broker
        return {
            "GOVBUS_HOME": str(self.running.home.root),
            "GOVBUS_BROKER_BOOTSTRAP": broker.bootstrap,
            "GOVBUS_BROKER_USER": "admin",
            "GOVBUS_BROKER_PASSWORD_FILE": str(broker.password_file),
            "GOVBUS_REGISTRY_URL": self.running.registry_url,
            "GOVBUS_CONTROL_URL": f"sqlite:///{self.folder / 'control.db'}",
        }

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()


def read_all(config: dict[str, Any], topic: str) -> list[Any]:
    """All committed records of a topic now, partition by partition."""
    consumer = Consumer(
        {
            **config,
            "group.id": f"{config['sasl.username']}.reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    found = []
    try:
        seen = consumer.list_topics(topic, timeout=10).topics[topic]
        if seen.error is not None:
            raise AssertionError(seen.error.name())
        parts = seen.partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in parts])
        unread = set(parts)
        while unread:
            for message in consumer.consume(1_000, timeout=1.0):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise AssertionError(error.name())
    finally:
        consumer.close()
    return found
