"""Key sets while they are read from their delivery topics, a stretch at a time between live batches.

Two kinds are read so:

- the keys that a subscriber holds, without which nothing of a filtered view is delivered; most of
  them come from a checkpoint, or are known from before the last rebalance, and only the tail is read;
- the keys that were delivered today, for a quota that bounds them.

A grant may end while its keys are read. Its topic may be gone then, so reading is given up.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from govbus.catalogue import ResourceKind
from govbus.errors import RetriableError
from govbus_processors.batch import Place
from govbus_processors.keyset import KeySet
from govbus_processors.reader import STRETCH_RECORDS, STRETCH_SECONDS

if TYPE_CHECKING:
    from datetime import datetime

    from govbus_processors.checkpoint import Checkpoints
    from govbus_processors.membership import Membership
    from govbus_processors.quotas import Quotas
    from govbus_processors.reader import Reader
    from govbus_processors.routes import Policy, Route

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reading:
    """A key set that is being read."""

    keys: KeySet
    position: int
    end: int

    def read_on(self, reader: Reader, place: Place, *, deletions: bool) -> bool:
        """Read a stretch, and say whether that was the last; without deletions a key stays in for good."""
        stretch = reader.read(place, self.position, limit=STRETCH_RECORDS, seconds=STRETCH_SECONDS)
        for message in stretch.messages:
            self.keys.load(message.key(), present=not deletions or message.value() is not None)
        self.position = stretch.position
        return self.position >= self.end


class Loader:
    """What one worker is reading. For the intake's thread; places are those of delivery topics."""

    def __init__(self, *, membership: Membership, checkpoints: Checkpoints, quotas: Quotas) -> None:
        self._membership = membership
        self._checkpoints = checkpoints
        self._quotas = quotas
        self._held: dict[Place, _Reading] = {}
        self._today: dict[Place, _Reading] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._held or self._today)

    def clear(self) -> None:
        """Give everything up: other workers may write the delivery topics from now on."""
        self._held.clear()
        self._today.clear()

    def lacks(self, place: Place, policy: Policy) -> bool:
        """Whether something is being read that a source partition's routes need."""
        return any((route.topic, place[1]) in self._held for route in policy.routes.get(place[0], ()))

    def load_what_lacks(self, place: Place, policy: Policy, now: datetime, reader: Reader) -> bool:
        """Begin to load the key sets that a source partition's routes need; whether any is not there."""
        lacking = False
        for route in policy.routes.get(place[0], ()):
            wanted = (route.topic, place[1])
            if not route.filtered:
                # Of an earlier version with a filter; from the batch at hand on it would be out of date.
                self._membership.set_aside(wanted)
                self._held.pop(wanted, None)
            elif (
                route.resource.kind is ResourceKind.STATE
                and not self._membership.loaded(wanted)
                and not route.ended
                and route.first.grant.starts_at <= now
            ):
                lacking = True
                if wanted not in self._held:
                    try:
                        self._held[wanted] = self._begin(wanted, reader)
                    except RetriableError as error:
                        _log.warning("a key set cannot be loaded now", extra={"code": error.code})
        return lacking

    def _begin(self, wanted: Place, reader: Reader) -> _Reading:
        keys = self._membership.suspended(wanted)
        if keys.position == 0:
            keys = self._checkpoints.load(wanted, reader.topic_id(wanted[0])) or keys
        end = reader.end(wanted)
        if keys.position > end:
            keys = KeySet()
        return _Reading(keys, keys.position, end)

    def count(self, route: Route, partition: int, now: datetime, reader: Reader) -> None:
        """Begin to read the keys that were delivered today, if a quota has to know them."""
        place = (route.topic, partition)
        start = self._quotas.keys_to_read(route, partition, now)
        if start is None or place in self._today:
            return
        try:
            self._today[place] = _Reading(KeySet(), start, reader.end(place))
        except RetriableError as error:
            _log.warning("a quota cannot be counted now", extra={"code": error.code, "topic": route.topic})

    def read_on(self, policy: Policy, now: datetime, reader: Reader) -> bool:
        """Read a stretch of what comes first; whether a route may go on that was waiting for its quota.

        Raises:
            RetriableError: it cannot be read now; try again a little later.
        """
        if self._held:
            self._read_held(policy, reader)
            return False
        return self._read_today(policy, now, reader)

    def _read_held(self, policy: Policy, reader: Reader) -> None:
        place, reading = next(iter(self._held.items()))
        route = policy.deliveries.get(place[0])
        if route is None or route.ended:
            del self._held[place]
        elif reading.read_on(reader, place, deletions=True):
            reading.keys.position = reading.position
            self._membership.install(place, reading.keys)
            del self._held[place]

    def _read_today(self, policy: Policy, now: datetime, reader: Reader) -> bool:
        place, reading = next(iter(self._today.items()))
        route = policy.deliveries.get(place[0])
        if route is None or route.ended:
            del self._today[place]
        elif reading.read_on(reader, place, deletions=False):
            del self._today[place]
            self._quotas.install(route, place[1], now, reading.keys)
            return True
        return False
