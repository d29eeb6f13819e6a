"""Who may do what through the API: every route, every role, own and foreign, written out by hand.

The expected answers stand here a second time, on purpose: a rule that somebody
loosens in ``access.py`` fails here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Route

from govbus_console.api.access import RULES, Reach, Right, may, reach
from govbus_console.api.app import create_app
from govbus_console.api.routing import Guarded, needs
from govbus_console.control import requests
from govbus_console.control.roles import Account, Role, known_roles
from support.api import ROLES, Desk, a_desk, a_store, add_account
from support.requesting import CONTRACT, an_ask, keeping

WHY = {"why": "a test"}

OWNER, RECEIVER, FOREIGN = "civil", "health", "tax"
"""Departments as they stand to the grant ``health-residents`` of ``civil.residents``."""

OK, NO, HIDDEN = 200, 403, 404

WRONG = 409
"""It may be tried, and is refused by a rule of the service: the step is for another party to the request,
or the owner needs no grant of its own resource."""


ASK = {
    "resource": "civil.residents",
    "fields": [{"name": "code"}, {"name": "phone"}],
    "rows": "code LIKE '33%'",
    "purpose": "Vaccination",
    "legal_basis": "Vaccine Administration Law, article 45",
    "term_hours": 720,
}

ROW = {"record": "civil.residents/330802"}

STATED = {
    "catalogue": """
resources:
  - {ref: civil.clinics, title: Clinics, share_type: conditional}
""",
    "contracts": [{"resource": "civil.clinics", "avro": json.dumps(CONTRACT | {"name": "Clinic"})}],
    "count_seconds": 0,
}
"""A catalogue file that states a resource of the owner's, and its contract."""

BODIES: dict[str, Any] = {
    "POST /v1/explain": ROW | {"to": "health"},
    "POST /v1/who-received": ROW,
    "POST /v1/departments/{department}/receipt-key": {"key": "ab" * 32} | WHY,
    "POST /v1/plan": STATED,
    "POST /v1/apply": STATED | WHY,
    "POST /v1/requests": ASK,
    "POST /v1/requests/{request_id}/count": {},
    "POST /v1/requests/{request_id}/submit": {},
    "POST /v1/requests/{request_id}/answer": {"text": "for the clinics"},
    "POST /v1/requests/{request_id}/withdraw": {},
    "POST /v1/requests/{request_id}/take": {},
    "POST /v1/requests/{request_id}/ask": {"text": "what for?"},
    "POST /v1/requests/{request_id}/reject": {"ground": "duplicate"},
    "POST /v1/requests/{request_id}/approve": {},
    "POST /v1/requests/{request_id}/review": {"upheld": True, "why": "a flood"},
    "POST /v1/emergencies": ASK | {"term_hours": 5, "requester": "asker-of-health", "why": "a flood"},
    "POST /v1/grants/{grant_id}/amend": {"why": "less", "term_hours": 24},
    "POST /v1/grants/{grant_id}/renew": {"why": "more", "term_hours": 1_000},
    "POST /v1/grants/{grant_id}/suspend": WHY,
    "POST /v1/grants/{grant_id}/resume": WHY,
    "POST /v1/grants/{grant_id}/revoke": WHY,
    "POST /v1/tokens/{token_id}/revoke": WHY,
}

# For each route what each role gets: for its department as owner, as receiver, and as neither.
EVERYONE = {role: (OK, OK, OK) for role in ROLES}
EXPECTED: dict[str, dict[str, tuple[int, int, int]]] = {
    "GET /v1/openapi.json": EVERYONE,
    "GET /v1/me": EVERYONE,
    "GET /v1/tokens": EVERYONE,
    # Another account's token is not there, whoever asks; one's own is another test.
    "POST /v1/tokens/{token_id}/revoke": {role: (HIDDEN, HIDDEN, HIDDEN) for role in ROLES},
    "GET /v1/departments": EVERYONE,
    "GET /v1/resources": EVERYONE,
    "GET /v1/resources/{ref}": EVERYONE,
    "GET /v1/grants": EVERYONE,
    "GET /v1/grants/{grant_id}": {
        "steward": (OK, OK, HIDDEN),
        "subscriber": (HIDDEN, OK, HIDDEN),
        "operator": (OK, OK, OK),
        "auditor": (OK, OK, OK),
    },
    "GET /v1/grants/{grant_id}/history": {
        "steward": (OK, OK, HIDDEN),
        "subscriber": (HIDDEN, OK, HIDDEN),
        "operator": (OK, OK, OK),
        "auditor": (OK, OK, OK),
    },
    "POST /v1/grants/{grant_id}/suspend": {
        "steward": (OK, NO, HIDDEN),
        "subscriber": (NO, NO, NO),
        "operator": (OK, OK, OK),
        "auditor": (NO, NO, NO),
    },
    "POST /v1/grants/{grant_id}/resume": {
        "steward": (OK, NO, HIDDEN),
        "subscriber": (NO, NO, NO),
        "operator": (OK, OK, OK),
        "auditor": (NO, NO, NO),
    },
    "POST /v1/grants/{grant_id}/revoke": {
        "steward": (OK, NO, HIDDEN),
        "subscriber": (NO, NO, NO),
        "operator": (NO, NO, NO),
        "auditor": (NO, NO, NO),
    },
    "POST /v1/requests": {
        "steward": (NO, NO, NO),
        "subscriber": (WRONG, OK, OK),
        "operator": (NO, NO, NO),
        "auditor": (NO, NO, NO),
    },
    "GET /v1/requests": EVERYONE,
    "GET /v1/requests/{request_id}": {
        "steward": (OK, OK, HIDDEN),
        # A department's accounts see what concerns the department.
        "subscriber": (OK, OK, HIDDEN),
        "operator": (OK, OK, OK),
        "auditor": (OK, OK, OK),
    },
    "GET /v1/requests/{request_id}/history": {
        "steward": (OK, OK, HIDDEN),
        "subscriber": (OK, OK, HIDDEN),
        "operator": (OK, OK, OK),
        "auditor": (OK, OK, OK),
    },
    "POST /v1/requests/{request_id}/count": {
        "steward": (OK, NO, HIDDEN),
        "subscriber": (NO, OK, HIDDEN),
        "operator": (NO, NO, NO),
        "auditor": (NO, NO, NO),
    },
    **{
        f"POST /v1/requests/{{request_id}}/{step}": {
            "steward": (NO, NO, NO),
            "subscriber": (WRONG, OK, HIDDEN),
            "operator": (NO, NO, NO),
            "auditor": (NO, NO, NO),
        }
        for step in ("submit", "answer", "withdraw")
    },
    **{
        f"POST /v1/requests/{{request_id}}/{step}": {
            "steward": (OK, WRONG, HIDDEN),
            "subscriber": (NO, NO, NO),
            "operator": (NO, NO, NO),
            "auditor": (NO, NO, NO),
        }
        for step in ("take", "ask", "reject", "approve")
    },
    "POST /v1/requests/{request_id}/review": {
        "steward": (OK, NO, HIDDEN),
        "subscriber": (NO, NO, NO),
        "operator": (NO, NO, NO),
        "auditor": (NO, NO, NO),
    },
    "POST /v1/emergencies": {
        "steward": (OK, NO, NO),
        "subscriber": (NO, NO, NO),
        "operator": (OK, NO, OK),
        "auditor": (NO, NO, NO),
    },
    "POST /v1/grants/{grant_id}/amend": {
        "steward": (OK, NO, HIDDEN),
        "subscriber": (NO, OK, HIDDEN),
        "operator": (NO, NO, NO),
        "auditor": (NO, NO, NO),
    },
    "POST /v1/grants/{grant_id}/renew": {
        "steward": (NO, NO, NO),
        "subscriber": (NO, OK, HIDDEN),
        "operator": (NO, NO, NO),
        "auditor": (NO, NO, NO),
    },
    "GET /v1/find": EVERYONE,
    # Who may see none of the grants gets an empty list.
    "GET /v1/uses/{what}": EVERYONE,
    "GET /v1/departments/{department}/can/{what}": {
        "steward": (OK, OK, HIDDEN),
        "subscriber": (HIDDEN, OK, HIDDEN),
        "operator": (OK, OK, OK),
        "auditor": (OK, OK, OK),
    },
    **{
        f"POST /v1/{question}": {
            "steward": (OK, HIDDEN, HIDDEN),
            "subscriber": (NO, NO, NO),
            "operator": (NO, NO, NO),
            "auditor": (OK, OK, OK),
        }
        for question in ("explain", "who-received")
    },
    "GET /v1/receipts": EVERYONE,
    "GET /v1/departments/{department}/receipt-key": {
        "steward": (HIDDEN, OK, HIDDEN),
        "subscriber": (HIDDEN, OK, HIDDEN),
        "operator": (OK, OK, OK),
        "auditor": (OK, OK, OK),
    },
    "POST /v1/departments/{department}/receipt-key": {
        "steward": (NO, NO, NO),
        "subscriber": (NO, NO, NO),
        "operator": (OK, OK, OK),
        "auditor": (NO, NO, NO),
    },
    # The file states a resource of the owner's; what else a file may state is in test_api_catalogue.py.
    **{
        f"POST /v1/{what}": {
            "steward": (OK, NO, NO),
            "subscriber": (NO, NO, NO),
            "operator": (NO, NO, NO),
            "auditor": (NO, NO, NO),
        }
        for what in ("plan", "apply")
    },
    "GET /v1/status": {
        "steward": (NO, NO, NO),
        "subscriber": (NO, NO, NO),
        "operator": (OK, OK, OK),
        "auditor": (OK, OK, OK),
    },
}

CASES = [
    pytest.param(route, role, department, status, id=f"{route} {role} {relation}")
    for route, roles in EXPECTED.items()
    for role, statuses in roles.items()
    for relation, department, status in zip(
        ("owner", "receiver", "foreign"), (OWNER, RECEIVER, FOREIGN), statuses, strict=True
    )
]


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    store = a_store(tmp_path_factory.mktemp("api"))
    for name, department, role in (ASKER, KEEPER, SECOND, ON_CALL):
        add_account(store, name, department, role)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "Counting", lambda *_, **__: SimpleNamespace(count=lambda *_: 4_711))
        yield a_desk(store, patch)
    store.close()


@pytest.fixture
def desk(_shared: Desk) -> Desk:
    _shared.control.done.clear()
    return _shared


ASKER = ("asker-of-health", "health", "subscriber")
KEEPER, SECOND = ("keeper-of-civil", "civil", "steward"), ("second-of-civil", "civil", "steward")
ON_CALL = ("on-call", None, "operator")
"""Who brings a request to where a route finds it; none of those whose rights are looked at."""


def account(facts: tuple[str, str | None, str]) -> Account:
    name, department, role = facts
    return Account(name=name, department=department, roles=frozenset({Role(role)}))


def prepare(desk: Desk, route: str) -> dict[str, str]:
    """Make what a route needs, in the state in which it can be used."""
    service, step = desk.office.desk, route.rpartition("/")[2]
    asker, keeper, second = account(ASKER), account(KEEPER), account(SECOND)
    names = {"grant_id": "health-residents", "ref": "civil.residents", "token_id": "0123456789ab"}
    names |= {"department": RECEIVER, "what": "civil.residents"}
    if step in ("emergencies", "review"):
        for one in service.listing(keeper, to_review=True):
            if one.review == "due":
                service.review_emergency(keeper, one.id, upheld=True, why="a flood")
    if step == "review":
        wanted = an_ask(term=timedelta(hours=5))
        made = service.emergency(account(ON_CALL), wanted, requester=asker.name, why="a flood")
        return names | {"request_id": made.id}
    if "{request_id}" not in route and step not in ("amend", "renew"):
        return names
    request = service.draft(asker, an_ask(fields=keeping("code", "phone"))).id
    if step in ("withdraw", "take", "answer", "ask", "reject", "approve", "amend", "renew"):
        service.submit(asker, request)
    if step in ("answer", "ask", "reject", "approve", "amend", "renew"):
        service.take(keeper, request)
    if step == "answer":
        service.ask(keeper, request, "what for?")
    if step in ("amend", "renew"):
        service.approve(keeper, request)
        names["grant_id"] = str(service.approve(second, request).grant_id)
    return names | {"request_id": request}


def ask(desk: Desk, client: Any, route: str) -> Any:
    method, _, path = route.partition(" ")
    return client.request(method, path.format(**prepare(desk, route)), json=BODIES.get(route))


def routes(app: FastAPI) -> set[str]:
    found = set()
    for route in app.routes:
        assert isinstance(route, Route), route
        found |= {f"{method} {route.path}" for method in route.methods or ()}
    return found


def test_the_matrix_below_names_every_route_and_every_role(desk: Desk) -> None:
    assert EXPECTED.keys() == routes(desk.app)
    assert all(roles.keys() == set(ROLES) == {role.value for role in Role} for roles in EXPECTED.values())


@pytest.mark.parametrize(("route", "role", "department", "status"), CASES)
def test_each_role_gets_from_each_route_what_the_matrix_says(
    desk: Desk, route: str, role: str, department: str, status: int
) -> None:
    answer = ask(desk, desk.as_role(role, department), route)

    assert answer.status_code == status, answer.text
    if route.endswith(("suspend", "resume", "grant_id}/revoke")):
        # What is refused has not been done either.
        assert len(desk.control.done) == (1 if status == OK else 0)
    if status == OK and route == "GET /v1/grants":
        seen = {grant["grant"] for grant in answer.json()["items"]}
        assert seen == visible_grants(role, department)


def visible_grants(role: str, department: str) -> set[str]:
    """Of ``health-residents`` (civil to health) and ``tax-divisions`` (stats to tax)."""
    if role in ("operator", "auditor"):
        return {"health-residents", "tax-divisions"}
    return {
        ("steward", OWNER): {"health-residents"},
        ("steward", RECEIVER): {"health-residents"},
        ("steward", FOREIGN): {"tax-divisions"},
        ("subscriber", OWNER): set[str](),
        ("subscriber", RECEIVER): {"health-residents"},
        ("subscriber", FOREIGN): {"tax-divisions"},
    }[role, department]


@pytest.mark.parametrize("route", EXPECTED)
@pytest.mark.parametrize("token", [None, "", "nonsense", "govbus_" + "A" * 43])
def test_without_a_valid_token_no_route_answers(desk: Desk, route: str, token: str | None) -> None:
    desk.ticks.now += 1_000
    answer = ask(desk, desk.client(token), route)

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unknown-token"
    assert desk.control.done == []


@pytest.mark.parametrize("route", EXPECTED)
@pytest.mark.parametrize("department", [None, OWNER])
def test_an_account_without_roles_gets_nothing(desk: Desk, route: str, department: str | None) -> None:
    assert ask(desk, desk.as_role("nothing", department), route).status_code == NO


@pytest.mark.parametrize("role", ["operator", "auditor"])
def test_operators_and_auditors_need_no_department(desk: Desk, role: str) -> None:
    assert ask(desk, desk.as_role(role, None), "GET /v1/status").status_code == OK


def test_a_word_that_is_no_role_gives_nothing() -> None:
    nobody = Account(name="li", department="civil", roles=known_roles(["administrator", "Steward", ""]))

    assert nobody.roles == frozenset()
    assert all(reach(nobody, right) is Reach.NONE for right in Right)


def test_every_right_is_given_by_a_rule_to_a_role_that_exists() -> None:
    assert RULES.keys() == set(Role)
    assert {right for rights in RULES.values() for right in rights} == set(Right)


def test_a_department_that_is_not_there_matches_no_owner() -> None:
    """Neither an account of the bus nor an object without an owner makes two empty names meet."""
    of_the_bus = Account(name="li", department=None, roles=frozenset({Role.OPERATOR}))

    assert not may(of_the_bus, Right.END_GRANTS, owner="", subscriber="")


def test_an_endpoint_that_does_not_say_which_right_it_needs_cannot_be_served(desk: Desk) -> None:
    app = create_app(desk.app.state.services, desk.settings)

    def forgotten() -> dict[str, str]:
        return {}

    with pytest.raises(TypeError, match="forgotten does not say which right it needs"):
        app.router.add_api_route("/v1/forgotten", forgotten)
    with pytest.raises(TypeError, match="forgotten"):
        app.get("/v1/forgotten")(forgotten)


def test_every_route_is_a_guarded_one(desk: Desk) -> None:
    """So that none was added around :class:`Guarded`, the framework's own pages included."""
    app = desk.app

    assert [route for route in app.routes if type(route) is not Guarded] == []
    assert all(isinstance(route.right, Right) for route in app.routes if isinstance(route, Guarded))


def test_a_guarded_route_without_the_gate_before_it_denies(desk: Desk) -> None:
    """If somebody takes the gate away, nobody gets in, instead of everybody."""
    from starlette.testclient import TestClient

    @needs(Right.ONESELF)
    def anything() -> dict[str, str]:
        return {"open": "yes"}

    app = create_app(desk.app.state.services, desk.settings)
    app.router.add_api_route("/v1/anything", anything)
    app.user_middleware.clear()

    assert TestClient(app).get("/v1/anything").status_code == NO


def test_the_right_is_asked_before_the_request_is_read(desk: Desk) -> None:
    """Who may not, does not learn how it would have to be asked."""
    subscriber = desk.as_role("subscriber", RECEIVER)

    nonsense = subscriber.post("/v1/grants/health-residents/revoke", content=b"{")
    unknown = subscriber.post("/v1/grants/NO!/revoke", json={})

    assert (nonsense.status_code, unknown.status_code) == (NO, NO)


def test_what_may_not_be_seen_is_answered_as_what_does_not_exist(desk: Desk) -> None:
    steward = desk.as_role("steward", FOREIGN)

    foreign = steward.get("/v1/grants/health-residents")
    absent = steward.get("/v1/grants/no-such-grant")

    assert (foreign.status_code, foreign.content) == (absent.status_code, absent.content)


def test_the_fields_of_a_withheld_resource_are_seen_by_its_owner_and_by_auditors(desk: Desk) -> None:
    def fields(role: str, department: str) -> tuple[int, int]:
        client = desk.as_role(role, department)
        one = client.get("/v1/resources/civil.protected").json()
        found = client.get("/v1/resources", params={"text": "protected"}).json()["items"]
        return len(one["fields"]), len(found[0]["fields"])

    assert fields("steward", OWNER) == (2, 2)
    assert fields("auditor", FOREIGN) == (2, 2)
    assert fields("steward", FOREIGN) == (0, 0)
    assert fields("subscriber", RECEIVER) == (0, 0)


def test_a_withheld_resource_is_not_found_by_the_words_of_its_fields(desk: Desk) -> None:
    def found(role: str, department: str) -> set[str]:
        answer = desk.as_role(role, department).get("/v1/resources", params={"text": "born"})
        return {entry["resource"] for entry in answer.json()["items"]}

    assert found("steward", OWNER) == {"civil.protected", "civil.residents", "stats.divisions"}
    assert found("steward", FOREIGN) == {"civil.residents", "stats.divisions"}


def test_the_audit_gets_the_account_of_the_token(desk: Desk) -> None:
    desk.as_role("steward", OWNER).post("/v1/grants/health-residents/suspend", json={"why": "on holiday"})

    assert desk.control.done == [("suspend", "health-residents", "steward-of-civil", "on holiday")]
