"""The intake: reads record batches, hands them to the exchange agent, and commits what it answers.

One thread makes every librdkafka call of the worker in sequence, so a rebalance
can only happen while it polls: before a batch is begun, or, looking ahead, after it
was put and before its offsets are, where it is given up.
One turn of its loop:

1. poll, which also serves rebalances; records that come in the same call as one are
   dropped, and every partition begins again at its committed offset: some of them may
   be of the new assignment, which has then moved past them;
2. hold back partitions whose key sets are not loaded, and everything while the policy
   is not fresh;
3. form slices, let the agent work them out under one policy, and have the guard look at the result;
4. commit: deliveries, dead letters, decisions, cursors, the source offsets, and the
   report of the policy offset that was applied where it is due, in one transaction,
   if the lease still holds at that moment;
5. load a piece of a key set, or bring one route a stretch further to the present;
6. report, where that is due and went with no batch.

In the steady state, in which a batch changes nothing but positions and key sets, the
next turn's 1 to 3 begin inside 4: what was put into the transaction is on its way, so
the next batch is read and the agent works it out while this one is committed. If a
rebalance comes with it, or the commit fails, both are set back; if the policy has
changed meanwhile, the next one is worked out anew. Each still has a transaction, a
policy and group metadata of its own.

What happens when 3 to 6 fail is written down, step by step, in
:mod:`govbus_processors.transaction`. When the end of it is that the worker ends, the
thread ends with ``failure`` set.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from govbus import observe, topics
from govbus.catalogue import ResourceKind
from govbus.codec import Registry, Schema, bus_schema, encode, parse_schema
from govbus.errors import (
    BrokerUnavailableError,
    FatalError,
    RegistryUnavailableError,
    RetriableError,
    UnknownSchemaError,
)
from govbus.policy import Effect, Reason
from govbus_processors.batch import Batch, Outcome, Output, Place, Slice, decision_record
from govbus_processors.checkpoint import Checkpoints
from govbus_processors.cursors import Cursor, Cursors
from govbus_processors.faults import broker_error, of_exception
from govbus_processors.garbage import Collector
from govbus_processors.guard import Guard
from govbus_processors.holds import Hold, Holder
from govbus_processors.keyset import KeySet
from govbus_processors.loading import Loader
from govbus_processors.membership import Membership
from govbus_processors.pace import Pace
from govbus_processors.polling import open_inlet
from govbus_processors.progress import StoredCursors, progress_records
from govbus_processors.quotas import Quotas
from govbus_processors.reader import STRETCH_RECORDS, STRETCH_SECONDS, Reader
from govbus_processors.sweep import Sweep
from govbus_processors.transaction import STUCK_SECONDS, AtLeastOnce, ExactlyOnce, Guarantee

if TYPE_CHECKING:
    from govbus.settings import BrokerSettings, ExchangeSettings
    from govbus_processors.directory import Directory
    from govbus_processors.routes import Policy, Route

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
"""How long a turn waits for a first record; also how late a revocation is noticed at most."""

_REPORT_EVERY = 0.5
_AGAIN_AFTER = 0.2
_LOOK_AGAIN = 0.5
_MEASURE_EVERY = 1.0
_CHECKPOINT_EVERY = 30.0
_WORTH_A_CHECKPOINT = 10_000
"""Changes of a key set; below that, reading the tail again is quicker than writing the whole."""

_ASK_SECONDS = 10.0
_ENDS_AT_ONCE = 10
_ENDS_AGAIN = 60.0
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_AGENT_SECONDS = 60.0


class Clock:
    """The wall clock, which never goes back: setting it back must not revive what has expired."""

    def __init__(self) -> None:
        self._latest = datetime.now(UTC)

    def now(self) -> datetime:
        """Return the time, with time zone."""
        self._latest = max(self._latest, datetime.now(UTC))
        return self._latest


class RebalancedError(RetriableError):
    """The partitions were dealt anew before a batch was committed; whoever has them now reads it again."""

    code = "rebalanced"


@dataclass(slots=True)
class _Read:
    """What one poll gave: a live batch, perhaps already with the agent."""

    messages: Mapping[Place, Sequence[Any]]
    """By source partition, in order of offset."""

    group: Any
    """The group's metadata at that time: the broker refuses the offsets of a member replaced since."""

    more: bool
    """Whether there is more to read at once. Else looking ahead would find next to nothing, and commit it."""

    batch: Batch | None = None
    """As the agent has it; None until it is formed."""


@dataclass(frozen=True, slots=True)
class _Behind:
    """Which routes are behind, and for how long that may be taken for granted."""

    policy: Policy
    revision: int
    until: float
    """Monotonic seconds."""

    routes: list[tuple[Place, int, tuple[Route, ...]]]


class Intake:
    """Owns the consumer, the producer and the thread that uses them."""

    def __init__(
        self,
        *,
        worker: str,
        broker: BrokerSettings,
        registry: Registry,
        settings: ExchangeSettings,
        directory: Directory,
        membership: Membership,
        checkpoints: Checkpoints,
        submit: Callable[[Batch], None],
    ) -> None:
        self.failure: FatalError | None = None
        """Set when the thread has ended for good; the worker must stop."""

        self.ended = threading.Event()
        self._worker = worker
        self._broker = broker
        self._registry = registry
        self._settings = settings
        self._directory = directory
        self._membership = membership
        self._checkpoints = checkpoints
        self._submit = submit
        self._clock = Clock()
        self._collector = Collector()
        self._cursors = Cursors(forgets_after=timedelta(seconds=settings.sweep_after_seconds))
        self._guard = Guard(registry)
        self._quotas = Quotas(self._cursors, ZoneInfo(settings.quota_zone))
        self._loader = Loader(membership=membership, checkpoints=checkpoints, quotas=self._quotas)
        self._sweeps: dict[Place, Sweep] = {}
        """By delivery topic and partition: routes that have arrived and hold what may be gone."""

        self._held: dict[Place, float] = {}
        """Paused source partitions, and when to look at them again (monotonic seconds)."""

        self._ahead: _Read | None = None
        """The batch after the one that is being committed."""

        self._read_at = 0.0
        """When a batch was read last (monotonic seconds)."""

        self._pace = Pace(settings.batch_records)
        self._behind_seen: _Behind | None = None
        self._stored = StoredCursors(registry)
        self._epoch = 0
        self._opened = False
        self._subscribed: frozenset[str] = frozenset()
        self._reported_offset = -2
        self._reported_at = 0.0
        self._said_stale = True  # not yet confirmed is no news when a worker starts
        self._known_since: float | None = None
        """When the first report was committed (monotonic seconds)."""

        self._still: list[dict[str, str]] = []
        self._looked_at = -_REPORT_EVERY
        self._turns = 0
        self._measured_at = 0.0
        self._look_at = 0.0
        """When to ask again where partitions end (monotonic seconds)."""

        self._checkpointed_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch under way, say goodbye, leave the group. Waits for that."""
        self._stop.set()
        self._thread.join(timeout=30)

    def stuck(self) -> bool:
        """Whether the thread is held in a call that can lead to nothing any more. For other threads."""
        since = self._guarantee.calling_since if self._opened else None
        return since is not None and time.monotonic() - since > STUCK_SECONDS

    # ---- the thread ----

    def _run(self) -> None:
        try:
            self._open()
            self._collector.take_over()
            try:
                while not self._stop.is_set():
                    self._turn()
                    if self._directory.failure is not None:
                        raise self._directory.failure
                self._drop_ahead()
                self._checkpoint_all()
                self._commit_report(stopping=True)
            finally:
                self._checkpoints.wait()
                self._inlet.close()
                self._consumer.close()
                self._reader.close()
        except FatalError as error:
            self.failure = error
            _log.exception("intake stopped", extra={"code": error.code, "worker": self._worker})
        except Exception:
            self.failure = FatalError("the intake failed")
            _log.exception("intake failed", extra={"worker": self._worker})
        finally:
            self.ended.set()

    def _open(self) -> None:
        self._consumer = Consumer(
            self._broker.client(
                group_id=topics.EXCHANGE_GROUP,
                client_id=self._worker,
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                # The default, range, would give every one-partition topic to the same worker.
                partition_assignment_strategy="roundrobin",
                session_timeout_ms=6_000,
                heartbeat_interval_ms=500,
                max_poll_interval_ms=300_000,
                fetch_wait_max_ms=100,
                queued_max_messages_kbytes=131_072,
                # When the queue is full. A worker empties it in less than the second that is the default.
                fetch_queue_backoff_ms=10,
            )
        )
        self._inlet = open_inlet(self._consumer, on_assign=self._on_assign, on_revoke=self._on_revoke)
        self._reader = Reader(self._broker)
        self._guarantee: Guarantee = (
            ExactlyOnce(self._broker, f"{topics.EXCHANGE_GROUP}.{self._worker}")
            if self._settings.guarantee == "exactly-once"
            else AtLeastOnce(self._broker, self._consumer)
        )
        self._opened = True
        self._patiently("open the producer", self._guarantee.open)
        self._schemas: dict[str, Schema] = {}
        self._patiently("look up the bus's schemas", self._look_up_schemas)

    def _look_up_schemas(self) -> None:
        for topic, name in (
            (topics.DECISIONS, "decision"),
            (topics.WORKERS, "worker"),
            (topics.PROGRESS, "progress"),
        ):
            self._schemas[name] = self._schema_of(topic, name)

    def _schema_of(self, topic: str, name: str) -> Schema:
        """The bus's own schema, under the id that the registry gave it for a topic."""
        try:
            return parse_schema(self._registry.latest(f"{topic}-value").id, bus_schema(name))
        except UnknownSchemaError:
            raise RegistryUnavailableError(f"the schema of {topic} is not registered yet") from None

    def _patiently(self, what: str, step: Callable[[], None]) -> None:
        """Do a step as soon as what it needs is there."""
        while not self._stop.is_set():
            observe.heartbeat("intake")
            try:
                step()
            except RetriableError as error:
                _log.warning("waiting to %s", what, extra={"code": error.code})
                self._stop.wait(_AGAIN_AFTER)
            else:
                return

    def _fresh(self) -> bool:
        """Whether anything may be delivered now.

        Not before a first report is committed and the policy was confirmed
        after that. A revocation waits for the workers that have reported: one
        that delivered before it reported would be overlooked.
        """
        since = self._known_since
        return since is not None and self._directory.fresh(since=since)

    def _turn(self) -> None:
        observe.heartbeat("intake")
        self._subscribe()
        now = self._clock.now()
        policy, fresh = self._directory.policy, self._fresh()
        behind = self._behind(policy, now) if fresh else []
        save = time.monotonic() >= self._checkpointed_at + _CHECKPOINT_EVERY
        busy = bool(self._loader or behind or save)
        epoch = self._epoch
        read, self._ahead = self._ahead, None
        if read is None:
            read = self._read(0.0 if busy else _POLL_SECONDS, fill=0.0 if busy else self._fill_seconds())
        if read is not None:
            self._live(read, look_ahead=read.more and not busy)
        self._release()
        if self._ahead is None:
            if self._loader:
                self._load_some()
            elif behind and epoch == self._epoch:
                self._turns += 1
                self._catch_up(*behind[self._turns % len(behind)])
            if save:
                self._checkpoint_one()
        self._report_if_due()
        self._measure_lag()
        self._look_for_ends()
        self._collector.between_batches()

    def _behind(self, policy: Policy, now: datetime) -> list[tuple[Place, int, tuple[Route, ...]]]:
        """Which routes have to be caught up on: looked for when that may have changed, not every turn.

        A worker may serve ten thousand routes. That one's time has come is noticed a little late; that
        its time is over is looked at again before anything is delivered.
        """
        seen = self._behind_seen
        moment = time.monotonic()
        if (
            seen is None
            or seen.policy is not policy
            or seen.revision != self._cursors.revision
            or moment >= seen.until
        ):
            found = self._cursors.behind(policy, now=now, fresh=True, held=self._holder(now))
            seen = self._behind_seen = _Behind(policy, self._cursors.revision, moment + _LOOK_AGAIN, found)
        return seen.routes

    def _measure_lag(self) -> None:
        """Say how far the live stream is behind, from what the broker said with its last answers."""
        if time.monotonic() < self._measured_at + _MEASURE_EVERY:
            return
        self._measured_at = time.monotonic()
        lag: dict[str, int] = {}
        for place in self._cursors.places:
            # Cached by the client and refreshed by every fetch: asking costs nothing.
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            if high >= 0:
                position = self._cursors.position(place)
                resource = topics.resource_of(place[0])
                behind = high - (max(low, 0) if position is None else position)
                lag[resource] = lag.get(resource, 0) + max(behind, 0)
        for resource, records in lag.items():
            observe.exchange_lag_records.labels(resource).set(records)

    def _look_for_ends(self) -> None:
        """Ask where partitions end that have not been looked at for a while: a few, so that nothing waits."""
        if time.monotonic() < self._look_at:
            return
        now, resources = self._clock.now(), self._directory.policy.resources
        due = [place for place in self._cursors.recency.due(now) if place[0] in resources]
        self._look_at = time.monotonic() + (_LOOK_AGAIN if len(due) > _ENDS_AT_ONCE else _ENDS_AGAIN)
        try:
            for place in due[:_ENDS_AT_ONCE]:
                self._cursors.look(place, self._reader.end(place), now)
        except RetriableError as error:
            # Not soon again: while a broker is asked that does not answer, nothing else is done.
            self._look_at = time.monotonic() + _ENDS_AGAIN
            _log.warning("the end of a partition cannot be asked for now", extra={"code": error.code})

    def _subscribe(self) -> None:
        wanted = frozenset(self._directory.policy.resources)
        if wanted != self._subscribed:
            self._subscribed = wanted
            if wanted:
                self._consumer.subscribe(
                    sorted(wanted),
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_revoke,
                )
            else:
                self._consumer.unsubscribe()

    def _fill_seconds(self) -> float:
        """For how long a batch may fill: until so long after the one before, and after a pause not at all."""
        return max(0.0, self._read_at + self._settings.batch_wait_seconds - time.monotonic())

    def _read(self, seconds: float, *, fill: float) -> _Read | None:
        """Read a batch: wait so long for its first record, and then so long for it to fill."""
        epoch = self._epoch
        limit = self._pace.limit
        messages = self._poll(seconds, fill)
        if epoch != self._epoch:
            self._read_again(messages)
            return None
        if not messages:
            return None
        self._read_at = time.monotonic()
        more = 2 * sum(map(len, messages.values())) >= limit
        return _Read(messages, self._consumer.consumer_group_metadata(), more)

    def _poll(self, seconds: float, fill: float) -> Mapping[Place, Sequence[Any]]:
        good, faults = self._inlet.fetch(seconds, fill, self._pace.limit)
        for error in faults:
            if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                problem = broker_error(error)
                # One connection that was refused is not all of them: those that matter say so themselves.
                if isinstance(problem, FatalError) and error.code() != KafkaError._AUTHENTICATION:
                    raise problem
                _log.warning("the broker reports a fault", extra={"code": error.name()})
        return good

    def _read_again(self, dropped: Mapping[Place, Sequence[Any]]) -> None:
        """Begin again where the partitions stand, if records were read in the same call as a rebalance.

        The call goes on after the new assignment and may return its first records. To drop those alone
        would lose them: the client's position is behind them already.
        """
        if dropped and self._cursors.places:
            self._consumer.assign([self._begin_at(place) for place in self._cursors.places])

    def _begin_at(self, place: Place) -> TopicPartition:
        position = self._cursors.position(place)
        return TopicPartition(*place, OFFSET_BEGINNING if position is None else position)

    # ---- rebalances: called inside _poll, in this thread ----

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._epoch += 1
        self._forget_partitions()
        try:
            # Waits until no transaction of the partitions' former owner is open (KIP-447).
            committed = consumer.committed(partitions, timeout=_ASK_SECONDS) if partitions else []
            for place in committed:
                if place.error is not None:
                    # Not the same as "nothing was ever committed", which begins at the first record.
                    raise broker_error(place.error)
            self._stored.read_on(self._reader, seconds=_ASK_SECONDS)
            missed = [self._missed_since(place) for place in committed]
        except (KafkaException, RetriableError):
            # Without knowing where to begin, begin nowhere; leaving makes the group deal again.
            _log.warning("assignment given back: offsets cannot be read", extra={"worker": self._worker})
            consumer.assign([])
            consumer.unsubscribe()
            self._subscribed = frozenset()
            return
        for place, since in zip(committed, missed, strict=True):
            key = (place.topic, place.partition)
            position = place.offset if place.offset >= 0 else None
            stored = self._stored.of(key)
            self._cursors.assign(key, position, stored, note=place.metadata, missed_since=since)
            self._look_at = 0.0
            place.offset = OFFSET_BEGINNING if position is None else position
        routes = self._directory.policy.routes
        self._membership.retain(
            {(route.topic, p.partition) for p in committed for route in routes.get(p.topic, ())}
        )
        consumer.assign(committed)
        _log.info("partitions assigned", extra={"count": len(committed), "worker": self._worker})

    def _missed_since(self, place: TopicPartition) -> datetime | None:
        """Since when the source may have forgotten deletions that nobody read; None when it cannot have."""
        key = (place.topic, place.partition)
        if place.offset >= 0:
            since = self._cursors.recency.forgotten_since(place.metadata, self._clock.now())
        else:
            # There was an offset when these cursors were stored: the broker has forgotten it.
            since = _LONG_AGO if self._stored.of(key) else None
        if since is None or self._reader.end(key) <= place.offset:
            return None
        _log.warning(
            "not read for longer than deletions are kept: its grants are brought on anew",
            extra={"topic": place.topic, "partition": place.partition, "worker": self._worker},
        )
        return since

    def _on_revoke(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._epoch += 1
        # A paused partition would still be paused when it comes back, and nobody would know of it. Not done
        # after the next assignment: librdkafka can lose the offset that it was just given.
        if self._held:
            consumer.resume([TopicPartition(*place) for place in self._held])
        self._forget_partitions()
        consumer.unassign()

    def _forget_partitions(self) -> None:
        self._cursors.clear()
        self._membership.suspend()
        self._sweeps.clear()
        self._loader.clear()
        self._quotas.clear()
        self._held.clear()

    # ---- live batches ----

    def _live(self, read: _Read, *, look_ahead: bool) -> None:
        policy = self._directory.policy
        if not self._fresh():
            if not self._said_stale:
                self._said_stale = True
                _log.warning("policy not confirmed: nothing is delivered", extra={"worker": self._worker})
            self._forget(read)
            self._set_back(read.messages, hold=_AGAIN_AFTER)
            return
        self._said_stale = False
        if read.batch is not None and read.batch.policy is not policy:
            self._forget(read)
        if read.batch is None:
            batch, lacking = self._form(read, policy, {})
            self._set_back(lacking, hold=_AGAIN_AFTER)
            if not batch.slices:
                return
            read.batch = batch
            self._submit(batch)
        self._exchange(read.batch, read.group, live=True, look_ahead=look_ahead)

    def _form(self, read: _Read, policy: Policy, after: Mapping[Place, int]) -> tuple[Batch, list[Place]]:
        """Make a batch of what was read, without the partitions, named apart, that lack something.

        ``after`` says where partitions will stand once the batch before is committed.
        """
        batch, lacking = Batch(policy=policy, now=self._clock.now(), slices=[]), []
        for place, records in read.messages.items():
            if place not in self._cursors.places:
                continue
            if place[0] not in policy.resources or self._lacks(place, policy, batch.now):
                lacking.append(place)
                continue
            held = self._holder(batch.now, live_records=len(records))
            batch.slices.append(
                self._cursors.live_slice(
                    place,
                    records,
                    policy=policy,
                    now=batch.now,
                    fresh=True,
                    held=held,
                    after=after.get(place),
                )
            )
        return batch, lacking

    def _look_ahead(self, batch: Batch, outcome: Outcome) -> None:
        """Read the batch after this one; let the agent begin with it where this one changes nothing for it.

        Raises:
            RebalancedError: a rebalance came first, so this one must not be committed.
        """
        epoch = self._epoch
        read = self._read(0.0, fill=0.0)
        if epoch != self._epoch:
            raise RebalancedError("the partitions were dealt anew")
        if read is None:
            return
        self._ahead = read
        if self._cursors.staged():
            return  # what a quota has left, say, is known when this one is committed
        following, lacking = self._form(read, batch.policy, outcome.next_offsets)
        if self._cursors.staged():
            # A grant has expired since, for instance: that is for the next batch's own transaction.
            self._cursors.rollback()
        elif following.slices and not lacking:
            read.batch = following
            self._submit(following)

    def _drop_ahead(self) -> set[Place]:
        """Forget the batch after the one at hand, and say which partitions it was of: they are behind it."""
        read, self._ahead = self._ahead, None
        if read is None:
            return set()
        self._forget(read)
        return set(read.messages)

    def _forget(self, read: _Read) -> None:
        """Make it as if the agent had never had a batch."""
        if read.batch is not None:
            try:
                self._await_agent(read.batch)
            except RetriableError as error:
                _log.warning("batch set back", extra={"code": error.code, "worker": self._worker})
            read.batch = None
            self._membership.rollback()

    def _exchange(
        self,
        batch: Batch,
        group: Any,
        *,
        live: bool,
        look_ahead: bool = False,
        settle: Callable[[Outcome], None] | None = None,
    ) -> None:
        """Wait for what the agent makes of a batch and commit it; on a fault that passes, set all back."""
        began = time.monotonic()
        places = [part.place for part in batch.slices]
        try:
            outcome = self._await_agent(batch)
            self._guard.check(batch, outcome)
            if settle is not None:
                settle(outcome)
            self._spend(batch, outcome)
            moved = dict(outcome.next_offsets) if live else {}
            meanwhile = partial(self._look_ahead, batch, outcome)
            self._commit(
                batch.policy,
                outcome,
                moved,
                places,
                group,
                meanwhile=meanwhile if look_ahead and not outcome.waiting else None,
            )
        except RetriableError as error:
            dropped = self._take_back(error)
            if live and not isinstance(error, RebalancedError):
                self._set_back(dropped.union(places), hold=_AGAIN_AFTER)
            return
        self._membership.commit()
        self._quotas.commit()
        self._cursors.commit(moved)
        seconds = time.monotonic() - began
        self._pace.note(sum(len(part.messages) for part in batch.slices), seconds)
        self._count(batch, outcome, live=live, seconds=seconds)
        if live and outcome.waiting:
            self._set_back(outcome.waiting, hold=_AGAIN_AFTER)

    def _take_back(self, error: RetriableError) -> set[Place]:
        """Make it as if a batch, and the one after it, had never been begun, here and at the broker.

        Returns the partitions of the one after it.
        """
        _log.warning("batch set back", extra={"code": error.code, "worker": self._worker})
        observe.transactions.labels("aborted").inc()
        dropped = self._drop_ahead()
        self._cursors.rollback()
        self._membership.retract()
        self._quotas.rollback()
        self._behind_seen = None  # a route may be held back from now on
        self._guarantee.abort()
        return dropped

    def _await_agent(self, batch: Batch) -> Outcome:
        until = time.monotonic() + _AGENT_SECONDS
        while time.monotonic() < until:
            try:
                return batch.outcome.result(timeout=1.0)
            except NotYet:
                if batch.outcome.done():
                    raise
        raise FatalError("the exchange agent does not answer")

    def _commit(
        self,
        policy: Policy,
        outcome: Outcome,
        moved: dict[Place, int],
        places: Sequence[Place],
        group: Any,
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Make one batch visible; the order is that of :mod:`govbus_processors.transaction`.

        ``meanwhile`` is done when everything is put and before the offsets are: librdkafka is sending then.
        """
        guarantee = self._guarantee
        self._membership.seal()
        guarantee.begin()
        for topic, records in outcome.deliveries.items():
            if records:
                guarantee.put(topic, records)
        for topic, key, record in outcome.dead_letters:
            guarantee.put(topic, [Output(key, self._dead_letter(topic, record), 0)])
        if outcome.decisions:
            guarantee.put(
                topics.DECISIONS,
                [
                    Output(d["grant"].encode(), encode(self._schemas["decision"], d), 0)
                    for d in outcome.decisions
                ],
            )
        if self._cursors.staged():
            stored = progress_records(
                self._cursors,
                policy,
                schema=self._schemas["progress"],
                worker=self._worker,
                now=self._clock.now(),
            )
            guarantee.put(topics.PROGRESS, stored)
        # With the first output under a policy, and else now and then: each is read by every worker.
        report = self._report_due(policy.offset)
        if report:
            self._put_report(policy.offset, stopping=False)
        if meanwhile is not None:
            meanwhile()
        if not self._fresh():
            raise BrokerUnavailableError("the lease ran out before the commit")
        offsets = []
        for place in places:
            offset = moved.get(place, self._cursors.position(place))
            if offset is not None:
                offsets.append(TopicPartition(*place, offset, self._cursors.recency.note(place)))
        guarantee.commit(offsets, group)
        if report:
            self._reported(policy.offset)
        observe.transactions.labels("committed").inc()

    def _dead_letter(self, topic: str, record: dict[str, Any]) -> bytes:
        schema = self._schemas.get(topic)
        if schema is None:
            schema = self._schemas[topic] = self._schema_of(topic, "dead-letter")
        return encode(schema, record)

    def _count(self, batch: Batch, outcome: Outcome, *, live: bool, seconds: float) -> None:
        observe.batch_seconds.labels("exchange").observe(seconds)
        observe.batch_records.labels("exchange").observe(sum(len(part.messages) for part in batch.slices))
        if live:
            for place, records in outcome.considered.items():
                observe.exchanged_records.labels(topics.resource_of(place[0])).inc(records)
        for decision in outcome.decisions:
            grant = decision["grant"]
            if decision["effect"] == "deny":
                observe.decisions.labels(grant, "deny", decision["reason"]).inc(decision["considered"])
                continue
            for result, reason, count in (
                ("permit", "permitted", decision["delivered"]),
                ("deny", "row-filtered", decision["filtered"]),
                ("deny", "view-failed", decision["rejected"]),
            ):
                if count:
                    observe.decisions.labels(grant, result, reason).inc(count)
            observe.delivered_records.labels(grant).inc(decision["delivered"] + decision["left_view"])
        for topic, _key, record in outcome.dead_letters:
            observe.dead_letters.labels(topics.dead_letters_of(topic), record["code"]).inc()

    # ---- holding routes back ----

    def _hold(self, route: Route, partition: int, now: datetime) -> Hold | None:
        """What holds a route back that the policy permits."""
        if self._guard.suspends(route):
            return Hold.GUARD_VIOLATION
        return self._quotas.hold(route, partition, now) if route.first.grant.has_quota else None

    def _holder(self, now: datetime, *, live_records: int = 0) -> Holder:
        """Say what holds routes back that the policy permits, from a live batch of so many records if given.

        Asking begins to read what a quota has to know.
        """

        def held(route: Route, partition: int) -> Hold | None:
            hold = self._hold(route, partition, now)
            if hold is Hold.QUOTA_UNKNOWN:
                self._loader.count(route, partition, now, self._reader)
            if hold is None and not self._quotas.fits(route, partition, now, live_records):
                return Hold.QUOTA_NEAR
            return hold

        return held

    def _spend(self, batch: Batch, outcome: Outcome) -> None:
        """Count what the batch uses of quotas."""
        for part in batch.slices:
            partition = part.place[1]
            for route in part.routes:
                if route.first.grant.has_quota:
                    outputs = [one for one in outcome.deliveries.get(route.topic, ()) if one[2] == partition]
                    self._spend_on(route, partition, batch.now, outputs, considered=len(part.messages))

    def _spend_on(
        self, route: Route, partition: int, now: datetime, outputs: Sequence[Output], *, considered: int
    ) -> None:
        if route.first.grant.has_quota:
            end = partial(self._reader.end, (route.topic, partition))
            self._quotas.spend(route, partition, now, outputs, considered=considered, end=end)

    def _held_routes(self) -> list[dict[str, str]]:
        """What operators are told of routes that stand still here; found out anew now and then."""
        if time.monotonic() < self._looked_at + _REPORT_EVERY:
            return self._still
        self._looked_at = time.monotonic()
        routes, now = self._directory.policy.routes, self._clock.now()
        held = {
            (route.label, hold.value)
            for topic, partition in self._cursors.places
            for route in routes.get(topic, ())
            if (hold := self._hold(route, partition, now)) is not None
        }
        for hold in Hold:
            observe.held_grants.labels(hold.value).set(sum(reason == hold for _, reason in held))
        self._still = [{"grant": grant, "reason": reason} for grant, reason in sorted(held)]
        return self._still

    # ---- holding partitions back ----

    def _set_back(self, places: Iterable[Place], *, hold: float) -> None:
        """Read these partitions again from where they stand, a little later."""
        again = time.monotonic() + hold
        for place in places:
            if place not in self._cursors.places:
                continue
            try:
                self._consumer.pause([TopicPartition(*place)])
                self._consumer.seek(self._begin_at(place))
            except KafkaException as raised:
                raise broker_error(of_exception(raised)) from None
            self._held[place] = again

    def _release(self) -> None:
        """Let held partitions go on whose time has come; what they lack is looked at again then."""
        if not self._held:
            return
        now = time.monotonic()
        policy = self._directory.policy
        due = [p for p, again in self._held.items() if again <= now and not self._loader.lacks(p, policy)]
        if due:
            self._consumer.resume([TopicPartition(*place) for place in due])
            for place in due:
                del self._held[place]

    # ---- key sets ----

    def _lacks(self, place: Place, policy: Policy, now: datetime) -> bool:
        """Whether a source partition has to wait for a key set, which begins to be loaded."""
        return self._loader.load_what_lacks(place, policy, now, self._reader)

    def _load_some(self) -> None:
        try:
            if self._loader.read_on(self._directory.policy, self._clock.now(), self._reader):
                self._behind_seen = None
        except RetriableError as error:
            _log.warning("keys cannot be read now", extra={"code": error.code})
            self._stop.wait(_AGAIN_AFTER)

    def _checkpoint_one(self) -> None:
        self._checkpointed_at = time.monotonic()
        most = self._membership.most_changed()
        if most is not None and most[1].changes >= _WORTH_A_CHECKPOINT:
            self._checkpoint(*most)

    def _checkpoint_all(self) -> None:
        while (most := self._membership.most_changed()) is not None and most[1].changes:
            if not self._checkpoint(*most):
                return

    def _checkpoint(self, place: Place, keys: KeySet) -> bool:
        """Save a key set; True when it could be.

        The end of the delivery topic is asked for first, then the source
        offset is committed as a member of the group. That the broker takes it
        proves that nobody else wrote up to that end: a worker that was frozen
        and replaced cannot save a key set that lacks its successor's records.
        """
        source = next((p for p in self._cursors.places if self._feeds(p, place)), None)
        position = None if source is None else self._cursors.position(source)
        keys.changes = 0
        if source is None:
            return True  # its grant has ended: there is nothing to save
        if position is None:
            return False
        try:
            topic_id, end = self._reader.topic_id(place[0]), self._reader.end(place)
            self._guarantee.begin()
            self._put_report(self._directory.policy.offset, stopping=False)
            self._guarantee.commit(
                [TopicPartition(*source, position, self._cursors.recency.note(source))],
                self._consumer.consumer_group_metadata(),
            )
        except RetriableError as error:
            _log.warning("no checkpoint", extra={"code": error.code, "topic": place[0]})
            self._guarantee.abort()
            return False
        self._checkpoints.save(place, topic_id, keys, end)
        return True

    def _feeds(self, source: Place, delivery: Place) -> bool:
        routes = self._directory.policy.routes.get(source[0], ())
        return source[1] == delivery[1] and any(
            route.topic == delivery[0] and not route.ended for route in routes
        )

    # ---- catching up ----

    def _catch_up(self, place: Place, offset: int, routes: tuple[Route, ...]) -> None:
        """Bring routes that stand at one cursor a stretch nearer to the present."""
        policy, now = self._directory.policy, self._clock.now()
        target = self._cursors.position(place)
        if target is None or self._lacks(place, policy, now):
            return
        # A route may have been amended, or be held back, since the list was made: only what still stands
        # is brought on.
        held = self._holder(now)
        routes = tuple(
            route
            for route in routes
            if policy.deliveries.get(route.topic) == route
            and route.decide(now=now, fresh=True).effect is Effect.PERMIT
            and held(route, place[1]) is None
        )
        if not routes:
            return
        for route in routes:
            if (sweep := self._sweep_of(place, offset, route)) is not None:
                self._sweep_some(place, route, sweep, policy, now)
                return
        limit = self._share_beside_live_batches()
        unmetered = tuple(route for route in routes if not route.first.grant.has_quota)
        if not unmetered:
            # How far a quota reaches differs from grant to grant, so each goes alone.
            routes = routes[:1]
            limit = self._quotas.stretch(routes[0], place[1], now, limit)
        else:
            routes = unmetered
        try:
            begun = self._begin(place, routes, now) if offset == 0 else {}
            stretch = self._reader.read(place, offset, limit=limit, seconds=STRETCH_SECONDS)
        except RetriableError as error:
            _log.warning("a grant cannot be brought up to the present now", extra={"code": error.code})
            self._stop.wait(_AGAIN_AFTER)
            return
        messages = [m for m in stretch.messages if m.offset() < target]
        arrived = stretch.position >= target
        if not messages and not arrived:
            return

        def settle(outcome: Outcome) -> None:
            if place in outcome.waiting:
                reached, live = outcome.next_offsets.get(place, offset), False
            else:
                reached, live = (target, True) if arrived else (stretch.position, False)
            self._cursors.caught_up_to(place, routes, reached, live=live, begun=begun, now=now)
            for route in routes:
                observe.backfill_remaining.labels(route.label).set(target - reached)

        part = Slice(place=place, start=offset, messages=messages, routes=routes, live=False)
        batch = Batch(policy=policy, now=now, slices=[part])
        self._submit(batch)
        self._exchange(batch, self._consumer.consumer_group_metadata(), live=False, settle=settle)
        if arrived:
            self._begin_sweeps(place, target, routes)

    def _share_beside_live_batches(self) -> int:
        """How many records are read again at a time: live batches get the larger share."""
        return max(1, self._pace.limit // 2)

    def _begin(self, place: Place, routes: tuple[Route, ...], now: datetime) -> dict[str, Cursor]:
        """The cursors of routes that begin from the start, by delivery topic."""
        return {
            route.topic: Cursor(
                route.first.view,
                live=False,
                offset=0,
                since=now,
                # Events do not end: only the rows of a table can be gone.
                sweep=self._reader.end((route.topic, place[1]))
                if route.resource.kind is ResourceKind.STATE
                else 0,
            )
            for route in routes
        }

    # ---- sweeping ----

    def _begin_sweeps(self, place: Place, arrived_at: int, routes: tuple[Route, ...]) -> None:
        for route in routes:
            cursor = self._cursors.of(route, place[1])
            if cursor is not None and cursor.sweep and not cursor.live and cursor.offset == arrived_at:
                delivery = (route.topic, place[1])
                try:
                    self._sweeps[delivery] = Sweep(cursor, end=self._reader.end(delivery), partition=place[1])
                except RetriableError as error:
                    _log.warning("a sweep cannot begin now", extra={"code": error.code})

    def _sweep_of(self, place: Place, offset: int, route: Route) -> Sweep | None:
        """The sweep that a route at ``offset`` has to go through; one for another cursor is dropped."""
        delivery = (route.topic, place[1])
        sweep = self._sweeps.get(delivery)
        if sweep is None:
            return None
        if sweep.cursor.offset == offset and sweep.is_of(self._cursors.of(route, place[1])):
            return sweep
        del self._sweeps[delivery]
        return None

    def _sweep_some(self, place: Place, route: Route, sweep: Sweep, policy: Policy, now: datetime) -> None:
        """Go a stretch further in a sweep; what it takes away is one transaction."""
        delivery = (route.topic, place[1])
        began = time.monotonic()
        limit = (
            self._quotas.stretch(route, place[1], now, self._share_beside_live_batches())
            if sweep.searched
            else STRETCH_RECORDS
        )
        try:
            stretch = self._reader.read(delivery, sweep.position, limit=limit, seconds=STRETCH_SECONDS)
        except RetriableError as error:
            _log.warning("a sweep cannot go on now", extra={"code": error.code})
            self._stop.wait(_AGAIN_AFTER)
            return
        gone = sweep.look(stretch.messages, stretch.position)
        if not gone and not sweep.done:
            return
        part = Slice(place=place, start=sweep.cursor.offset, messages=[], routes=(route,), live=False)
        batch = Batch(policy=policy, now=now, slices=[part])
        decision = decision_record(
            batch, part, route, worker=self._worker, considered=0, last=sweep.cursor.offset - 1
        )
        counts = {"delivered": 0, "filtered": 0, "left_view": len(gone), "rejected": 0}
        told = {"effect": Effect.PERMIT.value, "reason": Reason.PERMITTED.value}
        outcome = Outcome(
            deliveries={route.topic: gone}, decisions=[decision | told | counts] if gone else []
        )
        if route.filtered:
            keys = self._membership.of(*delivery)
            for tombstone in gone:
                keys.leave(tombstone.key or b"")
        self._cursors.sweeping(place, route, now, done=sweep.done)
        try:
            self._guard.check_swept(route, outcome)
            if gone:
                self._spend_on(route, place[1], now, gone, considered=len(stretch.messages))
            self._commit(policy, outcome, {}, [place], self._consumer.consumer_group_metadata())
        except RetriableError as error:
            self._take_back(error)
            sweep.rollback()
            return
        sweep.commit()
        self._membership.commit()
        self._quotas.commit()
        self._cursors.commit({})
        self._count(batch, outcome, live=False, seconds=time.monotonic() - began)
        if sweep.done:
            del self._sweeps[delivery]

    # ---- reports ----

    def _report_if_due(self) -> None:
        if self._report_due(self._directory.policy.offset):
            try:
                self._commit_report(stopping=False)
            except RetriableError as error:
                _log.warning("report not sent", extra={"code": error.code})
                self._guarantee.abort()
                self._stop.wait(_AGAIN_AFTER)

    def _report_due(self, offset: int) -> bool:
        return offset != self._reported_offset or time.monotonic() - self._reported_at >= _REPORT_EVERY

    def _commit_report(self, *, stopping: bool) -> None:
        offset = self._directory.policy.offset
        self._guarantee.begin()
        self._put_report(offset, stopping=stopping)
        recency = self._cursors.recency
        told = [
            TopicPartition(*place, position, recency.note(place))
            for place in recency.news
            if not stopping and (position := self._cursors.position(place)) is not None
        ]
        self._guarantee.commit(told, self._consumer.consumer_group_metadata() if told else None)
        recency.told()
        self._reported(offset)

    def _put_report(self, offset: int, *, stopping: bool) -> None:
        report = {
            "worker": self._worker,
            "transactional_id": self._guarantee.transactional_id,
            "grants_offset": offset,
            "lease_seconds": self._directory.lease_seconds,
            "partitions": len(self._cursors.places),
            "reported_at": self._clock.now(),
            "stopping": stopping,
            "held": self._held_routes(),
        }
        value = encode(self._schemas["worker"], report)
        self._guarantee.put(topics.WORKERS, [Output(self._worker.encode(), value, 0)])

    def _reported(self, offset: int) -> None:
        self._reported_offset = offset
        self._reported_at = time.monotonic()
        if self._known_since is None:
            self._known_since = self._reported_at
