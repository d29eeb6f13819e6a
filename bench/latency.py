"""Latency: from the commit at the source to the commit in the subscriber's store, exactly once.

2,000 changes a second of one resource are published through the ``Publisher``,
as a system does that knows its own changes: each with the moment of its commit,
which becomes the timestamp of its record. One exchange worker delivers ten
different views, and ten landing processes write them into ten SQLite databases.
Each landing notes when a batch was committed; the latency of a delivery is that
moment minus the timestamp of the source record that it was made of.

Everything shares this machine, so scheduling delays of the ten landings count
in full. The first seconds, in which processes warm up, are not counted. In the
end every delivery must have landed.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bench.govbus_peer import OWNER, control, start_worker
from bench.records import rows
from bench.report import JsonObject, quantile
from bench.views import View, views
from bench.window import PeerFailedError
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

WARM_UP_SECONDS = 10
_STEP_SECONDS = 0.01
_RESOURCE = "live"
_DRAIN_SECONDS = 120.0
_QUIET_SECONDS = 3.0


def latency(ground: Ground, *, seconds: int) -> JsonObject:
    """Run the traffic and give p50, p99 and p999 in milliseconds.

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
        counted_from, behind = _publish(ground, WARM_UP_SECONDS + seconds, [worker, *landings])
        _await_landed(ground, wanted, (WARM_UP_SECONDS + seconds) * RATE)
    _log.info("published; the source was at most %.0f ms behind its rate", behind * 1_000)
    commits = [message.timestamp()[1] for message in ground.committed(topics.captured(OWNER, _RESOURCE))]
    found = sorted(ms for view in wanted for ms in _latencies(ground, view, commits, counted_from))
    return {
        "latency_ms": {
            "p50": round(quantile(found, 0.5), 1),
            "p99": round(quantile(found, 0.99), 1),
            "p999": round(quantile(found, 0.999), 1),
        },
        "latency": {
            "changes_per_s": RATE,
            "subscribers": SUBSCRIBERS,
            "deliveries": len(found),
            "max_ms": round(found[-1], 1),
            "source_behind_ms": round(behind * 1_000, 1),
        },
    }


def _publish(ground: Ground, seconds: int, processes: Sequence[Child]) -> tuple[float, float]:
    """Publish at the rate; give when counting begins, and by how much the source fell behind at worst."""
    source = rows(seconds * RATE)
    per_step = round(RATE * _STEP_SECONDS)
    began, behind = time.time(), 0.0
    with Publisher(OWNER, broker=ground.bus.broker_settings(OWNER), registry=ground.registry) as publisher:
        for step in range(round(seconds / _STEP_SECONDS)):
            due = began + step * _STEP_SECONDS
            late = time.time() - due
            if late < 0:
                time.sleep(-late)
            behind = max(behind, late)
            # Committed when they were due, also if this process gets to publish them later.
            committed = datetime.fromtimestamp(due, UTC)
            changes = [
                Change(key={"id_number": row["id_number"]}, row=row, changed_at=committed)
                for row in (next(source) for _ in range(per_step))
            ]
            published = publisher.publish(_RESOURCE, changes)
            if published.acknowledged != len(changes):
                raise PeerFailedError("the publisher refused a change")
            if any(process.exit_code is not None for process in processes):
                raise PeerFailedError("a process ended while changes were published")
    return (began + WARM_UP_SECONDS) * 1_000, behind


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
