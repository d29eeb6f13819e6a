"""Ports that stay, configuration that Java reads back, and a broker closed to strangers by its settings."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govbus.errors import BrokerUnavailableError, ConfigurationError
from govbus_console.embedded import ports
from govbus_console.embedded.artifacts import deploy_directory
from govbus_console.embedded.home import Home
from govbus_console.embedded.kafka import EmbeddedKafka, properties_value, wait_for_broker


def read_properties(text: str) -> str:
    r"""Undo ``\uXXXX`` as ``java.util.Properties`` does: one UTF-16 unit at a time."""
    units = b""
    rest = text
    while rest:
        if rest.startswith("\\u"):
            units += bytes.fromhex(rest[2:6])
            rest = rest[6:]
        else:
            units += rest[0].encode("utf-16-be")
            rest = rest[1:]
    return units.decode("utf-16-be")


@given(st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"])))
def test_any_path_survives_a_properties_file(text: str) -> None:
    written = properties_value(text)

    assert written.isascii()
    assert "\n" not in written
    assert read_properties(written) == text


def test_ports_stay_the_same_and_differ_from_each_other(tmp_path: Path) -> None:
    first = ports.kept(tmp_path / "ports.json", ("client", "controller"))

    again = ports.kept(tmp_path / "ports.json", ("client", "controller"))

    assert again == first
    assert len(set(first.values())) == 2


def test_a_port_that_somebody_took_is_drawn_again_and_the_other_stays(tmp_path: Path) -> None:
    first = ports.kept(tmp_path / "ports.json", ("client", "controller"))

    with socket.create_server((ports.LOOPBACK, first["client"])):
        again = ports.kept(tmp_path / "ports.json", ("client", "controller"))

    assert again["client"] != first["client"]
    assert again["controller"] == first["controller"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"http": "x"}', '{"http": null}'])
def test_a_broken_file_of_ports_is_written_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text, encoding="utf-8")

    kept = ports.kept(tmp_path / "ports.json", ("http",))

    assert ports.is_free(kept["http"])


def test_every_listener_of_the_broker_needs_a_password_and_loopback() -> None:
    text = (deploy_directory("kafka") / "server.properties").read_text(encoding="utf-8")
    settings = dict(
        line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#") and "=" in line
    )

    listeners = [address.split("://") for address in settings["listeners"].split(",")]
    protocols = dict(pair.split(":") for pair in settings["listener.security.protocol.map"].split(","))

    assert {name: protocols[name] for name, _ in listeners} == {
        "BUS": "SASL_PLAINTEXT",
        "CONTROLLER": "SASL_PLAINTEXT",
    }
    assert all(place.startswith("127.0.0.1:") for _, place in listeners)
    assert settings["allow.everyone.if.no.acl.found"] == "false"
    assert settings["auto.create.topics.enable"] == "false"


def test_a_secret_that_would_break_the_configuration_is_refused_and_not_shown(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    (home.secrets / "admin.password").write_text('quoted" and, spaced]\n', encoding="utf-8")
    kafka = EmbeddedKafka(home)

    with pytest.raises(ConfigurationError, match="admin.password") as caught:
        kafka._plain_secret("admin")

    assert "quoted" not in str(caught.value)


def test_waiting_for_a_broker_ends_when_its_process_has_ended() -> None:
    with pytest.raises(BrokerUnavailableError, match="ended while it was starting"):
        wait_for_broker("127.0.0.1:1", "password", seconds=30.0, ended=lambda: True)


def test_waiting_for_a_broker_ends_when_the_time_is_up() -> None:
    with pytest.raises(BrokerUnavailableError, match="no answer within"):
        wait_for_broker("127.0.0.1:1", "password", seconds=0.2)
