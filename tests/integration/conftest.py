"""A control side of its own for each test that asks, and the command line on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from govbus_console import cli
from support.broker import RunningBus
from support.control import ControlSide


@pytest.fixture
def control(bus: RunningBus, tmp_path: Path) -> Iterator[ControlSide]:
    """A catalogue file that has not been applied yet, of departments that no other test knows."""
    side = ControlSide(bus, tmp_path)
    yield side
    side.close()


@pytest.fixture
def run(
    control: ControlSide, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any]]:
    """Give a command with --json; returns its exit code and what it printed, or its error.

    Of ``tail`` it is a list, with one object for each record.
    """
    for name, value in control.environment().items():
        monkeypatch.setenv(name, value)

    def give(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = cli.run([*words, "--json"])
        shown = capsys.readouterr()
        lines = (shown.out or shown.err).splitlines()
        return code, [json.loads(line) for line in lines] if words[0] == "tail" else json.loads(lines[-1])

    return give
