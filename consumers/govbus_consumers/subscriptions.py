"""What a department is told of its grants, followed on its compacted subscriptions topic.

The reader belongs to no group: it reads its topic from the beginning to the end, every time a
process starts, and then follows. So each landing process of a department knows every
subscription, whichever partitions it serves, and nothing about them has to be stored.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from govbus.catalogue import ResourceKind
from govbus.errors import AccessDeniedError, RegistryUnavailableError, RejectedRecordError
from govbus.event import RecordAddress
from govbus.grant import DataDuty, GrantState
from govbus.topics import subscriptions
from govbus_consumers.broker import BrokerWatch, denied

if TYPE_CHECKING:
    from govbus.codec import Registry
    from govbus.settings import BrokerSettings

log = logging.getLogger(__name__)

_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One version of one of a department's grants, seen from the landing side."""

    grant: str
    version: int
    state: GrantState
    resource: str
    topic: str
    partitions: int
    kind: ResourceKind
    value_schema_id: int
    key_schema_id: int
    key: tuple[str, ...]
    data_on_end: DataDuty
    table: str
    """The table's name as control suggests it."""

    @property
    def ended(self) -> bool:
        """Whether the grant is over, so that the duty for its landed rows is due."""
        return self.state in (GrantState.REVOKED, GrantState.EXPIRED)


def subscription_from_record(record: Mapping[str, Any]) -> Subscription:
    """Read what avro_schemas/bus/subscription.avsc describes; ValueError when it cannot be one."""
    return Subscription(
        grant=record["grant"],
        version=record["version"],
        state=GrantState(record["state"]),
        resource=record["resource"],
        topic=record["topic"],
        partitions=record["partitions"],
        kind=ResourceKind(record["kind"]),
        value_schema_id=record["value_schema_id"],
        key_schema_id=record["key_schema_id"],
        key=tuple(record["key"]),
        data_on_end=DataDuty(record["data_on_end"]),
        table=record["table"],
    )


class SubscriptionReader:
    """Follows ``govbus.subscriptions.<department>`` without a group. Used by one thread."""

    def __init__(self, department: str, broker: BrokerSettings, registry: Registry) -> None:
        self._topic = subscriptions(department)
        self._registry = registry
        self._watch = BrokerWatch()
        self._held: list[Any] = []
        self._at_end = False
        config = broker.client(
            # librdkafka wants a group even of a consumer that only assigns; nothing is committed to it.
            group_id=f"{department}.land.subscriptions",
            isolation_level="read_committed",
            enable_auto_commit=False,
            enable_partition_eof=True,
            auto_offset_reset="earliest",
            topic_metadata_refresh_interval_ms=1_000,
        )
        self._consumer = Consumer(config | {"error_cb": self._watch.on_error})
        self._consumer.assign([TopicPartition(self._topic, 0, OFFSET_BEGINNING)])

    @property
    def complete(self) -> bool:
        """Whether everything that was there at the start has been read."""
        return self._at_end and not self._held

    def changes(self, timeout: float = 0.0) -> list[Subscription | str]:
        """Return what is new, in order: a subscription, or the id of a grant that is not listed any more.

        Returns at once when nothing is there and ``timeout`` is 0.

        Raises:
            AccessDeniedError: the broker refuses the credentials, or reading this topic.
            RegistryUnavailableError: the registry is needed and away; the next call starts there again.
        """
        if not self._held:
            self._held = list(self._consumer.consume(_AT_ONCE, timeout))
        self._watch.check()
        found: list[Subscription | str] = []
        while self._held:
            message = self._held[0]
            error = message.error()
            if error is None:
                try:
                    change = self._read(message)
                except RegistryUnavailableError:
                    if found:
                        return found
                    raise
                if change is not None:
                    found.append(change)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at_end = True
            elif denied(error):
                raise AccessDeniedError(f"reading {self._topic}: {error.name()}")
            elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
                log.warning(
                    "the subscriptions topic does not exist yet",
                    extra={"stage": "land", "topic": self._topic, "code": error.name()},
                )
            self._held.pop(0)
        return found

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _read(self, message: Any) -> Subscription | str | None:
        at = RecordAddress(topic=self._topic, partition=0, offset=message.offset())
        try:
            grant = bytes(message.key() or b"").decode()
            if message.value() is None:
                return grant
            return subscription_from_record(self._registry.decode(message.value(), at=at))
        except RejectedRecordError as error:
            code = error.code
        except (KeyError, ValueError):
            code = "contract-violation"
        # Without this subscription its grant lands nothing; the others go on.
        log.error("subscription not understood", extra={"stage": "land", "address": str(at), "code": code})
        return None
