"""Who has not acted in time is reminded once, and escalated once; notices are delivered and then marked."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import select

from govbus.errors import BrokerUnavailableError, ConfigurationError, SinkUnavailableError
from govbus_console.control import notices
from govbus_console.control.clocks import run_clocks
from govbus_console.control.request_tables import NoticeRow
from govbus_console.control.store import ControlStore
from support.requesting import LI, MONDAY, QIAN, WANG, Office, an_ask


@pytest.fixture
def office(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    store = ControlStore.open(f"sqlite:///{shutil.copy(filled, tmp_path)}")
    yield Office(store, monkeypatch)
    store.close()


def run(office: Office, days: float) -> list[tuple[str, str, str]]:
    """Run the clocks so many days after Monday; what was written, as kind, about and role."""
    now = MONDAY + timedelta(days=days)
    run_clocks(office.store, office.desk.rules, now=now)
    with office.store.reading() as session:
        rows = session.scalars(select(NoticeRow).where(NoticeRow.kind != "changed").order_by(NoticeRow.seq))
        return [(row.kind, row.about, row.role) for row in rows if row.made_at == now]


def test_a_review_is_reminded_of_two_working_days_before_its_end_and_escalated_after_it(
    office: Office,
) -> None:
    office.in_review()

    # Ten working days from Monday the 2nd end on Monday the 16th.
    assert run(office, 9) == []
    assert run(office, 10) == [("reminder", "in_review", "steward")]
    assert run(office, 10.5) == []
    assert run(office, 13) == []
    assert run(office, 15) == [
        ("escalation", "in_review", "steward"),
        ("escalation", "in_review", "operator"),
    ]
    assert run(office, 16) == []


def test_a_question_s_term_is_the_requester_s_and_a_new_one_is_a_new_occasion(office: Office) -> None:
    made = office.in_review()
    office.desk.ask(WANG, made, "Why?")

    assert run(office, 4) == [("reminder", "needs_info", "requester")]
    assert run(office, 8) == [
        ("escalation", "needs_info", "requester"),
        ("escalation", "needs_info", "operator"),
    ]
    office.now = MONDAY + timedelta(days=9)
    office.desk.answer(LI, made, "Because")
    office.desk.ask(WANG, made, "Really?")
    assert run(office, 15) == [("reminder", "needs_info", "requester")]


def test_a_decision_that_is_not_provided_and_a_review_that_is_not_made_are_escalated(office: Office) -> None:
    made = office.in_review()
    office.down = BrokerUnavailableError("away")
    with pytest.raises(BrokerUnavailableError):
        office.desk.approve(WANG, made)
    office.down = None
    office.desk.emergency(QIAN, an_ask(term=timedelta(hours=1)), requester=LI.name, why="flood")

    assert ("escalation", "approved", "operator") in run(office, 5)
    assert run(office, 6) == []
    with office.store.reading() as session:
        told = {(row.kind, row.about) for row in session.scalars(select(NoticeRow))}
    assert {("escalation", "review"), ("reminder", "review")} & told


def test_nobody_is_reminded_of_what_was_decided(office: Office) -> None:
    office.provisioned()

    assert run(office, 100) == []


def test_notices_are_appended_to_a_file_once(office: Office, tmp_path: Path) -> None:
    office.provisioned()
    file = tmp_path / "out.jsonl"

    first = notices.drain(office.store, notices.to_file(file))
    again = notices.drain(office.store, notices.to_file(file))

    told = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert (first, again, notices.waiting(office.store)) == (len(told), 0, 0)
    assert [(one["about"], one["to"]["role"]) for one in told] == [
        ("submit", "steward"),
        ("approve", "requester"),
        ("provision", "requester"),
    ]
    assert told[0]["to"] == {"role": "steward", "department": "civil", "account": None}
    assert "code LIKE" not in file.read_text(encoding="utf-8")


def test_what_could_not_be_delivered_stays_for_the_next_time(office: Office, tmp_path: Path) -> None:
    office.provisioned()
    got: list[int] = []

    def second_fails(notice: dict[str, object]) -> None:
        if got:
            raise SinkUnavailableError("away")
        got.append(int(str(notice["id"])))

    with pytest.raises(SinkUnavailableError):
        notices.drain(office.store, second_fails)

    assert notices.waiting(office.store) == 2
    with pytest.raises(SinkUnavailableError):
        notices.drain(office.store, notices.to_file(tmp_path))


def test_a_webhook_delivers_when_it_answers_well_and_not_otherwise(office: Office) -> None:
    office.provisioned()
    posted: list[dict[str, object]] = []
    answers = iter([503, 204, 204, 204])

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(next(answers))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Hook)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        send = notices.to_webhook(f"http://127.0.0.1:{server.server_port}/secret-token")
        with pytest.raises(SinkUnavailableError, match="503") as refused:
            notices.drain(office.store, send)
        assert notices.drain(office.store, send) == 3
    finally:
        server.shutdown()
        serving.join()
        server.server_close()

    assert "secret-token" not in str(refused.value)
    assert [one["id"] for one in posted][:2] == [posted[0]["id"]] * 2
    with pytest.raises(ConfigurationError):
        notices.to_webhook("file:///etc/passwd")
