"""The embedded bus as a whole: restarts, crashes, strangers, and two of them at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from govbus.errors import AccessDeniedError, BrokerUnavailableError, ConfigurationError
from govbus_console.acls import owner_acls
from govbus_console.cluster import Cluster, TopicSpec
from govbus_console.embedded import EmbeddedBus, Home, running, stop_running
from support.broker import RunningBus

pytestmark = pytest.mark.broker

SASL_AUTHENTICATION_FAILED = 58
"""Kafka's error code."""

SCHEMA = {"type": "record", "name": "divisions", "fields": [{"name": "code", "type": "string"}]}


def register(registry_url: str, subject: str, schema: dict[str, object]) -> int:
    request = urllib.request.Request(  # noqa: S310
        f"{registry_url}/subjects/{subject}/versions",
        data=json.dumps({"schema": json.dumps(schema)}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
        return int(json.load(response)["id"])


def schema_of(registry_url: str, number: int) -> dict[str, object]:
    with urllib.request.urlopen(f"{registry_url}/schemas/ids/{number}", timeout=20) as response:  # noqa: S310
        schema: dict[str, object] = json.loads(json.load(response)["schema"])
        return schema


def write(config: dict[str, object], topic: str) -> None:
    producer = Producer(config)
    producer.produce(topic, b"value", b"key")
    assert producer.flush(20) == 0


def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def can_log_in(bootstrap: str, **settings: str) -> bool:
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, **settings})
    try:
        return bool(client.list_topics(timeout=4).brokers)
    except Exception:  # noqa: BLE001  whatever the client calls it, it was not let in
        return False


def controller_port(home: Home) -> int:
    return int(json.loads((home.kafka / "ports.json").read_text(encoding="utf-8"))["controller"])


def ask(connection: socket.socket, key: int, version: int, body: bytes) -> bytes | None:
    """Send one request in Kafka's own protocol; None when the answer is a closed connection."""
    request = struct.pack(">hhih4s", key, version, 1, 4, b"test") + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    size = connection.recv(4, socket.MSG_WAITALL)
    if not size:
        return None
    return connection.recv(struct.unpack(">i", size)[0], socket.MSG_WAITALL)[4:]


def create_topic_unasked(port: int) -> bytes | None:
    """Ask for a new topic (CreateTopics, version 2) without having logged in."""
    topic = struct.pack(">h8sihii", 8, b"intruder", 1, 1, 0, 0)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        return ask(connection, 19, 2, struct.pack(">i", 1) + topic + struct.pack(">i?", 10_000, False))


def plain_login(port: int, user: str, password: str) -> int:
    """Log in by SASL/PLAIN (SaslHandshake 1, SaslAuthenticate 0) and give Kafka's error code."""
    token = f"\0{user}\0{password}".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        offered = ask(connection, 17, 1, struct.pack(">h5s", 5, b"PLAIN"))
        assert offered is not None
        assert offered[:2] == b"\0\0", "PLAIN is not offered"
        answer = ask(connection, 36, 0, struct.pack(">i", len(token)) + token)
        assert answer is not None
        return int(struct.unpack(">h", answer[:2])[0])


class TestRestart:
    def test_a_second_start_finds_everything_even_after_a_crash_and_on_other_ports(
        self, tmp_path: Path
    ) -> None:
        """Topics, records, users, permissions, schemas and their ids, with both processes killed."""
        home = Home(tmp_path / "home")
        with EmbeddedBus(home) as first:
            cluster = Cluster(first.broker_settings().client())
            cluster.ensure_topic(TopicSpec.compacted("govbus.captured.stats.divisions"))
            cluster.ensure_user("stats", home.password("stats"))
            cluster.allow_owner("stats")
            write(first.broker_settings("stats").client(), "govbus.captured.stats.divisions")
            before = first.endpoints
            number = register(before.registry_url, "divisions-value", SCHEMA)
            # No time between the answer and the crash: what was confirmed must be on disk.
            for child in (first.registry, first.kafka):
                assert child is not None
                child.kill()
        squatters = [
            socket.create_server(("127.0.0.1", port))
            for port in (int(before.bootstrap.rpartition(":")[2]), controller_port(home))
        ]

        with EmbeddedBus(home) as second:
            cluster = Cluster(second.broker_settings().client())
            after = second.endpoints
            kept = schema_of(after.registry_url, number)
            again = register(after.registry_url, "divisions-value", SCHEMA)
            other = register(after.registry_url, "divisions-value", SCHEMA | {"doc": "a second version"})
            offsets = cluster.end_offsets("govbus.captured.stats.divisions")
            write(second.broker_settings("stats").client(), "govbus.captured.stats.divisions")
            permissions = cluster.acls("stats")
        for squatter in squatters:
            squatter.close()

        assert kept == SCHEMA
        assert again == number
        assert other > number
        assert offsets == {0: 1}
        assert permissions == owner_acls("stats")
        assert after.bootstrap != before.bootstrap
        assert after.registry_url == before.registry_url

    def test_a_home_serves_one_bus_at_a_time(self, bus: RunningBus) -> None:
        with pytest.raises(ConfigurationError, match="another govbus uses the home") as caught:
            EmbeddedBus(Home(bus.home.root)).start()

        assert str(os.getpid()) in str(caught.value)
        bus.embedded.check()


class TestStrangers:
    def test_nobody_is_let_in_without_a_password(self, bus: RunningBus) -> None:
        assert not can_log_in(bus.bootstrap)
        assert not can_log_in(bus.bootstrap, **{"security.protocol": "PLAINTEXT"})

    def test_the_controller_listener_lets_in_nobody_but_the_node(self, bus: RunningBus) -> None:
        """Not without a password and not with the admin's: who is let in here stands above every ACL."""
        port = controller_port(bus.home)

        assert create_topic_unasked(port) is None
        assert create_topic_unasked(int(bus.bootstrap.rpartition(":")[2])) is None
        assert plain_login(port, "admin", bus.home.password("admin")) == SASL_AUTHENTICATION_FAILED
        assert plain_login(port, "govbus.node", "guessed") == SASL_AUTHENTICATION_FAILED
        assert plain_login(port, "govbus.node", bus.home.password("govbus.node")) == 0

    def test_both_ports_and_the_registry_listen_on_loopback_only(self, bus: RunningBus) -> None:
        assert bus.embedded.kafka is not None
        assert bus.embedded.registry is not None

        addresses = listening(bus.embedded.kafka.pid) | listening(bus.embedded.registry.pid)

        assert {host for host, _ in addresses} == {"127.0.0.1"}
        known = {
            int(bus.bootstrap.rpartition(":")[2]),
            controller_port(bus.home),
            urllib.parse.urlsplit(bus.registry_url).port,
        }
        # The registry's transaction manager opens one more, to find its own process again.
        assert known <= {port for _, port in addresses}

    def test_no_secret_is_on_a_command_line_in_a_log_or_open_to_others(self, bus: RunningBus) -> None:
        passwords = [path.read_text(encoding="utf-8").strip() for path in bus.home.secrets.iterdir()]
        children = [child for child in (bus.embedded.kafka, bus.embedded.registry) if child is not None]
        said = [path.read_bytes() for path in bus.home.log.iterdir()]
        for child in children:
            said.append(Path(f"/proc/{child.pid}/cmdline").read_bytes())
            said.append(Path(f"/proc/{child.pid}/environ").read_bytes())

        leaked = [word for word in passwords if any(word.encode() in text for text in said)]
        holding = [
            path
            for path in bus.home.root.rglob("*")
            if any(word.encode() in held for held in [content(path)] for word in passwords)
        ]

        assert len(passwords) >= 2
        assert leaked == []
        assert {path.parent for path in holding} == {bus.home.secrets, bus.home.kafka}
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holding)
        assert [path.name for path in holding if path.parent == bus.home.kafka] == ["server.properties"]


def content(path: Path) -> bytes:
    """What a file holds; nothing where there is none any more: the broker removes its own at any time.

    Its indexes are left out: offsets and times, in ten megabytes of zeros for each segment.
    """
    try:
        return path.read_bytes() if path.is_file() and not path.name.endswith("index") else b""
    except FileNotFoundError:
        return b""


class TestEnds:
    def test_the_bus_ends_when_its_supervisor_is_killed(self, tmp_path: Path) -> None:
        """Kill -9 leaves the supervisor no time to stop anything, and the home is free again soon."""
        home = Home(tmp_path / "home")
        supervisor = start_supervisor(home, detached=False)
        run = running(home)
        assert run is not None
        assert [process.name for process in run.processes] == ["kafka", "registry"]

        supervisor.kill()
        supervisor.wait()

        eventually(lambda: not run.alive())
        with EmbeddedBus(home) as next_bus:
            next_bus.check()

    def test_a_detached_bus_stays_until_it_is_stopped_by_name(self, tmp_path: Path) -> None:
        home = Home(tmp_path / "home")
        supervisor = start_supervisor(home, detached=True)
        supervisor.kill()
        supervisor.wait()
        run = running(home)
        assert run is not None
        assert run.supervisor is None
        with pytest.raises(ConfigurationError, match="another govbus uses the home"):
            EmbeddedBus(home).start()

        stopped = stop_running(home)

        assert stopped
        assert not run.alive()
        assert running(home) is None
        assert stop_running(home) is False

    def test_a_broker_that_dies_is_noticed(self, tmp_path: Path) -> None:
        with EmbeddedBus(Home(tmp_path / "home")) as bus:
            bus.check()
            assert bus.kafka is not None
            bus.kafka.kill()

            with pytest.raises(BrokerUnavailableError, match="has ended"):
                bus.check()

    def test_a_lost_admin_password_is_named_and_nothing_is_left_running(self, tmp_path: Path) -> None:
        home = Home(tmp_path / "home")
        with EmbeddedBus(home) as first:
            assert first.kafka is not None
        home.password_file("admin").write_text("another-password-of-some-length\n", encoding="utf-8")
        second = EmbeddedBus(home)

        with pytest.raises(AccessDeniedError, match="password of admin"):
            second.start()

        assert running(home) is None
        assert second.kafka is not None
        assert second.kafka.exit_code is not None
        assert second.registry is not None
        assert second.registry.exit_code is not None


def start_supervisor(home: Home, *, detached: bool) -> subprocess.Popen[str]:
    """Run a bus from a process of its own, and return when it is up."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from govbus_console.embedded import EmbeddedBus, Home\n"
        f"EmbeddedBus(Home(Path(sys.argv[1])), detached={detached}).start()\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", program, str(home.root)], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    with supervisor.stdout:
        assert supervisor.stdout.readline() == "up\n"
    return supervisor


def listening(pid: int) -> set[tuple[str, int]]:
    """Give the TCP addresses on which a process listens (Linux)."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(os.readlink(descriptor))  # noqa: PTH115  it names no path
    found = set()
    for table, family, groups in (("tcp", socket.AF_INET, 1), ("tcp6", socket.AF_INET6, 4)):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] != "0A" or f"socket:[{fields[9]}]" not in sockets:
                continue
            address, port = fields[1].split(":")
            words = [bytes.fromhex(address[8 * at : 8 * at + 8])[::-1] for at in range(groups)]
            host = socket.inet_ntop(family, b"".join(words)).removeprefix("::ffff:")
            found.add((host, int(port, 16)))
    return found


def test_a_signal_to_the_supervisor_of_a_run_stops_the_run(tmp_path: Path) -> None:
    """``govbus down`` asks the supervisor first; one that does not listen is worked around."""
    home = Home(tmp_path / "home")
    supervisor = start_supervisor(home, detached=False)
    run = running(home)
    assert run is not None
    assert run.supervisor is not None
    assert run.supervisor.pid == supervisor.pid

    stopped = stop_running(home)

    assert stopped
    assert supervisor.wait(10) == -signal.SIGTERM
    assert not run.alive()
