"""What exchange workers hold back although the policy permits it, as they report it themselves. Does I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from govbus import topics
from govbus.grant import PublishedGrant
from govbus_console.control.bus import Bus
from govbus_console.control.reading import last_records


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """The last thing that a worker has said of itself."""

    worker: str
    at: datetime
    said: Mapping[str, Any]
    """The record, as ``avro_schemas/bus/worker.avsc`` has it."""

    @property
    def held(self) -> list[Mapping[str, str]]:
        """``grant`` (or shared view) and ``reason``; reports from before there were holds have none."""
        found: list[Mapping[str, str]] = self.said.get("held", [])
        return found


def reports(bus: Bus) -> list[WorkerReport]:
    """The newest report of each worker, by name."""
    latest: dict[str, Any] = {}
    for message in last_records(bus.broker, topics.WORKERS, None):
        name = (message.key() or b"").decode("utf-8", "replace")
        latest.pop(name, None)
        if message.value() is not None:
            latest[name] = message
    return [
        WorkerReport(
            worker=name,
            at=datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC),
            said=bus.registry.decode(message.value()),
        )
        for name, message in sorted(latest.items())
    ]


def of(published: PublishedGrant, told: Iterable[WorkerReport]) -> list[str]:
    """Why workers hold a grant back, each reason once; a worker that is stopping holds nothing."""
    label = published.view if published.shared else published.grant.id
    return sorted(
        {
            one["reason"]
            for report in told
            if not report.said["stopping"]
            for one in report.held
            if one["grant"] == label
        }
    )
