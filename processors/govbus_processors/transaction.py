"""How a batch becomes visible: all of it in one Kafka transaction, or none.

Exactly once, in this order (KIP-98, KIP-447):

1. begin a transaction;
2. put every delivery, dead letter, decision, cursor and the worker's report in it;
3. put the source offsets in it, with the group metadata that the batch was read
   under, so that the broker refuses them from a member that was replaced;
4. commit. Only now does any reader see any of it.

When one of these fails, in this order (the intake's ``_take_back``):

5. a step that librdkafka says may be repeated is repeated: one of 1 to 3 for
   eight seconds, a commit for a minute, because until it is answered nobody knows
   whether it took place;
6. what the batch staged is forgotten: cursors, key sets;
7. the transaction is aborted, which is repeated for as long as it may last: after
   that the broker has done it;
8. the partitions are set back to where they stand, and a little later the same
   records are read again. Nothing of them was visible.

When 5 or 7 cannot be answered, or the broker says that this producer is over
(:class:`~govbus.errors.FencedError`: its transactional id was initialised anew, by
the revocation barrier or by its own successor; or the broker aborted a transaction
that was open for too long, because the worker was held up or the broker was away):

9. the worker ends. Whoever supervises it starts it again under the same name;
10. opening the producer initialises the transactional id, which waits for or aborts
    what was left open, and the group's offsets and the stored cursors, which were in
    the same transactions, say where to go on.

librdkafka bounds a step only as far as it has an answer to bound: after a broker that was frozen or
killed, sending the offsets has been seen to come back after a minute instead of the eight seconds
that it was given. By then the broker has long aborted the transaction. So:

11. a worker whose step lasts longer than the transaction and the step may together is ended by its
    watch (:mod:`govbus_processors.app`), without asking: the thread that would have to answer is held.

At least once is the same without the transaction: everything is acknowledged by
the broker before the offsets are committed, so a crash in between repeats a
batch and loses nothing. A revocation is then only as strict as the lease.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from govbus.errors import BrokerUnavailableError, FatalError
from govbus_processors.faults import broker_error, of_exception
from govbus_processors.queueing import Queue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from confluent_kafka import Consumer, TopicPartition

    from govbus.settings import BrokerSettings
    from govbus_processors.batch import Output

_TRANSACTION_MS = 10_000
"""The broker aborts a transaction that is open for longer: so long can a frozen worker hold readers back."""

_CALL_SECONDS = 8.0
_COMMIT_SECONDS = 60.0
"""How long a commit is asked for again. Whether it took place is not known before the answer, so giving
up means to stop: the next start asks the broker, and the offsets tell."""

_ABORT_SECONDS = _TRANSACTION_MS / 1_000
"""How long an abort is asked for again. What is open for longer the broker aborts by itself, and the producer
is then over. A worker need not wait for it: librdkafka may not find a coordinator again that was stopped."""

STUCK_SECONDS = _TRANSACTION_MS / 1_000 + _CALL_SECONDS
"""A single call that lasts longer will not end well: nothing of its transaction can be committed any more."""

_LINGER_MS = 5
"""Where there is no transaction, a batch ends by waiting, and its last records linger for so long."""

_QUEUED_RECORDS = 2_000_000
_QUEUED_KILOBYTES = 1_048_576
_LARGEST_DEAD_LETTER = 4_194_304


def _producer_config(broker: BrokerSettings) -> dict[str, Any]:
    return broker.client(
        enable_idempotence=True,
        compression_type="lz4",
        # Committing a transaction waits for no lingering: so this delays nothing, and fills requests.
        linger_ms=20,
        batch_size=1_048_576,
        message_max_bytes=_LARGEST_DEAD_LETTER,
        queue_buffering_max_messages=_QUEUED_RECORDS,
        queue_buffering_max_kbytes=_QUEUED_KILOBYTES,
        delivery_report_only_error=True,
    )


class Guarantee(Protocol):
    """Makes batches visible. Every call comes from the intake's thread."""

    transactional_id: str
    """Empty where there are no transactions."""

    calling_since: float | None
    """Since when the client is in a call (monotonic seconds); read by another thread."""

    def open(self) -> None:
        """Connect; what an earlier run of this worker left open is aborted."""

    def begin(self) -> None:
        """Begin a batch."""

    def put(self, topic: str, records: Iterable[Output]) -> None:
        """Add records to the batch."""

    def commit(self, offsets: Sequence[TopicPartition], group: Any) -> None:
        """Make the batch and the offsets visible.

        Raises:
            BrokerUnavailableError: it is not visible (at-least-once: perhaps in part); abort, read again.
            FencedError: another worker has this one's place; stop.
        """

    def abort(self) -> None:
        """Give the batch up."""


class ExactlyOnce:
    """One transaction per batch."""

    def __init__(self, broker: BrokerSettings, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self._config = _producer_config(broker) | {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": _TRANSACTION_MS,
        }
        self._producer: Producer | None = None
        self._queue: Queue | None = None
        self._begun = False
        self.calling_since: float | None = None

    def open(self) -> None:
        """Register the transactional id, which fences and aborts whoever had it before."""
        self._producer = Producer(self._config)
        self._queue = Queue(self._producer)
        self._call(lambda: self._get().init_transactions(_CALL_SECONDS))

    def begin(self) -> None:
        """Begin a transaction; the broker hears of it with the first record."""
        self._call(self._get().begin_transaction)
        self._begun = True

    def put(self, topic: str, records: Iterable[Output]) -> None:
        """Queue records; librdkafka sends them while the next ones are queued."""
        if self._queue is None:
            raise FatalError("the transaction producer is not open")
        self._queue.put(topic, records)

    def commit(self, offsets: Sequence[TopicPartition], group: Any) -> None:
        """Send the offsets into the transaction and commit it."""
        producer = self._get()
        if offsets:
            self._call(lambda: producer.send_offsets_to_transaction(list(offsets), group, _CALL_SECONDS))
        self._call(lambda: producer.commit_transaction(_CALL_SECONDS), ends=_COMMIT_SECONDS)
        self._begun = False

    def abort(self) -> None:
        """Abort; nothing of the batch was or will be visible to readers of committed records."""
        if self._begun:
            self._call(lambda: self._get().abort_transaction(_CALL_SECONDS), ends=_ABORT_SECONDS)
            self._begun = False

    def _get(self) -> Producer:
        if self._producer is None:
            raise FatalError("the transaction producer is not open")
        return self._producer

    def _call(self, step: Any, *, ends: float = 0.0) -> None:
        """Do one step, again while librdkafka says that the same call may be repeated.

        A step that ends the transaction is repeated for ``ends`` seconds; without an answer by then this
        producer is over.
        """
        until = time.monotonic() + (ends or _CALL_SECONDS)
        while True:
            self.calling_since = time.monotonic()
            try:
                step()
            except KafkaException as raised:
                error = of_exception(raised)
                if error.retriable() and not error.txn_requires_abort() and time.monotonic() < until:
                    continue
                problem = broker_error(error)
                lost = error.fatal() or (ends > 0 and error.retriable())
                if lost and not isinstance(problem, FatalError):
                    raise FatalError(f"the producer cannot go on: {error.name()}") from None
                raise problem from None
            else:
                return
            finally:
                self.calling_since = None


class AtLeastOnce:
    """Acknowledged first, committed second."""

    def __init__(self, broker: BrokerSettings, consumer: Consumer) -> None:
        self.transactional_id = ""
        self.calling_since: float | None = None
        """Its calls end when they should: what is not acknowledged in time is purged."""

        self._consumer = consumer
        self._failed: KafkaError | None = None
        self._config = _producer_config(broker) | {
            "on_delivery": self._not_delivered,
            "linger.ms": _LINGER_MS,
        }
        self._producer: Producer | None = None
        self._queue: Queue | None = None

    def open(self) -> None:
        """Connect."""
        self._producer = Producer(self._config)
        self._queue = Queue(self._producer)

    def begin(self) -> None:
        """Forget the failures of the batch before."""
        self._failed = None
        if self._queue is not None:
            self._queue.forget_failures()

    def put(self, topic: str, records: Iterable[Output]) -> None:
        """Queue records for sending."""
        if self._queue is None:
            raise FatalError("the producer is not open")
        self._queue.put(topic, records)

    def commit(self, offsets: Sequence[TopicPartition], group: Any) -> None:  # noqa: ARG002 - same call
        """Wait for every acknowledgement, then commit the offsets."""
        if self._queue is None:
            raise FatalError("the producer is not open")
        left = self._queue.flush(_CALL_SECONDS)
        failed = self._failed or self._queue.failure
        if failed is not None:
            raise broker_error(failed)
        if left:
            raise BrokerUnavailableError("the broker does not acknowledge")
        if offsets:
            try:
                self._consumer.commit(offsets=list(offsets), asynchronous=False)
            except KafkaException as raised:
                raise broker_error(of_exception(raised)) from None

    def abort(self) -> None:
        """Drop what was not sent yet; what was sent stays, and will be sent again."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(_CALL_SECONDS)

    def _not_delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None and self._failed is None:
            self._failed = error
