"""The whole life of an agreement on a real bus, typed as people would: from the catalogue to the receipt.

The subscriber, Li, and one of the owner's stewards, Zhao, have a token of the control API and nothing
else; the other steward and whoever keeps the bus work on the control store itself.

Each part is tested beside it; here they follow one another on one grant, and at every point
``explain`` and ``who-received`` have to say the same as the subscriber's own table.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from govbus import topics
from govbus_console import cli, render
from govbus_console.answers.explain import explain
from govbus_console.control.bus import PSEUDONYM_SECRET
from govbus_console.control.lifecycle import expire_due
from support.broker import RunningBus
from support.control import CONTRACT, ControlSide
from support.exchanges import WorkerProcess, World, eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

Row = dict[str, Any]

NORTH = "street = 'North'"


class Life:
    """An owner with a table, a subscriber that lands, a worker between them, and everybody's commands."""

    def __init__(
        self, control: ControlSide, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.control = control
        self.owner, self.tax = control.owner, control.tax
        self.ref = f"{self.owner}.residents"
        self._capsys = capsys
        self._system = control.folder / "system.db"
        self._landed = control.folder / "tax.db"
        self._processes: list[subprocess.Popen[str]] = []
        self._tokens: dict[str, Path] = {}
        self._api = ""
        for name, value in self._environment("admin").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GOVBUS_CONTROL_URL", f"sqlite:///{control.folder / 'control.db'}")
        with closing(sqlite3.connect(self._system)) as db:
            db.execute("CREATE TABLE residents (id_number TEXT PRIMARY KEY, name TEXT, street TEXT)")
        self._capture = self._write(
            "capture.yaml",
            {
                "department": self.owner,
                "source": f"sqlite:///{self._system}",
                "state": str(control.folder / "capture"),
                "resources": {"residents": {"table": "residents", "mode": "hash"}},
            },
        )
        self.landing = self._write(
            "land.yaml",
            {
                "department": self.tax,
                "sink": f"sqlite:///{self._landed}",
                "receipt_key": str(control.folder / "tax.receipt-key"),
            },
        )
        self._worker: WorkerProcess | None = None

    # -- people ------------------------------------------------------------------------------------

    def give(self, *words: str, by: str = "", code: int = render.DONE) -> Any:
        """Type a command with --json and expect its exit code; returns what it printed, or its error.

        Whoever has been given a token has only that: neither the control database nor a login at the broker.
        """
        account = words[words.index("--as") + 1] if "--as" in words else by
        self._capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            if account in self._tokens:
                for name in [*self._environment("admin"), "GOVBUS_CONTROL_URL"]:
                    patch.delenv(name)
                patch.setenv("GOVBUS_HOME", str(self.control.folder / "elsewhere"))
                patch.setenv("GOVBUS_API_URL", self._api)
                patch.setenv("GOVBUS_API_TOKEN_FILE", str(self._tokens[account]))
            ended = cli.run([*words, "--json"])
        shown = self._capsys.readouterr()
        assert ended == code, shown.err or shown.out
        return json.loads((shown.out or shown.err).splitlines()[-1])

    def give_token(self, account: str) -> None:
        """Let an account work through the API from now on."""
        file = self.control.folder / f"{account}.token"
        file.write_text(self.give("token", "new", account, "--days", "1")["token"], encoding="utf-8")
        self._tokens[account] = file

    def get(self, path: str, account: str) -> Any:
        """Ask the API itself, with an account's token."""
        token = self._tokens[account].read_text(encoding="utf-8")
        asked = urllib.request.Request(f"{self._api}{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)

    def refuse(self, *words: str, by: str = "") -> str:
        """Type a command that policy refuses; returns the reason."""
        return str(self.give(*words, by=by, code=render.REFUSED)["error"]["why"])

    def explain(self, number: str, *more: str) -> Any:
        """Why tax has a resident, or has not; with a look into its own store."""
        asked = ("explain", "--record", f"{self.ref}/{number}", "--to", self.tax)
        return self.give(*asked, "--landing", str(self.landing), *more)

    def stopped(self, number: str, *more: str) -> tuple[str, str | None]:
        """The answer, and the gate that stopped the row if one did."""
        answer = self.explain(number, *more)
        return answer["answer"], answer["stopped_by"]

    def later(self, number: str, now: datetime) -> tuple[str, str | None]:
        """The same once the clock has come to ``now``, which the command takes from the machine."""
        control = self.control
        found = explain(f"{self.ref}/{number}", self.tax, control.store, control.bus, at=None, now=now)
        return found.explained.answer.value, found.explained.stopped_by

    def received(self, number: str) -> list[tuple[str, str, int, str]]:
        """Who received a resident: department, grant, version, certainty."""
        found = self.give("who-received", f"{self.ref}/{number}")["received"]
        return [(one["department"], one["grant"], one["version"], one["certainty"]) for one in found]

    def held(self) -> dict[str, str]:
        """Grants that a worker holds back, with the reason."""
        return {one["grant"]: one["held"] for one in self.give("status")["grants"] if one["held"]}

    # -- processes ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start one exchange worker, tax's landing and the control API."""
        home = self.control.running.home
        secret = home.secrets / f"{PSEUDONYM_SECRET}.password"
        world = SimpleNamespace(
            folder=self.control.folder, bus=self.control.running.embedded, secret_file=secret
        )
        self._worker = WorkerProcess(cast(World, world), f"{self.owner}-w", {})
        self._run(self.tax, "land", "--config", str(self.landing))
        api = self._run("admin", "api", "--port", "0", "--json")
        assert api.stdout is not None
        self._api = json.loads(api.stdout.readline())["url"]

    def change(self, *rows: tuple[str, str, str]) -> None:
        """Change the owner's own table and let capture look at it once."""
        with closing(sqlite3.connect(self._system)) as db, db:
            db.executemany("INSERT OR REPLACE INTO residents VALUES (?, ?, ?)", rows)
        capture = self._run(self.owner, "capture", "--config", str(self._capture), "--once")
        assert capture.wait(60) == 0

    def landed(self, grant: str) -> list[Row]:
        """What stands in tax's table, without the bus's own columns; nothing while there is no such table."""
        with closing(sqlite3.connect(self._landed, timeout=10)) as db:
            db.row_factory = sqlite3.Row
            try:
                found = db.execute(f'SELECT * FROM "{grant.replace("-", "_")}" ORDER BY id_number').fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                return []
        return [{name: row[name] for name in row.keys() if not name.startswith("_govbus")} for row in found]  # noqa: SIM118 - a Row is no dict

    def until_landed(self, grant: str, rows: list[Row]) -> None:
        """Wait until exactly these rows stand in tax's table."""
        eventually(lambda: self.landed(grant) == rows, what=f"{rows} in {grant}", seconds=60)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        ended = [process.wait(30) for process in self._processes]
        for process in self._processes:
            process.communicate()
        if self._worker is not None:
            self._worker.stop()
        self.control.close()
        assert set(ended) == {0}

    def _run(self, user: str, *words: str) -> subprocess.Popen[str]:
        with (self.control.folder / f"{words[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "govbus_console", *words],
                env=os.environ | self._environment(user),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._processes.append(process)
        return process

    def _environment(self, user: str) -> dict[str, str]:
        settings = self.control.running.settings(user)
        return {
            "GOVBUS_HOME": str(self.control.running.home.root),
            "GOVBUS_BROKER_BOOTSTRAP": settings.bootstrap,
            "GOVBUS_BROKER_USER": user,
            "GOVBUS_BROKER_PASSWORD_FILE": str(settings.password_file),
            "GOVBUS_REGISTRY_URL": self.control.running.registry_url,
        }

    def _write(self, name: str, content: object) -> Path:
        file = self.control.folder / name
        file.write_text(json.dumps(content), encoding="utf-8")
        return file


@pytest.fixture
def life(
    bus: RunningBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Life]:
    control = ControlSide(bus, tmp_path)
    street = [
        {**field, "classification": "sensitive"} if field["name"] == "street" else field
        for field in CONTRACT["fields"]
    ]
    # One partition, because a quota is shared out to all that there are.
    said = {**CONTRACT["govbus"], "partitions": 1}
    control.write(contract={**CONTRACT, "govbus": said, "fields": street})
    catalogue, _grants = control.file.read_text(encoding="utf-8").split("grants:\n")
    control.file.write_text(catalogue, encoding="utf-8")
    made = Life(control, monkeypatch, capsys)
    yield made
    made.close()


def test_an_agreement_lives_from_the_catalogue_to_the_receipt(life: Life) -> None:  # noqa: PLR0915 - one life
    owner, tax, ref = life.owner, life.tax, life.ref

    # Published and found: in the catalogue, then on the bus. Nobody receives anything yet.
    assert life.give("apply", "--file", str(life.control.file), "--why", "the catalogue")["grants"] == []
    assert [one["resource"] for one in life.give("find", "Residents", "--owner", owner)["found"]] == [ref]
    for name, department, role in (
        ("li", tax, "subscriber"),
        ("wang", owner, "steward"),
        ("zhao", owner, "steward"),
        ("ops", "", "operator"),
    ):
        life.give("account", "add", name, "--department", department, "--role", role)
    life.start()
    for name in ("li", "zhao"):
        life.give_token(name)
    listed = life.get("/v1/resources?text=Residents", "li")["items"]
    assert [one["share_type"] for one in listed if one["resource"] == ref] == ["conditional"]
    life.change(*((f"{n:02}", f"Name {n:02}", "North" if n < 12 else "South") for n in range(14)))
    assert life.stopped("00") == ("not-shared", "grant")
    assert life.received("00") == []

    # Asked for, asked back, approved by two: the requester is none of them, and nobody counts twice.
    fields = ("--field", "id_number", "--field", "street={truncate: 2}")
    asked = life.give(
        "request", "new", ref, "--as", "li", *fields, "--rows", NORTH, "--purpose", "Assessment",
        "--legal-basis", "Tax law, article 6", "--days", "30", "--data", "blank",
    )  # fmt: skip
    request = asked["id"]
    assert life.give("request", "count", request, "--as", "li")["matching"] == 10
    assert life.give("request", "submit", request, "--as", "li")["state"] == "submitted"
    life.refuse("review", "take", request, "--as", "li")
    life.give("review", "take", request, "--as", "wang")
    question = life.give("review", "ask", request, "Why the street?", "--as", "wang")
    life.refuse("review", "approve", request, "--as", "wang")
    answered = life.give("request", "answer", request, "Rates differ by street", "--as", "li")
    first = life.give("review", "approve", request, "--as", "wang")
    life.refuse("review", "approve", request, "--as", "wang")
    assert life.stopped("00") == ("not-shared", "grant")
    granted = life.give("review", "approve", request, "--as", "zhao")
    assert [one["state"] for one in (question, answered, first, granted)] == [
        "needs_info", "in_review", "in_review", "provisioned",
    ]  # fmt: skip
    grant = granted["grant"]

    # Delivered and landed: these rows, these fields, and nothing else.
    life.until_landed(grant, [{"id_number": f"{n:02}", "street": "No"} for n in range(12)])
    given = life.explain("00")
    assert (given["answer"], given["grant"], given["version"]) == ("shared", grant, 1)
    assert _gates(given)["landed"] == "pass"
    assert life.stopped("12") == ("not-shared", "row-filter")
    assert life.received("00") == [(tax, grant, 1, "delivered")]
    assert life.received("12") == []
    before_amended = datetime.now(UTC).isoformat()

    # Amended wider, by the subscriber, so approved by two again: all rows, and the name.
    wider = life.give(
        "amend", grant, "--as", "li", *fields, "--field", "name", "--rows", "all", "--why", "More"
    )
    assert (wider["state"], wider["approvals_needed"]) == ("submitted", 2)
    life.give("review", "take", wider["id"], "--as", "zhao")
    life.give("review", "approve", wider["id"], "--as", "zhao")
    assert life.give("review", "approve", wider["id"], "--as", "wang")["grant_version"] == 2
    everybody = [
        {"id_number": f"{n:02}", "street": "No" if n < 12 else "So", "name": f"Name {n:02}"}
        for n in range(14)
    ]
    life.until_landed(grant, everybody)
    assert life.stopped("12") == ("shared", None)
    then = life.explain("12", "--at", before_amended)
    assert (then["stopped_by"], then["version"], then["same_answer_now"]) == ("row-filter", 1, False)
    assert life.received("12") == [(tax, grant, 2, "delivered")]

    # Amended narrower, by the owner's steward alone: rows leave, the field is blanked.
    narrower = life.give(
        "amend", grant, "--as", "wang", *fields, "--rows", NORTH, "--why", "More than needed"
    )
    assert (narrower["state"], narrower["grant_version"]) == ("provisioned", 3)
    north = [{"id_number": f"{n:02}", "street": "No", "name": None} for n in range(12)]
    life.until_landed(grant, north)
    assert life.stopped("00") == ("shared", None)
    left = life.explain("12")
    assert (left["stopped_by"], left["version"]) == ("row-filter", 3)
    assert "told to remove the row" in _why(left, "afterwards")
    assert {one[:2] for one in life.received("12")} == {(tax, grant)}

    # Suspended, by its owner only. Meanwhile an emergency: narrow, for an hour, at once, by an operator.
    life.refuse("suspend", grant, "--why", "no more of it", by="li")
    assert life.give("suspend", grant, "--why", "an audit", by="zhao")["state"] == "suspended"
    assert life.give("request", "show", request, "--as", "li")["state"] == "suspended"
    assert life.stopped("00") == ("not-shared", "grant")
    glass = (
        "emergency", ref, "--for", "li", "--field", "id_number", "--field", "name",
        "--rows", "id_number >= '12'", "--purpose", "Flood", "--legal-basis", "Emergency Response Law",
        "--hours", "1", "--quota-records", "3", "--why", "the dyke broke",
    )  # fmt: skip
    life.refuse(*glass, "--as", "li")
    broken = life.give(*glass, "--as", "ops")
    assert (broken["state"], broken["review"]) == ("provisioned", "due")
    life.change(("14", "Name 14", "North"))
    life.until_landed(broken["grant"], [{"id_number": f"{n}", "name": f"Name {n}"} for n in (12, 13, 14)])
    # The worker has been past row 14, so it is the suspension that keeps it back.
    assert life.landed(grant) == north
    spared = life.explain("14")
    assert (spared["answer"], spared["grant"]) == ("shared", broken["grant"])
    assert [(one["grant"], one["stopped_by"]) for one in spared["others"]] == [(grant, "grant")]
    assert life.received("14") == [(tax, broken["grant"], 1, "delivered")]

    # It is neither renewed nor made longer, and not repeated before the owner has reviewed it.
    life.refuse("renew", broken["grant"], "--as", "li", "--days", "1", "--why", "still wet")
    life.refuse("amend", broken["grant"], "--as", "wang", "--days", "1", "--why", "still wet")
    assert broken["id"] in life.refuse(*glass, "--as", "ops")
    assert [one["id"] for one in life.give("review", "list", "--as", "wang")["requests"]] == [broken["id"]]
    life.refuse("review", "emergency", broken["id"], "--upheld", "--why", "right", "--as", "li")
    reviewed = life.give("review", "emergency", broken["id"], "--upheld", "--why", "right", "--as", "wang")
    assert (reviewed["review"], reviewed["reviewed_by"], reviewed["upheld"]) == ("done", "wang", True)

    # Resumed: what was missed arrives.
    assert life.give("resume", grant, "--why", "the audit is over", by="zhao")["state"] == "active"
    north.append({"id_number": "14", "street": "No", "name": None})
    life.until_landed(grant, north)
    assert life.stopped("00") == ("shared", None)

    # Its quota is used up: the next row comes by the ordinary agreement alone, and it is said why.
    life.change(("15", "Name 15", "North"))
    north.append({"id_number": "15", "street": "No", "name": None})
    life.until_landed(grant, north)
    eventually(lambda: life.held() == {broken["grant"]: "quota-used-up"}, what="a quota that is used up")
    assert [row["id_number"] for row in life.landed(broken["grant"])] == ["12", "13", "14"]

    # The emergency's hour passes. Whoever keeps the bus records it; the rows go as the grant says.
    in_two_hours = datetime.now(UTC) + timedelta(hours=2)
    assert expire_due(life.control.store, life.control.bus, now=in_two_hours) == [broken["grant"]]
    life.until_landed(broken["grant"], [])
    assert life.give("request", "show", broken["id"], "--as", "li")["state"] == "expired"
    assert life.later("14", in_two_hours) == ("shared", None)
    assert life.later("13", in_two_hours) == ("not-shared", "row-filter")
    assert {one[:2] for one in life.received("13")} == {(tax, grant), (tax, broken["grant"])}
    life.refuse("resume", broken["grant"], "--why", "once more")

    # Revoked with purge: nothing is delivered any more, the rows go, tax signs for it, the topic goes.
    before_revoked = datetime.now(UTC).isoformat()
    revoked = life.give("revoke", grant, "--data", "delete", "--wait", "30", "--why", "the end", by="zhao")
    receipt = revoked["receipt"]
    assert (revoked["state"], receipt["status"], receipt["duty"]) == ("revoked", "answered", "delete")
    assert (receipt["rows_before"], receipt["rows_after"]) == (14, 0)
    assert life.landed(grant) == []
    eventually(
        lambda: topics.delivered(tax, grant) not in life.control.bus.cluster.topics(), what="the topic gone"
    )
    assert life.give("receipts", "--department", tax)["missing"] == 0
    assert life.later("00", in_two_hours) == ("not-shared", "grant")
    then = life.explain("00", "--at", before_revoked)
    assert (then["answer"], then["same_answer_now"]) == ("shared", False)
    assert {(one[1], one[3]) for one in life.received("00")} == {(grant, "possible")}
    life.refuse("amend", grant, "--as", "wang", "--days", "1", "--why", "once more")
    told = life.give("request", "show", request, "--as", "li")
    assert [event["action"] for event in told["history"]] == [
        "draft", "count", "submit", "take", "ask", "answer", "endorse", "confirm", "provision",
        "suspend", "resume", "revoke",
    ]  # fmt: skip


def _gates(answer: dict[str, Any]) -> dict[str, str]:
    return {gate["gate"]: gate["status"] for gate in answer["gates"]}


def _why(answer: dict[str, Any], name: str) -> str:
    return str(next(gate["why"] for gate in answer["gates"] if gate["gate"] == name))
