"""The ceiling: librdkafka batches in, the same bytes out to both outputs, nothing looked at.

At least once: offsets are committed when the broker has acknowledged the batch.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer

from bench.peers.job import PRODUCER, read_job, stop_on_sigterm

_BATCH = 30_000


def main() -> None:
    """Pass everything on until SIGTERM."""
    job, stop = read_job(), stop_on_sigterm()
    consumer = Consumer(
        job.client()
        | {
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 131_072,
            "fetch.queue.backoff.ms": 10,
        }
    )
    producer = Producer(
        job.client() | PRODUCER | {"delivery.report.only.error": True, "on_delivery": _failed}
    )
    consumer.subscribe([job.input])
    while not stop.is_set():
        messages = consumer.consume(_BATCH, timeout=0.05)
        if not messages:
            continue
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
        for topic in (job.projected, job.full):
            _send(producer, topic, [{"key": m.key(), "value": m.value(), "partition": 0} for m in messages])
        producer.flush()
        consumer.store_offsets(message=messages[-1])
        consumer.commit(asynchronous=False)
    consumer.close()


def _send(producer: Producer, topic: str, records: list[dict[str, Any]]) -> None:
    if producer.produce_batch(topic, records) != len(records):
        raise BufferError("the queue is smaller than a batch")


def _failed(error: Any, _message: Any) -> None:
    if error is not None:
        raise KafkaException(error)


if __name__ == "__main__":
    main()
