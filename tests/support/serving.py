"""``govbus api`` as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class Served:
    """``govbus api`` on loopback; it has what its settings give it, its callers a token and nothing else."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.settings = settings
        self._log = (folder / "api.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "govbus_console", "api", "--port", "0", "--json"],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = str(json.loads(self.process.stdout.readline())["url"])

    def log(self) -> list[dict[str, Any]]:
        """What it has logged."""
        lines = (self.folder / "api.log").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.communicate()
        self._log.close()


def token_of(served: Served, account: str) -> Path:
    """A token in a file, made as the operator types it."""
    file = served.folder / f"{account}.token"
    if not file.exists():
        made = subprocess.run(
            [sys.executable, "-m", "govbus_console", "token", "new", account, "--days", "1"],
            env={**os.environ, **served.settings},
            capture_output=True,
            text=True,
            check=True,
        )
        file.write_text(made.stdout, encoding="utf-8")
    return file
