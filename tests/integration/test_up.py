"""``govbus up`` and ``down``: a bus of its own home, from the command line, twice over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from govbus_console import render
from govbus_console.embedded import Home, stop_running
from govbus_console.embedded.ports import draw
from govbus_console.supervise import read_processes

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(600)]

CATALOGUE = """\
departments:
  - {name: stats, title: Statistics}
  - {name: quzhou, title: Quzhou}
resources:
  - {ref: stats.divisions, title: Divisions, share_type: conditional, contract: divisions.avsc}
grants:
  - {id: quzhou-divisions, subscriber: quzhou, resource: stats.divisions, fields: [code, name],
     rows: "code LIKE '3308%'", purpose: Address register, term_days: 30}
"""
CONTRACT = {
    "type": "record",
    "name": "Division",
    "govbus": {"version": 1, "kind": "state", "key": ["code"]},
    "fields": [
        {"name": "code", "type": "string", "classification": "public"},
        {"name": "name", "type": "string", "classification": "public"},
    ],
}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    stop_running(made, seconds=60)


def govbus(home: Home, *words: str) -> tuple[int, dict[str, Any]]:
    """Give a command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "govbus_console", *words, "--json"],
        env={**os.environ, "GOVBUS_HOME": str(home.root)},
        cwd=home.root.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr
    lines = [line for line in (done.stdout or done.stderr).splitlines() if line.startswith("{")]
    return done.returncode, json.loads(lines[-1])


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def child(home: Home, name: str) -> Any:
    found = read_processes(home)
    assert found is not None
    return next(report for report in found.children if report.name == name)


def test_a_bus_comes_up_heals_goes_down_and_comes_up_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home.root.parent
    (folder / "catalogue.yaml").write_text(CATALOGUE, encoding="utf-8")
    (folder / "divisions.avsc").write_text(json.dumps(CONTRACT), encoding="utf-8")

    up, told = govbus(home, "up", "--detach", "--workers", "1")
    assert up == render.DONE
    assert told["bootstrap"].startswith("127.0.0.1:")

    # Nobody else may have the home.
    second, refused = govbus(home, "up", "--detach")
    assert second == render.USAGE
    assert "another govbus uses the home" in refused["error"]["why"]

    assert govbus(home, "apply", "-f", "catalogue.yaml")[0] == render.DONE
    eventually(lambda: govbus(home, "status")[1]["workers"][0]["grants_offset"] >= 1)

    # A worker that is killed comes back.
    pid = child(home, "worker-1").ref.pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: child(home, "worker-1").ref.pid != pid)
    eventually(
        lambda: (
            {p["name"]: p["state"] for p in govbus(home, "status")[1]["processes"]}["worker-1"] == "running"
        )
    )
    assert child(home, "worker-1").last_exit == -signal.SIGKILL

    revoked, grant = govbus(home, "revoke", "quzhou-divisions")
    assert (revoked, grant["state"]) == (render.DONE, "revoked")

    running = read_processes(home)
    assert running is not None
    down, _ = govbus(home, "down")
    assert down == render.DONE
    assert not running.supervisor.alive()
    assert not any(report.ref.alive() for report in running.children)

    # Everything is still there after another start.
    monkeypatch.setenv("GOVBUS_API_PORT", str(draw()))
    again, served = govbus(home, "up", "--api", "--detach", "--workers", "1")
    assert again == render.DONE
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{served['api']}/v1/me", timeout=30)
    found = govbus(home, "status")[1]
    assert [(g["grant"], g["state"]) for g in found["grants"]] == [("quzhou-divisions", "revoked")]
    applied = govbus(home, "apply", "-f", "catalogue.yaml", "--detailed-exitcode")
    assert (applied[0], applied[1]["published"]) == (render.DONE, 0)
