"""The API against its own description: schemathesis makes up requests and finds nothing.

It is run as each role, so that what only one role reaches is reached, within the
process and without a broker; what the endpoints do is a fixed control side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.failures import FailureGroup

from govbus_console.control import requests
from govbus_console.settings import ApiSettings
from support.api import Desk, a_desk, a_store

EXAMPLES = 6
"""For each operation and role; all together some seven hundred cases, each sent again without its token."""

CALLERS = (("steward", "civil"), ("subscriber", "health"), ("operator", None), ("auditor", None))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    store = a_store(tmp_path_factory.mktemp("api"))
    # It tries bad tokens as well, all from one address.
    unhurried = ApiSettings(requests_per_second=1e6, request_burst=10**6, bad_tokens_per_minute=10**6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "Counting", lambda *_, **__: SimpleNamespace(count=lambda *_: 4_711))
        yield a_desk(store, patch, settings=unhurried)
    store.close()


def loaded(desk: Desk) -> Any:
    description = desk.as_role("auditor", None).get("/v1/openapi.json").json()
    return schemathesis.openapi.from_dict(description)


@pytest.mark.parametrize(("role", "department"), CALLERS)
def test_schemathesis_finds_nothing(desk: Desk, role: str, department: str | None) -> None:
    schema = loaded(desk)
    schema.app = desk.app
    headers = {"Authorization": f"Bearer {desk.token(role, department)}"}
    asked = set()

    for operation in schema.get_all_operations():
        found = operation.ok()

        @given(case=found.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def holds(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=headers)

        holds()
        asked.add(found.label)

    assert len(asked) == len(desk.app.routes)


def test_schemathesis_would_find_an_answer_that_is_not_as_described(desk: Desk) -> None:
    """Otherwise finding nothing would say nothing."""
    schema = loaded(desk)
    schema.app = desk.app
    headers = {"Authorization": f"Bearer {desk.token('auditor', None)}"}
    case = schema["/v1/departments"]["GET"].Case()

    case.call_and_validate(headers=headers)
    schema.raw_schema["components"]["schemas"]["DepartmentShown"]["required"].append("phone")
    changed = schemathesis.openapi.from_dict(schema.raw_schema)
    changed.app = desk.app

    with pytest.raises(FailureGroup):
        changed["/v1/departments"]["GET"].Case().call_and_validate(headers=headers)


def test_the_description_says_for_each_operation_which_right_it_needs(desk: Desk) -> None:
    described = desk.as_role("auditor", None).get("/v1/openapi.json").json()

    operations = [one for path in described["paths"].values() for one in path.values()]
    assert all(one["x-govbus-right"] for one in operations)
    assert all({"401", "403", "429", "500"} <= one["responses"].keys() for one in operations)
    assert described["security"] == [{"token": []}]


def test_nothing_is_described_that_has_another_error_shape(desk: Desk, tmp_path: Path) -> None:
    described = desk.as_role("auditor", None).get("/v1/openapi.json").json()

    assert "HTTPValidationError" not in described["components"]["schemas"]
