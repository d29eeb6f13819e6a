"""How the demo's departments come to their agreements: by the commands that they would type. Does I/O.

1. Each department has an engineer who asks; the two owners have stewards who decide, civil affairs two of
   them, because both of its shared resources show core fields.
2. Whatever is unconditional is granted when it is submitted; the rest is reviewed, and approved by both
   stewards.
3. The tax bureau asks for residents too. Its request is rejected on a ground, and it gets no grant.
4. An agreement that is still in force from an earlier demo is not asked for again.

Every line runs as it stands: it is given to the command line of this process, for
the bus in the demo's home.
"""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from govbus.errors import FatalError
from govbus.grant import GrantState
from govbus.request import Ground
from govbus_console import cli, render
from govbus_console.control.store import Snapshot, StoredGrant
from govbus_console.embedded.home import Home

ENGINEERS = {"civil": "lin-civil", "health": "qian-health", "quzhou": "sun-quzhou", "tax": "wu-tax"}
"""Who asks for each department."""

STEWARDS = {"stats": ("zheng-stats",), "civil": ("feng-civil", "chen-civil")}
"""Who decides for each owner."""

_ENDED = (GrantState.REVOKED, GrantState.EXPIRED)
WHO = "govbus demo"
"""Who the audit says it was, where no account acts."""

_ELSEWHERE = ("GOVBUS_BROKER_", "GOVBUS_REGISTRY_", "GOVBUS_API_")
"""Variables that would send a command to another bus than the demo's."""


Step = Callable[[str, Callable[[], Any]], Any]
"""Does something, shows by its name that it is done, and returns what it gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one department asks for, in the words of the command line."""

    subscriber: str
    resource: str
    fields: tuple[str, ...]
    rows: str
    purpose: str
    legal_basis: str
    days: int

    @property
    def owner(self) -> str:
        """Whose resource it is."""
        return self.resource.partition(".")[0]

    def met(self, known: Snapshot, now: datetime) -> StoredGrant | None:
        """The grant that gives it, as long as that lasts; None: it has to be asked for."""
        for stored in known.grants.values():
            grant = stored.grant
            asked = (grant.subscriber, grant.resource_ref) == (self.subscriber, self.resource)
            if asked and grant.state not in _ENDED and grant.expires_at > now:
                return stored
        return None

    def request(self) -> list[str]:
        """The command that writes the request down."""
        fields = [word for name in self.fields for word in ("--field", name)]
        return [
            "request", "new", self.resource, *fields, "--rows", self.rows, "--purpose", self.purpose,
            "--legal-basis", self.legal_basis, "--days", str(self.days), "--as", ENGINEERS[self.subscriber],
        ]  # fmt: skip


_DIVISIONS = ("code", "name", "level", "parent", "province", "city")

AGREEMENTS = (
    # The same fields and rows, nothing of either subscriber's own: these two share one delivery topic.
    Wanted(
        subscriber="civil",
        resource="stats.divisions",
        fields=_DIVISIONS,
        rows="all",
        purpose="Addresses of residents",
        legal_basis="户口登记条例",
        days=365,
    ),
    Wanted(
        subscriber="health",
        resource="stats.divisions",
        fields=_DIVISIONS,
        rows="all",
        purpose="Health statistics by division",
        legal_basis="中华人民共和国统计法",
        days=365,
    ),
    Wanted(
        subscriber="quzhou",
        resource="stats.divisions",
        fields=("code", "name"),
        rows="city = '3308'",
        purpose="The city's own address directory",
        legal_basis="地名管理条例",
        days=365,
    ),
    # The demo revokes this one half way, with purge of what health has landed.
    Wanted(
        subscriber="health",
        resource="civil.residents",
        fields=(
            "id_number=pseudonym",
            "name={partial: {head: 1, tail: 0}}",
            "sex",
            "birth_date={generalise: year}",
            "division={generalise: {prefix: 6}}",
        ),
        rows="status = 'living'",
        purpose="Planning of vaccinations",
        legal_basis="中华人民共和国疫苗管理法",
        days=180,
    ),
    Wanted(
        subscriber="quzhou",
        resource="civil.marriages",
        fields=("certificate", "husband=pseudonym", "wife=pseudonym", "registered_on={generalise: month}"),
        rows="city = '3308' AND state = 'in_force'",
        purpose="Housing subsidies for couples",
        legal_basis="公共租赁住房管理办法",
        days=180,
    ),
)
"""Everything that is granted."""

REVOKED = AGREEMENTS[3]
"""What health is granted of the residents, until the demo revokes it."""

REFUSED = Wanted(
    subscriber="tax",
    resource="civil.residents",
    fields=("id_number", "name", "phone"),
    rows="all",
    purpose="To know everybody's telephone",
    legal_basis="None was named",
    days=365,
)
"""What tax asks for in vain."""


class Agreeing:
    """Types what the departments' people would type, on the bus of one home."""

    def __init__(self, home: Home, step: Step) -> None:
        self._home = home
        self._step = step

    def apply(self, catalogue: Path) -> None:
        """Apply departments and resources."""
        self._type("apply", "--file", str(catalogue), "--why", "the catalogue of the demo")

    def open_accounts(self) -> None:
        """Make the accounts that there are not yet."""
        there = {account["name"] for account in self._do("account", "list")["accounts"]}
        people = [(name, department, "subscriber") for department, name in ENGINEERS.items()]
        people += [(name, department, "steward") for department, names in STEWARDS.items() for name in names]
        for name, department, role in people:
            if name not in there:
                self._type("account", "add", name, "--department", department, "--role", role)

    def come_to(self, wanted: Wanted) -> str:
        """Ask for something and have it approved; returns the grant's id.

        Raises:
            FatalError: a command was refused, or its outcome is not a grant that delivers.
        """
        found = self._submit(wanted)
        if found["state"] == "submitted":
            stewards = STEWARDS[wanted.owner]
            self._type("review", "take", found["id"], "--as", stewards[0])
            for steward in stewards:
                found = self._type("review", "approve", found["id"], "--as", steward)
        if found["state"] != "provisioned":
            raise FatalError(f"request {found['id']} of {wanted.subscriber} is {found['state']}")
        return str(found["grant"])

    def ask_in_vain(self, wanted: Wanted) -> None:
        """Ask for something and have it rejected.

        Raises:
            FatalError: a command was refused, or it was not rejected.
        """
        found = self._submit(wanted)
        steward = STEWARDS[wanted.owner][0]
        self._type("review", "take", found["id"], "--as", steward)
        rejected = self._type(
            "review", "reject", found["id"], "--ground", Ground.NO_LEGAL_BASIS.value, "--as", steward
        )
        if rejected["state"] != "rejected" or rejected["grant"] is not None:
            raise FatalError(f"request {found['id']} of {wanted.subscriber} was not rejected")

    def _submit(self, wanted: Wanted) -> Any:
        drafted = self._type(*wanted.request())
        return self._type("request", "submit", drafted["id"], "--as", ENGINEERS[wanted.subscriber])

    def _type(self, *words: str) -> Any:
        """Run a command and show it as it is typed; returns what it prints for a script."""
        return self._step(typed(words), partial(self._do, *words))

    def _do(self, *words: str) -> Any:
        out, err = io.StringIO(), io.StringIO()
        with _only_here(self._home), redirect_stdout(out), redirect_stderr(err):
            code = cli.run([*words, "--json"])
        if code != render.DONE:
            told = err.getvalue().strip().splitlines()
            why = told[-1] if told else f"exit code {code}"
            raise FatalError(f"{typed(words)}: {why}")
        return json.loads(out.getvalue())


def typed(words: Sequence[str]) -> str:
    """Put a command as a person would type it in a shell."""
    return " ".join(["govbus", *map(_quoted, words)])


def _quoted(word: str) -> str:
    """Quote a word; one with an apostrophe by the other quotes, unless they would mean something more."""
    if "'" in word and not set(word) & set('"$`\\!'):
        return f'"{word}"'
    return shlex.quote(word)


@contextmanager
def _only_here(home: Home) -> Iterator[None]:
    """Let commands find the bus that runs in this home, whatever the environment says of others."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_ELSEWHERE):
            del os.environ[name]
    os.environ |= {"GOVBUS_HOME": str(home.root), "GOVBUS_ACTOR": WHO}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
