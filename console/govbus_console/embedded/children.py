"""Child processes that end with their parent, and by nobody else's hand.

Each child gets a session of its own, so that Ctrl-C in the terminal reaches the
supervisor alone, which then stops the children in order.

A supervisor can also end without being asked: killed, out of memory, a crash.
PR_SET_PDEATHSIG does not help here, because it fires when the *thread* that
started the child ends, and children are started from short-lived threads. So a
lifeline is kept: a small process that knows the children and reads a pipe whose
other end only the supervisor holds. When the pipe closes, it stops them. A
detached child is not named to the lifeline and outlives its parent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from govbus_console.embedded import processes
from govbus_console.embedded.processes import STOP_SECONDS, ProcessRef

_TAIL_BYTES = 4_096
# Names of files may be in any language; without this a JVM under the C locale cannot open them.
_UTF8 = {"LC_ALL": "C.UTF-8"}


class Child:
    """A running child process of this process."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], output: Path) -> None:
        self.name = name
        self.output = output
        """What it wrote to standard output and error."""

        self.ref = ProcessRef.of(name, process.pid)
        self._process = process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def tail(self) -> str:
        """Give the end of what it wrote."""
        return tail(self.output)

    def ask_to_stop(self) -> None:
        """Send SIGTERM; :meth:`wait_stopped` does the rest."""
        if self.exit_code is None:
            self._process.terminate()

    def wait_stopped(self, seconds: float = STOP_SECONDS) -> None:
        """Wait until it has ended; SIGKILL when it has not after ``seconds``."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End it, politely first."""
        self.ask_to_stop()
        self.wait_stopped(seconds)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()


class Children:
    """Starts children, and sees that they do not outlive this process unless they should.

    Safe to use from several threads.
    """

    def __init__(self, *, detached: bool = False, inherit: Sequence[int] = ()) -> None:
        self._inherit = tuple(inherit)
        """Descriptors that every child keeps open: the lock of the home."""

        self._guard = threading.Lock()
        self._children: list[Child] = []
        self._stopped = False
        self._lifeline = None if detached else self._start_lifeline()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        output: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> Child:
        """Start a program whose output replaces what is in ``output``.

        ``environment`` is added to this process's own.

        Raises:
            OSError: the program cannot be started.
            RuntimeError: :meth:`stop` has been called.
        """
        with self._guard, output.open("wb") as sink:
            if self._stopped:
                raise RuntimeError(f"{name} is not started: its siblings are being stopped")
            process = subprocess.Popen(  # noqa: S603  the caller composed the command; no shell reads it
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_UTF8, **(environment or {})},
                cwd=directory,
                start_new_session=True,
                pass_fds=self._inherit,
            )
            child = Child(name, process, output)
            self._children.append(child)
            if self._lifeline is not None and self._lifeline.stdin is not None:
                self._lifeline.stdin.write(f"{child.pid} {child.ref.started}\n".encode())
                self._lifeline.stdin.flush()
        return child

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop every child, all at once, and the lifeline after them."""
        with self._guard:
            self._stopped = True
            children, self._children = self._children, []
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.wait_stopped(seconds)
        self.let_go()

    def let_go(self) -> None:
        """End the lifeline; attached children that still run are stopped by that."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None and lifeline.stdin is not None:
            lifeline.stdin.close()
            lifeline.wait()

    def _start_lifeline(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  this interpreter, on a file of this package
            [sys.executable, "-I", "-S", str(processes.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self._inherit,
        )


def tail(path: Path) -> str:
    """Give the last lines of a file that may be large, or not there."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace").strip()
    except OSError:
        return ""
