"""receipts, receipt-key: what departments have answered when a grant had ended."""

from __future__ import annotations

from typing import Annotated

import typer

from govbus_console.commands.options import Json, Who, Why, actor

_Of = Annotated[str, typer.Option("--department", metavar="DEPARTMENT", help="Only of this department.")]
_Department = Annotated[
    str, typer.Argument(metavar="DEPARTMENT", help="Whose key it is.", show_default=False)
]
_Enrol = Annotated[
    str,
    typer.Option(
        "--enrol", metavar="HEX", help="Pin this public key, which the department has given you itself."
    ),
]


def receipts(*, department: _Of = "", as_json: Json = False) -> None:
    """Show who has answered for grants that ended, and who has not.

    Exits with 3 when a receipt that can be relied on is missing.
    """
    from datetime import UTC, datetime

    from govbus_console import connect
    from govbus_console.control import endings
    from govbus_console.control.receipts import standings
    from govbus_console.render import PENDING, show

    with connect.bus() as bus, connect.store() as store:
        endings.follow_up(store, bus, now=datetime.now(UTC))
        found = [each for each in standings(store) if department in ("", each.department)]
    missing = sum(not each.answered for each in found)
    summary = f"ended grants: {len(found)}; not answered for: {missing}"
    show(
        {"ended": len(found), "missing": missing, "receipts": [each.as_json() for each in found]},
        as_json=as_json,
        text="\n".join([*(each.line() for each in found), summary]),
    )
    if missing:
        raise typer.Exit(PENDING)


def receipt_key(
    department: _Department, *, enrol: _Enrol = "", why: Why = "", who: Who = "", as_json: Json = False
) -> None:
    """Show the key that a department's receipts are checked with, or pin one.

    Where the department's own key is in this home, it is shown too.
    """
    from datetime import UTC, datetime

    from govbus.receipt import fingerprint
    from govbus_console import connect
    from govbus_console.control import receipts as control
    from govbus_console.render import show
    from govbus_consumers.receipts import load_key

    with connect.store() as store:
        if enrol:
            now = datetime.now(UTC)
            control.enrol(store, department, enrol, who=actor(who), why=why or "enrolled", now=now)
        pinned = control.pinned_key(store, department)
    file = connect.home().secrets / f"{department}.receipt-key"
    own = load_key(file).public if file.exists() else None
    lines = [
        f"pinned: {fingerprint(pinned)} {pinned.hex()}"
        if pinned
        else "pinned: none; the key of the first receipt will be"
    ]
    if own is not None:
        lines.append(f"own:    {fingerprint(own)} {own.hex()} (of {file})")
    show(
        {
            "department": department,
            "pinned": pinned.hex() if pinned else None,
            "own": own.hex() if own else None,
        },
        as_json=as_json,
        text="\n".join(lines),
    )


COMMANDS = (receipts, receipt_key)
