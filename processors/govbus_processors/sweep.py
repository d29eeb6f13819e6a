"""The sweep: take away what a subscriber holds and the source does not show any more.

A source forgets: Kafka drops a deletion from a compacted topic some time after it
was written (``delete.retention.ms``). A route that was behind for longer begins
from the start and is shown every row that there still is, but nothing tells it of
those that are gone. The delivery topic does, because it is the state of the view:
a row whose last record was written before the route began again, and which is not
a tombstone, was not delivered again and so is gone, or no longer in the view.

Two passes over one partition of the delivery topic, a stretch at a time:

1. all of it: which keys end with a row from before the beginning. Their digests
   are kept (:mod:`govbus_processors.keyset`), so memory is that of a key set;
2. if there are any, the part before the beginning again: a tombstone for each.

Meanwhile the route is not live, so nobody else writes there. Each stretch of the
second pass is a transaction of its own. After a crash the sweep begins again and
finds what is left: a row that was swept ends with a tombstone after the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from govbus_processors.batch import Output
from govbus_processors.keyset import KeySet

if TYPE_CHECKING:
    from govbus_processors.cursors import Cursor


class Sweep:
    """One route's sweep of one partition. It does no I/O: it is shown records and says what to write.

    Args:
        cursor: of the route, as it stood when the sweep began; ``cursor.sweep`` is the offset of the
            delivery topic before which a row is old.
        end: of the delivery topic now.
        partition: of the delivery topic.
    """

    def __init__(self, cursor: Cursor, *, end: int, partition: int) -> None:
        self.cursor = cursor
        self.position = 0
        """The next offset of the delivery topic to show."""

        self._before = 0
        self._end = end
        self._partition = partition
        self._old = KeySet()
        self.searched = False
        """Whether the first pass is over: what is shown from then on leads to tombstones."""

    def is_of(self, cursor: Cursor | None) -> bool:
        """Whether a cursor stands where this sweep began."""
        began = self.cursor
        return cursor is not None and replace(cursor, since=began.since, spent=began.spent) == began

    @property
    def done(self) -> bool:
        """Whether nothing is left to take away."""
        return self.searched and (not len(self._old) or self.position >= self.cursor.sweep)

    def look(self, messages: Iterable[Any], position: int) -> list[Output]:
        """Take notice of consecutive records, and give the tombstones that they lead to.

        What is given counts with :meth:`commit`; after :meth:`rollback` show the same records again.

        Args:
            messages: confluent_kafka messages from :attr:`position` on.
            position: the offset to go on from.
        """
        self._before = self.position
        self.position = position
        if self.searched:
            return [
                Output(message.key(), None, self._partition)
                for message in messages
                if message.offset() < self.cursor.sweep
                and message.value() is not None
                and self._old.leave(message.key())
            ]
        for message in messages:
            old = message.offset() < self.cursor.sweep
            self._old.load(message.key(), present=old and message.value() is not None)
        if position >= self._end:
            self.searched = True
            self.position = self._before = 0
        return []

    def commit(self) -> None:
        """What was given is written."""
        self._old.commit()

    def rollback(self) -> None:
        """What was given is not written."""
        self._old.rollback()
        self.position = self._before
