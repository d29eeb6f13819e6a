"""What every way of finding changes has in common: the promise between a source and the capture loop.

The order is fixed, and it is what keeps a crash harmless: the source notes
durably *that* it is about to hand out certain keys, hands out the batch, the
batch is published and acknowledged, and only then does the source remember
that those keys are done. A crash anywhere leaves the note; the next process
publishes those keys again, as they are at the source by then.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from govbus.errors import RejectedRecordError
from govbus.event import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBatch:
    """Changes of one resource, at most one of each key."""

    changes: Sequence[Change]
    places: Sequence[int]
    """For each change, which row of this reading of the source it was, counted from 1; 0 for a row
    that is gone. Names a bad row without saying anything of what it holds."""

    created: int = 0
    """How many of ``changes`` are rows that this capture has not seen before."""

    refused: Mapping[int, RejectedRecordError] = field(default_factory=dict)
    """Rows, by place, that the source itself could not turn into a change, each reported once."""


class ChangeSource(Protocol):
    """A place where a department's changes are found.

    Used by one thread, one poll at a time.
    """

    def poll(self) -> Generator[ChangeBatch, None, None]:
        """Look once for what has changed and hand it out in batches.

        Called by the capture loop every ``interval_seconds``, and again after an error. The caller
        either settles a batch with :meth:`remember` before it takes the next one, or closes the
        generator; what was handed out and not settled comes again in a later poll, as it is by then.
        A change of a key is never handed out while an earlier one of that key is unsettled.

        Raises:
            SourceUnavailableError: the source cannot be read now; nothing is lost, poll again later.
            ConfigurationError: the source is not what the configuration says; retrying cannot help.
        """
        ...

    def remember(self, rejected: Collection[int]) -> None:
        """Settle the batch that was handed out last: durable when this returns.

        Args:
            rejected: positions in the batch that broke the contract and were not published. They
                are not handed out again until they change.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files. Called once, last."""
        ...
