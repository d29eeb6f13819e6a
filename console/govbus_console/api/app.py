"""The app: routes, each with the right that it needs, and nothing that has none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from govbus import __version__
from govbus.errors import BusError
from govbus_console.api import (
    answer_endpoints,
    catalogue_endpoints,
    endpoints,
    request_endpoints,
    shapes,
)
from govbus_console.api.gate import Gate
from govbus_console.api.given import Services
from govbus_console.api.network import Peers, networks
from govbus_console.api.problems import answer, invalid, of_http, status_of
from govbus_console.api.rates import Buckets
from govbus_console.api.routing import Guarded, right_of
from govbus_console.control.tokens import Token, find_token
from govbus_console.settings import ApiSettings

_log = logging.getLogger(__name__)

VERSION = "v1"
_ROUTES = (
    *endpoints.ROUTES,
    *request_endpoints.ROUTES,
    *answer_endpoints.ROUTES,
    *catalogue_endpoints.ROUTES,
)
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": shapes.Problem, "description": words}
    for status, words in (
        (401, "No valid token."),
        (403, "The token's roles do not allow this."),
        (404, "Not there, or not for this caller."),
        (409, "Refused as things are; nothing has changed."),
        (413, "The body is too large."),
        (422, "Not of the form that is described here."),
        (429, "Too often; Retry-After says when to come again."),
        (500, "A fault in govbus."),
        (503, "A dependency is away; Retry-After says when to try again."),
    )
}


def create_app(
    services: Services,
    settings: ApiSettings,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    ticks: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Put the app together.

    Args:
        services: what it works on.
        settings: limits.
        lifespan: runs beside it.
        ticks: seconds on a clock that never goes back, for the rates.

    Raises:
        ConfigurationError: a trusted proxy is no address.
        TypeError: a route does not say which right it needs.
    """
    app = FastAPI(
        title="govbus control API",
        version=__version__,
        # The framework's own pages would be routes without a right, and load scripts from elsewhere.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.services = services
    app.router.route_class = Guarded
    for method, path, endpoint, answers in _ROUTES:
        app.router.add_api_route(
            f"/{VERSION}{path}",
            endpoint,
            methods=[method],
            response_model=answers,
            responses=_PROBLEMS,
            operation_id=endpoint.__name__,
            openapi_extra={"x-govbus-right": right_of(endpoint).value},
        )
    app.add_exception_handler(BusError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(
        Gate,
        find=partial(_find, services),
        tokens=Buckets(per_second=settings.requests_per_second, burst=settings.request_burst, clock=ticks),
        addresses=Buckets(
            per_second=settings.bad_tokens_per_minute / 60, burst=settings.bad_tokens_per_minute, clock=ticks
        ),
        peers=Peers(networks(settings.trusted_proxies), tls=settings.certificate_file is not None),
        body_bytes=settings.body_bytes,
    )
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]  # the framework's documented way
    return app


def _find(services: Services, secret: str) -> Token | None:
    return find_token(services.store, secret, now=services.clock())


def _refused(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, BusError):
        raise error
    if status_of(error) >= 500:
        _log.warning("request not served", extra={"code": error.code, "detail": str(error)})
    return answer(error)


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    return answer(invalid(error.errors()))


def _http(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return of_http(error.status_code, error.headers)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
        app.openapi_schema = made
    return app.openapi_schema
