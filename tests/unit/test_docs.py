"""The documentation names what exists, and everything that exists is documented."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from govbus import observe
from govbus.settings import BrokerSettings, ExchangeSettings, ProcessSettings, RegistrySettings
from govbus_console.settings import ApiClientSettings, ApiSettings, ControlSettings, RequestSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_the_walk_of_one_record_names_files_that_exist_in_the_order_of_the_flow() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")

    walk = re.findall(r"^\| (\w+) \| `([\w/]+\.py)` \|", text, re.MULTILINE)

    assert [step for step, _ in walk] == ["capture", "publish", "intake", "exchange", "view", "land", "sink"]
    assert [path for _, path in walk if not (ROOT / path).is_file()] == []


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
