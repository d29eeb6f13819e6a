"""``govbus api``: the control API as a process. Does I/O.

It holds the administrator's login at the broker and the control database, so it
listens on loopback unless told otherwise, and on a network only where the tokens
that come to it are not readable on the way.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime

import uvicorn
from fastapi import FastAPI

from govbus import observe
from govbus.errors import ConfigurationError
from govbus_console import connect
from govbus_console.answers.direct import DirectAnswers
from govbus_console.api.app import create_app
from govbus_console.api.given import Services
from govbus_console.api.network import is_loopback
from govbus_console.control.direct import DirectControl
from govbus_console.control.direct_catalogue import DirectCatalogue
from govbus_console.control.direct_receipts import DirectReceipts
from govbus_console.control.requests import Requests
from govbus_console.control.store import ControlStore
from govbus_console.settings import ApiSettings
from govbus_console.status import look

_STOP_SECONDS = 30
"""Longer than a revocation takes at worst, so that one under way is answered before the process ends."""

_BEAT_SECONDS = 1.0


def serve(
    settings: ApiSettings,
    store: ControlStore,
    *,
    listening: Callable[[], object],
    ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests under way are answered first.

    Args:
        settings: where, how, how much.
        store: of record.
        listening: called when callers can connect; they are answered a moment later.
        ready: told the address once it can be called.

    Raises:
        ConfigurationError: the address is taken or not safe, or the certificate cannot be used.
    """
    _must_be_private(settings)
    listener = _listen(settings)
    with listener:
        listening()
        taken = settings.model_copy(update={"port": listener.getsockname()[1]})
        services = Services(
            store=store,
            control=lambda who: DirectControl(
                store=lambda: nullcontext(store),
                bus=connect.bus,
                look=lambda: look(connect.home()),
                who=who,
            ),
            answers=lambda: DirectAnswers(store=lambda: nullcontext(store), bus=connect.bus),
            receipts=lambda who: DirectReceipts(store=lambda: nullcontext(store), bus=connect.bus, who=who),
            catalogue=lambda who, licence: DirectCatalogue(
                store=lambda: nullcontext(store), bus=connect.bus, who=who, licence=licence
            ),
            requests=Requests(store=store, bus=connect.bus),
            clock=lambda: datetime.now(UTC),
        )
        app = create_app(services, settings, lifespan=_alive(lambda: ready(taken.url)))
        config = uvicorn.Config(
            app,
            # The bus's own logging; an access log would hold addresses and query strings.
            log_config=None,
            access_log=False,
            server_header=False,
            # The gate asks whose word about a caller counts.
            proxy_headers=False,
            ssl_certfile=settings.certificate_file,
            ssl_keyfile=settings.key_file,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        try:
            config.load()
        except OSError:
            raise ConfigurationError(
                "GOVBUS_API_CERTIFICATE_FILE and GOVBUS_API_KEY_FILE cannot be used together"
            ) from None
        _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends with exit code 0 when it is asked to; the original raises the signal once more."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, _number: int, _frame: object) -> None:
        self.should_exit = True


def _alive(ready: Callable[[], None]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # On the loop that answers requests: when that hangs, /health says so.
        beating = asyncio.create_task(_beat())
        asyncio.get_running_loop().call_soon(ready)
        try:
            yield
        finally:
            beating.cancel()

    return lifespan


async def _beat() -> None:
    while True:
        observe.heartbeat("api")
        await asyncio.sleep(_BEAT_SECONDS)


def _must_be_private(settings: ApiSettings) -> None:
    if (settings.certificate_file is None) != (settings.key_file is None):
        raise ConfigurationError("GOVBUS_API_CERTIFICATE_FILE and GOVBUS_API_KEY_FILE go together")
    if settings.certificate_file or settings.trusted_proxies or is_loopback(settings.host):
        return
    raise ConfigurationError(
        f"tokens would cross the network readably on {settings.host}; set GOVBUS_API_CERTIFICATE_FILE "
        "and GOVBUS_API_KEY_FILE, or GOVBUS_API_TRUSTED_PROXIES where a proxy speaks TLS"
    )


def _listen(settings: ApiSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}"
        ) from None
