"""A broker and a registry that can be stopped, killed and started again in the middle of everything."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from govbus_console.embedded import EmbeddedBus, Home
from govbus_console.embedded.java import find_java
from support.broker import warm_up

_START_SECONDS = 180.0
_STOP_SECONDS = 8.0
"""Now and then a broker takes a minute to stop in order; nobody waits so long for it."""


class Ground:
    """The parts that every process of a run stands on. What is signalled here was started here."""

    def __init__(self, bus: EmbeddedBus) -> None:
        self.bus = bus

    def end_broker(self, *, kill: bool) -> None:
        """Take the broker away, as an operator does or as a crash does."""
        broker = self.bus.kafka
        assert broker is not None
        if kill:
            broker.kill()
        else:
            broker.stop(_STOP_SECONDS)

    def start_broker(self) -> None:
        """Bring the broker back, and return when it answers."""
        before = self.bus.endpoints.bootstrap
        self.bus._kafka.start(find_java(), self.bus.children, seconds=_START_SECONDS)
        assert self.bus.endpoints.bootstrap == before, "somebody took the broker's port while it was down"

    def freeze_broker(self) -> None:
        """Let the broker hang without ending."""
        assert self.bus.kafka is not None
        self.bus.kafka.ref.signal(signal.SIGSTOP)

    def thaw_broker(self) -> None:
        """Let it go on."""
        assert self.bus.kafka is not None
        self.bus.kafka.ref.signal(signal.SIGCONT)

    @property
    def registry_runs(self) -> bool:
        return self.bus.registry is not None and self.bus.registry.exit_code is None

    def end_registry(self) -> None:
        """Kill the registry."""
        assert self.bus.registry is not None
        self.bus.registry.kill()

    def start_registry(self) -> None:
        """Bring the registry back, and return when it answers."""
        before = self.bus.endpoints.registry_url
        self.bus._registry.start(find_java(), self.bus.children, seconds=_START_SECONDS)
        assert self.bus.endpoints.registry_url == before, "somebody took the registry's port"


@contextmanager
def ground() -> Iterator[Ground]:
    """Start a bus of its own in a directory of its own; both are gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="govbus-chaos-") as folder,
        EmbeddedBus(Home(Path(folder) / "home")) as bus,
    ):
        warm_up(bus.broker_settings().client())
        yield Ground(bus)
