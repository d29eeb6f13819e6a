"""Who takes part, and how each one's process is started.

A peer gets one run at a time: a job file, two empty outputs, a group of its
own. It is stopped when its outputs have been complete for a while.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench import toolbox
from bench.records import CITY, MASKED, projected_schema
from govbus_console.embedded import Child
from govbus_console.embedded.java import find_java

if TYPE_CHECKING:
    from bench.ground import Ground
    from bench.records import Digest, Expected

_CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A topic that holds the first ``count`` records of the input, and what must come out of it."""

    topic: str
    count: int
    expected: Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A peer at work."""

    process: Child
    outputs: Mapping[str, Digest]
    """The topics that it fills, and what each must hold in the end."""

    clean_up: Callable[[], None] = field(default=lambda: None)
    """Called when it has been stopped and its outputs have been read."""


class Start(Protocol):
    """Starts one peer for one run."""

    def __call__(self, ground: Ground, source: Input, *, run: str) -> Started:
        """Start it on an input; ``run`` is a word that no other run of any peer has."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Something that does the benchmark's work."""

    name: str
    """As in the JSON."""

    title: str
    """As in the table."""

    start: Start
    extra: bool = False
    """Whether it takes part only when it is named."""

    slow: bool = False
    """Whether it gets fewer records: a rate does not need minutes."""


def peers() -> list[Peer]:
    """Give all peers in the order of the table."""
    from bench.govbus_peer import govbus

    return [
        Peer(name="raw", title="raw librdkafka loop in Python (nothing looked at)", start=_raw),
        Peer(name="govbus_alo", title="govbus, at least once", start=govbus("at-least-once")),
        Peer(name="govbus_eos", title="govbus, exactly once", start=govbus("exactly-once")),
        Peer(
            name="kafka_streams_alo",
            title="Kafka Streams 4.3.1, at_least_once",
            start=_kafka_streams("at_least_once"),
        ),
        Peer(
            name="kafka_streams_eos",
            title="Kafka Streams 4.3.1, exactly_once_v2",
            start=_kafka_streams("exactly_once_v2"),
        ),
        Peer(
            name="kafka_streams_alo_copy",
            title="Kafka Streams 4.3.1, at_least_once, full records not encoded anew",
            start=_kafka_streams("at_least_once", "copy"),
            extra=True,
        ),
        Peer(
            name="kafka_streams_eos_copy",
            title="Kafka Streams 4.3.1, exactly_once_v2, full records not encoded anew",
            start=_kafka_streams("exactly_once_v2", "copy"),
            extra=True,
        ),
        Peer(name="faust", title="Faust 0.15.3, one event at a time", start=_faust, slow=True),
        Peer(name="quix", title="Quix Streams 3.28.1, at least once", start=_quix, slow=True),
    ]


def _raw(ground: Ground, source: Input, *, run: str) -> Started:
    passed = (source.expected.through, source.expected.through)
    return _from_job(ground, source, run, [sys.executable, "-m", "bench.peers.raw_loop"], outputs=passed)


def _faust(ground: Ground, source: Input, *, run: str) -> Started:
    return _from_job(ground, source, run, [sys.executable, "-m", "bench.peers.faust_events"])


def _quix(ground: Ground, source: Input, *, run: str) -> Started:
    return _from_job(ground, source, run, [toolbox.quix_python(), "-m", "bench.peers.quix_rows"])


def _kafka_streams(guarantee: str, *arguments: str) -> Start:
    def start(ground: Ground, source: Input, *, run: str) -> Started:
        command = [
            str(find_java().executable),
            "-Xmx1g",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            toolbox.kafka_streams(),
            "Exchange",
        ]
        return _from_job(ground, source, run, command, *arguments, guarantee=guarantee)

    return start


def _from_job(
    ground: Ground,
    source: Input,
    run: str,
    command: list[str],
    *arguments: str,
    guarantee: str = "",
    outputs: tuple[Digest, Digest] | None = None,
) -> Started:
    """Start a peer that reads a job file, on outputs made for it."""
    projected, full = f"bench.{run}.projected", f"bench.{run}.full"
    ground.make_topics(projected, full)
    contract = ground.registry.latest(f"{source.topic}-value")
    view = ground.register("bench.projected-value", projected_schema())
    written = {"id": contract.id, "schema": json.dumps(dict(contract.raw), ensure_ascii=False)}
    state = ground.home.state / run
    state.mkdir(parents=True)
    job: dict[str, Any] = {
        "bootstrap": ground.broker.bootstrap,
        "user": ground.broker.user,
        "password_file": str(ground.broker.password_file),
        "group": f"bench.{run}",
        "guarantee": guarantee,
        "input": source.topic,
        "projected": projected,
        "full": full,
        "city": CITY,
        "masked": MASKED,
        "state": str(state),
        "input_schema": written,
        "projected_schema": {"id": view.id, "schema": json.dumps(view.schema, ensure_ascii=False)},
        "full_schema": written,
    }
    file = state / "job.json"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump(job, out, ensure_ascii=False)
    process = ground.bus.children.start(
        run,
        [*command, str(file), *arguments],
        output=ground.home.log / f"{run}.out",
        environment={"PYTHONPATH": str(_CHECKOUT)},
        directory=state,
    )
    first, second = outputs or (source.expected.projected, source.expected.full)
    return Started(
        process=process,
        outputs={projected: first, full: second},
        clean_up=lambda: ground.drop_topics(projected, full),
    )
