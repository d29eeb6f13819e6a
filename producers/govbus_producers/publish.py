"""Put changes on the bus, and return when the broker has them.

This is also the door for a system that knows its own changes and needs no
capture:

```python
with Publisher("stats", broker=BrokerSettings(), registry=Registry(url)) as publisher:
    publisher.publish("divisions", [Change(key={"code": "33"}, row={"code": "33", "name": "浙江省"})])
```

Promises:

1. A change that breaks the contract is not sent. It is reported by its
   position, and the changes around it go on.
2. What is reported as acknowledged is on every in-sync replica.
3. Changes of one key keep the order in which they were given, also when
   librdkafka has to send again (idempotent producer).
4. When acknowledgement cannot be had, an error says so and the caller gives
   the same changes again. That does no harm: values are full after-images.
5. A key goes to partition ``murmur2(key bytes) % partitions``, as Kafka's Java
   client has it, so that every producer agrees where a key lives.

What a contract says comes from the schema registry, where ``apply`` put it: a
department needs its own credentials and nothing from anyone else's disk.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

import fastavro
from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient

from govbus import topics
from govbus.codec import Registry, Schema, header
from govbus.contract import DataContract, parse_contract
from govbus.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    BusError,
    CatalogueError,
    ContractViolationError,
    OversizedRecordError,
    RejectedRecordError,
    UnknownContractError,
    UnknownSchemaError,
)
from govbus.event import Change
from govbus.settings import BrokerSettings
from govbus_producers.conformance import (
    Check,
    classes_without_check,
    compile_check,
    named_types,
    type_name,
)

log = logging.getLogger(__name__)

LARGEST_RECORD_BYTES = 900_000
"""Key and value together. The broker takes 1,048,588 bytes a batch; the rest is headroom for the batch
around the record and for a view that is larger than its source (pseudonyms)."""

_QUEUED_KILOBYTES = 65_536
_STEP_SECONDS = 0.2
_LAST_CHANCE_SECONDS = 3.0
_ADMIN_SECONDS = 10.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_DENIED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)
_NO_TOPIC = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_REFUSED = frozenset({KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of the changes of one call."""

    acknowledged: int
    rejected: Mapping[int, RejectedRecordError]
    """By position in the call: what was not published and never will be as it is."""


@dataclass(frozen=True, slots=True)
class PublishedContract:
    """A contract as it is registered, with the schemas that records are written under."""

    contract: DataContract
    key: Schema
    value: Schema


def registered_contract(registry: Registry, owner: str, resource: str) -> PublishedContract:
    """Look a contract up in the registry; nothing is registered here.

    Raises:
        UnknownContractError: none is registered, or key and value do not belong together.
        RegistryUnavailableError: the registry does not answer.
    """
    topic = topics.captured(owner, resource)
    ref = f"{owner}.{resource}"
    try:
        value = registry.latest(f"{topic}-value")
        key = registry.latest(f"{topic}-key")
    except UnknownSchemaError:
        raise UnknownContractError(f"no contract of {ref} is registered") from None
    try:
        contract = parse_contract(json.dumps(dict(value.raw)), owner=owner, resource=resource)
    except CatalogueError as error:
        raise UnknownContractError(f"what is registered for {ref} is no contract: {error}") from None
    if _fields(key.raw) != _fields(contract.key_schema):
        raise UnknownContractError(f"the registered key of {ref} is not the key of its contract")
    return PublishedContract(contract, key, value)


def _fields(schema: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(field["name"], field["type"]) for field in schema["fields"]]


class ChangeEncoder:
    """Turns the changes of one resource into framed keys and values, if the contract allows them."""

    def __init__(self, known: PublishedContract) -> None:
        contract = known.contract
        named = named_types(contract.schema)
        self._ref = f"{contract.owner}.{contract.resource}"
        self._key_names = contract.key
        self._key_set = frozenset(contract.key)
        self._names = frozenset(contract.names)
        self._checks: list[tuple[str, frozenset[type], Check, Any]] = [
            (
                field.name,
                classes_without_check(field.avro_type),
                compile_check(field.avro_type, named),
                field.avro_type,
            )
            for field in contract.fields
        ]
        self._key_checks = [entry for entry in self._checks if entry[0] in self._key_set]
        self._key_header, self._key_schema = header(known.key.id), known.key.parsed
        self._value_header, self._value_schema = header(known.value.id), known.value.parsed

    def encode(self, change: Change) -> tuple[bytes, bytes | None]:
        """Encode key and value; the value is None for a delete.

        Raises:
            ContractViolationError: the change is not one of this resource: names the field and the
                type that the contract has, never the value.
        """
        key, row = change.key, change.row
        if key.keys() != self._key_set:
            raise ContractViolationError(f"the key of {self._ref} is {', '.join(self._key_names)}")
        if row is None:
            for name, _, check, avro_type in self._key_checks:
                if not check(key[name]):
                    raise _wrong(name, key[name], avro_type)
            return self._write(self._key_header, self._key_schema, key), None
        if row.keys() != self._names:
            raise self._wrong_names(row)
        for name, fine, check, avro_type in self._checks:
            value = row[name]
            if type(value) not in fine and not check(value):
                raise _wrong(name, value, avro_type)
        for name in self._key_names:
            if key[name] != row[name]:
                raise ContractViolationError(f"field {name!r} differs between key and row")
        return (
            self._write(self._key_header, self._key_schema, key),
            self._write(self._value_header, self._value_schema, row),
        )

    def _write(self, start: bytes, schema: Any, record: Mapping[str, object]) -> bytes:
        buffer = io.BytesIO()
        try:
            fastavro.schemaless_writer(buffer, schema, record)
        except UnicodeEncodeError:
            raise self._no_text(record) from None
        except (ValueError, TypeError, OverflowError, AttributeError) as error:
            # The checks should leave nothing to complain of; if they do, the text may quote the value.
            raise ContractViolationError(f"cannot be encoded: {type(error).__name__}") from None
        return start + buffer.getvalue()

    def _no_text(self, record: Mapping[str, object]) -> ContractViolationError:
        for name, _, check, avro_type in self._checks:
            if name in record and not check(record[name]):
                return _wrong(name, record[name], avro_type)
        return ContractViolationError("holds text that has no UTF-8 form")

    def _wrong_names(self, row: Mapping[str, object]) -> ContractViolationError:
        missing = [name for name, *_ in self._checks if name not in row]
        if missing:
            return ContractViolationError(f"field {missing[0]!r} is missing")
        return ContractViolationError(f"the row has a field that the contract of {self._ref} has not")


def _wrong(name: str, value: object, avro_type: Any) -> ContractViolationError:
    found = "null" if value is None else type(value).__name__
    return ContractViolationError(
        f"field {name!r}: the contract has {type_name(avro_type)}, not this {found}"
    )


class Publisher:
    """Publishes one department's changes, as its owner.

    Made once and used for long; not to be shared between threads without a lock.
    """

    def __init__(
        self,
        department: str,
        *,
        broker: BrokerSettings,
        registry: Registry,
        delivery_seconds: float = 30.0,
        stop: threading.Event | None = None,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing is connected before the first call of :meth:`publish`.

        Args:
            department: whose resources these are; only its own topics may be written.
            broker: how to reach Kafka.
            registry: where the contracts are.
            delivery_seconds: how long librdkafka goes on trying before a change counts as not sent.
            stop: once set, a wait for a broker that is away ends after a few seconds.
            on_wait: called several times a second while waiting for acknowledgements.
        """
        self._department = department
        self._broker = broker
        self._registry = registry
        self._stop = stop
        self._on_wait = on_wait
        self._denied: str | None = None
        self._encoders: dict[str, ChangeEncoder] = {}
        self._config = broker.client(
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            partitioner="murmur2",
            linger_ms=5,
            batch_size=500_000,
            batch_num_messages=10_000,
            message_max_bytes=1_000_000,
            queue_buffering_max_kbytes=_QUEUED_KILOBYTES,
            queue_buffering_max_messages=100_000,
            delivery_timeout_ms=int(delivery_seconds * 1_000),
            # A refused record or topic is reported; that nothing is wrong 40,000 times a second is not.
            delivery_report_only_error=True,
        ) | {"error_cb": self._on_error, "logger": log}
        self._producer = Producer(self._config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def use(self, resource: str, known: PublishedContract) -> None:
        """Write a resource under this contract from now on, for example a newer version of it."""
        self._encoders[resource] = ChangeEncoder(known)

    def publish(self, resource: str, changes: Sequence[Change]) -> Published:
        """Publish changes of one resource and wait until the broker has acknowledged them.

        Raises:
            UnknownContractError: the resource has no registered contract, or no topic.
            AccessDeniedError: the broker does not take these credentials, or not for this topic.
            BrokerUnavailableError: not everything was acknowledged; give the same changes again.
            RegistryUnavailableError: the contract could not be looked up; try again.
        """
        encoder = self._encoder(resource)
        topic = topics.captured(self._department, resource)
        now = time.time_ns() // 1_000_000
        rejected: dict[int, RejectedRecordError] = {}
        failed: dict[int, KafkaError] = {}
        for position, change in enumerate(changes):
            try:
                key, value = encoder.encode(change)
            except ContractViolationError as error:
                rejected[position] = error
                continue
            if len(key) + len(value or b"") > LARGEST_RECORD_BYTES:
                rejected[position] = OversizedRecordError(f"larger than {LARGEST_RECORD_BYTES} bytes")
                continue
            report = partial(_note, failed, position)
            stamp = _stamp(change.changed_at, now)
            while True:
                try:
                    self._producer.produce(topic, value, key, on_delivery=report, timestamp=stamp)
                    break
                except BufferError:
                    self._wait_a_step()
                except KafkaException as error:
                    raise self._failed(error.args[0], topic) from None
        self._flush()
        for position, kafka_error in failed.items():
            rejected[position] = self._rejection(kafka_error, topic)
        return Published(acknowledged=len(changes) - len(rejected), rejected=rejected)

    def topic_id(self, resource: str) -> str:
        """The broker's id of a resource's topic: a topic that was deleted and made anew has another.

        Raises as :meth:`publish` does.
        """
        topic = topics.captured(self._department, resource)
        admin = AdminClient(self._broker.client() | {"error_cb": self._on_error, "logger": log})
        asked = admin.describe_topics(TopicCollection([topic]), request_timeout=_ADMIN_SECONDS)
        self._on_wait()
        try:
            return str(asked[topic].result(_ADMIN_SECONDS + 1).topic_id)
        except KafkaException as error:
            self._raise_if_denied()
            raise self._failed(error.args[0], topic) from None

    def close(self) -> None:
        """Let go of the connection; what is not acknowledged by now was never reported as published."""
        self._producer.purge()
        self._producer.flush(_LAST_CHANCE_SECONDS)

    def _encoder(self, resource: str) -> ChangeEncoder:
        if resource not in self._encoders:
            self.use(resource, registered_contract(self._registry, self._department, resource))
        return self._encoders[resource]

    def _flush(self) -> None:
        """Wait until every record is acknowledged or given up by librdkafka."""
        while self._producer.flush(_STEP_SECONDS):
            self._wait_a_step(0.0)

    def _wait_a_step(self, seconds: float = _STEP_SECONDS) -> None:
        self._producer.poll(seconds)
        self._on_wait()
        self._raise_if_denied()
        if self._stop is not None and self._stop.is_set() and self._producer.flush(_LAST_CHANCE_SECONDS):
            self._give_up()
            raise BrokerUnavailableError("stopped before the broker had acknowledged everything")

    def _raise_if_denied(self) -> None:
        if self._denied is not None:
            detail, self._denied = self._denied, None
            self._give_up()
            raise AccessDeniedError(detail)

    def _give_up(self) -> None:
        self._producer.purge()
        self._producer.flush(_LAST_CHANCE_SECONDS)

    def _rejection(self, error: KafkaError, topic: str) -> RejectedRecordError:
        """What one failed delivery means: this record's fault is returned, any other raised."""
        if error.code() in _TOO_LARGE:
            return OversizedRecordError("larger than the broker takes")
        if error.code() in _REFUSED:
            return ContractViolationError(f"the broker refuses the record: {error.name()}")
        raise self._failed(error, topic)

    def _failed(self, error: KafkaError, topic: str) -> BusError:
        code = error.code()
        if code in _DENIED:
            return AccessDeniedError(f"the broker refuses {self._department} on {topic}: {error.name()}")
        if code in _NO_TOPIC:
            return UnknownContractError(f"there is no topic {topic}: {error.name()}")
        if error.fatal() or code == KafkaError._FATAL:
            # An idempotent producer that lost its place sends nothing more; a new one starts afresh.
            self._producer = Producer(self._config)
        return BrokerUnavailableError(f"not acknowledged on {topic}: {error.name()}")

    def _on_error(self, error: KafkaError) -> None:
        """Hear of connections, not of records; runs inside poll and flush, so it must not raise."""
        if error.code() in _DENIED:
            self._denied = f"the broker refuses {self._department}: {error.name()}"
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            log.warning("no broker answers; waiting", extra={"department": self._department})


def _note(failed: dict[int, KafkaError], position: int, error: KafkaError, _message: object) -> None:
    failed[position] = error


def _stamp(changed_at: datetime | None, now: int) -> int:
    """The Kafka timestamp in milliseconds.

    The broker refuses a time that is far ahead (``message.timestamp.after.max.ms``) and Kafka has none
    before 1970; a source's wrong clock must not stop its data, so such a time gives way to now.
    """
    if changed_at is None:
        return now
    stamp = (changed_at - _EPOCH) // _MILLISECOND
    return stamp if 0 < stamp <= now else now
