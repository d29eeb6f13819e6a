"""Up to when each source partition has been read: everything that was written before is exchanged.

A source keeps a deletion for a while and then forgets it (``delete.retention.ms``). For
a route that is behind, its cursor says since when. One that is live moves with its
partition, so what has to be known is when the partition was last read to its end. If
that is longer ago than the source keeps deletions, the exchange was away for so long,
or so far behind, that some may be gone unread.

It is found out now and then, in three steps:

1. the time is noted, and then the end of the partition asked for, in this order;
2. when the live stream has passed that end, everything that was written before that
   time is exchanged;
3. the moment goes with the partition's committed offset, as its metadata, in the same
   transaction. So whoever is given the partition is told it, by the broker, with the
   offset; and an offset that somebody sets by hand comes without it.

Every error is on the side of more work: a moment that is older than it could be makes
routes begin from the start that need not. Only a clock that was fast when the moment
was noted makes it look younger, by as much.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from govbus_processors.batch import Place

_LOOKED_AT = 24
"""How often the end is asked for in the time that deletions are kept: once in six hours of six days."""


class Recency:
    """What is known of the source partitions that a worker serves. It does no I/O.

    Args:
        forgets_after: how long the source keeps deletions.
    """

    def __init__(self, *, forgets_after: timedelta) -> None:
        self._forgets_after = forgets_after
        self._known: dict[Place, datetime | None] = {}
        self._ends: dict[Place, tuple[int, datetime]] = {}
        """Ends that the live stream has still to pass, and when they were asked for."""

        self._news: set[Place] = set()

    def assign(self, place: Place, note: str | None) -> None:
        """Begin with what was committed with the offset; None or foreign words: nothing is known."""
        self._known[place] = moment_in(note)

    def clear(self) -> None:
        """Serve nothing any more."""
        self._known.clear()
        self._ends.clear()
        self._news.clear()

    def forgotten_since(self, note: str | None, now: datetime) -> datetime | None:
        """Since when deletions may have been forgotten unread, by what an offset came with; None: none can.

        Nothing is concluded from an offset that came without: it is from before there were notes, or set
        by hand.
        """
        read = moment_in(note)
        return read if read is not None and now - read > self._forgets_after else None

    def note(self, place: Place) -> str:
        """What to commit with an offset of a partition."""
        known = self._known.get(place)
        return "" if known is None else known.isoformat(timespec="milliseconds")

    def due(self, now: datetime) -> list[Place]:
        """The partitions whose end should be asked for."""
        every = self._forgets_after / _LOOKED_AT
        return [
            place
            for place, known in self._known.items()
            if place not in self._ends and (known is None or now - known >= every)
        ]

    def look(self, place: Place, end: int, now: datetime) -> None:
        """Take down where a partition ended, asked for after ``now``."""
        self._ends[place] = (end, now)

    def reach(self, place: Place, position: int) -> None:
        """Take notice of how far the live stream has come."""
        ahead = self._ends.get(place)
        if ahead is not None and position >= ahead[0]:
            del self._ends[place]
            self._known[place] = ahead[1]
            self._news.add(place)

    @property
    def news(self) -> set[Place]:
        """Partitions of which more is known than was told; where nothing is written, no batch tells it."""
        return self._news

    def told(self) -> None:
        """Everything that was news has been committed."""
        self._news.clear()


def moment_in(note: str | None) -> datetime | None:
    """Read what :meth:`Recency.note` wrote; None for anything else."""
    try:
        moment = datetime.fromisoformat(note or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
