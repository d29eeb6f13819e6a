"""Fan-out: one resource, 1, 10 and 50 grants with different views, exactly once.

A view is one projected record: the rate is records in times grants. Each size
has an input of its own, so that all take about as long. All deliveries of all
grants are checked by count and digest.
"""

from __future__ import annotations

import logging
from statistics import median
from typing import TYPE_CHECKING

from bench.exchange import check, observe
from bench.govbus_peer import OWNER, control, start_worker
from bench.lineup import Started
from bench.report import JsonObject, spread
from bench.views import views
from bench.window import PeerFailedError, Window
from govbus import topics

if TYPE_CHECKING:
    from bench.ground import Ground

_log = logging.getLogger(__name__)

SIZES = {1: 500_000, 10: 200_000, 50: 50_000}
"""Grants, and records of the input."""


def fanout(ground: Ground, *, rounds: int, scale: float = 1.0) -> JsonObject:
    """Measure each size once in each round; ``scale`` makes the inputs smaller or larger."""
    windows: dict[int, list[Window]] = {size: [] for size in SIZES}
    for number in range(1, rounds + 1):
        for grants, records in SIZES.items():
            window = _run(ground, grants, max(1, round(records * scale)), f"fanout-{grants}-{number}")
            _log.info("round %d, %d grants: %.0f views/s", number, grants, window.records_per_s * grants)
            windows[grants].append(window)
    return {
        str(grants): {
            "records": max(1, round(SIZES[grants] * scale)),
            **spread("views_per_s", [w.records_per_s * grants for w in found], 0),
            "cpu_us_per_view": round(
                median(w.cpu_s / (w.records_per_s * grants * w.seconds) * 1e6 for w in found), 2
            ),
            **spread("peak_mb", [w.peak_mb for w in found]),
        }
        for grants, found in windows.items()
    }


def _run(ground: Ground, grants: int, records: int, name: str) -> Window:
    wanted = views(grants, resource=name)
    source = topics.captured(OWNER, name)

    def note(key: bytes, row: dict[str, object]) -> None:
        for view in wanted:
            view.add(key, row)

    with control(ground) as side:
        side.apply([name], [view.grant for view in wanted])
        ground.feed(source, records, note)
        started = Started(
            process=start_worker(ground, name, guarantee="exactly-once"),
            outputs={view.grant.topic: view.expected for view in wanted},
        )
        try:
            window = observe(ground, started, records=records)
        except PeerFailedError as error:
            raise PeerFailedError(f"{name} {error}; it said: {started.process.tail()[-2000:]}") from None
        finally:
            started.process.stop()
        for topic, expected in started.outputs.items():
            check(ground, name, topic, expected)
        # The worker's group goes on: it stands at the end of this resource and begins the next one's.
        side.revoke_all()
    ground.drop_topics(*started.outputs)
    return window
