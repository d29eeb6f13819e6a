"""The control API as a process; the command line goes through it with a token alone.

What needs no broker is tested without one; deciding and revoking, on a real bus.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from govbus_console import cli, render
from govbus_console.control.accounts import add
from govbus_console.control.roles import Account, Role
from govbus_console.control.store import ControlStore
from govbus_console.embedded import Children, Endpoints, Home
from govbus_console.embedded.ports import draw
from govbus_console.settings import ApiSettings
from govbus_console.supervise import Supervisor
from govbus_console.uptime import start_api
from support.broker import RunningBus
from support.control import ControlSide
from support.requesting import fill
from support.serving import Served, token_of

SECONDS = 60


@pytest.fixture
def control(bus: RunningBus, tmp_path: Path) -> Iterator[ControlSide]:
    side = ControlSide(bus, tmp_path)
    side.apply()
    yield side
    side.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Served]:
    """Over a store with departments and accounts, and no bus."""
    url = f"sqlite:///{tmp_path / 'control.db'}"
    store = ControlStore.open(url)
    fill(store)
    store.close()
    made = Served(tmp_path, {"GOVBUS_HOME": str(tmp_path / "home"), "GOVBUS_CONTROL_URL": url})
    yield made
    made.close()


@pytest.fixture
def served(control: ControlSide, tmp_path: Path) -> Iterator[Served]:
    """On a real bus."""
    broker = control.bus.broker
    made = Served(
        tmp_path,
        {
            "GOVBUS_HOME": str(control.running.home.root),
            "GOVBUS_BROKER_BOOTSTRAP": broker.bootstrap,
            "GOVBUS_BROKER_USER": "admin",
            "GOVBUS_BROKER_PASSWORD_FILE": str(broker.password_file),
            "GOVBUS_REGISTRY_URL": control.running.registry_url,
            "GOVBUS_CONTROL_URL": f"sqlite:///{control.folder / 'control.db'}",
        },
    )
    yield made
    made.close()


Give = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Give:
    """Give a command as an account, through the API: ``give(served, "li-tax", "request", "list")``."""

    def give(served: Served, account: str, *words: str) -> tuple[int, dict[str, Any]]:
        # No control database, no login at the broker, no home of a bus.
        monkeypatch.setenv("GOVBUS_HOME", str(tmp_path / "elsewhere"))
        monkeypatch.setenv("GOVBUS_API_URL", served.url)
        monkeypatch.setenv("GOVBUS_API_TOKEN_FILE", str(token_of(served, account)))
        monkeypatch.setenv("GOVBUS_ACCOUNT", account)
        capsys.readouterr()
        code = cli.run([*words, "--json"])
        shown = capsys.readouterr()
        return code, json.loads((shown.out or shown.err).splitlines()[-1])

    return give


def asks(resource: str, *fields: str) -> tuple[str, ...]:
    """The words of a request."""
    named = (word for field in fields for word in ("--field", field))
    return (
        "request", "new", resource, *named, "--rows", "all",
        "--purpose", "Local tax", "--legal-basis", "article 6", "--days", "30",
    )  # fmt: skip


def test_a_department_asks_and_is_asked_through_a_process_with_a_token_alone(
    alone: Served, give: Give
) -> None:
    _, asked = give(alone, "li-tax", *asks("civil.residents", "code", "name"))
    _, submitted = give(alone, "li-tax", "request", "submit", asked["id"])
    own, refused = give(alone, "li-tax", "review", "approve", asked["id"])
    _, taken = give(alone, "wang-civil", "review", "take", asked["id"])
    _, questioned = give(alone, "wang-civil", "review", "ask", asked["id"], "what for?")
    _, listed = give(alone, "li-tax", "request", "list", "--state", "needs_info")
    hidden, missing = give(alone, "sun-health", "request", "show", asked["id"])
    status, denied = give(alone, "li-tax", "status")
    _, looked = give(alone, "zhou-audit", "status")

    assert [submitted["state"], taken["state"], questioned["state"]] == [
        "submitted",
        "in_review",
        "needs_info",
    ]
    assert (own, refused["error"]["code"]) == (render.REFUSED, "not-allowed")
    assert [one["id"] for one in listed["requests"]] == [asked["id"]]
    assert (hidden, missing["error"]["code"]) == (render.FAILED, "not-found")
    assert (status, denied["error"]["code"]) == (render.REFUSED, "not-allowed")
    assert looked["running"] is False


def test_what_needs_the_bus_is_decided_on_record_when_the_bus_is_away(alone: Served, give: Give) -> None:
    _, asked = give(alone, "li-tax", *asks("civil.residents", "code", "name"))
    give(alone, "li-tax", "request", "submit", asked["id"])
    give(alone, "wang-civil", "review", "take", asked["id"])

    away, told = give(alone, "wang-civil", "review", "approve", asked["id"])
    _, shown = give(alone, "li-tax", "request", "show", asked["id"])

    assert (away, told["error"]["code"]) == (render.UNREACHABLE, "broker-unavailable")
    assert str(alone.folder) not in json.dumps(told)
    assert (shown["state"], shown["approved_by"]) == ("approved", ["wang-civil"])


def test_the_process_ends_with_0_when_asked_and_its_log_holds_no_token(alone: Served, give: Give) -> None:
    give(alone, "li-tax", "request", "list")
    give(alone, "wang-civil", "revoke", "no-such-grant")

    alone.process.send_signal(signal.SIGTERM)

    assert alone.process.wait(SECONDS) == 0
    log = json.dumps(alone.log())
    assert "metrics served" in log
    assert "Traceback" not in log
    for account in ("li-tax", "wang-civil"):
        assert token_of(alone, account).read_text(encoding="utf-8").strip() not in log


def test_the_process_answers_health_and_metrics(alone: Served) -> None:
    (port,) = [line["port"] for line in alone.log() if line["event"] == "metrics served"]

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SECONDS) as answer:
            return str(answer.read(), "utf-8")

    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{alone.url}/v1/me", timeout=SECONDS)

    assert json.loads(get("/health")) == {"api": "ok"}
    assert 'govbus_api_requests_total{route="none",status="401"} 1.0' in get("/metrics")
    alone.process.send_signal(signal.SIGINT)
    assert alone.process.wait(SECONDS) == 0


def test_an_address_that_is_taken_ends_with_2(alone: Served) -> None:
    port = alone.url.rpartition(":")[2]

    second = subprocess.run(
        [sys.executable, "-m", "govbus_console", "api", "--port", port, "--json"],
        env={**os.environ, **alone.settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )

    assert second.returncode == render.USAGE
    assert "cannot listen" in second.stderr


def test_up_serves_it_beside_its_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that `govbus up --api` starts; the whole of `up` is in test_up.py."""
    monkeypatch.setenv("GOVBUS_API_PORT", str(draw()))
    home, children = Home(tmp_path / "home").create(), Children()
    nowhere = Endpoints(bootstrap="127.0.0.1:1", registry_url="http://127.0.0.1:1/")
    with Supervisor(home, children) as supervisor:
        start_api(supervisor, home, nowhere)

        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{ApiSettings().url}/v1/me", timeout=SECONDS)

        (report,) = supervisor.reports()
        assert (report.name, report.restarts) == ("api", 0)
    children.stop()


def test_its_owner_grants_and_revokes_on_a_real_bus_through_the_api_alone(
    control: ControlSide, served: Served, give: Give
) -> None:
    for name, department, role in (
        ("li-tax", control.tax, Role.SUBSCRIBER),
        ("wang-civil", control.owner, Role.STEWARD),
    ):
        account = Account(name=name, department=department, roles=frozenset({role}))
        add(control.store, account, who="tester", why="a test", now=datetime.now(UTC))

    _, asked = give(served, "li-tax", *asks(f"{control.owner}.residents", "id_number", "name"))
    give(served, "li-tax", "request", "submit", asked["id"])
    give(served, "wang-civil", "review", "take", asked["id"])
    approved, granted = give(served, "wang-civil", "review", "approve", asked["id"])
    foreign, refused = give(served, "li-tax", "revoke", control.health_grant)
    revoked, ended = give(served, "wang-civil", "revoke", granted["grant"], "--why", "agreement ended")

    assert (approved, granted["state"]) == (render.DONE, "provisioned")
    assert (foreign, refused["error"]["code"]) == (render.REFUSED, "not-allowed")
    assert (revoked, ended["state"]) == (render.DONE, "revoked")
    assert ended["barrier_ms"] is not None
    # The bus was told: both versions stand on the policy topic.
    assert [version["state"] for version in control.policy(granted["grant"])] == ["active", "revoked"]
