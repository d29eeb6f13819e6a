"""Which commands work through the API: the table in docs/api.md, and that they print the same.

Each command is given twice, in two worlds that are alike: with the store at hand, and with
a token and nothing else.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from govbus.grant import GrantState
from govbus_console import cli, connect, render
from govbus_console.answers import direct as direct_answers
from govbus_console.api import client as api_client
from govbus_console.control import direct_receipts
from govbus_console.control.direct import DirectControl
from govbus_console.control.direct_receipts import DirectReceipts
from govbus_console.control.roles import Account, Role
from support.api import Desk, RowAnswers, a_desk, a_store, add_account
from support.requesting import CONTRACT, an_ask

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("## Which commands work through it")[1].split("\n## ")[0].splitlines()
    if line.startswith("| `")
]
THROUGH = {
    command: re.findall(r"`((?:GET|POST) /v1/[^`]+)`", how)
    for commands, how, _ in TABLE
    for command in re.findall(r"`([^`]+)`", commands)
}
"""Each command with the routes that it asks; none: it does not work through the API."""

WITHOUT_A_COMMAND = {
    "GET /v1/openapi.json",
    "GET /v1/me",
    "GET /v1/tokens",
    "POST /v1/tokens/{token_id}/revoke",
    "GET /v1/departments",
    "GET /v1/resources",
    "GET /v1/resources/{ref}",
    "GET /v1/grants/{grant_id}",
}
"""What programs ask and no command does, beside who one is."""


def commands() -> set[str]:
    """Every command that there is, as it is typed."""
    found = {str(one.name) for one in cli.app.registered_commands}
    for group in cli.app.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        found |= {f"{inner.info.name} {one.name}" for one in inner.registered_commands}
    return found


def test_the_table_names_each_command_once() -> None:
    named = [name for commands, _, _ in TABLE for name in re.findall(r"`([^`]+)`", commands)]

    assert len(named) == len(set(named))
    assert set(named) == commands()


def test_a_command_that_does_not_work_through_the_api_has_a_reason() -> None:
    without = [row for row in TABLE if "/v1/" not in row[1]]

    assert without
    assert all(how == "no" and len(why.split()) > 5 for _, how, why in without)


def test_the_table_names_each_route_that_there_is(desk: Desk) -> None:
    routes = {
        f"{method} {route.path}"  # type: ignore[attr-defined]
        for route in desk.app.routes
        for method in route.methods  # type: ignore[attr-defined]
    }

    assert {route for asked in THROUGH.values() for route in asked} == routes - WITHOUT_A_COMMAND


CATALOGUE = """departments:
  - {name: civil, title: Civil}
resources:
  - {ref: civil.clinics, title: Clinics, share_type: conditional, contract: clinics.avsc}
grants:
  - id: clinics-for-health
    subscriber: health
    resource: civil.clinics
    fields: [code, {name: {truncate: 2}}]
    rows: all
    purpose: Vaccination
    starts_at: 2026-01-01T00:00:00+08:00
    expires_at: 2030-01-01T00:00:00+08:00
"""

WORDS: dict[str, tuple[str, ...]] = {
    "find": ("find", "civil", "--limit", "2"),
    "who-uses": ("who-uses", "civil.residents", "--ended"),
    "can": ("can", "tax", "civil.residents.name"),
    "explain": ("explain", "--record", "civil.residents/33", "--to", "health", "--at", "2026-05-01"),
    "who-received": ("who-received", "civil.residents/33"),
    "receipts": ("receipts",),
    "receipt-key": ("receipt-key", "health"),
    "plan": ("plan", "--file", "catalogue.yaml", "--count-seconds", "0", "--detailed-exitcode"),
    "apply": ("apply", "--file", "catalogue.yaml", "--count-seconds", "0"),
    "grant list": ("grant", "list"),
    "grant show": ("grant", "show", "x"),
    "suspend": ("suspend", "x"),
    "resume": ("resume", "x"),
    "revoke": ("revoke", "x"),
    "status": ("status",),
    "amend": ("amend", "x", "--rows", "all", "--why", "y"),
    "renew": ("renew", "x", "--days", "3", "--why", "y"),
    "emergency": (
        "emergency", "civil.residents", "--for", "li", "--field", "code", "--rows", "code = '1'",
        "--purpose", "p", "--legal-basis", "l", "--hours", "3", "--why", "y",
    ),
    "request new": (
        "request", "new", "civil.residents", "--field", "code", "--rows", "all",
        "--purpose", "p", "--legal-basis", "l", "--days", "3",
    ),
    "request list": ("request", "list"),
    "request show": ("request", "show", "r-1"),
    "request count": ("request", "count", "r-1"),
    "request submit": ("request", "submit", "r-1"),
    "request answer": ("request", "answer", "r-1", "for the clinics"),
    "request withdraw": ("request", "withdraw", "r-1"),
    "review list": ("review", "list"),
    "review take": ("review", "take", "r-1"),
    "review ask": ("review", "ask", "r-1", "what for?"),
    "review approve": ("review", "approve", "r-1"),
    "review reject": ("review", "reject", "r-1", "--ground", "duplicate"),
    "review emergency": ("review", "emergency", "r-1", "--upheld", "--why", "y"),
}  # fmt: skip
"""Each command that works through the API, as it may be typed."""


def test_the_words_below_are_those_of_the_table() -> None:
    assert WORDS.keys() == {command for command, routes in THROUGH.items() if routes}


@pytest.mark.parametrize("command", WORDS)
def test_with_an_api_named_a_command_asks_it_and_touches_nothing_else(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing listens there; no store, no home and no bus is looked for instead."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("govbus_x", encoding="utf-8")
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GOVBUS_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_API_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("GOVBUS_ACCOUNT", "li")

    code = cli.run([*WORDS[command], "--json"])

    told = json.loads(capsys.readouterr().err)
    assert (code, told["error"]["code"]) == (render.UNREACHABLE, "api-unavailable")
    assert not (tmp_path / "home").exists()


def test_a_landing_file_is_not_looked_at_from_afar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOVBUS_API_URL", "http://127.0.0.1:1")

    code = cli.run([*WORDS["explain"], "--landing", str(tmp_path / "land.yaml")])

    assert code == render.USAGE
    assert "leave --landing out" in capsys.readouterr().err


# -- both ways ---------------------------------------------------------------------------------------

MOMENT = datetime.now(UTC).replace(microsecond=0)
KEEPER = Account(name="keeper", department="civil", roles=frozenset({Role.STEWARD}))


def write_files(folder: Path) -> None:
    (folder / "catalogue.yaml").write_text(CATALOGUE, encoding="utf-8")
    (folder / "clinics.avsc").write_text(json.dumps(CONTRACT), encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with a_world(tmp_path, monkeypatch) as made:
        yield made


@contextmanager
def a_world(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A store with a grant to tax and one to health that has ended, and an API over it."""
    folder.mkdir(parents=True, exist_ok=True)
    store = a_store(folder)
    desk = a_desk(store, monkeypatch, now=MOMENT)
    desk.office.now = MOMENT
    monkeypatch.setattr(
        desk,
        "_control",
        lambda who: DirectControl(
            store=lambda: nullcontext(store), bus=desk.office.reach, look=dict, who=who
        ),
    )
    monkeypatch.setattr(
        desk,
        "_receipts",
        lambda who: DirectReceipts(store=lambda: nullcontext(store), bus=desk.office.reach, who=who),
    )
    # There is no bus on which anything could have come meanwhile.
    monkeypatch.setattr(direct_receipts.endings, "follow_up", lambda *_, **__: None)
    add_account(store, KEEPER.name, "civil", "steward")
    for department in ("tax", "health"):
        asker = Account(name=f"asker-{department}", department=department, roles=frozenset({Role.SUBSCRIBER}))
        add_account(store, asker.name, department, "subscriber")
        made = desk.office.desk.draft(asker, an_ask()).id
        desk.office.desk.submit(asker, made)
        desk.office.desk.take(KEEPER, made)
        granted = desk.office.desk.approve(KEEPER, made).grant_id
    stored = store.snapshot().grants[str(granted)]
    ended = replace(stored.grant, version=2, state=GrantState.REVOKED)
    with store.writing(who="keeper", why="ended", now=MOMENT) as writing:
        writing.grant(replace(stored, published=replace(stored.published, grant=ended)))
    yield desk
    store.close()


@dataclass
class Given:
    """What a command came to."""

    code: int
    out: str
    err: str


Both = Callable[..., tuple[Given, Given]]


@contextmanager
def two_worlds(folder: Path) -> Iterator[tuple[Desk, Desk]]:
    """Two that are alike."""
    with (
        pytest.MonkeyPatch.context() as patch,
        a_world(folder / "near", patch) as near,
        a_world(folder / "far", patch) as far,
    ):
        patch.setattr(direct_answers, "DirectAnswers", RowAnswers)
        yield near, far


@pytest.fixture(scope="module")
def shared_worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, Desk]]:
    """Two for many questions; what changes one changes the other as well."""
    with two_worlds(tmp_path_factory.mktemp("worlds")) as worlds:
        yield worlds


@pytest.fixture
def either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[tuple[Desk, Desk]], Both]:
    """Give a command at hand in one world and from afar in the other."""
    plain = api_client.Connection
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path / "home"))

    def run(*words: str) -> Given:
        capsys.readouterr()
        code = cli.run(words)
        shown = capsys.readouterr()
        return Given(code, shown.out, shown.err)

    def ways(worlds: tuple[Desk, Desk]) -> Both:
        near, far = worlds

        def give(role: str, department: str | None, *words: str) -> tuple[Given, Given]:
            (tmp_path / "token").write_text(far.token(role, department), encoding="utf-8")
            monkeypatch.delenv("GOVBUS_API_URL", raising=False)
            monkeypatch.setattr(connect, "store", lambda: nullcontext(near.store))
            monkeypatch.setattr(connect, "bus", near.office.reach)
            at_hand = run(*words)
            monkeypatch.setattr(connect, "store", _nothing_at_hand)
            monkeypatch.setattr(connect, "bus", _nothing_at_hand)
            monkeypatch.setenv("GOVBUS_API_URL", "http://127.0.0.1:1")
            monkeypatch.setenv("GOVBUS_API_TOKEN_FILE", str(tmp_path / "token"))
            transport = TestClient(far.app, raise_server_exceptions=False)._transport
            monkeypatch.setattr(api_client, "Connection", functools.partial(plain, transport=transport))
            return at_hand, run(*words)

        return give

    return ways


def _nothing_at_hand() -> Any:
    raise AssertionError("a command with a token has no store and no broker")


QUESTIONS = [
    ("auditor", None, WORDS["find"]),
    ("auditor", None, ("find", "phone", "--owner", "civil", "--share-type", "conditional", "--not-open")),
    ("auditor", None, ("find", "nothing-of-this-name")),
    ("auditor", None, WORDS["who-uses"]),
    ("auditor", None, ("who-uses", "civil.offices")),
    ("auditor", None, ("who-uses", "civil.nothing")),
    ("auditor", None, ("who-uses", "nonsense")),
    ("auditor", None, WORDS["can"]),
    ("auditor", None, ("can", "health", "civil.residents")),
    ("auditor", None, ("can", "stats", "civil.protected")),
    ("auditor", None, ("can", "nobody", "civil.residents")),
    ("auditor", None, WORDS["explain"]),
    ("auditor", None, WORDS["who-received"]),
    ("auditor", None, WORDS["receipts"]),
    ("auditor", None, ("receipts", "--department", "tax")),
    ("auditor", None, WORDS["receipt-key"]),
    ("operator", None, ("receipt-key", "health", "--enrol", "ab" * 32)),
    ("operator", None, ("receipt-key", "nobody")),
    ("steward", "civil", WORDS["plan"]),
    ("steward", "civil", WORDS["apply"]),
    ("steward", "civil", ("plan", "--file", "no-such-file.yaml")),
]


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize(
    ("role", "department", "words"), QUESTIONS, ids=[" ".join(words[:3]) for _, _, words in QUESTIONS]
)
def test_a_command_prints_the_same_through_the_api(
    shared_worlds: tuple[Desk, Desk],
    either_way: Callable[[tuple[Desk, Desk]], Both],
    role: str,
    department: str | None,
    words: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    give = either_way(shared_worlds)

    at_hand, afar = give(role, department, *words, *(["--json"] if as_json else []))

    assert afar == at_hand
    assert at_hand.out or at_hand.err


def test_a_plan_that_was_saved_from_afar_is_applied_from_afar_and_refused_when_it_has_moved(
    either_way: Callable[[tuple[Desk, Desk]], Both], tmp_path: Path
) -> None:
    with two_worlds(tmp_path / "worlds") as worlds:
        give = functools.partial(either_way(worlds), "steward", "civil")

        planned = give("plan", "--file", "catalogue.yaml", "--out", "plan.json", "--count-seconds", "0")
        applied = give("apply", "--plan", "plan.json", "--count-seconds", "0")
        moved = give("apply", "--plan", "plan.json", "--count-seconds", "0")
        (tmp_path / "clinics.avsc").write_text(json.dumps(CONTRACT | {"doc": "Clinics"}), encoding="utf-8")
        other_file = give("apply", "--plan", "plan.json", "--count-seconds", "0")

    assert [one.code for one in planned] == [render.DONE, render.DONE]
    # The plan in the file was made from afar: both stores are alike in all that counts.
    assert [one.code for one in applied] == [render.DONE, render.DONE]
    assert [one.code for one in (*moved, *other_file)] == [render.REFUSED] * 4
    for at_hand, afar in (planned, applied, moved, other_file):
        assert afar == at_hand
    assert "plan-moved" in moved[1].err
