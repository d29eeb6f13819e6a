"""What ``govbus grant`` shows: which grants there are, and how one came to be as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from govbus_console import cli, render
from govbus_console.control import held, lifecycle
from govbus_console.control.bus import Bus
from govbus_console.control.request_shapes import Amendment
from govbus_console.control.store import ControlStore
from support.policies import a_grant, published
from support.requesting import LI, QIAN, SUN, WANG, Office, an_ask, keeping

BUS = cast(Bus, SimpleNamespace(registry=None, cluster=MagicMock(), broker=None, home=None))
SENSITIVE = {"fields": keeping("code", phone={"partial": {"head": 3, "tail": 0}})}
TO_TAX, TO_HEALTH, OFFICES = "residents-for-tax", "residents-for-health", "offices-for-health"

Give = Callable[..., Any]


@pytest.fixture
def office(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """Three grants: two by requests that were decided, one that nobody had to decide about."""
    store = ControlStore.open(f"sqlite:///{shutil.copy(filled, tmp_path)}")
    made = Office(store, monkeypatch)
    monkeypatch.setattr(lifecycle, "settle", lambda *_, **__: SimpleNamespace(published=0, barriers=()))
    made.provisioned(**SENSITIVE)
    emergency = an_ask(rows="code = '1'", term=timedelta(hours=5))
    made.desk.emergency(QIAN, emergency, requester=SUN.name, why="a flood")
    asked = made.desk.draft(SUN, an_ask(resource="civil.offices", rows=None))
    made.desk.submit(SUN, asked.id)
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GOVBUS_CONTROL_URL", f"sqlite:///{tmp_path / 'control.db'}")
    yield made
    store.close()


@pytest.fixture
def give(office: Office, capsys: pytest.CaptureFixture[str]) -> Give:
    """Give a command that succeeds; returns what it printed for a script."""

    def given(*words: str) -> Any:
        capsys.readouterr()
        assert cli.run([*words, "--json"]) == render.DONE
        return json.loads(capsys.readouterr().out)

    return given


def change(office: Office, what: Any, *, who: str, why: str, **more: Any) -> None:
    what(TO_TAX, office.store, BUS, who=who, why=why, **more)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), [OFFICES, TO_HEALTH, TO_TAX]),
        (("--owner", "civil"), [OFFICES, TO_HEALTH, TO_TAX]),
        (("--owner", "tax"), []),
        (("--subscriber", "health"), [OFFICES, TO_HEALTH]),
        (("--resource", "civil.residents"), [TO_HEALTH, TO_TAX]),
        (("--resource", "civil.residents", "--subscriber", "tax"), [TO_TAX]),
        (("--state", "suspended"), [TO_TAX]),
        (("--state", "active"), [OFFICES, TO_HEALTH]),
        (("--as", "sun-health"), [OFFICES, TO_HEALTH]),
        (("--as", "li-tax"), [TO_TAX]),
        (("--as", "wang-civil"), [OFFICES, TO_HEALTH, TO_TAX]),
        (("--as", "zhou-audit"), [OFFICES, TO_HEALTH, TO_TAX]),
    ],
)
def test_grants_are_listed_by_whom_of_what_to_whom_in_which_state(
    office: Office, give: Give, words: tuple[str, ...], found: list[str]
) -> None:
    change(office, lifecycle.suspend, who="wang-civil", why="a doubt")

    listed = give("grant", "list", *words)

    assert [one["grant"] for one in listed["grants"]] == found
    assert listed["next"] is None


def test_a_list_is_given_in_pages(give: Give) -> None:
    first = give("grant", "list", "--limit", "2")
    second = give("grant", "list", "--limit", "2", "--after", first["next"])

    assert ([one["grant"] for one in first["grants"]], first["next"]) == ([OFFICES, TO_HEALTH], TO_HEALTH)
    assert ([one["grant"] for one in second["grants"]], second["next"]) == ([TO_TAX], None)


def test_a_state_that_there_is_not_is_no_question(office: Office) -> None:
    assert cli.run(["grant", "list", "--state", "sleeping"]) == render.USAGE


def test_every_version_says_what_changed_who_made_it_why_and_who_approved(office: Office, give: Give) -> None:
    office.now += timedelta(days=1)
    asked = office.desk.amend(WANG, TO_TAX, Amendment(fields=keeping("code", "name")), why="less is enough")
    change(office, lifecycle.suspend, who="qian-ops", why="a doubt")
    change(office, lifecycle.revoke, who="wang-civil", why="agreement ended")

    found = give("grant", "show", TO_TAX)

    versions = found["versions"]
    assert [one["version"] for one in versions] == [1, 2, 3, 4]
    assert [one["state"] for one in versions] == ["active", "active", "suspended", "revoked"]
    assert [one["changes"] for one in versions] == [
        [],
        ["fields: ['code', {'phone': {'partial': {'head': 3, 'tail': 0}}}] → ['code', 'name']"],
        ["state: active → suspended"],
        ["state: suspended → revoked"],
    ]
    assert [(one["who"], one["why"]) for one in versions] == [
        ("govbus", "request r-1: Assessment"),
        ("govbus", f"request {asked.id}: less is enough"),
        ("qian-ops", "a doubt"),
        ("wang-civil", "agreement ended"),
    ]
    assert [one["decided"] for one in versions] == [
        {
            "request": "r-1",
            "kind": "new",
            "requester": LI.name,
            "approved_by": ["wang-civil", "zhao-civil"],
            "granted_by": None,
        },
        {
            "request": asked.id,
            "kind": "amend",
            "requester": WANG.name,
            "approved_by": [],
            "granted_by": None,
        },
        None,
        None,
    ]
    assert (found["grant"]["version"], found["reason"]) == (4, "grant-revoked")
    assert found["receipt"]["status"] == "not answered"


def test_an_emergency_grant_says_who_granted_it(give: Give) -> None:
    (version,) = give("grant", "show", TO_HEALTH)["versions"]

    assert (version["decided"]["kind"], version["decided"]["granted_by"]) == ("emergency", QIAN.name)


def test_an_amendment_that_is_not_decided_yet_is_no_version(office: Office, give: Give) -> None:
    """Until then its request names the version that it was asked of."""
    office.desk.amend(LI, TO_TAX, Amendment(fields=keeping("code", "name")), why="a name is needed")

    (version,) = give("grant", "show", TO_TAX)["versions"]

    assert version["decided"]["request"] == "r-1"


def test_a_bus_that_is_away_is_said_and_hides_nothing(give: Give, capsys: pytest.CaptureFixture[str]) -> None:
    found = give("grant", "show", OFFICES)
    cli.run(["grant", "show", OFFICES])
    shown = " ".join(capsys.readouterr().out.split())  # however wide the terminal is

    assert (found["held"], found["receipt"]) == (None, None)
    assert "unknown: the bus does not answer" in shown
    assert "request r-3 (new) of sun-health" in shown


@pytest.mark.parametrize("account", ["sun-health", "nobody"])
def test_a_grant_that_is_not_one_s_own_is_not_there(office: Office, account: str) -> None:
    assert cli.run(["grant", "show", TO_TAX, "--as", account]) == render.FAILED


@pytest.mark.parametrize("words", [("request", "show"), ("review", "take")])
def test_whoever_decides_reads_what_is_asked_for(
    office: Office, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    """As a person, without --json: nobody should approve what they have not read."""
    made = office.desk.draft(LI, an_ask(**SENSITIVE, quota_keys_per_day=7)).id
    office.desk.submit(LI, made)
    capsys.readouterr()

    assert cli.run([*words, made, "--as", "wang-civil"]) == render.DONE

    shown = capsys.readouterr().out
    for said in (
        "li-tax for tax", "civil.residents", "code, phone (partial head 3 tail 0)", "LIKE '33%'",
        "Assessment", "Tax Collection Law, article 6", "30 days, from when it is granted", "7 keys", "delete",
    ):  # fmt: skip
        assert said in shown


def report(name: str, *, stopping: bool = False, **held_back: str) -> held.WorkerReport:
    said = [{"grant": grant.replace("_", "-"), "reason": reason} for grant, reason in held_back.items()]
    return held.WorkerReport(worker=name, at=MagicMock(), said={"stopping": stopping, "held": said})


def test_what_any_worker_holds_back_is_held_back_and_a_worker_that_ends_holds_nothing() -> None:
    told = [
        report("w-1", tax_firms="quota-used-up"),
        report("w-2", tax_firms="quota-used-up", health_firms="guard-violation"),
        report("w-3", stopping=True, tax_firms="quota-unknown"),
        held.WorkerReport(worker="w-4", at=MagicMock(), said={"stopping": False}),
    ]

    assert held.of(published(a_grant()).grant, told) == ["quota-used-up"]
    assert held.of(published(a_grant(id="other")).grant, told) == []


def test_of_a_shared_topic_the_view_is_held_back() -> None:
    shared = published(a_grant(), shared=True).grant

    assert held.of(shared, [report("w", **{shared.view: "guard-violation"})]) == ["guard-violation"]
