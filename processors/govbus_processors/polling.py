"""Records out of a consumer: by the batch where that can be, else an object for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from govbus_processors.queueing import PACKED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import Consumer, KafkaError, TopicPartition

    from govbus_processors.batch import Place

    Rebalanced = Callable[[Consumer, list[TopicPartition]], None]


class Inlet(Protocol):
    """Takes records from a consumer. Used by one thread, in which rebalances happen meanwhile."""

    def fetch(
        self, wait: float, fill: float, limit: int
    ) -> tuple[Mapping[Place, Sequence[Any]], list[KafkaError]]:
        """Wait ``wait`` seconds for a first record, and from then on ``fill`` for more, ``limit`` at most.

        Returns:
            Records by topic and partition, in order of offset, with the methods ``key``, ``value``,
            ``offset`` and ``timestamp`` of confluent-kafka's messages; and what the broker complains of.
        """

    def close(self) -> None:
        """Take no more. The consumer is closed after that."""


def open_inlet(consumer: Consumer, *, on_assign: Rebalanced, on_revoke: Rebalanced) -> Inlet:
    """Return the inlet that is best for a consumer.

    Args:
        consumer: subscribed, now or later, with the same two callbacks: one of both ways calls them.
        on_assign: called with the consumer and the partitions that it gets.
        on_revoke: called with the consumer and the partitions that it loses.
    """
    if PACKED:
        from govbus_processors import bulk

        if bulk.usable(consumer):
            return bulk.Inlet(consumer, on_assign=on_assign, on_revoke=on_revoke)
    return Objects(consumer)


class Objects:
    """Message by message."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def fetch(
        self, wait: float, fill: float, limit: int
    ) -> tuple[Mapping[Place, Sequence[Any]], list[KafkaError]]:
        """As the protocol says."""
        first = self._consumer.poll(wait)
        if first is None:
            return {}, []
        rest = self._consumer.consume(limit - 1, timeout=fill) if limit > 1 else []
        return sorted_out([first, *rest])

    def close(self) -> None:
        """Nothing is held."""


def sorted_out(messages: Sequence[Any]) -> tuple[dict[Place, list[Any]], list[Any]]:
    """Sort what a consumer gave by topic and partition, in its order, and the errors among it apart."""
    found: dict[Place, list[Any]] = {}
    errors = []
    for message in messages:
        error = message.error()
        if error is None:
            found.setdefault((message.topic(), message.partition()), []).append(message)
        else:
            errors.append(error)
    return found, errors
