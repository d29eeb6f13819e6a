"""What peers need that govbus does not: fetched and built once per user, kept beside the bus's own artifacts.

A directory in the cache is named for a digest of what it was made from and is
complete if it is there: it is filled aside and renamed. Nothing asks the network
when it is there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from govbus.errors import ConfigurationError
from govbus_console.embedded.artifacts import cache_directory

_HERE = Path(__file__).parent
_QUIX = ("quixstreams==3.28.1", "fastavro>=1.10,<2")


def kafka_streams() -> str:
    """Give the class path of the Kafka Streams peer, compiling it when needed.

    Raises:
        ConfigurationError: Maven or a Java compiler is missing, or one of them failed.
    """
    source, pom = _HERE / "kafka_streams" / "Exchange.java", _HERE / "kafka_streams" / "pom.xml"

    def fill(aside: Path) -> None:
        shutil.copyfile(pom, aside / "pom.xml")  # Maven writes beside the file
        _run(
            "mvn", "--batch-mode", "--quiet", "--strict-checksums", f"--file={aside / 'pom.xml'}",
            "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={aside / 'jars'}",
        )  # fmt: skip
        _run("javac", "-d", str(aside / "classes"), "-cp", f"{aside / 'jars'}/*", str(source))

    place = _kept("bench-kafka-streams", source.read_bytes() + pom.read_bytes(), fill)
    return f"{place / 'classes'}:{place / 'jars'}/*"


def quix_python() -> str:
    """Give the interpreter of the Quix Streams peer, making its virtual environment when needed.

    Raises:
        ConfigurationError: pip failed.
    """
    # Not filled aside: a virtual environment's scripts know where it is. The marker comes last.
    made_from = " ".join((*_QUIX, sys.version)).encode()
    place = cache_directory() / f"bench-quix-{_digest(made_from)}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(place))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_QUIX)
        (place / "complete").touch()
    return str(python)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _kept(name: str, made_from: bytes, fill: Callable[[Path], None]) -> Path:
    place = cache_directory() / f"{name}-{_digest(made_from)}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as scratch:
            aside = Path(scratch) / "made"
            aside.mkdir()
            fill(aside)
            aside.rename(place)
    return place


def _run(program: str, *arguments: str) -> None:
    found = shutil.which(program)
    if found is None:
        raise ConfigurationError(f"the benchmark needs {program}, and it is not on PATH")
    command: Sequence[str] = [found, *arguments]
    outcome = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        said = (outcome.stdout + outcome.stderr).strip().splitlines()
        raise ConfigurationError(f"{os.path.basename(program)} failed: {' '.join(said[-5:])}")
