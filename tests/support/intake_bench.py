"""An intake without a broker: its own steps, with doubles where Kafka and the directory would be."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from govbus import topics
from govbus.codec import bus_schema, parse_schema
from govbus.settings import BrokerSettings, ExchangeSettings
from govbus_processors.batch import Batch, Output
from govbus_processors.checkpoint import Checkpoints
from govbus_processors.exchange import Exchange, SchemaBook
from govbus_processors.intake import Intake, _Read
from govbus_processors.keyset import KeySet
from govbus_processors.membership import Membership
from govbus_processors.polling import sorted_out
from govbus_processors.routes import Policy
from support.policies import NOON

BUS_SCHEMAS = {
    name: parse_schema(number, bus_schema(name))
    for number, name in enumerate(("decision", "worker", "progress", "dead-letter"), start=1)
}
"""As the registry would have them."""

_BROKER = BrokerSettings()


class Outlet:
    """A guarantee that keeps what leaves."""

    transactional_id = "bench"

    def __init__(self) -> None:
        self.sent: list[tuple[str, Output]] = []
        self.aborted: list[tuple[str, Output]] = []
        self._open: list[tuple[str, Output]] = []

    def open(self) -> None:
        """Nothing to connect to."""

    def begin(self) -> None:
        self._open = []

    def put(self, topic: str, records: Any) -> None:
        self._open += [(topic, Output(*record)) for record in records]

    def commit(self, _offsets: Any, _group: Any) -> None:
        self.sent += self._open
        self._open = []

    def abort(self) -> None:
        self.aborted += self._open
        self._open = []


class IntakeBench:
    """An intake with an exchange, driven batch by batch."""

    def __init__(
        self,
        policy: Policy,
        registry: Any,
        *,
        exchange: Callable[..., Exchange] = Exchange,
        secret: bytes | None = b"s" * 32,
        **settings: Any,
    ) -> None:
        membership = self._membership = Membership()
        book = SchemaBook(registry, wait_seconds=0.0)
        worker = exchange(worker="w", schemas=book, membership=membership, pseudonym_secret=secret)

        def submit(batch: Batch) -> None:
            outcome = worker.process(batch)
            while outcome.waiting and book.fetch():
                worker.rollback()
                outcome = worker.process(batch)
            batch.outcome.set_result(outcome)

        self.outlet = Outlet()
        self.now = NOON
        self.directory = SimpleNamespace(policy=policy, fresh=_always, lease_seconds=5.0)
        self.intake = Intake(
            worker="w",
            broker=_BROKER,
            registry=registry,
            settings=ExchangeSettings(**settings),
            directory=self.directory,
            membership=membership,
            checkpoints=Checkpoints(Path(tempfile.gettempdir())),
            submit=submit,
        )
        self.intake._guarantee = self.outlet
        self.intake._consumer = SimpleNamespace(
            consumer_group_metadata=lambda: None, pause=lambda _p: None, seek=lambda _p: None
        )
        self.intake._reader = None  # type: ignore[assignment]  # key sets are put in, not read
        self.intake._schemas = dict(BUS_SCHEMAS)
        self.intake._known_since = 0.0
        self.intake._clock = SimpleNamespace(now=lambda: self.now)
        for source, routes in policy.routes.items():
            self.intake._cursors.assign((source, 0), None, {})
            for route in routes:
                membership.install((route.topic, 0), KeySet())

    def restart(self, places: Iterable[tuple[str, int]]) -> None:
        """Begin to serve partitions as a worker does that takes them over: by what was committed.

        The key sets are as they would be once they are read; reading them is not what this bench is for.
        """
        positions = {place: self.intake._cursors.position(place) for place in places}
        self.intake._forget_partitions()
        for output in self.sent(topics.PROGRESS):
            self.intake._stored.take(output.key or b"", output.value)
        for place, position in positions.items():
            self.intake._cursors.assign(place, position, self.intake._stored.of(place))
        for route in (r for routes in self.directory.policy.routes.values() for r in routes):
            self._membership.install((route.topic, 0), self._membership.suspended((route.topic, 0)))

    def live(self, messages: list[Any]) -> None:
        """Exchange what the consumer would have read."""
        self.intake._live(_Read(sorted_out(messages)[0], group=None, more=False), look_ahead=False)

    def sent(self, topic: str) -> list[Output]:
        """What was committed on a topic."""
        return [output for where, output in self.outlet.sent if where == topic]


def _always(*, since: float) -> bool:  # noqa: ARG001 - the directory's own signature
    return True
