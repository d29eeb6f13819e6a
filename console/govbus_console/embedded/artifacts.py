"""Fetch the broker and the registry once for each user, exactly as their poms pin them.

Maven reads a pinned pom and copies the artifacts; this module keeps the result in
``$XDG_CACHE_HOME/govbus/<name>-<digest of the pom>`` (default ``~/.cache``). Promises:

1. A directory under that name is complete: it is filled aside and renamed.
2. Two processes that need it at once fetch it once: the second waits.
3. When it is there, nothing asks the network, and Maven need not be installed.
4. A changed pom is another directory; nothing is ever updated in place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from govbus.errors import ConfigurationError
from govbus_console.embedded.java import Java

_FETCH_SECONDS = 1_800.0
_PACKAGE = Path(__file__).parents[1]


def deploy_directory(part: str) -> Path:
    """Locate ``deploy/<part>``: inside the installed package, or at the root of a checkout."""
    for parent in (_PACKAGE, _PACKAGE.parents[1]):
        directory = parent / "deploy" / part
        if (directory / "pom.xml").is_file():
            return directory
    raise ConfigurationError(f"deploy/{part} is missing from this installation; install govbus again")


def cache_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where fetched artifacts are kept, shared by every bus of this user."""
    variables = os.environ if environment is None else environment
    # An empty or relative value counts as unset: XDG Base Directory Specification 0.8.
    configured = Path(variables.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "govbus"


def artifact(part: str, *, java: Java, cache: Path | None = None) -> Path:
    """Give the directory with everything that ``deploy/<part>/pom.xml`` names, fetching it when needed.

    Archives among the artifacts are unpacked in place of themselves.

    Raises:
        ConfigurationError: it is not there and cannot be fetched; the message says what to do.
    """
    pom = deploy_directory(part) / "pom.xml"
    place = cache_directory() if cache is None else cache
    wanted = place / f"{part}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}"
    if wanted.is_dir():
        return wanted
    try:
        place.mkdir(parents=True, exist_ok=True)
        with (place / f"{wanted.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not wanted.is_dir():
                _fill(wanted, pom, java)
    except OSError as error:
        raise ConfigurationError(f"cannot keep {part} below {place}: {error.strerror or error}") from None
    except tarfile.TarError as error:
        raise ConfigurationError(
            f"the archive that Maven fetched for {part} is not usable ({error}); "
            "remove it from ~/.m2/repository and start again"
        ) from None
    return wanted


def _fill(wanted: Path, pom: Path, java: Java) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{wanted.name}.", dir=wanted.parent) as scratch:
        aside = Path(scratch) / "artifacts"
        _run_maven(pom, aside, java)
        for archive in aside.glob("*.tar.gz"):
            with tarfile.open(archive) as content:
                content.extractall(aside, filter="data")
            archive.unlink()
        aside.rename(wanted)


def _run_maven(pom: Path, target: Path, java: Java) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigurationError(
            f"Maven (mvn) is not on PATH, and {pom.parent.name} has not been fetched yet; "
            "install Maven (Debian: apt-get install maven) and start again"
        )
    # A copy of the pom: the installed package may be read-only, and Maven writes beside the file.
    project = target.with_name("pom.xml")
    shutil.copyfile(pom, project)
    try:
        outcome = subprocess.run(  # noqa: S603  a fixed command on files of this package
            [
                maven,
                "--batch-mode",
                "--quiet",
                "--strict-checksums",
                f"--file={project}",
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
                f"-DoutputDirectory={target}",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            env={"JAVA_HOME": str(java.home), **os.environ},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"Maven did not fetch {pom.parent.name} within {_FETCH_SECONDS / 60:.0f} minutes; "
            "check the network or ~/.m2/settings.xml and start again"
        ) from None
    if outcome.returncode != 0 or not any(target.glob("*")):
        said = [line for line in outcome.stdout.splitlines() if line.startswith("[ERROR]")]
        raise ConfigurationError(
            f"Maven could not fetch {pom.parent.name} (exit code {outcome.returncode}); check the network, "
            f"or set a mirror or proxy in ~/.m2/settings.xml. Maven said: {' '.join(said[:3]) or 'nothing'}"
        )
