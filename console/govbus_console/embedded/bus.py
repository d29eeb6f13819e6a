"""The embedded bus: a broker and a registry as child processes, in one home.

Attached, the children end with this process, whatever ends it. Detached, they
stay, and any later process finds them through the home's ``run.json`` and can
stop them with :func:`stop_running`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self, TypeVar

from govbus.errors import BrokerUnavailableError, RegistryUnavailableError
from govbus.settings import BrokerSettings, RegistrySettings
from govbus_console.acls import ADMIN
from govbus_console.embedded.artifacts import artifact
from govbus_console.embedded.children import Child, Children
from govbus_console.embedded.home import Endpoints, Home, Run
from govbus_console.embedded.java import Java, find_java
from govbus_console.embedded.kafka import EmbeddedKafka, KafkaOptions
from govbus_console.embedded.processes import STOP_SECONDS, ProcessRef, stop_all
from govbus_console.embedded.registry import EmbeddedRegistry

_Result = TypeVar("_Result")


class Progress(Protocol):
    """Whoever shows how starting goes.

    Called from several threads, twice for each step: when it begins, with
    ``seconds`` None, and when it has ended well, with how long it took. A step
    that fails is not reported again: the error is.
    """

    def __call__(self, step: str, seconds: float | None) -> None:
        """Take note of one beginning or end."""
        ...


def silent(step: str, seconds: float | None) -> None:  # noqa: ARG001  the protocol's names
    """Show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusOptions:
    """What may differ from one embedded bus to another."""

    kafka: KafkaOptions = field(default_factory=KafkaOptions)
    registry_heap_mb: int = 256
    start_seconds: float = 180.0
    """How long each of the two may take to answer: seconds, or much longer on a busy machine."""


class EmbeddedBus:
    """A broker and a registry that share a home and a lifetime.

    ``with EmbeddedBus(home) as bus:`` starts and stops both. After ``start`` of a
    detached bus this object may be dropped; the bus stays.
    """

    def __init__(
        self,
        home: Home,
        *,
        options: BusOptions | None = None,
        progress: Progress = silent,
        detached: bool = False,
    ) -> None:
        self.home = home
        self._options = options or BusOptions()
        self._progress = progress
        self._detached = detached
        self._kafka = EmbeddedKafka(home, options=self._options.kafka)
        self._registry = EmbeddedRegistry(home, heap_mb=self._options.registry_heap_mb)
        self._children: Children | None = None
        self._held = ExitStack()
        self._extra: list[ProcessRef] = []

    def __enter__(self) -> Self:
        """Start both."""
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop both."""
        self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """Where the bus answers, once started."""
        return Endpoints(bootstrap=self._kafka.bootstrap, registry_url=self._registry.url)

    @property
    def children(self) -> Children:
        """Where more processes of this bus can be started, to live and end with it."""
        if self._children is None:
            raise RuntimeError("the bus has not been started")
        return self._children

    @property
    def kafka(self) -> Child | None:
        """The broker's process, once started."""
        return self._kafka.child

    @property
    def registry(self) -> Child | None:
        """The registry's process, once started."""
        return self._registry.child

    def broker_settings(self, user: str = ADMIN) -> BrokerSettings:
        """How a user reaches this broker; makes the user's password file, not the user."""
        return broker_settings(self.home, self.endpoints, user)

    def registry_settings(self) -> RegistrySettings:
        """How anyone reaches this registry."""
        return RegistrySettings(url=self.endpoints.registry_url)

    def start(self) -> Endpoints:
        """Start both at once and return when both answer. Nothing is left running on an error.

        Raises:
            ConfigurationError: the home is in use, or Java, Maven or an artifact is missing.
            BrokerUnavailableError: the broker did not come up.
            RegistryUnavailableError: the registry did not come up.
        """
        try:
            lock = self._held.enter_context(self.home.locked())
            java = self._step("find Java", find_java)
            self._children = children = Children(detached=self._detached, inherit=[lock])
            self._start_both(java, children)
            self.home.write_run(self._run())
        except BaseException:
            self.stop()
            raise
        if self._detached:
            # The children hold the lock from here on, for as long as they live.
            self._held.close()
        return self.endpoints

    def _start_both(self, java: Java, children: Children) -> None:
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="start") as both:
            try:
                # Fetched one after the other: Maven's own store does not take two writers.
                self._step("fetch Apache Kafka", lambda: artifact("kafka", java=java))
                kafka = both.submit(
                    self._step,
                    "start Apache Kafka",
                    lambda: self._kafka.start(java, children, seconds=self._options.start_seconds),
                )
                self._step("fetch the schema registry", lambda: artifact("registry", java=java))
                registry = both.submit(
                    self._step,
                    "start the schema registry",
                    lambda: self._registry.start(java, children, seconds=self._options.start_seconds),
                )
                for started in as_completed((kafka, registry)):
                    started.result()
            except BaseException:
                # Ends the wait of the one that is still starting, which leaving this block waits for.
                children.stop()
                raise

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop both, and everything that was started through :attr:`children`."""
        children, self._children = self._children, None
        if children is not None:
            children.stop(seconds)
            self.home.forget_run()
        self._held.close()

    def check(self) -> None:
        """Say whether both still run.

        Raises:
            BrokerUnavailableError: the broker has ended.
            RegistryUnavailableError: the registry has ended.
        """
        if (broker := self.kafka) is None or broker.exit_code is not None:
            raise BrokerUnavailableError(f"the embedded broker has ended; see {self.home.log / 'kafka.log'}")
        if (registry := self.registry) is None or registry.exit_code is not None:
            raise RegistryUnavailableError(
                f"the embedded registry has ended; see {self.home.log / 'registry.log'}"
            )

    def record(self, *others: Child) -> None:
        """Add processes to ``run.json``, so that ``govbus status`` and ``govbus down`` know them."""
        self._extra += [other.ref for other in others]
        self.home.write_run(self._run())

    def _run(self) -> Run:
        own = [child.ref for child in (self.kafka, self.registry) if child is not None]
        return Run(
            endpoints=self.endpoints,
            supervisor=None if self._detached else ProcessRef.of("govbus", os.getpid()),
            processes=(*own, *self._extra),
        )

    def _step(self, name: str, work: Callable[[], _Result]) -> _Result:
        self._progress(name, None)
        began = time.monotonic()
        result = work()
        self._progress(name, time.monotonic() - began)
        return result


def broker_settings(home: Home, endpoints: Endpoints, user: str = ADMIN) -> BrokerSettings:
    """How a user reaches the broker of a home that some process has started."""
    return BrokerSettings(
        bootstrap=endpoints.bootstrap,
        user=user,
        password_file=home.password_file(user),
        security_protocol="SASL_PLAINTEXT",
        mechanism="SCRAM-SHA-256",
    )


def running(home: Home) -> Run | None:
    """Give what runs in a home now, or None."""
    run = home.read_run()
    return run if run is not None and run.alive() else None


def stop_running(home: Home, *, seconds: float = STOP_SECONDS) -> bool:
    """Stop what runs in a home, whoever started it; False when nothing did.

    A supervisor is asked to stop its children itself, in its own order. What
    remains after that is stopped here, the bus last.
    """
    run = home.read_run()
    if run is None:
        return False
    found = run.alive()
    if run.supervisor is not None and run.supervisor.signal(signal.SIGTERM):
        deadline = time.monotonic() + seconds
        while run.supervisor.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
    bus = [process for process in run.processes if process.name in {"kafka", "registry"}]
    others = [process for process in run.processes if process not in bus]
    stop_all(others, seconds=seconds)
    stop_all(bus, seconds=seconds)
    home.forget_run()
    return found
