"""The control side from afar: the API, with a token. Does I/O.

An answer is given as it came, so that a command shows the same whichever way it
went; an error is raised as the class that has the code, so that the exit code is
the same too.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx2 as httpx

from govbus.errors import BusError, ConfigurationError, FatalError, RefusedError, RetriableError
from govbus.grant import DataDuty
from govbus.settings import read_secret
from govbus_console.api.errors import ApiUnavailableError, TooManyRequestsError
from govbus_console.api.network import is_loopback
from govbus_console.api.pages import LARGEST_LIMIT
from govbus_console.control.shown import Shown
from govbus_console.settings import ApiClientSettings

_ANSWER_SECONDS = 120.0
"""Longer than a revocation barrier takes at worst, and the wait for a receipt after it."""

_CONNECT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 30.0
"""The API's bound, so that an answer comes before anybody gives up waiting for it."""


class Connection:
    """The way to the API. Close it, or use it in ``with``."""

    def __init__(self, settings: ApiClientSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        """Prepare the way; nothing is asked yet.

        Raises:
            ConfigurationError: the URL would show the token to the network, or the token file cannot be read.
        """
        try:
            url = httpx.URL(settings.url.rstrip("/"))
        except httpx.InvalidURL:
            raise ConfigurationError("GOVBUS_API_URL is not a URL") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigurationError("GOVBUS_API_URL must begin with https://, or http:// on this machine")
        if url.scheme == "http" and not is_loopback(url.host):
            raise ConfigurationError(
                "GOVBUS_API_URL must be https: the token would cross the network readably"
            )
        if settings.token_file is None:
            raise ConfigurationError("GOVBUS_API_URL needs GOVBUS_API_TOKEN_FILE")
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {read_secret(settings.token_file)}"},
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            verify=_trust(settings) if url.scheme == "https" else True,
            # A proxy from the environment has no business between two processes of one machine.
            trust_env=not is_loopback(url.host),
            transport=transport,
        )

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._http.close()

    def all(self, path: str, query: Mapping[str, str]) -> list[Shown]:
        """A whole list, page by page."""
        return list(self.pages(path, {name: value for name, value in query.items() if value}))

    def pages(self, path: str, query: Mapping[str, str], *, cursor: str | None = None) -> Iterator[Shown]:
        """The same, as far as it is read."""
        while True:
            place = {} if cursor is None else {"cursor": cursor}
            part = self.ask("GET", path, query={**query, "limit": str(LARGEST_LIMIT), **place})
            yield from part["items"]
            cursor = part["next"]
            if cursor is None:
                return

    def ask(
        self,
        method: str,
        path: str,
        given: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    ) -> Shown:
        """One answer.

        Raises:
            ApiUnavailableError: there is none, or none of the API's.
            BusError: of the class that has the code that was answered.
        """
        try:
            response = self._http.request(method, path, json=given, params=_params(query))
            told = response.json()
        except httpx.HTTPError as error:
            # Its text may name the address and no more; the token stands in no error.
            raise ApiUnavailableError(f"the control API does not answer ({type(error).__name__})") from None
        except ValueError:
            raise ApiUnavailableError("what answers at GOVBUS_API_URL is not the control API") from None
        if not isinstance(told, dict):
            raise ApiUnavailableError("what answers at GOVBUS_API_URL is not the control API")
        if response.is_success:
            return told
        raise _error(response.status_code, told.get("error"), response.headers)


class RemoteControl:
    """:class:`~govbus_console.control.interface.Control` over the API."""

    def __init__(self, connection: Connection) -> None:
        self._to = connection

    def departments(self) -> Sequence[Shown]:
        """Everybody on the bus."""
        return self._to.all("/v1/departments", {})

    def resources(self, *, text: str = "", share_type: str = "") -> Sequence[Shown]:
        """Entries that mention every word of ``text``."""
        return self._to.all("/v1/resources", {"text": text, "share_type": share_type})

    def resource(self, ref: str) -> Shown:
        """One entry."""
        return self._to.ask("GET", f"/v1/resources/{named(ref)}")

    def grants(
        self, *, owner: str = "", resource: str = "", subscriber: str = "", state: str = ""
    ) -> Sequence[Shown]:
        """Those that this token may see."""
        given = {"owner": owner, "resource": resource, "subscriber": subscriber, "state": state}
        return self._to.all("/v1/grants", given)

    def grant(self, grant_id: str) -> Shown:
        """One grant."""
        return self._to.ask("GET", f"/v1/grants/{named(grant_id)}")

    def grant_history(self, grant_id: str) -> Shown:
        """All of one grant."""
        return self._to.ask("GET", f"/v1/grants/{named(grant_id)}/history")

    def suspend(self, grant_id: str, *, why: str) -> Shown:
        """Stop it for the time being."""
        return self._to.ask("POST", f"/v1/grants/{named(grant_id)}/suspend", {"why": why})

    def resume(self, grant_id: str, *, why: str) -> Shown:
        """Let it deliver again."""
        return self._to.ask("POST", f"/v1/grants/{named(grant_id)}/resume", {"why": why})

    def revoke(
        self, grant_id: str, *, why: str, data: DataDuty | None = None, wait_seconds: float = 0.0
    ) -> Shown:
        """End it for good. The API waits no longer than half a minute for the receipt."""
        given: dict[str, Any] = {"why": why, "wait_seconds": min(wait_seconds, LONGEST_WAIT_SECONDS)}
        if data is not None:
            given["data"] = data.value
        return self._to.ask("POST", f"/v1/grants/{named(grant_id)}/revoke", given)

    def status(self) -> Shown:
        """How the bus is doing."""
        return self._to.ask("GET", "/v1/status")


def _error(status: int, told: object, headers: Mapping[str, str]) -> BusError:
    """The error that was answered, as the class that has its code."""
    if not isinstance(told, dict) or not isinstance(told.get("code"), str):
        return ApiUnavailableError("what answers at GOVBUS_API_URL is not the control API")
    code, message = told["code"], str(told.get("message", ""))
    if code == TooManyRequestsError.code:
        return TooManyRequestsError(message, seconds=float(headers.get("Retry-After", "1")))
    kinds = {kind.code: kind for kind in _kinds(BusError) if kind.__init__ is BusError.__init__}
    kind = kinds.get(code)
    if kind is None:
        kind = RefusedError if status < 500 else RetriableError if status == 503 else FatalError  # noqa: PLR2004
    return kind(message)


def _kinds(root: type[BusError]) -> Iterator[type[BusError]]:
    yield root
    for child in root.__subclasses__():
        yield from _kinds(child)


def _params(
    query: Mapping[str, str] | Sequence[tuple[str, str]] | None,
) -> list[tuple[str, str | int | float | bool | None]] | None:
    """A query in the one form that takes a word more than once."""
    if query is None:
        return None
    pairs = query.items() if isinstance(query, Mapping) else query
    return [(word, value) for word, value in pairs]


def named(name: str, *, also: str = "") -> str:
    """A name as part of a path: one that no name can be would lead elsewhere.

    ``also`` are characters that may stand in it beside letters, digits, hyphens and dots.
    """
    if not name or not all(letter.isalnum() or letter in "-." + also for letter in name) or ".." in name:
        raise RefusedError("names are lower-case words joined by hyphens")
    return name


def _trust(settings: ApiClientSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError:
        raise ConfigurationError("GOVBUS_API_CA_FILE cannot be used") from None
