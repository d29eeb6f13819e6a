"""Endpoints over the catalogue, the grants and the caller itself.

Endpoints translate and do nothing else: a request into a call of the caller's
:class:`~govbus_console.api.desk.Desk`, its answer into a page. They are plain
functions, so the framework runs them on its threads: the store blocks.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import JSONResponse

from govbus.catalogue import ShareType
from govbus.grant import GrantState
from govbus_console.api import shapes
from govbus_console.api.access import Reach, Right, reach
from govbus_console.api.given import (
    Cursor,
    GrantId,
    Limit,
    Name,
    Ref,
    TheDesk,
    TheServices,
    TheToken,
    TokenId,
)
from govbus_console.api.pages import DEFAULT_LIMIT, page
from govbus_console.api.routing import Route, needs
from govbus_console.control.shown import Shown
from govbus_console.control.tokens import list_tokens, revoke_token


@needs(Right.ONESELF)
def description(request: Request) -> JSONResponse:
    """What the API offers, as OpenAPI."""
    return JSONResponse(request.app.openapi())


@needs(Right.ONESELF)
def me(held: TheToken) -> Shown:
    """Who this token stands for, and what that may do."""
    shown = held.as_json()
    return {
        "account": shown["account"],
        "department": shown["department"],
        "roles": shown["roles"],
        "rights": [right.value for right in Right if reach(held.account, right) is not Reach.NONE],
        "token": held.id,
        "expires_at": shown["expires_at"],
    }


@needs(Right.ONESELF)
def tokens(
    held: TheToken, services: TheServices, *, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Shown:
    """The caller's own tokens."""
    own = [known.as_json() for known in list_tokens(services.store, account=held.account.name)]
    own.sort(key=lambda known: str(known["id"]))
    return page(own, name="tokens", key="id", limit=limit, cursor=cursor)


@needs(Right.ONESELF)
def give_up_token(token_id: TokenId, given: shapes.Reason, held: TheToken, services: TheServices) -> Shown:
    """Revoke one of the caller's own tokens, at once and for good."""
    name = held.account.name
    revoked = revoke_token(
        services.store, token_id, account=name, who=name, why=given.why, now=services.clock()
    )
    return revoked.as_json()


@needs(Right.SEE_CATALOGUE)
def departments(desk: TheDesk, *, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Shown:
    """Everybody on the bus."""
    return page(desk.departments(), name="departments", key="department", limit=limit, cursor=cursor)


@needs(Right.SEE_CATALOGUE)
def resources(
    desk: TheDesk,
    *,
    text: Annotated[str, Query(max_length=200, description="Words in name, title or fields.")] = "",
    share_type: ShareType | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Shown:
    """Find catalogue entries."""
    found = desk.resources(text=text, share_type=share_type or "")
    return page(found, name="resources", key="resource", limit=limit, cursor=cursor)


@needs(Right.SEE_CATALOGUE)
def resource(desk: TheDesk, ref: Ref) -> Shown:
    """One catalogue entry."""
    return desk.resource(ref)


@needs(Right.SEE_GRANTS)
def grants(
    desk: TheDesk,
    *,
    owner: Name = None,
    resource: Annotated[str | None, Query(max_length=161, pattern=shapes.REF)] = None,
    subscriber: Name = None,
    state: GrantState | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Shown:
    """Grants that the caller may see: its department's, or all, by role."""
    found = desk.grants(
        owner=owner or "", resource=resource or "", subscriber=subscriber or "", state=state or ""
    )
    return page(found, name="grants", key="grant", limit=limit, cursor=cursor)


@needs(Right.SEE_GRANTS)
def grant(desk: TheDesk, grant_id: GrantId) -> Shown:
    """The newest version of one grant."""
    return desk.grant(grant_id)


@needs(Right.SEE_GRANTS)
def grant_history(desk: TheDesk, grant_id: GrantId) -> Shown:
    """All versions of one grant: what changed, who decided; what holds it back, what was answered for it."""
    return desk.grant_history(grant_id)


@needs(Right.STOP_GRANTS)
def suspend(desk: TheDesk, grant_id: GrantId, given: shapes.Reason) -> Shown:
    """Stop a grant's deliveries for the time being. Answers when nothing more is delivered."""
    return desk.suspend(grant_id, why=given.why)


@needs(Right.STOP_GRANTS)
def resume(desk: TheDesk, grant_id: GrantId, given: shapes.Reason) -> Shown:
    """Let a suspended grant deliver again, with what it missed."""
    return desk.resume(grant_id, why=given.why)


@needs(Right.END_GRANTS)
def revoke(desk: TheDesk, grant_id: GrantId, given: shapes.Revocation) -> Shown:
    """End a grant for good. Answers when nothing more is delivered."""
    return desk.revoke(grant_id, why=given.why, data=given.data, wait_seconds=given.wait_seconds)


@needs(Right.SEE_BUS)
def status(desk: TheDesk) -> Shown:
    """What runs, what is shared with whom, and how far it has got."""
    return desk.status()


ROUTES: tuple[Route, ...] = (
    ("GET", "/openapi.json", description, None),
    ("GET", "/me", me, shapes.Me),
    ("GET", "/tokens", tokens, shapes.Page[shapes.TokenShown]),
    ("POST", "/tokens/{token_id}/revoke", give_up_token, shapes.TokenShown),
    ("GET", "/departments", departments, shapes.Page[shapes.DepartmentShown]),
    ("GET", "/resources", resources, shapes.Page[shapes.ResourceShown]),
    ("GET", "/resources/{ref}", resource, shapes.ResourceShown),
    ("GET", "/grants", grants, shapes.Page[shapes.GrantShown]),
    ("GET", "/grants/{grant_id}", grant, shapes.GrantShown),
    ("GET", "/grants/{grant_id}/history", grant_history, shapes.GrantHistory),
    ("POST", "/grants/{grant_id}/suspend", suspend, shapes.ChangeShown),
    ("POST", "/grants/{grant_id}/resume", resume, shapes.ChangeShown),
    ("POST", "/grants/{grant_id}/revoke", revoke, shapes.ChangeShown),
    ("GET", "/status", status, dict[str, Any]),
)
