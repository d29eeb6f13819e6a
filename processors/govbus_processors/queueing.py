"""Deliveries into a producer's queue: all of a topic's in one call where that can be, else one by one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from govbus.errors import BrokerUnavailableError
from govbus_processors.batch import Output
from govbus_processors.faults import broker_error, of_exception

try:
    from govbus_processors import bulk
except ImportError:  # there was no C compiler when govbus was installed
    bulk = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import Producer

PACKED: bool = bulk is not None
"""Whether records may come, and deliveries go, packed (:mod:`govbus_processors.bulk`)."""

ROOM_SECONDS = 8.0
"""How long a full queue is waited for."""


class Listed(list[Output]):
    """Deliveries to one topic where they cannot be packed."""

    def add(self, key: bytes | None, value: bytes | None, partition: int, timestamp: int) -> None:
        """Append a delivery; as :meth:`govbus_processors.bulk.Outputs.add`."""
        self.append(Output(key, value, partition, timestamp))


Deliveries = bulk.Outputs if PACKED else Listed
"""What the exchange collects the deliveries to a topic in."""


class Queue:
    """The queue of a producer."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        by_batch = PACKED and bulk.usable(producer)
        self._outlet = bulk.Outlet(producer) if by_batch else None

    def put(self, topic: str, records: Iterable[Output]) -> None:
        """Queue all records, waiting for room where librdkafka's queue is full.

        Raises:
            BrokerUnavailableError: there was no room for eight seconds.
        """
        try:
            if self._outlet is None:
                self._one_by_one(topic, records)
            else:
                packed = records if isinstance(records, bulk.Outputs) else bulk.Outputs.of(records)
                self._all(self._outlet, topic, packed)
        except KafkaException as raised:
            raise broker_error(of_exception(raised)) from None

    def flush(self, seconds: float) -> int:
        """Wait until everything has been acknowledged or given up; return how many have not been."""
        return int(self._producer.flush(seconds)) if self._outlet is None else self._outlet.flush(seconds)

    def forget_failures(self) -> None:
        """Begin to watch anew."""
        if self._outlet is not None:
            self._outlet.forget()

    @property
    def failure(self) -> KafkaError | None:
        """Why a record could not be delivered since then; None where the producer's ``on_delivery`` tells."""
        return None if self._outlet is None else self._outlet.failure

    def _all(self, outlet: bulk.Outlet, topic: str, packed: bulk.Outputs) -> None:
        queued = outlet.queue(topic, packed)
        until = time.monotonic() + ROOM_SECONDS
        while queued < len(packed):
            self._wait_for_room(until)
            before, queued = queued, outlet.queue(topic, packed, queued)
            if queued > before:
                until = time.monotonic() + ROOM_SECONDS

    def _one_by_one(self, topic: str, records: Iterable[Output]) -> None:
        # Not produce_batch: it cannot set a timestamp, and ours is the commit time at the source.
        # By position, with None for two callbacks: naming the timestamp costs half as much again.
        produce: Any = self._producer.produce
        for key, value, partition, timestamp in records:
            until = 0.0
            while True:
                try:
                    produce(topic, value, key, partition, None, None, timestamp)
                    break
                except BufferError:
                    until = until or time.monotonic() + ROOM_SECONDS
                    self._wait_for_room(until)

    def _wait_for_room(self, until: float) -> None:
        if time.monotonic() >= until:
            raise BrokerUnavailableError("records cannot be queued: the broker does not keep up")
        if self._outlet is None:
            self._producer.poll(0.01)
        else:
            self._outlet.serve(0.01)
