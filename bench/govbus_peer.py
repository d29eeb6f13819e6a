"""govbus as a peer: the real exchange worker, under grants that were really applied.

Each run has grants of its own, so its delivery topics are new and empty. The
workers' group is forgotten between runs, so each begins at the first record;
the grants of the run before are revoked first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from confluent_kafka.admin import AdminClient

from bench.records import MASKED, PROJECTED, ROWS, contract_schema
from govbus import topics
from govbus.grant import GrantState
from govbus_console.control.apply import apply_file
from govbus_console.control.bus import Bus
from govbus_console.control.lifecycle import revoke
from govbus_console.control.store import ControlStore
from govbus_console.settings import ControlSettings

if TYPE_CHECKING:
    from bench.ground import Ground
    from bench.lineup import Input, Start, Started
    from govbus_console.embedded import Child

OWNER = "bench"
_WHO = "bench"
_WHY = "benchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A grant as the benchmark asks for it."""

    id: str
    subscriber: str
    resource: str
    """The resource's name without its owner."""

    fields: Sequence[str | dict[str, Any]]
    """As a catalogue file has them."""

    rows: str = "all"

    @property
    def topic(self) -> str:
        """Where its deliveries go."""
        return topics.delivered(self.subscriber, self.id)


class Control:
    """The control side of the benchmark's bus."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.bus = Bus(ground.broker, ground.cluster, ground.registry, ground.home)
        self.store = ControlStore.open(ControlSettings().url_for(ground.home))

    def apply(self, resources: Sequence[str], grants: Sequence[Wanted], *, kind: str = "event") -> None:
        """State resources (all under the benchmark's contract) and grants."""
        folder = self._ground.home.state / "catalogue"
        folder.mkdir(exist_ok=True)
        schema = contract_schema()
        schema["govbus"]["kind"] = kind
        contract = folder / f"{kind}.avsc"
        contract.write_text(json.dumps(schema, ensure_ascii=False), encoding="utf-8")
        departments = {OWNER, *(grant.subscriber for grant in grants)}
        catalogue = {
            "departments": [{"name": name, "title": name} for name in sorted(departments)],
            "resources": [
                {
                    "ref": f"{OWNER}.{name}",
                    "title": "Made-up residents",
                    "share_type": "conditional",
                    "synthetic": True,
                    "contract": contract.name,
                }
                for name in resources
            ],
            "grants": [
                {
                    "id": grant.id,
                    "subscriber": grant.subscriber,
                    "resource": f"{OWNER}.{grant.resource}",
                    "fields": list(grant.fields),
                    "rows": grant.rows,
                    "purpose": "Benchmark",
                    "term_days": 30,
                }
                for grant in grants
            ],
        }
        file = folder / "catalogue.yaml"
        file.write_text(yaml.safe_dump(catalogue, allow_unicode=True, sort_keys=False), encoding="utf-8")
        apply_file(file, self.store, self.bus, who=_WHO, why=_WHY)

    def revoke(self, grant: str) -> float:
        """Revoke one grant and say how many seconds the barrier took."""
        return revoke(grant, self.store, self.bus, who=_WHO, why=_WHY).barrier_seconds

    def revoke_all(self) -> None:
        """Revoke every grant that is still in force."""
        for stored in self.store.snapshot().grants.values():
            if stored.grant.state is GrantState.ACTIVE:
                self.revoke(stored.grant.id)

    def forget_group(self) -> None:
        """Let the next worker begin at the first record of every resource; the last one has left."""
        admin = AdminClient(self._ground.client())
        (answer,) = admin.delete_consumer_groups([topics.EXCHANGE_GROUP]).values()
        answer.result(timeout=10)


@contextmanager
def control(ground: Ground) -> Iterator[Control]:
    """Open the control side for a while."""
    opened = Control(ground)
    try:
        yield opened
    finally:
        opened.store.close()


def start_worker(ground: Ground, name: str, *, guarantee: str) -> Child:
    """Start one exchange worker, as ``govbus exchange`` does."""
    return ground.bus.children.start(
        name,
        [sys.executable, "-m", "govbus_console", "exchange", "--worker", name],
        output=ground.home.log / f"{name}.out",
        directory=ground.home.state,
        environment={
            "GOVBUS_HOME": str(ground.home.root),
            "GOVBUS_EXCHANGE_GUARANTEE": guarantee,
            "GOVBUS_LOG_LEVEL": "WARNING",
        },
    )


def govbus(guarantee: str) -> Start:
    """Give the starter of an exchange worker with one guarantee."""

    def start(ground: Ground, source: Input, *, run: str) -> Started:
        from bench.lineup import Started

        name = run.replace("_", "-")
        resource = topics.resource_of(source.topic).partition(".")[2]
        shown = [{f: {"partial": {"head": 1}}} if f == MASKED else f for f in PROJECTED]
        projected = Wanted(id=f"{name}-projected", subscriber="health", resource=resource, fields=shown)
        full = Wanted(
            id=f"{name}-full",
            subscriber="quzhou",
            resource=resource,
            fields=[field["name"] for field in contract_schema()["fields"]],
            rows=ROWS,
        )
        with control(ground) as side:
            side.apply([resource], [projected, full])

        def clean_up() -> None:
            with control(ground) as side:
                side.revoke_all()
                side.forget_group()
            ground.drop_topics(projected.topic, full.topic)

        return Started(
            process=start_worker(ground, name, guarantee=guarantee),
            outputs={projected.topic: source.expected.projected, full.topic: source.expected.full},
            clean_up=clean_up,
        )

    return start
