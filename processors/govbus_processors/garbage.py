"""When the interpreter looks for garbage: between batches, and not while one is worked out.

A batch is some ten thousand messages and deliveries, all of them objects that
Python's cycle collector follows. It runs whenever a few hundred more have been
made, so that while a batch grows the same objects are walked through again and
again: a quarter of a worker's time, and nothing is found, because none of them
is part of a cycle; they are freed when the batch is let go.

So it is switched off in a worker, and called when a batch is gone: for what is
young every second, for everything every five minutes. What was made while the
worker started is left out for good.
"""

from __future__ import annotations

import gc
import time

YOUNG_SECONDS = 1.0
ALL_SECONDS = 300.0

_YOUNG = 1
"""The generations 0 and 1, as :func:`gc.collect` numbers them."""


class Collector:
    """Collects garbage when it is told that it may. For one thread, and one in a process."""

    def __init__(self) -> None:
        self._young_at = self._all_at = time.monotonic()

    def take_over(self) -> None:
        """Switch the interpreter's own collecting off; this process serves batches from now on."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def between_batches(self) -> None:
        """Collect what is due."""
        now = time.monotonic()
        if now >= self._all_at + ALL_SECONDS:
            self._all_at = self._young_at = now
            gc.collect()
        elif now >= self._young_at + YOUNG_SECONDS:
            self._young_at = now
            gc.collect(_YOUNG)
