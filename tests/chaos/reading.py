"""What subscribers read: committed records only, decoded from what the wire format and the registry say."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaError, TopicPartition

from chaos.judge import Seen

_HEADER = 5
_PATIENCE = 60


class Subscriber:
    """Reads topics from where it stopped, as far as can be read now."""

    def __init__(self, client: dict[str, Any], registry_url: str) -> None:
        self._client = client | {
            "group.id": "chaos-subscriber",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "log_level": 0,
        }
        self._registry_url = registry_url
        self._schemas: dict[int, Any] = {}
        self._next: dict[tuple[str, int], int] = {}

    def read(self, topics: dict[str, int]) -> Iterator[tuple[str, Any]]:
        """Yield topic and message of everything that is new; ``topics`` says how many partitions each has."""
        places = [(topic, number) for topic, partitions in topics.items() for number in range(partitions)]
        if not places:
            return
        consumer = Consumer(self._client)
        try:
            consumer.assign([TopicPartition(*place, self._next.get(place, 0)) for place in places])
            unread, silent = set(places), 0
            while unread:
                messages = consumer.consume(2_000, timeout=1.0)
                silent = 0 if messages else silent + 1
                assert silent < _PATIENCE, f"nothing can be read of {len(unread)} partitions"
                for message in messages:
                    place = (message.topic(), message.partition())
                    error = message.error()
                    if error is None:
                        self._next[place] = message.offset() + 1
                        yield message.topic(), message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        self._next[place] = message.offset()
                        unread.discard(place)
                    else:
                        assert error.retriable() or error.code() < 0, error.name()
        finally:
            consumer.close()

    def seen(self, message: Any) -> Seen:
        """Take a delivered record apart."""
        key, _ = self._decode(message.key())
        row, agreement = (None, {}) if message.value() is None else self._decode(message.value())
        return Seen(
            partition=message.partition(),
            offset=message.offset(),
            key=key["code"],
            row=row,
            at=message.timestamp()[1],
            version=agreement.get("version"),
        )

    def _decode(self, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        """A record, and what its schema says of the agreement."""
        assert data[0] == 0, "not in the Confluent wire format"
        raw, parsed = self._schema(int.from_bytes(data[1:_HEADER], "big"))
        stream = io.BytesIO(data[_HEADER:])
        record = fastavro.schemaless_reader(stream, parsed, None)
        assert not stream.read(), "bytes after the end of a record"
        return record, raw.get("govbus", {})

    def _schema(self, schema_id: int) -> Any:
        known = self._schemas.get(schema_id)
        if known is None:
            with urllib.request.urlopen(
                f"{self._registry_url}/schemas/ids/{schema_id}", timeout=30
            ) as answer:
                raw = json.loads(json.load(answer)["schema"])
            known = self._schemas[schema_id] = (raw, fastavro.parse_schema(raw, named_schemas={}))
        return known


def timestamps(subscriber: Subscriber, topic: str, partitions: int) -> Sequence[list[int]]:
    """The timestamps of all records of a topic, partition by partition."""
    found: list[list[int]] = [[] for _ in range(partitions)]
    for _, message in subscriber.read({topic: partitions}):
        found[message.partition()].append(message.timestamp()[1])
    return found
