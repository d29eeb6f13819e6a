"""The control side from afar answers as the one at hand does, errors included."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from govbus.errors import (
    BrokerUnavailableError,
    BusError,
    ConfigurationError,
    GrantRefusedError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    RetriableError,
)
from govbus.grant import DataDuty
from govbus.request import Ground
from govbus_console.api.client import Connection, RemoteControl
from govbus_console.api.errors import ApiUnavailableError, TooManyRequestsError, UnknownTokenError
from govbus_console.api.request_client import RemoteRequests
from govbus_console.api.serve import serve
from govbus_console.control.interface import Control, RequestControl
from govbus_console.control.request_json import (
    read_amendment,
    read_shown_request,
    show_amendment,
    show_request,
)
from govbus_console.control.request_shapes import Amendment
from govbus_console.control.requests import Requests
from govbus_console.control.roles import Account, Role
from govbus_console.render import exit_code
from govbus_console.settings import ApiClientSettings, ApiSettings
from support.api import Desk, a_desk, a_store, add_account
from support.controls import a_grant
from support.requesting import an_ask, keeping

LI = Account(name="li", department="health", roles=frozenset({Role.SUBSCRIBER}))
WANG = Account(name="wang", department="civil", roles=frozenset({Role.STEWARD}))
ZHAO = Account(name="zhao", department="civil", roles=frozenset({Role.STEWARD}))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    store = a_store(tmp_path)
    for one in (LI, WANG, ZHAO):
        add_account(store, one.name, one.department, *(role.value for role in one.roles))
    yield a_desk(store, monkeypatch)
    store.close()


@pytest.fixture
def connect(desk: Desk, tmp_path: Path) -> Iterator[Callable[[str], Connection]]:
    """Make connections into the app in this process, with a token."""
    made: list[Connection] = []

    def connection(token: str) -> Connection:
        file = tmp_path / f"{len(made)}.token"
        file.write_text(token, encoding="utf-8")
        settings = ApiClientSettings(url="http://127.0.0.1:1", token_file=file)
        transport = TestClient(desk.app, raise_server_exceptions=False)._transport
        made.append(Connection(settings, transport=transport))
        return made[-1]

    yield connection
    for one in made:
        one.__exit__(None, None, None)


QUESTIONS: dict[str, Callable[[Control], Any]] = {
    "departments": lambda control: control.departments(),
    "resources": lambda control: control.resources(share_type="withheld"),
    "resource": lambda control: control.resource("civil.residents"),
    "grants": lambda control: control.grants(owner="civil", subscriber="health"),
    "grant": lambda control: control.grant("health-residents"),
    "grant_history": lambda control: control.grant_history("health-residents"),
    "suspend": lambda control: control.suspend("health-residents", why="x"),
    "resume": lambda control: control.resume("health-residents", why="x"),
    "revoke": lambda control: control.revoke("health-residents", why="x", data=DataDuty.BLANK),
    "status": lambda control: control.status(),
}


def test_the_list_below_asks_everything_that_can_be_asked() -> None:
    assert QUESTIONS.keys() == public(Control) == public(RemoteControl)


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize("question", QUESTIONS)
def test_from_afar_it_answers_the_same(
    desk: Desk, connect: Callable[[str], Connection], question: str
) -> None:
    role, department = ("auditor", None) if question == "status" else ("steward", "civil")
    remote: Control = RemoteControl(connect(desk.token(role, department)))

    assert QUESTIONS[question](remote) == QUESTIONS[question](desk.control)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotFoundError("x"), NotFoundError),
        (NotAllowedError("x"), NotAllowedError),
        (GrantRefusedError("x"), GrantRefusedError),
        (RefusedError("x"), RefusedError),
        (BrokerUnavailableError("x"), BrokerUnavailableError),
    ],
)
def test_an_error_has_its_class_and_its_exit_code_again(
    desk: Desk, connect: Callable[[str], Connection], error: BusError, kind: type[BusError]
) -> None:
    remote = RemoteControl(connect(desk.token("auditor", None)))
    desk.control.raises = error

    with pytest.raises(BusError) as raised:
        remote.departments()

    assert type(raised.value) is kind
    assert exit_code(raised.value) == exit_code(error)


def test_a_bad_token_and_too_many_questions_are_told_apart(
    desk: Desk, connect: Callable[[str], Connection]
) -> None:
    desk.settings = ApiSettings(bad_tokens_per_minute=1, requests_per_second=0.01, request_burst=1)
    good = RemoteControl(connect(desk.token("auditor", None)))
    good.departments()
    with pytest.raises(TooManyRequestsError) as often:
        good.departments()
    with pytest.raises(UnknownTokenError):
        RemoteControl(connect("govbus_bad")).departments()

    assert 99 <= often.value.seconds <= 101


def test_a_list_of_several_pages_comes_whole(desk: Desk, connect: Callable[[str], Connection]) -> None:
    desk.control.known_grants = [a_grant(f"tax-{n:03}", "stats.divisions", "tax") for n in range(401)]

    found = RemoteControl(connect(desk.token("auditor", None))).grants()

    assert [grant["grant"] for grant in found] == [f"tax-{n:03}" for n in range(401)]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>a portal</html>"),
        httpx.Response(200, json=["no", "object"]),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(404, json={"error": "a word"}),
    ],
)
def test_what_is_not_the_api_is_not_taken_for_it(tmp_path: Path, answer: httpx.Response) -> None:
    (tmp_path / "token").write_text("govbus_x", encoding="utf-8")
    settings = ApiClientSettings(url="https://api.example", token_file=tmp_path / "token")

    with (
        Connection(settings, transport=httpx.MockTransport(lambda _: answer)) as connection,
        pytest.raises(ApiUnavailableError),
    ):
        RemoteControl(connection).departments()


@pytest.mark.parametrize(
    ("status", "kind"), [(409, RefusedError), (418, RefusedError), (503, RetriableError)]
)
def test_a_code_that_is_not_known_yet_still_says_what_to_do_next(
    tmp_path: Path, status: int, kind: type[BusError]
) -> None:
    (tmp_path / "token").write_text("govbus_x", encoding="utf-8")
    settings = ApiClientSettings(url="https://api.example", token_file=tmp_path / "token")
    told = {"error": {"code": "of-a-later-version", "message": "why"}}
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json=told))

    with Connection(settings, transport=transport) as connection, pytest.raises(kind, match="why"):
        RemoteControl(connection).departments()


def test_an_api_that_is_away_ends_a_command_as_any_other_dependency_does(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("govbus_secret-token", encoding="utf-8")
    settings = ApiClientSettings(url="http://127.0.0.1:1", token_file=tmp_path / "token")

    with Connection(settings) as connection, pytest.raises(ApiUnavailableError) as raised:
        RemoteControl(connection).departments()

    assert exit_code(raised.value) == 5
    assert "secret-token" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://bus.example:8088", "https"),
        ("ftp://127.0.0.1", "begin with"),
        ("127.0.0.1:8088", "begin with"),
        ("https://", "begin with"),
        ("http://host:port", "not a URL"),
    ],
)
def test_a_token_is_never_sent_where_it_can_be_read(tmp_path: Path, url: str, match: str) -> None:
    (tmp_path / "token").write_text("govbus_x", encoding="utf-8")

    with pytest.raises(ConfigurationError, match=match):
        Connection(ApiClientSettings(url=url, token_file=tmp_path / "token"))


def test_a_url_without_a_token_file_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="GOVBUS_API_TOKEN_FILE"):
        Connection(ApiClientSettings(url="http://127.0.0.1:8088"))


@pytest.mark.parametrize("name", ["", "../me", "a/b", "a?x=1", "a%2fb", "..", "a#b"])
def test_a_name_cannot_lead_to_another_address(connect: Callable[[str], Connection], name: str) -> None:
    with pytest.raises(RefusedError, match="names are"):
        RemoteControl(connect("govbus_x")).grant(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0"},  # noqa: S104  refused
        {"host": "bus.example"},
        {"certificate_file": "c.pem"},
        {"key_file": "k.pem"},
    ],
)
def test_the_server_refuses_a_network_without_tls(desk: Desk, settings: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="GOVBUS_API_CERTIFICATE_FILE"):
        serve(ApiSettings.model_validate(settings), desk.store, listening=lambda: None, ready=lambda _: None)


def test_requests_from_afar_take_what_the_service_takes() -> None:
    for name in public(RequestControl):
        here = inspect.signature(getattr(Requests, name)).parameters
        afar = inspect.signature(getattr(RemoteRequests, name)).parameters
        assert {n: (p.kind, p.default) for n, p in here.items()} == {
            n: (p.kind, p.default) for n, p in afar.items()
        }, name


def test_a_request_goes_its_way_from_afar_and_is_the_same_at_hand(
    desk: Desk, connect: Callable[[str], Connection]
) -> None:
    def remote(account: Account) -> tuple[RequestControl, Account]:
        opened = RemoteRequests(connect(desk.issue(account.name)))
        return opened, opened.acting(account.name)

    (li, as_li), (wang, as_wang), (zhao, as_zhao) = remote(LI), remote(WANG), remote(ZHAO)
    here = desk.office.desk

    drafted = li.draft(as_li, an_ask(fields=keeping("code", phone={"truncate": 3}), rows=None))
    request = drafted.id
    li.submit(as_li, request)
    wang.take(as_wang, request)
    wang.ask(as_wang, request, "what for?")
    li.answer(as_li, request, "the clinics")
    with pytest.raises(NotAllowedError):
        li.approve(as_li, request)
    endorsed = wang.approve(as_wang, request, "yes")
    granted = zhao.approve(as_zhao, request)
    amended = wang.amend(
        as_wang, str(granted.grant_id), Amendment(rows="code LIKE '3308%'"), why="only the city"
    )
    renewed = li.renew(as_li, str(granted.grant_id), timedelta(days=99), why="longer")
    refused = li.draft(as_li, an_ask())
    li.withdraw(as_li, refused.id, "not needed")
    third = li.submit(as_li, li.draft(as_li, an_ask()).id)
    wang.take(as_wang, third.id)
    rejected = wang.reject(as_wang, third.id, Ground.DUPLICATE, "there is one")

    assert (drafted.ask.rows, endorsed.approved_by) == (None, ("wang",))
    assert (granted.state, granted.grant_version) == ("provisioned", 1)
    assert (amended.state, amended.grant_version, renewed.state) == ("provisioned", 2, "submitted")
    assert rejected.ground is Ground.DUPLICATE
    assert list(li.listing(as_li)) == list(here.listing(LI))
    assert list(li.listing(as_li, limit=2, after=request)) == list(here.listing(LI, limit=2, after=request))
    assert list(wang.listing(as_wang, to_review=True)) == list(here.listing(WANG, to_review=True))
    for one in here.listing(LI):
        assert li.find(as_li, one.id) == here.find(LI, one.id) == read_shown_request(show_request(one))
        assert list(li.history(as_li, one.id)) == list(here.history(LI, one.id))


def test_nobody_acts_as_another_by_mistake(desk: Desk, connect: Callable[[str], Connection]) -> None:
    remote = RemoteRequests(connect(desk.issue("li")))

    with pytest.raises(NotAllowedError, match="stands for li, not for wang"):
        remote.acting("wang")
    with pytest.raises(NotAllowedError):
        remote.listing(WANG)


@pytest.mark.parametrize(
    "change",
    [
        Amendment(),
        Amendment(
            fields=keeping("code", phone={"truncate": 3}),
            rows="all",
            term=timedelta(hours=7),
            data_on_end=DataDuty.KEEP,
            quota_records_per_day=0,
            quota_keys_per_day=5,
        ),
    ],
)
def test_an_amendment_arrives_as_it_was_written(change: Amendment) -> None:
    assert read_amendment(show_amendment(change)) == change
