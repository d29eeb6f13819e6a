"""``govbus up``: a bus in one home, from the broker to the exchange workers, until told to stop. Does I/O.

Order of starting: broker and registry, what both need (:mod:`.control.bus`), the
control store and what was left undone, the exchange workers, the keeper. Order
of stopping: the keeper, the workers, registry and broker.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from govbus import observe
from govbus.errors import ConfigurationError, FatalError
from govbus.settings import ProcessSettings
from govbus_console.control.apply import settle
from govbus_console.control.bus import PSEUDONYM_SECRET, Bus, set_up
from govbus_console.control.store import ControlStore
from govbus_console.embedded import ADMIN, EXCHANGE, EmbeddedBus, Endpoints, Home, Progress, ScrapeTarget
from govbus_console.embedded.children import tail
from govbus_console.embedded.ports import LOOPBACK
from govbus_console.keeper import keep
from govbus_console.settings import ApiSettings, ControlSettings
from govbus_console.supervise import HOPELESS, Supervisor, environment_of, read_processes

_CHECK_SECONDS = 0.2
_DETACH_SECONDS = 1_900.0
"""Longer than fetching the broker may take on a slow line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """What is up."""

    endpoints: Endpoints
    workers: tuple[str, ...]
    metrics: str
    """Address of this process's own /metrics."""

    api: str | None
    """Where the control API answers, if it was asked for."""


class ReadyCallback(Protocol):
    """Whoever wants to know that everything runs."""

    def __call__(self, up: Up) -> None:
        """Take note of where."""
        ...


def run_up(home: Home, *, workers: int, api: bool, progress: Progress, ready: ReadyCallback) -> None:
    """Run a bus until SIGTERM or Ctrl-C.

    Args:
        home: where.
        workers: how many exchange workers.
        api: whether the control API runs too, as its settings say.
        progress: told of each step.
        ready: called once, when everything runs.

    Raises:
        ConfigurationError: the home is in use, or something is missing on this machine.
        BrokerUnavailableError, RegistryUnavailableError: one of them did not come up, or has ended.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        embedded = EmbeddedBus(home, progress=progress)
        endpoints = embedded.start()
        stack.callback(embedded.stop)
        bus = Bus.at(embedded.broker_settings(), endpoints.registry_url, home)
        store = stack.enter_context(closing(ControlStore.open(ControlSettings().url_for(home))))
        _timed("set up topics, users and schemas", progress, lambda: set_up(bus))
        _timed("finish what was left undone", progress, lambda: settle(store, bus, now=datetime.now(UTC)))
        process = ProcessSettings()
        port = observe.serve_metrics(process.metrics_port, process="up", host=process.metrics_host)
        supervisor = stack.enter_context(
            Supervisor(
                home,
                embedded.children,
                targets=[ScrapeTarget(address=f"{LOOPBACK}:{port}", labels={"process": "up"})],
            )
        )
        names = [f"worker-{number}" for number in range(1, workers + 1)]
        _timed(
            f"start {workers} exchange worker{'s' if workers > 1 else ''}",
            progress,
            lambda: _start_workers(supervisor, home, endpoints, names),
        )
        if api:
            _timed("start the control API", progress, lambda: start_api(supervisor, home, endpoints))
        keeper = threading.Thread(target=keep, args=(store, bus), kwargs={"stop": stop}, name="keeper")
        keeper.start()
        stack.callback(keeper.join)
        stack.callback(stop.set)
        supervisor.ready()
        ready(
            Up(
                endpoints=endpoints,
                workers=tuple(names),
                metrics=f"http://{LOOPBACK}:{port}/metrics",
                api=ApiSettings().url if api else None,
            )
        )
        while not stop.wait(_CHECK_SECONDS):
            embedded.check()
            if not keeper.is_alive():
                raise FatalError("the keeper has ended; see the log")


def _timed(step: str, progress: Progress, work: Callable[[], object]) -> None:
    progress(step, None)
    began = time.monotonic()
    work()
    progress(step, time.monotonic() - began)


def _start_workers(supervisor: Supervisor, home: Home, endpoints: Endpoints, names: Sequence[str]) -> None:
    environment = environment_of(home, endpoints, EXCHANGE)
    environment["GOVBUS_EXCHANGE_PSEUDONYM_SECRET_FILE"] = str(home.password_file(PSEUDONYM_SECRET))
    for name in names:
        supervisor.start(name, ["exchange", "--worker", name], environment=environment)
    for name in names:
        supervisor.wait_healthy(name)


def start_api(supervisor: Supervisor, home: Home, endpoints: Endpoints) -> None:
    """Start the control API, with the administrator's login, and return when it can be called."""
    supervisor.start("api", ["api"], environment=environment_of(home, endpoints, ADMIN))
    supervisor.wait_healthy("api")


def start_detached(home: Home, *, workers: int, api: bool) -> Path:
    """Start ``govbus up`` on its own and return its log when everything runs.

    Raises:
        ConfigurationError, FatalError: it ended before that; the message has its last words.
    """
    home.create()
    log = home.log / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  this interpreter, on this package
            [
                sys.executable,
                "-m",
                "govbus_console",
                "up",
                "--workers",
                str(workers),
                *(["--api"] if api else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _DETACH_SECONDS
    while time.monotonic() < deadline:
        running = read_processes(home)
        if running is not None and running.ready and running.supervisor.pid == process.pid:
            return log
        if process.poll() is not None:
            kind = ConfigurationError if process.returncode == HOPELESS else FatalError
            raise kind(f"the bus did not come up (exit code {process.returncode}):\n{tail(log)}")
        time.sleep(_CHECK_SECONDS)
    process.terminate()
    raise FatalError(f"the bus did not come up within {_DETACH_SECONDS / 60:.0f} minutes; see {log}")
