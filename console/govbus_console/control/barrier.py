"""The revocation barrier: wait until it is certain that nothing more is delivered under a grant. Does I/O.

A revocation is a record on ``govbus.grants``, at some offset. Exchange workers
report on the compacted topic ``govbus.workers`` up to which offset they enforce
that topic, at least every half second and in the same transaction as their
output. :func:`wait` returns when every worker is past the revocation, by one of
three ways:

1. **It says so.** It has reported a ``grants_offset`` that is not smaller. A
   worker's transactions follow one another: once a report of a later one is in
   the log, every earlier one has been committed or aborted, and its markers
   written. So a report counts as soon as it is in the log, also inside a
   transaction that is still open: what that transaction delivers was decided
   under the revocation. Reading uncommitted records also keeps a frozen worker,
   whose open transaction holds back readers of committed ones, from hiding the
   reports of the others.
2. **It cannot any more.** A worker that has not reported for a second is fenced:
   its transactional id is initialised anew, which aborts a transaction that it
   holds open (frozen between check and commit, say) and makes every later commit
   of that process fail. Then its lease is waited for, counted from the moment
   when the revocation was acknowledged: a worker that confirmed its policy after
   that moment knows of the revocation, and one that confirmed it before delivers
   nothing once the lease is over. This also holds under at-least-once, where
   there is no transaction to abort, except for a write that the worker had
   already handed to its Kafka client. A worker that goes on reporting, but stays
   behind for longer than its lease (it cannot read the policy on, say, because
   the registry is away), is fenced then, so that it does not hold up the wait.
3. **It is gone.** Its last report says that it is stopping, or it has been fenced
   and its lease is over. The latter is then taken off the topic, in a transaction
   under its own transactional id, so that it fails if the worker has come back
   in the meantime, and the next revocation does not wait for it again.

A report that cannot be read counts as that of a silent worker with the longest
lease that can be configured.

Typical time: the half second between two reports. Worst: the lease.

What this rests on: a worker that starts does not deliver before its first
report has been acknowledged and its policy confirmed after that. Every clock
here is this process's own monotonic one; no two machines' clocks are compared.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from govbus import topics
from govbus.errors import BrokerUnavailableError, BusError, FencedError, RejectedRecordError
from govbus.settings import LONGEST_LEASE_SECONDS
from govbus_console.control.bus import Bus, naming

_log = logging.getLogger(__name__)

SILENT_SECONDS = 1.0
"""Two reports that did not come. A worker that is only slow is fenced as well, and starts again."""

_ASK_SECONDS = 10.0
_TRANSACTION_MS = 10_000
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What is certain now, and what it took."""

    offset: int
    """Everything up to this offset of ``govbus.grants`` is enforced everywhere."""

    seconds: float
    confirmed: tuple[str, ...]
    """Workers that reported it."""

    fenced: tuple[str, ...]
    """Workers that were silent, and are shut out."""


@dataclass(slots=True)
class _Worker:
    """What is known of one worker."""

    transactional_id: str
    lease_seconds: float
    grants_offset: int
    stopping: bool
    heard_at: float
    """When its last report was read, or the wait began."""

    fence: Producer | None = None
    """Holds its transactional id since it was fenced."""

    fenced: bool = False


@dataclass(slots=True)
class _Watch:
    """The workers by name, and how far govbus.workers has been read."""

    offset: int
    began: float
    workers: dict[str, _Worker] = field(default_factory=dict)


def wait(bus: Bus, offset: int, *, silent_seconds: float = SILENT_SECONDS) -> Passed:
    """Wait until every worker enforces ``govbus.grants`` up to and with ``offset``.

    Call it after the record at ``offset`` has been acknowledged. Safe to repeat
    after a crash: it then takes at most the lease again.

    Raises:
        BrokerUnavailableError: the broker does not answer, so nothing is certain.
        AccessDeniedError: these credentials may not read reports or take over workers.
    """
    watch = _Watch(offset=offset, began=time.monotonic())
    consumer = Consumer(
        bus.broker.client(
            group_id="govbus.control.barrier",  # required by the client, never joined
            enable_auto_commit=False,
            isolation_level="read_uncommitted",
            enable_partition_eof=True,
            fetch_wait_max_ms=100,
        )
        | {"log_level": 0}
    )
    try:
        _read_to_the_end(consumer, watch, bus)
        while left := [name for name, worker in watch.workers.items() if not _past(worker, watch)]:
            _take(consumer.poll(_POLL_SECONDS), watch, bus)
            for name in left:
                worker = watch.workers.get(name)
                if worker is not None and _is_waited_for_no_longer(worker, watch, silent_seconds):
                    _fence(name, worker, bus)
    finally:
        consumer.close()
    for name, worker in watch.workers.items():
        if worker.fenced and worker.grants_offset < offset:
            _take_off(name, worker)
    return Passed(
        offset=offset,
        seconds=time.monotonic() - watch.began,
        confirmed=tuple(
            sorted(n for n, w in watch.workers.items() if w.grants_offset >= offset and not w.stopping)
        ),
        fenced=tuple(sorted(n for n, w in watch.workers.items() if w.fenced and w.grants_offset < offset)),
    )


def _past(worker: _Worker, watch: _Watch) -> bool:
    if worker.stopping or worker.grants_offset >= watch.offset:
        return True
    return worker.fenced and time.monotonic() >= watch.began + worker.lease_seconds


def _is_waited_for_no_longer(worker: _Worker, watch: _Watch, silent_seconds: float) -> bool:
    """Whether a worker has said nothing for too long, or nothing that helps.

    One that has just finished what it decided before the lease was over still
    gets the time to say so.
    """
    now = time.monotonic()
    return now - worker.heard_at > silent_seconds or now - watch.began > worker.lease_seconds + silent_seconds


def _read_to_the_end(consumer: Consumer, watch: _Watch, bus: Bus) -> None:
    """Learn of every worker that had reported before the wait began."""
    ends = bus.cluster.end_offsets(topics.WORKERS)
    consumer.assign([TopicPartition(topics.WORKERS, number, OFFSET_BEGINNING) for number in ends])
    until = time.monotonic() + _ASK_SECONDS
    waiting = {number for number, end in ends.items() if end > 0}
    while waiting:
        message = consumer.poll(_POLL_SECONDS)
        error = message.error() if message is not None else None
        if message is not None and error is not None and error.code() == KafkaError._PARTITION_EOF:
            # Not judged by the offset of a record: what ends a partition may be a transaction's
            # marker, which is never handed out.
            waiting.discard(message.partition())
        else:
            _take(message, watch, bus)
        if time.monotonic() > until:
            raise BrokerUnavailableError("the workers' reports cannot be read to their end")


def _take(message: Message | None, watch: _Watch, bus: Bus) -> None:
    if message is None or message.error() is not None:
        return
    name = (message.key() or b"").decode("utf-8", "replace")
    if message.value() is None:
        watch.workers.pop(name, None)
        return
    before = watch.workers.get(name)
    try:
        report: dict[str, Any] = bus.registry.decode(message.value())
    except RejectedRecordError as error:
        # Whoever wrote this may be a worker; all that is known of it is what every worker is bound by.
        _log.error(  # noqa: TRY400 the place says enough
            "a worker's report cannot be read", extra={"worker": name, "code": error.code}
        )
        if before is None:
            watch.workers[name] = _Worker(
                transactional_id=f"{topics.EXCHANGE_GROUP}.{name}",
                lease_seconds=LONGEST_LEASE_SECONDS,
                grants_offset=-1,
                stopping=False,
                heard_at=time.monotonic(),
            )
        return
    watch.workers[name] = _Worker(
        transactional_id=report["transactional_id"],
        lease_seconds=report["lease_seconds"],
        grants_offset=report["grants_offset"],
        stopping=report["stopping"],
        heard_at=time.monotonic(),
        fence=before.fence if before else None,
        fenced=before.fenced if before else False,
    )


def _fence(name: str, worker: _Worker, bus: Bus) -> None:
    """Shut a silent worker out, once."""
    if worker.fenced:
        return
    if worker.transactional_id:
        worker.fence = Producer(
            bus.broker.client(
                transactional_id=worker.transactional_id,
                transaction_timeout_ms=_TRANSACTION_MS,
            )
            | {"log_level": 0}
        )
        with naming("fence a worker that is silent"):
            worker.fence.init_transactions(_ASK_SECONDS)
    worker.fenced = True
    _log.warning("worker fenced: it does not report", extra={"worker": name})


def _take_off(name: str, worker: _Worker) -> None:
    """Take a worker that is gone off the topic, unless it has come back."""
    if worker.fence is None:
        return
    try:
        with naming("take a worker off the list"):
            worker.fence.begin_transaction()
            worker.fence.produce(topics.WORKERS, key=name.encode(), value=None)
            worker.fence.commit_transaction(_ASK_SECONDS)
    except FencedError:
        _log.info("worker is back", extra={"worker": name})
    except BusError as error:
        # Only the next revocation takes longer; what this one waited for is certain already.
        _log.warning("worker stays on the list", extra={"worker": name, "code": error.code})
