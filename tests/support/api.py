"""The control API in this process: accounts, tokens, a clock that is turned by hand."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from govbus.catalogue import Department, ShareType
from govbus_console.answers.direct import DirectAnswers
from govbus_console.api.app import create_app
from govbus_console.api.given import Services
from govbus_console.control.direct_catalogue import DirectCatalogue
from govbus_console.control.licence import Licence
from govbus_console.control.request_tables import AccountRow
from govbus_console.control.store import ControlStore
from govbus_console.control.tokens import new_token
from govbus_console.settings import ApiSettings
from support.controls import (
    DEPARTMENTS,
    Shown,
    StillControl,
    StillReceipts,
    an_explanation,
    receptions,
)
from support.requesting import Office, stored_resource

SECRET_CONTRACT: dict[str, Any] = {
    "type": "record",
    "name": "Protected",
    "govbus": {"version": 1, "kind": "state", "key": ["code"]},
    "fields": [
        {"name": "code", "type": "string", "classification": "core"},
        {"name": "born", "type": "string", "classification": "core"},
    ],
}
"""Of ``civil.protected``, which is withheld."""

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
ROLES = ("steward", "subscriber", "operator", "auditor")


@dataclass
class Ticks:
    """Seconds, turned by hand."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Desk:
    """An API with everything around it that a test turns or looks at."""

    store: ControlStore
    office: Office
    """The real service for requests, on a bus that always obeys."""

    control: StillControl = field(default_factory=StillControl)
    receipts: StillReceipts = field(default_factory=StillReceipts)
    ticks: Ticks = field(default_factory=Ticks)
    now: datetime = NOON
    settings: ApiSettings = field(
        default_factory=lambda: ApiSettings(requests_per_second=1e6, request_burst=10**6)
    )
    _tokens: dict[tuple[str, str | None], str] = field(default_factory=dict)

    @cached_property
    def app(self) -> FastAPI:
        """The app over all this."""
        services = Services(
            store=self.store,
            control=self._control,
            answers=self.answers_at_hand,
            receipts=self._receipts,
            catalogue=self.catalogue_at_hand,
            requests=self.office.desk,
            clock=lambda: self.now,
        )
        return create_app(services, self.settings, ticks=self.ticks)

    def client(self, token: str | None = None) -> TestClient:
        """A caller with this token."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)

    def as_role(self, role: str, department: str | None) -> TestClient:
        """A caller with this one role, for this department."""
        return self.client(self.token(role, department))

    def token(self, role: str, department: str | None) -> str:
        """A token of an account that has this one role, or none."""
        made = self._tokens.get((role, department))
        if made is None:
            name = f"{role}-of-{department or 'the-bus'}"
            add_account(self.store, name, department, *([role] if role in ROLES else []))
            made = self.issue(name)
            self._tokens[role, department] = made
        return made

    def issue(self, account: str, *, term: timedelta = timedelta(days=30)) -> str:
        """Another token of an account."""
        issued = new_token(self.store, account, term=term, who="tester", why="a test", now=self.now)
        return issued.secret

    def answers_at_hand(self) -> RowAnswers:
        """What the API asks: the store, and for rows fixed answers."""
        return RowAnswers(
            store=lambda: nullcontext(self.store), bus=self.office.reach, clock=lambda: self.now
        )

    def catalogue_at_hand(self, who: str = "tester", licence: Licence | None = None) -> DirectCatalogue:
        """The same for catalogue files, on a bus that always obeys."""
        store = self.store
        return DirectCatalogue(
            store=lambda: nullcontext(store),
            bus=self.office.reach,
            who=who,
            licence=licence,
            clock=lambda: self.now,
        )

    def _control(self, who: str) -> Any:
        return replace(self.control, who=who)

    def _receipts(self, who: str) -> Any:
        return replace(self.receipts, who=who)


class RowAnswers(DirectAnswers):
    """Answers from the store; what is answered about a row is fixed, since there is no bus."""

    def explain(self, record: str, to: str, *, at: datetime | None = None) -> Shown:
        return an_explanation(record, to, at)

    def who_received(self, record: str) -> Shown:
        return receptions(record)


DATABASES = ("sqlite", "postgresql")


def database_of(request: pytest.FixtureRequest, folder: Path) -> str:
    """The address of an empty database of the kind that a fixture has as its parameter."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'control.db'}"
    return str(request.getfixturevalue("postgres_url"))


def a_store(folder: Path, url: str = "") -> ControlStore:
    """A control store with departments, and three resources of ``civil``; in a file without ``url``."""
    store = ControlStore.open(url or f"sqlite:///{folder / 'control.db'}")
    with store.writing(who="tester", why="a test", now=NOON) as writing:
        for name in DEPARTMENTS:
            writing.department(Department(name=name, title=name.title()))
        writing.resource(stored_resource("residents", ShareType.CONDITIONAL))
        writing.resource(stored_resource("offices", ShareType.UNCONDITIONAL))
        writing.resource(stored_resource("protected", ShareType.WITHHELD, SECRET_CONTRACT))
    return store


def a_desk(store: ControlStore, patch: pytest.MonkeyPatch, **changes: Any) -> Desk:
    """An API over a store."""
    office = Office(store, patch)
    office.now = NOON
    return Desk(store, office, **changes)


def add_account(
    store: ControlStore, name: str, department: str | None, *roles: str, disabled: bool = False
) -> None:
    """Put an account into the store."""
    with store.locked() as session:
        session.add(
            AccountRow(
                name=name,
                department=department,
                **{role: role in roles for role in ROLES},
                disabled=disabled,
                made_at=NOON,
            )
        )
