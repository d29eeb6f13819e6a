"""Which keys are in which view: the state behind "left the view".

A subscriber must be told that a row left its view, and must never learn the key
of a row that was never in it. So the exchange has to know, per view and key,
whether the subscriber holds the row. That state *is* the compacted delivery
topic: a key with a value is in the view, a tombstone takes it out. What is kept
here is a digest of each key that is in.

Changes that a batch makes are sealed when it is complete, and then stand with
:meth:`Membership.commit` or are taken back with :meth:`Membership.retract`, exactly
as the transaction does that they belong to. The next batch may be worked out while
the sealed one is being committed: its changes are on top, and go first when the
sealed ones have to go.
"""

from __future__ import annotations

from typing import Any

from govbus_processors.batch import Place
from govbus_processors.keyset import KeySet


class Membership:
    """The key sets of all filtered views that this worker serves."""

    def __init__(self) -> None:
        self._sets: dict[Place, KeySet] = {}
        self._suspended: dict[Place, KeySet] = {}
        self._touched: dict[Place, KeySet] = {}
        """Those that a batch under way was given: a worker may hold ten thousand others."""

        self._sealed: dict[Place, tuple[KeySet, list[tuple[Any, ...]]]] = {}
        """What the batch changed that is being committed."""

    def loaded(self, place: Place) -> bool:
        """Whether the key set of a delivery topic's partition is complete and may be relied on."""
        return place in self._sets

    def install(self, place: Place, keys: KeySet) -> None:
        """Begin to rely on a key set that has been read to the end of its delivery topic."""
        self._sets[place] = keys
        self._suspended.pop(place, None)

    def suspend(self) -> None:
        """Rely on nothing: other workers may write the delivery topics from now on."""
        self.retract()
        self._suspended |= self._sets
        self._sets = {}

    def set_aside(self, place: Place) -> None:
        """Rely no longer on one key set: its view has no filter now, so what is delivered does not pass it.

        When the view gets a filter again, the tail of the delivery topic is read and the set is whole.
        """
        keys = self._sets.pop(place, None)
        if keys is not None:
            self._suspended[place] = keys

    def suspended(self, place: Place) -> KeySet:
        """Return a key set to load; one that was relied on before has only its tail to read."""
        known = self._suspended.get(place)
        return KeySet() if known is None else known

    def retain(self, places: set[Place]) -> None:
        """Free the memory of suspended key sets that another worker looks after now."""
        self._suspended = {place: keys for place, keys in self._suspended.items() if place in places}

    def most_changed(self) -> tuple[Place, KeySet] | None:
        """The key set whose checkpoint would gain most, if any changed."""
        place = max(self._sets, key=lambda place: self._sets[place].changes, default=None)
        return None if place is None else (place, self._sets[place])

    def of(self, topic: str, partition: int) -> KeySet:
        """Return the key set of a view; KeyError when it is not loaded, so nothing may be delivered."""
        keys = self._touched[topic, partition] = self._sets[topic, partition]
        return keys

    def seal(self) -> None:
        """The batch under way is complete; whatever is changed from now on is the next one's."""
        if self._sealed:
            raise RuntimeError("two batches cannot be committed at the same time")
        touched, self._touched = self._touched, {}
        self._sealed = {place: (keys, keys.seal()) for place, keys in touched.items()}

    def commit(self) -> None:
        """Let what the sealed batch changed stand, whatever is changed on top of it meanwhile."""
        for keys, changes in self._sealed.values():
            keys.settle(changes)
        self._sealed = {}

    def rollback(self) -> None:
        """Take back what the batch under way changed; a sealed one is not touched."""
        for keys in self._touched.values():
            keys.rollback()
        self._touched = {}

    def retract(self) -> None:
        """Take back what the batch under way changed, and then what the sealed one did."""
        self.rollback()
        for keys, changes in self._sealed.values():
            keys.undo(changes)
        self._sealed = {}
