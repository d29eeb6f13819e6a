"""Plans, saved plans and removals, given as commands against a real bus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from govbus import topics
from govbus.codec import encode
from govbus_console import render
from govbus_console.control import lifecycle
from support.control import ControlSide

Run = Callable[..., tuple[int, Any]]


def publish(control: ControlSide, *people: tuple[str, str]) -> None:
    """Publish residents, given by id and street."""
    topic = topics.captured(control.owner, "residents")
    registry = control.bus.registry
    value, key = (registry.latest(f"{topic}-{part}") for part in ("value", "key"))
    producer = Producer(control.running.client())
    for number, (id_number, street) in enumerate(people):
        producer.produce(
            topic,
            key=encode(key, {"id_number": id_number}),
            value=encode(value, {"id_number": id_number, "name": "x", "street": street}),
            partition=number % 2,
        )
    assert producer.flush(30) == 0


def grants(told: Any) -> dict[str, Any]:
    return {grant["grant"]: grant for grant in told["grants"]}


def test_a_plan_counts_the_rows_that_a_subscriber_would_see_more_and_less(
    control: ControlSide, run: Run
) -> None:
    file = str(control.file)
    _, new = run("plan", "-f", file)
    run("apply", "-f", file)
    publish(control, ("1", "North"), ("2", "South"), ("3", "North"))
    before = "fields: [id_number, street]\n    rows: all\n    purpose: Vaccination"
    after = "fields: [id_number, name]\n    rows: street = 'North'\n    purpose: Vaccination"
    control.write(change=(before, after))

    _, narrower = run("plan", "-f", file)
    _, quick = run("plan", "-f", file, "--count-seconds", "0")
    _, done = run("apply", "-f", file)

    nothing_yet = {"before": 0, "after": 0, "more": 0, "less": 0}
    assert [grant["rows"] for grant in new["grants"]] == [nothing_yet, nothing_yet]
    assert (
        narrower["grants"]
        == done["grants"]
        == [
            {
                "grant": control.health_grant,
                "subscriber": control.health,
                "resource": f"{control.owner}.residents",
                "fields_more": ["name"],
                "fields_less": ["street"],
                "fields_otherwise": [],
                "rows": {"before": 3, "after": 2, "more": 0, "less": 1},
            }
        ]
    )
    assert quick["grants"][0]["rows"] is None


def test_a_saved_plan_is_applied_as_it_is_or_not_at_all(
    control: ControlSide, run: Run, tmp_path: Path
) -> None:
    file, saved = str(control.file), str(tmp_path / "plan.json")
    text = control.file.read_text(encoding="utf-8")
    run("plan", "-f", file, "--out", saved)

    control.file.write_text(text + "# a remark\n", encoding="utf-8")
    edited, why_edited = run("apply", "--plan", saved)
    control.file.write_text(text, encoding="utf-8")
    first, applied = run("apply", "--plan", saved, "--detailed-exitcode")
    again, why_again = run("apply", "--plan", saved)
    run("plan", "-f", file, "--out", saved)
    lifecycle.suspend(control.tax_grant, control.store, control.bus, who="tester", why="a test")
    moved, why_moved = run("apply", "--plan", saved)
    broken, _ = run("apply", "--plan", file)

    assert (edited, again, moved, broken) == (render.REFUSED,) * 3 + (render.FAILED,)
    assert (first, applied["pending"]) == (render.PENDING, True)
    assert {told["error"]["code"] for told in (why_edited, why_again, why_moved)} == {"plan-moved"}
    assert "catalogue.yaml or one of its contracts has changed" in why_edited["error"]["why"]
    assert "a grant of record has changed" in why_moved["error"]["why"]


def test_what_is_removed_is_revoked_withheld_and_shut_out(control: ControlSide, run: Run) -> None:
    run("apply", "-f", str(control.file))
    residents = f"{control.owner}.residents"
    words = (
        f"remove:\n  grants: [{control.health_grant}]\n  resources: [{residents}]\n"
        f"  departments: [{control.health}]\n"
    )
    control.file.write_text(words, encoding="utf-8")

    refused, why = run("apply", "-f", str(control.file))
    control.file.write_text(words.replace("grants: [", f"grants: [{control.tax_grant}, "), encoding="utf-8")
    code, told = run("apply", "-f", str(control.file), "--who", "li", "--why", "closed")
    again, nothing = run("apply", "-f", str(control.file), "--detailed-exitcode")

    assert (refused, code, again) == (render.REFUSED, render.DONE, render.DONE)
    assert (
        f"{residents} cannot be removed; end first what depends on it: grant {control.tax_grant} "
        in (why["error"]["why"])
    )
    assert grants(told)[control.health_grant]["fields_less"] == ["id_number", "street"]
    assert (nothing["pending"], nothing["published"]) == (False, 0)
    known = control.store.snapshot()
    assert {stored.grant.state.value for stored in known.grants.values()} == {"revoked"}
    assert (set(known.departments), set(known.resources)) == ({control.owner, control.tax}, set())
    assert [record["state"] for record in control.policy(control.health_grant)] == ["active", "revoked"]
    assert control.policy(residents)[-1]["share_type"] == "withheld"
    assert not control.running.cluster.has_user(control.health)
    assert control.running.cluster.acls(control.health) == frozenset()
    assert control.running.cluster.has_user(control.tax)


def test_find_who_uses_and_can_answer_at_the_command_line(control: ControlSide, run: Run) -> None:
    run("apply", "-f", str(control.file))
    residents = f"{control.owner}.residents"

    found, page = run("find", "resid", "--owner", control.owner)
    used, uses = run("who-uses", f"{residents}.street")
    yes, answer = run("can", control.tax, f"{residents}.street")
    no, denied = run("can", control.tax, f"{residents}.name")
    lifecycle.suspend(control.tax_grant, control.store, control.bus, who="tester", why="a test")
    suspended, since = run("can", control.tax, residents)
    unknown, _ = run("can", control.tax, f"{control.owner}.nothing")

    assert (found, used, yes, no, suspended) == (0, 0, 0, render.REFUSED, render.REFUSED)
    assert unknown == render.FAILED
    assert [entry["resource"] for entry in page["found"]] == [residents]
    assert "grants" not in page["found"][0]
    assert {use["department"] for use in uses["uses"]} == {control.health, control.tax}
    assert (answer["answer"], answer["reason"]) == ("yes", "permitted")
    assert (denied["answer"], denied["reason"]) == ("no", "field-not-granted")
    assert since["reason"] == "grant-suspended"
