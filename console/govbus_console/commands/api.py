"""api, token: the control side over HTTP, and who may call it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from govbus_console.commands.options import Json, Who, Why, actor

_Host = Annotated[
    str, typer.Option("--host", help="Address to listen on. Default: GOVBUS_API_HOST, or loopback.")
]
_Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65_535, help="Port; 0: a free one. Default: GOVBUS_API_PORT, or 8088."),
]
_Account = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="Whom the token stands for.", show_default=False)
]
_Days = Annotated[int, typer.Option("--days", min=1, max=366, help="How long it is valid.")]
_TokenId = Annotated[str, typer.Argument(metavar="ID", help="Id of the token.", show_default=False)]


def api(*, host: _Host = "", port: _Port = None, as_json: Json = False) -> None:
    """Serve the control API until SIGTERM or Ctrl-C."""
    import sys

    from govbus import observe
    from govbus.settings import ProcessSettings
    from govbus_console import connect
    from govbus_console.api.serve import serve
    from govbus_console.render import show
    from govbus_console.settings import ApiSettings

    process, settings = ProcessSettings(), ApiSettings()
    given = ({"host": host} if host else {}) | ({"port": port} if port is not None else {})
    observe.setup_logging("api", process.log_level)

    def ready(url: str) -> None:
        show({"url": url}, as_json=as_json, text=f"the control API answers at {url}; Ctrl-C ends it")
        sys.stdout.flush()

    def listening() -> None:
        # Not before: who waits for /health to be well calls the API next.
        observe.serve_metrics(process.metrics_port, process="api", host=process.metrics_host)

    with connect.store() as store:
        serve(settings.model_copy(update=given), store, listening=listening, ready=ready)


token = typer.Typer(
    name="token",
    help="Make, list and revoke tokens of the control API.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@token.command("new")
def new(account: _Account, *, days: _Days = 90, why: Why = "", who: Who = "", as_json: Json = False) -> None:
    """Make a token for an account and print it, this once.

    Nothing else is printed, so that it can be sent into a file. The store
    keeps only its digest.
    """
    from datetime import UTC, datetime

    from govbus_console import connect
    from govbus_console.control.tokens import new_token
    from govbus_console.render import show

    with connect.store() as store:
        issued = new_token(
            store,
            account,
            term=timedelta(days=days),
            who=actor(who),
            why=why or f"token for {account}",
            now=datetime.now(UTC),
        )
    show(issued.token.as_json() | {"token": issued.secret}, as_json=as_json, text=issued.secret)


@token.command("list")
def listed(*, as_json: Json = False) -> None:
    """Show every token that was made: whose, for what, until when."""
    from govbus_console import connect
    from govbus_console.control.tokens import list_tokens
    from govbus_console.render import show, table

    with connect.store() as store:
        found = [known.as_json() for known in list_tokens(store)]
    columns = ("id", "account", "department", "roles", "expires_at", "revoked_at")
    rows = [[", ".join(one[name]) if name == "roles" else one[name] for name in columns] for one in found]
    names = [name.replace("_", " ") for name in columns]
    show({"tokens": found}, as_json=as_json, text=table("", names, rows) if rows else "no tokens were made")


@token.command("revoke")
def revoked(token_id: _TokenId, *, why: Why = "", who: Who = "", as_json: Json = False) -> None:
    """End a token at once. The id is enough, so that a lost one can be revoked."""
    from datetime import UTC, datetime

    from govbus_console import connect
    from govbus_console.control.tokens import revoke_token
    from govbus_console.render import show

    with connect.store() as store:
        ended = revoke_token(store, token_id, who=actor(who), why=why or "revoked", now=datetime.now(UTC))
    text = f"token {ended.id} of {ended.account.name} opens nothing any more"
    show(ended.as_json(), as_json=as_json, text=text)


COMMANDS = (api,)
GROUPS = (token,)
