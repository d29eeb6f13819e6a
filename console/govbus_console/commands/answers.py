"""explain, who-received: why one row reached a department or did not, and who received it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any

import typer

from govbus_console.commands.options import Json

_Record = Annotated[
    str,
    typer.Option(
        "--record",
        metavar="OWNER.RESOURCE/KEY",
        help="Which row: KEY is field=value,field2=value, or the value alone.",
        show_default=False,
    ),
]
_Row = Annotated[
    str,
    typer.Argument(
        metavar="OWNER.RESOURCE/KEY",
        help="Which row: KEY is field=value,field2=value, or the value alone.",
        show_default=False,
    ),
]
_To = Annotated[str, typer.Option("--to", metavar="DEPARTMENT", help="The subscriber.", show_default=False)]
_At = Annotated[
    str,
    typer.Option(
        "--at", metavar="TIME", help="As it was then: ISO 8601 with a zone, or a date (its beginning, UTC)."
    ),
]
_Landing = Annotated[
    Path | None,
    typer.Option(
        "--landing",
        metavar="FILE",
        help="The subscriber's landing file: look into its own database as well.",
        show_default=False,
    ),
]


def explain(
    *,
    record: _Record,
    to: _To,
    at: _At = "",
    landing: _Landing = None,
    as_json: Json = False,
) -> None:
    """Say gate by gate why a row reached a department, or did not.

    Decided afresh with the grant and the row as they were; values are never shown.
    """
    from govbus_console import connect
    from govbus_console.render import show

    moment = _moment(at, datetime.now(UTC))
    with connect.answers(landing=landing) as answers:
        found = answers.explain(record, to, at=moment)
    show(found, as_json=as_json, text="" if as_json else _explained(found))


def who_received(record: _Row, *, as_json: Json = False) -> None:
    """Name the departments that received a row, under which agreement, and when.

    What is certain is told apart from what is only possible.
    """
    from govbus_console import connect
    from govbus_console.render import show

    with connect.answers() as answers:
        found = answers.who_received(record)
    show(found, as_json=as_json, text="" if as_json else _received(found))


def _moment(text: str, now: datetime) -> datetime | None:
    """Read ``--at``; a moment without zone would be a guess, one to come nobody can explain."""
    if not text:
        return None
    try:
        if len(text) == len("2026-01-01"):
            moment = datetime.combine(date.fromisoformat(text), time(), UTC)
        else:
            moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            "write ISO 8601, e.g. 2026-05-01T08:00:00+08:00 or 2026-05-01", param_hint="--at"
        ) from None
    if moment.tzinfo is None:
        raise typer.BadParameter("needs a zone, e.g. 2026-05-01T08:00:00+08:00", param_hint="--at")
    if moment > now:
        raise typer.BadParameter("lies ahead; what was, or is now, can be explained", param_hint="--at")
    return moment


def _explained(found: Mapping[str, Any]) -> str:
    from govbus_console.render import table

    to = found["to"]
    head = {
        "shared": f"{to} receives this row",
        "not-shared": f"{to} does not receive it: stopped at {found['stopped_by']}",
        "unknown": f"whether {to} receives this row cannot be said for certain any more",
    }[found["answer"]]
    rows = [(gate["gate"], gate["status"], gate["why"], _time(gate["at"])) for gate in found["gates"]]
    lines = [f"{head} (as of {_time(found['at'])})", table("", ("gate", "", "why", "at"), rows).rstrip("\n")]
    for other in found["others"]:
        stopped = "" if other["stopped_by"] is None else f", stopped at {other['stopped_by']}"
        lines.append(f"beside it: grant {other['grant']}: {other['answer']}{stopped}")
    lines.append(f"same answer now: {'yes' if found['same_answer_now'] else 'no'}")
    lines.append(f"next: {found['next']}")
    return "\n".join(lines)


def _received(found: Mapping[str, Any]) -> str:
    from govbus.event import RecordAddress
    from govbus.explanation import describe_specs
    from govbus_console.render import table

    rows = []
    for one in found["received"]:
        when = "" if one["first"] is None else f"{one['first']}\n{one['last']}"
        places = [
            str(RecordAddress(topic=at["topic"], partition=at["partition"], offset=at["offset"]))
            for at in one["deliveries"]
        ]
        rows.append(
            (
                one["department"],
                f"{one['grant']} v{one['version']}\n{one['purpose']}",
                describe_specs((rule["name"], rule["transform"]) for rule in one["fields"]),
                one["certainty"],
                when,
                "\n".join(part for part in ("\n".join(places), one["why"]) if part),
            )
        )
    columns = ("department", "agreement, purpose", "fields", "certainty", "first, last", "evidence")
    text = table("", columns, rows) if rows else "no department received this row\n"
    if not found["history_complete"]:
        text += "The captured topic has been compacted: older versions of the row may have gone unnoticed.\n"
    return text


def _time(at: str | None) -> str:
    return "" if at is None else datetime.fromisoformat(at).isoformat(timespec="milliseconds")


COMMANDS = (explain, who_received)
