"""The demo's departments come to their agreements by commands that anybody can type."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from govbus.errors import FatalError
from govbus.grant import GrantState
from govbus.policy import may_share, view_id
from govbus_console import cli, connect, render
from govbus_console.control import apply, lifecycle, outbox
from govbus_console.control.bus import Bus
from govbus_console.control.store import ControlStore, Snapshot
from govbus_console.demo.agree import AGREEMENTS, REFUSED, REVOKED, Agreeing, Wanted, typed
from govbus_console.demo.scene import Scene
from govbus_console.embedded import Home

NAMES = [
    "divisions-for-civil",
    "divisions-for-health",
    "divisions-for-quzhou",
    "residents-for-health",
    "marriages-for-quzhou",
]


class Play:
    """A home with a control store, on a bus that always obeys, and every line that was typed."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home").create()
        self.catalogue = Scene(self.home).write_catalogue()
        self.lines: list[str] = []
        self.agreeing = Agreeing(self.home, self._step)

    def known(self) -> Snapshot:
        """What is on record."""
        store = self.store()
        try:
            return store.snapshot()
        finally:
            store.close()

    def store(self) -> ControlStore:
        return ControlStore.open(f"sqlite:///{self.home.state / 'control.db'}")

    def agree(self) -> list[str]:
        """Do all that a demo does; returns the ids of the grants that were made."""
        self.agreeing.apply(self.catalogue)
        self.agreeing.open_accounts()
        known, now = self.known(), datetime.now(UTC)
        made = [self.agreeing.come_to(wanted) for wanted in AGREEMENTS if wanted.met(known, now) is None]
        self.agreeing.ask_in_vain(REFUSED)
        return made

    def _step(self, name: str, work: Callable[[], Any]) -> Any:
        self.lines.append(name)
        return work()


@pytest.fixture(scope="module")
def obedient() -> Iterator[None]:
    """A bus that has no broker and refuses nothing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _let_obey(monkeypatch)
        yield


def _let_obey(monkeypatch: pytest.MonkeyPatch) -> None:
    schemas: list[str] = []

    def register(_registry: object, subject: str, *_: object) -> int:
        schemas.append(subject)
        return 100 + len(schemas)

    for name in ("set_up", "_departments"):
        monkeypatch.setattr(apply, name, lambda *_, **__: None)
    for module in (apply, lifecycle):
        monkeypatch.setattr(module, "settle", lambda *_, **__: outbox.Settled(published=0, barriers=()))
    monkeypatch.setattr(apply, "register", register)
    bus = cast(Bus, SimpleNamespace(registry=MagicMock(), cluster=MagicMock(), broker=None, home=None))

    @contextmanager
    def reach() -> Iterator[Bus]:
        assert "GOVBUS_BROKER_BOOTSTRAP" not in os.environ
        yield bus

    monkeypatch.setattr(connect, "bus", reach)


@pytest.fixture
def play(obedient: None, tmp_path: Path) -> Play:
    return Play(tmp_path)


@pytest.fixture(scope="module")
def agreed(obedient: None, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """After a first demo. Tests only look at it."""
    played = Play(tmp_path_factory.mktemp("agreed"))
    assert played.agree() == NAMES
    return played


def test_the_departments_come_to_every_agreement(agreed: Play) -> None:
    grants = agreed.known().grants

    assert sorted(grants) == sorted(NAMES)
    assert {stored.grant.state for stored in grants.values()} == {GrantState.ACTIVE}
    assert not [stored for stored in grants.values() if stored.grant.subscriber == "tax"]


def test_what_shows_core_fields_is_approved_by_two(agreed: Play) -> None:
    approvals = [line for line in agreed.lines if line.startswith("govbus review approve ")]

    assert [line.rpartition(" ")[2] for line in approvals] == ["feng-civil", "chen-civil"] * 2


def test_whatever_is_shown_can_be_typed_as_it_stands(
    agreed: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line into another home: the same agreements come of it."""
    other = Play(tmp_path / "other")
    monkeypatch.setenv("GOVBUS_HOME", str(other.home.root))

    for line in agreed.lines:
        govbus, *words = shlex.split(line)
        assert govbus == "govbus"
        assert cli.run(words) == render.DONE, line

    def grants(one: Play) -> dict[str, Any]:
        made = (stored.grant for stored in one.known().grants.values())
        return {grant.id: (grant.subscriber, grant.fields, grant.rows, grant.purpose) for grant in made}

    assert grants(other) == grants(agreed)


def test_civil_and_health_may_share_one_delivery_of_the_divisions(agreed: Play) -> None:
    known = agreed.known()
    civil, health, quzhou = (known.grants[f"divisions-for-{name}"] for name in ("civil", "health", "quzhou"))
    share_type = known.resources["stats.divisions"].resource.share_type
    assert may_share(civil.grant, share_type)
    assert may_share(health.grant, share_type)
    assert view_id(civil.grant, 1) == view_id(health.grant, 1) != view_id(quzhou.grant, 1)


def test_health_is_granted_no_phone_and_no_address(agreed: Play) -> None:
    granted = agreed.known().grants["residents-for-health"].grant

    assert [rule.name for rule in granted.fields] == ["id_number", "name", "sex", "birth_date", "division"]


@pytest.mark.parametrize(
    "word", ["plain", "two words", "city = '3308'", "both ' and \"", "a ' and $HOME", "", "统计法"]
)
def test_a_word_is_shown_so_that_the_shell_gives_it_back(word: str) -> None:
    shown = subprocess.run(
        ["sh", "-c", typed([word]).replace("govbus", "printf %s", 1)],
        capture_output=True,
        check=True,
        timeout=20,
    )

    assert shown.stdout.decode() == word


def test_a_second_demo_asks_only_for_what_has_ended(play: Play) -> None:
    play.agree()
    store = play.store()
    bus = cast(Bus, None)
    lifecycle.revoke("residents-for-health", store, bus, who="tester", why="half way")
    store.close()
    play.lines.clear()

    assert play.agree() == ["residents-for-health-2"]

    assert not [line for line in play.lines if line.startswith("govbus account add ")]
    found = REVOKED.met(play.known(), datetime.now(UTC))
    assert found is not None
    assert found.grant.id == "residents-for-health-2"
    assert REVOKED.met(play.known(), datetime.now(UTC) + timedelta(days=REVOKED.days + 1)) is None


def test_a_command_that_is_refused_ends_the_demo(play: Play) -> None:
    play.agreeing.apply(play.catalogue)
    play.agreeing.open_accounts()
    withheld = Wanted(
        subscriber="tax",
        resource="civil.protected-persons",
        fields=("case_number",),
        rows="all",
        purpose="None that counts",
        legal_basis="None",
        days=1,
    )

    with pytest.raises(FatalError, match=r"govbus request new civil\.protected-persons .*withheld"):
        play.agreeing.come_to(withheld)


def test_another_bus_in_the_environment_is_left_alone(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bus of this test fails when a command could have taken the other one."""
    monkeypatch.setenv("GOVBUS_BROKER_BOOTSTRAP", "elsewhere:9092")
    before = dict(os.environ)

    play.agreeing.apply(play.catalogue)

    assert dict(os.environ) == before
    assert "civil.residents" in play.known().resources
