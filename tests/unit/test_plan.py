"""A plan names every change, refuses what cannot be, and never ends or revives a grant by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from govbus.catalogue import Resource, ShareType
from govbus.errors import CatalogueError, FilterRefusedError, GrantRefusedError, TransformRefusedError
from govbus.grant import GrantState, PublishedGrant
from govbus_console.control.catalogue_file import read_catalogue
from govbus_console.control.plan import Action, Plan, plan
from govbus_console.control.store import Snapshot, StoredGrant, StoredResource, contract_text

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOTHING_KNOWN = Snapshot(departments={}, resources={}, grants={})

RESIDENTS: dict[str, Any] = {
    "type": "record",
    "name": "Resident",
    "govbus": {"version": 1, "kind": "state", "key": ["id_number"]},
    "fields": [
        {"name": "id_number", "type": "string", "classification": "sensitive"},
        {"name": "name", "type": "string", "classification": "sensitive"},
        {"name": "street", "type": "string", "classification": "internal"},
    ],
}

CATALOGUE = """\
departments:
  - {name: civil, title: Civil affairs}
  - {name: health, title: Health commission}
resources:
  - ref: civil.residents
    title: Residents
    share_type: conditional
grants:
  - id: health-residents
    subscriber: health
    resource: civil.residents
    fields: [street, id_number: pseudonym]
    rows: all
    purpose: Vaccination
    term_days: 30
"""


def planned(
    folder: Path,
    text: str = CATALOGUE,
    *,
    known: Snapshot = NOTHING_KNOWN,
    contract: Mapping[str, Any] = RESIDENTS,
    now: datetime = NOON,
) -> Plan:
    place = folder / "avro_schemas" / "civil" / "residents.avsc"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(contract), encoding="utf-8")
    (folder / "catalogue.yaml").write_text(text, encoding="utf-8")
    return plan(read_catalogue(folder / "catalogue.yaml"), known, now=now)


def applied(made: Plan, known: Snapshot = NOTHING_KNOWN) -> Snapshot:
    """What would count after ``made``."""
    resources = {
        resource.ref: StoredResource(
            resource=Resource(
                owner=resource.contract.owner,
                name=resource.contract.resource,
                title=resource.title,
                share_type=resource.share_type,
                kind=resource.contract.kind,
                contract_version=resource.contract.version,
                key=resource.contract.key,
                partitions=resource.contract.partitions,
                value_schema_id=1,
                key_schema_id=2,
            ),
            contract=resource.contract,
            contract_text=contract_text(resource.contract),
            synthetic=resource.synthetic,
            owner_allows=resource.owner_allows,
            entry=resource.entry,
        )
        for resource in made.resources
    }
    grants = {
        entry.grant.id: StoredGrant(
            published=PublishedGrant(
                grant=entry.grant, view="v", delivery_topic="t", value_schema_id=3, key_schema_id=4
            ),
            contract_version=entry.contract.version,
            made_at=NOON,
        )
        for entry in made.grants
    }
    return Snapshot(
        departments=dict(known.departments) | {d.name: d for d in made.departments},
        resources=dict(known.resources) | resources,
        grants=dict(known.grants) | grants,
    )


def with_state(known: Snapshot, state: GrantState) -> Snapshot:
    stored = known.grants["health-residents"]
    grant = replace(stored.grant, state=state, version=stored.grant.version + 1)
    ended = replace(stored, published=replace(stored.published, grant=grant))
    return replace(known, grants={"health-residents": ended})


def actions(made: Plan) -> dict[str, Action]:
    return {change.name: change.action for change in made.changes}


def test_everything_new_is_created(tmp_path: Path) -> None:
    made = planned(tmp_path)

    assert actions(made) == dict.fromkeys(
        ["civil", "health", "civil.residents", "health-residents"], Action.CREATE
    )
    (entry,) = made.grants
    assert (entry.grant.version, entry.grant.state) == (1, GrantState.ACTIVE)
    assert [rule.name for rule in entry.grant.fields] == ["id_number", "street"]
    assert (entry.grant.starts_at, entry.grant.expires_at) == (NOON, NOON + timedelta(days=30))


def test_the_same_file_changes_nothing_later(tmp_path: Path) -> None:
    """Also when its term is relative: it counts from the first time."""
    known = applied(planned(tmp_path))

    made = planned(tmp_path, known=known, now=NOON + timedelta(days=3))

    assert not made.pending
    assert set(actions(made).values()) == {Action.NOTHING}
    assert (made.departments, made.resources, made.grants) == ((), (), ())


def test_another_spelling_of_the_same_filter_is_no_amendment(tmp_path: Path) -> None:
    one = CATALOGUE.replace("rows: all", "rows: street = 'a' AND name = 'b'")
    other = CATALOGUE.replace("rows: all", "rows: \"street  =  'a'  and name = 'b'\"")
    known = applied(planned(tmp_path, one))

    made = planned(tmp_path, other, known=known)

    assert not made.pending


@pytest.mark.parametrize(
    ("before", "after", "detail"),
    [
        ("Vaccination", "Screening", "purpose: Vaccination → Screening"),
        ("rows: all", "rows: street = 'x'", "rows: all → "),
        ("[street, ", "[{street: {truncate: 2}}, ", "fields: "),
        ("term_days: 30", "term_days: 60", "expires_at: 2026-01-31"),
        ("term_days: 30", "term_days: 30\n    data_on_end: keep", "data_on_end: delete → keep"),
        (
            "term_days: 30",
            "term_days: 30\n    quota_keys_per_day: 9",
            "quota_keys_per_day: None → 9",
        ),
    ],
)
def test_a_grant_that_differs_gets_the_next_version(
    tmp_path: Path, before: str, after: str, detail: str
) -> None:
    known = applied(planned(tmp_path))

    made = planned(tmp_path, CATALOGUE.replace(before, after), known=known)

    assert actions(made)["health-residents"] is Action.AMEND
    (entry,) = made.grants
    assert (entry.grant.version, entry.grant.starts_at) == (2, NOON)
    assert any(detail in line for change in made.changes for line in change.details)


def test_a_suspended_grant_stays_suspended_when_it_is_amended(tmp_path: Path) -> None:
    known = with_state(applied(planned(tmp_path)), GrantState.SUSPENDED)

    made = planned(tmp_path, CATALOGUE.replace("Vaccination", "Screening"), known=known)

    assert made.grants[0].grant.state is GrantState.SUSPENDED


@pytest.mark.parametrize("state", [GrantState.REVOKED, GrantState.EXPIRED])
def test_a_grant_that_has_ended_does_not_come_back(tmp_path: Path, state: GrantState) -> None:
    known = with_state(applied(planned(tmp_path)), state)

    made = planned(tmp_path, CATALOGUE.replace("Vaccination", "Screening"), known=known)

    assert actions(made)["health-residents"] is Action.ENDED
    assert made.grants == ()
    assert not made.pending


def test_what_is_taken_out_of_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    known = applied(planned(tmp_path))

    made = planned(tmp_path, "departments: []\n", known=known)

    assert set(actions(made).values()) == {Action.LEFT}
    assert not made.pending


@pytest.mark.parametrize(
    ("before", "after", "refusal", "says"),
    [
        (
            "[street, ",
            "[strett, ",
            GrantRefusedError,
            "has no field 'strett'; it has id_number, name, street",
        ),
        ("rows: all", "rows: 1 = 1", FilterRefusedError, "grant health-residents: "),
        ("rows: all", "rows: strett = 'x'", FilterRefusedError, "no field of this name"),
        ("[street, ", "[{street: {generalise: year}}, ", TransformRefusedError, "field 'street'"),
        ("subscriber: health", "subscriber: civil", GrantRefusedError, "nobody approves their own request"),
        ("conditional", "withheld", GrantRefusedError, "civil.residents is withheld"),
        ("conditional", "unconditional", GrantRefusedError, "'id_number' is sensitive"),
        ("subscriber: health", "subscriber: tax", CatalogueError, "there is no department 'tax'; add it"),
        (
            "resource: civil.residents",
            "resource: civil.firms",
            CatalogueError,
            "no resource civil.firms; add",
        ),
        ("{name: civil, ", "{name: civic, ", CatalogueError, "line 5: resource civil.residents: there is no"),
    ],
)
def test_what_cannot_be_granted_is_refused_with_its_place(
    tmp_path: Path, before: str, after: str, refusal: type[Exception], says: str
) -> None:
    with pytest.raises(refusal, match="catalogue.yaml, line ") as caught:
        planned(tmp_path, CATALOGUE.replace(before, after))

    assert says in str(caught.value)
    assert str(caught.value).count("grant health-residents") <= 1


def test_an_owner_may_open_one_sensitive_field_and_no_other(tmp_path: Path) -> None:
    opened = CATALOGUE.replace("conditional", "unconditional\n    owner_allows: [id_number]")

    made = planned(tmp_path, opened)

    assert made.pending
    with pytest.raises(GrantRefusedError, match="'name' is sensitive"):
        planned(tmp_path, opened.replace("[street, ", "[name, "))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("subscriber: health", "subscriber: tax", "its subscriber is health and cannot become tax"),
        ("resource: civil.residents", "resource: civil.others", "its resource is civil.residents and cannot"),
    ],
)
def test_a_grant_keeps_its_identity(tmp_path: Path, before: str, after: str, says: str) -> None:
    known = applied(planned(tmp_path))
    (tmp_path / "avro_schemas" / "civil" / "others.avsc").write_text(json.dumps(RESIDENTS), encoding="utf-8")
    more = CATALOGUE.replace("resources:\n", "  - {name: tax, title: Tax office}\nresources:\n").replace(
        "grants:", "  - {ref: civil.others, title: Others, share_type: conditional}\ngrants:"
    )

    with pytest.raises(CatalogueError, match=says):
        planned(tmp_path, more.replace(before, after), known=known)


def test_withholding_a_resource_does_not_wait_for_its_grants(tmp_path: Path) -> None:
    known = applied(planned(tmp_path))

    made = planned(tmp_path, CATALOGUE.replace("conditional", "withheld"), known=known)

    assert made.resources[0].share_type is ShareType.WITHHELD
    assert actions(made)["civil.residents"] is Action.AMEND


def test_a_contract_changes_only_with_a_higher_version(tmp_path: Path) -> None:
    known = applied(planned(tmp_path))
    documented = RESIDENTS | {"doc": "People who live here"}
    newer = documented | {"govbus": RESIDENTS["govbus"] | {"version": 2}}

    with pytest.raises(CatalogueError, match=r"version 1 has changed; write govbus.version 2"):
        planned(tmp_path, known=known, contract=documented)
    made = planned(tmp_path, known=known, contract=newer)
    with pytest.raises(CatalogueError, match="version 1 is older than the one in force"):
        planned(tmp_path, known=applied(made, known))

    assert made.resources[0].contract.version == 2


def test_a_new_contract_gives_every_living_grant_a_new_version(tmp_path: Path) -> None:
    """Also one that the file no longer names: its view is made from the contract."""
    known = applied(planned(tmp_path))
    newer = RESIDENTS | {"govbus": RESIDENTS["govbus"] | {"version": 2}}
    without_grant = CATALOGUE.split("grants:", maxsplit=1)[0]

    named = planned(tmp_path, known=known, contract=newer)
    unnamed = planned(tmp_path, without_grant, known=known, contract=newer)

    assert [entry.grant.version for entry in named.grants] == [2]
    assert unnamed.grants == named.grants
    ended = planned(tmp_path, known=with_state(known, GrantState.REVOKED), contract=newer)
    assert ended.grants == ()


def test_a_contract_that_breaks_a_grant_in_force_is_refused(tmp_path: Path) -> None:
    known = applied(planned(tmp_path))
    narrower = RESIDENTS | {
        "govbus": RESIDENTS["govbus"] | {"version": 2},
        "fields": RESIDENTS["fields"][:2],
    }

    with pytest.raises(GrantRefusedError, match=r"line 5: grant health-residents: .*has no field 'street'"):
        planned(tmp_path, CATALOGUE.split("grants:", maxsplit=1)[0], known=known, contract=narrower)


def test_what_the_topics_were_made_with_cannot_change(tmp_path: Path) -> None:
    known = applied(planned(tmp_path))
    wider = RESIDENTS | {"govbus": {"version": 2, "key": ["id_number"], "partitions": 6}}

    with pytest.raises(CatalogueError, match="partitions: 1 → 6; publish the new form as a resource"):
        planned(tmp_path, known=known, contract=wider)


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = CATALOGUE.replace("rows: all", "rows: 1 = 1") + CATALOGUE.split("grants:\n")[1].replace(
        "id: health-residents", "id: second"
    ).replace("[street, ", "[strett, ")

    with pytest.raises(FilterRefusedError) as caught:
        planned(tmp_path, text)

    first, second = str(caught.value).splitlines()
    assert "grant health-residents" in first
    assert "grant second: civil.residents has no field 'strett'" in second


def with_entry(*items: str, text: str = CATALOGUE, condition: str = "Needed for a duty") -> str:
    said = f"abstract: Residents\n      condition: {condition}\n      items: [{', '.join(items)}]"
    entry = f"    entry:\n      {said}\n"
    return text.replace("grants:\n", f"{entry}grants:\n")


def test_an_item_that_is_withheld_may_be_granted_to_nobody(tmp_path: Path) -> None:
    withheld = "{name: street, share_type: withheld}"

    for text in (
        CATALOGUE,
        CATALOGUE.replace("street,", 'street: "null",'),
        CATALOGUE.replace("[street, ", "[").replace("rows: all", "rows: street = 'x'"),
    ):
        with pytest.raises(GrantRefusedError, match="field 'street' is withheld"):
            planned(tmp_path, with_entry(withheld, text=text))
    assert planned(tmp_path, with_entry(withheld, text=CATALOGUE.replace("[street, ", "["))).grants


def test_an_item_with_conditions_needs_the_owners_word_in_unconditional_sharing(tmp_path: Path) -> None:
    text = with_entry(
        "{name: street, share_type: conditional}",
        text=CATALOGUE.replace("share_type: conditional", "share_type: unconditional\n    owner_allows: []"),
    )

    with pytest.raises(GrantRefusedError, match="field 'street' is conditional: it stays out"):
        planned(tmp_path, text.replace("owner_allows: []", "owner_allows: [id_number]"))
    assert planned(tmp_path, text.replace("owner_allows: []", "owner_allows: [id_number, street]")).grants


def test_an_item_cannot_be_withheld_from_under_a_grant(tmp_path: Path) -> None:
    """Also when the file does not name the grant: the exchange would go on delivering it."""
    known = applied(planned(tmp_path))
    withheld = with_entry("{name: street, share_type: withheld}")

    with pytest.raises(GrantRefusedError, match="field 'street' is withheld"):
        planned(tmp_path, withheld, known=known)
    with pytest.raises(GrantRefusedError, match="grant health-residents: field 'street' is withheld"):
        planned(tmp_path, withheld.split("grants:", maxsplit=1)[0], known=known)

    narrowed = planned(tmp_path, withheld.replace("[street, ", "["), known=known)
    assert [entry.grant.version for entry in narrowed.grants] == [2]


def test_what_an_entry_says_otherwise_is_shown_word_by_word(tmp_path: Path) -> None:
    known = applied(planned(tmp_path, with_entry("{name: street, length: 20}")))

    made = planned(tmp_path, with_entry("{name: street, length: 30}", condition="Agreed"), known=known)
    again = planned(tmp_path, with_entry("{name: street, length: 20}"), known=known)

    (change,) = [change for change in made.changes if change.pending]
    assert (change.name, change.whom) == ("civil.residents", ("health",))
    assert change.details == (
        "condition: Needed for a duty → Agreed",
        "item street: C 20 internal → C 30 internal",
    )
    assert made.grants == ()
    assert not again.pending


def test_an_unusual_code_is_taken_with_a_warning(tmp_path: Path) -> None:
    text = with_entry().replace("      abstract:", "      code: ABC-1\n      abstract:")

    made = planned(tmp_path, text)

    (warning,) = made.warnings
    assert "catalogue.yaml, line 5: resource civil.residents: code 'ABC-1' is not six digits" in warning
    assert planned(tmp_path, text.replace("ABC-1", "330000/1")).warnings == ()


LEVELS = CATALOGUE.replace("title: Civil affairs}", "title: Civil affairs, level: province}").replace(
    "title: Health commission}", "title: Health commission, level: city, parent: civil}"
)


def test_a_department_stands_below_one_of_a_higher_level(tmp_path: Path) -> None:
    known = applied(planned(tmp_path, LEVELS))

    assert known.departments["health"].parent == "civil"
    for before, after, says in (
        ("parent: civil", "parent: finance", "there is no department 'finance'"),
        ("level: province", "level: city", "'civil' has level city and cannot be the parent of 'health'"),
        (", level: province", "", "'civil' has no level"),
        ("parent: civil", "parent: health", "'health' has level city and cannot be the parent of 'health'"),
    ):
        with pytest.raises(CatalogueError, match=says):
            planned(tmp_path, LEVELS.replace(before, after))
    with pytest.raises(CatalogueError, match="line 2: department health: 'civil' has level county"):
        planned(
            tmp_path, "departments:\n  - {name: civil, title: Civil affairs, level: county}\n", known=known
        )


def test_the_plan_says_which_fields_a_subscriber_would_see_more_and_less(tmp_path: Path) -> None:
    new = planned(tmp_path)
    known = applied(new)
    other = CATALOGUE.replace("[street, id_number: pseudonym]", "[name: {truncate: 1}, id_number: keep]")

    made = planned(tmp_path, other, known=known)

    (granted,), (amended,) = new.impacts, made.impacts
    assert (granted.fields_more, granted.fields_less) == (("id_number", "street"), ())
    assert (amended.fields_more, amended.fields_less) == (("name",), ("street",))
    assert amended.fields_otherwise == ("id_number: pseudonym → keep",)
    (change,) = [change for change in made.changes if change.pending]
    assert change.whom == ("health",)


def test_withholding_a_resource_takes_everything_from_its_subscribers(tmp_path: Path) -> None:
    known = applied(planned(tmp_path))

    made = planned(tmp_path, CATALOGUE.replace("conditional", "withheld"), known=known)

    (impact,) = made.impacts
    assert (impact.fields_more, impact.fields_less, impact.after) == ((), ("id_number", "street"), None)


REMOVE_ALL = """\
remove:
  grants: [health-residents]
  resources: [civil.residents]
  departments: [civil, health]
"""


def test_what_is_removed_by_name_is_planned_in_full(tmp_path: Path) -> None:
    known = applied(planned(tmp_path))

    made = planned(tmp_path, REMOVE_ALL, known=known)

    assert actions(made) == dict.fromkeys(
        ["health-residents", "civil.residents", "civil", "health"], Action.REMOVE
    )
    assert made.pending
    assert (made.removed_grants, made.removed_resources) == (("health-residents",), ("civil.residents",))
    assert made.removed_departments == ("civil", "health")
    (impact,) = made.impacts
    assert impact.fields_less == ("id_number", "street")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "  grants: [health-residents]\n",
            "resource civil.residents cannot be removed; .*: grant health-residents",
        ),
        (
            "  resources: [civil.residents]\n",
            "department civil cannot be removed; .*: resource civil.residents",
        ),
    ],
)
@pytest.mark.parametrize("state", [GrantState.ACTIVE, GrantState.SUSPENDED])
def test_nothing_is_removed_that_something_depends_on(
    tmp_path: Path, line: str, says: str, state: GrantState
) -> None:
    known = with_state(applied(planned(tmp_path)), state)

    with pytest.raises(GrantRefusedError, match=says):
        planned(tmp_path, REMOVE_ALL.replace(line, ""), known=known)


def test_a_department_above_others_is_not_removed(tmp_path: Path) -> None:
    without = LEVELS.split("resources:", maxsplit=1)[0]
    known = applied(planned(tmp_path, without))

    with pytest.raises(GrantRefusedError, match="department civil cannot be removed; .*: department health"):
        planned(tmp_path, "remove: {departments: [civil]}\n", known=known)
    assert planned(tmp_path, "remove: {departments: [civil, health]}\n", known=known).pending


def test_a_resource_is_not_removed_while_the_same_file_grants_it(tmp_path: Path) -> None:
    known = applied(planned(tmp_path, CATALOGUE.split("grants:", maxsplit=1)[0]))
    granting = "grants:" + CATALOGUE.split("grants:")[1] + "remove: {resources: [civil.residents]}\n"

    with pytest.raises(GrantRefusedError, match="depends on it: grant health-residents"):
        planned(tmp_path, granting, known=known)


@pytest.mark.parametrize("kind", ["grants", "resources", "departments"])
def test_a_name_that_was_never_there_is_not_removed(tmp_path: Path, kind: str) -> None:
    with pytest.raises(CatalogueError, match=r"line 1: there is no \w+ 'civl'; take the line out"):
        planned(tmp_path, f"remove: {{{kind}: [civl]}}\n", known=applied(planned(tmp_path)))


def test_removing_again_changes_nothing_and_coming_back_keeps_the_contract(tmp_path: Path) -> None:
    there = with_state(applied(planned(tmp_path)), GrantState.REVOKED)
    gone = replace(
        there,
        departments={},
        resources={},
        removed_departments=there.departments,
        removed_resources=there.resources,
    )

    again = planned(tmp_path, REMOVE_ALL, known=gone)

    assert not again.pending
    # Shutting them out at the broker is done again, in case it was cut short.
    assert again.removed_departments == ("civil", "health")
    without_grant = CATALOGUE.split("grants:", maxsplit=1)[0]
    assert actions(planned(tmp_path, without_grant, known=gone))["civil.residents"] is Action.CREATE
    with pytest.raises(CatalogueError, match="version 1 has changed"):
        planned(tmp_path, without_grant, known=gone, contract=RESIDENTS | {"doc": "Others"})
