"""What a catalogue file may state and change through the API, and by whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from govbus_console.control.catalogue_file import read_catalogue
from govbus_console.control.statement import statement_at
from govbus_console.control.store import AuditRow
from support.api import DATABASES, Desk, a_desk, a_store, database_of
from support.controls import a_grant as known_grant
from support.requesting import CONTRACT

OK, NO, HIDDEN, REFUSED = 200, 403, 404, 409

CLINICS = "resources:\n  - {ref: civil.clinics, title: Clinics, share_type: conditional}\n"
ROADS = "resources:\n  - {ref: stats.roads, title: Roads, share_type: conditional}\n"
HARBOUR = "departments:\n  - {name: harbour, title: Harbour office}\n"
CIVIL = "departments:\n  - {name: civil, title: Civil}\n"
"""As the store has it: nothing changes."""


def a_grant(name: str = "clinics-for-health", fields: str = "[code, name]", rows: str = "all") -> str:
    return f"""grants:
  - id: {name}
    subscriber: health
    resource: civil.clinics
    fields: {fields}
    rows: {rows}
    purpose: Vaccination
    expires_at: 2026-12-31T00:00:00+08:00
"""


@pytest.fixture(params=DATABASES)
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    store = a_store(tmp_path, database_of(request, tmp_path))
    yield a_desk(store, monkeypatch)
    store.close()


@pytest.fixture
def steward(desk: Desk) -> TestClient:
    return desk.as_role("steward", "civil")


@pytest.fixture
def operator(desk: Desk) -> TestClient:
    return desk.as_role("operator", None)


def body(*parts: str, contract: dict[str, Any] = CONTRACT, **more: Any) -> dict[str, Any]:
    """A request that states these parts; every resource has the same contract."""
    stated, text = "---\n".join(parts), json.dumps(contract)
    contracts = [{"resource": ref, "avro": text} for ref in ("civil.clinics", "stats.roads") if ref in stated]
    return {"catalogue": stated, "contracts": contracts, "count_seconds": 0, **more}


def plan(client: TestClient, *parts: str, **more: Any) -> Any:
    return client.post("/v1/plan", json=body(*parts, **more))


def apply(client: TestClient, *parts: str, **more: Any) -> Any:
    return client.post("/v1/apply", json=body(*parts, **{"why": "a test", **more}))


def changes(answer: Any) -> set[tuple[str, str, str]]:
    assert answer.status_code == OK, answer.text
    told = answer.json()
    made = told.get("plan", told)
    return {(one["action"], one["kind"], one["name"]) for one in made["changes"]}


def everything(desk: Desk) -> Any:
    return desk.store.snapshot()


def test_a_steward_publishes_a_resource_of_its_department_with_a_token_alone(
    desk: Desk, steward: TestClient
) -> None:
    planned, applied, again = plan(steward, CLINICS), apply(steward, CLINICS), apply(steward, CLINICS)

    assert ("create", "resource", "civil.clinics") in changes(planned)
    assert changes(planned) == changes(applied)
    assert (applied.json()["pending"], again.json()["pending"]) == (True, False)
    assert "civil.clinics" in everything(desk).resources


def test_a_steward_grants_by_a_file_what_it_may_decide_alone(desk: Desk, steward: TestClient) -> None:
    applied = apply(steward, CLINICS, a_grant())

    assert ("create", "grant", "clinics-for-health") in changes(applied)
    assert [impact["fields_more"] for impact in applied.json()["grants"]] == [["code", "name"]]
    assert everything(desk).grants["clinics-for-health"].grant.subscriber == "health"


@pytest.mark.parametrize(
    "grant",
    [
        a_grant(fields="[code, phone]"),
        a_grant(fields="[code, {phone: {partial: {head: 3}}}]"),
        a_grant(rows="phone LIKE '138%'"),
    ],
)
def test_what_takes_two_stewards_is_not_granted_by_the_file_of_one(
    desk: Desk, steward: TestClient, grant: str
) -> None:
    before = everything(desk)

    answers = [plan(steward, CLINICS, grant), apply(steward, CLINICS, grant)]

    for answer in answers:
        assert answer.status_code == NO
        assert "takes a second steward" in answer.json()["error"]["message"]
    assert everything(desk) == before


def test_a_grant_is_not_widened_to_a_sensitive_field_by_a_file_either(
    desk: Desk, steward: TestClient
) -> None:
    apply(steward, CLINICS, a_grant())

    wider = apply(steward, CLINICS, a_grant(fields="[code, name, phone]"))
    narrower = apply(steward, CLINICS, a_grant(fields="[code]"))

    assert (wider.status_code, narrower.status_code) == (NO, OK)
    assert [rule.name for rule in everything(desk).grants["clinics-for-health"].grant.fields] == ["code"]


@pytest.mark.parametrize(
    "stated",
    [
        ROADS,
        "remove:\n  resources: [stats.divisions]\n",
        a_grant().replace("civil.clinics", "stats.divisions"),
    ],
)
def test_nobody_states_what_another_department_shares(desk: Desk, steward: TestClient, stated: str) -> None:
    before = everything(desk)

    answers = [plan(steward, CLINICS, stated), apply(steward, CLINICS, stated)]

    assert [answer.status_code for answer in answers] == [NO, NO]
    assert "a steward of its owner" in answers[0].json()["error"]["message"]
    assert everything(desk) == before


def test_an_operator_takes_departments_in_and_out_and_states_nothing_that_they_share(
    desk: Desk, operator: TestClient, steward: TestClient
) -> None:
    taken_in = apply(operator, HARBOUR)
    refused = apply(operator, CLINICS)
    # The file that everybody shares may state a department as it is.
    stated = apply(steward, CIVIL, CLINICS)
    by_a_steward = [
        apply(steward, HARBOUR.replace("Harbour office", "Port")),
        apply(steward, HARBOUR.replace("harbour", "port")),
        apply(steward, "remove:\n  departments: [harbour]\n"),
    ]

    assert ("create", "department", "harbour") in changes(taken_in)
    assert (refused.status_code, stated.status_code) == (NO, OK)
    assert [answer.status_code for answer in by_a_steward] == [NO, NO, NO]
    assert everything(desk).departments["harbour"].title == "Harbour office"


def test_anothers_grant_is_neither_ended_nor_told_of_by_naming_it(desk: Desk, steward: TestClient) -> None:
    apply(steward, CLINICS, a_grant())
    foreign = desk.as_role("steward", "health")

    there = plan(foreign, "remove:\n  grants: [clinics-for-health]\n")
    absent = plan(foreign, "remove:\n  grants: [clinics-for-nobody]\n")
    own = ROADS.replace("stats.roads", "health.wards")
    taken = foreign.post(
        "/v1/plan",
        json={
            "catalogue": own
            + a_grant()
            .replace("civil.clinics", "health.wards")
            .replace("subscriber: health", "subscriber: tax"),
            "contracts": [{"resource": "health.wards", "avro": json.dumps(CONTRACT)}],
            "count_seconds": 0,
        },
    )

    assert there.status_code == absent.status_code == REFUSED
    assert there.text.replace("clinics-for-health", "x") == absent.text.replace("clinics-for-nobody", "x")
    assert (taken.status_code, taken.json()["error"]["code"]) == (REFUSED, "grant-refused")
    assert "civil" not in taken.text


def test_a_plan_lists_of_others_grants_what_may_be_seen(desk: Desk, steward: TestClient) -> None:
    desk.control.known_grants.clear()
    apply(steward, CLINICS, a_grant())
    left = ("left as is", "grant", "clinics-for-health")

    unseen = changes(plan(desk.as_role("steward", "stats"), ROADS))
    desk.control.known_grants.append(known_grant("clinics-for-health", "civil.clinics", "health"))
    seen = changes(plan(steward, CIVIL))

    assert left not in unseen
    assert left in seen
    assert ("left as is", "resource", "civil.clinics") in unseen


def test_a_plan_that_was_looked_at_is_applied_as_it_was_or_not_at_all(
    desk: Desk, steward: TestClient, operator: TestClient
) -> None:
    basis = plan(steward, CLINICS).json()["basis"]
    apply(operator, HARBOUR)
    store_moved = apply(steward, CLINICS, basis=basis)
    newer = plan(steward, CLINICS).json()["basis"]
    file_moved = apply(steward, CLINICS.replace("Clinics", "Wards"), basis=newer)
    contract_moved = apply(
        steward, CLINICS, basis=newer, contract=CONTRACT | {"fields": CONTRACT["fields"][:2]}
    )
    as_it_was = apply(steward, CLINICS, basis=newer)

    for answer in (store_moved, file_moved, contract_moved):
        assert (answer.status_code, answer.json()["error"]["code"]) == (REFUSED, "plan-moved")
    assert as_it_was.status_code == OK
    assert everything(desk).resources["civil.clinics"].resource.title == "Clinics"


def test_no_file_of_the_control_machine_is_opened_by_what_a_catalogue_says(
    steward: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "avro_schemas" / "civil" / "clinics.avsc"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(CONTRACT), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    for where in ("", f", contract: {place}", ", contract: avro_schemas/civil/clinics.avsc"):
        text = CLINICS.replace(", share_type: conditional", f", share_type: conditional{where}")
        answer = steward.post(
            "/v1/plan",
            json={"catalogue": text, "contracts": [], "count_seconds": 0, "name": str(tmp_path / "c.yaml")},
        )
        assert answer.status_code == REFUSED
        assert "no contract among those that were sent" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "catalogue",
    [
        "{",
        "departments: [" * 20_000,
        "resources: {a: &a [*a]}",
        "- 1",
        "departments:\n  - &d {name: *d, title: x}",
        "\ufffe",
        "resources:\n  - {ref: ../../etc.passwd, title: x, share_type: conditional}",
    ],
)
def test_nonsense_is_refused_as_nonsense(steward: TestClient, catalogue: str) -> None:
    answer = steward.post("/v1/plan", json={"catalogue": catalogue, "contracts": []})

    assert (answer.status_code, answer.json()["error"]["code"]) == (REFUSED, "invalid-catalogue")


def test_a_contract_that_is_nested_without_end_is_refused(steward: TestClient) -> None:
    deep = '{"type": "array", "items": ' * 30_000

    answer = steward.post(
        "/v1/plan", json={"catalogue": CLINICS, "contracts": [{"resource": "civil.clinics", "avro": deep}]}
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (REFUSED, "invalid-catalogue")


def test_the_audit_gets_the_account_of_the_token_and_the_reason(desk: Desk, steward: TestClient) -> None:
    apply(steward, CLINICS, why="agreement 2026-17")

    with desk.store.reading() as session:
        row = session.scalars(select(AuditRow).where(AuditRow.what == "resource civil.clinics")).one()
    assert (row.who, row.why) == ("steward-of-civil", "agreement 2026-17")


def test_what_travels_is_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "firms.avsc").write_text(json.dumps(CONTRACT), encoding="utf-8")
    file = tmp_path / "catalogue.yaml"
    file.write_text(
        CIVIL + CLINICS.replace("conditional}", "conditional, contract: firms.avsc}"), encoding="utf-8"
    )

    stated = statement_at(file)
    (tmp_path / "firms.avsc").unlink()

    assert stated.contracts.keys() == {"civil.clinics"}
    assert stated.read().digest
    (tmp_path / "firms.avsc").write_text(json.dumps(CONTRACT), encoding="utf-8")
    assert stated.read() == read_catalogue(file)


def test_of_two_contracts_for_one_resource_none_is_guessed(steward: TestClient) -> None:
    given = body(CLINICS)

    answer = steward.post("/v1/plan", json=given | {"contracts": given["contracts"] * 2})

    assert (answer.status_code, answer.json()["error"]["code"]) == (REFUSED, "refused")
