"""account, calendar, clocks, notices: who acts, by which days, and who is reminded."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from govbus_console.commands.options import Json, Who, Why, actor

account = typer.Typer(name="account", help="Who may ask and decide.", no_args_is_help=True)
calendar = typer.Typer(name="calendar", help="Which days are working days.", no_args_is_help=True)
clocks = typer.Typer(name="clocks", help="Reminders and escalations of requests.", no_args_is_help=True)
notices = typer.Typer(name="notices", help="What people have to be told.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Name of the account.", show_default=False)]
_Roles = Annotated[
    list[str],
    typer.Option(
        "--role",
        metavar="steward|subscriber|operator|auditor",
        help="What it does. Once for each role.",
        show_default=False,
    ),
]
_Department = Annotated[str, typer.Option("--department", help="For which it acts. Without: for the bus.")]
_To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="FILE|URL",
        help="A file to append to, or an http(s) URL to post to. Without: print.",
    ),
]


@account.command("add")
def add(
    name: _Name,
    *,
    role: _Roles,
    department: _Department = "",
    why: Why = "",
    who: Who = "",
    as_json: Json = False,
) -> None:
    """Make an account."""
    from govbus_console import connect
    from govbus_console.control import accounts
    from govbus_console.control.roles import Account, Role
    from govbus_console.render import show

    if not set(role) <= set(Role):
        raise typer.BadParameter(f"write one of {', '.join(Role)}", param_hint="--role")
    if not department and {"steward", "subscriber"} & set(role):
        raise typer.BadParameter("stewards and subscribers act for a department", param_hint="--department")
    made = Account(name=name, department=department or None, roles=frozenset(map(Role, role)))
    with connect.store() as store:
        accounts.add(store, made, who=actor(who), why=why or "added", now=datetime.now(UTC))
    show(
        {"name": name, "department": made.department, "roles": sorted(made.roles)},
        as_json=as_json,
        text=f"account {name} may act as {', '.join(sorted(made.roles))} of {department or 'the bus'}",
    )


@account.command("list")
def list_accounts(*, as_json: Json = False) -> None:
    """List all accounts."""
    from govbus_console import connect
    from govbus_console.control import accounts
    from govbus_console.render import show, table

    with connect.store() as store:
        found = accounts.listing(store)
    data = [
        {
            "name": one.account.name,
            "department": one.account.department,
            "roles": sorted(one.account.roles),
            "disabled": one.disabled,
        }
        for one in found
    ]
    rows = [(d["name"], d["department"], ", ".join(map(str, d["roles"])), d["disabled"] or "") for d in data]  # type: ignore[arg-type]
    show(
        {"accounts": data},
        as_json=as_json,
        text=table("", ("name", "department", "roles", "disabled"), rows) if rows else "no accounts",
    )


@account.command("disable")
def disable(name: _Name, *, why: Why = "", who: Who = "", as_json: Json = False) -> None:
    """Let an account act no more. What it did stays."""
    from govbus_console import connect
    from govbus_console.control import accounts
    from govbus_console.render import show

    with connect.store() as store:
        accounts.disable(store, name, who=actor(who), why=why or "disabled", now=datetime.now(UTC))
    show({"name": name, "disabled": True}, as_json=as_json, text=f"account {name} is disabled")


@calendar.command("apply")
def apply_days(
    *,
    file: Annotated[Path, typer.Option("--file", "-f", help="Calendar file (YAML).", show_default=False)],
    why: Why = "",
    who: Who = "",
    as_json: Json = False,
) -> None:
    """Set the holidays and worked weekend days of the years that a file names."""
    from govbus_console import connect
    from govbus_console.control.calendar_file import apply_calendar, read_calendar_file
    from govbus_console.render import show

    read = read_calendar_file(file)
    with connect.store() as store:
        changed = apply_calendar(
            store, read, who=actor(who), why=why or f"applied {file.name}", now=datetime.now(UTC)
        )
    years = sorted(read.years)
    show(
        {"years": years, "changed": changed},
        as_json=as_json,
        text=f"{changed} days changed in {', '.join(map(str, years))}",
    )


@calendar.command("show")
def show_days(
    *,
    year: Annotated[int, typer.Option("--year", min=1992, max=2200, help="Which year.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show the days of a year that are not as their weekday says, and how many days are worked."""
    from datetime import date

    from govbus.workingdays import span
    from govbus_console import connect
    from govbus_console.control.request_steps import read_calendar
    from govbus_console.render import show, table
    from govbus_console.settings import RequestSettings

    with connect.store() as store, store.reading() as session:
        days = read_calendar(session, RequestSettings())
    worked = sum(days.worked(day) for day in span(date(year, 1, 1), date(year, 12, 31)))
    found = sorted((day, kind) for day, kind in days.exceptions.items() if day.year == year)
    show(
        {
            "year": year,
            "worked_days": worked,
            "exceptions": [{"day": day.isoformat(), "kind": kind.value} for day, kind in found],
        },
        as_json=as_json,
        text=table("", ("day", "kind"), [(day.isoformat(), kind.value) for day, kind in found])
        + f"{worked} days of {year} are worked",
    )


@clocks.command("run")
def run(*, as_json: Json = False) -> None:
    """Write the reminders and escalations that are due; `govbus up` does it every minute."""
    from govbus_console import connect
    from govbus_console.control.clocks import run_clocks
    from govbus_console.render import show
    from govbus_console.settings import RequestSettings

    with connect.store() as store:
        written = run_clocks(store, RequestSettings(), now=datetime.now(UTC))
    show({"written": written}, as_json=as_json, text=f"{written} notices written")


@notices.command("drain")
def drain(*, to: _To = "", as_json: Json = False) -> None:
    """Deliver the notices that were not sent yet, each as one line of JSON, and mark them as sent."""
    from govbus_console import connect
    from govbus_console.control import notices as sending
    from govbus_console.render import show

    if not to:
        send = sending.to_stdout()
    elif "://" in to:
        send = sending.to_webhook(to)
    else:
        send = sending.to_file(Path(to))
    with connect.store() as store:
        count = sending.drain(store, send)
    if to:
        show({"sent": count}, as_json=as_json, text=f"{count} notices sent")


GROUPS = (account, calendar, clocks, notices)
