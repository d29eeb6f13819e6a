"""The exchange benchmark: the same work by every peer, in interleaved rounds on one broker.

Read a topic, decode, mask one field and project four of thirteen to the first
output, deliver the full records of one city (about half) to the second.

After each run both outputs are read to the end and decoded. Count and digest
must be what :mod:`bench.records` says, and the records in the order of the
input; otherwise the run has no figure and the benchmark fails.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.lineup import Input, Peer, Started
from bench.records import Digest, Expected
from bench.window import LOOK_SECONDS, PeerFailedError, Process, Window, looker, measured, watch
from govbus import topics

if TYPE_CHECKING:
    from bench.ground import Ground

_log = logging.getLogger(__name__)

SLOW_RECORDS = 100_000
"""What a slow peer gets at most."""

_ORDERED_BY = "updated_at"


@dataclass(slots=True)
class Runs:
    """All runs of one peer."""

    peer: Peer
    records: int
    windows: list[Window] = field(default_factory=list)


def exchange(ground: Ground, lineup: Sequence[Peer], *, records: int, rounds: int) -> list[Runs]:
    """Let every peer do the work once in each round.

    Raises:
        PeerFailedError: a peer ended or stalled, or its outputs are wrong.
    """
    inputs = {count: _input(ground, count) for count in {_share(peer, records) for peer in lineup}}
    results = [Runs(peer, _share(peer, records)) for peer in lineup]
    # A run that does not count: the broker compiles what it runs often, and nobody should pay for all.
    run_once(ground, lineup[0], inputs[results[0].records], run=f"{lineup[0].name}-0")
    for number in range(1, rounds + 1):
        for runs in results:
            window = run_once(ground, runs.peer, inputs[runs.records], run=f"{runs.peer.name}-{number}")
            _log.info("round %d, %s: %.0f records/s", number, runs.peer.name, window.records_per_s)
            runs.windows.append(window)
    return results


def run_once(ground: Ground, peer: Peer, source: Input, *, run: str) -> Window:
    """Start one peer, measure it, stop it, and check what it delivered."""
    started = peer.start(ground, source, run=run)
    try:
        window = observe(ground, started, records=source.count)
    except PeerFailedError as error:
        raise PeerFailedError(f"{peer.name} {error}; it said: {started.process.tail()[-2000:]}") from None
    finally:
        started.process.stop()
    for topic, expected in started.outputs.items():
        check(ground, peer.name, topic, expected)
    started.clean_up()
    return window


def observe(ground: Ground, started: Started, *, records: int, every: float = LOOK_SECONDS) -> Window:
    """Measure a started peer until its outputs are complete, looking ``every`` so many seconds."""
    if ground.bus.kafka is None:
        raise PeerFailedError("the broker is not there")
    process = Process(started.process.pid)
    look = looker(ground.visible, list(started.outputs), process, Process(ground.bus.kafka.pid))
    looks = watch(
        look,
        expected=sum(digest.count for digest in started.outputs.values()),
        alive=lambda: started.process.exit_code is None,
        every=every,
    )
    return measured(looks, records=records, peak_mb=process.peak_mb())


def check(ground: Ground, name: str, topic: str, expected: Digest) -> None:
    """Read an output and compare it with what it must be.

    Raises:
        PeerFailedError: something is missing, extra, altered or out of order.
    """
    found, before = Digest(), None
    for key, row in ground.rows(topic):
        if row is None:
            raise PeerFailedError(f"{name} delivered a deletion, and nothing was deleted")
        found.add(key, list(row.values()))
        if (at := row.get(_ORDERED_BY)) is not None:
            if before is not None and at < before:
                raise PeerFailedError(f"{name} delivered records out of order")
            before = at
    if found != expected:
        raise PeerFailedError(f"{name} delivered {found}; it should have been {expected}")


def _share(peer: Peer, records: int) -> int:
    return min(records, SLOW_RECORDS) if peer.slow else records


def _input(ground: Ground, count: int) -> Input:
    """Fill a topic with the first records of the input."""
    source = Input(topic=topics.captured("bench", f"residents-{count}"), count=count, expected=Expected())
    ground.make_topics(source.topic)
    ground.feed(source.topic, count, source.expected.add)
    return source
