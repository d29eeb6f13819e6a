"""What stands in the way of a removal is named with what to do about it, on either database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from govbus.errors import GrantRefusedError, NotFoundError
from govbus.request import Ground
from govbus_console.control import accounts, apply, lifecycle
from govbus_console.control.bus import Bus
from govbus_console.control.catalogue_file import read_catalogue
from govbus_console.control.plan import Plan, plan
from govbus_console.control.roles import Account, Role
from govbus_console.control.saved_plan import store_digest
from govbus_console.render import REFUSED, exit_code
from support.requesting import HU, LI, MONDAY, WANG, Office, a_store_on, an_ask

BUS = cast(Bus, SimpleNamespace(registry=None, cluster=MagicMock(), broker=None, home=None))

Removing = Callable[[str], Plan]


@pytest.fixture(params=["sqlite", "postgresql"])
def office(
    request: pytest.FixtureRequest, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Office]:
    store = a_store_on(request, filled, tmp_path)
    made = Office(store, monkeypatch)
    for module in (apply, lifecycle):
        monkeypatch.setattr(module, "settle", lambda *_, **__: SimpleNamespace(published=0))
    yield made
    store.close()


@pytest.fixture
def removing(office: Office, tmp_path: Path) -> Removing:
    """Plan a file that removes something, e.g. ``resources: [civil.residents]``."""

    def planned(lines: str) -> Plan:
        file = tmp_path / "remove.yaml"
        file.write_text(f"remove: {{{lines}}}\n", encoding="utf-8")
        return plan(read_catalogue(file), office.store.snapshot(), now=MONDAY)

    return planned


def why_not(removing: Removing, lines: str) -> str:
    with pytest.raises(GrantRefusedError, match="cannot be removed; end first what depends on it: ") as told:
        removing(lines)
    assert exit_code(told.value) == REFUSED
    return str(told.value).partition("depends on it: ")[2]


def carry_out(office: Office, made: Plan) -> None:
    apply._remove(made, office.store, BUS, who="tester", why="a test", now=MONDAY)


def disable_all(office: Office, department: str) -> None:
    for name, of in office.store.snapshot().accounts.items():
        if of == department:
            accounts.disable(office.store, name, who="tester", why="a test", now=MONDAY)


def an_account_is_made(office: Office) -> None:
    made = Account(name="new-health", department="health", roles=frozenset({Role.SUBSCRIBER}))
    accounts.add(office.store, made, who="tester", why="a test", now=MONDAY)


def test_a_resource_stays_while_a_request_for_it_is_open_and_goes_once_it_is_decided(
    office: Office, removing: Removing
) -> None:
    made = office.desk.draft(LI, an_ask()).id
    office.desk.submit(LI, made)
    handed_in = why_not(removing, "resources: [civil.residents]")
    office.desk.take(WANG, made)
    office.desk.ask(WANG, made, "what for?")
    asked = why_not(removing, "resources: [civil.residents]")
    office.desk.reject(WANG, made, Ground.NOT_HELD, "it is given up")

    carry_out(office, removing("resources: [civil.residents]"))

    assert handed_in == f"request {made}, submitted (its owner rejects it, or tax withdraws it)"
    assert asked.startswith(f"request {made}, needs_info (")
    assert "civil.residents" in office.store.snapshot().removed_resources
    assert office.desk.find(LI, made).state == "rejected", "what was asked and said stays on record"


def test_a_resource_stays_while_an_approved_request_waits_to_be_provided(
    office: Office, removing: Removing
) -> None:
    made = office.in_review()
    office.down = RuntimeError("the bus is away")
    with pytest.raises(RuntimeError):
        office.desk.approve(WANG, made)

    told = why_not(removing, "resources: [civil.residents]")

    assert told == f"request {made}, approved (its owner rejects it)"


def test_a_grant_that_holds_is_named_with_how_to_end_it_and_one_that_ended_stands_in_no_way(
    office: Office, removing: Removing
) -> None:
    office.provisioned()
    told = why_not(removing, "resources: [civil.residents]")
    lifecycle.revoke("residents-for-tax", office.store, BUS, who="tester", why="a test", now=office.now)

    carry_out(office, removing("resources: [civil.residents]"))

    assert told == "grant residents-for-tax (govbus revoke residents-for-tax, or name it under remove)"
    assert "civil.residents" in office.store.snapshot().removed_resources


def test_a_department_stays_while_it_asks_and_while_accounts_act_for_it(
    office: Office, removing: Removing
) -> None:
    made = office.in_review()
    told = why_not(removing, "departments: [tax]")
    office.desk.withdraw(LI, made)
    disable_all(office, "tax")

    carry_out(office, removing("departments: [tax]"))

    assert told == (
        f"request {made}, in_review (its owner rejects it, or tax withdraws it), "
        "account hu-tax (govbus account disable hu-tax), account li-tax (govbus account disable li-tax)"
    )
    assert "tax" in office.store.snapshot().removed_departments


def test_nobody_begins_to_act_for_a_department_that_was_removed(office: Office, removing: Removing) -> None:
    disable_all(office, "health")
    carry_out(office, removing("departments: [health]"))
    somebody = Account(name="new-health", department="health", roles=frozenset({Role.SUBSCRIBER}))

    with pytest.raises(NotFoundError, match="no department 'health'"):
        accounts.add(office.store, somebody, who="tester", why="a test", now=MONDAY)


def test_a_draft_keeps_nothing_in_place_and_leads_to_nothing_afterwards(
    office: Office, removing: Removing
) -> None:
    """Only the requester could take it back, so it must not bind the owner."""
    made = office.desk.draft(LI, an_ask()).id

    carry_out(office, removing("resources: [civil.residents]"))

    for step in (office.desk.submit, office.desk.count):
        with pytest.raises(GrantRefusedError, match="not in the catalogue any more; withdraw the request"):
            step(LI, made)
    assert office.desk.withdraw(LI, made).state == "withdrawn"


@pytest.mark.parametrize(
    ("lines", "comes"),
    [
        ("resources: [civil.residents]", lambda office: office.in_review()),
        ("departments: [health]", an_account_is_made),
    ],
)
def test_what_comes_between_the_plan_and_the_removal_stands_in_its_way_too(
    office: Office, removing: Removing, lines: str, comes: Callable[[Office], Any]
) -> None:
    disable_all(office, "health")
    made = removing(lines)
    comes(office)

    with pytest.raises(apply.StalePlanError):
        carry_out(office, made)

    known = office.store.snapshot()
    assert (known.removed_resources, known.removed_departments) == ({}, {})


def test_neither_a_saved_plan_nor_a_grant_under_way_minds_who_asks_for_what(office: Office) -> None:
    before = office.store.snapshot()

    office.in_review()
    accounts.disable(office.store, HU.name, who="tester", why="a test", now=MONDAY)

    after = office.store.snapshot()
    assert after.open_requests
    assert after == before
    assert store_digest(after) == store_digest(before)
