"""docs/tasks.md and docs/api.md, typed block by block in an empty directory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from govbus_console.embedded.ports import draw

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.broker, pytest.mark.slow]


def _blocks(page: str) -> list[tuple[str, str]]:
    text = (DOCS / page).read_text(encoding="utf-8")
    # Somebody else may use the port that the page names.
    found = BLOCK.findall(text.replace("8088", str(draw())))
    assert len(found) > 6
    return found


@pytest.mark.parametrize("page", ["tasks.md", "api.md"])
def test_the_page_can_be_typed_as_it_stands(tmp_path: Path, page: str) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GOVBUS_HOME": str(tmp_path / "home"),
    }
    printed = ""
    try:
        for kind, text in _blocks(page):
            if kind == "text":
                assert printed == text
            elif text.startswith("# file: "):
                first, _, rest = text.partition("\n")
                file = tmp_path / first.removeprefix("# file: ")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(rest, encoding="utf-8")
            else:
                assert kind == "sh"
                run = subprocess.run(
                    ["bash", "-euc", text],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=240,
                    check=False,
                )
                assert run.returncode == 0, f"{text}\n{run.stdout}\n{run.stderr}"
                printed = run.stdout
    finally:
        for left in tmp_path.glob("*.pid"):
            try:
                os.kill(int(left.read_text()), signal.SIGTERM)
            except ProcessLookupError:
                pass  # the page ended it
        subprocess.run(
            [sys.executable, "-m", "govbus_console", "down"], cwd=tmp_path, env=environment, check=False
        )
