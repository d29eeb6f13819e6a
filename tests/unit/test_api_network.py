"""Where a caller comes from: whose word is believed, and what limits count by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from govbus.errors import ConfigurationError, NotAllowedError
from govbus_console.api.network import Peers, networks
from govbus_console.settings import ApiSettings
from support.api import Desk, a_desk, a_store

PROXY, SECOND_PROXY, STRANGER = "10.0.0.7", "10.1.0.9", "203.0.113.5"
LISTED = f"{PROXY}, 10.1.0.0/24"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    store = a_store(tmp_path)
    yield a_desk(store, monkeypatch)
    store.close()


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        (STRANGER, [], STRANGER),
        (STRANGER, ["198.51.100.1"], STRANGER),
        (PROXY, [], PROXY),
        (PROXY, ["198.51.100.1"], "198.51.100.1"),
        (PROXY, ["198.51.100.1:4711"], "198.51.100.1"),
        (PROXY, ["[2001:db8::1]:4711"], "2001:db8::1"),
        (f"::ffff:{PROXY}", ["198.51.100.1"], "198.51.100.1"),
        # What a caller wrote itself stands before what the proxy has added.
        (PROXY, ["127.0.0.1, 198.51.100.1"], "198.51.100.1"),
        (PROXY, ["127.0.0.1", "198.51.100.1"], "198.51.100.1"),
        (PROXY, [f"198.51.100.1, {SECOND_PROXY}"], "198.51.100.1"),
        (PROXY, [f"198.51.100.1, {STRANGER}, {SECOND_PROXY}"], STRANGER),
        (PROXY, ["nonsense"], PROXY),
        (PROXY, [f"198.51.100.1, nonsense, {SECOND_PROXY}"], SECOND_PROXY),
        (PROXY, [f"{SECOND_PROXY}, {PROXY}"], SECOND_PROXY),
    ],
)
def test_a_forwarded_address_is_believed_from_a_listed_proxy_alone(
    peer: str, forwarded: list[str], caller: str
) -> None:
    assert Peers(networks(LISTED), tls=True).caller(peer, forwarded) == caller


def test_without_a_list_nobody_is_believed() -> None:
    assert Peers((), tls=False).caller("127.0.0.1", ["198.51.100.1"]) == "127.0.0.1"
    assert Peers((), tls=False).caller(None, ["198.51.100.1"]) == "unknown"


@given(peer=st.ip_addresses().map(str), forwarded=st.lists(st.text(max_size=40), max_size=3))
def test_what_a_stranger_writes_never_changes_who_it_is(peer: str, forwarded: list[str]) -> None:
    peers = Peers(networks("192.0.2.1"), tls=True)
    if peer != "192.0.2.1":
        assert peers.caller(peer, forwarded) == peer


def test_where_the_proxy_speaks_tls_nobody_else_is_answered_in_the_clear() -> None:
    plain = Peers(networks(LISTED), tls=False)

    assert plain.caller(PROXY, ["198.51.100.1"]) == "198.51.100.1"
    assert plain.caller("127.0.0.1", []) == "127.0.0.1"
    for peer in (STRANGER, None, "nonsense"):
        with pytest.raises(NotAllowedError, match="by its proxy"):
            plain.caller(peer, ["127.0.0.1"])


@pytest.mark.parametrize("listed", ["*", "everybody", "10.0.0.300", "10.0.0.0/40", "10.0.0.1;10.0.0.2"])
def test_a_proxy_that_is_no_address_is_a_mistake_and_not_everybody(listed: str) -> None:
    with pytest.raises(ConfigurationError, match="GOVBUS_API_TRUSTED_PROXIES"):
        networks(listed)


def statuses(desk: Desk, peer: str, callers: list[str]) -> list[int]:
    """What bad tokens get that come by one connection for these callers."""
    client = TestClient(desk.app, client=(peer, 50_000), headers={"Authorization": "Bearer govbus_wrong"})
    return [client.get("/v1/me", headers={"X-Forwarded-For": caller}).status_code for caller in callers]


def test_behind_a_listed_proxy_each_caller_has_its_own_limit(desk: Desk) -> None:
    desk.settings = ApiSettings(bad_tokens_per_minute=2, trusted_proxies=PROXY)

    found = statuses(desk, PROXY, ["198.51.100.1"] * 3 + ["198.51.100.2"])

    assert found == [401, 401, 429, 401]


def test_a_caller_that_is_no_listed_proxy_gets_no_new_limit_by_writing_the_header(desk: Desk) -> None:
    desk.settings = ApiSettings(
        bad_tokens_per_minute=2, trusted_proxies=PROXY, certificate_file=Path("c.pem"), key_file=Path("k.pem")
    )

    found = statuses(desk, STRANGER, ["198.51.100.1", "198.51.100.2", "198.51.100.3"])

    assert found == [401, 401, 429]


def test_a_token_that_came_past_the_proxy_opens_nothing(desk: Desk) -> None:
    desk.settings = ApiSettings(trusted_proxies=PROXY)
    headers = {"Authorization": f"Bearer {desk.token('auditor', None)}", "X-Forwarded-For": PROXY}

    past = TestClient(desk.app, client=(STRANGER, 50_000), headers=headers).get("/v1/me")
    by_it = TestClient(desk.app, client=(PROXY, 50_000), headers=headers).get("/v1/me")

    assert (past.status_code, past.json()["error"]["code"]) == (403, "not-allowed")
    assert by_it.status_code == 200
