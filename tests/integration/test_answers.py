"""Why a row reached a department, and who received it: asked on a real bus, through its commands."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from govbus.event import Change
from govbus_console import cli, render
from govbus_console.control.bus import PSEUDONYM_SECRET
from govbus_consumers.config import parse_config
from govbus_consumers.land import run as land
from govbus_producers.publish import Publisher
from support.broker import RunningBus
from support.control import ControlSide, read_all
from support.exchanges import WorkerProcess, eventually

pytestmark = pytest.mark.broker

SECRETS = ("Zhang Synthetic", "West Lane")
"""Values that no answer may show: a name that is not granted, a street that keeps a row out."""


class Scene:
    """Residents shared with health (those of one street) and with tax (under pseudonyms)."""

    def __init__(self, bus: RunningBus, folder: Path) -> None:
        self.control = ControlSide(bus, folder)
        self.folder = folder
        self._worker: WorkerProcess | None = None
        health_rows = f"""  - id: {self.control.health_grant}
    subscriber: {self.control.health}
    resource: {self.control.owner}.residents
    fields: [id_number, street]
    rows: """
        self.control.write(change=(f"{health_rows}all", f"{health_rows}street = 'East Lane'"))
        whole = self.control.file.read_text(encoding="utf-8")
        self.without_tax = whole[: whole.index(f"  - id: {self.control.tax_grant}")]
        tax = whole[len(self.without_tax) :].replace(
            "[id_number, street]", "[{id_number: pseudonym}, street]"
        )
        self.with_tax = self.without_tax + tax

    def apply(self, text: str) -> None:
        self.control.file.write_text(text, encoding="utf-8")
        self.control.apply()

    def start_exchange(self) -> None:
        home = self.control.running.home
        world: Any = SimpleNamespace(
            bus=self.control.running.embedded,
            folder=self.folder,
            secret_file=home.secrets / f"{PSEUDONYM_SECRET}.password",
        )
        self._worker = WorkerProcess(world, f"{self.control.owner}-w", {})

    def publish(self, number: str, street: str | None) -> None:
        """Publish a resident as it is now, or its deletion."""
        key = {"id_number": number}
        row = None if street is None else key | {"name": SECRETS[0], "street": street}
        owner = self.control.owner
        with Publisher(
            owner, broker=self.control.running.settings(owner), registry=self.control.bus.registry
        ) as publisher:
            done = publisher.publish("residents", [Change(key=key, row=row, changed_at=datetime.now(UTC))])
        assert done.acknowledged == 1

    def delivered(self, grant: str) -> int:
        """How many records stand in a grant's topic."""
        topic = self.control.store.snapshot().grants[grant].published.delivery_topic
        return len(read_all(self.control.running.client(), topic))

    def close(self) -> None:
        if self._worker is not None:
            self._worker.stop()
        self.control.close()


@pytest.fixture
def scene(bus: RunningBus, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(bus, tmp_path)
    yield scene
    scene.close()


@pytest.fixture
def ask(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Ask with --json and as a person would; no answer may show what was not asked for."""
    for name, value in scene.control.environment().items():
        monkeypatch.setenv(name, value)

    def give(*words: str) -> Any:
        capsys.readouterr()
        code = cli.run([*words, "--json"])
        shown = capsys.readouterr()
        cli.run(list(words))
        both = shown.out + shown.err + capsys.readouterr().out
        assert code == render.DONE, shown.err
        assert [secret for secret in SECRETS if secret in both] == []
        return json.loads(shown.out)

    return give


@pytest.fixture
def landing(scene: Scene) -> Iterator[Callable[[], Path]]:
    """Start to land what health is granted; gives its landing file."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start() -> Path:
        control = scene.control
        file = scene.folder / "land.yaml"
        file.write_text(f"department: {control.health}\nsink: sqlite:///{scene.folder}/health.db\n")
        config = parse_config(file.read_text(), name="land.yaml", environment={})
        arguments = (config, control.running.settings(control.health), control.bus.registry)
        threads.append(threading.Thread(target=land, args=arguments, kwargs={"stop": stop}))
        threads[-1].start()
        return file

    yield start
    stop.set()
    for thread in threads:
        thread.join(30)


def test_one_row_after_another_is_explained_through_the_life_of_its_grants(  # noqa: PLR0915 - one story
    scene: Scene, ask: Callable[..., Any], landing: Callable[[], Path]
) -> None:
    control = scene.control
    row, health, tax = f"{control.owner}.residents", control.health, control.tax
    scene.apply(scene.without_tax)
    scene.start_exchange()
    before_any_row = datetime.now(UTC)
    for number, street in (("1", "East Lane"), ("2", "West Lane"), ("3", "East Lane"), ("4", "East Lane")):
        scene.publish(number, street)
    eventually(lambda: scene.delivered(control.health_grant) == 3, what="the rows of East Lane")
    while_all_stood = datetime.now(UTC)
    scene.publish("3", "West Lane")
    scene.publish("4", None)
    eventually(lambda: scene.delivered(control.health_grant) == 5, what="two tombstones")
    landing_file = landing()

    given = ask("explain", "--record", f"{row}/1", "--to", health)
    asked = ("explain", "--record", f"{row}/id_number=2", "--to", health)
    eventually(lambda: statuses(ask(*asked))["routed"] == "stop", what="the row of West Lane worked off")
    filtered = ask(*asked)
    left = ask("explain", "--record", f"{row}/3", "--to", health)
    deleted = ask("explain", "--record", f"{row}/4", "--to", health)
    earlier = ask("explain", "--record", f"{row}/3", "--to", health, "--at", while_all_stood.isoformat())
    too_early = ask("explain", "--record", f"{row}/1", "--to", health, "--at", before_any_row.isoformat())
    not_granted = ask("explain", "--record", f"{row}/1", "--to", tax)

    assert (given["answer"], given["stopped_by"], given["same_answer_now"]) == ("shared", None, True)
    assert statuses(given)["routed"] == statuses(given)["afterwards"] == "pass"
    assert statuses(given)["landed"] == "unknown"
    assert (filtered["answer"], filtered["stopped_by"]) == ("not-shared", "row-filter")
    assert "\"street\" = 'East Lane'" in why(filtered, "row-filter")
    assert (left["answer"], left["stopped_by"]) == ("not-shared", "row-filter")
    assert why(left, "routed").startswith("a tombstone at ")
    assert (deleted["answer"], deleted["stopped_by"]) == ("not-shared", "captured")
    assert (earlier["answer"], earlier["same_answer_now"]) == ("shared", False)
    assert "told to remove" in why(earlier, "afterwards")
    assert (too_early["answer"], too_early["stopped_by"]) == ("not-shared", "captured")
    assert (not_granted["answer"], not_granted["stopped_by"]) == ("not-shared", "grant")

    eventually(lambda: landed_rows(scene), what="the row of health landed")
    looked = ask("explain", "--record", f"{row}/1", "--to", health, "--landing", str(landing_file))
    (gate,) = [gate for gate in looked["gates"] if gate["gate"] == "landed"]
    assert (gate["status"], gate["why"]) == ("pass", "the row stands in the landing table")
    assert while_all_stood <= datetime.fromisoformat(gate["at"]) <= datetime.now(UTC)

    before_tax = datetime.now(UTC)
    scene.apply(scene.with_tax)
    eventually(lambda: scene.delivered(control.tax_grant) >= 3, what="the backfill of tax")
    now_granted = ask("explain", "--record", f"{row}/1", "--to", tax)
    as_before = ask("explain", "--record", f"{row}/1", "--to", tax, "--at", before_tax.isoformat())
    before_revoked = datetime.now(UTC)
    standing = {one["department"]: one for one in ask("who-received", f"{row}/1")["received"]}
    ask("revoke", control.health_grant)
    revoked = ask("explain", "--record", f"{row}/1", "--to", health)
    then = ask("explain", "--record", f"{row}/1", "--to", health, "--at", before_revoked.isoformat())

    assert (now_granted["answer"], statuses(now_granted)["routed"]) == ("shared", "pass")
    assert (as_before["stopped_by"], as_before["same_answer_now"]) == ("grant", False)
    assert (revoked["answer"], revoked["stopped_by"]) == ("not-shared", "grant")
    assert (then["answer"], then["same_answer_now"]) == ("shared", False)

    received = {number: ask("who-received", f"{row}/{number}") for number in "1234"}
    found = {number: {one["department"]: one for one in got["received"]} for number, got in received.items()}
    assert {number: set(by) for number, by in found.items()} == {
        "1": {health, tax},
        "2": {tax},
        "3": {health, tax},
        # The source was not compacted yet, so the backfill of tax held the row, and then its deletion.
        "4": {health, tax},
    }
    # Its delivery topic went with its grant, so what health got can no longer be read there.
    certainty = {(name, one["certainty"]) for by in found.values() for name, one in by.items()}
    assert certainty == {(health, "possible"), (tax, "delivered")}
    assert (standing[health]["certainty"], standing[tax]["certainty"]) == ("delivered", "delivered")
    of_health = standing[health]
    assert (of_health["grant"], of_health["version"]) == (control.health_grant, 1)
    assert of_health["purpose"] == "Vaccination"
    assert before_any_row <= datetime.fromisoformat(of_health["first"]) <= while_all_stood
    assert found["1"][tax]["fields"][0] == {"name": "id_number", "transform": "pseudonym"}


def statuses(answer: dict[str, Any]) -> dict[str, str]:
    return {gate["gate"]: gate["status"] for gate in answer["gates"]}


def why(answer: dict[str, Any], name: str) -> str:
    return str(next(gate["why"] for gate in answer["gates"] if gate["gate"] == name))


def landed_rows(scene: Scene) -> bool:
    """Whether health has landed its one row, and what came after it."""
    store = sqlite3.connect(scene.folder / "health.db")
    try:
        table = scene.control.health_grant.replace("-", "_")
        return store.execute(f'SELECT id_number FROM "{table}"').fetchall() == [("1",)]
    except sqlite3.OperationalError:
        return False  # no tables yet
    finally:
        store.close()
