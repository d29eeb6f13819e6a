"""How a plan is shown: one JSON shape, printed with ``--json``, saved, and answered by the API.

Nothing in it comes out of a record, beside numbers of rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from govbus_console.control.planned import Impact, Plan
from govbus_console.control.rowcount import RowChange
from govbus_console.control.shown import Shown


def plan(made: Plan, rows: Mapping[str, RowChange]) -> Shown:
    """A plan with what each touched subscriber would see more and less."""
    return {
        "pending": made.pending,
        "changes": [
            {
                "kind": change.kind,
                "name": change.name,
                "action": change.action.value,
                "details": list(change.details),
                "for": list(change.whom),
            }
            for change in made.changes
        ],
        "grants": [_impact(impact, rows.get(impact.grant.id)) for impact in made.impacts],
        "warnings": list(made.warnings),
    }


def _impact(impact: Impact, rows: RowChange | None) -> Shown:
    return {
        "grant": impact.grant.id,
        "subscriber": impact.grant.subscriber,
        "resource": impact.grant.resource_ref,
        "fields_more": list(impact.fields_more),
        "fields_less": list(impact.fields_less),
        "fields_otherwise": list(impact.fields_otherwise),
        # None: not known, because no bus answers or counting would take too long.
        "rows": None
        if rows is None
        else {"before": rows.before, "after": rows.after, "more": rows.more, "less": rows.less},
    }
