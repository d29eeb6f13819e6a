"""status, doctor, tail: look, and change nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from govbus_console.commands.options import Json

_What = Annotated[
    str, typer.Argument(metavar="TOPIC|RESOURCE|GRANT", help="What to read.", show_default=False)
]
_Values = Annotated[
    bool, typer.Option("--values", help="Show decoded keys and values too; needs a department's own login.")
]
_As = Annotated[str, typer.Option("--as", metavar="DEPARTMENT", help="Read as this department.")]
_Count = Annotated[int, typer.Option("--count", "-n", min=1, help="Show the last so many of each partition.")]
_Follow = Annotated[bool, typer.Option("--follow", "-F", help="Go on with what arrives, until Ctrl-C.")]


def status(*, as_json: Json = False) -> None:
    """Show what runs and what is shared with whom, and how far it has got."""
    from govbus_console import connect
    from govbus_console.commands.options import actor
    from govbus_console.render import show
    from govbus_console.status import text_of

    with connect.control(actor("")) as control:
        found = control.status()
    show(found, as_json=as_json, text=text_of(found))


def doctor(*, as_json: Json = False) -> None:
    """Check this machine and the bus, and say what to put right."""
    from govbus_console import connect
    from govbus_console.doctor import examine, text_of
    from govbus_console.render import FAILED, show

    findings = examine(connect.home())
    well = all(finding.well for finding in findings)
    show(
        {"well": well, "checks": [finding.as_json() for finding in findings]},
        as_json=as_json,
        text=text_of(findings),
    )
    if not well:
        raise typer.Exit(FAILED)


def tail(
    what: _What,
    *,
    as_department: _As = "",
    values: _Values = False,
    count: _Count = 10,
    follow: _Follow = False,
    as_json: Json = False,
) -> None:
    """Show the last records of a topic, a resource or a grant.

    Place, time, schema and size; values only with --values and a department's own login.
    """
    from govbus_console import connect
    from govbus_console.tail import follow_topic, topic_of

    if values and not as_department:
        raise typer.BadParameter("--values needs --as DEPARTMENT", param_hint="--values")
    topic = topic_of(what, connect.store)
    broker, registry = connect.endpoints(as_department) if as_department else connect.endpoints()
    follow_topic(
        topic,
        broker,
        registry.url,
        count=count,
        values=values,
        follow=follow,
        as_json=as_json,
    )


COMMANDS = (status, doctor, tail)
