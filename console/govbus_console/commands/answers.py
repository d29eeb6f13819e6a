"""explain, who-received: why one row reached a department or did not, and who received it."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from govbus_console.commands.options import Json

if TYPE_CHECKING:
    from govbus_console.answers.explain import Explanation
    from govbus_console.answers.received import Receptions

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
    from govbus_console.answers.explain import explain as answer
    from govbus_console.answers.landed import landed_lookup
    from govbus_console.render import show
    from govbus_consumers.config import load_config

    now = datetime.now(UTC)
    moment = _moment(at, now)
    looking = nullcontext() if landing is None else landed_lookup(load_config(landing), to)
    with connect.bus() as bus, connect.store() as store, looking as landed:
        found = answer(record, to, store, bus, at=moment, now=now, landed=landed)
    show(found.as_json(), as_json=as_json, text="" if as_json else _explained(found))


def who_received(record: _Row, *, as_json: Json = False) -> None:
    """Name the departments that received a row, under which agreement, and when.

    What is certain is told apart from what is only possible.
    """
    from govbus_console import connect
    from govbus_console.answers.received import who_received as answer
    from govbus_console.render import show

    with connect.bus() as bus, connect.store() as store:
        found = answer(record, store, bus, now=datetime.now(UTC))
    show(found.as_json(), as_json=as_json, text="" if as_json else _received(found))


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


def _explained(found: Explanation) -> str:
    from govbus_console.render import table

    head = {
        "shared": f"{found.department} receives this row",
        "not-shared": f"{found.department} does not receive it: stopped at {found.explained.stopped_by}",
        "unknown": f"whether {found.department} receives this row cannot be said for certain any more",
    }[found.explained.answer.value]
    rows = [(gate.name.value, gate.status.value, gate.why, _time(gate.at)) for gate in found.explained.gates]
    lines = [f"{head} (as of {_time(found.at)})", table("", ("gate", "", "why", "at"), rows).rstrip("\n")]
    for other in found.others:
        if other.granted is not None:
            stopped = "" if other.stopped_by is None else f", stopped at {other.stopped_by}"
            lines.append(f"beside it: grant {other.granted.grant.id}: {other.answer}{stopped}")
    lines.append(f"same answer now: {'yes' if found.same_now else 'no'}")
    lines.append(f"next: {found.next_command}")
    return "\n".join(lines)


def _received(found: Receptions) -> str:
    from govbus.explanation import describe_fields
    from govbus_console.render import table

    rows = []
    for one, data in zip(found.found, found.as_json()["received"], strict=True):
        when = "" if data["first"] is None else f"{data['first']}\n{data['last']}"
        places = "\n".join(str(given.delivery.at) for given in one.deliveries)
        rows.append(
            (
                one.grant.subscriber,
                f"{one.grant.id} v{one.grant.version}\n{one.grant.purpose}",
                describe_fields(one.grant),
                one.certainty.value,
                when,
                "\n".join(part for part in (places, one.why) if part),
            )
        )
    columns = ("department", "agreement, purpose", "fields", "certainty", "first, last", "evidence")
    text = table("", columns, rows) if rows else "no department received this row\n"
    if not found.history_complete:
        text += "The captured topic has been compacted: older versions of the row may have gone unnoticed.\n"
    return text


def _time(at: datetime | None) -> str:
    return "" if at is None else at.isoformat(timespec="milliseconds")


COMMANDS = (explain, who_received)
