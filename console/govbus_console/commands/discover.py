"""find, who-uses, can: what there is, who receives it, and whether somebody may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from govbus_console.commands.options import Json

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
    with connect.answers() as answers:
        page = answers.find(question)
    show(page, as_json=as_json, text=_found_text(page["found"], page["next"]))


def who_uses(what: _What, *, ended: _Ended = False, as_json: Json = False) -> None:
    """Show which departments receive a resource, or a field of it."""
    from govbus_console import connect
    from govbus_console.render import show, table

    with connect.answers() as answers:
        uses = answers.who_uses(what, ended=ended)
    rows = [
        (
            use["department"],
            f"{use['grant']} v{use['version']}",
            use["purpose"],
            ", ".join(_fields(use)) or use["reason"],
            use["rows"] or "all",
            f"{_day(use['starts_at'])} to {_day(use['expires_at'])}",
        )
        for use in uses
    ]
    columns = ("department", "grant", "purpose", "fields", "rows", "term")
    show(
        {"what": what, "uses": uses},
        as_json=as_json,
        text=table("", columns, rows) if rows else f"nobody receives {what}",
    )


def can(department: _Department, what: _What, *, as_json: Json = False) -> None:
    """Say whether a department may receive a resource, or a field of it.

    Exits with 0 for yes and 4 for no.
    """
    from govbus_console import connect
    from govbus_console.render import REFUSED, show

    with connect.answers() as answers:
        found = answers.can(department, what)
    use = found["use"]
    under = "" if use is None else f", grant {use['grant']} version {use['version']}"
    show(found, as_json=as_json, text=f"{found['answer']}: {found['reason']}{under}")
    if found["answer"] != "yes":
        raise typer.Exit(REFUSED)


def _fields(use: Mapping[str, Any]) -> list[str]:
    from govbus_console.render import field_text

    return [field_text(rule["name"], rule["transform"]) for rule in use["fields"]]


def _day(moment: str) -> str:
    return moment.partition("T")[0]


def _found_text(page: Sequence[Mapping[str, Any]], following: int | None) -> str:
    from govbus_console.render import table

    if not page:
        return "nothing found"
    rows = []
    for found in page:
        entry = found["entry"] or {"code": "", "condition": ""}
        rows.append(
            (found["resource"], found["title"], entry["code"], found["share_type"], entry["condition"])
        )
    text = table("", ("resource", "title", "code", "share type", "condition"), rows)
    return text if following is None else f"{text}there is more: give it again with --after {following}"


COMMANDS = (find, who_uses, can)
