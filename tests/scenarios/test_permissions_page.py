"""docs/permissions.md says what happens: its examples are run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from govbus.errors import FilterRefusedError
from govbus.request import TRANSITIONS, Ground
from govbus.rowfilter import parse_filter
from govbus.transform import compile_transform, parse_transform

PAGE = (Path(__file__).parents[2] / "docs/permissions.md").read_text("utf-8")
DATE = {"type": "int", "logicalType": "date"}
TYPES: dict[str, Any] = {"text": "string", "whole number": "long", "number": "double", "date": DATE}
FIELDS: dict[str, Any] = {
    "code": "string",
    "name": ["null", "string"],
    "level": "int",
    "area": ["null", "double"],
    "closed": "boolean",
    "born": DATE,
    "changed": {"type": "long", "logicalType": "timestamp-millis"},
}

EXAMPLES = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
ALLOWED, REFUSED = (block.strip().splitlines() for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL))


def test_the_page_has_the_table_of_transitions_as_it_is() -> None:
    lines = re.findall(r"^\| (\w+) \| ([\w-]+) \| (\w+) \| ([\w, ]+) \| ([\w,– -]+) \|$", PAGE, re.MULTILINE)

    assert lines[0][:3] == ("from", "step", "to")
    assert lines[1:] == [
        (
            line.before,
            line.action,
            line.after,
            ", ".join(sorted(line.who)),
            ", ".join(sorted(line.effects)) or "–",
        )
        for line in TRANSITIONS
    ]


def test_the_page_names_every_ground() -> None:
    assert [ground for ground in Ground if f"`{ground}`" not in PAGE] == []


def test_the_page_has_examples() -> None:
    assert (len(EXAMPLES), len(ALLOWED), len(REFUSED)) == (14, 7, 10)


@pytest.mark.parametrize(("spec", "kind", "value", "result"), EXAMPLES)
def test_a_field_comes_out_as_the_page_says(spec: str, kind: str, value: str, result: str) -> None:
    transform = parse_transform(yaml.safe_load(spec))

    shown = compile_transform(transform, ["null", TYPES[kind]])(yaml.safe_load(value))

    expected = yaml.safe_load(result)
    assert shown == expected
    assert type(shown) is type(expected)


@pytest.mark.parametrize("text", ALLOWED)
def test_a_filter_that_the_page_allows_is_allowed(text: str) -> None:
    assert parse_filter(text, FIELDS).fields


@pytest.mark.parametrize("text", REFUSED)
def test_a_filter_that_the_page_refuses_is_refused(text: str) -> None:
    with pytest.raises(FilterRefusedError):
        parse_filter(text, FIELDS)
