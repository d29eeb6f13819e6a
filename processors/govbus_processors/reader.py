"""Reads a partition from a given offset, beside the live stream and in no group.

Rebuilding a key set, bringing a route up to the present and reading stored
cursors all need the same: records in order from an offset on, a bounded number
at a time, and to be told for certain when the end has been reached.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from govbus import topics
from govbus.errors import BrokerUnavailableError
from govbus_processors.faults import broker_error, of_exception

if TYPE_CHECKING:
    from govbus.settings import BrokerSettings
    from govbus_processors.batch import Place

_ASK_SECONDS = 5.0

STRETCH_RECORDS = 50_000
"""At most so many records are read beside the live stream before it is looked at again."""

STRETCH_SECONDS = 0.05
"""And for at most so long."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some consecutive committed records of one partition."""

    messages: list[Any]
    position: int
    """The offset to go on from."""

    ended: bool
    """Whether the end of what is committed was reached."""


class Reader:
    """One partition at a time; going on where it stopped costs nothing. Used by one thread."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._consumer = Consumer(
            broker.client(
                group_id=f"{topics.EXCHANGE_GROUP}.reader",  # required by the client, never joined
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                enable_partition_eof=True,
                fetch_wait_max_ms=50,
            )
        )
        self._admin = AdminClient(broker.client())
        self._place: Place | None = None
        self._position = 0

    def end(self, place: Place) -> int:
        """Ask the broker where a partition ends now, records of open transactions included."""
        try:
            _, high = self._consumer.get_watermark_offsets(
                TopicPartition(*place), timeout=_ASK_SECONDS, cached=False
            )
        except KafkaException as raised:
            raise broker_error(of_exception(raised)) from None
        return int(high)

    def topic_id(self, topic: str) -> str:
        """Ask the broker for a topic's id, which a topic made again under the same name does not share."""
        try:
            answer = self._admin.describe_topics(TopicCollection([topic]), request_timeout=_ASK_SECONDS)
            return str(answer[topic].result(_ASK_SECONDS).topic_id)
        except KafkaException as raised:
            raise broker_error(of_exception(raised)) from None
        except TimeoutError:
            raise BrokerUnavailableError("the broker does not describe a topic") from None

    def read(self, place: Place, start: int, *, limit: int, seconds: float) -> Stretch:
        """Read at most ``limit`` records from ``start`` on, for at most ``seconds``."""
        if (place, start) != (self._place, self._position):
            self._consumer.assign([TopicPartition(*place, start)])
            self._place, self._position = place, start
        messages: list[Any] = []
        until = time.monotonic() + seconds
        ended = False
        while not ended and len(messages) < limit and (left := until - time.monotonic()) > 0:
            for message in self._consumer.consume(limit - len(messages), timeout=min(left, 0.02)):
                error = message.error()
                if error is None:
                    messages.append(message)
                    self._position = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Past control records and compacted ones too, which no message shows.
                    self._position = max(self._position, message.offset())
                    ended = True
                elif not error.retriable():
                    raise broker_error(error)
        return Stretch(messages, self._position, ended)

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()
