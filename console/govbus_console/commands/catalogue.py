"""apply, plan, revoke, suspend, resume: change what is shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from govbus_console.commands.options import Detailed, File, Json, Who, Why, actor

if TYPE_CHECKING:
    from govbus_console.control.lifecycle import Changed
    from govbus_console.control.plan import Plan

_GrantId = Annotated[str, typer.Argument(metavar="GRANT", help="Id of the grant.", show_default=False)]
_Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="keep|blank|delete",
        help="What happens to the rows that were landed. Default: what the grant says.",
    ),
]


def plan(*, file: File, detailed: Detailed = False, as_json: Json = False) -> None:
    """Show what applying a catalogue file would change."""
    from datetime import UTC, datetime

    from govbus_console import connect
    from govbus_console.control.catalogue_file import read_catalogue
    from govbus_console.control.plan import plan as make_plan
    from govbus_console.render import PENDING, show

    catalogue = read_catalogue(file)
    with connect.store() as store:
        made = make_plan(catalogue, store.snapshot(), now=datetime.now(UTC))
    show(_plan_data(made), as_json=as_json, text=_plan_text(made, "would change"))
    if detailed and made.pending:
        raise typer.Exit(PENDING)


def apply(
    *,
    file: File,
    why: Why = "",
    who: Who = "",
    detailed: Detailed = False,
    as_json: Json = False,
) -> None:
    """Bring the bus in line with a catalogue file. Doing it again changes nothing."""
    from govbus_console import connect
    from govbus_console.control.apply import apply_file
    from govbus_console.render import PENDING, show

    with connect.bus() as bus, connect.store() as store:
        done = apply_file(file, store, bus, who=actor(who), why=why or f"applied {file.name}")
    show(
        _plan_data(done.plan) | {"published": done.published},
        as_json=as_json,
        text=_plan_text(done.plan, "changed"),
    )
    if detailed and done.plan.pending:
        raise typer.Exit(PENDING)


def revoke(
    grant: _GrantId,
    *,
    data: _Data = "",
    why: Why = "",
    who: Who = "",
    as_json: Json = False,
) -> None:
    """End a grant for good.

    Returns when it is certain that nothing more is delivered under it.
    """
    from govbus.grant import DataDuty
    from govbus_console import connect
    from govbus_console.control import lifecycle

    if data and data not in DataDuty.__members__.values():
        raise typer.BadParameter("write keep, blank or delete", param_hint="--data")
    duty = DataDuty(data) if data else None
    with connect.bus() as bus, connect.store() as store:
        changed = lifecycle.revoke(grant, store, bus, who=actor(who), why=why or "revoked", data=duty)
    _show_change(changed, as_json=as_json)


def suspend(grant: _GrantId, *, why: Why = "", who: Who = "", as_json: Json = False) -> None:
    """Stop a grant's deliveries for the time being.

    The rows that were landed stay.
    """
    from govbus_console import connect
    from govbus_console.control import lifecycle

    with connect.bus() as bus, connect.store() as store:
        changed = lifecycle.suspend(grant, store, bus, who=actor(who), why=why or "suspended")
    _show_change(changed, as_json=as_json)


def resume(grant: _GrantId, *, why: Why = "", who: Who = "", as_json: Json = False) -> None:
    """Let a suspended grant deliver again, with what it missed."""
    from govbus_console import connect
    from govbus_console.control import lifecycle

    with connect.bus() as bus, connect.store() as store:
        changed = lifecycle.resume(grant, store, bus, who=actor(who), why=why or "resumed")
    _show_change(changed, as_json=as_json)


def _show_change(changed: Changed, *, as_json: bool) -> None:
    from govbus_console.render import show

    grant, barriers = changed.grant, changed.settled.barriers
    fenced = sorted({name for passed in barriers for name in passed.fenced})
    data = {
        "grant": grant.id,
        "version": grant.version,
        "state": grant.state.value,
        "data_on_end": grant.data_on_end.value,
        "already": changed.already,
        "barrier_ms": round(changed.barrier_seconds * 1000, 1) if barriers else None,
        "fenced_workers": fenced,
    }
    text = f"grant {grant.id} is {grant.state} (version {grant.version})"
    if barriers:
        text += f"; certain everywhere after {changed.barrier_seconds:.2f} s"
    if fenced:
        text += f"; shut out silent workers: {', '.join(fenced)}"
    show(data, as_json=as_json, text=text)


def _plan_data(made: Plan) -> dict[str, Any]:
    return {
        "pending": made.pending,
        "changes": [
            {
                "kind": change.kind,
                "name": change.name,
                "action": change.action.value,
                "details": list(change.details),
            }
            for change in made.changes
        ],
    }


def _plan_text(made: Plan, verb: str) -> str:
    from govbus_console.render import table

    rows = [
        (change.action.value, change.kind, change.name, "\n".join(change.details))
        for change in made.changes
        if change.action.value != "nothing"
    ]
    count = sum(change.pending for change in made.changes)
    summary = f"{made.path}: {count} of {len(made.changes)} entries {verb}"
    return f"{table('', ('action', 'kind', 'name', 'details'), rows)}{summary}" if rows else summary


COMMANDS = (plan, apply, revoke, suspend, resume)
