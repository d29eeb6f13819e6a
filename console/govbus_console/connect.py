"""Find the bus that a command is meant for. Does I/O.

The environment wins: with GOVBUS_BROKER_BOOTSTRAP set, every command uses the
GOVBUS_BROKER_ and GOVBUS_REGISTRY_ variables and nothing else. Without it, the
bus that ``govbus up`` runs in GOVBUS_HOME is meant, and the command uses the
secret file of the user that it needs to be.

With GOVBUS_API_URL set, commands that are written against one of the interfaces of
:mod:`govbus_console.control.interface` ask the API with a token, and need neither the
control database nor a login at the broker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from govbus.errors import BrokerUnavailableError, ConfigurationError
from govbus.settings import BrokerSettings, ProcessSettings, RegistrySettings
from govbus_console.embedded import ADMIN, Home, broker_settings, running
from govbus_console.settings import ApiClientSettings, ControlSettings

if TYPE_CHECKING:
    from govbus_console.api.client import Connection
    from govbus_console.control.bus import Bus
    from govbus_console.control.interface import Answers, Catalogue, Control, Receipts, RequestControl
    from govbus_console.control.roles import Account
    from govbus_console.control.store import ControlStore


def home() -> Home:
    """The home that GOVBUS_HOME names, or ``.govbus`` here."""
    return Home(ProcessSettings().home)


def endpoints(user: str = ADMIN) -> tuple[BrokerSettings, RegistrySettings]:
    """How to reach the bus, as a user.

    Raises:
        BrokerUnavailableError: nothing runs in this home, and the environment names no other bus.
        ConfigurationError: the environment names a bus, and not how to get in.
    """
    if os.environ.get("GOVBUS_BROKER_BOOTSTRAP"):
        return BrokerSettings(), RegistrySettings()
    here = home()
    run = running(here)
    if run is None:
        raise BrokerUnavailableError(
            f"no bus runs in {here.root}, and GOVBUS_BROKER_BOOTSTRAP names no other; "
            "start one with `govbus up`, or set GOVBUS_HOME to where it runs"
        )
    return broker_settings(here, run.endpoints, user), RegistrySettings(url=run.endpoints.registry_url)


@contextmanager
def store() -> Iterator[ControlStore]:
    """The control store, its tables brought up to the present."""
    from govbus_console.control.store import ControlStore

    opened = ControlStore.open(ControlSettings().url_for(home()))
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def bus() -> Iterator[Bus]:
    """The broker and the registry, as the administrator."""
    from govbus_console.control.bus import Bus

    broker, registry = endpoints()
    reached = Bus.at(broker, registry.url, home())
    try:
        yield reached
    finally:
        reached.registry.close()


@contextmanager
def _api() -> Iterator[Connection | None]:
    """The API where GOVBUS_API_URL names one; None: the store and the broker are asked instead."""
    settings = ApiClientSettings()
    if not settings.url:
        yield None
        return
    from govbus_console.api.client import Connection

    with Connection(settings) as connection:
        yield connection


@contextmanager
def control(who: str, account: str = "") -> Iterator[Control]:
    """The control side: the API where GOVBUS_API_URL names one, otherwise the store and the broker.

    With an account it goes as far as the account's roles, by the rules of the API and the code that asks
    them there. Without one, whoever may write the control store may do everything.

    Args:
        who: for the audit, where neither an account nor a token says it.
        account: that acts.

    Raises:
        ConfigurationError: the API is named, and not how to call it.
        NotFoundError, NotAllowedError: the account cannot act, or the token stands for another one.
    """
    with _api() as api:
        if api is not None:
            from govbus_console.api.client import RemoteControl

            if account:
                from govbus_console.api.request_client import RemoteRequests

                RemoteRequests(api).acting(account)
            yield RemoteControl(api)
        else:
            from govbus_console.control.direct import DirectControl
            from govbus_console.status import look

            direct = DirectControl(store=store, bus=bus, look=lambda: look(home()), who=account or who)
            if account:
                from govbus_console.api.desk import Desk
                from govbus_console.control import accounts

                with store() as opened:
                    acting = accounts.acting(opened, account)
                yield Desk(acting, direct)
            else:
                yield direct


@contextmanager
def answers(*, landing: Path | None = None) -> Iterator[Answers]:
    """What is answered about catalogue, grants and rows, from the same two places.

    Args:
        landing: a subscriber's landing file, whose database is looked into as well.

    Raises:
        ConfigurationError: as :func:`control`, and where a landing file is to be looked at from afar.
    """
    if landing is not None and ApiClientSettings().url:
        raise ConfigurationError(
            "a landing file names a database that the API does not reach; leave --landing out, "
            "or GOVBUS_API_URL"
        )
    with _api() as api:
        if api is not None:
            from govbus_console.api.answer_client import RemoteAnswers

            yield RemoteAnswers(api)
        else:
            from govbus_console.answers.direct import DirectAnswers
            from govbus_consumers.config import load_config

            config = None if landing is None else load_config(landing)
            yield DirectAnswers(store=store, bus=bus, landing=config)


@contextmanager
def receipts(who: str) -> Iterator[Receipts]:
    """What departments answered for ended grants; arguments and errors as for :func:`control`."""
    with _api() as api:
        if api is not None:
            from govbus_console.api.receipt_client import RemoteReceipts

            yield RemoteReceipts(api)
        else:
            from govbus_console.control.direct_receipts import DirectReceipts

            yield DirectReceipts(store=store, bus=bus, who=who)


@contextmanager
def catalogue(who: str) -> Iterator[Catalogue]:
    """Planning and applying; arguments and errors as for :func:`control`."""
    with _api() as api:
        if api is not None:
            from govbus_console.api.catalogue_client import RemoteCatalogue

            yield RemoteCatalogue(api)
        else:
            from govbus_console.control.direct_catalogue import DirectCatalogue

            yield DirectCatalogue(store=store, bus=bus, who=who)


@contextmanager
def requests(account: str) -> Iterator[tuple[RequestControl, Account]]:
    """Requests, and the account of this name that acts: through the API, or on the control store.

    Raises:
        NotFoundError, NotAllowedError: the account cannot act, or the token stands for another one.
    """
    with _api() as api:
        if api is not None:
            from govbus_console.api.request_client import RemoteRequests

            remote = RemoteRequests(api)
            yield remote, remote.acting(account)
        else:
            from govbus_console.control import accounts
            from govbus_console.control.requests import Requests

            with store() as opened:
                yield Requests(store=opened, bus=bus), accounts.acting(opened, account)
