"""What ``govbus status`` shows: what runs, what is shared with whom, how far it has got. Does I/O.

It reads and changes nothing. A bus that does not run is an answer, not an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from govbus import topics
from govbus_console import connect
from govbus_console.control import outbox
from govbus_console.control.bus import Bus
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
            found["workers"] = _workers(bus)
            found["resources"] = _resources(known, _exchange_lag(known, bus))
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


def _exchange_lag(known: Snapshot, bus: Bus) -> Mapping[str, int]:
    """Captured records that no transaction of the exchange has dealt with yet, by resource.

    Transaction markers count as well, so a topic that is caught up may show its last one.
    """
    lags = {}
    for ref, stored in known.resources.items():
        topic = topics.captured(stored.resource.owner, stored.resource.name)
        ends = bus.cluster.end_offsets(topic, committed=True)
        done = committed_offsets(bus.broker, topics.EXCHANGE_GROUP, topic, ends)
        lags[ref] = sum(max(0, end - done.get(number, 0)) for number, end in ends.items())
    return lags


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
        }
        for name, stored in sorted(known.grants.items())
    ]


def _workers(bus: Bus) -> list[dict[str, Any]]:
    latest: dict[str, Any] = {}
    for message in last_records(bus.broker, topics.WORKERS, None):
        name = (message.key() or b"").decode("utf-8", "replace")
        latest.pop(name, None)
        if message.value() is not None:
            latest[name] = message
    now = datetime.now(UTC)
    found = []
    for name, message in sorted(latest.items()):
        report = bus.registry.decode(message.value())
        seen = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
        found.append(
            {
                "worker": name,
                "grants_offset": report["grants_offset"],
                "partitions": report["partitions"],
                "lease_seconds": report["lease_seconds"],
                "stopping": report["stopping"],
                "reported_seconds_ago": round((now - seen).total_seconds(), 1),
            }
        )
    return found


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
        _table("grants", found["grants"], ("grant", "version", "state", "subscriber", "resource", "topic")),
        _table(
            "exchange workers",
            found["workers"],
            ("worker", "grants_offset", "partitions", "reported_seconds_ago", "stopping"),
        ),
    ]
    return "\n".join(part for part in parts if part)


def _table(title: str, rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...]) -> str:
    listed = [[row.get(column) for column in columns] for row in rows]
    return table(title, [column.replace("_", " ") for column in columns], listed) if listed else ""
