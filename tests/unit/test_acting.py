"""With ``--as``, a command on the store itself goes as far as the account's roles: by the API's own rules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from govbus_console import cli
from govbus_console.api.client import Connection
from govbus_console.control import accounts
from govbus_console.control.store import AuditRow, ControlStore
from support.requesting import LI, MONDAY, Office

GRANT = "residents-for-tax"
ALLOWED = (5, "broker-unavailable")
"""The rule let it pass, and only then was the bus looked for: there is none."""

NOT_ALLOWED, NOT_FOUND = (4, "not-allowed"), (1, "not-found")

Give = Callable[..., tuple[int, str]]


@pytest.fixture
def store(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlStore]:
    """One grant of civil's to tax, and accounts of both, of another department and of the bus."""
    opened = ControlStore.open(f"sqlite:///{shutil.copy(filled, tmp_path)}")
    with pytest.MonkeyPatch.context() as patch:
        Office(opened, patch).provisioned()
    for name in ("GOVBUS_ACCOUNT", "GOVBUS_ACTOR", "GOVBUS_API_URL", "GOVBUS_BROKER_BOOTSTRAP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GOVBUS_CONTROL_URL", f"sqlite:///{tmp_path / 'control.db'}")
    yield opened
    opened.close()


@pytest.fixture
def give(store: ControlStore, capsys: pytest.CaptureFixture[str]) -> Give:
    """Give a command; returns its exit code and the code of its error."""

    def given(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.run([*words, "--json"])
        return code, json.loads(capsys.readouterr().err)["error"]["code"]

    return given


@pytest.mark.parametrize("command", ["suspend", "resume"])
@pytest.mark.parametrize(
    ("account", "answer"),
    [
        ("wang-civil", ALLOWED),
        ("qian-ops", ALLOWED),
        ("li-tax", NOT_ALLOWED),
        ("hu-tax", NOT_ALLOWED),
        ("zhou-audit", NOT_ALLOWED),
        ("sun-health", NOT_FOUND),
        ("nobody", NOT_FOUND),
    ],
)
def test_a_stream_is_stopped_by_the_owner_s_steward_and_by_operators(
    give: Give, command: str, account: str, answer: tuple[int, str]
) -> None:
    assert give(command, GRANT, "--as", account) == answer


@pytest.mark.parametrize(
    ("account", "answer"),
    [
        ("wang-civil", ALLOWED),
        ("qian-ops", NOT_ALLOWED),
        ("li-tax", NOT_ALLOWED),
        ("hu-tax", NOT_ALLOWED),
        ("zhou-audit", NOT_ALLOWED),
        ("sun-health", NOT_FOUND),
    ],
)
def test_an_agreement_is_ended_by_the_owner_s_steward_alone(
    give: Give, account: str, answer: tuple[int, str]
) -> None:
    assert give("revoke", GRANT, "--as", account) == answer


@pytest.mark.parametrize("command", ["suspend", "resume", "revoke"])
def test_the_account_of_the_environment_is_asked_as_well(
    give: Give, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("GOVBUS_ACCOUNT", "li-tax")

    assert give(command, GRANT) == NOT_ALLOWED


@pytest.mark.parametrize("command", ["suspend", "resume", "revoke"])
def test_an_account_that_is_disabled_does_nothing(give: Give, store: ControlStore, command: str) -> None:
    accounts.disable(store, "wang-civil", who="tester", why="left", now=MONDAY)

    assert give(command, GRANT, "--as", "wang-civil") == NOT_ALLOWED


@pytest.mark.parametrize("command", ["suspend", "resume", "revoke"])
def test_whoever_may_write_the_store_needs_no_account(give: Give, command: str) -> None:
    assert give(command, GRANT) == ALLOWED


def test_the_name_of_whoever_acts_without_an_account_never_passes_for_an_account(
    store: ControlStore,
) -> None:
    """What is given with ``--who`` is nobody's login: only a mark tells it from an account."""
    cli.run(
        ["account", "add", "new-tax", "--department", "tax", "--role", "subscriber", "--who", "wang-civil"]
    )

    with store.reading() as session:
        (who,) = session.scalars(select(AuditRow.who).where(AuditRow.what == "account new-tax"))
    assert who == "wang-civil (no account)"


@pytest.mark.parametrize("command", ["suspend", "resume", "revoke"])
def test_through_the_api_nobody_acts_as_another_than_the_token_s_account(
    give: Give, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    token = tmp_path / "li.token"
    token.write_text("a-token", encoding="utf-8")
    monkeypatch.setenv("GOVBUS_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_API_TOKEN_FILE", str(token))
    me = {"account": "li-tax", "department": "tax", "roles": ["subscriber"]}
    monkeypatch.setattr(Connection, "ask", lambda *_, **__: me)

    assert give(command, GRANT, "--as", "wang-civil") == NOT_ALLOWED


TERMS = ("--purpose", "Assessment", "--legal-basis", "the law", "--field", "code", "--rows", "code = '1'")


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (
            ("amend", GRANT, "--days", "5", "--why", "less"),
            {"sun-health": NOT_FOUND, "qian-ops": NOT_ALLOWED, "zhou-audit": NOT_ALLOWED},
        ),
        (
            ("renew", GRANT, "--days", "90", "--why", "more"),
            {"sun-health": NOT_FOUND, "qian-ops": NOT_ALLOWED, "wang-civil": NOT_ALLOWED},
        ),
        (
            ("emergency", "civil.residents", "--for", LI.name, "--hours", "5", "--why", "a flood", *TERMS),
            {"sun-health": NOT_ALLOWED, "hu-tax": NOT_ALLOWED, "zhou-audit": NOT_ALLOWED},
        ),
    ],
)
def test_what_makes_a_version_asks_the_account_too(
    give: Give, words: tuple[str, ...], answers: dict[str, tuple[int, str]]
) -> None:
    """These do not work without an account at all."""
    assert {account: give(*words, "--as", account) for account in answers} == answers
