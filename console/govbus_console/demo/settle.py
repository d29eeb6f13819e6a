"""Wait until everything has arrived, by evidence and never by time. Does I/O.

1. *Captured*: each table has been polled so often since the wait began that one
   poll began after the last commit and read the whole table.
2. *Exchanged*: the workers' group has committed up to the end of every captured
   topic, and every grant's decisions reach that end too.
3. *Landed*: each store has taken in as many records as were decided for it, and
   reports that nothing is waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from govbus.errors import FatalError
from govbus_console.demo.measure import Samples, added
from govbus_console.demo.scene import sweep_every
from govbus_console.demo.stage import STALLED_SECONDS, Share, Stage
from govbus_console.demo.watch import Tally

_LOOK_AGAIN = 0.1

Progressing = Callable[[object], None]
"""Called in each round of a wait with what should be changing; raises when it has not for too long."""


class Settling:
    """Brings the stage to rest, and knows what has happened since it first was."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._captured_before = {topic: stage.exchanged.end(topic) for topic in stage.captured.values()}
        self._at_rest: dict[str, Samples] = {}
        self.ended: set[str] = set()
        """Grants of which nothing more is landed."""

        self.settle()
        self._at_rest = stage.metrics()
        stage.decisions.tallies.clear()

    def settle(self) -> None:
        """Return when all that is in the departments' systems now has arrived where it should.

        Raises:
            FatalError: a process has ended, or nothing has changed for too long.
        """
        with self.patience("the bus has come to a standstill") as progressing:
            self._until_captured(progressing)
            self._until_exchanged(progressing)
            self._until_landed(progressing)

    def increase(self, prefix: str = "") -> dict[str, Samples]:
        """Give each process's metrics, less what they were when everything was at rest at the start."""
        now = self._stage.metrics(prefix)
        return {name: now[name] - self._at_rest.get(name, Samples({})) for name in now}

    def tally(self, share: Share) -> Tally:
        """Give what was decided for one grant since then."""
        return self._stage.decisions.tallies.get(share.label, Tally())

    @contextmanager
    def patience(self, complaint: str) -> Iterator[Progressing]:
        """Give the function to call in each round of a wait."""
        last: object = None
        changed_at = time.monotonic()

        def progressing(seen: object) -> None:
            nonlocal last, changed_at
            self._stage.check_alive()
            if seen != last:
                last, changed_at = seen, time.monotonic()
            elif time.monotonic() - changed_at > STALLED_SECONDS:
                raise FatalError(f"{complaint} ({seen}); see the logs in {self._stage.home.log}")
            time.sleep(_LOOK_AGAIN)

        yield progressing

    def _until_captured(self, progressing: Progressing) -> None:
        wanted: dict[str, float] = {}
        while True:
            samples = added(self._stage.metrics("capture-").values())
            polls = samples.by("resource", "govbus_capture_poll_seconds_count")
            if not wanted:
                # The poll that is under way may have begun before the last commit.
                wanted = {
                    ref: polls.get(ref, 0.0) + 1 + sweep_every(ref, self._stage.options.detail)
                    for ref in self._stage.captured
                }
            if all(polls.get(ref, 0.0) >= count for ref, count in wanted.items()):
                return
            progressing((polls, samples.total("govbus_published_records_total")))

    def _until_exchanged(self, progressing: Progressing) -> None:
        while True:
            behind = self._stage.exchanged.behind(self._stage.captured.values())
            self._stage.decisions.read()
            undecided = self._undecided()
            if behind == 0 and undecided == 0:
                return
            progressing((behind, undecided))

    def _undecided(self) -> int:
        """Count the captured records that have not been decided for some grant."""
        left = 0
        for share in self._stage.shares:
            topic = share.captured_topic
            # What an earlier demo has decided was not read now, and need not be decided again.
            before = {} if share.fresh else self._captured_before[topic]
            for partition, end in self._stage.exchanged.end(topic).items():
                if end > before.get(partition, 0):
                    left += max(0, end - self._stage.decisions.reached(share.label, topic, partition))
        return left

    def _until_landed(self, progressing: Progressing) -> None:
        while True:
            samples = added(self.increase("land-").values())
            landed = samples.by("grant", "govbus_landed_records_total")
            waiting = {
                share.id: self.tally(share).records - landed.get(share.id, 0.0)
                for share in self._stage.shares
                if share.id not in self.ended
            }
            lag = added(self._stage.metrics("land-").values()).total("govbus_lag_records")
            if lag == 0 and all(records <= 0 for records in waiting.values()):
                return
            progressing((waiting, lag))
