"""Children are kept running, given up when that is hopeless, and listed for whoever asks."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from govbus.errors import FatalError
from govbus_console.embedded import Children, Home
from govbus_console.supervise import State, Supervisor, healthy, read_processes

CHILD = """
import http.server, os, sys
if sys.argv[1] == "end":
    sys.exit(int(sys.argv[2]))
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if sys.argv[1] == "serve" else 503)
        self.end_headers()
    def log_message(self, *_): pass
print("started in", os.environ["GOVBUS_HOME"], flush=True)
http.server.HTTPServer(("127.0.0.1", int(os.environ["GOVBUS_METRICS_PORT"])), Health).serve_forever()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def supervisor(home: Home) -> Iterator[Supervisor]:
    children = Children()
    with Supervisor(home, children, program=[sys.executable, "-c", CHILD]) as made:
        yield made
    children.stop()


def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_child_is_told_its_home_and_its_port_and_waited_for(supervisor: Supervisor, home: Home) -> None:
    port = supervisor.start("worker-1", ["serve"], environment={})

    supervisor.wait_healthy("worker-1")

    assert healthy(port)
    assert str(home.root) in (home.log / "worker-1.log").read_text(encoding="utf-8")
    (target,) = json.loads(home.targets_file.read_text(encoding="utf-8"))
    assert target == {"targets": [f"127.0.0.1:{port}"], "labels": {"process": "worker-1"}}


def test_a_child_that_is_killed_comes_back_on_its_port(supervisor: Supervisor, home: Home) -> None:
    port = supervisor.start("worker-1", ["serve"], environment={})
    supervisor.wait_healthy("worker-1")
    before = supervisor.pid("worker-1")

    os.kill(before, signal.SIGKILL)
    eventually(lambda: supervisor.pid("worker-1") != before)
    supervisor.wait_healthy("worker-1")

    (report,) = supervisor.reports()
    assert (report.state, report.restarts, report.last_exit) == (State.RUNNING, 1, -signal.SIGKILL)
    assert report.port == port
    assert "started" in (home.log / "worker-1.before.log").read_text(encoding="utf-8")


def test_a_child_that_keeps_failing_is_started_ever_more_rarely(supervisor: Supervisor) -> None:
    supervisor.start("worker-1", ["end", "1"], environment={})
    began = time.monotonic()

    eventually(lambda: supervisor.reports()[0].restarts >= 2)

    assert time.monotonic() - began >= 0.5 + 1.0
    assert supervisor.reports()[0].last_exit == 1


def test_a_child_whose_settings_make_no_sense_is_given_up(supervisor: Supervisor, home: Home) -> None:
    supervisor.start("worker-1", ["end", "2"], environment={})

    with pytest.raises(FatalError, match=r"worker-1 has ended for good; see .*worker-1\.log"):
        supervisor.wait_healthy("worker-1")

    time.sleep(1)
    (report,) = supervisor.reports()
    assert (report.state, report.restarts, report.last_exit) == (State.FAILED, 0, 2)
    found = read_processes(home)
    assert found is not None
    assert found.children == (report,)


def test_a_child_that_is_not_well_is_not_waited_for_for_ever(supervisor: Supervisor) -> None:
    supervisor.start("worker-1", ["sicken"], environment={})

    with pytest.raises(FatalError, match="is not well after 1 s"):
        supervisor.wait_healthy("worker-1", seconds=1)


def test_a_child_that_was_stopped_stays_stopped(supervisor: Supervisor) -> None:
    supervisor.start("worker-1", ["serve"], environment={})
    supervisor.wait_healthy("worker-1")

    supervisor.stop("worker-1")

    time.sleep(1)
    (report,) = supervisor.reports()
    assert (report.state, report.restarts, report.last_exit) == (State.STOPPED, 0, -signal.SIGTERM)


def test_two_children_cannot_have_one_name(supervisor: Supervisor) -> None:
    supervisor.start("worker-1", ["serve"], environment={})

    with pytest.raises(ValueError, match="there is a process worker-1 already"):
        supervisor.start("worker-1", ["serve"], environment={})


def test_what_runs_is_listed_until_it_ends(home: Home) -> None:
    children = Children()
    supervisor = Supervisor(home, children, program=[sys.executable, "-c", CHILD])
    supervisor.start("worker-1", ["serve"], environment={})
    starting = read_processes(home)
    supervisor.ready()
    ready = read_processes(home)
    pid = supervisor.pid("worker-1")

    supervisor.close()
    children.stop()

    assert starting is not None
    assert ready is not None
    assert (starting.ready, ready.ready) == (False, True)
    assert [child.ref.pid for child in ready.children] == [pid]
    assert read_processes(home) is None
    assert json.loads(home.targets_file.read_text(encoding="utf-8")) == []


def test_what_a_dead_supervisor_wrote_counts_for_nothing(home: Home) -> None:
    (home.root / "processes.json").write_text(
        json.dumps(
            {"supervisor": {"name": "govbus", "pid": 1, "started": "0"}, "ready": True, "children": []}
        ),
        encoding="utf-8",
    )

    assert read_processes(home) is None


def test_children_that_are_let_go_live_on(home: Home) -> None:
    children = Children(detached=True)
    supervisor = Supervisor(home, children, program=[sys.executable, "-c", CHILD])
    supervisor.start("worker-1", ["serve"], environment={})
    supervisor.wait_healthy("worker-1")

    (child,) = supervisor.let_go()

    assert child.exit_code is None
    child.stop()
