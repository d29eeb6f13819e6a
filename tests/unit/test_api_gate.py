"""What every request meets: one shape for what goes wrong, limits, headers, pages."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from govbus import errors
from govbus.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    BusError,
    CatalogueError,
    ConfigurationError,
    FencedError,
    GrantRefusedError,
    RefusedError,
)
from govbus_console.api.gate import HEADERS
from govbus_console.api.pages import page
from govbus_console.api.problems import status_of
from govbus_console.api.rates import Buckets
from govbus_console.settings import ApiSettings
from support.api import Desk, Ticks, a_desk, a_store
from support.controls import a_grant

SECRET = "hunter2-hunter2"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    store = a_store(tmp_path)
    yield a_desk(store, monkeypatch)
    store.close()


@pytest.fixture
def auditor(desk: Desk) -> TestClient:
    return desk.as_role("auditor", None)


def problem(answer: Any, status: int, code: str) -> dict[str, str]:
    """Check the shape, and give what is in it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    told: dict[str, Any] = answer.json()
    assert told.keys() == {"error"}
    error: dict[str, str] = told["error"]
    assert {"code", "message"} <= error.keys() <= {"code", "message", "fix"}
    assert error["code"] == code
    assert error["message"]
    return error


def test_whatever_goes_wrong_has_one_shape(desk: Desk, auditor: TestClient) -> None:
    steward = desk.as_role("steward", "civil")

    problem(desk.client().get("/v1/me"), 401, "unknown-token")
    problem(auditor.post("/v1/grants/health-residents/revoke", json={"why": "x"}), 403, "not-allowed")
    problem(auditor.get("/v1/nothing"), 404, "not-found")
    problem(auditor.get("/"), 404, "not-found")
    problem(auditor.get("/docs"), 404, "not-found")
    problem(auditor.get("/v1/grants/no-such-grant"), 404, "not-found")
    problem(auditor.delete("/v1/grants"), 405, "invalid-request")
    problem(auditor.get("/v1/grants?limit=none"), 422, "invalid-request")
    problem(auditor.get("/v1/grants?cursor=nonsense"), 404, "not-found")
    problem(steward.post("/v1/grants/health-residents/revoke", content=b"{"), 422, "invalid-request")
    problem(steward.post("/v1/grants/health-residents/revoke", json=[]), 422, "invalid-request")
    problem(steward.post("/v1/grants/health-residents/revoke", content=b"\xff\xfe"), 422, "invalid-request")


def test_a_method_that_is_not_taken_is_answered_with_those_that_are(auditor: TestClient) -> None:
    assert auditor.delete("/v1/grants").headers["allow"] == "GET"


def test_without_a_token_no_address_is_known_from_another(desk: Desk) -> None:
    nobody = desk.client()

    answers = [nobody.get("/v1/me"), nobody.get("/v1/nothing"), nobody.delete("/v1/grants"), nobody.post("/")]

    assert len({(answer.status_code, answer.content) for answer in answers}) == 1


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (CatalogueError("line 3"), 409, "invalid-catalogue"),
        (GrantRefusedError("it has expired"), 409, "grant-refused"),
        (RefusedError("no"), 409, "refused"),
        (BrokerUnavailableError(f"at {SECRET}"), 503, "broker-unavailable"),
        (FencedError(SECRET), 503, "fenced"),
        (ConfigurationError(SECRET), 500, "configuration"),
        # The bus refuses the API's own login: that is not the caller's doing.
        (AccessDeniedError(SECRET), 500, "access-denied"),
        (KeyError(SECRET), 500, "internal"),
    ],
)
def test_an_error_of_the_bus_becomes_a_status_and_keeps_its_code(
    desk: Desk, auditor: TestClient, error: Exception, status: int, code: str
) -> None:
    desk.control.raises = error

    answer = auditor.get("/v1/departments")

    problem(answer, status, code)
    assert SECRET not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)


def test_every_error_of_the_bus_has_a_status_of_its_kind() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BusError)]

    told = {kind.__name__: status_of(kind("why")) for kind in kinds}

    assert all(400 <= told[kind.__name__] < 500 for kind in kinds if issubclass(kind, RefusedError))
    assert all(told[kind.__name__] == 503 for kind in kinds if issubclass(kind, errors.RetriableError))
    assert len(told) > 20


def test_what_was_sent_is_never_repeated(desk: Desk) -> None:
    steward = desk.as_role("steward", "civil")
    path = "/v1/grants/health-residents/revoke"

    answers = [
        steward.post(path, json={"why": "x", "data": SECRET}),
        steward.post(path, json={"why": "x", SECRET: 1}),
        steward.post(path, json={"why": {SECRET: SECRET}}),
        steward.post(path, content=f'{{"why": {SECRET}'.encode()),
        steward.get("/v1/grants", params={"state": SECRET}),
        steward.get("/v1/grants", params={"cursor": SECRET}),
        steward.get(f"/v1/grants/{SECRET.upper()}!"),
        steward.get(f"/v1/{SECRET}"),
        steward.request(SECRET.upper(), "/v1/grants"),
    ]

    assert [answer.status_code for answer in answers] == [422] * 5 + [404, 422, 404, 405]
    assert all(SECRET not in answer.text.casefold() for answer in answers)


def test_a_fault_is_logged_with_its_place_and_without_its_text(
    desk: Desk, auditor: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    from govbus import observe

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    observe.setup_logging("test", "INFO")
    try:
        desk.control.raises = KeyError(SECRET)
        auditor.get("/v1/departments")
    finally:
        root.handlers[:], root.level = before, level

    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (line["event"], line["exception"]) == ("request failed", "KeyError")
    assert any("controls.py" in place for place in line["trace"])
    assert SECRET not in json.dumps(line)


def test_every_answer_has_the_headers_and_none_lets_another_origin_in(
    desk: Desk, auditor: TestClient
) -> None:
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    answers = [
        auditor.get("/v1/me", headers=origin),
        auditor.options("/v1/me", headers=origin),
        auditor.get("/v1/nothing", headers=origin),
        desk.client().get("/v1/me", headers=origin),
    ]
    desk.control.raises = KeyError()
    answers.append(auditor.get("/v1/departments", headers=origin))

    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert [name for name in answer.headers if name.startswith("access-control")] == []
    assert HEADERS["Cache-Control"] == "no-store"


def test_a_body_that_is_too_large_is_refused_however_it_comes(desk: Desk) -> None:
    desk.settings = ApiSettings(body_bytes=1_024)
    steward = desk.as_role("steward", "civil")
    path = "/v1/grants/health-residents/suspend"
    long = json.dumps({"why": "x" * 2_000}).encode()

    fits = steward.post(path, json={"why": "x" * 500})
    announced = steward.post(path, content=long)
    in_parts = steward.post(path, content=iter([long[:900], long[900:]]))
    lied = steward.post(path, content=iter([long]), headers={"Content-Length": "10"})
    nonsense = steward.post(path, content=b"{}", headers={"Content-Length": "many"})

    assert fits.status_code == 200
    for answer in (announced, in_parts, lied, nonsense):
        problem(answer, 413, "too-large")
    assert len(desk.control.done) == 1


def test_a_bucket_empties_with_each_request_and_fills_with_time() -> None:
    ticks = Ticks()
    buckets = Buckets(per_second=0.5, burst=2, clock=ticks)

    taken = [buckets.take("li") for _ in range(3)]
    ticks.now += 1.0
    too_early = buckets.take("li")
    ticks.now += 1.0
    again = buckets.take("li")

    assert taken == [0.0, 0.0, 2.0]
    assert (too_early, again) == (1.0, 0.0)
    assert buckets.take("wang") == 0.0


def test_looking_whether_one_may_takes_nothing() -> None:
    buckets = Buckets(per_second=1, burst=1, clock=Ticks())

    assert [buckets.wait("li"), buckets.wait("li"), buckets.take("li"), buckets.wait("li")] == [0, 0, 0, 1]


def test_a_bucket_never_holds_more_than_its_burst_and_many_keys_fill_no_memory() -> None:
    ticks = Ticks()
    buckets = Buckets(per_second=1, burst=2, clock=ticks)
    ticks.now += 1e6

    assert [buckets.take("li") for _ in range(3)] == [0.0, 0.0, 1.0]
    for number in range(20_000):
        buckets.take(str(number))
    assert len(buckets._levels) == 10_000


def test_a_token_that_asks_too_often_waits_and_others_do_not(desk: Desk) -> None:
    desk.settings = ApiSettings(requests_per_second=0.1, request_burst=3)
    first, second = desk.as_role("auditor", None), desk.as_role("operator", None)

    answers = [first.get("/v1/me") for _ in range(4)]
    other = second.get("/v1/me")
    desk.ticks.now += 10
    later = first.get("/v1/me")

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    problem(answers[-1], 429, "too-many-requests")
    assert 10 <= int(answers[-1].headers["retry-after"]) <= 11
    assert (other.status_code, later.status_code) == (200, 200)


def test_an_address_that_tries_tokens_has_to_wait_before_any_more_are_looked_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.settings = ApiSettings(bad_tokens_per_minute=3)
    looked_up = []
    monkeypatch.setattr(
        "govbus_console.api.app.find_token", lambda _store, secret, **_: looked_up.append(secret)
    )
    nobody = desk.client("govbus_wrong")

    answers = [nobody.get("/v1/me") for _ in range(5)]
    desk.ticks.now += 20
    later = nobody.get("/v1/me")

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert later.status_code == 401
    assert len(looked_up) == 4


def test_good_tokens_are_not_counted_as_tries(desk: Desk) -> None:
    desk.settings = ApiSettings(bad_tokens_per_minute=1)
    auditor = desk.as_role("auditor", None)

    assert [auditor.get("/v1/me").status_code for _ in range(5)] == [200] * 5


def test_a_store_that_is_away_lets_nobody_in(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise errors.SinkUnavailableError("locked")

    auditor = desk.as_role("auditor", None)
    monkeypatch.setattr("govbus_console.api.app.find_token", away)

    problem(auditor.get("/v1/me"), 503, "sink-unavailable")


def test_pages_together_are_the_list_once_each_in_order(desk: Desk, auditor: TestClient) -> None:
    desk.control.known_grants = [
        a_grant(f"tax-{number:02}", "stats.divisions", "tax") for number in range(23)
    ]
    seen: list[str] = []
    sizes = []
    cursor = None
    while True:
        query = {"limit": "5"} | ({} if cursor is None else {"cursor": cursor})
        part = auditor.get("/v1/grants", params=query).json()
        seen += [grant["grant"] for grant in part["items"]]
        sizes.append(len(part["items"]))
        cursor = part["next"]
        if cursor is None:
            break

    assert seen == [f"tax-{number:02}" for number in range(23)]
    assert sizes == [5, 5, 5, 5, 3]


def test_an_entry_that_goes_between_two_pages_moves_no_other(desk: Desk, auditor: TestClient) -> None:
    desk.control.known_grants = [a_grant(name, "stats.divisions", "tax") for name in "abcdef"]
    first = auditor.get("/v1/grants?limit=3").json()

    desk.control.known_grants = [grant for grant in desk.control.known_grants if grant["grant"] not in "ac"]
    second = auditor.get("/v1/grants", params={"limit": 3, "cursor": first["next"]}).json()

    assert [grant["grant"] for grant in second["items"]] == ["d", "e", "f"]


def test_a_full_last_page_is_the_last() -> None:
    entries = [{"name": "a"}, {"name": "b"}]

    assert page(entries, name="x", key="name", limit=2, cursor=None) == {"items": entries, "next": None}
    assert page([], name="x", key="name", limit=2, cursor=None) == {"items": [], "next": None}


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "=",
        "é",
        "!!!!",
        "AAAA",
        *(
            base64.urlsafe_b64encode(json.dumps(raw).encode()).decode()
            for raw in (["resources", "a"], ["grants", 1], ["grants"], {"grants": "a"}, "grants", None)
        ),
    ],
)
def test_a_cursor_that_is_not_of_this_list_is_refused(auditor: TestClient, cursor: str) -> None:
    problem(auditor.get("/v1/grants", params={"cursor": cursor}), 404, "not-found")


def test_a_cursor_shows_no_more_than_the_caller_may_see(desk: Desk, auditor: TestClient) -> None:
    """Taken from somebody who sees more, or made up: it only says where to begin."""
    foreign = auditor.get("/v1/grants?limit=1").json()["next"]

    seen = desk.as_role("steward", "health").get("/v1/grants", params={"cursor": foreign}).json()

    assert seen == {"items": [], "next": None}


def test_names_in_paths_follow_the_rule_of_the_bus() -> None:
    import re

    from govbus.topics import is_name
    from govbus_console.api.shapes import NAME, REF

    for name in ("a", "tax-2", "a-b-c", "A", "a_b", "-a", "a-", "a--b", "2a", "", "a\n", "a.b"):
        assert (re.fullmatch(NAME, name) is not None) == is_name(name)
        assert (re.fullmatch(REF, f"civil.{name}") is not None) == is_name(name)
