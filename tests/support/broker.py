"""One real broker and registry for a test run, and departments to use them with."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from govbus.settings import BrokerSettings, RegistrySettings
from govbus_console.cluster import EXCHANGE, Cluster
from govbus_console.embedded import EmbeddedBus, Home

_WARM_UP_SECONDS = 120.0


def unique_name(stem: str = "x") -> str:
    """Give a name for a department, resource or grant that no other test uses."""
    return f"{stem}-{secrets.token_hex(4)}"


@dataclass(frozen=True, kw_only=True)
class Department:
    """A department with a user and the permissions of an owner and a subscriber."""

    name: str
    settings: BrokerSettings

    def client(self, **extra: Any) -> dict[str, Any]:
        """Give a librdkafka configuration of this department; ``extra`` uses underscores for dots."""
        return self.settings.client(**extra)


def warm_up(client: dict[str, Any]) -> None:
    """Use a group and a transaction once.

    A new broker makes its internal topics on first use, which on a busy machine
    takes longer than a test should wait for anything.
    """
    producer = Producer({**client, "transactional.id": unique_name("warm-up"), "log_level": 0})
    producer.init_transactions(_WARM_UP_SECONDS)
    consumer = Consumer({**client, "group.id": unique_name("warm-up"), "log_level": 0})
    deadline = time.monotonic() + _WARM_UP_SECONDS
    try:
        while True:
            try:
                consumer.committed([TopicPartition("warm-up", 0)], 10)
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return
    finally:
        consumer.close()


@dataclass(frozen=True, kw_only=True)
class RunningBus:
    """The bus of this test run, seen with the rights of the control side."""

    embedded: EmbeddedBus
    cluster: Cluster

    @property
    def home(self) -> Home:
        return self.embedded.home

    @property
    def bootstrap(self) -> str:
        return self.embedded.endpoints.bootstrap

    @property
    def registry_url(self) -> str:
        return self.embedded.endpoints.registry_url

    @property
    def registry_settings(self) -> RegistrySettings:
        return self.embedded.registry_settings()

    def settings(self, user: str = "admin") -> BrokerSettings:
        """How a user reaches the broker; the user itself need not exist."""
        return self.embedded.broker_settings(user)

    def client(self, user: str = "admin", **extra: Any) -> dict[str, Any]:
        """Give a librdkafka configuration; ``extra`` uses underscores for dots."""
        return self.settings(user).client(**extra)

    def department(self, stem: str = "dept") -> Department:
        """Make a department of its own for a test."""
        name = unique_name(stem)
        self.cluster.ensure_user(name, self.home.password(name))
        self.cluster.allow_owner(name)
        self.cluster.allow_subscriber(name)
        return Department(name=name, settings=self.settings(name))

    def exchange(self) -> BrokerSettings:
        """How an exchange worker reaches the broker; its user and permissions are made."""
        self.cluster.ensure_user(EXCHANGE, self.home.password(EXCHANGE))
        self.cluster.allow_exchange()
        return self.settings(EXCHANGE)
