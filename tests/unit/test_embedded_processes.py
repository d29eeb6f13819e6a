"""Processes are told apart for certain, ended politely first, and never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from govbus_console.embedded.children import Children, tail
from govbus_console.embedded.processes import ProcessRef, stop_all

PATIENT = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + PATIENT


def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def python(program: str) -> list[str]:
    return [sys.executable, "-I", "-c", program]


class TestReferences:
    def test_a_reference_knows_its_process_while_it_lives(self) -> None:
        me = ProcessRef.of("tests", os.getpid())

        assert me.alive()
        assert ProcessRef.from_json(me.as_json()) == me

    def test_a_process_id_that_was_given_out_again_is_another_process(self) -> None:
        """Signalled, it would end a stranger."""
        earlier = ProcessRef(name="kafka", pid=os.getpid(), started="1")

        assert not earlier.alive()
        assert earlier.signal(signal.SIGKILL) is False

    def test_a_process_that_nobody_has_waited_for_is_not_alive(self) -> None:
        process = subprocess.Popen(python("pass"))
        reference = ProcessRef.of("zombie", process.pid)

        eventually(lambda: not reference.alive())

        process.wait()

    def test_a_process_that_does_not_listen_is_killed_when_its_time_is_up(self, tmp_path: Path) -> None:
        children = Children(detached=True)
        child = children.start("stubborn", python(STUBBORN), output=tmp_path / "out")
        eventually(lambda: child.tail() == "up")

        stop_all([child.ref], seconds=0.3)

        child.wait_stopped()
        assert child.exit_code == -signal.SIGKILL


class TestChildren:
    def test_stopping_ends_all_children_and_asks_first(self, tmp_path: Path) -> None:
        children = Children()
        two = [children.start(name, python(PATIENT), output=tmp_path / name) for name in ("a", "b")]

        children.stop()

        assert [child.exit_code for child in two] == [-signal.SIGTERM, -signal.SIGTERM]

    def test_a_child_that_does_not_listen_is_killed(self, tmp_path: Path) -> None:
        children = Children()
        child = children.start("stubborn", python(STUBBORN), output=tmp_path / "out")
        eventually(lambda: child.tail() == "up")

        children.stop(seconds=0.3)

        assert child.exit_code == -signal.SIGKILL

    def test_nothing_is_started_once_stopping_has_begun(self, tmp_path: Path) -> None:
        """A start that was still under way in another thread would leave an orphan."""
        children = Children()
        children.stop()

        with pytest.raises(RuntimeError, match="being stopped"):
            children.start("late", python(PATIENT), output=tmp_path / "out")

    def test_a_child_has_a_session_of_its_own_so_that_ctrl_c_passes_it_by(self, tmp_path: Path) -> None:
        children = Children()
        child = children.start("child", python(PATIENT), output=tmp_path / "out")

        sessions = os.getsid(child.pid), os.getsid(0)
        children.stop()

        assert sessions[0] == child.pid != sessions[1]

    def test_a_program_that_is_not_there_is_an_error_and_no_child(self, tmp_path: Path) -> None:
        children = Children()

        with pytest.raises(FileNotFoundError):
            children.start("nothing", [str(tmp_path / "absent")], output=tmp_path / "out")

        children.stop()

    @pytest.mark.parametrize("detached", [False, True])
    def test_when_the_parent_is_killed_its_children_end_unless_detached(
        self, tmp_path: Path, detached: bool
    ) -> None:
        """They are started from a thread that ends, as the bus does it: that alone must not end them."""
        program = (
            "import sys, threading, time\n"
            "from pathlib import Path\n"
            "from govbus_console.embedded.children import Children\n"
            f"children = Children(detached={detached})\n"
            "def start():\n"
            "    command = [sys.executable, '-I', '-c', 'import time; time.sleep(600)']\n"
            "    print(children.start('c', command, output=Path(sys.argv[1])).pid, flush=True)\n"
            "thread = threading.Thread(target=start); thread.start(); thread.join()\n"
            "time.sleep(600)\n"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        with parent.stdout:
            child = ProcessRef.of("child", int(parent.stdout.readline()))
        time.sleep(0.3)
        assert child.alive()

        parent.kill()
        parent.wait()

        if detached:
            time.sleep(0.5)
            assert child.alive()
            stop_all([child])
        eventually(lambda: not child.alive())


def test_the_tail_of_a_large_file_is_its_end_and_of_no_file_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\n" + "x\n" * 10_000 + "last\n", encoding="utf-8")

    end = tail(tmp_path / "log")

    assert end.endswith("last")
    assert "first" not in end
    assert tail(tmp_path / "absent") == ""
