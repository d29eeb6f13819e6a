"""How far each route has been brought in each source partition.

Every route has exactly one cursor per source partition, and a record is
exchanged for a route by whoever holds that cursor, so a key's records can
never be delivered out of order, whether they are new or being caught up on:

- a *live* route moves with its partition: it takes part in every live batch;
- a route that is *behind* (new, amended, resumed) takes no part in live
  batches. The records from its cursor on are read again for it alone, under
  today's policy, until it stands where the partition stands; then it is live.

The cursors are stored on ``govbus.progress`` in the transaction that moves
them. For a live route nothing is stored per batch: its cursor is the group's
committed offset. Only what a route has used of its quota is, with the cursor.

A route begins again from offset 0, instead of where it stood, when its view was
amended, and when it has been behind for so long that the source may have
forgotten deletions that it has not seen: a compacted topic keeps a tombstone for
``delete.retention.ms`` and not longer. From 0 on it sees every row that there
still is, so what the subscriber holds and was not delivered again by then is
gone: it is swept (:mod:`govbus_processors.sweep`) before the route goes live.

A live route can have missed deletions too, when nobody served its partition for so
long. That is found out when the partition is assigned (:mod:`govbus_processors.recency`):
its live routes are then behind, since the partition was last read to its end. The first
transaction that moves the partition stores that for all of them, so that no crash
forgets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from govbus.catalogue import ResourceKind
from govbus.policy import Effect
from govbus_processors.batch import Place, Slice
from govbus_processors.holds import Hold, Holder, nothing
from govbus_processors.recency import Recency

if TYPE_CHECKING:
    from govbus_processors.routes import Policy, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one route has used of its quota in one partition, on one day."""

    day: date
    records: int
    """Deliveries, those of deleted rows too."""

    first: int | None
    """Where in the delivery topic the day's deliveries begin; None before the first."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where one route stands in one source partition."""

    view: str
    """The view that the records before ``offset`` were exchanged for."""

    live: bool
    offset: int
    """The next source offset for this route; for a live one, where it went live."""

    since: datetime | None = None
    """When it fell behind, or began again from the start; None while it is live."""

    sweep: int = 0
    """Where its delivery topic ended when it began from the start: a row that was not delivered
    after that is swept. 0: there is nothing to sweep."""

    spent: Spent | None = None
    """Of its quota; None where there is none, or nothing was delivered yet."""


Key = tuple[str, int]
"""Delivery topic and partition; a delivery topic has one source, so this names the cursor."""


class Cursors:
    """The cursors of the source partitions that this worker serves.

    Args:
        forgets_after: how long the source keeps deletions for those who have not read them.
    """

    def __init__(self, *, forgets_after: timedelta) -> None:
        self._forgets_after = forgets_after
        self._cursors: dict[Key, Cursor] = {}
        self._staged: dict[Key, Cursor | None] = {}
        self._positions: dict[Place, int | None] = {}
        self._fed: dict[Place, set[str]] = {}
        """The delivery topics that have, or had, a cursor in a source partition."""

        self._unsaved: dict[Place, set[str]] = {}
        """Delivery topics whose cursors were found to have missed something, until that is stored."""

        self.recency = Recency(forgets_after=forgets_after)
        self.revision = 0
        """Another one whenever :meth:`behind` may answer differently, time and policy aside."""

    def assign(
        self,
        place: Place,
        position: int | None,
        stored: Mapping[str, Cursor],
        *,
        note: str | None = None,
        missed_since: datetime | None = None,
    ) -> None:
        """Begin to serve a source partition.

        Args:
            place: the captured topic and partition.
            position: the group's committed offset, or None when nothing was ever committed: then
                every route is live from the first record on.
            stored: the cursors from ``govbus.progress``, by delivery topic.
            note: what the offset was committed with.
            missed_since: since when deletions may have been forgotten that nobody has read; None: none.
        """
        self.revision += 1
        self._positions[place] = position
        self._fed[place] = set(stored)
        self.recency.assign(place, note)
        for topic, cursor in stored.items():
            self._cursors[topic, place[1]] = cursor
        if missed_since is not None:
            self._set_behind(place, missed_since)

    def _set_behind(self, place: Place, since: datetime) -> None:
        """The live routes of a partition have missed something since a moment."""
        position = self._positions[place]
        for topic in self._fed[place]:
            cursor = self._cursors[topic, place[1]]
            if cursor.live:
                stood = cursor.offset if position is None else position
                self._cursors[topic, place[1]] = replace(cursor, live=False, offset=stood, since=since)
                self._unsaved.setdefault(place, set()).add(topic)

    def clear(self) -> None:
        """Serve nothing any more."""
        self.revision += 1
        self._cursors.clear()
        self._staged.clear()
        self._positions.clear()
        self._fed.clear()
        self._unsaved.clear()
        self.recency.clear()

    @property
    def places(self) -> list[Place]:
        """The source partitions that are served."""
        return list(self._positions)

    def position(self, place: Place) -> int | None:
        """The next source offset of the live stream; None while nothing was ever read."""
        return self._positions[place]

    def source_of(self, key: Key) -> str | None:
        """The captured topic that a cursor counts the offsets of; None for a cursor that is not here."""
        return next((p[0] for p, fed in self._fed.items() if p[1] == key[1] and key[0] in fed), None)

    def live_slice(
        self,
        place: Place,
        messages: Sequence[Any],
        *,
        policy: Policy,
        now: datetime,
        fresh: bool,
        held: Holder = nothing,
        after: int | None = None,
    ) -> Slice:
        """Pick the routes that take part in a live batch; stages what the policy changes about the others.

        ``after`` is where the partition will stand when the batch before this one is committed, if one is.
        """
        topic, partition = place
        position = self._positions[place] if after is None else after
        start = messages[0].offset() if position is None else position
        taking_part: list[Route] = []
        refused: list[tuple[Route, str]] = []
        gone = set(self._fed[place])
        for route in policy.routes.get(topic, ()):
            key = (route.topic, partition)
            gone.discard(route.topic)
            cursor = self._cursors.get(key)
            decision = route.decide(now=now, fresh=fresh)
            permitted = decision.effect is Effect.PERMIT
            reason = held(route, partition) if permitted else decision.reason
            if reason is None:
                if cursor is None and position is None:
                    self._stage(place, route, cursor := Cursor(route.first.view, live=True, offset=start))
                if cursor is not None and cursor.live and cursor.view == route.first.view:
                    taking_part.append(route)
            else:
                if reason is not Hold.QUOTA_NEAR:
                    refused.append((route, reason.value))
                self._stand_still(place, route, cursor, start, now)
        for name in gone:
            # A grant that this worker cannot read has no route here, and may have one again later:
            # what passes by now it must then still get.
            cursor = self._cursors.get((name, partition))
            if cursor is not None and cursor.live:
                self._staged[name, partition] = replace(cursor, live=False, offset=start, since=now)
        for name in self._unsaved.get(place, ()):
            # The partition moves, and with the next note it would look as if nothing had been missed.
            self._staged.setdefault((name, partition), self._cursors[name, partition])
        return Slice(
            place=place,
            start=start,
            messages=messages,
            routes=tuple(taking_part),
            refused=tuple(refused),
        )

    def _stand_still(
        self, place: Place, route: Route, cursor: Cursor | None, position: int, now: datetime
    ) -> None:
        if cursor is None:
            if not route.ended:
                # It may come into force later and must then begin with what passes by now.
                self._stage(place, route, Cursor(route.first.view, live=False, offset=0, since=now))
        elif route.ended:
            self._stage(place, route, None)
        elif cursor.live:
            self._stage(place, route, replace(cursor, live=False, offset=position, since=now))

    def _stage(self, place: Place, route: Route, cursor: Cursor | None) -> None:
        self._staged[route.topic, place[1]] = cursor
        self._fed[place].add(route.topic)

    def of(self, route: Route, partition: int) -> Cursor | None:
        """Where a route stands in a source partition; None when it never began."""
        return self._cursors.get((route.topic, partition))

    def _next(self, route: Route, cursor: Cursor | None, now: datetime) -> int:
        """The source offset that a route goes on from; 0 when it has to begin from the start."""
        if cursor is None or cursor.view != route.first.view:
            return 0
        # Of events nothing is taken back, so there is no deletion to miss, and a second time is one too many.
        forgotten = cursor.since is not None and now - cursor.since > self._forgets_after
        if forgotten and route.resource.kind is ResourceKind.STATE:
            return 0
        return cursor.offset

    def behind(
        self, policy: Policy, *, now: datetime, fresh: bool, held: Holder = nothing
    ) -> list[tuple[Place, int, tuple[Route, ...]]]:
        """Say which routes have to be caught up on: source partition, cursor, routes at that cursor.

        Per partition only the routes that are furthest behind are named; others join on the way.
        """
        found: list[tuple[Place, int, tuple[Route, ...]]] = []
        for place, position in self._positions.items():
            if position is None:
                continue
            at: dict[int, list[Route]] = {}
            for route in policy.routes.get(place[0], ()):
                cursor = self._cursors.get((route.topic, place[1]))
                if cursor is not None and cursor.live and cursor.view == route.first.view:
                    continue
                permitted = route.decide(now=now, fresh=fresh).effect is Effect.PERMIT
                if permitted and held(route, place[1]) is None:
                    at.setdefault(self._next(route, cursor, now), []).append(route)
            if at:
                lowest = min(at)
                found.append((place, lowest, tuple(at[lowest])))
        return found

    def caught_up_to(
        self,
        place: Place,
        routes: Iterable[Route],
        offset: int,
        *,
        live: bool,
        begun: Mapping[str, Cursor],
        now: datetime,
    ) -> None:
        """Stage that routes were brought to an offset of a source partition.

        Args:
            place: the source partition.
            routes: that were brought there.
            offset: the next one for them.
            live: whether the partition itself stands there, so that those go live that have nothing
                to sweep.
            begun: by delivery topic, the cursors of those that have just begun from the start.
            now: the time.
        """
        for route in routes:
            before = begun.get(route.topic) or self._cursors[route.topic, place[1]]
            spent = self.spent(route.topic, place[1])  # also of one that begins again: the day goes on
            after = replace(before, offset=offset, live=live and not before.sweep, spent=spent)
            self._stage(place, route, _behind_since(after, now))

    def sweeping(self, place: Place, route: Route, now: datetime, *, done: bool) -> None:
        """Stage that a route was swept in part; done, it goes live if nothing came meanwhile."""
        before = self._cursors[route.topic, place[1]]
        if done:
            before = replace(before, live=before.offset == self._positions[place], sweep=0)
        self._stage(place, route, _behind_since(before, now))

    def spent(self, topic: str, partition: int) -> Spent | None:
        """What a route has used of its quota, as far as that is committed."""
        cursor = self._cursors.get((topic, partition))
        return None if cursor is None else cursor.spent

    def spend(self, topic: str, partition: int, spent: Spent) -> None:
        """Stage what a route will have used of its quota; it has a cursor, or could not have delivered."""
        key = (topic, partition)
        cursor = self._staged.get(key) or self._cursors[key]
        self._staged[key] = replace(cursor, spent=spent)

    def staged(self) -> Mapping[Key, Cursor | None]:
        """What the transaction has to store; None removes a cursor."""
        return self._staged

    def commit(self, moved: Mapping[Place, int]) -> None:
        """Make what was staged real, and move partitions of the live stream."""
        if any(self._stands_elsewhere(*staged) for staged in self._staged.items()) or any(
            self._positions.get(place) is None for place in moved
        ):
            self.revision += 1
        for key, cursor in self._staged.items():
            if cursor is None:
                self._cursors.pop(key, None)
            else:
                self._cursors[key] = cursor
        self._forget_saved()
        self._staged.clear()
        self._positions.update(moved)
        for place, position in moved.items():
            self._reach(place, position)

    def look(self, place: Place, end: int, now: datetime) -> None:
        """Take down where a source partition ended, asked for after ``now``."""
        self.recency.look(place, end, now)
        position = self._positions[place]
        if position is not None:
            self._reach(place, position)

    def _reach(self, place: Place, position: int) -> None:
        # Until it is stored what was missed, only the old note says so.
        if place not in self._unsaved:
            self.recency.reach(place, position)

    def _forget_saved(self) -> None:
        for place, names in list(self._unsaved.items()):
            names -= {topic for topic, partition in self._staged if partition == place[1]}
            if not names:
                del self._unsaved[place]

    def _stands_elsewhere(self, key: Key, staged: Cursor | None) -> bool:
        """Whether more is staged than what was used of a quota: that changes with every live batch."""
        before = self._cursors.get(key)
        return before is None or staged is None or replace(staged, spent=before.spent) != before

    def rollback(self) -> None:
        """Forget what was staged."""
        self._staged.clear()


def _behind_since(cursor: Cursor, now: datetime) -> Cursor:
    """Say since when a cursor is behind.

    What is swept in the end may have missed anything up to now. Without a sweep, what counts is how
    old the oldest deletion is that may be ahead.
    """
    since = None if cursor.live else now if cursor.sweep else cursor.since
    return replace(cursor, since=since)
