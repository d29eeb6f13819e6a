"""What ``govbus status`` shows: what runs, what is shared with whom, how far it has got. Does I/O.

It reads and changes nothing. A bus that does not run is an answer, not an error.

How far a grant has been brought is put together from what the exchange commits
with every batch: the cursors of ``govbus.progress`` and the group's offsets. No
worker is asked, so the answer is there when none runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from govbus import topics
from govbus.errors import UndecodableRecordError
from govbus_console import connect
from govbus_console.control import held, outbox
from govbus_console.control.bus import Bus
from govbus_console.control.held import WorkerReport
from govbus_console.control.reading import committed_offsets, last_records
from govbus_console.control.store import Snapshot
from govbus_console.embedded import Home, running
from govbus_console.render import table
from govbus_console.supervise import healthy, read_processes


def look(home: Home) -> dict[str, Any]:
    """Gather everything, in the shape that ``--json`` prints.

    Raises:
        BrokerUnavailableError, RegistryUnavailableError, AccessDeniedError: the bus that is meant does
            not answer.
    """
    up = bool(os.environ.get("GOVBUS_BROKER_BOOTSTRAP")) or running(home) is not None
    with connect.store() as store:
        known = store.snapshot()
        unsaid = outbox.pending(store)
    found: dict[str, Any] = {
        "home": str(home.root),
        "running": up,
        "processes": _processes(home),
        "unpublished": unsaid,
        "resources": [],
        "grants": _grants(known),
        "workers": [],
    }
    if not up:
        found["resources"] = _resources(known, {})
    else:
        with connect.bus() as bus:
            found["bootstrap"] = bus.broker.bootstrap
            told = held.reports(bus)
            found["workers"] = _workers(told)
            stands = _stands(known, bus)
            found["resources"] = _resources(known, _exchange_lag(stands))
            backfills = backfills_of(known, stands, _cursors(bus))
            for grant in found["grants"]:
                grant["backfill"] = backfills.get(grant["grant"])
                grant["held"] = ", ".join(held.of(known.grants[grant["grant"]].published, told))
    return found


def _processes(home: Home) -> list[dict[str, Any]]:
    run = running(home)
    found = [
        {"name": process.name, "pid": process.pid, "state": "running", "restarts": 0, "last_exit": None}
        for process in (() if run is None else run.processes)
        if process.alive()
    ]
    supervised = read_processes(home)
    for child in supervised.children if supervised is not None else ():
        alive = child.ref.alive()
        state = child.state.value
        if child.state.value == "running":
            state = "running" if alive and healthy(child.port) else "not well" if alive else "ended"
        found.append(
            {
                "name": child.name,
                "pid": child.ref.pid if alive else None,
                "state": state,
                "restarts": child.restarts,
                "last_exit": child.last_exit,
                "metrics": f"http://127.0.0.1:{child.port}/metrics",
            }
        )
    return found


def _resources(known: Snapshot, lag: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "resource": ref,
            "title": stored.resource.title,
            "share_type": stored.resource.share_type.value,
            "contract": stored.contract.version,
            "synthetic": stored.synthetic,
            "exchange_lag": lag.get(ref),
        }
        for ref, stored in sorted(known.resources.items())
    ]


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a captured topic ends and how far the exchange's live stream is, by partition."""

    ends: Mapping[int, int]
    done: Mapping[int, int]
    """Without the partitions of which nothing was ever committed."""


def _stands(known: Snapshot, bus: Bus) -> Mapping[str, Stand]:
    """By resource."""
    stands = {}
    for ref, stored in known.resources.items():
        topic = topics.captured(stored.resource.owner, stored.resource.name)
        ends = bus.cluster.end_offsets(topic, committed=True)
        stands[ref] = Stand(ends, committed_offsets(bus.broker, topics.EXCHANGE_GROUP, topic, ends))
    return stands


def _exchange_lag(stands: Mapping[str, Stand]) -> Mapping[str, int]:
    """Captured records that no transaction of the exchange has dealt with yet, by resource.

    Transaction markers count as well, so a topic that is caught up may show its last one.
    """
    return {
        ref: sum(max(0, end - stand.done.get(number, 0)) for number, end in stand.ends.items())
        for ref, stand in stands.items()
    }


def _cursors(bus: Bus) -> Mapping[tuple[str, int], Mapping[str, Any]]:
    """The newest record of every cursor, by delivery topic and partition."""
    latest: dict[bytes, Any] = {}
    for message in last_records(bus.broker, topics.PROGRESS, None):
        latest.pop(message.key() or b"", None)
        if message.value() is not None:
            latest[message.key() or b""] = message
    found = {}
    for message in latest.values():
        try:
            record = bus.registry.decode(message.value())
        except UndecodableRecordError:
            continue  # the exchange does not go by it either
        found[record["route"], record["partition"]] = record
    return found


def backfills_of(
    known: Snapshot, stands: Mapping[str, Stand], cursors: Mapping[tuple[str, int], Mapping[str, Any]]
) -> Mapping[str, dict[str, int]]:
    """How far each grant in force has been brought towards the live stream, by grant.

    Counted in source offsets, of all partitions together. A grant that takes part in the live stream
    everywhere has none left and is left out; one that has arrived and is being swept is not.
    """
    now = datetime.now(UTC)
    found = {}
    for name, stored in known.grants.items():
        stand = stands.get(stored.grant.resource_ref)
        if stand is None or not stored.grant.in_force(now):
            continue
        done = expected = 0
        live = True
        for number, position in stand.done.items():
            cursor = cursors.get((stored.published.delivery_topic, number))
            same = cursor is not None and cursor["view"] == stored.published.view
            expected += position
            if cursor is not None and same and cursor["live"]:
                done += position
            else:
                live = False
                done += min(cursor["next_offset"], position) if cursor is not None and same else 0
        if not live:
            found[name] = {"done": done, "expected": expected, "remaining": expected - done}
    return found


def _grants(known: Snapshot) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [
        {
            "grant": name,
            "version": stored.grant.version,
            "state": stored.grant.state.value,
            "in_force": stored.grant.in_force(now),
            "subscriber": stored.grant.subscriber,
            "resource": stored.grant.resource_ref,
            "topic": stored.published.delivery_topic,
            "shared": stored.published.shared,
            "expires_at": stored.grant.expires_at.isoformat(),
            "backfill": None,
            "held": "",
        }
        for name, stored in sorted(known.grants.items())
    ]


def _workers(told: Iterable[WorkerReport]) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [
        {
            "worker": report.worker,
            "grants_offset": report.said["grants_offset"],
            "partitions": report.said["partitions"],
            "lease_seconds": report.said["lease_seconds"],
            "stopping": report.said["stopping"],
            "held": report.held,
            "reported_seconds_ago": round((now - report.at).total_seconds(), 1),
        }
        for report in told
    ]


def text_of(found: Mapping[str, Any]) -> str:
    """The same for a person."""
    head = f"home {found['home']}: " + (
        f"broker {found['bootstrap']}" if found["running"] else "nothing runs"
    )
    if found["unpublished"]:
        head += f"; {found['unpublished']} decisions are not published yet, apply or up will do it"
    parts = [
        head,
        _table("processes", found["processes"], ("name", "pid", "state", "restarts", "last_exit")),
        _table(
            "resources", found["resources"], ("resource", "share_type", "contract", "exchange_lag", "title")
        ),
        _table(
            "grants",
            [grant | {"backfill": _brought(grant["backfill"])} for grant in found["grants"]],
            ("grant", "version", "state", "backfill", "held", "subscriber", "resource", "topic"),
        ),
        _table(
            "exchange workers",
            found["workers"],
            ("worker", "grants_offset", "partitions", "reported_seconds_ago", "stopping"),
        ),
    ]
    return "\n".join(part for part in parts if part)


def _brought(backfill: Mapping[str, int] | None) -> str:
    return "" if backfill is None else f"{backfill['done']} of {backfill['expected']}"


def _table(title: str, rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...]) -> str:
    listed = [[row.get(column) for column in columns] for row in rows]
    return table(title, [column.replace("_", " ") for column in columns], listed) if listed else ""
