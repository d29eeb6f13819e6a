"""What is answered through the API about catalogue, grants, rows and receipts, and to whom."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from govbus.catalogue import ShareType
from govbus.entry import Entry, items_of
from govbus_console.control import requests
from govbus_console.control.roles import Account, Role
from govbus_console.control.words import fts5_query, mentions, words_of
from support.api import (
    DATABASES,
    NOON,
    SECRET_CONTRACT,
    Desk,
    a_desk,
    a_store,
    add_account,
    database_of,
)
from support.requesting import an_ask, stored_resource

OK, NO, HIDDEN = 200, 403, 404


@pytest.fixture(params=DATABASES)
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    store = a_store(tmp_path, database_of(request, tmp_path))
    monkeypatch.setattr(requests, "Counting", lambda *_, **__: SimpleNamespace(count=lambda *_: 4_711))
    yield a_desk(store, monkeypatch)
    store.close()


@pytest.fixture
def granted(desk: Desk) -> Desk:
    """With a grant of ``civil.residents`` to health, and one to tax."""
    keeper = Account(name="keeper", department="civil", roles=frozenset({Role.STEWARD}))
    add_account(desk.store, "keeper", "civil", "steward")
    for department in ("health", "tax"):
        asker = Account(name=f"asker-{department}", department=department, roles=frozenset({Role.SUBSCRIBER}))
        add_account(desk.store, asker.name, department, "subscriber")
        made = desk.office.desk.draft(asker, an_ask()).id
        desk.office.desk.submit(asker, made)
        desk.office.desk.take(keeper, made)
        desk.office.desk.approve(keeper, made)
    return desk


def users(client: TestClient, what: str = "civil.residents", **query: str) -> set[str]:
    answer = client.get(f"/v1/uses/{what}", params=query)
    assert answer.status_code == OK, answer.text
    return {use["department"] for use in answer.json()["items"]}


def test_who_uses_a_resource_is_told_as_far_as_the_grants_may_be_seen(granted: Desk) -> None:
    assert users(granted.as_role("steward", "civil")) == {"health", "tax"}
    assert users(granted.as_role("auditor", None)) == {"health", "tax"}
    assert users(granted.as_role("operator", None), ended="true") == {"health", "tax"}
    assert users(granted.as_role("subscriber", "health")) == {"health"}
    assert users(granted.as_role("steward", "tax"), "civil.residents.name") == {"tax"}
    assert users(granted.as_role("subscriber", "stats")) == set()


def test_whether_another_department_may_is_no_answer_for_a_third(granted: Desk) -> None:
    def ask(role: str, department: str | None) -> Any:
        return granted.as_role(role, department).get("/v1/departments/tax/can/civil.residents.name")

    own, owner, third = ask("subscriber", "tax"), ask("steward", "civil"), ask("subscriber", "health")

    assert own.json() == owner.json()
    assert (own.json()["answer"], own.json()["reason"]) == ("yes", "permitted")
    # The same whether it may or not: of a grant that it has, and of one that it does not have.
    without = granted.as_role("subscriber", "health").get("/v1/departments/stats/can/civil.residents")
    assert (third.status_code, third.content) == (HIDDEN, without.content)


@pytest.mark.parametrize("path", ["/v1/uses/{}", "/v1/departments/health/can/{}"])
def test_a_field_of_a_withheld_resource_is_there_for_those_who_may_see_it_alone(
    desk: Desk, path: str
) -> None:
    def ask(role: str, department: str, field: str) -> Any:
        return desk.as_role(role, department).get(path.format(f"civil.protected.{field}"))

    assert ask("steward", "civil", "born").status_code == OK
    assert ask("steward", "civil", "died").status_code == HIDDEN
    assert "born" in ask("steward", "civil", "died").text

    there, absent = ask("subscriber", "health", "born"), ask("subscriber", "health", "died")
    assert (there.status_code, there.content) == (absent.status_code, absent.content)
    assert there.status_code == HIDDEN
    assert "code" not in there.json()["error"]["message"]


def test_a_row_is_explained_to_its_owners_stewards_and_to_auditors_alone(desk: Desk) -> None:
    """The subscriber too is refused: the answer would say that a row exists which it may never have seen."""
    for path, given in (("/v1/explain", {"to": "health"}), ("/v1/who-received", {})):
        asked = {"record": "civil.residents/330802", **given}

        def ask(role: str, department: str | None, path: str = path, asked: Any = asked) -> int:
            return desk.as_role(role, department).post(path, json=asked).status_code

        assert ask("steward", "civil") == ask("auditor", None) == OK
        assert ask("subscriber", "health") == ask("operator", None) == ask("subscriber", "civil") == NO
        assert ask("steward", "health") == ask("steward", "stats") == HIDDEN


def test_a_foreign_steward_learns_nothing_from_how_it_is_refused(desk: Desk) -> None:
    steward = desk.as_role("steward", "health")

    answers = [
        steward.post("/v1/who-received", json={"record": record})
        for record in ("civil.residents/330802", "civil.residents/nobody=1", "civil.nothing/1", "nobody.x/1")
    ]

    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].status_code == HIDDEN


@pytest.mark.parametrize("at", ["2026-05-01", "2026-05-01T08:00:00", "yesterday", 7])
def test_a_moment_without_a_zone_is_refused(desk: Desk, at: object) -> None:
    given = {"record": "civil.residents/330802", "to": "health", "at": at}

    answer = desk.as_role("auditor", None).post("/v1/explain", json=given)

    assert answer.status_code == 422


def test_a_moment_that_lies_ahead_cannot_be_explained(desk: Desk) -> None:
    given = {"record": "civil.residents/330802", "to": "health", "at": "2036-01-01T00:00:00Z"}

    answer = desk.as_role("auditor", None).post("/v1/explain", json=given)

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "refused")


def found(desk: Desk, role: str, department: str | None, **query: Any) -> dict[str, Any]:
    answer = desk.as_role(role, department).get("/v1/find", params=query)
    assert answer.status_code == OK, answer.text
    return {one["resource"]: one for one in answer.json()["found"]}


@pytest.fixture
def described(desk: Desk) -> Desk:
    """With an entry of ``civil.protected`` whose information items are named."""
    plain = stored_resource("protected", ShareType.WITHHELD, SECRET_CONTRACT)
    entry = Entry(
        abstract="Persons under protection",
        code="330000/7",
        ground="Regulation on witnesses",
        items=items_of(plain.contract, {}),
    )
    with desk.store.writing(who="tester", why="a test", now=NOON) as writing:
        writing.resource(replace(plain, entry=entry))
    return desk


def test_a_withheld_resource_is_found_by_what_the_catalogue_says_of_it_and_shown_without_its_fields(
    described: Desk,
) -> None:
    own = found(described, "steward", "civil", text="protection")["civil.protected"]
    foreign = found(described, "subscriber", "health", text="protection")["civil.protected"]

    assert [item["name"] for item in own["entry"]["items"]] == ["code", "born"]
    assert foreign["entry"] == own["entry"] | {"items": []}


def test_a_withheld_resource_is_not_found_by_its_fields(described: Desk) -> None:
    assert "civil.protected" in found(described, "auditor", None, text="born")
    assert found(described, "subscriber", "health", text="born") == {}
    assert "civil.residents" in found(described, "subscriber", "health", text="phone")


def test_the_catalogue_is_gone_through_page_by_page_also_past_what_is_not_shown(described: Desk) -> None:
    client = described.as_role("subscriber", "health")
    seen, after = [], 0
    while True:
        page = client.get("/v1/find", params={"text": "civil", "limit": 1, "after": after}).json()
        seen += [one["resource"] for one in page["found"]]
        if page["next"] is None:
            break
        after = page["next"]

    assert seen == ["civil.residents", "civil.offices", "civil.protected"]


@pytest.mark.parametrize(
    ("question", "texts", "answers"),
    [
        ("人口", ["常住人口登记"], True),
        ("口登", ["常住人口登记"], True),
        ("常人", ["常住人口登记"], False),
        ("口", ["常住人口"], True),
        ("resid", ["Residents of the city"], True),
        ("esidents", ["Residents"], False),
        ("residents roads", ["Residents"], False),
        ("", ["anything"], True),
    ],
)
def test_words_at_hand_answer_a_question_as_the_index_does(
    question: str, texts: list[str], answers: bool
) -> None:
    words = words_of(texts)
    with sqlite3.connect(":memory:") as index:
        index.execute("CREATE VIRTUAL TABLE t USING fts5(words)")
        index.execute("INSERT INTO t VALUES (?)", (" ".join(words),))
        asked = fts5_query(question)
        hits = index.execute("SELECT 1 FROM t WHERE t MATCH ?", (asked,)).fetchall() if asked else [1]

    assert mentions(question, words) is bool(hits) is answers


def test_receipts_are_seen_as_far_as_the_grants_are(desk: Desk) -> None:
    def seen(role: str, of: str | None, **query: str) -> set[str]:
        answer = desk.as_role(role, of).get("/v1/receipts", params=query)
        assert answer.status_code == OK, answer.text
        return {each["grant"] for each in answer.json()["items"]}

    everything = {"health-clinics", "tax-roads"}
    assert seen("auditor", None) == seen("operator", None) == everything
    assert seen("auditor", None, department="tax") == {"tax-roads"}
    assert seen("steward", "civil") == {"health-clinics"}
    assert seen("subscriber", "health") == {"health-clinics"}
    assert seen("subscriber", "civil") == set()
    assert seen("steward", "health", department="tax") == set()


def test_an_operator_pins_a_key_and_the_audit_gets_its_name(desk: Desk) -> None:
    path = "/v1/departments/health/receipt-key"
    given = {"key": "ab" * 32, "why": "handed over in person"}

    pinned = desk.as_role("operator", None).post(path, json=given)
    refused = desk.as_role("steward", "health").post(path, json=given)
    looked = desk.as_role("subscriber", "health").get(path)

    assert pinned.json() == looked.json() == {"department": "health", "pinned": "ab" * 32}
    assert refused.status_code == NO
    assert desk.receipts.done == [("enrol", "health", "operator-of-the-bus", "handed over in person")]


@pytest.mark.parametrize("key", ["", "ab", "AB" * 32, "zz" * 32, "ab" * 33])
def test_what_is_no_key_is_refused(desk: Desk, key: str) -> None:
    path = "/v1/departments/health/receipt-key"

    answer = desk.as_role("operator", None).post(path, json={"key": key, "why": "x"})

    assert (answer.status_code, desk.receipts.done) == (422, [])
