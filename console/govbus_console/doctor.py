"""``govbus doctor``: what a bus needs of a machine, checked one by one, each with its fix. Does I/O."""

from __future__ import annotations

import http.client
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from govbus.errors import BusError
from govbus_console import connect
from govbus_console.embedded import Home, running
from govbus_console.embedded.artifacts import cache_directory
from govbus_console.embedded.java import find_java
from govbus_console.render import table

_LEAST_FREE_BYTES = 2 * 1024**3
_LARGEST_SKEW_SECONDS = 2.0
_ASK_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check."""

    check: str
    well: bool
    detail: str
    fix: str = ""
    """What to do when it is not well."""

    def as_json(self) -> dict[str, Any]:
        """Give a form that JSON can hold."""
        return {"check": self.check, "well": self.well, "detail": self.detail, "fix": self.fix}


def examine(home: Home) -> list[Finding]:
    """Run every check that makes sense here: what only an embedded bus needs is left out for others."""
    embedded = not os.environ.get("GOVBUS_BROKER_BOOTSTRAP")
    findings = [_kernel()]
    if embedded:
        findings += [_java(), _maven(), *_home(home)]
    if not embedded or running(home) is not None:
        findings += list(_bus())
    else:
        findings.append(Finding(check="bus", well=True, detail="none runs here; `govbus up` starts one"))
    findings.append(_attempt("control store", _store))
    return findings


def _attempt(check: str, work: Callable[[], str]) -> Finding:
    try:
        return Finding(check=check, well=True, detail=work())
    except BusError as error:
        return Finding(check=check, well=False, detail=str(error), fix=error.fix)


def _kernel() -> Finding:
    from govbus.splice import COMPILED

    return Finding(
        check="splice kernel",
        # Slow is not wrong: an interpreted kernel gives the same results.
        well=True,
        detail="compiled" if COMPILED else "interpreted: right, and slow; install a C compiler and reinstall",
    )


def _java() -> Finding:
    return _attempt("Java", lambda: f"version {(found := find_java()).version} at {found.executable}")


def _maven() -> Finding:
    fetched = {path.name.split("-")[0] for path in cache_directory().glob("*-*") if path.is_dir()}
    if {"kafka", "registry"} <= fetched:
        return Finding(check="Maven", well=True, detail="not needed: broker and registry are here already")
    found = shutil.which("mvn")
    return Finding(
        check="Maven",
        well=found is not None,
        detail=found or "not on PATH, and broker and registry have not been fetched yet",
        fix="" if found else "Install Maven (Debian: apt-get install maven).",
    )


def _home(home: Home) -> Iterator[Finding]:
    yield _attempt("home", lambda: str(home.create().root))
    free = shutil.disk_usage(home.root).free
    yield Finding(
        check="disk",
        well=free >= _LEAST_FREE_BYTES,
        detail=f"{free / 1024**3:.1f} GiB free at {home.root}",
        fix="" if free >= _LEAST_FREE_BYTES else "Free some space, or set GOVBUS_HOME to another disk.",
    )
    open_to_others = [
        path.name
        for path in [home.secrets, *home.secrets.iterdir()]
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    yield Finding(
        check="secrets",
        well=not open_to_others,
        detail="closed to other users"
        if not open_to_others
        else f"open to others: {', '.join(open_to_others)}",
        fix="" if not open_to_others else f"chmod -R go= '{home.secrets}'",
    )


def _bus() -> Iterator[Finding]:
    try:
        broker, registry = connect.endpoints()
    except BusError as error:
        yield Finding(check="broker", well=False, detail=str(error), fix=error.fix)
        return

    def ask_broker() -> str:
        from govbus_console.cluster import Cluster

        return f"{broker.bootstrap} lets {broker.user} in; {len(Cluster(broker.client()).topics())} topics"

    yield _attempt("broker", ask_broker)
    yield from _registry(registry.url)


def _registry(url: str) -> Iterator[Finding]:
    address = urlsplit(url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    try:
        with closing(kind(address.netloc, timeout=_ASK_SECONDS)) as connection:
            connection.request("GET", f"{address.path.rstrip('/')}/subjects")
            answer = connection.getresponse()
            dated = answer.getheader("Date")
            status = answer.status
    except (OSError, http.client.HTTPException) as error:
        yield Finding(
            check="registry",
            well=False,
            detail=f"no answer from {address.netloc}: {type(error).__name__}",
            fix="Start the registry, or correct GOVBUS_REGISTRY_URL.",
        )
        return
    well = status == http.client.OK
    yield Finding(
        check="registry",
        well=well,
        detail=f"{address.netloc} answers with HTTP {status}",
        fix=""
        if well
        else "Correct GOVBUS_REGISTRY_URL: it ends with the path of the Confluent-compatible API.",
    )
    if dated:
        skew = abs((datetime.now(UTC) - parsedate_to_datetime(dated)).total_seconds())
        # The header has whole seconds.
        in_time = skew <= _LARGEST_SKEW_SECONDS + 1
        yield Finding(
            check="clock",
            well=in_time,
            detail=f"{'less than' if in_time else 'about'} {max(skew, 1):.0f} s from the registry's",
            fix="" if in_time else "Let NTP set both clocks: the terms of grants go by them.",
        )


def _store() -> str:
    from govbus_console.control import outbox

    with connect.store() as store:
        unsaid = outbox.pending(store)
        known = store.snapshot()
    detail = f"{len(known.grants)} grants of {len(known.resources)} resources"
    return detail + (f"; {unsaid} decisions are not published yet" if unsaid else "")


def text_of(findings: Iterable[Finding]) -> str:
    """The same for a person."""
    rows = [
        ("well" if found.well else "NOT WELL", found.check, found.detail, found.fix) for found in findings
    ]
    return table("", ("", "check", "found", "fix"), rows)
