"""The directory: grants and resources, kept current, and proof of how current they are.

It reads the compacted topic ``govbus.grants`` with a consumer of its own that
belongs to no group, so every worker sees every grant, and it needs no other
service than Kafka and the registry.

Two promises, on which the revocation barrier stands:

1. ``policy`` is never ahead of what was read and applied in order.
2. ``fresh`` is true only while, at most ``lease_seconds`` ago, the whole topic
   up to the end that the broker reported had been applied. The time counted is
   that *before* the broker was asked. The clock is monotonic, so setting the
   wall clock does not stretch a lease.

What cannot be read as a grant or a resource is not skipped in silence: that
grant is kept as unusable, and gets nothing, until a version that can be read
replaces it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from govbus import observe, topics
from govbus.errors import BusError, FatalError, RetriableError
from govbus.event import RecordAddress
from govbus.grant import grant_from_record, resource_from_record
from govbus.pseudonym import has_hash
from govbus.transform import Pseudonym
from govbus_processors.faults import broker_error
from govbus_processors.routes import Policy, Routing

if TYPE_CHECKING:
    from govbus.codec import Registry
    from govbus.settings import BrokerSettings

_log = logging.getLogger(__name__)
_PARTITION = 0
_CONFIRM_EVERY = 0.5  # seconds; several tries fit into the shortest lease
_ASK_SECONDS = 1.0
_READ_RECORDS = 1_000
_RETRY_SECONDS = 0.2


class NoPseudonymSecretError(BusError):
    """The grant asks for pseudonyms and GOVBUS_EXCHANGE_PSEUDONYM_SECRET_FILE is not set."""

    code = "no-pseudonym-secret"


class NoHashError(BusError):
    """The grant asks for pseudonyms with a hash that this worker's OpenSSL does not have."""

    code = "no-such-hash"


class Directory:
    """Follows ``govbus.grants`` in a thread of its own.

    ``policy`` and ``fresh()`` may be asked from any thread at any time.
    """

    def __init__(
        self, broker: BrokerSettings, registry: Registry, *, lease_seconds: float, pseudonyms: bool
    ) -> None:
        self.lease_seconds = lease_seconds
        self._pseudonyms = pseudonyms
        self.policy = Policy()
        self.failure: FatalError | None = None
        """Set when the thread has ended for good; the worker must stop."""

        self.changed = threading.Event()
        """Set after each change of ``policy``; whoever waits on it clears it."""

        self._broker = broker
        self._registry = registry
        self._confirmed_at: float | None = None
        self._routing = Routing()
        self._next = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="directory", daemon=True)

    def start(self) -> None:
        """Begin to read. ``fresh()`` is false until the topic has been read to its end."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; the policy is stale from now on."""
        self._stop.set()
        self._confirmed_at = None
        self._thread.join(timeout=10)

    def fresh(self, *, since: float = 0.0) -> bool:
        """Whether the policy was confirmed to be complete within the lease, and not before ``since``.

        ``since`` is a moment of the monotonic clock, in seconds.
        """
        confirmed = self._confirmed_at
        return (
            confirmed is not None and confirmed >= since and time.monotonic() - confirmed < self.lease_seconds
        )

    def age_seconds(self) -> float:
        """How long ago the policy was confirmed to be complete; infinite before the first time."""
        confirmed = self._confirmed_at
        return float("inf") if confirmed is None else time.monotonic() - confirmed

    # ---- the thread ----

    def _run(self) -> None:
        try:
            self._follow()
        except FatalError as error:
            self.failure = error
            _log.exception("directory stopped", extra={"code": error.code})
        except Exception:
            self.failure = FatalError("the directory of grants failed")
            _log.exception("directory failed")
        self._confirmed_at = None
        self.changed.set()

    def _follow(self) -> None:
        consumer = Consumer(
            self._broker.client(
                group_id=f"{topics.EXCHANGE_GROUP}.directory",  # required by the client, never joined
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="error",
                fetch_wait_max_ms=100,
                enable_partition_eof=True,
            )
        )
        place = TopicPartition(topics.GRANTS, _PARTITION, OFFSET_BEGINNING)
        try:
            consumer.assign([place])
            asked_at = 0.0
            while not self._stop.is_set():
                self._read(consumer)
                observe.heartbeat("directory")
                now = time.monotonic()
                if now - asked_at >= _CONFIRM_EVERY:
                    asked_at = now
                    self._confirm(consumer, place)
                observe.policy_fresh.set(self.fresh())
                observe.policy_age_seconds.set(min(self.age_seconds(), 1e9))
        finally:
            consumer.close()

    def _read(self, consumer: Consumer) -> None:
        messages = [first] if (first := consumer.poll(0.1)) is not None else []
        if messages:
            messages += consumer.consume(_READ_RECORDS, timeout=0)
        applied = False
        for message in messages:
            fault: KafkaError | None = message.error()
            if fault is not None:
                if fault.code() == KafkaError._PARTITION_EOF:
                    # Also past offsets that hold no record any more, which compaction leaves behind.
                    self._next = max(self._next, message.offset())
                else:
                    self._complain(fault)
                continue
            while not self._stop.is_set():
                try:
                    self._apply(message.key() or b"", message.value(), message.offset())
                    break
                except RetriableError as error:
                    # Nothing after this record may be applied before it, so wait here. The lease runs out.
                    _log.warning("policy cannot be read on", extra={"code": error.code})
                    time.sleep(_RETRY_SECONDS)
            self._next = message.offset() + 1
            applied = True
        if applied:
            self.policy = self._routing.policy(self._next - 1)
            observe.policy_offset.set(self._next - 1)
            self.changed.set()

    def _confirm(self, consumer: Consumer, place: TopicPartition) -> None:
        """Renew the lease if everything that the broker has was applied."""
        before = time.monotonic()
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=_ASK_SECONDS, cached=False)
        except KafkaException as error:
            self._complain(error.args[0])
            return
        if self._next >= high or low == high:
            self._confirmed_at = before

    def _apply(self, key: bytes, value: bytes | None, offset: int) -> None:
        kind, _, name = key.decode("utf-8", "replace").partition("/")
        at = RecordAddress(topic=topics.GRANTS, partition=_PARTITION, offset=offset)
        try:
            if kind == "resource":
                self._apply_resource(name, value, at)
            elif kind == "grant":
                self._apply_grant(name, value, at)
            else:
                _log.error("neither a grant nor a resource", extra={"address": str(at)})
        except (RetriableError, FatalError):
            raise
        except (BusError, ValueError, KeyError, TypeError, AttributeError) as error:
            code = error.code if isinstance(error, BusError) else "unreadable"
            _log.error("unusable policy record", extra={"address": str(at), "code": code})  # noqa: TRY400
            self._forget(kind, name, code)

    def _apply_resource(self, ref: str, value: bytes | None, at: RecordAddress) -> None:
        if value is None:
            self._routing.take_resource(ref)
            return
        resource = resource_from_record(self._registry.decode(value, at=at))
        if resource.ref != ref:
            raise ValueError("the key names another resource")
        self._load(resource.key_schema_id)
        self._load(resource.value_schema_id)
        self._routing.put_resource(resource)

    def _apply_grant(self, grant_id: str, value: bytes | None, at: RecordAddress) -> None:
        if value is None:
            self._routing.take_grant(grant_id)
            return
        published = grant_from_record(self._registry.decode(value, at=at))
        if published.grant.id != grant_id:
            raise ValueError("the key names another grant")
        held = self._routing.grant(grant_id)
        if held is not None and published.grant.version < held.grant.version:
            _log.error("an older grant version came after a newer one", extra={"address": str(at)})
            return
        pseudonyms = [r.transform for r in published.grant.fields if isinstance(r.transform, Pseudonym)]
        if pseudonyms and not self._pseudonyms:
            raise NoPseudonymSecretError("this worker has no pseudonym secret")
        if not all(has_hash(pseudonym.hash) for pseudonym in pseudonyms):
            raise NoHashError("this worker's OpenSSL lacks the hash of a pseudonym")
        self._load(published.value_schema_id)
        self._load(published.key_schema_id)
        self._routing.put_grant(published)

    def _load(self, schema_id: int) -> None:
        if not self._routing.has_schema(schema_id):
            self._routing.put_schema(schema_id, self._registry.schema(schema_id).raw)

    def _forget(self, kind: str, name: str, code: str) -> None:
        """Fail closed: an unreadable grant or resource is none."""
        if kind == "grant":
            self._routing.take_grant(name, unusable=code)
        elif kind == "resource":
            self._routing.take_resource(name)

    def _complain(self, error: KafkaError) -> None:
        problem = broker_error(error)
        if isinstance(problem, FatalError):
            raise problem
        _log.warning("directory cannot reach the broker", extra={"code": problem.code})
