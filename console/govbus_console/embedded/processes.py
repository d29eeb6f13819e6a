"""Name a process so that it cannot be mistaken for another, and end it.

A process id is reused once its process is gone. A reference therefore also
keeps when the process started: the operating system never gives the same pair
out twice. Nothing here ever signals a process whose start time differs.

This module is also run as a script by :mod:`govbus_console.embedded.children`
(the lifeline), in an isolated interpreter, so it imports the standard library
only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 20.0
"""How long a process gets between SIGTERM and SIGKILL: Kafka flushes its logs within a few."""


def started_at(pid: int) -> str | None:
    """Say when a process started, as text that only means something to this module.

    None when there is no such process, or only what is left of one that nobody
    has waited for yet.
    """
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The second field is the program's name in brackets and may itself hold spaces and brackets.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in {"Z", "X"} else fields[19]
    answer = subprocess.run(  # noqa: S603  a fixed command and a number
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split(maxsplit=1)
    return None if not answer or answer[0].startswith("Z") else answer[1].strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRef:
    """One particular process, also across a restart of the one who asks."""

    name: str
    pid: int
    started: str

    @classmethod
    def of(cls, name: str, pid: int) -> ProcessRef:
        """Refer to a process that lives now (or has just ended: then it is never found alive)."""
        return cls(name=name, pid=pid, started=started_at(pid) or "gone")

    @classmethod
    def from_json(cls, raw: dict[str, object]) -> ProcessRef:
        """Read back what :meth:`as_json` wrote; KeyError, TypeError or ValueError when it is not that."""
        return cls(name=str(raw["name"]), pid=int(str(raw["pid"])), started=str(raw["started"]))

    def as_json(self) -> dict[str, object]:
        """Give a form that JSON can hold."""
        return {"name": self.name, "pid": self.pid, "started": self.started}

    def alive(self) -> bool:
        """Say whether this very process still runs."""
        return started_at(self.pid) == self.started

    def signal(self, number: int) -> bool:
        """Send a signal; False when the process is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def stop_all(processes: Sequence[ProcessRef], *, seconds: float = STOP_SECONDS) -> None:
    """Ask every process to end, wait for all of them together, then end those that have not."""
    waiting = [process for process in processes if process.signal(signal.SIGTERM)]
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        time.sleep(0.05)
        waiting = [process for process in waiting if process.alive()]
    for process in waiting:
        process.signal(signal.SIGKILL)


def watch(lines: Sequence[str]) -> None:
    """End the processes that the given lines name, each as ``pid started-at``."""
    named = (line.split(" ", 1) for line in lines if " " in line)
    stop_all(
        [ProcessRef(name="child", pid=int(pid), started=started.strip()) for pid, started in named],
    )


if __name__ == "__main__":
    # Reading returns when the writing end is closed, and that happens when its owner ends, in
    # whatever way: the children that it named are then nobody's.
    watch(sys.stdin.readlines())
