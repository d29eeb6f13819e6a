"""Routes that cannot exist without saying who may use them.

``@needs(Right.…)`` marks an endpoint; :class:`Guarded`, the only kind of route the
app makes, refuses one without the mark when it is built, and asks the mark
before anything of the request is read.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from govbus.errors import NotAllowedError
from govbus_console.api.access import Reach, Right, reach
from govbus_console.control.roles import Account
from govbus_console.control.tokens import Token

_MARK = "__govbus_right__"
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


Route = tuple[str, str, Callable[..., Any], Any]
"""Method, path behind the version, endpoint, shape of the answer."""


def needs(right: Right) -> Callable[[_Endpoint], _Endpoint]:
    """Mark an endpoint with the right that it needs."""

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _MARK, right)
        return endpoint

    return mark


def right_of(endpoint: Callable[..., Any]) -> Right:
    """The right that an endpoint is marked with.

    Raises:
        TypeError: it is not marked.
    """
    right = getattr(endpoint, _MARK, None)
    if not isinstance(right, Right):
        raise TypeError(f"{getattr(endpoint, '__name__', endpoint)} does not say which right it needs")
    return right


class Guarded(APIRoute):
    """A route that asks for its right first."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.right = right_of(endpoint)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler, behind the question whether the caller may."""
        serve = super().get_route_handler()

        async def handle(request: Request) -> Response:
            # Before the framework reads parameters and body: who may not, learns nothing of them.
            if reach(caller(request), self.right) is Reach.NONE:
                raise NotAllowedError("your role does not allow this")
            return await serve(request)

        return handle


def token(request: Request) -> Token:
    """The token of a request; the gate has checked it.

    Raises:
        NotAllowedError: nobody did, so nothing is allowed.
    """
    found = request.scope.get("state", {}).get("token")
    if not isinstance(found, Token):
        raise NotAllowedError("your role does not allow this")
    return found


def caller(request: Request) -> Account:
    """Whoever sent a request."""
    return token(request).account
