"""The control side of a run: resources, grants and what becomes of them, on the bus and in the model."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from chaos.model import Agreement, Barrier, Field, Source, Version, View, keep, pseudonym
from chaos.views import EVERY_ROW, some_view
from govbus import topics
from govbus.codec import encode
from govbus.errors import BrokerUnavailableError
from govbus.grant import GrantState, PublishedGrant, grant_key, grant_to_record
from govbus.policy import view_id
from govbus.view import view_schema
from govbus_console.cluster import TopicSpec
from govbus_console.control import barrier
from govbus_console.control.bus import Bus
from govbus_console.embedded.bus import EmbeddedBus
from support.exchanges import World
from support.policies import rules

_ASK_SECONDS = 60.0
_SAY_SECONDS = 180.0


class Owner(World):
    """One resource with its grants; patient, because the broker may be away for a while."""

    def __init__(self, bus: EmbeddedBus, folder: Path, *, partitions: int, kind: str = "state") -> None:
        super().__init__(bus, folder, partitions=partitions, kind=kind)
        self._producer = Producer(
            bus.broker_settings().client(enable_idempotence=True, linger_ms=5) | {"log_level": 0}
        )
        self.records = Source(partitions, event=kind == "event")
        self.before_saying: Callable[[], None] | None = None
        """Called once, between the registration of a grant version's schema and its publication."""

    def say(self, key: bytes, value: bytes | None) -> int:
        """Publish on ``govbus.grants``, however long the broker takes, and return the offset."""
        hook, self.before_saying = getattr(self, "before_saying", None), None
        if hook is not None:
            hook()
        said: list[int] = []

        def note(error: Any, message: Any) -> None:
            assert error is None, error.name()
            said.append(message.offset())

        self._producer.produce(topics.GRANTS, key=key, value=value, on_delivery=note)
        until = time.monotonic() + _SAY_SECONDS
        while not said:
            self._producer.poll(0.1)
            assert time.monotonic() < until, "the broker does not take a grant"
        return said[0]

    def flush(self) -> None:
        """Wait until everything written is acknowledged."""
        assert self._producer.flush(_SAY_SECONDS) == 0

    def close(self) -> None:
        """End the workers; the bus goes with the run, so there is nothing to take back on it."""
        for worker in self.workers:
            worker.stop()
        del self._producer
        self.registry.close()


@dataclass(slots=True)
class Held:
    """One grant, or several that share a topic: as published, and as the model has it."""

    owner: Owner
    agreement: Agreement
    published: list[PublishedGrant]
    state: GrantState = GrantState.ACTIVE

    @property
    def shared(self) -> bool:
        return self.published[0].shared


class Control:
    """Makes and changes grants. Every change is in the model before the bus hears of it."""

    def __init__(self, dice: random.Random, owners: Iterable[Owner]) -> None:
        self._dice = dice
        self._owners = list(owners)
        self.held: list[Held] = []
        self.fenced = 0
        """Workers that barriers have shut out."""

        self.slowest = 0.0
        """Seconds of the longest barrier."""

        first = self._owners[0]
        self._bus = Bus.at(first.bus.broker_settings(), first.bus.endpoints.registry_url, first.bus.home)
        # Known from here on, so that a barrier can be waited for while the registry is away.
        self._bus.registry.latest(f"{topics.WORKERS}-value")

    def close(self) -> None:
        """Let go of the registry."""
        self._bus.registry.close()

    def agreements(self) -> list[Agreement]:
        """Everything that was ever granted."""
        return [held.agreement for held in self.held]

    def candidates(self, *states: GrantState) -> list[Held]:
        """Grants in one of these states."""
        return [held for held in self.held if held.state in states]

    # ---- new grants ----

    def grant(self, owner: Owner, *, view: View | None = None, hidden: bool = False) -> Held:
        """Give a new department a view of a resource; ``hidden``: with a pseudonym for a key."""
        name = f"s{len(self.held)}"
        key = keep("code")
        if hidden:
            secret = owner.secret_file.read_text().encode()
            key = pseudonym("code", secret, f"{owner.tag}-{name}", "assessment")
        view = view or some_view(self._dice, key)
        grant = owner.new_grant(name, fields=_rules(view), rows=view.rows.sql)
        topic = topics.delivered(grant.subscriber, grant.id)
        agreement = Agreement(topic, owner.records, [Version(number=1, view=view, active=True)])
        published, _ = owner.publish(grant)
        held = Held(owner, agreement, [published])
        self.held.append(held)
        return held

    def share(self, owner: Owner, departments: int) -> Held:
        """Give several departments the same view, in one topic."""
        fields: tuple[Field, ...] = (keep("code"), keep("staff"))
        view = View(rows=EVERY_ROW, fields=fields, key=fields[0])
        grants = [
            owner.new_grant(f"m{n}", fields=_rules(view), rows=view.rows.sql) for n in range(departments)
        ]
        name = view_id(grants[0], 1)
        topic = topics.shared(owner.owner, "firms", name)
        owner.cluster.ensure_topic(TopicSpec.retained(topic, retention_ms=-1, partitions=owner.partitions))
        schema = owner.registry.register(f"{topic}-value", view_schema(grants[0], owner.contract, name))
        published = [
            PublishedGrant(
                grant=grant,
                view=name,
                delivery_topic=topic,
                value_schema_id=schema,
                key_schema_id=owner.key.id,
            )
            for grant in grants
        ]
        agreement = Agreement(topic, owner.records, [Version(number=1, view=view, active=True)])
        for one in published:
            self._say(owner, one)
        held = Held(owner, agreement, published)
        self.held.append(held)
        return held

    # ---- what becomes of them ----

    def amend(self, held: Held, *, certain: bool | None = None) -> None:
        """Give a grant other rows or fields; sometimes see to it that the old ones are out of use."""
        before = held.agreement.latest.view
        view = some_view(self._dice, before.key, other_than=before)
        _, offset = self._next(held, view=view)
        if self._dice.random() < 0.5 if certain is None else certain:
            self._pass(held, offset, closed=False)

    def suspend(self, held: Held) -> None:
        """Stop deliveries, and wait until that is certain."""
        held.agreement.open = False
        offset = self._end(held, GrantState.SUSPENDED)
        self._pass(held, offset, closed=True)

    def spoil(self, held: Held) -> None:
        """Publish what no worker can read as a grant; it is suspended by that, and the model calls it so."""
        held.agreement.open = False
        held.state = GrantState.SUSPENDED
        offset = self.garble(held)
        self._pass(held, offset, closed=True)

    def garble(self, held: Held) -> int:
        """Publish what no worker can read as a grant, wait for nothing, and return the offset."""
        return held.owner.say(grant_key(held.published[0].grant.id), b"from a version to come")

    def repair(self, held: Held) -> None:
        """Publish the grant so that it can be read: what was missed meanwhile is due, and nothing twice."""
        self._next(held)

    def close_everything(self) -> list[tuple[Agreement, Barrier]]:
        """Note that from now on nothing is delivered under any grant, until :meth:`reopen`."""
        closed = []
        for held in self.candidates(GrantState.ACTIVE):
            agreement = held.agreement
            closing = Barrier(offsets=self.readable(agreement), least_version=1, closed=True)
            agreement.barriers.append(closing)
            closed.append((agreement, closing))
        return closed

    def reopen(self, closed: Iterable[tuple[Agreement, Barrier]]) -> None:
        """Note that deliveries are allowed again, and that there were none."""
        for agreement, closing in closed:
            closing.reopened.extend(self.readable(agreement))

    def resume(self, held: Held) -> None:
        """Let deliveries go on, once it is noted that there were none."""
        held.agreement.barriers[-1].reopened.extend(self.readable(held.agreement))
        held.agreement.open = True
        held.state = GrantState.ACTIVE
        if held.shared:
            # One of them is enough to fill the topic again.
            self._change_shared(held, 0, GrantState.ACTIVE)
        else:
            self._next(held)

    def revoke(self, held: Held, *, before_waiting: Callable[[], None] = lambda: None) -> None:
        """End a grant, and wait until it is certain that nothing more is delivered."""
        held.agreement.open = False
        offset = self._end(held, GrantState.REVOKED)
        before_waiting()
        self._pass(held, offset, closed=True)

    def _next(self, held: Held, *, view: View | None = None) -> tuple[PublishedGrant, int]:
        versions = held.agreement.versions
        number = held.published[0].grant.version + 1
        shown = view or held.agreement.latest.view
        versions.append(Version(number=number, view=shown, active=held.state is GrantState.ACTIVE))
        published, offset = held.owner.again(
            held.published[0], fields=_rules(shown), rows=shown.rows.sql, state=held.state
        )
        held.published[0] = published
        return published, offset

    def _end(self, held: Held, state: GrantState) -> int:
        held.state = state
        if held.shared:
            return max(self._change_shared(held, at, state) for at in range(len(held.published)))
        return self._next(held)[1]

    def _change_shared(self, held: Held, at: int, state: GrantState) -> int:
        old = held.published[at]
        grant = replace(old.grant, version=old.grant.version + 1, state=state)
        held.published[at] = replace(old, grant=grant)
        return self._say(held.owner, held.published[at])

    def _say(self, owner: Owner, published: PublishedGrant) -> int:
        return owner.say(
            grant_key(published.grant.id), encode(owner._grant_schema, grant_to_record(published))
        )

    def _pass(self, held: Held, offset: int, *, closed: bool) -> None:
        # Safe to repeat: a broker that has just come back may not answer everything at once.
        passed = patiently(lambda: barrier.wait(self._bus, offset))
        self.fenced += len(passed.fenced)
        self.slowest = max(self.slowest, passed.seconds)
        held.agreement.barriers.append(
            Barrier(
                offsets=self.readable(held.agreement),
                least_version=held.agreement.latest.number,
                closed=closed,
            )
        )

    def readable(self, agreement: Agreement) -> list[int]:
        """How far each partition of a delivery topic can be read by a reader of committed records."""
        consumer = Consumer(
            self._bus.broker.client(
                group_id="chaos-watermarks", enable_auto_commit=False, isolation_level="read_committed"
            )
            | {"log_level": 0}
        )
        try:
            return [
                patiently(
                    lambda number=number: consumer.get_watermark_offsets(  # type: ignore[misc]
                        TopicPartition(agreement.topic, number), timeout=5.0, cached=False
                    )
                )[1]
                for number in range(agreement.source.partitions)
            ]
        finally:
            consumer.close()


def patiently(ask: Callable[[], Any]) -> Any:
    """Ask the broker until it answers: it may just have come back."""
    until = time.monotonic() + _ASK_SECONDS
    while True:
        try:
            return ask()
        except (KafkaException, BrokerUnavailableError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _rules(view: View) -> Any:
    return rules(*((field.name, field.transform) for field in view.fields))
