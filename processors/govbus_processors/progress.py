"""What stands on ``govbus.progress``: how far each route was brought, as its last worker committed it.

A record for each delivery topic and partition, keyed by both, written in the
transaction that brought the route there. Whoever is given a source partition
reads all of them and goes on from what they say; the topic is compacted.

A record that cannot be read counts for nothing: without its cursor a route is
brought on from the start, which is slower, and right.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from govbus import topics
from govbus.codec import encode
from govbus.errors import BrokerUnavailableError, RejectedRecordError
from govbus_processors.batch import Output, Place
from govbus_processors.cursors import Cursor, Cursors, Spent
from govbus_processors.reader import STRETCH_RECORDS

if TYPE_CHECKING:
    from datetime import datetime

    from govbus.codec import Registry, Schema
    from govbus_processors.reader import Reader
    from govbus_processors.routes import Policy

_log = logging.getLogger(__name__)

_PLACE = (topics.PROGRESS, 0)


class StoredCursors:
    """The cursors as far as they were read. For one thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._position = 0
        self._cursors: dict[Place, dict[str, Cursor]] = {}

    def of(self, place: Place) -> Mapping[str, Cursor]:
        """The cursors of a source partition, by delivery topic."""
        return self._cursors.get(place, {})

    def read_on(self, reader: Reader, *, seconds: float) -> None:
        """Read what has come since the last time.

        Raises:
            BrokerUnavailableError: it could not all be read in so many seconds.
        """
        end = reader.end(_PLACE)
        until = time.monotonic() + seconds
        while self._position < end:
            stretch = reader.read(_PLACE, self._position, limit=STRETCH_RECORDS, seconds=1.0)
            for message in stretch.messages:
                try:
                    self.take(message.key(), message.value())
                except (RejectedRecordError, ValueError, KeyError, TypeError, AttributeError):
                    _log.error(  # noqa: TRY400 the place says enough, and the record may say too much
                        "unusable cursor", extra={"topic": topics.PROGRESS, "offset": message.offset()}
                    )
            self._position = stretch.position
            if time.monotonic() > until:
                raise BrokerUnavailableError("the stored cursors cannot be read to their end")

    def take(self, key: bytes, value: bytes | None) -> None:
        """Take over one record; whatever it raises, it is not a cursor."""
        route, _, partition = key.decode().rpartition("/")
        if value is None:
            for (_, source_partition), cursors in self._cursors.items():
                if str(source_partition) == partition:
                    cursors.pop(route, None)
            return
        record = self._registry.decode(value)
        live = record["live"]
        self._cursors.setdefault((record["topic"], record["partition"]), {})[route] = Cursor(
            record["view"],
            live=live,
            offset=record["next_offset"],
            # Records that were written before these two fields were lack them.
            since=None if live else record.get("behind_since") or record["reported_at"],
            sweep=record.get("sweep_before", 0),
            spent=_spent_of(record),
        )


def _spent_of(record: dict[str, Any]) -> Spent | None:
    """What a stored cursor says of a quota; cursors from before there were quotas say nothing."""
    day = record.get("quota_day")
    if day is None:
        return None
    return Spent(day=day, records=record["quota_records"], first=record["quota_first"])


def progress_records(
    cursors: Cursors, policy: Policy, *, schema: Schema, worker: str, now: datetime
) -> Iterator[Output]:
    """Give the records of the cursors that a batch has staged; a tombstone for one that has gone."""
    for (delivery_topic, partition), cursor in cursors.staged().items():
        key = f"{delivery_topic}/{partition}".encode()
        route = policy.deliveries.get(delivery_topic)
        source = cursors.source_of((delivery_topic, partition))
        if cursor is None or source is None:
            yield Output(key, None, 0)
            continue
        spent = cursor.spent
        record = {
            "route": delivery_topic,
            "view": cursor.view,
            "version": 0 if route is None else route.first.grant.version,
            "topic": source,
            "partition": partition,
            "next_offset": cursor.offset,
            "expected": cursors.position((source, partition)) or cursor.offset,
            "live": cursor.live,
            "behind_since": cursor.since,
            "sweep_before": cursor.sweep,
            "quota_day": None if spent is None else spent.day,
            "quota_records": None if spent is None else spent.records,
            "quota_first": None if spent is None else spent.first,
            "worker": worker,
            "reported_at": now,
        }
        yield Output(key, encode(schema, record), 0)
