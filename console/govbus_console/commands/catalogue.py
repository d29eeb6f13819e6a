"""apply, plan, revoke, suspend, resume: change what is shared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from govbus_console.commands.options import Detailed, File, Json, MaybeAs, Who, Why, actor

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
    from govbus_console import connect
    from govbus_console.control.saved_plan import SavedPlan
    from govbus_console.control.statement import statement_at
    from govbus_console.render import PENDING, show

    stated = statement_at(file)
    with connect.catalogue(actor("")) as catalogue:
        made, basis = catalogue.plan(stated, count_seconds=count_seconds)
    text = _plan_text(file, made, "would change")
    if out is not None:
        SavedPlan(catalogue=file.absolute(), basis=basis).save(out, made)
        text += f"\nsaved in {out}; `govbus apply --plan {out}` applies it as it is, or not at all"
    show(made, as_json=as_json, text=text)
    if detailed and made["pending"]:
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
    from govbus_console.control.saved_plan import SavedPlan
    from govbus_console.control.statement import statement_at
    from govbus_console.render import PENDING, show

    if (file is None) == (plan is None):
        raise typer.BadParameter("name a catalogue file or a saved plan", param_hint="--file / --plan")
    saved = None if plan is None else SavedPlan.load(plan)
    path = file if saved is None else saved.catalogue
    assert path is not None  # noqa: S101  one of the two was given
    stated = statement_at(path)
    with connect.catalogue(actor(who)) as catalogue:
        done = catalogue.apply(
            stated,
            basis=None if saved is None else saved.basis,
            why=why or f"applied {path.name}",
            count_seconds=count_seconds,
        )
    show(done, as_json=as_json, text=_plan_text(path, done, "changed"))
    if detailed and done["pending"]:
        raise typer.Exit(PENDING)


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


def _plan_text(path: Path, data: Mapping[str, Any], verb: str) -> str:
    from govbus_console.control.planned import Action
    from govbus_console.render import table

    changes = data["changes"]
    rows = [
        (
            change["action"],
            change["kind"],
            change["name"],
            ", ".join(change["for"]),
            "\n".join(change["details"]),
        )
        for change in changes
        if change["action"] != Action.NOTHING
    ]
    count = sum(Action(change["action"]).pending for change in changes)
    summary = f"{path}: {count} of {len(changes)} entries {verb}"
    text = table("", ("action", "kind", "name", "for", "details"), rows) if rows else ""
    if data["grants"]:
        text += table(
            "What subscribers see more and less",
            ("grant", "for", "fields", "rows"),
            [(g["grant"], g["subscriber"], _fields_text(g), _rows_text(g["rows"])) for g in data["grants"]],
        )
    text += "".join(f"warning: {warning}\n" for warning in data["warnings"])
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
