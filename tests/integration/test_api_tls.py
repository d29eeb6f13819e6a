"""The API behind a certificate of its own: as a process, with real connections and no bus."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from govbus_console import cli, render
from govbus_console.control.store import ControlStore
from support.certificates import Certificates, certificates
from support.requesting import fill
from support.serving import Served, token_of

SECONDS = 30


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path)


def settings(folder: Path, made: Certificates) -> dict[str, str]:
    return {
        "GOVBUS_HOME": str(folder / "home"),
        "GOVBUS_CONTROL_URL": f"sqlite:///{folder / 'control.db'}",
        "GOVBUS_API_CERTIFICATE_FILE": str(made.certificate),
        "GOVBUS_API_KEY_FILE": str(made.key),
    }


@pytest.fixture
def served(tmp_path: Path, made: Certificates) -> Iterator[Served]:
    store = ControlStore.open(f"sqlite:///{tmp_path / 'control.db'}")
    fill(store)
    store.close()
    process = Served(tmp_path, settings(tmp_path, made))
    yield process
    process.close()


def list_requests(
    served: Served,
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    url: str,
    ca: Path | None,
) -> tuple[int, str]:
    """Look at one's requests; gives the exit code and the code of the error, if there is one."""
    patch.setenv("GOVBUS_API_URL", url)
    patch.setenv("GOVBUS_API_TOKEN_FILE", str(token_of(served, "li-tax")))
    patch.setenv("GOVBUS_ACCOUNT", "li-tax")
    if ca is None:
        patch.delenv("GOVBUS_API_CA_FILE", raising=False)
    else:
        patch.setenv("GOVBUS_API_CA_FILE", str(ca))
    capsys.readouterr()
    code = cli.run(["request", "list", "--json"])
    shown = capsys.readouterr()
    return code, json.loads(shown.err)["error"]["code"] if shown.err else ""


def test_a_command_reaches_it_with_the_authority_that_signed_the_certificate(
    served: Served, made: Certificates, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served.url.startswith("https://127.0.0.1:")

    trusted = list_requests(served, monkeypatch, capsys, url=served.url, ca=made.authority)
    unknown = list_requests(served, monkeypatch, capsys, url=served.url, ca=None)
    # The certificate is for the address, and not for the name.
    named = served.url.replace("127.0.0.1", "localhost")
    misnamed = list_requests(served, monkeypatch, capsys, url=named, ca=made.authority)

    assert trusted == (render.DONE, "")
    assert unknown == misnamed == (render.UNREACHABLE, "api-unavailable")


def test_it_does_not_speak_in_the_clear(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = "127.0.0.1", int(served.url.rpartition(":")[2])
    plain = served.url.replace("https:", "http:")

    asked = list_requests(served, monkeypatch, capsys, url=plain, ca=None)
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        connection.sendall(b"GET /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer govbus_x\r\n\r\n")
        try:
            heard = connection.recv(1_000)
        except ConnectionResetError:
            heard = b""

    assert asked == (render.UNREACHABLE, "api-unavailable")
    assert b"HTTP/" not in heard


def test_it_does_not_speak_what_is_older_than_tls_1_2(served: Served, made: Certificates) -> None:
    old = ssl.create_default_context(cafile=made.authority)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    address = ("127.0.0.1", int(served.url.rpartition(":")[2]))

    with (
        socket.create_connection(address, timeout=SECONDS) as connection,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(connection, server_hostname="127.0.0.1")


def test_a_key_that_is_not_the_certificates_ends_with_2(tmp_path: Path, made: Certificates) -> None:
    other = tmp_path / "other"
    other.mkdir()
    wrong = settings(tmp_path, made) | {"GOVBUS_API_KEY_FILE": str(certificates(other).key)}

    ended = subprocess.run(
        [sys.executable, "-m", "govbus_console", "api", "--port", "0", "--json"],
        env={**os.environ, **wrong},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ended.returncode == render.USAGE
    assert "cannot be used together" in ended.stderr
