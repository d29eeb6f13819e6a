"""The embedded schema registry: one real Apicurio Registry on loopback, on a file database.

Promises:

1. A schema id that was given out means the same schema for ever, also after the
   process was killed the moment it had answered: the database writes each commit
   to its file before it confirms.
2. It listens on loopback only. It has no users: who may log in to this machine
   may register schemas. Delivered data stays protected by the broker, which the
   registry cannot talk to.
"""

from __future__ import annotations

import http.client
import time

from govbus.errors import RegistryUnavailableError
from govbus_console.embedded import ports
from govbus_console.embedded.artifacts import artifact
from govbus_console.embedded.children import Child, Children
from govbus_console.embedded.home import Home
from govbus_console.embedded.java import Java

API = "/apis/ccompat/v7"
"""The Confluent-compatible interface, in the version that answers as the Confluent registry does."""

_PORT_ATTEMPTS = 3


class EmbeddedRegistry:
    """Starts and stops the registry of one home; the caller holds the home's lock."""

    def __init__(self, home: Home, *, heap_mb: int = 256) -> None:
        self._home = home
        self._heap_mb = heap_mb
        self._log = home.log / "registry.log"
        self._output = home.log / "registry.out"
        self._child: Child | None = None
        self.url = ""
        """Base address of the Confluent-compatible interface, once started."""

    @property
    def child(self) -> Child | None:
        """The registry's process, once started."""
        return self._child

    def start(self, java: Java, children: Children, *, seconds: float) -> None:
        """Start the registry and return when it lists its subjects.

        Raises:
            RegistryUnavailableError: it did not come up; the message says where its log is.
            ConfigurationError: something that it needs is missing.
        """
        program = next(artifact("registry", java=java).glob("apicurio-registry-app-*-runner.jar"))
        for attempt in range(_PORT_ATTEMPTS):
            port = ports.kept(self._home.registry / "ports.json", ("http",))["http"]
            child = children.start(
                "registry",
                [
                    str(java.executable),
                    f"-Xmx{self._heap_mb}m",
                    "-XX:+ExitOnOutOfMemoryError",
                    "-XX:-UsePerfData",
                    # A few requests a minute: a quick start is worth more than the fastest code.
                    "-XX:TieredStopAtLevel=1",
                    "-XX:+UseSerialGC",
                    "-Djava.awt.headless=true",
                    *(f"-D{name}={value}" for name, value in self._settings(port).items()),
                    "-jar",
                    str(program),
                ],
                output=self._output,
                directory=self._home.registry,
            )
            self._child = child
            self.url = f"http://{ports.LOOPBACK}:{port}{API}"
            try:
                self._wait(child, port, seconds)
            except RegistryUnavailableError as error:
                child.stop()
                if ports.is_free(port) or attempt + 1 == _PORT_ATTEMPTS:
                    raise RegistryUnavailableError(f"{error} (see {self._log} and {self._output})") from None
            except BaseException:
                child.stop()
                raise
            else:
                return

    def _settings(self, port: int) -> dict[str, str]:
        database = self._home.registry / "schemas"
        return {
            "quarkus.http.host": ports.LOOPBACK,
            "quarkus.http.port": str(port),
            # A page in a browser has no business with the registry.
            "quarkus.http.cors": "false",
            # WRITE_DELAY: H2 otherwise confirms up to half a second before it writes, and a schema
            # id that was handed out, lost and handed out again would decode records wrongly.
            # DB_CLOSE_ON_EXIT: the framework closes the database in order when it is stopped.
            "quarkus.datasource.jdbc.url": f"jdbc:h2:file:{database};WRITE_DELAY=0;DB_CLOSE_ON_EXIT=FALSE",
            "quarkus.datasource.jdbc.initial-size": "2",
            "quarkus.datasource.jdbc.min-size": "2",
            "quarkus.datasource.jdbc.max-size": "20",
            "quarkus.log.console.enable": "false",
            "quarkus.log.file.enable": "true",
            "quarkus.log.file.path": str(self._log),
            "quarkus.log.file.rotation.max-file-size": "10M",
            "quarkus.log.file.rotation.max-backup-index": "5",
        }

    def _wait(self, child: Child, port: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if child.exit_code is not None:
                raise RegistryUnavailableError(
                    f"the registry ended while it was starting ({child.exit_code})"
                )
            if _answers(port):
                return
            time.sleep(0.1)
        raise RegistryUnavailableError(f"the registry gave no answer within {seconds:.0f} s")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(ports.LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", f"{API}/subjects")
        response = connection.getresponse()
        return response.status == http.client.OK and response.read().startswith(b"[")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
