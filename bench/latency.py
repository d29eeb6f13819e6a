"""Latency: from the commit at the source to the commit in the subscriber's store, exactly once.

Changes of one resource are published through the ``Publisher``, 2,000 a second
unless told otherwise, as a system does that knows its own changes: each with the
moment of its commit, which becomes the timestamp of its record. One exchange
worker delivers ten different views, and ten landing processes write them into
ten SQLite databases. Each landing notes when a batch was committed; the latency
of a delivery is that moment minus the timestamp of the source record that it was
made of.

Everything shares this machine, so scheduling delays of the ten landings count
in full. The traffic begins when a first change has landed everywhere, so what it
takes to start twelve processes is not in it, and its first minute, in which the
broker warms up, is not counted. In the end every delivery must have landed.

What each kind of process takes of a core is measured while the counted changes
are published, so that a machine with too little to give can be told from a bus
that dawdles.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.govbus_peer import OWNER, control, start_worker
from bench.records import rows
from bench.report import JsonObject, align, quantile
from bench.views import View, views
from bench.window import PeerFailedError, Process
from govbus import topics
from govbus.event import Change
from govbus_producers.publish import Publisher

if TYPE_CHECKING:
    from bench.ground import Ground
    from govbus_console.embedded import Child

_log = logging.getLogger(__name__)

SUBSCRIBERS = 10
RATE = 2_000
"""Changes a second."""

WARM_UP_SECONDS = 60
"""For so long the broker's JVM compiles what it runs often, which takes half a core of its own."""

_STEP_SECONDS = 0.01
_RESOURCE = "live"
_START_SECONDS = 120.0
_DRAIN_SECONDS = 120.0
_QUIET_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traffic:
    """What was seen while the changes were published."""

    counted_from: float
    """Milliseconds since 1970."""

    behind: float
    """By how many seconds the source fell behind its rate at worst."""

    cpu_share: Mapping[str, float]
    """What each kind of process took of one core, while the counted changes were published."""


class _Meter:
    """Measures the CPU time of kinds of processes from the moment at which it is made."""

    def __init__(self, kinds: Mapping[str, Sequence[Process]]) -> None:
        self._kinds = kinds
        self._began, self._before = time.monotonic(), self._seconds()

    def shares(self) -> dict[str, float]:
        """Give what each kind has taken of one core since."""
        passed, now = time.monotonic() - self._began, self._seconds()
        return {kind: (now[kind] - before) / passed for kind, before in self._before.items()}

    def _seconds(self) -> dict[str, float]:
        return {
            kind: sum(process.cpu_seconds() for process in processes)
            for kind, processes in self._kinds.items()
        }


def latency(ground: Ground, *, seconds: int, rate: int = RATE) -> JsonObject:
    """Run the traffic and give p50, p99 and p999 in milliseconds, and where the CPU time went.

    Raises:
        PeerFailedError: a process ended, or not everything has landed.
    """
    wanted = views(SUBSCRIBERS, resource=_RESOURCE)
    with control(ground) as side, ExitStack() as stack:
        side.apply([_RESOURCE], [view.grant for view in wanted], kind="state")
        landings = [_start_landing(ground, view) for view in wanted]
        for process in landings:
            stack.callback(process.stop)
        worker = start_worker(ground, "latency", guarantee="exactly-once")
        stack.callback(worker.stop)
        traffic = _publish(ground, wanted, seconds, rate, worker=worker, landings=landings)
        _await_landed(ground, wanted, 1 + (WARM_UP_SECONDS + seconds) * rate)
    _log.info("published; the source was at most %.0f ms behind its rate", traffic.behind * 1_000)
    commits = [message.timestamp()[1] for message in ground.committed(topics.captured(OWNER, _RESOURCE))]
    found = sorted(ms for view in wanted for ms in _latencies(ground, view, commits, traffic.counted_from))
    return {
        "latency_ms": {
            "p50": round(quantile(found, 0.5), 1),
            "p99": round(quantile(found, 0.99), 1),
            "p999": round(quantile(found, 0.999), 1),
        },
        "latency": {
            "changes_per_s": rate,
            "subscribers": SUBSCRIBERS,
            "deliveries": len(found),
            "max_ms": round(found[-1], 1),
            "source_behind_ms": round(traffic.behind * 1_000, 1),
            "cpu_share": {kind: round(share, 3) for kind, share in traffic.cpu_share.items()},
            "transactions_per_s": _transactions(ground, wanted, len(commits), WARM_UP_SECONDS + seconds),
        },
    }


def table(figures: Mapping[str, Any]) -> str:
    """Lay the figures out for people."""
    said, more = figures["latency_ms"], figures["latency"]
    shares, transactions = more["cpu_share"], more["transactions_per_s"]
    return "\n\n".join(
        [
            align([["ms", *said], ["", *(f"{ms:.0f}" for ms in said.values())]]),
            align([["share of a core", *shares], ["", *(f"{share:.2f}" for share in shares.values())]]),
            align([["transactions/s", *transactions], ["", *(f"{n:.0f}" for n in transactions.values())]]),
        ]
    )


def _publish(
    ground: Ground,
    wanted: Sequence[View],
    seconds: int,
    rate: int,
    *,
    worker: Child,
    landings: Sequence[Child],
) -> _Traffic:
    """Publish one change; when it has landed everywhere, go on at the rate, so many seconds of it counted."""
    source = rows(1 + (WARM_UP_SECONDS + seconds) * rate)
    warm_up, steps = (round(some / _STEP_SECONDS) for some in (WARM_UP_SECONDS, WARM_UP_SECONDS + seconds))
    with Publisher(OWNER, broker=ground.bus.broker_settings(OWNER), registry=ground.registry) as publisher:
        publisher.publish(_RESOURCE, [_change(next(source), datetime.now(UTC))])
        _await_first(ground, wanted, [worker, *landings])
        meter = _meter(ground, worker, landings)
        began, behind = time.time(), 0.0
        for step in range(steps):
            if step == warm_up:
                meter = _meter(ground, worker, landings)
            due = began + step * _STEP_SECONDS
            late = time.time() - due
            if late < 0:
                time.sleep(-late)
            behind = max(behind, late)
            # Committed when they were due, also if this process gets to publish them later.
            committed = datetime.fromtimestamp(due, UTC)
            number = round(rate * (step + 1) * _STEP_SECONDS) - round(rate * step * _STEP_SECONDS)
            changes = [_change(row, committed) for row in islice(source, number)]
            published = publisher.publish(_RESOURCE, changes)
            if published.acknowledged != len(changes):
                raise PeerFailedError("the publisher refused a change")
            _see_them_run([worker, *landings])
        shares = meter.shares()
    return _Traffic(counted_from=(began + WARM_UP_SECONDS) * 1_000, behind=behind, cpu_share=shares)


def _change(row: dict[str, Any], committed: datetime) -> Change:
    return Change(key={"id_number": row["id_number"]}, row=row, changed_at=committed)


def _see_them_run(processes: Sequence[Child]) -> None:
    if any(process.exit_code is not None for process in processes):
        raise PeerFailedError("a process ended while changes were published")


def _await_first(ground: Ground, wanted: Sequence[View], processes: Sequence[Child]) -> None:
    """Wait until every landing has landed something: what starting them takes is nobody's latency."""
    until = time.monotonic() + _START_SECONDS
    while not all(_notes(ground, view).exists() and _notes(ground, view).stat().st_size for view in wanted):
        _see_them_run(processes)
        if time.monotonic() > until:
            raise PeerFailedError("the first change has not landed everywhere")
        time.sleep(0.1)


def _meter(ground: Ground, worker: Child, landings: Sequence[Child]) -> _Meter:
    broker, registry = ground.bus.kafka, ground.bus.registry
    if broker is None or registry is None:
        raise PeerFailedError("the bus is not running")
    return _Meter(
        {
            "source": [Process(os.getpid())],
            "exchange": [Process(worker.pid)],
            "landings": [Process(landing.pid) for landing in landings],
            "broker": [Process(broker.pid)],
            "registry": [Process(registry.pid)],
        }
    )


def _start_landing(ground: Ground, view: View) -> Child:
    department = view.grant.subscriber
    folder = ground.home.state / department
    folder.mkdir()
    config = folder / "land.yaml"
    config.write_text(f"department: {department}\nsink: sqlite:///{folder / 'landed.db'}\n", encoding="utf-8")
    return ground.bus.children.start(
        f"land-{department}",
        [sys.executable, "-m", "bench.peers.landing", str(config), str(_notes(ground, view))],
        output=ground.home.log / f"land-{department}.out",
        environment={
            "GOVBUS_HOME": str(ground.home.root),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        directory=folder,
    )


def _notes(ground: Ground, view: View) -> Path:
    return ground.home.state / view.grant.subscriber / "notes"


def _await_landed(ground: Ground, wanted: Sequence[View], deliveries: int) -> None:
    """Wait until all is delivered and no store is written any more."""
    until = time.monotonic() + _DRAIN_SECONDS
    seen, quiet_since = (0, 0), time.monotonic()
    while time.monotonic() < until:
        visible = sum(ground.visible([view.grant.topic for view in wanted]))
        now = (visible, sum(_notes(ground, view).stat().st_size for view in wanted))
        if now != seen:
            seen, quiet_since = now, time.monotonic()
        elif visible >= deliveries * len(wanted) and time.monotonic() - quiet_since > _QUIET_SECONDS:
            return
        time.sleep(0.1)
    raise PeerFailedError(f"{seen[0]} of {deliveries * len(wanted)} deliveries were made")


def _transactions(ground: Ground, wanted: Sequence[View], changes: int, seconds: int) -> JsonObject:
    """How many the exchange, and each landing, made a second of all the traffic."""
    # Each of the exchange's leaves a marker behind its deliveries, which takes an offset.
    (end,) = ground.visible([wanted[0].grant.topic])
    landed = sum(len(_notes(ground, view).read_text(encoding="utf-8").splitlines()) for view in wanted)
    return {
        "exchange": round((end - changes) / seconds, 1),
        "each_landing": round(landed / len(wanted) / seconds, 1),
    }


def _latencies(ground: Ground, view: View, commits: Sequence[int], counted_from: float) -> list[float]:
    """Match a view's deliveries, in order, with the source's commits and the batches that landed them."""
    batches = []
    for line in _notes(ground, view).read_text(encoding="utf-8").splitlines():
        _, first, end, committed_ms = line.split()
        batches.append((int(first), int(end), float(committed_ms)))
    offsets = [message.offset() for message in ground.committed(view.grant.topic)]
    if len(offsets) != len(commits):
        raise PeerFailedError(f"{view.grant.id}: {len(offsets)} deliveries of {len(commits)} changes")
    found, at = [], 0
    for offset, committed in zip(offsets, commits, strict=True):
        while at < len(batches) and batches[at][1] <= offset:
            at += 1
        if at == len(batches) or offset < batches[at][0]:
            raise PeerFailedError(f"{view.grant.id}: a delivery has not landed, or not in order")
        if committed >= counted_from:
            found.append(batches[at][2] - committed)
    return found
