"""The documentation names what exists, and everything that exists is documented."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic_settings import BaseSettings

from govbus import observe
from govbus.catalogue import Classification, ShareType
from govbus.policy import Reason
from govbus.request import TRANSITIONS
from govbus.settings import BrokerSettings, ExchangeSettings, ProcessSettings, RegistrySettings
from govbus.transform import Transform
from govbus_console.settings import ApiClientSettings, ApiSettings, ControlSettings, RequestSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_the_walk_of_one_record_names_files_that_exist_in_the_order_of_the_flow() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")

    walk = re.findall(r"^\| (\w+) \| `([\w/]+\.py)` \|", text, re.MULTILINE)

    assert [step for step, _ in walk] == ["capture", "publish", "intake", "exchange", "view", "land", "sink"]
    assert [path for _, path in walk if not (ROOT / path).is_file()] == []


def test_every_module_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:core|console|consumers|processors|producers)/[\w/]+(?:\.py|/))`", text)
    worker = re.findall(r"`(\w+\.py)`", text.split("## Inside an exchange worker")[1])
    there = {file.name for file in (ROOT / "processors/govbus_processors").glob("*.py")}

    assert len(named) > 25
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert len(worker) > 10
    assert set(worker) <= there


GROUPS: list[type[BaseSettings]] = [
    BrokerSettings,
    ExchangeSettings,
    ProcessSettings,
    RegistrySettings,
    ControlSettings,
    RequestSettings,
    ApiSettings,
    ApiClientSettings,
]


@pytest.mark.parametrize("group", GROUPS)
def test_every_setting_is_on_the_settings_page(group: type[BaseSettings]) -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    prefix = str(group.model_config["env_prefix"])

    missing = [name for name in group.model_fields if f"`{prefix}{name.upper()}`" not in page]

    assert missing == []


def test_the_settings_page_names_no_setting_that_does_not_exist() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    known = {
        str(group.model_config["env_prefix"]) + name.upper()
        for group in GROUPS
        for name in group.model_fields
    }

    named = set(re.findall(r"^\| `(GOVBUS_\w+)`", page, re.MULTILINE))

    assert named - known == {"GOVBUS_SOURCE_URL", "GOVBUS_SINK_URL"}


def test_every_test_that_a_guarantee_stands_on_exists() -> None:
    text = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", text)
    assert named

    missing = []
    for path, function in named:
        file = ROOT / path
        if not file.exists():
            missing.append(path)
        elif function:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            if function not in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}:
                missing.append(f"{path}::{function}")

    assert missing == []


# -- the auditor's page ----------------------------------------------------------------------------

AUDIT = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
RULES = [line for line in AUDIT.splitlines() if line.startswith("| ") and "`tests/" in line]
"""A rule is a line of a table that names its test."""


def _functions(path: str) -> set[str]:
    """The functions of a test file, those in classes too."""
    file = ROOT / path
    tree = ast.parse(file.read_text(encoding="utf-8") if file.is_file() else "")
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_and_module_on_the_audit_page_exists() -> None:
    tests = re.findall(r"`(tests/[\w/.]+)::(\w+)`", AUDIT)
    modules = re.findall(r"`((?:core|console|consumers|processors|producers)/[^`]+)`", AUDIT)

    assert [f"{path}::{name}" for path, name in tests if name not in _functions(path)] == []
    assert [module for module in modules if not (ROOT / module).is_file()] == []
    assert (len(RULES), len(tests)) > (100, 120)


def test_every_line_of_the_audit_page_that_states_a_rule_names_its_test() -> None:
    stated = re.findall(
        r"^\| (?!answer|subject|from|to see|---)", AUDIT.split("## See it yourself")[0], re.MULTILINE
    )

    assert len(stated) == len(RULES)


def test_no_rule_of_the_permission_model_is_missing_on_the_audit_page() -> None:
    rules = "\n".join(RULES)
    words = [*Reason, *ShareType, *Classification, *(kind.__name__.lower() for kind in get_args(Transform))]

    assert [word for word in words if f"`{word}`" not in rules] == []


def test_the_audit_page_has_each_step_of_a_request_and_who_makes_it() -> None:
    told = {tuple(line.split(" | ")[:4]) for line in RULES}
    table = {
        (f"| {step.before}", step.action.value, step.after.value, ", ".join(sorted(step.who)))
        for step in TRANSITIONS
    }

    assert table - told == set()
    assert len([line for line in RULES if line.count(" | ") == 4]) == len(TRANSITIONS)


def test_what_the_audit_page_says_to_type_is_a_command() -> None:
    typed = re.findall(r"^\| [^|]+ \| `govbus (\w[\w-]*)", AUDIT, re.MULTILINE)
    manual = (ROOT / "docs/commands.md").read_text(encoding="utf-8")

    assert len(typed) >= 8
    assert [command for command in typed if f"## `govbus {command}`" not in manual] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_metric_is_on_the_operations_page() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    metrics = [
        value
        for value in vars(observe).values()
        if hasattr(value, "describe") and not isinstance(value, type)
    ]
    names = {family.name for metric in metrics for family in metric.describe() if "govbus" in family.name}
    assert len(names) > 20

    assert sorted(name for name in names if f"`{name}" not in page) == []
