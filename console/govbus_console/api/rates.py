"""How often somebody may ask: token buckets, in memory. Pure: the clock is an argument.

A bucket holds at most ``burst`` and fills by ``per_second``; each request takes
one. Each process counts for itself: two API processes allow twice as much, and a
restart forgets. That is enough for what this protects: the store, from a script
that runs wild, and the tokens, from somebody who tries many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

_MOST_KEYS = 10_000
"""Beyond so many the one that was seen longest ago is forgotten: many addresses must not fill the memory."""


class Buckets:
    """One bucket for each key. Not safe for threads: the event loop is its only caller."""

    def __init__(self, *, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What each held, and when."""

    def wait(self, key: str) -> float:
        """How many seconds until there is one to take; 0: now. Takes nothing."""
        return max(0.0, (1.0 - self._level(key)) / self._per_second)

    def take(self, key: str) -> float:
        """Take one; returns 0, or how many seconds until there is one when there was none."""
        level = self._level(key)
        if level < 1.0:
            return (1.0 - level) / self._per_second
        self._levels[key] = (level - 1.0, self._clock())
        self._levels.move_to_end(key)
        if len(self._levels) > _MOST_KEYS:
            self._levels.popitem(last=False)
        return 0.0

    def _level(self, key: str) -> float:
        held, at = self._levels.get(key, (float(self._burst), 0.0))
        return min(float(self._burst), held + (self._clock() - at) * self._per_second)
