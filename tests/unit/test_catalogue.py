"""The words of the catalogue, and resources that cannot be."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from govbus.catalogue import Classification, Department, Resource, ResourceKind, ShareType


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
