"""The bus and the departments' processes that one demo plays on. Does I/O.

Every process is started as a department would start it: by the command line,
with that department's own user and password file, and nothing of anyone
else's. The demo itself works beside them as the administrator.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from govbus import topics
from govbus.codec import Registry
from govbus.errors import FatalError
from govbus_console.control.bus import PSEUDONYM_SECRET, Bus
from govbus_console.control.store import ControlStore, StoredGrant
from govbus_console.demo.agree import AGREEMENTS, REFUSED, REVOKED, Agreeing
from govbus_console.demo.divisions import Detail
from govbus_console.demo.measure import Samples, peak_memory, scrape
from govbus_console.demo.scene import OWNERS, SUBSCRIBERS, Scene
from govbus_console.demo.watch import Decisions, Exchanged
from govbus_console.embedded import EXCHANGE, EmbeddedBus, Home
from govbus_console.settings import ControlSettings
from govbus_console.supervise import Supervisor, environment_of

STALLED_SECONDS = 120.0
"""Without any progress for so long, something is broken; the slowest single step takes a few seconds."""

_Result = TypeVar("_Result")


class Show(Protocol):
    """Whoever shows how the demo goes; may be called from several threads."""

    def __call__(self, step: str, seconds: float | None) -> None:
        """Take note that a step begins (``seconds`` None), or that it has ended well."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may differ from one demo to another."""

    detail: Detail = Detail.STREETS
    people: int = 20_000
    workers: int = 2
    keep: bool = False
    """Leave everything running at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One grant that the demo watches."""

    stored: StoredGrant
    fresh: bool
    """Whether this demo made it, so that all of what was captured is new to it."""

    @property
    def id(self) -> str:
        """The grant's id."""
        return self.stored.grant.id

    @property
    def subscriber(self) -> str:
        """Who receives."""
        return self.stored.grant.subscriber

    @property
    def resource(self) -> str:
        """``owner.resource``."""
        return self.stored.grant.resource_ref

    @property
    def captured_topic(self) -> str:
        """Where the owner publishes."""
        return topics.captured(self.stored.grant.owner, self.stored.grant.resource)

    @property
    def delivery_topic(self) -> str:
        """Where it is delivered."""
        return self.stored.published.delivery_topic

    @property
    def label(self) -> str:
        """What decisions call it: the grant, or the view that several grants share."""
        published = self.stored.published
        return published.view if published.shared else self.id

    @property
    def table(self) -> str:
        """Where it is landed: the name that the subscription suggests."""
        return self.id.replace("-", "_")


class Stage:
    """Use as a context: on leaving it, everything stops, unless :meth:`leave_running` was called."""

    def __init__(self, home: Home, options: Options, show: Show) -> None:
        self.home = home
        self.options = options
        self.scene = Scene(home)
        self._show = show
        self._held = ExitStack()
        self._kept = False
        self._ports: dict[str, int] = {}

    def __enter__(self) -> Stage:
        """Nothing yet: :meth:`open` does it, once the departments' systems are there."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop everything, or let go of it."""
        self._held.close()

    def open(self) -> None:
        """Start the bus, come to agreements, start the departments' processes.

        Raises:
            ConfigurationError: something that it needs is not on this machine.
            RetriableError: something that it needs does not answer.
            FatalError: a process did not come up; the message names its log.
        """
        self._start_bus()
        self._agree()
        self._start_processes()

    def step(self, name: str, work: Callable[[], _Result]) -> _Result:
        """Do something and show that it is done, and how long it took."""
        self._show(name, None)
        began = time.monotonic()
        result = work()
        self._show(name, time.monotonic() - began)
        return result

    def metrics(self, prefix: str = "") -> dict[str, Samples]:
        """Ask the processes whose names begin so for their metrics."""
        return {name: scrape(port) for name, port in self._ports.items() if name.startswith(prefix)}

    def check_alive(self) -> None:
        """Say whether everything still runs.

        Raises:
            FatalError, RetriableError: a process has ended, if only to be started again.
        """
        self.embedded.check()
        for report in self._supervisor.reports():
            if report.last_exit is not None:
                log = self.home.log / f"{report.name}.log"
                raise FatalError(f"{report.name} has ended with exit code {report.last_exit}; see {log}")

    def memory(self) -> dict[str, int]:
        """Give the most bytes that each process has had resident, where Linux says."""
        pids = {"demo": os.getpid()}
        for name, child in (("kafka", self.embedded.kafka), ("registry", self.embedded.registry)):
            if child is not None:
                pids[name] = child.pid
        pids |= {name: self._supervisor.pid(name) for name in self._ports}
        return {name: peak for name, pid in pids.items() if (peak := peak_memory(pid)) is not None}

    def leave_running(self) -> Mapping[str, str]:
        """Let everything run on without this process; give each process's address of metrics."""
        self.embedded.record(*self._supervisor.let_go())
        self._kept = True
        return {name: f"http://127.0.0.1:{port}/metrics" for name, port in self._ports.items()}

    # ---- opening ----

    def _start_bus(self) -> None:
        self.embedded = EmbeddedBus(self.home, progress=self._show, detached=self.options.keep)
        endpoints = self.embedded.start()
        self._held.callback(self._stop_bus)
        broker = self.embedded.broker_settings()
        self.bus = Bus.at(broker, endpoints.registry_url, self.home)
        store = ControlStore.open(ControlSettings().url_for(self.home))
        self.store = self._held.enter_context(closing(store))

    def _agree(self) -> None:
        """Apply the catalogue, and come to the agreements that there are not yet."""
        agreeing = Agreeing(self.home, self.step)
        agreeing.apply(self.scene.write_catalogue())
        agreeing.open_accounts()
        now = datetime.now(UTC)
        known = self.store.snapshot()
        made = {agreeing.come_to(wanted) for wanted in AGREEMENTS if wanted.met(known, now) is None}
        agreeing.ask_in_vain(REFUSED)
        known = self.store.snapshot()
        given = [stored for wanted in AGREEMENTS if (stored := wanted.met(known, now)) is not None]
        self.shares = [Share(stored=stored, fresh=stored.grant.id in made) for stored in given]
        self.to_revoke = given[AGREEMENTS.index(REVOKED)].grant.id
        self.captured = {ref: topics.captured(*ref.split(".")) for ref in sorted(known.resources)}
        """Captured topic by resource."""

        registry = Registry(self.embedded.endpoints.registry_url)
        self.decisions = self._held.enter_context(closing(Decisions(self.bus.broker, registry)))
        self.exchanged = self._held.enter_context(closing(Exchanged(self.bus.broker)))

    def _start_processes(self) -> None:
        self._supervisor = Supervisor(self.home, self.embedded.children)
        self._held.callback(self._stop_processes)
        secret = {"GOVBUS_EXCHANGE_PSEUDONYM_SECRET_FILE": str(self.home.password_file(PSEUDONYM_SECRET))}
        for number in range(1, self.options.workers + 1):
            self._start(f"exchange-{number}", EXCHANGE, ["exchange", "--worker", f"demo-{number}"], secret)
        for department in SUBSCRIBERS:
            config = self.scene.write_land(department)
            self._start(f"land-{department}", department, ["land", "--config", str(config)])
        for department in OWNERS:
            config = self.scene.write_capture(department, self.options.detail)
            self._start(f"capture-{department}", department, ["capture", "--config", str(config)])
        self._supervisor.ready()
        self.step("start capture, exchange and landing", self._until_healthy)

    def _start(
        self, name: str, user: str, arguments: list[str], more: Mapping[str, str] | None = None
    ) -> None:
        environment = environment_of(self.home, self.embedded.endpoints, user) | dict(more or {})
        self._ports[name] = self._supervisor.start(name, arguments, environment=environment)

    def _until_healthy(self) -> None:
        for name in self._ports:
            self._supervisor.wait_healthy(name, seconds=STALLED_SECONDS)

    def _stop_processes(self) -> None:
        if not self._kept:
            self._supervisor.close()

    def _stop_bus(self) -> None:
        if not self._kept:
            self.step("stop everything", self.embedded.stop)
