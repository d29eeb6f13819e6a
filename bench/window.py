"""Watch a peer work: rate, CPU seconds and memory between its first and last committed record.

The same for every peer, and from outside: every few milliseconds the broker is
asked how far a ``read_committed`` reader could read in each output topic.

- The window opens at the first look that finds something committed. Starting up
  (interpreters, JVMs, joining the group) is not in it; warming up after that is.
- It closes at the look that finds the last committed record; whether it was the
  last is decided by nothing following it for a while, and then by reading the
  outputs.
- The rate is the share of the output that became visible inside the window,
  times the records of the input, over the window's length: what was already
  visible when it opened is not counted.

- The steady rate is the same over the second half of the output, when a JVM has
  compiled what is hot: a long run comes close to it.

Looking costs the watcher a few per cent of a core, the same in every run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.05
_SETTLED_SECONDS = 2.0
"""Longer than any peer's commit or linger interval that shows in its outputs."""

_STALLED_SECONDS = 60.0


class PeerFailedError(Exception):
    """A peer ended, or stopped moving, before its work was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at the outputs and at the processes that fill them."""

    at: float
    """Monotonic seconds."""

    visible: int
    """Committed offsets of all outputs together."""

    cpu: float
    """CPU seconds of the peer since it was started."""

    broker_cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was measured in one run."""

    seconds: float
    records_per_s: float
    steady_records_per_s: float
    """Over the second half of the output alone."""

    cpu_s: float
    """CPU seconds of the peer inside the window."""

    start_cpu_s: float
    """CPU seconds of the peer before the window opened."""

    broker_cpu_s: float
    peak_mb: float
    """Largest resident size of the peer's process."""


class Process:
    """A process of this machine as /proc shows it."""

    _TICK = os.sysconf("SC_CLK_TCK")

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._status = Path(f"/proc/{pid}/status")

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        fields = self._stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / self._TICK

    def peak_mb(self) -> float:
        """Its largest resident size so far, in units of 1,000,000 bytes."""
        for line in self._status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise PeerFailedError("the process has no memory any more")


def watch(
    look: Callable[[], Look],
    *,
    expected: int,
    alive: Callable[[], bool],
    every: float = LOOK_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Look]:
    """Look until ``expected`` records are visible and nothing follows; give the looks that saw something new.

    Raises:
        PeerFailedError: the peer ended, or nothing moved for a minute.
    """
    looks: list[Look] = []
    moved, seen = clock(), 0
    while True:
        now = look()
        if now.visible > seen:
            looks.append(now)
            moved, seen = clock(), now.visible
        waited = clock() - moved
        if looks and seen >= expected and waited > _SETTLED_SECONDS:
            return looks
        if not alive():
            raise PeerFailedError(f"ended with {seen} of {expected} records committed")
        if waited > _STALLED_SECONDS:
            raise PeerFailedError(f"stopped moving with {seen} of {expected} records committed")
        sleep(every)


def measured(looks: Sequence[Look], *, records: int, peak_mb: float) -> Window:
    """Work out rates and CPU from the looks at a run in which ``records`` of the input passed."""
    first, last = looks[0], looks[-1]
    half = next(look for look in looks if look.visible * 2 >= last.visible)
    return Window(
        seconds=last.at - first.at,
        records_per_s=_rate(first, last, records),
        steady_records_per_s=_rate(half, last, records),
        cpu_s=last.cpu - first.cpu,
        start_cpu_s=first.cpu,
        broker_cpu_s=last.broker_cpu - first.broker_cpu,
        peak_mb=peak_mb,
    )


def _rate(start: Look, end: Look, records: int) -> float:
    if end.at <= start.at:
        raise PeerFailedError("was too fast to be measured; take more records")
    return records * (end.visible - start.visible) / end.visible / (end.at - start.at)


def looker(
    visible: Callable[[Sequence[str]], list[int]], topics: Sequence[str], peer: Process, broker: Process
) -> Callable[[], Look]:
    """Give the function that takes one look at some topics and two processes."""

    def look() -> Look:
        return Look(
            visible=sum(visible(topics)),
            at=time.monotonic(),
            cpu=peer.cpu_seconds(),
            broker_cpu=broker.cpu_seconds(),
        )

    return look
