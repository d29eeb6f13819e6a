"""The embedded broker: one real Apache Kafka node on loopback, closed to strangers.

Promises:

1. Nobody talks to it without a password, on either of its two ports, and what no
   ACL allows is refused.
2. A second start on the same home finds every topic, record, offset, user and ACL.
3. No secret is on a command line, in the environment or in a log.
4. "Started" means that a client which logs in over SASL got an answer.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from govbus.errors import AccessDeniedError, BrokerUnavailableError, ConfigurationError
from govbus_console.acls import ADMIN
from govbus_console.embedded import ports
from govbus_console.embedded.artifacts import artifact, deploy_directory
from govbus_console.embedded.children import Child, Children, tail
from govbus_console.embedded.home import Home
from govbus_console.embedded.java import Java

NODE_USER = "govbus.node"
"""The broker's own principal. The dot keeps it apart from every department."""

_PORT_ATTEMPTS = 3
_FORMAT_SECONDS = 180.0
_REFUSED_SECONDS = 10.0
# What may stand in a JAAS entry, a Java argument file and --add-scram without quoting.
_PLAIN_SECRET = re.compile(r"[A-Za-z0-9._~-]{16,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """What may differ from one embedded broker to another."""

    heap_mb: int = 512
    """Upper bound of the Java heap; the process takes about 150 MB more."""

    message_max_bytes: int = 1_048_576
    """The largest record batch that the broker takes."""


class EmbeddedKafka:
    """Starts and stops the broker of one home; the caller holds the home's lock."""

    def __init__(self, home: Home, *, options: KafkaOptions | None = None) -> None:
        self._home = home
        self._options = options or KafkaOptions()
        self._data = home.kafka / "data"
        self._config = home.kafka / "server.properties"
        self._log = home.log / "kafka.log"
        self._output = home.log / "kafka.out"
        self._child: Child | None = None
        self.bootstrap = ""
        """host:port of the client listener, once started."""

    @property
    def child(self) -> Child | None:
        """The broker's process, once started."""
        return self._child

    def start(self, java: Java, children: Children, *, seconds: float) -> None:
        """Start the broker and return when a client can log in.

        Raises:
            BrokerUnavailableError: it did not come up; the message says where its log is.
            AccessDeniedError: it is up and does not know the admin password of this home.
            ConfigurationError: something that it needs is missing.
        """
        classpath = f"{artifact('kafka', java=java)}/*"
        for attempt in range(_PORT_ATTEMPTS):
            chosen = ports.kept(self._home.kafka / "ports.json", ("client", "controller"))
            self._configure(chosen, self._data)
            if not (self._data / "meta.properties").exists():
                self._format(java, classpath, chosen)
            child = children.start("kafka", self._command(java, classpath), output=self._output)
            self._child = child
            self.bootstrap = f"{ports.LOOPBACK}:{chosen['client']}"
            try:
                wait_for_broker(
                    self.bootstrap,
                    self._home.password(ADMIN),
                    seconds=seconds,
                    ended=lambda child=child: child.exit_code is not None,  # type: ignore[misc]
                )
            except BrokerUnavailableError as error:
                child.stop()
                lost_port = not all(ports.is_free(port) for port in chosen.values())
                if not (lost_port and attempt + 1 < _PORT_ATTEMPTS):
                    raise BrokerUnavailableError(f"{error}; {self._last_words()}") from None
            except BaseException:
                child.stop()
                raise
            else:
                return

    def _command(self, java: Java, classpath: str) -> list[str]:
        return [
            str(java.executable),
            f"-Xmx{self._options.heap_mb}m",
            "-Xms64m",
            "-XX:+ExitOnOutOfMemoryError",
            # Its data would be a file that names the command line, readable in /tmp.
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={deploy_directory('kafka') / 'log4j2.properties'}",
            f"-Dgovbus.log={self._log}",
            "-cp",
            classpath,
            "kafka.Kafka",
            str(self._config),
        ]

    def _configure(self, chosen: dict[str, int], data: Path) -> None:
        template = (deploy_directory("kafka") / "server.properties").read_text(encoding="utf-8")
        filled = Template(template).substitute(
            client_port=chosen["client"],
            controller_port=chosen["controller"],
            data=properties_value(str(data)),
            node_user=NODE_USER,
            node_secret=self._plain_secret(NODE_USER),
            admin_user=ADMIN,
            message_max_bytes=self._options.message_max_bytes,
        )
        _write_private(self._config, filled)

    def _plain_secret(self, user: str) -> str:
        secret = self._home.password(user)
        if not _PLAIN_SECRET.fullmatch(secret):
            raise ConfigurationError(
                f"{self._home.password_file(user)} must hold at least 16 letters, digits and ._~-; "
                "remove the file before the first start and one is made"
            )
        return secret

    def _format(self, java: Java, classpath: str, chosen: dict[str, int]) -> None:
        """Prepare the data directory, with the two users that must exist before anyone can log in.

        Done aside and renamed, so that a format that was cut short is done again
        and never taken for a finished one. The passwords travel in an argument
        file that only the owner can read and that is gone afterwards: a command
        line is for everyone to see.
        """
        aside = self._data.with_name("data.new")
        shutil.rmtree(aside, ignore_errors=True)
        self._configure(chosen, aside)
        arguments = [
            "-Xmx128m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            f"-Dlog4j2.configurationFile={deploy_directory('kafka') / 'log4j2.properties'}",
            f"-Dgovbus.log={self._log}",
            "-cp",
            classpath,
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "--config",
            str(self._config),
            "--cluster-id",
            _cluster_id(),
            *(
                word
                for user in (ADMIN, NODE_USER)
                for word in (
                    "--add-scram",
                    f"SCRAM-SHA-256=[name={user},password={self._plain_secret(user)}]",
                )
            ),
        ]
        file = self._home.kafka / "format.arguments"
        _write_private(file, "".join(f'"{argument}"\n' for argument in arguments))
        try:
            outcome = subprocess.run(  # noqa: S603  the Java that was found, on files of this home
                [java.executable, f"@{file}"],
                stdin=subprocess.DEVNULL,
                # Never shown: the tool prints the hashes of the passwords.
                capture_output=True,
                timeout=_FORMAT_SECONDS,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BrokerUnavailableError(f"preparing {self._data} took too long") from None
        finally:
            file.unlink()
        if outcome.returncode != 0 or not (aside / "meta.properties").exists():
            raise BrokerUnavailableError(
                f"Kafka's storage tool could not prepare {self._data} (exit code {outcome.returncode}); "
                f"see {self._log}, and check that the disk has room"
            )
        aside.rename(self._data)
        self._configure(chosen, self._data)

    def _last_words(self) -> str:
        said = [line for line in tail(self._log).splitlines() if " ERROR " in line or " FATAL " in line]
        return f"{said[-1] if said else 'it gave no reason'} (see {self._log} and {self._output})"


def wait_for_broker(
    bootstrap: str, password: str, *, seconds: float, ended: Callable[[], bool] = lambda: False
) -> None:
    """Return when the broker at ``bootstrap`` lets the admin in and answers.

    Raises:
        BrokerUnavailableError: it did not within ``seconds``, or ``ended`` became true.
        AccessDeniedError: it answers, and keeps refusing the password.
    """
    host, _, port = bootstrap.rpartition(":")
    deadline = time.monotonic() + seconds

    def still_trying() -> bool:
        if ended():
            raise BrokerUnavailableError("the broker ended while it was starting")
        return time.monotonic() < deadline

    while still_trying():
        # A plain connection first: librdkafka complains on the terminal about each one refused.
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except OSError:
            time.sleep(0.05)
            continue
        break
    refused_since: float | None = None
    while still_trying():
        answer = _ask(bootstrap, password)
        if answer == "ready":
            return
        if answer == "refused":
            # Not at once: directly after the start a user may not be known yet.
            refused_since = refused_since or time.monotonic()
            if time.monotonic() - refused_since > _REFUSED_SECONDS:
                raise AccessDeniedError(f"the broker at {bootstrap} does not accept the password of {ADMIN}")
    raise BrokerUnavailableError(f"the broker at {bootstrap} gave no answer within {seconds:.0f} s")


def _ask(bootstrap: str, password: str) -> str:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    refusals: list[str] = []

    def note(error: KafkaError) -> None:
        if error.code() == KafkaError._AUTHENTICATION:
            refusals.append(error.name())

    client = AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": ADMIN,
            "sasl.password": password,
            "error_cb": note,
            "log_level": 0,
        }
    )
    try:
        if client.list_topics(timeout=2.0).brokers:
            return "ready"
    except KafkaException:
        client.poll(0)
    return "refused" if refusals else "silent"


def properties_value(text: str) -> str:
    r"""Write text so that a Java properties file, which is Latin-1, gives it back: ``数`` as ``\u6570``."""
    units = text.encode("utf-16-be")
    characters = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in characters)


def _cluster_id() -> str:
    """Draw a cluster id in Kafka's form: 16 random bytes in URL-safe base64, not like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):
            return text


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
