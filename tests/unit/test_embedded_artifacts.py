"""Artifacts are fetched once, whole or not at all, and the errors say what to do."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from govbus.errors import ConfigurationError
from govbus_console.embedded import artifacts
from govbus_console.embedded.artifacts import artifact, cache_directory, deploy_directory
from govbus_console.embedded.java import Java

JAVA = Java(executable=Path("/opt/java/bin/java"), version=17)


def a_maven(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put an ``mvn`` on PATH that notes each call and runs ``script`` with $out as its target."""
    calls = directory / "calls"
    executable = directory / "bin" / "mvn"
    executable.parent.mkdir(parents=True)
    executable.write_text(
        "#!/bin/sh\n"
        f"echo \"$*\" >> '{calls}'\n"
        'for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${word#*=}";; esac; done\n'
        f"{script}\n",
        encoding="utf-8",
    )
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", f"{executable.parent}:/usr/bin:/bin")
    return calls


def test_an_artifact_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = a_maven(tmp_path, monkeypatch, 'mkdir -p "$out" && touch "$out/kafka.jar"')

    first = artifact("kafka", java=JAVA, cache=tmp_path / "cache")
    again = artifact("kafka", java=JAVA, cache=tmp_path / "cache")

    assert first == again
    assert [path.name for path in first.iterdir()] == ["kafka.jar"]
    assert len(calls.read_text(encoding="utf-8").splitlines()) == 1


def test_processes_that_need_an_artifact_at_once_fetch_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = a_maven(tmp_path, monkeypatch, 'sleep 0.3; mkdir -p "$out" && touch "$out/kafka.jar"')

    with ThreadPoolExecutor(max_workers=4) as pool:
        found = set(pool.map(lambda _: artifact("kafka", java=JAVA, cache=tmp_path / "cache"), range(4)))

    assert len(found) == 1
    assert len(calls.read_text(encoding="utf-8").splitlines()) == 1


def test_a_fetch_that_failed_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = 'mkdir -p "$out" && touch "$out/half.jar"; echo "[ERROR] no route to host"; exit 1'
    a_maven(tmp_path / "one", monkeypatch, failing)
    with pytest.raises(ConfigurationError, match="no route to host"):
        artifact("kafka", java=JAVA, cache=tmp_path / "cache")

    a_maven(tmp_path / "two", monkeypatch, 'mkdir -p "$out" && touch "$out/kafka.jar"')
    found = artifact("kafka", java=JAVA, cache=tmp_path / "cache")

    assert [path.name for path in found.iterdir()] == ["kafka.jar"]


def test_a_maven_that_succeeds_with_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_maven(tmp_path, monkeypatch, "true")

    with pytest.raises(ConfigurationError, match="Maven could not fetch kafka"):
        artifact("kafka", java=JAVA, cache=tmp_path / "cache")


def test_without_maven_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match="apt-get install maven"):
        artifact("kafka", java=JAVA, cache=tmp_path / "cache")


def test_what_is_in_the_cache_needs_neither_maven_nor_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_maven(tmp_path, monkeypatch, 'mkdir -p "$out" && touch "$out/kafka.jar"')
    artifact("kafka", java=JAVA, cache=tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))

    assert artifact("kafka", java=JAVA, cache=tmp_path / "cache").is_dir()


def test_an_archive_is_unpacked_in_place_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "registry.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        entry = tarfile.TarInfo("lib/one.jar")
        entry.size = 3
        content.addfile(entry, io.BytesIO(b"jar"))
    a_maven(tmp_path, monkeypatch, f'mkdir -p "$out" && cp \'{archive}\' "$out"')

    found = artifact("registry", java=JAVA, cache=tmp_path / "cache")

    assert [path.relative_to(found).as_posix() for path in found.rglob("*.*")] == ["lib/one.jar"]


def test_an_archive_cannot_write_outside_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "registry.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        content.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    a_maven(tmp_path, monkeypatch, f'mkdir -p "$out" && cp \'{archive}\' "$out"')

    with pytest.raises(ConfigurationError, match="not usable"):
        artifact("registry", java=JAVA, cache=tmp_path / "cache")

    assert not list(tmp_path.rglob("escaped"))


def test_another_pom_is_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_maven(tmp_path, monkeypatch, 'mkdir -p "$out" && touch "$out/kafka.jar"')
    before = artifact("kafka", java=JAVA, cache=tmp_path / "cache")
    deploy = tmp_path / "package" / "deploy" / "kafka"
    deploy.mkdir(parents=True)
    pom = deploy_directory("kafka") / "pom.xml"
    other = pom.read_text(encoding="utf-8") + "<!-- another version -->\n"
    deploy.joinpath("pom.xml").write_text(other, encoding="utf-8")
    monkeypatch.setattr(artifacts, "_PACKAGE", tmp_path / "package")

    after = artifact("kafka", java=JAVA, cache=tmp_path / "cache")

    assert after != before
    assert before.is_dir()


def test_the_cache_is_where_the_xdg_specification_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")

    assert cache_directory({"XDG_CACHE_HOME": "/var/cache/x"}) == Path("/var/cache/x/govbus")
    for unset in ({}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "relative"}):
        assert cache_directory(unset) == Path("/home/someone/.cache/govbus")


def test_an_installed_package_carries_its_own_poms_and_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "govbus_console"
    (package / "deploy" / "kafka").mkdir(parents=True)
    (package / "deploy" / "kafka" / "pom.xml").touch()
    monkeypatch.setattr(artifacts, "_PACKAGE", package)

    assert deploy_directory("kafka") == package / "deploy" / "kafka"
    with pytest.raises(ConfigurationError, match="install govbus again"):
        deploy_directory("registry")
