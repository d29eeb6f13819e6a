"""What the database itself refuses, whoever writes and with whatever program."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from govbus.request import TRANSITIONS
from govbus_console.control import migrate
from support.requesting import MONDAY, Office, a_store_on, keeping

SENSITIVE = {"fields": keeping("code", "phone")}


@pytest.fixture(params=["sqlite", "postgresql"])
def office(
    request: pytest.FixtureRequest, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Office]:
    store = a_store_on(request, filled, tmp_path)
    yield Office(store, monkeypatch)
    store.close()


def execute(engine: Engine, statement: str, **values: Any) -> None:
    """Raw SQL, as somebody with the database's password would write it."""
    with engine.connect() as plain:
        connection = plain.execution_options(govbus_writes=True)
        with connection.begin():
            connection.execute(text(statement), values)


def refused(engine: Engine, statement: str, match: str, **values: Any) -> None:
    with pytest.raises(DBAPIError, match=match):
        execute(engine, statement, **values)


APPROVE = "INSERT INTO approvals (request, approver, at, note) VALUES (:request, :approver, :at, '')"


def test_four_eyes_stand_in_the_database(office: Office) -> None:
    made = office.in_review(**SENSITIVE)
    engine, at = office.store.engine, MONDAY.replace(tzinfo=None)

    def approval(approver: str, match: str) -> None:
        refused(engine, APPROVE, match, request=made, approver=approver, at=at)

    # Li asked; Hu is of the same department; Qian keeps the bus; Sun is a stranger.
    # Which of several guards speaks first is the database's choice.
    approval("li-tax", "nobody approves their own request|given by a steward of the owner")
    for stranger in ("hu-tax", "qian-ops", "sun-health", "zhou-audit"):
        approval(stranger, "given by a steward of the owner")
    refused(engine, "UPDATE requests SET state = 'approved'", "too few have approved")
    execute(engine, APPROVE, request=made, approver="wang-civil", at=at)
    approval("wang-civil", "(?i)unique")
    refused(engine, "UPDATE requests SET state = 'approved'", "too few have approved")
    refused(engine, "UPDATE approvals SET approver = 'zhao-civil'", "never changed")
    refused(engine, "DELETE FROM approvals", "never taken out")
    execute(engine, APPROVE, request=made, approver="zhao-civil", at=at)
    execute(engine, "UPDATE requests SET state = 'approved'")


def test_a_requester_who_becomes_the_owner_s_steward_still_cannot_approve(office: Office) -> None:
    made = office.in_review()
    execute(
        office.store.engine, "UPDATE accounts SET department = 'civil', steward = TRUE WHERE name = 'li-tax'"
    )

    refused(
        office.store.engine,
        APPROVE,
        "nobody approves their own request",
        request=made,
        approver="li-tax",
        at=MONDAY.replace(tzinfo=None),
    )


def test_an_approval_waits_for_the_review_and_a_disabled_account_gives_none(office: Office) -> None:
    from support.requesting import LI, an_ask

    at = MONDAY.replace(tzinfo=None)
    draft = office.desk.draft(LI, an_ask()).id
    engine = office.store.engine

    refused(engine, APPROVE, "only a request in review", request=draft, approver="wang-civil", at=at)
    made = office.in_review()
    execute(engine, "UPDATE accounts SET disabled = TRUE WHERE name = 'wang-civil'")
    refused(engine, APPROVE, "given by a steward", request=made, approver="wang-civil", at=at)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("approvals_needed = 1", "what was submitted never changes"),
        ("row_filter = NULL", "what was submitted never changes"),
        ("fields = '[]'", "what was submitted never changes"),
        ("purpose = 'Marketing'", "what was submitted never changes"),
        ("term_hours = 9999", "what was submitted never changes"),
        ("quota_keys_per_day = 1", "what was submitted never changes"),
        ("kind = 'renew'", "what was submitted never changes"),
        ("requester = 'sun-health'", "who asks for whom never changes"),
        ("subscriber = 'health'", "who asks for whom never changes"),
        ("state = 'provisioned'", "no such change of state"),
        ("state = 'draft'", "no such change of state"),
        ("state = 'paid'", "no such change of state"),
        ("state = 'rejected'", "(?i)ck_requests_rejected_on_a_ground"),
    ],
)
def test_what_was_submitted_stays_as_it_is(office: Office, change: str, match: str) -> None:
    office.in_review(**SENSITIVE)

    refused(office.store.engine, f"UPDATE requests SET {change}", match)  # noqa: S608  all constants


def test_requests_and_their_history_are_never_taken_out(office: Office) -> None:
    office.in_review()
    engine = office.store.engine

    refused(engine, "DELETE FROM requests", "never taken out")
    refused(engine, "DELETE FROM request_events", "never taken out")
    refused(engine, "UPDATE request_events SET who = 'somebody else'", "never changed")


def test_a_department_asks_for_itself_and_begins_with_a_draft(office: Office) -> None:
    office.in_review()
    engine = office.store.engine
    columns = [column["name"] for column in inspect(engine).get_columns("requests")]

    def copied(**changes: str) -> str:
        shown = ", ".join(changes.get(name, name) for name in columns)
        return f"INSERT INTO requests ({', '.join(columns)}) SELECT {shown} FROM requests"  # noqa: S608

    refused(engine, copied(id="'r-9'"), "begins as a draft")
    for requester in ("'sun-health'", "'wang-civil'", "'qian-ops'"):
        draft = copied(id="'r-9'", state="'draft'", requester=requester)
        refused(engine, draft, "asks for itself")
    refused(engine, copied(id="'r-9'", state="'draft'", approvals_needed="3"), "(?i)ck_requests_approvals")
    execute(engine, copied(id="'r-9'", state="'draft'", approvals_needed="0"))
    refused(
        engine,
        "UPDATE requests SET state = 'submitted' WHERE id = 'r-9'",
        "(?i)ck_requests_conditional_needs_approval",
    )


def test_the_review_after_an_emergency_can_be_neither_skipped_nor_done_by_oneself(office: Office) -> None:
    from datetime import timedelta

    from support.requesting import LI, QIAN, WANG, an_ask

    ask = an_ask(term=timedelta(hours=1))
    made = office.desk.emergency(QIAN, ask, requester=LI.name, why="flood").id
    engine = office.store.engine

    refused(engine, "UPDATE requests SET review = NULL", "cannot be left out")
    refused(engine, "UPDATE requests SET review = 'done'", "(?i)ck_requests_review_has_reviewer")
    done = "UPDATE requests SET review = 'done', upheld = TRUE, reviewed_by = :who"
    for who in ("li-tax", "qian-ops", "hu-tax"):
        refused(engine, done, "steward of the owner|ck_requests_reviewed_by_another", who=who)
    refused(engine, "UPDATE requests SET granted_by = 'hu-tax'", "granted by an operator or a steward")
    office.desk.review_emergency(WANG, made, upheld=False, why="no flood")
    refused(engine, "UPDATE requests SET upheld = TRUE", "a review is never changed")


def test_the_database_knows_the_changes_of_state_of_the_table_of_transitions() -> None:
    revision = Path(migrate.__file__).parent / "migrations" / "versions" / "0004_requests.py"
    spec = importlib.util.spec_from_file_location("revision", revision)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert set(module.STEPS) == {
        f"{line.before}>{line.after}" for line in TRANSITIONS if line.before != line.after
    }


def test_the_tables_go_down_and_up_again_with_data_in(office: Office) -> None:
    office.provisioned(quota_keys_per_day=9)
    store = office.store

    migrate.downgrade(store.engine, "0003")
    tables = set(inspect(store.engine).get_table_names())
    with store.engine.connect() as connection:
        kept = connection.execute(text("SELECT id, version, purpose FROM grants")).all()
    migrate.upgrade(store.engine)

    assert tables.isdisjoint({"requests", "approvals", "accounts", "notices", "holidays", "request_events"})
    assert [tuple(row) for row in kept] == [("residents-for-tax", 1, "Assessment")]
    grant = store.snapshot().grants["residents-for-tax"].grant
    assert (grant.purpose, grant.quota_keys_per_day) == ("Assessment", None)
    refused(
        store.engine,
        "INSERT INTO approvals VALUES ('r-1', 'li-tax', :at, '')",
        "only a request in review|given by a steward",
        at=MONDAY.replace(tzinfo=None),
    )
