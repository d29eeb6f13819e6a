"""Records into librdkafka's queue: the loop that every delivery goes through.

Compiled (hatch_build.py), because it runs once for every delivery; interpreted it
does the same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException

from govbus.errors import BrokerUnavailableError
from govbus_processors.faults import broker_error, of_exception

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import Producer

    from govbus_processors.batch import Output

ROOM_SECONDS = 8.0
"""How long a full queue is waited for."""


def put(producer: Producer, topic: str, records: Iterable[Output]) -> None:
    """Queue all records, waiting for room where librdkafka's queue is full.

    Raises:
        BrokerUnavailableError: there was no room for eight seconds.
    """
    # Not produce_batch: it cannot set a timestamp, and ours is the commit time at the source.
    # By position, with None for two callbacks: naming the timestamp costs half as much again.
    produce = producer.produce
    for key, value, partition, timestamp in records:
        try:
            produce(topic, value, key, partition, None, None, timestamp)
        except BufferError:
            _put_when_there_is_room(producer, topic, (key, value, partition, timestamp))
        except KafkaException as raised:
            raise broker_error(of_exception(raised)) from None


def _put_when_there_is_room(
    producer: Producer, topic: str, record: tuple[bytes | None, bytes | None, int, Any]
) -> None:
    key, value, partition, timestamp = record
    until = time.monotonic() + ROOM_SECONDS
    while time.monotonic() < until:
        producer.poll(0.01)
        try:
            producer.produce(topic, value, key, partition, None, None, timestamp)
        except BufferError:
            continue
        else:
            return
    raise BrokerUnavailableError("records cannot be queued: the broker does not keep up")
