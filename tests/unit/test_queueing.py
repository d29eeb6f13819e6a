"""Deliveries into a producer's queue, record by record: in order, each once, also where it is full."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from govbus.errors import AccessDeniedError, BrokerUnavailableError
from govbus_processors import queueing
from govbus_processors.batch import Output
from govbus_processors.queueing import Deliveries, Listed, Queue

RECORDS = [Output(b"k%d" % n, None if n % 3 == 0 else b"v%d" % n, n % 2, 1_000 + n) for n in range(7)]


class Client:
    """A producer with room for some records; a poll makes room for two more, while it does at all."""

    def __init__(self, room: int, *, drains: bool = True) -> None:
        self.room = room
        self.drains = drains
        self.queued: list[tuple[object, ...]] = []

    def produce(self, *record: object) -> None:
        if len(self.queued) >= self.room:
            raise BufferError
        self.queued.append(record)

    def poll(self, _seconds: float) -> None:
        self.room += 2 * self.drains


@pytest.mark.parametrize("room", [0, 1, 5, 7])
@pytest.mark.parametrize("collected_in", [Deliveries, Listed])
def test_every_record_is_queued_once_in_order_with_its_time(room: int, collected_in: type) -> None:
    client, deliveries = Client(room), collected_in()
    for record in RECORDS:
        deliveries.add(*record)

    Queue(client).put("topic", deliveries)  # type: ignore[arg-type]

    assert client.queued == [
        ("topic", value, key, partition, None, None, timestamp)
        for key, value, partition, timestamp in RECORDS
    ]


def test_a_queue_that_stays_full_is_a_broker_that_does_not_keep_up(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(100))
    monkeypatch.setattr(queueing.time, "monotonic", lambda: float(next(moments)))

    with pytest.raises(BrokerUnavailableError, match="does not keep up"):
        Queue(Client(2, drains=False)).put("topic", RECORDS)  # type: ignore[arg-type]


def test_what_the_client_refuses_is_told_as_the_bus_has_it() -> None:
    class Refusing(Client):
        def produce(self, *record: object) -> None:
            raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    with pytest.raises(AccessDeniedError):
        Queue(Refusing(1)).put("topic", RECORDS)  # type: ignore[arg-type]
