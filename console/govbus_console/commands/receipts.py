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
    from govbus_console import connect
    from govbus_console.render import PENDING, show

    with connect.receipts(actor("")) as control:
        found = control.receipts(department=department)
    missing = sum(each["status"] != "answered" for each in found)
    summary = f"ended grants: {len(found)}; not answered for: {missing}"
    show(
        {"ended": len(found), "missing": missing, "receipts": found},
        as_json=as_json,
        text="\n".join([*(each["line"] for each in found), summary]),
    )
    if missing:
        raise typer.Exit(PENDING)


def receipt_key(
    department: _Department, *, enrol: _Enrol = "", why: Why = "", who: Who = "", as_json: Json = False
) -> None:
    """Show the key that a department's receipts are checked with, or pin one.

    Where the department's own key is in this home, it is shown too.
    """
    from govbus.receipt import fingerprint
    from govbus_console import connect
    from govbus_console.render import show
    from govbus_consumers.receipts import load_key

    with connect.receipts(actor(who)) as control:
        known = control.enrol(department, enrol, why=why or "enrolled") if enrol else control.key(department)
    pinned = None if known["pinned"] is None else bytes.fromhex(known["pinned"])
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
