"""How much of its quota a route has used today, and how much of it a batch may still use.

A quota bounds what one grant delivers in one day: records (everything that is
written to its delivery topic, deletions too) and distinct keys. A day is a
calendar day in the zone that the setting names.

1. Never more than the quota. Each partition of a resource has a share of it, the whole divided by the number
   of partitions with the rest given to the first ones, because partitions are served by different workers
   and counting together would mean to wait for each other. Shares are not lent: where the rows of a
   resource lie unevenly, a grant may stand still in one partition with some of its quota unused in another.
2. The count is exact. What a partition has delivered today is stored with the route's cursor, in the
   transaction that delivers it; so it survives crashes and moves with the partition. Which keys those were
   is read back from the delivery topic, from the offset at which the day began there.
3. Whoever cannot count delivers nothing: until those keys are read, the route is held back
   (``quota-unknown``).
4. Used up, the route stands still (``quota-used-up``) where it is, for events as for state; on the next day
   it is brought on from there. Nothing is lost, and no other grant waits.

A route takes part in a live batch only if all of the batch would fit. When it
would not, the route is brought on apart, in stretches that are halved whenever
one is too long; so it ends exactly at its quota without looking into records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, tzinfo
from typing import TYPE_CHECKING

from govbus.errors import RetriableError
from govbus_processors.cursors import Cursors, Key, Spent
from govbus_processors.holds import Hold
from govbus_processors.keyset import KeySet

if TYPE_CHECKING:
    from govbus_processors.batch import Output
    from govbus_processors.routes import Route


class OverQuotaError(RetriableError):
    """A stretch would deliver more than the quota lets through; a shorter one may fit."""

    code = "over-quota"


@dataclass(slots=True)
class _Today:
    """What is known of one route in one partition, for one day; made again when the day is over."""

    day: date
    keys: KeySet | None = None
    """The keys delivered today; None until they are read, and where there is no bound on keys."""

    stretch: int | None = None
    """At most so many source records may be tried at once; None: as many as there are."""

    full: bool = False
    """The next record alone is too much."""

    bounds: tuple[int | None, int | None] | None = None
    """The quota that ``stretch`` and ``full`` are of: an amendment may let more through."""


class Quotas:
    """Counts for one worker; used by one thread. The counts themselves are kept with the cursors."""

    def __init__(self, cursors: Cursors, zone: tzinfo) -> None:
        self._cursors = cursors
        self._zone = zone
        self._today: dict[Key, _Today] = {}
        self._touched: dict[Key, KeySet] = {}
        """Those that the batch under way counts into: a worker may hold ten thousand others."""

    def clear(self) -> None:
        """Forget what was counted: other workers may count on from now on."""
        self._today.clear()
        self._touched.clear()

    def spent(self, route: Route, partition: int, now: datetime) -> Spent:
        """What the route has used today in a partition."""
        day = self._day(now)
        spent = self._cursors.spent(route.topic, partition)
        return spent if spent is not None and spent.day == day else Spent(day=day, records=0, first=None)

    def hold(self, route: Route, partition: int, now: datetime) -> Hold | None:
        """Say whether the quota holds the route back in a partition."""
        grant = route.first.grant
        if not grant.has_quota:
            return None
        spent, today = self.spent(route, partition, now), self._of(route, partition, now)
        if today.full or self._left(grant.quota_records_per_day, spent.records, route, partition) <= 0:
            return Hold.QUOTA_USED_UP
        if grant.quota_keys_per_day is not None and today.keys is None:
            return Hold.QUOTA_UNKNOWN
        return None

    def fits(self, route: Route, partition: int, now: datetime, records: int) -> bool:
        """Whether so many source records can be exchanged for the route without looking at what comes out."""
        grant = route.first.grant
        if not grant.has_quota:
            return True
        spent, today = self.spent(route, partition, now), self._of(route, partition, now)
        keys = 0 if today.keys is None else len(today.keys)
        return (
            self._left(grant.quota_records_per_day, spent.records, route, partition) >= records
            and self._left(grant.quota_keys_per_day, keys, route, partition) >= records
        )

    def stretch(self, route: Route, partition: int, now: datetime, limit: int) -> int:
        """How many source records may be tried at once, of at most ``limit``."""
        stretch = self._of(route, partition, now).stretch
        return limit if stretch is None else min(limit, stretch)

    def keys_to_read(self, route: Route, partition: int, now: datetime) -> int | None:
        """Return where in the delivery topic today's keys must be read from; None if they need not be."""
        if route.first.grant.quota_keys_per_day is None:
            return None
        today = self._of(route, partition, now)
        return None if today.keys is not None else self.spent(route, partition, now).first

    def install(self, route: Route, partition: int, now: datetime, keys: KeySet) -> None:
        """Count on from the keys that were read; those of a day that is over meanwhile do not count."""
        today = self._of(route, partition, now)
        if today.keys is None:
            today.keys = keys

    def spend(
        self,
        route: Route,
        partition: int,
        now: datetime,
        outputs: Iterable[Output],
        *,
        considered: int,
        end: Callable[[], int],
    ) -> None:
        """Stage what a batch uses of a quota, with the cursor.

        Args:
            route: of a grant with a quota.
            partition: of the source and of the deliveries.
            now: the batch's.
            outputs: what the batch delivers there.
            considered: source records that led to them.
            end: asks for the end of the delivery topic's partition, before anything of the batch is there.

        Raises:
            OverQuotaError: it is too much; nothing of it may be delivered.
        """
        grant = route.first.grant
        spent, today = self.spent(route, partition, now), self._of(route, partition, now)
        records = 0
        if today.keys is not None:
            self._touched[route.topic, partition] = today.keys
        for key, *_ in outputs:
            records += 1
            if today.keys is not None:
                today.keys.enter(key or b"")
        if grant.quota_keys_per_day is not None and today.keys is None:
            raise OverQuotaError("today's keys are not counted yet")
        used = spent.records + records
        keys = 0 if today.keys is None else len(today.keys)
        if (
            self._left(grant.quota_records_per_day, used, route, partition) < 0
            or self._left(grant.quota_keys_per_day, keys, route, partition) < 0
        ):
            today.stretch = max(1, considered // 2)
            today.full = considered <= 1
            raise OverQuotaError("it would deliver more than the quota of the day lets through")
        if records:
            # Asked also where keys have no bound today: they may be given one before the day is over.
            first = end() if spent.first is None else spent.first
            self._cursors.spend(route.topic, partition, replace(spent, records=used, first=first))

    def commit(self) -> None:
        """Let what was counted stand."""
        for keys in self._touched.values():
            keys.commit()
        self._touched.clear()

    def rollback(self) -> None:
        """Take back what was counted."""
        for keys in self._touched.values():
            keys.rollback()
        self._touched.clear()

    def _day(self, now: datetime) -> date:
        return now.astimezone(self._zone).date()

    def _of(self, route: Route, partition: int, now: datetime) -> _Today:
        place, day = (route.topic, partition), self._day(now)
        today = self._today.get(place)
        if today is None or today.day != day:
            today = self._today[place] = _Today(day)
        grant = route.first.grant
        bounds = (grant.quota_records_per_day, grant.quota_keys_per_day)
        if today.bounds != bounds:
            today.bounds, today.stretch, today.full = bounds, None, False
        if (
            grant.quota_keys_per_day is not None
            and today.keys is None
            and self.spent(route, partition, now).first is None
        ):
            today.keys = KeySet()  # nothing was delivered today, so nothing has to be read
        return today

    @staticmethod
    def _left(quota: int | None, used: int, route: Route, partition: int) -> int:
        if quota is None:
            return 2**31
        return share(quota, partition, route.resource.partitions) - used


def share(quota: int, partition: int, partitions: int) -> int:
    """Return a partition's part of a quota; the parts of all partitions make up the whole."""
    if partition >= partitions:
        return 0  # not a partition that the catalogue knows of
    whole, rest = divmod(quota, partitions)
    return whole + (partition < rest)
