"""Control's way to the bus: broker, registry, and what both need before anything is shared. Does I/O."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException

from govbus import topics
from govbus.codec import Registry, bus_schema
from govbus.errors import AccessDeniedError, BrokerUnavailableError, FencedError, UnknownSchemaError
from govbus.settings import BrokerSettings
from govbus_console.cluster import DAY_MS, EXCHANGE, Cluster, TopicSpec
from govbus_console.embedded.home import Home

_REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_REPLACED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})

PSEUDONYM_SECRET = "pseudonym-master"  # noqa: S105 - the name of a secret's file
"""The master secret from which the exchange derives the pseudonym keys."""

_DECISION_DAYS = 90


@dataclass(frozen=True, slots=True)
class Bus:
    """One broker, its registry, and the home with the secrets of its users."""

    broker: BrokerSettings
    """As the administrator."""

    cluster: Cluster
    registry: Registry
    home: Home

    @classmethod
    def at(cls, broker: BrokerSettings, registry_url: str, home: Home) -> Bus:
        """Prepare the way; nothing is asked yet."""
        return cls(broker, Cluster(broker.client()), Registry(registry_url), home)


def set_up(bus: Bus) -> None:
    """Make what every bus needs: its own topics, their schemas, and the exchange's user. Idempotent."""
    bus.cluster.ensure_topics(
        [
            TopicSpec.compacted(topics.GRANTS),
            TopicSpec.compacted(topics.WORKERS),
            TopicSpec.compacted(topics.PROGRESS),
            TopicSpec.retained(topics.DECISIONS, retention_ms=_DECISION_DAYS * DAY_MS),
        ]
    )
    for topic, name in (
        (topics.WORKERS, "worker"),
        (topics.PROGRESS, "progress"),
        (topics.DECISIONS, "decision"),
    ):
        register(bus.registry, f"{topic}-value", bus_schema(name))
    ensure_user(bus, EXCHANGE)
    bus.cluster.allow_exchange()
    bus.home.password_file(PSEUDONYM_SECRET)


def ensure_user(bus: Bus, user: str) -> None:
    """Let a user in under the password in its file, making both when there is neither.

    A user that the broker knows keeps its password: it may have been handed over
    long ago, and changing it would shut its owner out.
    """
    if not bus.cluster.has_user(user):
        bus.cluster.ensure_user(user, bus.home.password(user))


def register(registry: Registry, subject: str, raw: dict[str, object], compatibility: str = "NONE") -> int:
    """Register a schema under a subject whose compatibility level is set first; return the schema's id.

    A view may be narrowed and a department may reshape what the bus says of it,
    so most subjects have no rule; a contract has.
    """
    try:
        registry.set_compatibility(subject, compatibility)
    except UnknownSchemaError:
        # This registry sets levels only for subjects that exist: the first schema needs no rule.
        schema_id = registry.register(subject, raw)
        registry.set_compatibility(subject, compatibility)
        return schema_id
    return registry.register(subject, raw)


@contextmanager
def naming(action: str) -> Iterator[None]:
    """Turn the Kafka client's errors into the bus's, saying what was being done."""
    try:
        yield
    except KafkaException as raised:
        error: KafkaError = raised.args[0]
        reason = f"cannot {action}: {error.str()}"
        if error.code() in _REFUSED:
            raise AccessDeniedError(reason) from None
        if error.code() in _REPLACED:
            raise FencedError(reason) from None
        raise BrokerUnavailableError(reason) from None
