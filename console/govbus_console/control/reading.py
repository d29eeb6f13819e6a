"""Read topics beside the groups that work on them: nothing is joined, committed or moved. Does I/O."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from datetime import datetime

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from govbus.errors import BrokerUnavailableError, RefusedError
from govbus.settings import BrokerSettings
from govbus_console.control.bus import naming

_ASK_SECONDS = 10.0
_STALL_SECONDS = 15.0
_AT_ONCE = 1_000
_POLL_SECONDS = 0.2


def last_records(
    broker: BrokerSettings,
    topic: str,
    count: int | None,
    *,
    follow: bool = False,
    partition: int | None = None,
    since: datetime | None = None,
) -> Generator[Message, None, None]:
    """Give the last ``count`` committed offsets' records of each partition, or all of them (None).

    With ``follow`` it goes on with what arrives, without end; with ``partition`` it reads that one alone;
    with ``since`` it begins at the first record that has this timestamp or a later one.

    Raises:
        RefusedError: there is no such topic, for this user.
        AccessDeniedError: this user may not read it.
        BrokerUnavailableError: the broker does not answer.
    """
    consumer = _reader(broker)
    try:
        starts = _starts(consumer, topic, count)
        if partition is not None:
            starts = {number: start for number, start in starts.items() if number == partition}
        if since is not None:
            starts = _starts_at(consumer, topic, starts, since)
        consumer.assign([TopicPartition(topic, number, start) for number, start in starts.items()])
        unread = set(starts)
        heard = time.monotonic()
        while follow or unread:
            messages = consumer.consume(_AT_ONCE, timeout=_POLL_SECONDS)
            if messages:
                heard = time.monotonic()
            elif not follow and time.monotonic() - heard > _STALL_SECONDS:
                raise BrokerUnavailableError(f"the broker does not go on with {topic}")
            for message in messages:
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    with naming(f"read {topic}"):
                        raise KafkaException(error)
    finally:
        consumer.close()


def records_since(broker: BrokerSettings, starts: Mapping[str, int]) -> list[Message]:
    """Give what is on partition 0 of some topics from an offset each on, to where each ends now.

    A topic that is not there has nothing on it.

    Raises:
        AccessDeniedError: this user may not read one of them.
        BrokerUnavailableError: the broker does not answer.
    """
    consumer = _reader(broker)
    found: list[Message] = []
    try:
        with naming("list the topics"):
            # All of them, for the client remembers it as an error when one was asked for that is not there.
            there = consumer.list_topics(timeout=_ASK_SECONDS).topics
            unread = set()
            for topic in sorted(starts.keys() & there.keys()):
                place = TopicPartition(topic, 0)
                low, high = consumer.get_watermark_offsets(place, timeout=_ASK_SECONDS, cached=False)
                if max(low, starts[topic]) < high:
                    unread.add(topic)
        consumer.assign([TopicPartition(topic, 0, starts[topic]) for topic in sorted(unread)])
        heard = time.monotonic()
        while unread:
            messages = consumer.consume(_AT_ONCE, timeout=_POLL_SECONDS)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > _STALL_SECONDS:
                raise BrokerUnavailableError(f"the broker does not go on with {min(unread)}")
            for message in messages:
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.topic())
                else:
                    with naming(f"read {message.topic()}"):
                        raise KafkaException(error)
        return found
    finally:
        consumer.close()


def committed_offsets(
    broker: BrokerSettings, group: str, topic: str, partitions: Iterable[int]
) -> Mapping[int, int]:
    """How far a group has committed a topic, by partition; those without a commit are left out."""
    places = [TopicPartition(topic, number) for number in partitions]
    if not places:
        return {}
    consumer = Consumer(broker.client(group_id=group, enable_auto_commit=False) | {"log_level": 0})
    try:
        with naming(f"look up how far {group} has got"):
            found = consumer.committed(places, timeout=_ASK_SECONDS)
    finally:
        consumer.close()
    return {place.partition: place.offset for place in found if place.offset >= 0}


def _reader(broker: BrokerSettings) -> Consumer:
    return Consumer(
        broker.client(
            # Required by the client and never joined; under the user's own prefix all the same.
            group_id=f"{broker.user}.reading",
            enable_auto_commit=False,
            enable_partition_eof=True,
            isolation_level="read_committed",
        )
        | {"log_level": 0}
    )


def _starts(consumer: Consumer, topic: str, count: int | None) -> dict[int, int]:
    with naming(f"look up {topic}"):
        found = consumer.list_topics(topic, timeout=_ASK_SECONDS).topics[topic]
        if found.error is not None:
            if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise RefusedError(f"there is no topic {topic}; govbus status lists what there is")
            raise KafkaException(found.error)
        starts = {}
        for number in found.partitions:
            low, high = consumer.get_watermark_offsets(
                TopicPartition(topic, number), timeout=_ASK_SECONDS, cached=False
            )
            starts[number] = low if count is None else max(low, high - count)
    return starts


def _starts_at(consumer: Consumer, topic: str, starts: Mapping[int, int], since: datetime) -> dict[int, int]:
    moment = max(0, round(since.timestamp() * 1000))
    places = [TopicPartition(topic, number, moment) for number in starts]
    with naming(f"look up {topic}"):
        found = consumer.offsets_for_times(places, timeout=_ASK_SECONDS)
    # A negative offset means the end: nothing is as late as that.
    return {place.partition: place.offset if place.offset >= 0 else OFFSET_END for place in found}
