"""The words of the catalogue, and resources that cannot be."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from govbus.catalogue import (
    Classification,
    Department,
    DepartmentLevel,
    Resource,
    ResourceKind,
    ShareType,
    check_credit_code,
    check_parent,
)


def a_resource(**changes: Any) -> Resource:
    resource = Resource(
        owner="stats",
        name="divisions",
        title="Division codes",
        share_type=ShareType.UNCONDITIONAL,
        kind=ResourceKind.STATE,
        contract_version=1,
        key=("code",),
        partitions=1,
        value_schema_id=7,
        key_schema_id=8,
    )
    return replace(resource, **changes)


def test_share_types_are_stored_as_words() -> None:
    """Platforms number them differently, so a digit would be read wrong somewhere."""
    assert [*ShareType] == ["unconditional", "conditional", "withheld"]


def test_sensitive_and_core_fields_need_the_owners_word_and_no_others() -> None:
    assert [grade for grade in Classification if grade.needs_owner] == ["sensitive", "core"]


def test_a_resource_is_named_by_owner_and_name() -> None:
    assert a_resource().ref == "stats.divisions"


@pytest.mark.parametrize(
    "changes",
    [{"owner": "Stats"}, {"owner": ""}, {"name": "a.b"}, {"name": "a_b"}, {"key": ()}, {"partitions": 0}],
)
def test_a_resource_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Resource"):
        a_resource(**changes)


def test_a_resource_is_never_edited() -> None:
    with pytest.raises(FrozenInstanceError):
        a_resource().share_type = ShareType.CONDITIONAL  # type: ignore[misc]


@pytest.mark.parametrize("name", ["", "Stats", "stats.x", "9stats", "-stats", "stats-", "统计局", "s" * 81])
def test_a_department_name_must_fit_into_topic_names(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case words"):
        Department(name=name, title="Bureau of Statistics")


def test_a_department_has_a_name_for_machines_and_a_title_for_people() -> None:
    assert Department(name="stats", title="统计局").title == "统计局"


CODE = "11330000DEM0000012"


@given(place=st.integers(0, 17), character=st.sampled_from("0123456789ABCDEFGHJKLMNPQRTUWXY"))
def test_a_credit_code_with_one_wrong_character_is_refused(place: int, character: str) -> None:
    """GB 32100 chooses weights and modulus so that no single mistake goes unnoticed."""
    assume(CODE[place] != character)

    with pytest.raises(ValueError, match="GB 32100"):
        check_credit_code(CODE[:place] + character + CODE[place + 1 :])


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("1133", "18 characters"),
        ("11330000DEM0000013", "check character"),
        ("11330000OEM0000012", "without I, O, S, V and Z"),
        ("A1330000DEM0000012", "its first 8 characters digits"),
        ("11330000dem0000012", "capital letters without spaces"),
        ("11330000-DEM0000012", "capital letters without spaces"),
        ("", "18 characters"),
    ],
)
def test_a_credit_code_that_is_none_is_refused_with_the_rule(code: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Department(name="stats", title="Statistics", credit_code=code)


def test_a_credit_code_is_kept_as_it_is() -> None:
    assert Department(name="stats", title="Statistics", credit_code=CODE).credit_code == CODE


@given(level=st.none() | st.sampled_from(DepartmentLevel), above=st.none() | st.sampled_from(DepartmentLevel))
def test_a_parent_is_of_a_higher_level(level: DepartmentLevel | None, above: DepartmentLevel | None) -> None:
    """So a chain of parents cannot come back to where it began."""
    order = list(DepartmentLevel)
    allowed = level is not None and above is not None and order.index(above) < order.index(level)
    child = Department(name="child", title="Child", level=level)

    if allowed:
        check_parent(child, Department(name="above", title="Above", level=above))
    else:
        with pytest.raises(ValueError, match="cannot be the parent"):
            check_parent(child, Department(name="above", title="Above", level=above))


def test_a_parent_needs_a_level_to_compare() -> None:
    with pytest.raises(ValueError, match="Department.level"):
        Department(name="stats", title="Statistics", parent="above")
