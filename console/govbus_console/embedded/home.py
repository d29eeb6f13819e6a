"""The home directory of an embedded bus: what lies where, who may read it, and who uses it now.

::

    <home>/                         GOVBUS_HOME, default ./.govbus, mode 0700
    ├── lock                        held for as long as one process of the bus lives
    ├── run.json                    what runs now: addresses and processes
    ├── kafka/                      the broker's data, its ports and its generated configuration
    ├── registry/                   the registry's database and port
    ├── secrets/<user>.password     mode 0600, in a directory of mode 0700
    ├── state/                      what capture, land and the control store keep
    ├── log/                        one file for each process
    └── prometheus/targets.json     what Prometheus should scrape

Two buses never share a home. The lock is an advisory lock on an open file that
the children inherit, so it is free again exactly when the last process that
writes below the home has ended, however it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from govbus.errors import ConfigurationError
from govbus_console.embedded.processes import ProcessRef

_SECRET_BYTES = 32
# Each of these means something to a Java properties file, a class path, a JDBC address or `log.dirs`.
_UNSAFE_IN_PATHS = frozenset(",:;\"'\\$*{}%\n\r\t")
_LET_GO_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where an embedded bus answers."""

    bootstrap: str
    """host:port of the broker's only client listener (SASL_PLAINTEXT, SCRAM-SHA-256)."""

    registry_url: str
    """Base address of the Confluent-compatible API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What runs in a home now, as the file ``run.json`` says."""

    endpoints: Endpoints
    supervisor: ProcessRef | None
    """The process that stops the others when it ends; None for a detached bus."""

    processes: tuple[ProcessRef, ...] = ()

    def alive(self) -> bool:
        """Say whether any process of this run still lives."""
        return any(process.alive() for process in self.processes)


class Home:
    """Paths, secrets and the lock of one embedded bus."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        unsafe = sorted(_UNSAFE_IN_PATHS.intersection(str(self.root)))
        if unsafe:
            raise ConfigurationError(
                f"GOVBUS_HOME {str(self.root)!r} has characters that Java configuration cannot hold: "
                f"{' '.join(map(repr, unsafe))}; choose another directory"
            )
        self.kafka = self.root / "kafka"
        self.registry = self.root / "registry"
        self.secrets = self.root / "secrets"
        self.state = self.root / "state"
        self.log = self.root / "log"
        self.run_file = self.root / "run.json"
        self.targets_file = self.root / "prometheus" / "targets.json"

    def create(self) -> Home:
        """Make the directories that are missing, closed to other users; the rest stays as it is."""
        try:
            for directory in (
                self.root,
                self.kafka,
                self.registry,
                self.secrets,
                self.state,
                self.log,
                self.targets_file.parent,
            ):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # May have been made by hand, and under any umask.
            self.secrets.chmod(0o700)
        except OSError as error:
            raise ConfigurationError(f"cannot use {self.root} as GOVBUS_HOME: {error.strerror}") from None
        return self

    def password_file(self, user: str) -> Path:
        """Name the file that holds a user's password, making the password on first use."""
        path = self.secrets / f"{user}.password"
        if not path.exists():
            self.create()
            self._write_new_secret(path, secrets.token_urlsafe(_SECRET_BYTES))
        return path

    def password(self, user: str) -> str:
        """Give a user's password, making it on first use."""
        return self.password_file(user).read_text(encoding="utf-8").strip()

    def _write_new_secret(self, path: Path, secret: str) -> None:
        # Written aside and linked into place: a reader sees a whole password or none, and of two
        # processes that make one at the same time the first wins and both use it.
        aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(secret + "\n")
            path.hardlink_to(aside)
        except FileExistsError:
            pass  # the other process was first, and its password is the one
        finally:
            aside.unlink()

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the home; gives the descriptor that every child must inherit.

        A bus that is just ending (its supervisor was killed) is waited for.

        Raises:
            ConfigurationError: another bus uses this home.
        """
        self.create()
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(descriptor)
            yield descriptor
        finally:
            # Closed, never unlocked: unlocking would also take the lock from the children, who
            # share this open file.
            os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + _LET_GO_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                run = self.read_run()
                ending = run is not None and run.supervisor is not None and not run.supervisor.alive()
                if not ending or time.monotonic() > deadline:
                    raise ConfigurationError(self._in_use(run)) from None
                time.sleep(0.1)
            else:
                return

    def _in_use(self, run: Run | None) -> str:
        holders = () if run is None else (run.supervisor, *run.processes)
        pids = ", ".join(str(holder.pid) for holder in holders if holder is not None and holder.alive())
        which = f" (process {pids})" if pids else ""
        return (
            f"another govbus uses the home {self.root}{which}; "
            "stop it with `govbus down`, or set GOVBUS_HOME to another directory"
        )

    def write_run(self, run: Run) -> None:
        """Record what runs now, in place of what was recorded before."""
        write_json(
            self.run_file,
            {
                "bootstrap": run.endpoints.bootstrap,
                "registry_url": run.endpoints.registry_url,
                "supervisor": None if run.supervisor is None else run.supervisor.as_json(),
                "processes": [process.as_json() for process in run.processes],
            },
        )

    def read_run(self) -> Run | None:
        """Read what was last recorded; None when nothing is, or what is there makes no sense.

        The processes named may be gone: ask :meth:`Run.alive`.
        """
        try:
            raw = json.loads(self.run_file.read_text(encoding="utf-8"))
            supervisor = raw["supervisor"]
            return Run(
                endpoints=Endpoints(bootstrap=raw["bootstrap"], registry_url=raw["registry_url"]),
                supervisor=None if supervisor is None else ProcessRef.from_json(supervisor),
                processes=tuple(ProcessRef.from_json(process) for process in raw["processes"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forget_run(self) -> None:
        """Say that nothing runs any more."""
        self.run_file.unlink(missing_ok=True)

    def write_targets(self, targets: Sequence[ScrapeTarget]) -> None:
        """Tell Prometheus what to scrape; it notices by itself within seconds."""
        write_json(
            self.targets_file,
            [{"targets": [target.address], "labels": dict(target.labels)} for target in targets],
        )
        # Prometheus mostly runs as a user of its own; addresses are no secret.
        self.targets_file.chmod(0o644)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeTarget:
    """One /metrics address, with the labels that every series from there gets."""

    address: str
    """host:port"""

    labels: Mapping[str, str] = field(default_factory=dict)


def write_json(path: Path, value: object) -> None:
    """Replace a file in one step: a reader sees the old content or the new, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    aside.replace(path)
