"""find, who-uses, can: what there is, who receives it, and whether somebody may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from govbus_console.commands.options import Json

if TYPE_CHECKING:
    from govbus_console.control.entries import Found
    from govbus_console.control.usage import Use

_Text = Annotated[
    str, typer.Argument(metavar="TEXT", help="Words to look for, all of them. Default: everything.")
]
_Owner = Annotated[str, typer.Option("--owner", metavar="DEPARTMENT", help="Owned by this department.")]
_ShareType = Annotated[
    str,
    typer.Option("--share-type", metavar="unconditional|conditional|withheld", help="Shared in this way."),
]
_Classification = Annotated[
    str,
    typer.Option(
        "--classification",
        metavar="public|internal|sensitive|core",
        help="With no field of a higher grade, and one of this.",
    ),
]
_Category = Annotated[
    str,
    typer.Option("--category", metavar="NAME[/NAME…]", help="In this category, from the top, or below it."),
]
_Level = Annotated[
    str,
    typer.Option("--level", metavar="national|province|city|county", help="Owned at this level."),
]
_Open = Annotated[
    bool | None, typer.Option("--open/--not-open", help="Open to the public, or not.", show_default=False)
]
_Code = Annotated[str, typer.Option("--code", help="With exactly this code.")]
_Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="So many answers on one page.")]
_After = Annotated[
    int, typer.Option("--after", min=0, help="Go on behind this place: the page before names it.")
]
_What = Annotated[
    str, typer.Argument(metavar="OWNER.RESOURCE[.FIELD]", help="What is asked about.", show_default=False)
]
_Department = Annotated[
    str, typer.Argument(metavar="DEPARTMENT", help="Who would receive it.", show_default=False)
]
_Ended = Annotated[
    bool, typer.Option("--ended", help="Also grants under which nothing is delivered now, with the reason.")
]


def find(
    what: _Text = "",
    *,
    owner: _Owner = "",
    share_type: _ShareType = "",
    classification: _Classification = "",
    category: _Category = "",
    level: _Level = "",
    public: _Open = None,
    code: _Code = "",
    limit: _Limit = 20,
    after: _After = 0,
    as_json: Json = False,
) -> None:
    """Look through the catalogue.

    In titles, names, codes, categories, abstracts and information items.
    """
    from govbus.catalogue import Classification, DepartmentLevel, ShareType
    from govbus_console import connect
    from govbus_console.control import entries
    from govbus_console.render import show

    try:
        question = entries.Question(
            text=what,
            owner=owner,
            share_type=ShareType(share_type) if share_type else None,
            classification=Classification(classification) if classification else None,
            category=tuple(category.split("/")) if category else (),
            level=DepartmentLevel(level) if level else None,
            open=public,
            code=code,
            limit=limit,
            after=after,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with connect.store() as store:
        page = entries.find(store, question)
    show(
        {"found": [_found_data(found) for found in page.found], "next": page.next},
        as_json=as_json,
        text=_found_text([*page.found], page.next),
    )


def who_uses(what: _What, *, ended: _Ended = False, as_json: Json = False) -> None:
    """Show which departments receive a resource, or a field of it."""
    from datetime import UTC, datetime

    from govbus_console import connect
    from govbus_console.control import usage
    from govbus_console.render import show, table

    asked = usage.What.parse(what)
    with connect.store() as store:
        uses = usage.who_uses(store, asked, now=datetime.now(UTC), ended=ended)
    rows = [
        (
            use.grant.subscriber,
            f"{use.grant.id} v{use.grant.version}",
            use.grant.purpose,
            ", ".join(_fields(use)) or use.decision.reason.value,
            use.grant.rows or "all",
            f"{use.grant.starts_at:%Y-%m-%d} to {use.grant.expires_at:%Y-%m-%d}",
        )
        for use in uses
    ]
    columns = ("department", "grant", "purpose", "fields", "rows", "term")
    show(
        {"what": what, "uses": [_use_data(use) for use in uses]},
        as_json=as_json,
        text=table("", columns, rows) if rows else f"nobody receives {what}",
    )


def can(department: _Department, what: _What, *, as_json: Json = False) -> None:
    """Say whether a department may receive a resource, or a field of it.

    Exits with 0 for yes and 4 for no.
    """
    from datetime import UTC, datetime

    from govbus_console import connect
    from govbus_console.control import usage
    from govbus_console.render import REFUSED, show

    asked = usage.What.parse(what)
    with connect.store() as store:
        answer = usage.can(store, department, asked, now=datetime.now(UTC))
    under = "" if answer.use is None else f", grant {answer.use.grant.id} version {answer.use.grant.version}"
    show(
        {
            "department": department,
            "what": what,
            "answer": "yes" if answer.yes else "no",
            "reason": answer.reason,
            "use": None if answer.use is None else _use_data(answer.use),
        },
        as_json=as_json,
        text=f"{'yes' if answer.yes else 'no'}: {answer.reason}{under}",
    )
    if not answer.yes:
        raise typer.Exit(REFUSED)


def _fields(use: Use) -> list[str]:
    from govbus_console.render import field_text

    return [field_text(rule.name, rule.transform.spec()) for rule in use.fields]


def _use_data(use: Use) -> dict[str, Any]:
    grant = use.grant
    return {
        "department": grant.subscriber,
        "title": use.department,
        "grant": grant.id,
        "version": grant.version,
        "state": grant.state.value,
        "reason": use.decision.reason.value,
        "purpose": grant.purpose,
        "fields": [{"name": rule.name, "transform": rule.transform.spec()} for rule in use.fields],
        "rows": grant.rows,
        "starts_at": grant.starts_at.isoformat(),
        "expires_at": grant.expires_at.isoformat(),
    }


def _found_data(found: Found) -> dict[str, Any]:
    from govbus.entry import entry_to_facts

    return {
        "place": found.place,
        "resource": found.ref,
        "title": found.title,
        "owner": found.owner_title,
        "level": None if found.level is None else found.level.value,
        "share_type": found.share_type.value,
        "classification": found.classification.value,
        "entry": None if found.entry is None else entry_to_facts(found.entry),
    }


def _found_text(page: list[Found], following: int | None) -> str:
    from govbus_console.render import table

    if not page:
        return "nothing found"
    rows = [
        (
            found.ref,
            found.title,
            found.entry.code if found.entry else "",
            found.share_type.value,
            found.entry.condition if found.entry else "",
        )
        for found in page
    ]
    text = table("", ("resource", "title", "code", "share type", "condition"), rows)
    return text if following is None else f"{text}there is more: give it again with --after {following}"


COMMANDS = (find, who_uses, can)
