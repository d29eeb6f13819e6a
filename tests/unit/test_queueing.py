"""Records into librdkafka's queue, compiled and interpreted: in order, each once, also where it is full."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from confluent_kafka import KafkaError, KafkaException

import govbus_processors
from govbus.errors import AccessDeniedError, BrokerUnavailableError
from govbus_processors import queueing
from govbus_processors.batch import Output
from support.kernels import interpreted

MODULES = {
    "as installed": queueing,
    "interpreted": interpreted(Path(str(govbus_processors.__file__)).with_name("queueing.py")),
}
RECORDS = [Output(b"k%d" % n, None if n % 3 == 0 else b"v%d" % n, n % 2, 1_000 + n) for n in range(7)]


class Queue:
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


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return MODULES[request.param]


@pytest.mark.parametrize("room", [0, 1, 5, 7])
def test_every_record_is_queued_once_in_order_with_its_time(module: ModuleType, room: int) -> None:
    queue = Queue(room)

    module.put(queue, "topic", iter(RECORDS))

    assert queue.queued == [
        ("topic", value, key, partition, None, None, timestamp)
        for key, value, partition, timestamp in RECORDS
    ]


def test_a_queue_that_stays_full_is_a_broker_that_does_not_keep_up(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(100))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(moments)))

    with pytest.raises(BrokerUnavailableError, match="does not keep up"):
        module.put(Queue(2, drains=False), "topic", RECORDS)


def test_what_the_client_refuses_is_told_as_the_bus_has_it(module: ModuleType) -> None:
    class Refusing(Queue):
        def produce(self, *record: object) -> None:
            raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    with pytest.raises(AccessDeniedError):
        module.put(Refusing(1), "topic", RECORDS)
