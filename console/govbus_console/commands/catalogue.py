"""apply, plan, revoke, suspend, resume: change what is shared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from govbus_console.commands.options import Detailed, File, Json, MaybeAs, Who, Why, actor

if TYPE_CHECKING:
    from govbus_console.control.plan import Impact, Plan
    from govbus_console.control.rowcount import RowChange
    from govbus_console.control.store import StoredResource

_Out = Annotated[
    Path | None, typer.Option("--out", help="Save the plan in this file, for `govbus apply --plan`.")
]
_FileOrPlan = Annotated[Path | None, typer.Option("--file", "-f", help="Catalogue file (YAML).")]
_SavedPlan = Annotated[
    Path | None,
    typer.Option("--plan", help="Saved plan; refused when what it was made from has moved."),
]
_CountSeconds = Annotated[
    int,
    typer.Option("--count-seconds", min=0, help="How long rows may be counted; 0: not at all."),
]
_GrantId = Annotated[str, typer.Argument(metavar="GRANT", help="Id of the grant.", show_default=False)]
_Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="keep|blank|delete",
        help="What happens to the rows that were landed. Default: what the grant says.",
    ),
]
_Wait = Annotated[
    float,
    typer.Option("--wait", min=0.0, metavar="SECONDS", help="How long to wait for the subscriber's receipt."),
]


def plan(
    *,
    file: File,
    out: _Out = None,
    count_seconds: _CountSeconds = 10,
    detailed: Detailed = False,
    as_json: Json = False,
) -> None:
    """Show what applying a catalogue file would change, and for whom."""
    from datetime import UTC, datetime

    from govbus_console import connect
    from govbus_console.control.catalogue_file import read_catalogue
    from govbus_console.control.plan import plan as make_plan
    from govbus_console.control.saved_plan import SavedPlan
    from govbus_console.render import PENDING, show

    catalogue = read_catalogue(file)
    with connect.store() as store:
        known = store.snapshot()
    made = make_plan(catalogue, known, now=datetime.now(UTC))
    data = _plan_data(made, _count(made, known.resources, count_seconds))
    text = _plan_text(made, data, "would change")
    if out is not None:
        SavedPlan.of(catalogue, known).save(out, data)
        text += f"\nsaved in {out}; `govbus apply --plan {out}` applies it as it is, or not at all"
    show(data, as_json=as_json, text=text)
    if detailed and made.pending:
        raise typer.Exit(PENDING)


def apply(
    *,
    file: _FileOrPlan = None,
    plan: _SavedPlan = None,
    count_seconds: _CountSeconds = 10,
    why: Why = "",
    who: Who = "",
    detailed: Detailed = False,
    as_json: Json = False,
) -> None:
    """Bring the bus in line with a catalogue file. Doing it again changes nothing."""
    from govbus_console import connect
    from govbus_console.control.apply import apply_file
    from govbus_console.control.saved_plan import SavedPlan
    from govbus_console.render import PENDING, show

    if (file is None) == (plan is None):
        raise typer.BadParameter("name a catalogue file or a saved plan", param_hint="--file / --plan")
    saved = None if plan is None else SavedPlan.load(plan)
    path = file if saved is None else saved.catalogue
    assert path is not None  # noqa: S101  one of the two was given
    with connect.bus() as bus, connect.store() as store:
        done = apply_file(path, store, bus, who=actor(who), why=why or f"applied {path.name}", saved=saved)
        known = store.snapshot()
    resources = {**known.removed_resources, **known.resources}
    data = _plan_data(done.plan, _count(done.plan, resources, count_seconds))
    show(data | {"published": done.published}, as_json=as_json, text=_plan_text(done.plan, data, "changed"))
    if detailed and done.plan.pending:
        raise typer.Exit(PENDING)


def _count(made: Plan, resources: Mapping[str, StoredResource], seconds: int) -> Mapping[str, RowChange]:
    """Count rows for the grants that change; without a bus that answers, nothing is known."""
    if not made.impacts or not seconds:
        return {}
    from govbus.errors import BusError
    from govbus_console import connect
    from govbus_console.control.rowcount import Counting

    try:
        with connect.bus() as bus:
            counting = Counting(bus.broker, bus.registry, seconds=seconds)
            return counting.changes(made.impacts, resources)
    except BusError:
        return {}


def revoke(
    grant: _GrantId,
    *,
    data: _Data = "",
    wait: _Wait = 3.0,
    why: Why = "",
    who: Who = "",
    as_account: MaybeAs = "",
    as_json: Json = False,
) -> None:
    """End a grant for good.

    Returns when it is certain that nothing more is delivered under it, and the subscriber has answered or
    was waited for.
    """
    from govbus.grant import DataDuty
    from govbus_console import connect

    if data and data not in DataDuty.__members__.values():
        raise typer.BadParameter("write keep, blank or delete", param_hint="--data")
    duty = DataDuty(data) if data else None
    with connect.control(actor(who), as_account) as control:
        ended = control.revoke(grant, why=why or "revoked", data=duty, wait_seconds=wait)
    _show_change(ended, as_json=as_json)


def suspend(
    grant: _GrantId, *, why: Why = "", who: Who = "", as_account: MaybeAs = "", as_json: Json = False
) -> None:
    """Stop a grant's deliveries for the time being.

    The rows that were landed stay.
    """
    from govbus_console import connect

    with connect.control(actor(who), as_account) as control:
        _show_change(control.suspend(grant, why=why or "suspended"), as_json=as_json)


def resume(
    grant: _GrantId, *, why: Why = "", who: Who = "", as_account: MaybeAs = "", as_json: Json = False
) -> None:
    """Let a suspended grant deliver again, with what it missed."""
    from govbus_console import connect

    with connect.control(actor(who), as_account) as control:
        _show_change(control.resume(grant, why=why or "resumed"), as_json=as_json)


def _show_change(changed: Mapping[str, Any], *, as_json: bool) -> None:
    from govbus_console.render import show

    text = f"grant {changed['grant']} is {changed['state']} (version {changed['version']})"
    if changed["barrier_ms"] is not None:
        text += f"; certain everywhere after {changed['barrier_ms'] / 1000:.2f} s"
    if changed["fenced_workers"]:
        text += f"; shut out silent workers: {', '.join(changed['fenced_workers'])}"
    if changed["receipt"] is not None:
        text += f"\n{changed['receipt']['line']}"
    show(changed, as_json=as_json, text=text)


def _plan_data(made: Plan, rows: Mapping[str, RowChange]) -> dict[str, Any]:
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
        "grants": [_impact_data(impact, rows.get(impact.grant.id)) for impact in made.impacts],
        "warnings": list(made.warnings),
    }


def _impact_data(impact: Impact, rows: RowChange | None) -> dict[str, Any]:
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


def _plan_text(made: Plan, data: Mapping[str, Any], verb: str) -> str:
    from govbus_console.render import table

    rows = [
        (change.action.value, change.kind, change.name, ", ".join(change.whom), "\n".join(change.details))
        for change in made.changes
        if change.action.value != "nothing"
    ]
    count = sum(change.pending for change in made.changes)
    summary = f"{made.path}: {count} of {len(made.changes)} entries {verb}"
    text = table("", ("action", "kind", "name", "for", "details"), rows) if rows else ""
    if data["grants"]:
        text += table(
            "What subscribers see more and less",
            ("grant", "for", "fields", "rows"),
            [(g["grant"], g["subscriber"], _fields_text(g), _rows_text(g["rows"])) for g in data["grants"]],
        )
    text += "".join(f"warning: {warning}\n" for warning in made.warnings)
    return text + summary


def _fields_text(grant: Mapping[str, Any]) -> str:
    lines = [f"+ {', '.join(grant['fields_more'])}"] if grant["fields_more"] else []
    lines += [f"- {', '.join(grant['fields_less'])}"] if grant["fields_less"] else []
    return "\n".join([*lines, *grant["fields_otherwise"]]) or "the same"


def _rows_text(rows: Mapping[str, int] | None) -> str:
    if rows is None:
        return "unknown"
    if not rows["more"] and not rows["less"]:
        return f"the same {rows['after']}"
    return f"+{rows['more']} -{rows['less']}: {rows['before']} → {rows['after']}"


COMMANDS = (plan, apply, revoke, suspend, resume)
