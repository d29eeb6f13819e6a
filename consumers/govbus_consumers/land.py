"""Land a department's deliveries in its own store, each exactly once.

The process needs Kafka, the schema registry and the department's credentials. It is one loop in one
thread; each turn:

1. **Follow** the subscriptions topic. A new or amended grant gets its table; an ended one stops at
   once and what it says about landed rows is done. Only where it says *keep* is what was delivered
   before the end still read: that is the subscriber's.
2. **Place** newly assigned partitions: claim them in the store, and read on from the offset that the
   store has, never from one that Kafka has.
3. **Read** what is there, without waiting for more once something is there; only what comes right
   after a batch is gathered for a moment.
4. **Write** it: rows, dead letters and offsets in one transaction.
5. **Answer** for what was done when a grant ended: its receipt, until the bus has it.

When the store cannot take the batch, or the registry is needed and away, nothing is kept in memory: the
batch is dropped, reading stops, and after a back-off it begins again at the offset in the store. The
process stays a member of its group meanwhile. That is all there is to recovery: a restart, a rebalance,
a full disk and a fenced writer go the same way, through step 2.

Assignment is cooperative, so a new grant or a second process does not stop what is being read.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from govbus import observe
from govbus.errors import (
    AccessDeniedError,
    BusError,
    ContractViolationError,
    FencedError,
    RegistryUnavailableError,
    RejectedRecordError,
    RetriableError,
    SinkUnavailableError,
    UnknownSchemaError,
)
from govbus.grant import DataDuty, GrantState
from govbus.topics import delivered_prefix, receipts
from govbus_consumers.broker import BrokerWatch, denied
from govbus_consumers.receipts import ReceiptSender, load_key
from govbus_consumers.rows import RowReader, SchemaAheadError, agreed_version
from govbus_consumers.sink import PartitionChanges, Position, Signatory, Sink, WantedTable, open_sink
from govbus_consumers.subscriptions import Subscription, SubscriptionReader
from govbus_consumers.tables import LandingTable, fields_of, full_name

if TYPE_CHECKING:
    from govbus.codec import Registry, Schema
    from govbus.settings import BrokerSettings
    from govbus_consumers.config import LandConfig

log = logging.getLogger(__name__)

STAGE = "land"
_BATCH_RECORDS = 10_000
"""More gains nothing in either store, and a smaller batch is sooner visible."""

_WAIT_SECONDS = 0.05
_GATHER_SECONDS = 0.05
"""What comes within so long of a batch is landed together at the end of it, in one transaction: under steady
traffic there are at most twenty a second, however finely the exchange commits, and the time that goes into
transactions is there for rows. The first delivery after a pause waits for nothing."""

_REPORT_SECONDS = 1.0
_ASK_SECONDS = 0.5
_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 10.0
_SCHEMA_PATIENCE_SECONDS = 5.0
"""A schema is registered before the first record under it is written, but registries may be replicated."""

_UNKNOWN_KEPT_SECONDS = 60.0
_AHEAD_PATIENCE_SECONDS = 2.0
"""How long a schema may be ahead of its subscription, which was written at the same time."""

_UNREADY_SECONDS = 5.0
_HEARTBEAT_MS = 500
"""Also how soon the other members learn that one wants to read a new topic."""

_FENCED_SECONDS = 2.0
"""Before claiming again what another process has claimed: by then the group has said who has it."""

_MOST_FENCES = 10
_FENCES_SECONDS = 60.0
"""So many in so short a time are no rebalance: some process outside the group writes into the same store."""

_NOTE_SECONDS = 3_600.0
_SEND_AGAIN_SECONDS = 15.0
"""Before a receipt that was not acknowledged is sent again; longer than the client itself tries."""

_READ_OUT_SECONDS = 2.0
"""How often it is looked whether other processes, or the removal of the topic, have ended a reading out."""

_METADATA_MS = 1_000

Place = tuple[str, int]


@dataclass
class _Route:
    """One grant that is being landed."""

    subscription: Subscription
    table: LandingTable
    reader: RowReader
    agreement: Any
    positions: dict[int, Position] = field(default_factory=dict)
    """Of the partitions that are being read."""

    landed: dict[int, int] = field(default_factory=dict)
    """The next offset of each assigned partition as last known, read or not; for the lag."""


class Landing:
    """The landing of one department. Everything is called by one thread.

    Args:
        config: of the department.
        consumer: subscribes to delivery topics; librdkafka's interface.
        subscriptions: what the department is granted.
        registry: of schemas.
        sink: where rows go.
        receipts: takes what is answered when a grant has ended; a :class:`ReceiptSender`.
        stop: set when the process is to end.
        clock: the time of day.
    """

    def __init__(
        self,
        config: LandConfig,
        *,
        consumer: Any,
        subscriptions: Any,
        registry: Registry,
        sink: Sink,
        receipts: Any,
        stop: threading.Event,
        watch: BrokerWatch | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config = config
        self._consumer = consumer
        self._subscriptions = subscriptions
        self._registry = registry
        self._sink = sink
        self._receipts = receipts
        self._signatory = Signatory(
            department=config.department,
            process=f"{config.department}.{STAGE}@{socket.gethostname()}:{os.getpid()}",
            key=receipts.key,
        )
        self._stop = stop
        self._watch = watch or BrokerWatch()
        self._clock = clock
        self._todo: deque[Subscription | str] = deque()
        self._unready: dict[str, tuple[float, Subscription]] = {}
        self._reading_out: dict[str, tuple[float, Subscription]] = {}
        """Grants that ended with *keep*, and when to look again how far the others have got."""

        self._answer_at: float | None = 0.0
        """When to look for receipts that the bus does not have; None: there are none."""

        self._routes: dict[str, _Route] = {}
        self._subscribed: list[str] = []
        self._assigned: set[Place] = set()
        self._placed: set[Place] = set()
        self._not_before: dict[Place, float] = {}
        self._from_beginning: set[Place] = set()
        self._caught_up: set[Place] = set()
        self._oldest_ms: dict[Place, int] = {}
        self._unknown: dict[int, float] = {}
        self._ahead: dict[tuple[str, int], float] = {}
        self._patience = 0.0
        self._backoff = 0.0
        self._resume_at = 0.0
        self._paused = False
        self._gather_until = 0.0
        self._fences: deque[float] = deque()
        self._open = False
        self._report_at = 0.0
        self._noted: dict[Place, float] = {}
        self._told: dict[tuple[str, str], float] = {}

    def run(self) -> None:
        """Land until ``stop`` is set.

        Raises:
            FatalError: nothing that waiting could cure.
        """
        while not self._stop.is_set():
            observe.heartbeat(STAGE)
            self.turn()

    def turn(self) -> None:
        """Go round the loop once."""
        try:
            self._watch.check()
            self._follow()
            if time.monotonic() >= self._resume_at:
                self._settle()
                self._read_out()
                self._answer()
                self._place()
            messages = self._read()
            if messages:
                self._land(messages)
            self._note_caught_up()
        except (SinkUnavailableError, RegistryUnavailableError) as error:
            self._hold(error)
        except FencedError as error:
            self._fenced(error)
        self._report()

    # 1. Follow.

    def _follow(self) -> None:
        self._todo.extend(self._subscriptions.changes())
        observe.revocations_pending.set(
            sum(1 for change in self._todo if isinstance(change, Subscription) and change.ended)
            + len(self._reading_out)
        )

    def _settle(self) -> None:
        """Do what subscriptions say, in their order, as far as the store and the registry allow."""
        if not self._open:
            self._sink.open()
            self._open = True
        if not self._subscriptions.complete:
            return
        now = time.monotonic()
        for grant, (retry_at, subscription) in list(self._unready.items()):
            if now >= retry_at:
                del self._unready[grant]
                self._todo.append(subscription)
        while self._todo:
            change = self._todo[0]
            if isinstance(change, Subscription):
                self._unready.pop(change.grant, None)
                self._settle_one(change)
            else:
                self._unready.pop(change, None)
                self._drop(change)
                log.info(
                    "grant not listed any more; landed rows stay", extra={"stage": STAGE, "grant": change}
                )
            self._todo.popleft()
        self._resubscribe()

    def _settle_one(self, subscription: Subscription) -> None:
        keys = {
            "stage": STAGE,
            "grant": subscription.grant,
            "version": subscription.version,
            "state": str(subscription.state),
        }
        if subscription.ended:
            if not self._may_read_out(subscription):
                self._end(subscription)
        elif subscription.state is GrantState.ACTIVE:
            try:
                self._start(subscription)
            except RejectedRecordError as error:
                # Its schema cannot be had or makes no sense; the other grants go on meanwhile.
                log.error("subscription cannot be landed yet", extra=keys | {"code": error.code})
                self._unready[subscription.grant] = (time.monotonic() + _UNREADY_SECONDS, subscription)
        else:
            self._drop(subscription.grant)
            log.info("grant suspended; landed rows stay", extra=keys)

    def _end(self, subscription: Subscription) -> None:
        self._drop(subscription.grant)
        receipt = self._sink.end(
            subscription.grant,
            version=subscription.version,
            state=subscription.state,
            duty=subscription.data_on_end,
            by=self._signatory,
        )
        if receipt is not None:
            self._answer_at = 0.0
            changed = receipt.rows_before - receipt.rows_after + receipt.rows_blanked
            observe.purged_rows.labels(receipt.grant).inc(changed)
            log.info(
                "grant ended; landed rows dealt with",
                extra={
                    "stage": STAGE,
                    "grant": receipt.grant,
                    "version": receipt.version,
                    "state": str(receipt.state),
                    "count": changed,
                },
            )

    def _may_read_out(self, subscription: Subscription) -> bool:
        """Begin to read what was delivered before the end, where the grant says *keep*; False: nothing is.

        A topic that several share is closed to this department before it is told of the end.
        """
        grant, topic = subscription.grant, subscription.topic
        if (
            subscription.data_on_end is not DataDuty.KEEP
            or not topic.startswith(delivered_prefix(self._config.department))
            or self._sink.has_ended(grant, subscription.version)
            or self._is_gone(topic)
        ):
            return False
        try:
            self._start(subscription)
        except RejectedRecordError as error:
            log.error(
                "what is left of an ended grant cannot be landed",
                extra={"stage": STAGE, "grant": grant, "code": error.code},
            )
            return False
        if grant not in self._routes:
            return False
        # An end that was reached before the grant ended says nothing: each partition is read on from the
        # store's offset, and its end told anew.
        self._unplace(place for place in self._placed if place[0] == topic)
        self._reading_out[grant] = (time.monotonic() + _READ_OUT_SECONDS, subscription)
        return True

    def _read_out(self) -> None:
        """End the grants of which nothing is left to land."""
        for grant, (look_at, subscription) in list(self._reading_out.items()):
            route = self._routes.get(grant)
            if route is None or route.subscription.version > subscription.version:
                del self._reading_out[grant]  # not listed any more, or granted again
                continue
            places = {place for place in self._caught_up if place[0] == subscription.topic}
            looked = time.monotonic() >= look_at
            if not looked and len(places) < subscription.partitions:
                continue
            done = self._sink.note_read_out(
                grant, subscription.version, sorted(partition for _, partition in places)
            )
            if done >= set(range(subscription.partitions)) or (looked and self._is_gone(subscription.topic)):
                del self._reading_out[grant]
                self._end(subscription)
                self._resubscribe()
            else:
                self._reading_out[grant] = (time.monotonic() + _READ_OUT_SECONDS, subscription)

    def _is_gone(self, topic: str) -> bool:
        """Whether the broker says that there is no such topic (any more)."""
        try:
            error = self._consumer.list_topics(topic, timeout=_ASK_SECONDS).topics[topic].error
        except KafkaException:
            return False
        return error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART

    def _start(self, subscription: Subscription) -> None:
        view = self._registry.schema(subscription.value_schema_id)
        agreement = view.raw.get("govbus")
        if not isinstance(agreement, dict):
            raise ContractViolationError("the view schema does not carry its agreement")
        agreed_version(view, agreement)
        table = self._sink.prepare(self._wanted(subscription, view))
        if table.version > subscription.version:
            return  # an older line of the topic; the one that the store has seen is still to come
        old = self._routes.get(subscription.grant)
        if (
            old is not None
            and old.subscription.topic == subscription.topic
            and old.table.ended == table.ended
        ):
            # Reading goes on where it is; only the rows are made differently from here.
            old.subscription, old.agreement = subscription, agreement
            self._use(old, table)
            return
        self._drop(subscription.grant)
        route = _Route(subscription, table, self._reader(table, agreement), agreement)
        self._routes[subscription.grant] = route
        # Another grant may be reading this topic already; both are placed together.
        self._unplace(place for place in self._placed if place[0] == subscription.topic)
        log.info(
            "landing a grant",
            extra={
                "stage": STAGE,
                "grant": subscription.grant,
                "version": subscription.version,
                "table": table.name,
                "topic": subscription.topic,
            },
        )

    def _wanted(self, subscription: Subscription, view: Schema) -> WantedTable:
        key = self._registry.schema(subscription.key_schema_id).raw
        return WantedTable(
            grant=subscription.grant,
            version=subscription.version,
            topic=subscription.topic,
            kind=subscription.kind,
            key_name=full_name(key),
            key=fields_of(key),
            fields=fields_of(view.raw),
            duty=subscription.data_on_end,
            name=subscription.table,
            configured_name=self._config.tables.get(subscription.grant),
        )

    def _reader(self, table: LandingTable, agreement: Any) -> RowReader:
        return RowReader(table, agreement=agreement, schema=self._schema, converts=self._sink.converts)

    def _use(self, route: _Route, table: LandingTable) -> None:
        route.table = table
        route.reader = self._reader(table, route.agreement)

    def _drop(self, grant: str) -> None:
        route = self._routes.pop(grant, None)
        if route is None:
            return
        topic = route.subscription.topic
        if not any(other.subscription.topic == topic for other in self._routes.values()):
            self._unplace(place for place in self._placed if place[0] == topic)
        observe.lag_records.labels(grant).set(0)
        observe.lag_seconds.labels(grant).set(0)

    def _resubscribe(self) -> None:
        topics = sorted({route.subscription.topic for route in self._routes.values()})
        if topics == self._subscribed:
            return
        self._subscribed = topics
        if topics:
            self._consumer.subscribe(
                topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )
        else:
            self._consumer.unsubscribe()

    # 2. Place.

    def _on_assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        self._assigned |= {(partition.topic, partition.partition) for partition in partitions}
        # Nothing is read before it is claimed, and that may take more than a callback should.
        consumer.incremental_assign([])

    def _on_revoke(self, consumer: Any, partitions: Sequence[Any]) -> None:
        places = {(partition.topic, partition.partition) for partition in partitions}
        reading = places & self._placed
        self._assigned -= places
        self._forget(reading)
        for topic, partition in places:
            self._oldest_ms.pop((topic, partition), None)
            for route in self._routes_of(topic):
                route.landed.pop(partition, None)
        consumer.incremental_unassign([TopicPartition(*place) for place in sorted(reading)])

    def _place(self) -> None:
        now = time.monotonic()
        waiting: dict[str, list[int]] = {}
        for topic, partition in sorted(self._assigned - self._placed):
            if topic in self._subscribed and self._not_before.get((topic, partition), 0.0) <= now:
                waiting.setdefault(topic, []).append(partition)
        for topic, partitions in waiting.items():
            routes = self._routes_of(topic)
            if not routes:
                continue
            for route in routes:
                claimed = self._sink.claim(route.table, partitions)
                route.positions.update(claimed)
                route.landed.update({place: position.next_offset for place, position in claimed.items()})
            starts = [self._start_of(topic, partition, routes) for partition in partitions]
            try:
                self._consumer.incremental_assign(starts)
            except KafkaException as error:
                # A rebalance is under way; who has the partition is said in a moment.
                self._say("partitions cannot be taken now", topic, error.args[0].name())
                continue
            self._placed |= {(topic, partition) for partition in partitions}
        if self._paused and not self._assigned - self._placed:
            self._paused = False
            log.info("landing goes on", extra={"stage": STAGE})

    def _start_of(self, topic: str, partition: int, routes: Sequence[_Route]) -> TopicPartition:
        offset = min(route.positions[partition].next_offset for route in routes)
        if offset == 0 or (topic, partition) in self._from_beginning:
            self._from_beginning.discard((topic, partition))
            offset = OFFSET_BEGINNING
        return TopicPartition(topic, partition, offset)

    def _unplace(self, places: Iterable[Place], *, wait: float = 0.0) -> None:
        """Stop reading partitions; they are claimed and read again when the time has come."""
        leaving = set(places) & self._placed
        if not leaving:
            return
        self._forget(leaving)
        for place in leaving:
            self._noted.pop(place, None)
            self._not_before[place] = time.monotonic() + wait
        with suppress(KafkaException):  # the group has taken them away already
            self._consumer.incremental_unassign([TopicPartition(*place) for place in sorted(leaving)])

    def _forget(self, places: set[Place]) -> None:
        self._placed -= places
        self._caught_up -= places
        for topic, partition in places:
            for route in self._routes_of(topic):
                route.positions.pop(partition, None)

    def _hold(self, error: RetriableError) -> None:
        """Stop reading for a while; what was read is dropped, for it is all still in Kafka."""
        now = time.monotonic()
        if now - self._resume_at > _LONGEST_BACKOFF_SECONDS:
            self._backoff = 0.0  # another trouble than the last one
        self._backoff = min(self._backoff * 2 or _FIRST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS)
        seconds = self._backoff * random.uniform(0.75, 1.0)  # noqa: S311 - spreads retries, protects nothing
        self._resume_at = now + seconds
        self._paused = True
        self._unplace(set(self._placed))
        if isinstance(error, SinkUnavailableError):
            observe.sink_retries.inc()
        log.warning(
            "landing paused",
            extra={"stage": STAGE, "code": error.code, "detail": str(error), "seconds": round(seconds, 2)},
        )

    def _fenced(self, error: FencedError) -> None:
        now = time.monotonic()
        self._fences.append(now)
        while self._fences[0] < now - _FENCES_SECONDS:
            self._fences.popleft()
        log.warning(
            "batch refused: another process has the partition", extra={"stage": STAGE, "code": error.code}
        )
        if len(self._fences) >= _MOST_FENCES:
            raise FencedError(f"{error}: {_MOST_FENCES} times within {_FENCES_SECONDS:.0f} s") from None
        self._unplace(set(self._placed), wait=_FENCED_SECONDS)

    # 3. Read.

    def _read(self) -> list[Any]:
        """Return what is there, at most a batch; wait only when nothing is, or right after another batch."""
        messages = list(self._consumer.consume(1, _WAIT_SECONDS))
        if messages:
            rest = max(0.0, self._gather_until - time.monotonic())
            messages += self._consumer.consume(_BATCH_RECORDS - 1, rest)
            self._gather_until = time.monotonic() + _GATHER_SECONDS
            self._watch.answered()
        return messages

    def _sorted(self, messages: Sequence[Any]) -> dict[Place, list[Any]]:
        """Put records by partition, and deal with what is not a record."""
        read: dict[Place, list[Any]] = {}
        ends: dict[Place, int] = {}
        for message in messages:
            error = message.error()
            if error is None:
                place = (message.topic(), message.partition())
                try:
                    read[place].append(message)
                except KeyError:
                    read[place] = [message]
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[message.topic(), message.partition()] = message.offset()
            else:
                self._on_error(error, (message.topic(), message.partition()))
        # What was in the queue of a partition that has been taken away, or is to be read anew, is void.
        read = {place: records for place, records in read.items() if place in self._placed}
        self._caught_up -= read.keys()
        self._caught_up |= {
            place
            for place, end in ends.items()
            if place in self._placed and (place not in read or read[place][-1].offset() < end)
        }
        return read

    def _on_error(self, error: KafkaError, place: Place) -> None:
        topic, _ = place
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._find_place(place)
        elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            # A shared topic is closed to a department before its subscription says so.
            self._say("delivery topic refused", topic, error.name())
        elif denied(error):
            raise AccessDeniedError(f"reading deliveries: {error.name()}")
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            # The topic of a grant that has ended is removed, perhaps before that is heard of here.
            log.info("delivery topic is not there", extra={"stage": STAGE, "topic": topic})
        elif not error.retriable():
            self._say("delivery topic cannot be read now", str(topic), error.name())

    def _find_place(self, place: Place) -> None:
        """Deal with a stored offset that the partition does not have (any more)."""
        topic, partition = place
        routes = self._routes_of(topic)
        stored = [route.positions[partition].next_offset for route in routes if partition in route.positions]
        if place not in self._placed or not stored:
            return
        try:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=_UNREADY_SECONDS)
        except KafkaException:
            self._unplace([place], wait=_UNREADY_SECONDS)
            return
        keys = {"stage": STAGE, "topic": topic, "partition": partition, "offset": min(stored)}
        if max(stored) > high:
            # The topic was deleted and made again: its offsets mean other records now.
            log.warning("delivery topic is a new one; landing it from the beginning", extra=keys)
            for route in routes:
                self._sink.restart(route.table)
            self._unplace([other for other in self._placed if other[0] == topic])
        else:
            log.warning("deliveries were removed before they were landed", extra=keys)
            self._from_beginning.add(place)
            self._unplace([place])

    # 4. Write.

    def _land(self, messages: Sequence[Any]) -> None:
        started = time.perf_counter()
        self._patience = time.monotonic() + _SCHEMA_PATIENCE_SECONDS
        landed_at = self._clock()
        batches: list[PartitionChanges] = []
        sorted_messages = self._sorted(messages)
        for place, records in sorted_messages.items():
            topic, partition = place
            self._oldest_ms[place] = records[0].timestamp()[1]
            for route in self._routes_of(topic):
                position = route.positions.get(partition)
                if position is None:
                    continue
                try:
                    batch = route.reader.read(
                        records, partition=partition, position=position, landed_at=landed_at
                    )
                except SchemaAheadError as ahead:
                    self._catch_up(route, ahead.schema)
                    return
                if batch.next_offset > position.next_offset:
                    batches.append(batch)
        if not batches:
            return
        refused = self._sink.apply(batches)
        self._landed(batches, sorted_messages)
        for batch in batches:
            refused.update((batch.table.grant, letter.code) for letter in batch.dead_letters)
        for (grant, code), count in refused.items():
            observe.landed_dead_letters.labels(grant, code).inc(count)
            log.warning(
                "deliveries set aside", extra={"stage": STAGE, "grant": grant, "code": code, "count": count}
            )
        observe.batch_seconds.labels(STAGE).observe(time.perf_counter() - started)
        observe.batch_records.labels(STAGE).observe(sum(map(len, sorted_messages.values())))

    def _landed(self, batches: Sequence[PartitionChanges], read: dict[Place, list[Any]]) -> None:
        now_ms = self._clock().timestamp() * 1_000
        for batch in batches:
            grant = batch.table.grant
            place = (batch.table.topic, batch.partition)
            route = self._routes[grant]
            route.positions[batch.partition] = Position(batch.next_offset, batch.position.epoch)
            route.landed[batch.partition] = batch.next_offset
            observe.landed_records.labels(grant).inc(len(batch.changes))
            records = read[place]
            if records[0].offset() < batch.position.next_offset:
                records = [each for each in records if each.offset() >= batch.position.next_offset]
            # Many records of a batch are of the same millisecond.
            moments = Counter(each.timestamp()[1] for each in records)
            observe.latency_seconds.labels(grant).observe_many(
                {(now_ms - moment) / 1_000: times for moment, times in moments.items()}
            )
        self._backoff = 0.0

    def _catch_up(self, route: _Route, schema: Schema) -> None:
        """Give the subscription a moment to say what a new schema says; then take the schema's word."""
        key = (route.subscription.grant, schema.id)
        since = self._ahead.setdefault(key, time.monotonic())
        if time.monotonic() - since < _AHEAD_PATIENCE_SECONDS:
            self._unplace(set(self._placed), wait=_WAIT_SECONDS)
            return
        del self._ahead[key]
        try:
            self._use(route, self._sink.widen(self._wanted(route.subscription, schema)))
        except RejectedRecordError as error:
            route.reader.refuse(schema, error)
        self._unplace(set(self._placed))

    def _schema(self, schema_id: int) -> Schema:
        """Ask the registry, for one batch with bounded patience; what it did not know is kept for a while."""
        if self._unknown.get(schema_id, 0.0) > time.monotonic():
            raise UnknownSchemaError(f"the registry does not know schema {schema_id}")
        while True:
            try:
                return self._registry.schema(schema_id)
            except UnknownSchemaError:
                if time.monotonic() >= self._patience or self._stop.is_set():
                    self._unknown[schema_id] = time.monotonic() + _UNKNOWN_KEPT_SECONDS
                    raise
                observe.heartbeat(STAGE)
                self._stop.wait(0.2)

    def _note_caught_up(self) -> None:
        """Let the store know, now and then, that no deletion can have been missed."""
        now = time.monotonic()
        due = [place for place in self._caught_up if self._noted.get(place, 0.0) <= now]
        for topic in {topic for topic, _ in due}:
            for route in self._routes_of(topic):
                self._sink.note_caught_up(route.table, [place[1] for place in due if place[0] == topic])
        self._noted |= dict.fromkeys(due, now + _NOTE_SECONDS)

    # 5. Answer.

    def _answer(self) -> None:
        """Send the receipts that the bus is not known to have, and take down those that it has got."""
        for grant, version in self._receipts.acknowledged():
            self._sink.answered(grant, version)
            log.info("receipt sent", extra={"stage": STAGE, "grant": grant, "version": version})
        now = time.monotonic()
        if self._answer_at is None or now < self._answer_at:
            return
        waiting = self._sink.unanswered()
        self._answer_at = now + _SEND_AGAIN_SECONDS if waiting else None
        if not waiting:
            return
        if self._receipts.fault is not None:
            self._say("receipts cannot be sent now", receipts(self._config.department), self._receipts.fault)
        try:
            self._receipts.send(waiting)
        except (UnknownSchemaError, RegistryUnavailableError) as error:
            # Landing itself may well go on without the registry.
            self._say("receipts cannot be sent now", receipts(self._config.department), error.code)

    # Saying how it goes.

    def _routes_of(self, topic: str) -> list[_Route]:
        return [route for route in self._routes.values() if route.subscription.topic == topic]

    def _report(self) -> None:
        now = time.monotonic()
        if now < self._report_at:
            return
        self._report_at = now + _REPORT_SECONDS
        now_ms = self._clock().timestamp() * 1_000
        for grant, route in self._routes.items():
            topic = route.subscription.topic
            records, oldest_ms = 0, now_ms
            for place in self._assigned:
                if place[0] != topic or place in self._caught_up:
                    continue
                behind = self._behind(place, route.landed.get(place[1], 0))
                if behind:
                    records += behind
                    oldest_ms = min(oldest_ms, self._oldest_ms.get(place, now_ms))
            observe.lag_records.labels(grant).set(records)
            observe.lag_seconds.labels(grant).set(max(0.0, (now_ms - oldest_ms) / 1_000))

    def _behind(self, place: Place, landed: int) -> int:
        # What is being read tells its end with every answer; what is paused has to be asked for.
        known = {"cached": True} if place in self._placed else {"timeout": _ASK_SECONDS}
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*place), **known)
        except KafkaException:
            return 0
        return max(0, int(high) - max(landed, int(low)))

    def _say(self, fact: str, topic: str, code: str) -> None:
        """Log what would otherwise be logged many times a second, once a minute."""
        now = time.monotonic()
        if self._told.get((topic, code), 0.0) <= now:
            self._told[topic, code] = now + _UNKNOWN_KEPT_SECONDS
            log.warning(fact, extra={"stage": STAGE, "topic": topic, "code": code})


def delivery_consumer(department: str, broker: BrokerSettings, watch: BrokerWatch) -> Any:
    """Make the consumer of a department's delivery topics, a member of the group ``<department>.land``."""
    config = broker.client(
        group_id=f"{department}.{STAGE}",
        isolation_level="read_committed",
        enable_auto_commit=False,
        # Offsets are the store's. One that the topic does not have is looked into, not passed over.
        auto_offset_reset="error",
        enable_partition_eof=True,
        partition_assignment_strategy="cooperative-sticky",
        heartbeat_interval_ms=_HEARTBEAT_MS,
        session_timeout_ms=10_000,
        topic_metadata_refresh_interval_ms=_METADATA_MS,
        fetch_error_backoff_ms=100,
        fetch_wait_max_ms=100,
        fetch_queue_backoff_ms=10,
        queued_max_messages_kbytes=65_536,
    )
    return Consumer(config | {"error_cb": watch.on_error})


def run(
    config: LandConfig,
    broker: BrokerSettings,
    registry: Registry,
    *,
    stop: threading.Event,
) -> None:
    """Land a department's deliveries until ``stop`` is set.

    Raises:
        AccessDeniedError: the broker or the store refuses the credentials.
        ConfigurationError: land.yaml names a table that is not free.
        FencedError: another landing process, outside this one's group, writes into the same store.
    """
    watch = BrokerWatch()
    sink = open_sink(config.sink, clock=lambda: datetime.now(UTC))
    subscriptions = SubscriptionReader(config.department, broker, registry)
    answers = ReceiptSender(config.department, load_key(config.receipt_key), broker, registry)
    consumer = delivery_consumer(config.department, broker, watch)
    log.info("landing starts", extra={"stage": STAGE, "department": config.department})
    try:
        Landing(
            config,
            consumer=consumer,
            subscriptions=subscriptions,
            registry=registry,
            sink=sink,
            receipts=answers,
            stop=stop,
            watch=watch,
        ).run()
    except BusError as error:
        log.error("landing stops", extra={"stage": STAGE, "code": error.code})
        raise
    finally:
        consumer.close()
        subscriptions.close()
        answers.close()
        sink.close()
    log.info("landing stopped", extra={"stage": STAGE, "department": config.department})
