"""The command line: help for everything, fixed exit codes, errors in four parts, no secret in any."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from govbus import errors
from govbus.errors import BusError
from govbus_console import cli, render
from govbus_console.control.store import ControlStore

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-hunter2"

CATALOGUE = """\
departments:
  - {name: stats, title: Statistics}
  - {name: quzhou, title: Quzhou}
resources:
  - {ref: stats.divisions, title: Divisions, share_type: conditional}
grants:
  - id: quzhou-divisions
    subscriber: quzhou
    resource: stats.divisions
    fields: [code]
    rows: all
    purpose: Address register
    term_days: 30
"""

CONTRACT = {
    "type": "record",
    "name": "Division",
    "govbus": {"version": 1, "kind": "state", "key": ["code"]},
    "fields": [{"name": "code", "type": "string", "classification": "public"}],
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    contract = tmp_path / "avro_schemas" / "stats" / "divisions.avsc"
    contract.parent.mkdir(parents=True)
    contract.write_text(json.dumps(CONTRACT), encoding="utf-8")
    (tmp_path / "catalogue.yaml").write_text(CATALOGUE, encoding="utf-8")


def commands() -> list[typer.models.CommandInfo]:
    return cli.app.registered_commands


def every_subclass(kind: type[BusError]) -> set[type[BusError]]:
    found = {kind}
    for child in kind.__subclasses__():
        found |= every_subclass(child)
    return found


def test_the_command_line_has_what_the_manual_names() -> None:
    names = {command.name for command in commands()}

    assert names == {
        "up", "down", "demo", "apply", "plan", "status", "doctor", "capture", "exchange", "land",
        "revoke", "suspend", "resume", "tail", "explain", "who-received", "find", "who-uses", "can",
        "receipts", "receipt-key",
        "amend", "renew", "emergency", "api",
    }  # fmt: skip


@pytest.mark.parametrize("command", commands(), ids=lambda command: str(command.name))
def test_every_command_explains_itself_and_every_option(
    command: typer.models.CommandInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.callback is not None
    assert command.callback.__doc__

    code = cli.run([str(command.name), "--help"])

    shown = capsys.readouterr().out
    assert code == 0
    assert "--json" in shown
    options = re.findall(
        r"^  (?:-\w, )?(--[\w-]+)(?: \S+| <[^>]+>)*(?:  +(\S.*)|\n {10,}(\S.*))?$", shown, re.M
    )
    assert options
    assert [name for name, beside, below in options if not (beside or below)] == []


@pytest.mark.parametrize("command", commands(), ids=lambda command: str(command.name))
def test_every_command_is_in_the_manual_with_its_options(
    command: typer.models.CommandInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    manual = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    cli.run([str(command.name), "--help"])

    options = set(re.findall(r"--[a-z][\w-]+", capsys.readouterr().out)) - {"--help", "--json"}

    section = re.search(rf"^## `govbus {command.name}`$(.*?)(?=^## |\Z)", manual, re.M | re.S)
    assert section is not None
    assert {option for option in options if option not in section[1]} == set()


def group_commands() -> list[tuple[str, str]]:
    """Commands that belong to a group: the group and the command."""
    return [
        (str(group.typer_instance.info.name), str(command.name))
        for group in cli.app.registered_groups
        if group.typer_instance is not None
        for command in group.typer_instance.registered_commands
    ]


def test_the_groups_have_what_the_manual_names() -> None:
    assert set(group_commands()) == {
        ("request", "new"), ("request", "list"), ("request", "show"), ("request", "count"),
        ("request", "submit"), ("request", "answer"), ("request", "withdraw"),
        ("review", "list"), ("review", "take"), ("review", "ask"), ("review", "approve"),
        ("review", "reject"), ("review", "emergency"),
        ("grant", "list"), ("grant", "show"),
        ("account", "add"), ("account", "list"), ("account", "disable"),
        ("calendar", "apply"), ("calendar", "show"), ("clocks", "run"), ("notices", "drain"),
        ("token", "new"), ("token", "list"), ("token", "revoke"),
    }  # fmt: skip


@pytest.mark.parametrize(("group", "command"), group_commands())
def test_every_command_of_a_group_explains_itself_and_is_in_the_manual(
    group: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manual = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")

    code = cli.run([group, command, "--help"])

    shown = capsys.readouterr().out
    options = set(re.findall(r"--[a-z][\w-]+", shown)) - {"--help"}
    section = re.search(rf"^## `govbus {group}`$(.*?)(?=^## |\Z)", manual, re.M | re.S)
    assert code == 0
    assert "--json" in options
    assert section is not None
    assert f"`{command}`" in section[1]
    assert {option for option in options - {"--json"} if option not in section[1]} == set()


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    capsys.readouterr()
    code = cli.run([*words, "--json"])
    shown = capsys.readouterr()
    return code, json.loads((shown.out or shown.err).splitlines()[-1])


def test_people_ask_decide_and_are_told_by_their_accounts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that needs no broker: the decision itself is in tests/integration/test_requests.py."""
    from support.requesting import fill

    store = ControlStore.open(f"sqlite:///{tmp_path / 'home' / 'state' / 'control.db'}")
    fill(store)
    store.close()
    new = (
        "request", "new", "civil.residents", "--field", "code", "--field", "phone={truncate: 3}",
        "--rows", "all", "--purpose", "Care", "--legal-basis", "A law", "--days", "30",
        "--quota-keys", "10",
    )  # fmt: skip

    first, made = as_json(capsys, *new, "--as", "li-tax")
    stranger, error = as_json(capsys, *new, "--as", "nobody")
    no_subscriber, _ = as_json(capsys, *new, "--as", "wang-civil")
    as_json(capsys, "request", "submit", "r-1", "--as", "li-tax")
    as_json(capsys, "review", "take", "r-1", "--as", "wang-civil")
    as_json(capsys, "review", "ask", "r-1", "Why?", "--as", "wang-civil")
    as_json(capsys, "request", "answer", "r-1", "Because", "--as", "li-tax")
    ground = cli.run(["review", "reject", "r-1", "--ground", "no", "--as", "wang-civil"])
    _, rejected = as_json(capsys, "review", "reject", "r-1", "--ground", "duplicate", "--as", "wang-civil")
    late, _ = as_json(capsys, "request", "withdraw", "r-1", "--as", "li-tax")
    _, listed = as_json(capsys, "request", "list", "--state", "rejected", "--as", "li-tax")
    _, drained = as_json(capsys, "notices", "drain", "--to", str(tmp_path / "notices.jsonl"))
    cli.run(["request", "show", "r-1", "--as", "li-tax"])

    assert (first, made["state"], made["quota_keys_per_day"]) == (render.DONE, "draft", 10)
    assert made["fields"] == [
        {"name": "code", "transform": "keep"},
        {"name": "phone", "transform": {"truncate": 3}},
    ]
    assert (stranger, no_subscriber, late) == (render.FAILED, render.REFUSED, render.REFUSED)
    assert "nobody" in str(error)
    assert ground == render.USAGE
    assert (rejected["state"], rejected["ground"]) == ("rejected", "duplicate")
    assert [one["id"] for one in listed["requests"]] == ["r-1"]  # type: ignore[attr-defined]
    assert drained == {"sent": 4}
    assert "Because" in capsys.readouterr().out


def test_every_error_code_is_in_the_manual() -> None:
    manual = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    importlib.import_module("govbus_console.api.errors")
    modules = (errors.__name__, "govbus_console.api.errors")
    codes = {kind.code for kind in every_subclass(BusError) if kind.__module__ in modules}

    assert {code for code in codes if f"### {code}\n" not in manual} == set()


def test_help_loads_no_heavy_module_and_answers_at_once() -> None:
    script = (
        "import sys; from govbus_console.cli import run; code = run(['--help']); "
        "heavy = {'confluent_kafka', 'sqlalchemy', 'alembic', 'faust', 'mode', 'pydantic', 'fastavro', "
        "'rich', 'yaml', 'sqlglot', 'structlog', 'prometheus_client', "
        "'fastapi', 'httpx2'} & set(sys.modules); "
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert "apply" in done.stdout


def test_help_takes_less_than_300_ms_of_work() -> None:
    """Processor time, not waiting: the machine that runs the tests may be busy."""
    import resource

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    best = 10.0
    for _ in range(5):
        before = spent()
        subprocess.run([sys.executable, "-m", "govbus_console", "--help"], capture_output=True, check=True)
        best = min(best, spent() - before)

    assert best < 0.3


def test_a_plan_changes_nothing_and_says_that_changes_are_pending(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = cli.run(["plan", "-f", "catalogue.yaml"])
    detailed = cli.run(["plan", "-f", "catalogue.yaml", "--detailed-exitcode"])
    capsys.readouterr()
    as_json = cli.run(["plan", "-f", "catalogue.yaml", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert (plain, detailed, as_json) == (render.DONE, render.PENDING, render.DONE)
    assert told["pending"] is True
    assert {change["action"] for change in told["changes"]} == {"create"}
    store = ControlStore.open(f"sqlite:///{tmp_path / 'home' / 'state' / 'control.db'}")
    assert store.snapshot().departments == {}
    store.close()


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (("share_type: conditional", "share_type: open"), render.FAILED, "invalid-catalogue"),
        (("fields: [code]", "fields: [cod]"), render.REFUSED, "grant-refused"),
        (("rows: all", "rows: 1 = 1"), render.REFUSED, "filter-refused"),
        (("[code]", "[code: {generalise: year}]"), render.REFUSED, "transform-refused"),
        (("conditional", "withheld"), render.REFUSED, "grant-refused"),
    ],
)
def test_a_refusal_has_four_parts_and_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], code: int, named: str
) -> None:
    (tmp_path / "catalogue.yaml").write_text(CATALOGUE.replace(*change), encoding="utf-8")

    ended = cli.run(["plan", "-f", "catalogue.yaml"])

    shown = capsys.readouterr()
    assert (ended, shown.out) == (code, "")
    lines = shown.err.splitlines()
    assert [line.split()[0] for line in lines] == ["error", "why", "fix", "more"]
    assert f"[{named}]" in lines[0]
    assert "catalogue.yaml, line " in lines[1]
    assert all(line.split(maxsplit=1)[1] for line in lines)
    assert "Traceback" not in shown.err


def test_with_json_an_error_is_one_object_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "catalogue.yaml").write_text("nonsense\n", encoding="utf-8")

    ended = cli.run(["plan", "-f", "catalogue.yaml", "--json"])

    told = json.loads(capsys.readouterr().err)
    assert ended == render.FAILED
    assert told["error"].keys() == {"code", "what", "why", "fix", "more"}


@pytest.mark.parametrize(
    "words",
    [["frobnicate"], ["plan"], ["apply", "--frob"], ["apply"], ["revoke"], ["tail", "x", "--count", "none"]],
)
def test_a_wrong_call_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(words) == render.USAGE
    assert "Usage: govbus" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["apply", "-f", "catalogue.yaml"],
        ["revoke", "quzhou-divisions"],
        ["tail", "govbus.grants"],
        ["exchange"],
    ],
)
def test_without_a_bus_a_command_ends_with_5_and_says_how_to_start_one(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == render.UNREACHABLE
    assert "`govbus up`" in capsys.readouterr().err


def test_a_broker_that_does_not_answer_ends_with_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "password").write_text(SECRET, encoding="utf-8")
    monkeypatch.setenv("GOVBUS_BROKER_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_BROKER_USER", "admin")
    monkeypatch.setenv("GOVBUS_BROKER_PASSWORD_FILE", str(tmp_path / "password"))

    ended = cli.run(["tail", "govbus.grants"])

    shown = capsys.readouterr().err
    assert ended == render.UNREACHABLE
    assert "broker-unavailable" in shown
    assert SECRET not in shown


def test_a_setting_that_makes_no_sense_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOVBUS_METRICS_PORT", SECRET)

    ended = cli.run(["status"])

    shown = capsys.readouterr().err
    assert ended == render.USAGE
    assert "GOVBUS_METRICS_PORT: " in shown
    assert SECRET not in shown


def test_an_error_of_its_own_shows_no_value_and_with_debug_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(*_: object) -> None:
        raise KeyError(SECRET)

    monkeypatch.setattr("govbus_console.status.look", break_down)

    quiet = cli.run(["status"])
    plain = capsys.readouterr().err
    cli.run(["--debug", "status"])
    debugged = capsys.readouterr().err

    assert quiet == render.FAILED
    assert "KeyError at test_cli.py:" in plain
    assert "Traceback" not in plain
    assert SECRET not in plain
    assert "Traceback" in debugged


def test_status_and_doctor_answer_without_a_bus(capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.run(["status", "--json"])
    told = json.loads(capsys.readouterr().out)
    cli.run(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]

    assert status == render.DONE
    assert (told["running"], told["grants"], told["workers"]) == (False, [], [])
    assert {"Java", "Maven", "disk", "secrets", "control store"} <= {check["check"] for check in checks}
    assert all(check["fix"] for check in checks if not check["well"])


def test_doctor_notices_a_secret_that_others_may_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = tmp_path / "home" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "stats.password").write_text(SECRET, encoding="utf-8")
    (secrets / "stats.password").chmod(0o644)

    ended = cli.run(["doctor"])

    shown = capsys.readouterr().out
    assert ended == render.FAILED
    assert "stats.password" in shown
    assert "chmod" in shown
    assert SECRET not in shown


def test_down_says_when_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["down", "--json"]) == render.DONE
    assert json.loads(capsys.readouterr().out)["stopped"] is False


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()

    assert cli.run(["--version"]) == 0
    assert re.fullmatch(r"govbus \d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert time.monotonic() - began < 10
