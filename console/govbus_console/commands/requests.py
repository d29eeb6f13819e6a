"""request, review, amend, renew, emergency: ask for data, and decide about asking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from govbus_console.commands.options import Json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import timedelta

    from govbus.grant import DataDuty, FieldRule
    from govbus.request import Ground
    from govbus_console.control.interface import RequestControl
    from govbus_console.control.request_shapes import Happened, Request
    from govbus_console.control.roles import Account

request = typer.Typer(name="request", help="Ask for data of another department.", no_args_is_help=True)
review = typer.Typer(name="review", help="Decide about requests for a department's own data.")

As = Annotated[
    str,
    typer.Option(
        "--as", metavar="ACCOUNT", envvar="GOVBUS_ACCOUNT", help="The account that acts.", show_default=False
    ),
]
_Id = Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the request.", show_default=False)]
_Grant = Annotated[str, typer.Argument(metavar="GRANT", help="Id of the grant.", show_default=False)]
_Resource = Annotated[str, typer.Argument(metavar="RESOURCE", help="owner.resource", show_default=False)]
_Fields = Annotated[
    list[str],
    typer.Option(
        "--field",
        metavar="NAME[=TRANSFORM]",
        help="A field, kept or with its transform, e.g. 'born={generalise: year}'. Once for each field.",
        show_default=False,
    ),
]
_MaybeFields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="NAME[=TRANSFORM]",
        help="All fields of the new version, once for each. Without: they stay.",
    ),
]
_Rows = Annotated[str, typer.Option("--rows", metavar="SQL|all", help="Which rows.", show_default=False)]
_MaybeRows = Annotated[str, typer.Option("--rows", metavar="SQL|all", help="Without: they stay.")]
_Purpose = Annotated[str, typer.Option("--purpose", help="What the data is for.", show_default=False)]
_Basis = Annotated[
    str, typer.Option("--legal-basis", help="The law or rule that allows it.", show_default=False)
]
_MaybeBasis = Annotated[str, typer.Option("--legal-basis", help="Default: what the first request rested on.")]
_Days = Annotated[
    int, typer.Option("--days", min=1, max=36_500, help="Term, from when it is granted.", show_default=False)
]
_MaybeDays = Annotated[
    int,
    typer.Option("--days", min=0, max=36_500, help="New term, from the amendment on. 0: the end stays."),
]
_Hours = Annotated[int, typer.Option("--hours", min=1, help="How many hours it lasts.")]
_Duty = Annotated[
    str,
    typer.Option("--data", metavar="keep|blank|delete", help="What happens to the landed rows when it ends."),
]
_QuotaRecords = Annotated[
    int | None, typer.Option("--quota-records", min=0, help="The most records that a day delivers.")
]
_QuotaKeys = Annotated[
    int | None, typer.Option("--quota-keys", min=0, help="The most distinct keys that a day delivers.")
]
_State = Annotated[str, typer.Option("--state", help="Only those in this state.")]
_Why = Annotated[str, typer.Option("--why", help="The reason; it stands in the history.")]
_MustWhy = Annotated[
    str, typer.Option("--why", help="The reason; it stands in the history.", show_default=False)
]
_Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="Show at most so many.")]
_After = Annotated[str, typer.Option("--after", metavar="REQUEST", help="Go on behind this one.")]


# -- request ---------------------------------------------------------------------------------------


@request.command("new")
def new(
    resource: _Resource,
    *,
    field: _Fields,
    rows: _Rows,
    purpose: _Purpose,
    legal_basis: _Basis,
    days: _Days,
    data: _Duty = "delete",
    quota_records: _QuotaRecords = None,
    quota_keys: _QuotaKeys = None,
    as_account: As,
    as_json: Json = False,
) -> None:
    """Write a request down as a draft; count and submit are the next steps."""
    from datetime import timedelta

    from govbus_console.control.request_shapes import Ask

    ask = Ask(
        resource=resource,
        fields=field_rules(field),
        rows=None if rows == "all" else rows,
        purpose=purpose,
        legal_basis=legal_basis,
        term=timedelta(days=days),
        data_on_end=_duty(data),
        quota_records_per_day=quota_records or None,
        quota_keys_per_day=quota_keys or None,
    )
    with desk(as_account) as (requests, actor):
        _show(requests.draft(actor, ask), as_json=as_json, whole=True)


@request.command("list")
def list_requests(
    *,
    state: _State = "",
    limit: _Limit = 100,
    after: _After = "",
    as_account: As,
    as_json: Json = False,
) -> None:
    """List the requests of a department, and those for its data."""
    from govbus.request import RequestState

    if state and state not in set(RequestState):
        raise typer.BadParameter(f"write one of {', '.join(RequestState)}", param_hint="--state")
    with desk(as_account) as (requests, actor):
        found = requests.listing(
            actor, state=RequestState(state) if state else None, limit=limit, after=after
        )
    _show_all(found, as_json=as_json)


@request.command("show")
def show_request(request_id: _Id, *, as_account: As, as_json: Json = False) -> None:
    """Show a request and everything that has happened to it."""
    with desk(as_account) as (requests, actor):
        found, history = requests.find(actor, request_id), requests.history(actor, request_id)
        _show(found, history, as_json=as_json, whole=True)


@request.command("count")
def count(request_id: _Id, *, as_account: As, as_json: Json = False) -> None:
    """Count the rows that the request would match: a rounded number, never values."""
    with desk(as_account) as (requests, actor):
        _show(requests.count(actor, request_id), as_json=as_json)


@request.command("submit")
def submit(request_id: _Id, *, as_account: As, as_json: Json = False) -> None:
    """Hand a request in; of unconditional resources it is granted at once."""
    with desk(as_account) as (requests, actor):
        _show(requests.submit(actor, request_id), as_json=as_json)


@request.command("answer")
def answer(
    request_id: _Id,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The answer.", show_default=False)],
    *,
    as_account: As,
    as_json: Json = False,
) -> None:
    """Answer what the owner asked."""
    with desk(as_account) as (requests, actor):
        _show(requests.answer(actor, request_id, text), as_json=as_json)


@request.command("withdraw")
def withdraw(request_id: _Id, *, why: _Why = "", as_account: As, as_json: Json = False) -> None:
    """Take back a request that has not been decided."""
    with desk(as_account) as (requests, actor):
        _show(requests.withdraw(actor, request_id, why), as_json=as_json)


# -- review ----------------------------------------------------------------------------------------


@review.command("list")
def list_reviews(*, limit: _Limit = 100, after: _After = "", as_account: As, as_json: Json = False) -> None:
    """List what waits for a department's stewards."""
    with desk(as_account) as (requests, actor):
        found = requests.listing(actor, to_review=True, limit=limit, after=after)
    _show_all(found, as_json=as_json)


@review.command("take")
def take(request_id: _Id, *, as_account: As, as_json: Json = False) -> None:
    """Begin to review a request."""
    with desk(as_account) as (requests, actor):
        _show(requests.take(actor, request_id), as_json=as_json, whole=True)


@review.command("ask")
def ask(
    request_id: _Id,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question.", show_default=False)],
    *,
    as_account: As,
    as_json: Json = False,
) -> None:
    """Ask the requester; the owner's clock stands still until there is an answer."""
    with desk(as_account) as (requests, actor):
        _show(requests.ask(actor, request_id, question), as_json=as_json)


@review.command("approve")
def approve(request_id: _Id, *, why: _Why = "", as_account: As, as_json: Json = False) -> None:
    """Say yes; with the last yes that is needed the grant is made."""
    with desk(as_account) as (requests, actor):
        _show(requests.approve(actor, request_id, why), as_json=as_json)


@review.command("reject")
def reject(
    request_id: _Id,
    *,
    ground: Annotated[
        str, typer.Option("--ground", help="Why not; the manual lists the grounds.", show_default=False)
    ],
    why: _Why = "",
    as_account: As,
    as_json: Json = False,
) -> None:
    """Say no, on a ground."""
    with desk(as_account) as (requests, actor):
        _show(requests.reject(actor, request_id, _ground(ground), why), as_json=as_json)


@review.command("emergency")
def review_emergency(
    request_id: _Id,
    *,
    upheld: Annotated[
        bool,
        typer.Option("--upheld/--objected", help="Whether it was right.", show_default=False),
    ],
    why: _MustWhy,
    as_account: As,
    as_json: Json = False,
) -> None:
    """Review afterwards what was granted in an emergency."""
    with desk(as_account) as (requests, actor):
        _show(requests.review_emergency(actor, request_id, upheld=upheld, why=why), as_json=as_json)


# -- existing grants -------------------------------------------------------------------------------


def amend(
    grant: _Grant,
    *,
    field: _MaybeFields = None,
    rows: _MaybeRows = "",
    days: _MaybeDays = 0,
    data: _Duty = "",
    quota_records: _QuotaRecords = None,
    quota_keys: _QuotaKeys = None,
    legal_basis: _MaybeBasis = "",
    why: _MustWhy,
    as_account: As,
    as_json: Json = False,
) -> None:
    """Make another version of a grant, or ask for it. A quota of 0 takes the bound away."""
    from datetime import timedelta

    from govbus_console.control.request_shapes import Amendment

    change = Amendment(
        fields=field_rules(field) if field else None,
        rows=rows or None,
        term=timedelta(days=days) if days else None,
        data_on_end=_duty(data) if data else None,
        quota_records_per_day=quota_records,
        quota_keys_per_day=quota_keys,
    )
    with desk(as_account) as (requests, actor):
        _show(requests.amend(actor, grant, change, why=why, legal_basis=legal_basis), as_json=as_json)


def renew(
    grant: _Grant,
    *,
    days: _Days,
    legal_basis: _MaybeBasis = "",
    why: _MustWhy,
    as_account: As,
    as_json: Json = False,
) -> None:
    """Ask for another term of a grant; it is approved as the first one was."""
    from datetime import timedelta

    with desk(as_account) as (requests, actor):
        done = requests.renew(actor, grant, timedelta(days=days), why=why, legal_basis=legal_basis)
        _show(done, as_json=as_json)


def emergency(
    resource: _Resource,
    *,
    requester: Annotated[
        str, typer.Option("--for", metavar="ACCOUNT", help="The account that asked.", show_default=False)
    ],
    field: _Fields,
    rows: _Rows,
    purpose: _Purpose,
    legal_basis: _Basis,
    hours: _Hours = 24,
    data: _Duty = "delete",
    quota_records: _QuotaRecords = None,
    quota_keys: _QuotaKeys = None,
    why: _MustWhy,
    as_account: As,
    as_json: Json = False,
) -> None:
    """Grant a few rows and fields for some hours, at once; the owner reviews it afterwards."""
    from datetime import timedelta

    from govbus_console.control.request_shapes import Ask

    wanted = Ask(
        resource=resource,
        fields=field_rules(field),
        rows=None if rows == "all" else rows,
        purpose=purpose,
        legal_basis=legal_basis,
        term=timedelta(hours=hours),
        data_on_end=_duty(data),
        quota_records_per_day=quota_records or None,
        quota_keys_per_day=quota_keys or None,
    )
    with desk(as_account) as (requests, actor):
        _show(requests.emergency(actor, wanted, requester=requester, why=why), as_json=as_json)


# -- what they share -------------------------------------------------------------------------------


def desk(as_account: str) -> AbstractContextManager[tuple[RequestControl, Account]]:
    """Requests, here or through the API, and the account that acts."""
    from contextlib import contextmanager

    @contextmanager
    def opened() -> Iterator[tuple[RequestControl, Account]]:
        from govbus_console import connect

        with connect.requests(as_account) as found:
            yield found

    return opened()


def field_rules(words: Sequence[str]) -> tuple[FieldRule, ...]:
    """Read ``name`` or ``name=transform``, the transform written as in a catalogue file."""
    import yaml

    from govbus.grant import FieldRule
    from govbus.transform import Keep, parse_transform

    rules = []
    for word in words:
        name, equals, spec = word.partition("=")
        try:
            transform = parse_transform(yaml.safe_load(spec)) if equals else Keep()
        except yaml.YAMLError:
            raise typer.BadParameter(f"the transform of {name} is not YAML", param_hint="--field") from None
        rules.append(FieldRule(name=name.strip(), transform=transform))
    return tuple(rules)


def _duty(word: str) -> DataDuty:
    from govbus.grant import DataDuty

    try:
        return DataDuty(word)
    except ValueError:
        raise typer.BadParameter("write keep, blank or delete", param_hint="--data") from None


def _ground(word: str) -> Ground:
    from govbus.request import Ground

    try:
        return Ground(word)
    except ValueError:
        raise typer.BadParameter(f"write one of {', '.join(Ground)}", param_hint="--ground") from None


def _moment(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat()


def _show(found: Request, history: Sequence[Happened] = (), *, as_json: bool, whole: bool = False) -> None:
    """Show where a request stands; ``whole``: also what is asked for."""
    from govbus.request import FOLLOWED
    from govbus_console.control import request_json
    from govbus_console.render import facts_text, show, table

    data = request_json.show_request(found)
    if history:
        data["history"] = [request_json.show_happened(event) for event in history]
    lines = [f"request {found.id} is {found.state}"]
    if found.grant_version is not None:
        # Until it is provided, an amendment names the version that it was asked of.
        made = "" if found.state in FOLLOWED else "to change "
        lines[0] += f": {made}grant {found.grant_id}, version {found.grant_version}"
    waiting = found.approvals_needed - len(found.approved_by)
    if found.state == "in_review" and found.approved_by:
        lines.append(f"approved by {', '.join(found.approved_by)}; {waiting} more needed")
    if found.matching is not None:
        lines.append(f"{found.matching} rows or more match" if found.matching else "few rows match, or none")
    if found.due_at is not None:
        lines.append(f"due by {found.due_at.isoformat()}")
    if found.review == "due" and found.review_due_at is not None:
        lines.append(f"the owner's review is due by {found.review_due_at.isoformat()}")
    if whole:
        lines.append(facts_text(_asked(found)))
    text = "\n".join(lines)
    if history:
        rows = [(event.at.isoformat(), event.who, event.action, event.after, event.said) for event in history]
        text += "\n" + table("", ("at", "who", "action", "state", "said"), rows)
    show(data, as_json=as_json, text=text)


def _long(term: timedelta) -> str:
    hours = term.seconds // 3600
    return f"{term.days} days" if not hours else f"{term.days * 24 + hours} hours"


def _asked(found: Request) -> list[tuple[str, str]]:
    """What a request asks for, as whoever decides about it has to read it."""
    from govbus_console.render import field_text, quota_text

    ask = found.ask
    return [
        ("asked by", f"{found.requester} for {found.subscriber}"),
        ("resource", ask.resource),
        ("fields", ", ".join(field_text(rule.name, rule.transform.spec()) for rule in ask.fields)),
        ("rows", ask.rows or "all"),
        ("purpose", ask.purpose),
        ("legal basis", ask.legal_basis),
        ("term", f"{_long(ask.term)}, from when it is granted" if ask.term else "the end stays"),
        ("a day", quota_text(ask.quota_records_per_day, ask.quota_keys_per_day)),
        ("landed rows at the end", ask.data_on_end.value),
    ]


def _show_all(found: Sequence[Request], *, as_json: bool) -> None:
    from govbus_console.control import request_json
    from govbus_console.render import show, table

    rows = [
        (r.id, r.kind, r.state, r.subscriber, r.ask.resource, r.ask.purpose, _moment(r.due_at)) for r in found
    ]
    columns = ("id", "kind", "state", "subscriber", "resource", "purpose", "due")
    show(
        {"requests": [request_json.show_request(r) for r in found]},
        as_json=as_json,
        text=table("", columns, rows) if rows else "no requests",
    )


COMMANDS = (amend, renew, emergency)
GROUPS = (request, review)
"""Commands with words of their own."""
