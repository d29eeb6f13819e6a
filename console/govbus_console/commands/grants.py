"""grant: look at what was granted. What changes a grant has commands of its own: amend, renew, suspend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from govbus_console.commands.options import Json, MaybeAs, actor

grant = typer.Typer(name="grant", help="Look at what was granted.", no_args_is_help=True)

_Id = Annotated[str, typer.Argument(metavar="GRANT", help="Id of the grant.", show_default=False)]
_Owner = Annotated[str, typer.Option("--owner", metavar="DEPARTMENT", help="Only of this owner's resources.")]
_Subscriber = Annotated[
    str, typer.Option("--subscriber", metavar="DEPARTMENT", help="Only what this department receives.")
]
_Resource = Annotated[
    str, typer.Option("--resource", metavar="OWNER.RESOURCE", help="Only of this resource.")
]
_State = Annotated[str, typer.Option("--state", help="Only those in this state.")]
_Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show at most so many.")]
_After = Annotated[str, typer.Option("--after", metavar="GRANT", help="Go on behind this one.")]


@grant.command("list")
def list_grants(
    *,
    owner: _Owner = "",
    subscriber: _Subscriber = "",
    resource: _Resource = "",
    state: _State = "",
    limit: _Limit = 100,
    after: _After = "",
    as_account: MaybeAs = "",
    as_json: Json = False,
) -> None:
    """List grants by id, each in its newest version, with an account those that it may see."""
    from govbus.grant import GrantState
    from govbus_console import connect
    from govbus_console.render import show, table

    if state and state not in set(GrantState):
        raise typer.BadParameter(f"write one of {', '.join(GrantState)}", param_hint="--state")
    with connect.control(actor(""), as_account) as control:
        found = control.grants(owner=owner, subscriber=subscriber, resource=resource, state=state)
    behind = [one for one in found if one["grant"] > after]
    page = behind[:limit]
    following = page[-1]["grant"] if len(behind) > limit else None
    rows = [
        (one["grant"], one["version"], _standing(one), one["subscriber"], one["resource"], _term(one))
        for one in page
    ]
    text = table("", ("grant", "version", "state", "subscriber", "resource", "term"), rows)
    if following is not None:
        text += f"there is more: give it again with --after {following}"
    show({"grants": page, "next": following}, as_json=as_json, text=text if rows else "no grants")


@grant.command("show")
def show_grant(grant_id: _Id, *, as_account: MaybeAs = "", as_json: Json = False) -> None:
    """Show a grant with all its versions: what changed, who decided, and whether it delivers now.

    Also what holds it back, and what its subscriber has answered once it ended.
    """
    from govbus_console import connect
    from govbus_console.render import show

    with connect.control(actor(""), as_account) as control:
        found = control.grant_history(grant_id)
    show(found, as_json=as_json, text="" if as_json else _told(found))


def _standing(one: Mapping[str, Any]) -> str:
    """The state, and whether its term is the reason why it delivers nothing."""
    state = str(one["state"])
    return f"{state}, not in its term" if state == "active" and not one["in_force"] else state


def _term(one: Mapping[str, Any]) -> str:
    return f"{one['starts_at'][:10]} to {one['expires_at'][:10]}"


def _told(found: Mapping[str, Any]) -> str:
    from govbus_console.render import facts_text, field_text, quota_text, table

    one = found["grant"]
    facts = [
        ("subscriber", one["subscriber"]),
        ("resource", one["resource"]),
        ("purpose", one["purpose"]),
        ("fields", ", ".join(field_text(rule["name"], rule["transform"]) for rule in one["fields"])),
        ("rows", one["rows"] or "all"),
        ("term", f"{one['starts_at']} to {one['expires_at']}"),
        ("a day", quota_text(one["quota_records_per_day"], one["quota_keys_per_day"])),
        ("landed rows at the end", one["data_on_end"]),
        ("topic", one["topic"]),
        ("now", found["reason"]),
        ("held back", _held(found["held"])),
    ]
    if found["receipt"] is not None:
        facts.append(("receipt", found["receipt"]["line"]))
    versions = [
        (
            each["version"],
            each["made_at"][:19],
            each["state"],
            "\n".join(each["changes"]),
            "\n".join([f"{each['who']}: {each['why']}", *_decided(each["decided"])]),
        )
        for each in found["versions"]
    ]
    return "\n".join(
        [
            f"grant {one['grant']}, version {one['version']}, {_standing(one)}",
            facts_text(facts),
            "",
            table("", ("version", "made at", "state", "changed", "by"), versions),
        ]
    )


def _held(reasons: Sequence[str] | None) -> str:
    return "unknown: the bus does not answer" if reasons is None else ", ".join(reasons) or "no"


def _decided(decided: Mapping[str, Any] | None) -> list[str]:
    if decided is None:
        return []
    said = f"request {decided['request']} ({decided['kind']}) of {decided['requester']}"
    if decided["approved_by"]:
        said += f", approved by {', '.join(decided['approved_by'])}"
    if decided["granted_by"]:
        said += f", granted by {decided['granted_by']}"
    return [said]


GROUPS = (grant,)
