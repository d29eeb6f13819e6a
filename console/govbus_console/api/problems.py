"""Whatever went wrong, in one shape: ``{"error": {"code", "message", "fix"?}}``.

1. Every answer that is not a success has this shape: refused, not found, called
   wrongly, too large, too often, broken.
2. A message never quotes what a record says, or a secret; of what was sent, a
   refusal may name a field or quote the caller's own row filter back to it. What the
   caller cannot act on (5xx) is told by its code alone; the log has the rest.
3. 422 means that the request is not of the form that the API describes; what is of
   that form and refused by a rule of the bus is 409.
4. The code is the one that the command line shows for the same error, so that a
   script need not know which of the two it talks to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse

from govbus.errors import (
    BusError,
    FencedError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    RetriableError,
)
from govbus_console.api.errors import (
    InvalidRequestError,
    TooLargeError,
    TooManyRequestsError,
    UnknownTokenError,
)

RETRY_SECONDS = 5
"""After so long it is worth trying again what a dependency that is away has stopped."""


_STATUSES: tuple[tuple[type[BusError], int], ...] = (
    (UnknownTokenError, 401),
    (NotAllowedError, 403),
    (NotFoundError, 404),
    (TooLargeError, 413),
    (InvalidRequestError, 422),
    (RefusedError, 409),
    (TooManyRequestsError, 429),
    (RetriableError, 503),
    # Another process was faster at telling Kafka; the same again will do.
    (FencedError, 503),
)
"""First that fits; anything else is 500."""

_OF_HTTP = {
    400: InvalidRequestError("the request cannot be read"),
    404: NotFoundError("there is nothing at this address"),
    413: TooLargeError("the request is too large"),
}


def status_of(error: BusError) -> int:
    """The HTTP status that an error is answered with."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def answer(error: BusError) -> JSONResponse:
    """An error as a response."""
    status = status_of(error)
    told = {"code": error.code, "message": str(error)}
    if status >= 500:  # noqa: PLR2004  server errors, in HTTP's own numbering
        told["message"] = "the control side cannot do this now; its log says why"
    elif error.fix:
        told["fix"] = error.fix
    headers = {}
    if isinstance(error, UnknownTokenError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(max(1, round(error.seconds + 0.5)))
    elif status == 503:  # noqa: PLR2004
        headers["Retry-After"] = str(RETRY_SECONDS)
    return JSONResponse({"error": told}, status_code=status, headers=headers)


def internal() -> JSONResponse:
    """A fault of the API's own: nothing of it is told."""
    message = "a fault in govbus itself; its log says where"
    return JSONResponse({"error": {"code": "internal", "message": message}}, status_code=500)


def of_http(status: int, headers: Mapping[str, str] | None) -> JSONResponse:
    """What the framework answers by itself, in our shape."""
    if status == 405:  # noqa: PLR2004
        error: BusError = InvalidRequestError("this address does not take this method")
    else:
        error = _OF_HTTP.get(status, InvalidRequestError("the request cannot be served"))
    told = {"code": error.code, "message": str(error), "fix": error.fix}
    return JSONResponse({"error": told}, status_code=status, headers=dict(headers or {}))


def invalid(faults: Iterable[Mapping[str, Any]]) -> InvalidRequestError:
    """Where a request differs from its description, and how; never what was sent there."""
    told = sorted({f"{_where(fault)}: {fault['msg']}" for fault in faults})
    return InvalidRequestError("\n".join(told[:20]))


def _where(fault: Mapping[str, Any]) -> str:
    """The place by the names that the API gave it; a name that the caller made up is not repeated."""
    place = list(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        place[-1] = "(a name that is not known)"
    return ".".join(place)
