"""An owner, two subscribers, accounts for them, and requests on a bus that always obeys."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from govbus.catalogue import Department, Resource, ResourceKind, ShareType
from govbus.contract import parse_contract
from govbus.grant import FieldRule
from govbus.transform import Keep, parse_transform
from govbus_console.control import accounts, apply, outbox
from govbus_console.control.bus import Bus
from govbus_console.control.request_shapes import Ask
from govbus_console.control.requests import Requests
from govbus_console.control.roles import Account, Role
from govbus_console.control.store import ControlStore, StoredResource, contract_text
from govbus_console.settings import RequestSettings

# A Monday, 10:00 in China.
MONDAY = datetime(2026, 11, 2, 2, tzinfo=UTC)

CONTRACT: dict[str, Any] = {
    "type": "record",
    "name": "Resident",
    "govbus": {"version": 1, "kind": "state", "key": ["code"]},
    "fields": [
        {"name": "code", "type": "string", "classification": "public"},
        {"name": "name", "type": "string", "classification": "internal"},
        {"name": "phone", "type": "string", "classification": "sensitive"},
    ],
}

LI = Account(name="li-tax", department="tax", roles=frozenset({Role.SUBSCRIBER}))
HU = Account(name="hu-tax", department="tax", roles=frozenset({Role.SUBSCRIBER, Role.STEWARD}))
SUN = Account(name="sun-health", department="health", roles=frozenset({Role.SUBSCRIBER}))
WANG = Account(name="wang-civil", department="civil", roles=frozenset({Role.STEWARD}))
ZHAO = Account(name="zhao-civil", department="civil", roles=frozenset({Role.STEWARD}))
QIAN = Account(name="qian-ops", department=None, roles=frozenset({Role.OPERATOR}))
AUDIT = Account(name="zhou-audit", department=None, roles=frozenset({Role.AUDITOR}))
EVERYBODY = (LI, HU, SUN, WANG, ZHAO, QIAN, AUDIT)


def keeping(*names: str, **transforms: Any) -> tuple[FieldRule, ...]:
    """Rules that keep ``names`` and do something else with others."""
    kept = [FieldRule(name=name, transform=Keep()) for name in names]
    return tuple(
        kept + [FieldRule(name=name, transform=parse_transform(spec)) for name, spec in transforms.items()]
    )


def an_ask(**changes: Any) -> Ask:
    """An ordinary ask for two harmless fields of ``civil.residents``."""
    facts: dict[str, Any] = {
        "resource": "civil.residents",
        "fields": keeping("code", "name"),
        "rows": "code LIKE '33%'",
        "purpose": "Assessment",
        "legal_basis": "Tax Collection Law, article 6",
        "term": timedelta(days=30),
    }
    return Ask(**(facts | changes))


def stored_resource(name: str, share_type: ShareType, contract: dict[str, Any] = CONTRACT) -> StoredResource:
    """A resource of ``civil`` with the contract above."""
    parsed = parse_contract(json.dumps(contract), owner="civil", resource=name)
    return StoredResource(
        resource=Resource(
            owner="civil",
            name=name,
            title=name,
            share_type=share_type,
            kind=ResourceKind.STATE,
            contract_version=parsed.version,
            key=parsed.key,
            partitions=1,
            value_schema_id=1,
            key_schema_id=2,
        ),
        contract=parsed,
        contract_text=contract_text(parsed),
        synthetic=True,
        owner_allows=(),
    )


def fill(store: ControlStore) -> None:
    """Departments, resources and accounts."""
    with store.writing(who="tester", why="a test", now=MONDAY) as writing:
        for name in ("civil", "tax", "health"):
            writing.department(Department(name=name, title=name))
        writing.resource(stored_resource("residents", ShareType.CONDITIONAL))
        writing.resource(stored_resource("offices", ShareType.UNCONDITIONAL))
    for account in EVERYBODY:
        accounts.add(store, account, who="tester", why="a test", now=MONDAY)


def a_filled_store(folder: Path) -> Path:
    """A SQLite file with all of that in it, closed, to be copied."""
    file = folder / "control.db"
    store = ControlStore.open(f"sqlite:///{file}")
    fill(store)
    store.close()
    return file


def a_store_on(request: pytest.FixtureRequest, filled: Path, folder: Path) -> ControlStore:
    """A store filled like that, on the database that a fixture's parameter names: sqlite or postgresql."""
    if request.param == "sqlite":
        return ControlStore.open(f"sqlite:///{shutil.copy(filled, folder)}")
    store = ControlStore.open(request.getfixturevalue("postgres_url"))
    fill(store)
    return store


class Office:
    """Requests on a store of their own, a clock that is set by hand, and a bus that always obeys."""

    def __init__(self, store: ControlStore, patch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.now = MONDAY
        self.reached = 0
        self.down: Exception | None = None
        for name in ("set_up", "_departments"):
            patch.setattr(apply, name, lambda *_, **__: None)
        patch.setattr(apply, "settle", lambda *_, **__: outbox.Settled(published=0))
        patch.setattr(apply, "register", self._register)
        self._schemas: list[str] = []
        bus = cast(Bus, SimpleNamespace(registry=None, cluster=MagicMock(), broker=None, home=None))

        def reach() -> Any:
            if self.down is not None:
                raise self.down
            self.reached += 1
            return nullcontext(bus)

        self.reach = reach
        self.desk = Requests(store=store, bus=reach, rules=RequestSettings(), clock=lambda: self.now)

    def _register(self, _registry: object, subject: str, raw: object, *_: object) -> int:
        self._schemas.append(subject)
        return 100 + len(self._schemas)

    def in_review(self, **changes: Any) -> str:
        """A request of Li's that Wang has taken; its id."""
        made = self.desk.draft(LI, an_ask(**changes))
        self.desk.submit(LI, made.id)
        self.desk.take(WANG, made.id)
        return made.id

    def provisioned(self, **changes: Any) -> str:
        """A request of Li's that was approved by as many as it takes; its id."""
        made = self.in_review(**changes)
        if self.desk.approve(WANG, made).state == "in_review":
            self.desk.approve(ZHAO, made)
        return made
