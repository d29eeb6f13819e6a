"""The first and the last thing that a request meets: token, rate, size, headers, metrics. Does I/O.

In this order, and before a route is looked for, so that who has no token learns
nothing, not even which addresses exist:

1. Who calls is worked out (:mod:`.network`); an address that has sent too many bad tokens waits.
2. The token is looked up in the store, for every request: revoked is revoked.
3. A token that asks too often waits.
4. The body is read, as much as may be and as long as it may take.

Whatever goes wrong behind the gate ends here in one shape, and every answer gets
the same headers. There are no CORS headers: no web page of another origin has
any business here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from govbus import observe
from govbus.errors import BusError
from govbus_console.api.errors import TooLargeError, TooManyRequestsError, UnknownTokenError
from govbus_console.api.network import Peers
from govbus_console.api.problems import answer, internal
from govbus_console.api.rates import Buckets
from govbus_console.control.tokens import Token

_log = logging.getLogger(__name__)

_BODY_SECONDS = 10.0
"""A caller that sends its few kilobytes slower than this holds a connection for nothing."""

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer. Browsers heed Strict-Transport-Security only where it came over TLS."""


class Gate:
    """ASGI middleware around the whole app."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        find: Callable[[str], Token | None],
        tokens: Buckets,
        addresses: Buckets,
        peers: Peers,
        body_bytes: int,
    ) -> None:
        """Put the gate in front of ``app``.

        Args:
            app: what stands behind it.
            find: the valid token that a secret is; may block, and may raise what the store raises.
            tokens: how often each token may ask.
            addresses: how often each address may send a bad token.
            peers: knows whose word about a caller's address is believed.
            body_bytes: how large a request's body may be.
        """
        self._app = app
        self._find = find
        self._tokens = tokens
        self._addresses = addresses
        self._peers = peers
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            # Anything else (a websocket) is left unanswered, which closes it.
            return
        began = time.monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            await self._serve(scope, receive, send_with_headers)
        except Exception as error:
            if not isinstance(error, BusError):
                _log.error("request failed", exc_info=error)
            if status:
                # Half an answer is out; the server cuts the connection.
                raise
            await _answer(error)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            observe.api_requests.labels(route, str(status)).inc()
            observe.api_seconds.labels(route).observe(time.monotonic() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = await self._admit(scope)
        scope.setdefault("state", {})["token"] = found
        body = await self._body(scope, receive)
        given = False

        async def receive_body() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_body, send)

    async def _admit(self, scope: Scope) -> Token:
        client, headers = scope.get("client"), Headers(scope=scope)
        address = self._peers.caller(client[0] if client else None, headers.getlist("x-forwarded-for"))
        seconds = self._addresses.wait(address)
        if seconds:
            raise TooManyRequestsError("too many bad tokens came from this address", seconds=seconds)
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        known = scheme.casefold() == "bearer" and secret != ""
        found = await run_in_threadpool(self._find, secret.strip()) if known else None
        if found is None:
            self._addresses.take(address)
            raise UnknownTokenError("this needs a valid token")
        seconds = self._tokens.take(found.id)
        if seconds:
            raise TooManyRequestsError("this token asks too often", seconds=seconds)
        return found

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > self._body_bytes:
            raise TooLargeError(f"the body may have at most {self._body_bytes} bytes")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while True:
                    message = await receive()
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self._body_bytes:
                        raise TooLargeError(f"the body may have at most {self._body_bytes} bytes")
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise TooLargeError("the body did not arrive in time") from None


def _answer(error: Exception) -> Response:
    return answer(error) if isinstance(error, BusError) else internal()
