"""Tokens: shown once, kept as a digest, with an end, gone when revoked."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, select, update

from govbus.errors import NotFoundError, RefusedError
from govbus_console.control.request_tables import AccountRow
from govbus_console.control.store import AuditRow, ControlStore
from govbus_console.control.token_tables import TokenRow
from govbus_console.control.tokens import find_token, list_tokens, new_token, revoke_token
from support.api import DATABASES, NOON, a_desk, a_store, add_account, database_of

MONTH = timedelta(days=30)


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return database_of(request, tmp_path)


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[ControlStore]:
    made = a_store(tmp_path, database)
    add_account(made, "li", "civil", "steward", "subscriber")
    add_account(made, "wang", None, "auditor")
    yield made
    made.close()


def issue(store: ControlStore, account: str = "li", term: timedelta = MONTH) -> str:
    return new_token(store, account, term=term, who="zhao", why="joins", now=NOON).secret


def whatever_stands_in(database: str) -> str:
    """Every row of every table, as text."""
    engine, tables = create_engine(database), MetaData()
    try:
        tables.reflect(engine)
        with engine.connect() as connection:
            rows = [
                str(row) for table in tables.sorted_tables for row in connection.execute(select(table)).all()
            ]
    finally:
        engine.dispose()
    return "\n".join(rows)


def test_a_token_has_256_random_bits_and_a_beginning_that_scanners_know(store: ControlStore) -> None:
    first, second = issue(store), issue(store)

    assert re.fullmatch(r"govbus_[A-Za-z0-9_-]{43}", first)
    assert first != second


def test_the_store_keeps_nothing_of_a_token_but_its_digest(store: ControlStore, database: str) -> None:
    secret = issue(store)

    with store.reading() as session:
        assert session.scalars(select(TokenRow.digest)).one() == hashlib.sha256(secret.encode()).hexdigest()
    everything = whatever_stands_in(database)
    assert "zhao" in everything
    assert secret not in everything
    assert secret.removeprefix("govbus_")[:20] not in everything


def test_what_shows_a_token_that_was_just_made_does_not_show_it(store: ControlStore) -> None:
    """A log line or a traceback that holds the object."""
    issued = new_token(store, "li", term=MONTH, who="zhao", why="joins", now=NOON)

    assert issued.secret not in repr(issued)
    assert issued.secret not in str(issued.token.as_json())


def test_a_token_stands_for_its_account(store: ControlStore) -> None:
    found = find_token(store, issue(store), now=NOON)

    assert found is not None
    assert (found.account.name, found.account.department) == ("li", "civil")
    assert {role.value for role in found.account.roles} == {"steward", "subscriber"}


@pytest.mark.parametrize("secret", ["", "govbus_", "govbus_x", "x" * 50, "govbus_" + "é" * 43])
def test_what_is_no_token_is_not_found(store: ControlStore, secret: str) -> None:
    issue(store)

    assert find_token(store, secret, now=NOON) is None


def test_neither_its_id_nor_its_digest_opens_anything(store: ControlStore) -> None:
    secret = issue(store)
    token = list_tokens(store)[0]
    digest = hashlib.sha256(secret.encode()).hexdigest()

    assert find_token(store, token.id, now=NOON) is None
    assert find_token(store, digest, now=NOON) is None
    assert find_token(store, f"govbus_{digest}", now=NOON) is None


def test_a_token_opens_nothing_from_the_moment_it_expires(store: ControlStore) -> None:
    secret = issue(store)

    assert find_token(store, secret, now=NOON + MONTH - timedelta(milliseconds=1)) is not None
    assert find_token(store, secret, now=NOON + MONTH) is None


def test_a_revoked_token_opens_nothing_at_once_and_others_stay(store: ControlStore) -> None:
    lost, kept = issue(store), issue(store)
    found = find_token(store, lost, now=NOON)
    assert found is not None

    revoke_token(store, found.id, who="li", why="lost", now=NOON)

    assert find_token(store, lost, now=NOON) is None
    assert find_token(store, kept, now=NOON) is not None


def test_a_role_that_is_taken_away_is_gone_from_every_token(store: ControlStore) -> None:
    secret = issue(store)

    change_account(store, steward=False)

    found = find_token(store, secret, now=NOON)
    assert found is not None
    assert {role.value for role in found.account.roles} == {"subscriber"}


def test_the_tokens_of_a_disabled_account_open_nothing_and_it_gets_no_new_ones(store: ControlStore) -> None:
    secret = issue(store)

    change_account(store, disabled=True)

    assert find_token(store, secret, now=NOON) is None
    with pytest.raises(RefusedError, match="disabled"):
        issue(store)


def change_account(store: ControlStore, **values: bool) -> None:
    with store.locked() as session:
        session.execute(update(AccountRow).where(AccountRow.name == "li").values(**values))


@pytest.mark.parametrize("term", [timedelta(), timedelta(days=-1), timedelta(days=367)])
def test_there_is_no_token_without_a_reasonable_end(store: ControlStore, term: timedelta) -> None:
    with pytest.raises(RefusedError, match="lasts"):
        issue(store, term=term)

    assert list_tokens(store) == []


def test_there_is_no_token_without_an_account(store: ControlStore) -> None:
    with pytest.raises(NotFoundError):
        issue(store, account="nobody")


def test_making_and_revoking_are_audited_once_each_without_the_token(store: ControlStore) -> None:
    secret = issue(store)
    token = list_tokens(store)[0]
    revoke_token(store, token.id, who="li", why="lost", now=NOON)
    revoke_token(store, token.id, who="li", why="lost again", now=NOON)

    with store.reading() as session:
        rows = list(session.scalars(select(AuditRow).where(AuditRow.what == f"token {token.id}")))
        told = [(row.who, row.why) for row in rows]
        written = str([(row.before, row.after) for row in rows])

    assert told == [("zhao", "joins"), ("li", "lost")]
    assert secret not in written
    assert hashlib.sha256(secret.encode()).hexdigest() not in written


def test_one_account_cannot_revoke_anothers_token(store: ControlStore) -> None:
    issue(store)
    token = list_tokens(store)[0]

    with pytest.raises(NotFoundError):
        revoke_token(store, token.id, account="wang", who="wang", why="spite", now=NOON)

    assert list_tokens(store)[0].revoked_at is None


def test_over_the_api_a_caller_sees_and_gives_up_its_own_tokens_and_no_others(
    store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = a_desk(store, monkeypatch)
    own, other = issue(store), issue(store, "wang")
    client = desk.client(own)
    shown = client.get("/v1/tokens").json()["items"]
    foreign = find_token(store, other, now=NOON)
    assert foreign is not None

    refused = client.post(f"/v1/tokens/{foreign.id}/revoke", json={"why": "spite"})
    given_up = client.post(f"/v1/tokens/{shown[0]['id']}/revoke", json={"why": "lost"})

    assert [token["account"] for token in shown] == ["li"]
    assert refused.status_code == 404
    assert given_up.status_code == 200
    assert client.get("/v1/me").status_code == 401
    assert desk.client(other).get("/v1/me").status_code == 200


def test_no_token_stands_in_a_log(
    store: ControlStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    desk = a_desk(store, monkeypatch)
    secret = issue(store)
    desk.client(secret).get("/v1/me")
    desk.control.raises = KeyError(secret)
    failed = desk.client(secret).get("/v1/departments")
    desk.client("govbus_not-the-token").get("/v1/me")

    assert failed.status_code == 500
    assert "request failed" in caplog.text
    assert secret not in " ".join(record.getMessage() for record in caplog.records)
    assert "not-the-token" not in caplog.text
