"""Growth: does a record cost the same when there are ten and a hundred times as many records or grants?

Exactly once, one view of one resource. ``records``: ten and a hundred times as
long an input. ``grants``: ten and a hundred times as many grants, on other
resources than the one that is exchanged, which is how a bus grows: its cost per
record must not follow.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bench.exchange import check, observe
from bench.govbus_peer import OWNER, Control, Wanted, control, start_worker
from bench.lineup import Started
from bench.report import JsonObject
from bench.views import views
from bench.window import PeerFailedError, Window
from govbus import topics

if TYPE_CHECKING:
    from bench.ground import Ground

_log = logging.getLogger(__name__)

TIMES = (1, 10, 100)
RECORDS = 30_000
"""One full batch: fewer could not be measured."""

_LOOK_SECONDS = 0.01
"""The smallest input takes a fifth of a second."""

GRANTS = 10
_GRANTS_RECORDS = 1_000_000
"""The input while grants grow. A worker that starts places all its routes first, which is work for each of
them; the rate over the second half is that of a worker that has."""

_GRANTS_EACH = 50
"""Unrelated grants on one unrelated resource."""


def growth(ground: Ground, *, scale: float = 1.0) -> JsonObject:
    """Measure each size once."""
    found: JsonObject = {"records": {}, "grants": {}}
    with control(ground) as side:
        for times in TIMES:
            records = max(1, round(RECORDS * times * scale))
            window = _run(ground, side, records, f"records-{times}")
            found["records"][str(times)] = _point(records, window)
        unrelated = 0
        for times in TIMES:
            wanted = max(1, round(GRANTS * times * scale))
            _add_unrelated(side, unrelated, wanted)
            unrelated = wanted
            window = _run(ground, side, max(1, round(_GRANTS_RECORDS * scale)), f"grants-{times}")
            found["grants"][str(times)] = _point(wanted, window)
    return found


def _point(number: int, window: Window) -> JsonObject:
    _log.info(
        "%d: %.0f records/s, %.0f in the second half",
        number,
        window.records_per_s,
        window.steady_records_per_s,
    )
    return {
        "number": number,
        "records_per_s": round(window.records_per_s),
        "steady_records_per_s": round(window.steady_records_per_s),
        "cpu_s": round(window.cpu_s, 2),
        "start_cpu_s": round(window.start_cpu_s, 2),
        "peak_mb": round(window.peak_mb, 1),
    }


def _add_unrelated(side: Control, there: int, wanted: int) -> None:
    """Bring the number of grants on other resources from ``there`` to ``wanted``."""
    by_resource: dict[str, list[Wanted]] = {}
    for number in range(there, wanted):
        resource = f"other-{number // _GRANTS_EACH}"
        fields = views(1 + number % _GRANTS_EACH, resource=resource)[-1].grant.fields
        by_resource.setdefault(resource, []).append(
            Wanted(
                id=f"other-{number}", subscriber=f"subscriber-{number % 10}", resource=resource, fields=fields
            )
        )
    if by_resource:
        side.apply(sorted(by_resource), [grant for grants in by_resource.values() for grant in grants])


def _run(ground: Ground, side: Control, records: int, name: str) -> Window:
    (view,) = views(1, resource=name)
    side.apply([name], [view.grant])
    ground.feed(topics.captured(OWNER, name), records, view.add)
    started = Started(
        process=start_worker(ground, name, guarantee="exactly-once"),
        outputs={view.grant.topic: view.expected},
    )
    try:
        window = observe(ground, started, records=records, every=_LOOK_SECONDS)
    except PeerFailedError as error:
        raise PeerFailedError(f"{name} {error}; it said: {started.process.tail()[-2000:]}") from None
    finally:
        started.process.stop()
    check(ground, name, view.grant.topic, view.expected)
    side.revoke(view.grant.id)
    return window
