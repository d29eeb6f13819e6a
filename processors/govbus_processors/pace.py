"""How many records the next batch may have.

Large batches spread the cost of a transaction over many records. But while one is
worked out nothing is reported, no revocation is noticed and nothing is visible to
anyone, and with many views of a resource a record costs many times as much. So a
batch gets as many records as, going by the batch before, take a quarter of a second.
"""

from __future__ import annotations

BATCH_SECONDS = 0.25

FEWEST_RECORDS = 1_000
"""A batch may always have so many: smaller ones cost more in transactions than they save in time."""


class Pace:
    """Keeps batches short.

    Args:
        most: what a batch has at most, however fast they are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.limit = min(FEWEST_RECORDS, most)
        """What the next batch has at most."""

    def note(self, records: int, seconds: float) -> None:
        """Learn from a batch that was committed."""
        in_time = records * BATCH_SECONDS / seconds if seconds > 0 else self._most
        self.limit = int(min(self._most, max(FEWEST_RECORDS, in_time)))
