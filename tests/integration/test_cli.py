"""The commands against a real bus, reached by settings alone as in production."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from govbus import topics
from govbus_console import render
from govbus_console.control.store import AuditRow
from support.control import ControlSide
from support.exchanges import WorkerProcess, eventually

Run = Callable[..., tuple[int, Any]]


def test_what_is_applied_is_shown_revoked_and_shown_as_revoked(control: ControlSide, run: Run) -> None:
    file = str(control.file)

    first, applied = run("apply", "-f", file, "--detailed-exitcode", "--who", "li", "--why", "agreed")
    second, again = run("apply", "-f", file, "--detailed-exitcode")
    _, before = run("status")
    third, revoked = run("revoke", control.health_grant, "--data", "blank")
    _, after = run("status")

    assert (first, second, third) == (render.PENDING, render.DONE, render.DONE)
    assert (applied["pending"], applied["published"], again["published"]) == (True, 5, 0)
    assert (revoked["state"], revoked["version"], revoked["data_on_end"]) == ("revoked", 2, "blank")
    assert revoked["barrier_ms"] >= 0
    states = [{g["grant"]: g["state"] for g in found["grants"]} for found in (before, after)]
    assert states == [
        {control.health_grant: "active", control.tax_grant: "active"},
        {control.health_grant: "revoked", control.tax_grant: "active"},
    ]
    assert after["unpublished"] == 0
    (resource,) = after["resources"]
    assert resource["exchange_lag"] == 0


def test_the_audit_tells_an_account_from_whoever_may_write_the_store(control: ControlSide, run: Run) -> None:
    run("apply", "-f", str(control.file), "--who", "li")
    steward = f"zhou-{control.owner}"
    run("account", "add", steward, "--department", control.owner, "--role", "steward", "--who", "li")

    done = [
        run("suspend", control.health_grant, "--as", steward, "--why", "a doubt")[0],
        run("resume", control.health_grant, "--who", steward, "--why", "none")[0],
        run("suspend", control.health_grant, "--as", steward)[0],
        run("revoke", control.health_grant, "--as", steward, "--wait", "0")[0],
    ]

    assert done == [render.DONE] * 4
    with control.store.reading() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.seq)).all()
    assert [row.who for row in rows if row.what == f"grant {control.health_grant}"] == [
        "li (no account)", steward, f"{steward} (no account)", steward, steward,
    ]  # fmt: skip


def test_status_shows_how_far_an_amended_grant_has_been_brought(
    control: ControlSide, run: Run, tmp_path: Path
) -> None:
    run("apply", "-f", str(control.file))
    control.running.exchange()
    secret = tmp_path / "pseudonym.secret"
    secret.write_text("s" * 64, encoding="utf-8")
    place: Any = SimpleNamespace(folder=tmp_path, bus=control.running.embedded, secret_file=secret)
    topic = topics.captured(control.owner, "residents")
    key, value = (control.bus.registry.latest(f"{topic}-{part}").id for part in ("key", "value"))
    worker = WorkerProcess(place, f"{control.owner}-w", {})
    try:
        for number in range(20):
            publish(control, topic, key, value, id_number=str(number))
        eventually(lambda: run("status")[1]["resources"][0]["exchange_lag"] == 0, what="all exchanged")
        _, before = run("status")
    finally:
        worker.stop()
    control.write(change=("fields: [id_number, street]\n    rows: all\n    purpose: Vaccination",
                          "fields: [id_number, name]\n    rows: all\n    purpose: Vaccination"))  # fmt: skip
    run("apply", "-f", str(control.file))
    _, amended = run("status")
    again = WorkerProcess(place, f"{control.owner}-w", {})
    try:
        eventually(lambda: backfill(run("status")[1], control.health_grant) is None, what="the present")
    finally:
        again.stop()

    assert backfill(before, control.health_grant) is None
    assert backfill(amended, control.tax_grant) is None
    assert backfill(amended, control.health_grant) == {"done": 0, "expected": 20, "remaining": 20}


def backfill(status: Any, grant: str) -> Any:
    """What ``govbus status`` says of a grant's way to the present."""
    return {found["grant"]: found["backfill"] for found in status["grants"]}[grant]


def test_tail_shows_policy_whole_and_of_deliveries_only_place_and_size(
    control: ControlSide, run: Run
) -> None:
    run("apply", "-f", str(control.file))
    topic = topics.captured(control.owner, "residents")
    registry = control.bus.registry
    value, key = (registry.latest(f"{topic}-{part}").id for part in ("value", "key"))
    publish(control, topic, key, value)

    _, grants = run("tail", "govbus.grants", "-n", "200")
    code, records = run("tail", f"{control.owner}.residents")
    refused, told = run("tail", f"{control.owner}.residents", "--values", "--as", "admin")

    assert f"grant/{control.health_grant}" in [record["key"] for record in grants]
    assert code == render.DONE
    (record,) = records
    assert (record["schema_id"], record["partition"], record["offset"]) == (value, 0, 0)
    assert record["value_bytes"] > 5
    assert not {"key", "value"} & record.keys()
    assert refused == render.FAILED
    assert "administrator does not look" in told[0]["error"]["why"]


def test_a_department_sees_what_it_may_read_and_is_refused_the_rest(
    control: ControlSide, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("apply", "-f", str(control.file))
    monkeypatch.setenv("GOVBUS_BROKER_USER", control.tax)
    monkeypatch.setenv("GOVBUS_BROKER_PASSWORD_FILE", str(control.running.home.password_file(control.tax)))

    own, _ = run("tail", control.tax_grant, "--values", "--as", control.tax)
    other, told = run("tail", control.health_grant, "--values", "--as", control.tax)

    assert own == render.DONE
    assert other == render.UNREACHABLE
    assert told[0]["error"]["code"] == "access-denied"


def test_a_wrong_password_ends_with_5_and_how_to_put_it_right(
    control: ControlSide, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("not-the-password", encoding="utf-8")
    monkeypatch.setenv("GOVBUS_BROKER_PASSWORD_FILE", str(tmp_path / "wrong"))

    code, told = run("apply", "-f", str(control.file))

    assert code == render.UNREACHABLE
    assert told["error"]["code"] == "access-denied"
    assert "password file" in told["error"]["fix"]
    assert "not-the-password" not in json.dumps(told)
    assert control.store.snapshot().departments == {}


def test_a_registry_that_is_away_ends_with_5_and_leaves_nothing_applied(
    control: ControlSide, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOVBUS_REGISTRY_URL", "http://127.0.0.1:1/apis/ccompat/v7")

    code, told = run("apply", "-f", str(control.file))

    assert (code, told["error"]["code"]) == (render.UNREACHABLE, "registry-unavailable")
    assert control.store.snapshot().departments == {}


def publish(control: ControlSide, topic: str, key: int, value: int, id_number: str = "1") -> None:
    """Put one resident on a captured topic."""
    from confluent_kafka import Producer

    from govbus.codec import encode

    registry = control.bus.registry
    row = {"id_number": id_number, "name": "n", "street": "s"}
    producer = Producer(control.running.client(control.owner))
    producer.produce(
        topic,
        key=encode(registry.schema(key), {"id_number": id_number}),
        value=encode(registry.schema(value), row),
        partition=0,
    )
    assert producer.flush(20) == 0
