"""Keep child processes of a bus running. Does I/O.

1. A child that ends is started again, after a pause that doubles with each
   failure and begins anew once the child has lasted a minute.
2. A child that ends with exit code 2 is not: its settings make no sense, and
   starting it again cannot help. It stays listed as failed, with its exit code.
3. Every child keeps its metrics port across restarts, so a scraper's targets
   stay as they are. Its last log before a restart is kept beside the new one.
4. Who runs what, and how often it had to be started, is in ``processes.json``
   in the home; ``govbus status`` reads it.
5. Nothing is ended but what was started here, and that by its own handle.

Children end with the process that supervises them: see
:mod:`govbus_console.embedded.children`.
"""

from __future__ import annotations

import http
import http.client
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from govbus.errors import FatalError
from govbus_console.embedded import (
    Child,
    Children,
    Endpoints,
    Home,
    ProcessRef,
    ScrapeTarget,
    broker_settings,
)
from govbus_console.embedded.home import write_json
from govbus_console.embedded.ports import LOOPBACK, draw

_log = logging.getLogger(__name__)

HOPELESS = 2
"""Exit code of a process that was called wrongly or whose settings make no sense."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_LASTED_SECONDS = 60.0
_ROUND_SECONDS = 0.1
_ASK_SECONDS = 1.0


class State(StrEnum):
    """How a child is doing."""

    RUNNING = "running"
    WAITING = "waiting to start again"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One child, as ``processes.json`` has it."""

    name: str
    state: State
    ref: ProcessRef
    port: int
    """Of /metrics and /health."""

    restarts: int
    last_exit: int | None
    """Exit code of the run before this one; negative: the signal that ended it."""

    def as_json(self) -> dict[str, Any]:
        """Give a form that JSON can hold."""
        return {
            "name": self.name,
            "state": self.state.value,
            "process": self.ref.as_json(),
            "port": self.port,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Report:
        """Read back what :meth:`as_json` wrote."""
        return cls(
            name=raw["name"],
            state=State(raw["state"]),
            ref=ProcessRef.from_json(raw["process"]),
            port=raw["port"],
            restarts=raw["restarts"],
            last_exit=raw["last_exit"],
        )


@dataclass(slots=True)
class _Supervised:
    """What is kept of one child between rounds."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    child: Child
    started_at: float
    state: State = State.RUNNING
    restarts: int = 0
    failures: int = 0
    last_exit: int | None = None
    again_at: float = 0.0


class Supervisor:
    """Starts ``govbus …`` processes and keeps them running, from a thread of its own.

    ``with Supervisor(home, children) as supervisor:`` stops them at the end.
    Safe to use from several threads.
    """

    def __init__(
        self,
        home: Home,
        children: Children,
        *,
        targets: Sequence[ScrapeTarget] = (),
        program: Sequence[str] = (sys.executable, "-m", "govbus_console"),
    ) -> None:
        self._program = tuple(program)
        self._targets = tuple(targets)
        """What Prometheus should scrape besides the children."""

        self._home = home
        self._children = children
        self._guard = threading.RLock()
        self._supervised: dict[str, _Supervised] = {}
        self._ready = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tend_forever, name="supervisor", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Nothing to do: it already tends."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self.close()

    def start(self, name: str, arguments: Sequence[str], *, environment: Mapping[str, str]) -> int:
        """Start ``govbus <arguments>`` under a name and return the port of its /metrics and /health.

        The name is also that of its log below the home. ``environment`` is added
        to this process's own, with GOVBUS_HOME and the metrics port.

        Raises:
            ValueError: a child of that name exists.
        """
        with self._guard:
            if name in self._supervised:
                raise ValueError(f"there is a process {name} already")
            port = draw(avoid=frozenset(known.port for known in self._supervised.values()))
            full = {
                **environment,
                "GOVBUS_HOME": str(self._home.root),
                "GOVBUS_METRICS_PORT": str(port),
            }
            child = self._spawn(name, tuple(arguments), full)
            self._supervised[name] = _Supervised(
                name=name,
                arguments=tuple(arguments),
                environment=full,
                port=port,
                child=child,
                started_at=time.monotonic(),
            )
            self._write()
        return port

    def wait_healthy(self, name: str, *, seconds: float = 30.0) -> None:
        """Return when a child's /health says that all is well.

        Raises:
            FatalError: it did not within ``seconds``, or it cannot be started; the message names its log.
        """
        deadline = time.monotonic() + seconds
        while not healthy(self._find(name).port):
            failed = self._find(name).state is State.FAILED
            if failed or time.monotonic() > deadline:
                why = "has ended for good" if failed else f"is not well after {seconds:.0f} s"
                raise FatalError(f"{name} {why}; see {self._home.log / f'{name}.log'}")
            time.sleep(_ROUND_SECONDS)

    def pid(self, name: str) -> int:
        """The process id that a child has now."""
        return self._find(name).child.pid

    def stop(self, name: str) -> None:
        """Ask a child to end, wait for it, and do not start it again."""
        with self._guard:
            found = self._find(name)
            found.state = State.STOPPED
        found.child.stop()
        with self._guard:
            found.last_exit = found.child.exit_code
            self._write()

    def close(self) -> None:
        """Stop all children together, and the supervising."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._guard:
            living = [kept for kept in self._supervised.values() if kept.child.exit_code is None]
            for kept in living:
                kept.state = State.STOPPED
                kept.child.ask_to_stop()
            for kept in living:
                kept.child.wait_stopped()
            processes_file(self._home).unlink(missing_ok=True)
            self._home.write_targets([])

    def let_go(self) -> list[Child]:
        """End the supervising, leave the children running, and give those."""
        self._ended.set()
        self._thread.join()
        with self._guard:
            return [kept.child for kept in self._supervised.values() if kept.child.exit_code is None]

    def reports(self) -> list[Report]:
        """How every child is doing."""
        with self._guard:
            return [
                Report(
                    name=kept.name,
                    state=kept.state,
                    ref=kept.child.ref,
                    port=kept.port,
                    restarts=kept.restarts,
                    last_exit=kept.last_exit,
                )
                for kept in self._supervised.values()
            ]

    def ready(self) -> None:
        """Say in ``processes.json`` that everything that should run has been started."""
        with self._guard:
            self._ready = True
            self._write()

    # ---- inside ----

    def _find(self, name: str) -> _Supervised:
        with self._guard:
            return self._supervised[name]

    def _spawn(self, name: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> Child:
        output = self._home.log / f"{name}.log"
        if output.exists():
            output.replace(output.with_suffix(".before.log"))
        return self._children.start(
            name,
            [*self._program, *arguments],
            output=output,
            environment=environment,
        )

    def _tend_forever(self) -> None:
        while not self._ended.wait(_ROUND_SECONDS):
            with self._guard:
                now = time.monotonic()
                if any([self._tend(kept, now) for kept in self._supervised.values()]):
                    self._write()

    def _tend(self, kept: _Supervised, now: float) -> bool:
        """Look after one child; say whether anything changed."""
        if kept.state is State.RUNNING and kept.child.exit_code is not None:
            self._note_end(kept, now)
            return True
        if kept.state is State.WAITING and now >= kept.again_at:
            kept.restarts += 1
            kept.started_at = now
            try:
                kept.child = self._spawn(kept.name, kept.arguments, kept.environment)
            except OSError as error:
                # No process, no memory: not the child's fault, and it may pass.
                _log.warning("child cannot be started", extra={"child": kept.name, "detail": error.strerror})
                self._note_end(kept, now)
                return True
            kept.state = State.RUNNING
            return True
        return False

    def _note_end(self, kept: _Supervised, now: float) -> None:
        kept.last_exit = kept.child.exit_code
        lasted = now - kept.started_at >= _LASTED_SECONDS
        kept.failures = 1 if lasted else kept.failures + 1
        kept.state = State.FAILED if kept.last_exit == HOPELESS else State.WAITING
        kept.again_at = now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(kept.failures - 1, 10))
        _log.warning(
            "child ended",
            extra={"child": kept.name, "code": str(kept.last_exit), "state": kept.state.value},
        )

    def _write(self) -> None:
        write_json(
            processes_file(self._home),
            {
                "supervisor": ProcessRef.of("govbus", os.getpid()).as_json(),
                "ready": self._ready,
                "children": [report.as_json() for report in self.reports()],
            },
        )
        own = [
            ScrapeTarget(address=f"{LOOPBACK}:{kept.port}", labels={"process": kept.name})
            for kept in self._supervised.values()
        ]
        self._home.write_targets([*self._targets, *own])


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """What a supervisor wrote down last."""

    supervisor: ProcessRef
    ready: bool
    children: tuple[Report, ...]


def processes_file(home: Home) -> Path:
    """Where a supervisor writes down its children."""
    return home.root / "processes.json"


def read_processes(home: Home) -> Processes | None:
    """Read what the supervisor of a home wrote; None when there is none that lives."""
    try:
        raw = json.loads(processes_file(home).read_text(encoding="utf-8"))
        found = Processes(
            supervisor=ProcessRef.from_json(raw["supervisor"]),
            ready=bool(raw["ready"]),
            children=tuple(Report.from_json(child) for child in raw["children"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.supervisor.alive() else None


def healthy(port: int) -> bool:
    """Whether the process that serves this port says that all is well."""
    # Not urllib: it would ask a proxy from the environment for a loopback address.
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_ASK_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def environment_of(home: Home, endpoints: Endpoints, user: str) -> dict[str, str]:
    """The variables with which a process reaches an embedded bus as a user."""
    settings = broker_settings(home, endpoints, user)
    return {
        "GOVBUS_BROKER_BOOTSTRAP": settings.bootstrap,
        "GOVBUS_BROKER_USER": user,
        "GOVBUS_BROKER_PASSWORD_FILE": str(settings.password_file),
        "GOVBUS_BROKER_SECURITY_PROTOCOL": settings.security_protocol,
        "GOVBUS_BROKER_MECHANISM": settings.mechanism,
        "GOVBUS_REGISTRY_URL": endpoints.registry_url,
    }
