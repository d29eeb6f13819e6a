"""A PostgreSQL server for tests: from Docker when an engine answers, else from this machine's binaries."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from govbus_console.embedded import Children
from govbus_console.embedded.children import tail
from govbus_console.embedded.ports import LOOPBACK, draw

_IMAGE = "postgres:16-alpine"
_READY_SECONDS = 60.0


class NoPostgresError(Exception):
    """There is no way to run a PostgreSQL server here; the message says what was looked for."""


@contextmanager
def postgres_server(output: Path) -> Iterator[str]:
    """Run a server for as long as the block, and give the address of its ``postgres`` database.

    The address is libpq's (``postgresql://``); SQLAlchemy wants ``postgresql+psycopg://``.
    """
    if _docker_answers():
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer(_IMAGE, username="govbus", dbname="postgres", driver=None) as container:
            yield container.get_connection_url()
    else:
        with _local_server(output) as url:
            yield url


def _docker_answers() -> bool:
    """Ask the engine itself, over the address that the Docker clients would use."""
    kind, _, place = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    try:
        if kind == "unix":
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(3.0)
            address: Any = place
        elif kind == "tcp":
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            connection.settimeout(3.0)
            host, _, port = place.rpartition(":")
            address = (host, int(port))
        else:
            return False
        with connection:
            connection.connect(address)
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except (OSError, ValueError):
        return False


@contextmanager
def _local_server(output: Path) -> Iterator[str]:
    binaries = _binaries()
    # PostgreSQL refuses to run as root, so root runs it as the user that the package made. Not below
    # pytest's directory, which that user cannot enter.
    drop = _dropping_root()
    home = Path(tempfile.mkdtemp(prefix="govbus-postgres-"))
    try:
        if drop:
            shutil.chown(home, "postgres", "postgres")
        data = home / "data"
        made = subprocess.run(
            [
                *drop,
                binaries / "initdb",
                "-D",
                data,
                "-U",
                "govbus",
                "-E",
                "UTF8",
                "--no-locale",
                "--auth=trust",
            ],
            capture_output=True,
            text=True,
            cwd=home,
            check=False,
        )
        if made.returncode != 0:
            raise NoPostgresError(f"initdb failed: {made.stderr.strip()}")
        port = draw()
        children = Children()
        try:
            # "trust" holds for this machine only: the server listens on loopback and in its own directory.
            server = children.start(
                "postgres",
                [
                    *drop,
                    str(binaries / "postgres"),
                    *("-D", str(data), "-p", str(port), "-h", LOOPBACK, "-k", str(home)),
                    # The data is thrown away, so it need not survive a power cut.
                    *("-c", "fsync=off", "-c", "max_connections=50"),
                ],
                output=output,
                directory=home,
            )
            url = f"postgresql://govbus@{LOOPBACK}:{port}/postgres"
            _await(url, output)
            yield url
            # "Fast": does not wait for clients that forgot to leave.
            server.ref.signal(signal.SIGINT)
            server.wait_stopped()
        finally:
            children.stop(seconds=5.0)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _dropping_root() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


def _binaries() -> Path:
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parents[1].name)
    )
    found = [str(path) for path in debian] or [path for path in (shutil.which("initdb"),) if path]
    if not found:
        raise NoPostgresError(
            "no Docker engine answers, and no PostgreSQL server is installed "
            "(Debian: apt-get install postgresql)"
        )
    return Path(found[-1]).parent


def _await(url: str, output: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise NoPostgresError(f"the server did not come up: {tail(output)}") from None
            time.sleep(0.1)
        else:
            return
