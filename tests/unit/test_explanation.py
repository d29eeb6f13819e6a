"""Every gate can be the one that stops a row, and says why without a value of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from govbus.catalogue import Classification, ResourceKind, ShareType
from govbus.explanation import (
    JUDGED,
    Answer,
    Circumstances,
    GateName,
    Status,
    answer_of,
    describe_fields,
    judge,
)
from govbus.grant import GrantState
from govbus.transform import parse_transform
from support.explaining import BEFORE, circumstances, gate, history, version_of
from support.policies import CONTRACT, NOON, VALUE, a_grant, a_resource, firm, gone, mangled, rules
from support.views import Written

SECRET = "衢州秘密"


def stopped(c: Circumstances) -> tuple[Answer, GateName | None]:
    return answer_of(judge(c))


def test_a_row_that_every_gate_lets_through_is_shared() -> None:
    gates = judge(circumstances(a_grant(rows="staff > 3")))

    assert [one.name for one in gates] == list(JUDGED)
    assert {one.status for one in gates} == {Status.PASS}
    assert answer_of(gates) == (Answer.SHARED, None)
    assert gate(gates, GateName.PUBLISHED).why == "acknowledged at govbus.captured.registrar.firms[0]@0"
    assert gate(gates, GateName.FIELDS).why == "code, name"


def _other_kind() -> dict[str, Any]:
    return {**VALUE.raw, "name": "Person"}


def _declassified(**grades: Classification) -> Any:
    return replace(
        CONTRACT,
        fields=tuple(
            replace(field, classification=grades.get(field.name, field.classification))
            for field in CONTRACT.fields
        ),
    )


_KEY_OF_B = firm(0, "B")
_ROW_OF_A = firm(0, "A")

STOPS: dict[str, tuple[Circumstances, GateName, str]] = {
    "never captured": (
        circumstances(history=history()),
        GateName.CAPTURED,
        "no change of this row was ever captured",
    ),
    "captured later": (
        circumstances(latest=False, history=history(version_of(firm(0, "A"), NOON + timedelta(hours=1)))),
        GateName.CAPTURED,
        "no change of this row had been captured by then",
    ),
    "deleted": (
        circumstances(None, version_of(firm(0, "A")), version_of(gone(1, "A"))),
        GateName.CAPTURED,
        "the owner has deleted this row",
    ),
    "nothing there now, in a topic that was compacted": (
        circumstances(history=history(complete=False)),
        GateName.CAPTURED,
        "the topic holds no row with this key",
    ),
    "not Avro": (
        circumstances(None, version_of(mangled(firm(0, "A"), b"junk"))),
        GateName.VALID,
        "dead-lettered as undecodable",
    ),
    "bytes missing": (
        circumstances(None, version_of(mangled(firm(0, "A"), firm(0, "A").value()[:-1]))),
        GateName.VALID,
        "dead-lettered as undecodable",
    ),
    "unknown schema": (
        circumstances(None, version_of(mangled(firm(0, "A"), b"\x00\x00\x00\x0f\xff\x02A"))),
        GateName.VALID,
        "dead-lettered as unknown-schema",
    ),
    "another kind of record": (
        circumstances(schemas={**circumstances().schemas, VALUE.id: Written(_other_kind(), VALUE.id)}),
        GateName.VALID,
        "",
    ),
    "the key of another row": (
        circumstances(None, version_of(mangled(_KEY_OF_B, _ROW_OF_A.value()))),
        GateName.VALID,
        "dead-lettered as contract-violation: the key is not that of the row",
    ),
    "a key under another schema": (
        circumstances(resource=a_resource(key_schema_id=102)),
        GateName.VALID,
        "the key is not under the resource's key schema",
    ),
    "not in the catalogue yet": (
        circumstances(share_type=None),
        GateName.SHARE_TYPE,
        "registrar.firms was not in the catalogue yet",
    ),
    "withheld": (
        circumstances(share_type=ShareType.WITHHELD),
        GateName.SHARE_TYPE,
        "registrar.firms is withheld",
    ),
    "no grant": (circumstances(no_grant=True), GateName.GRANT, "had no grant"),
    "suspended": (
        circumstances(a_grant(state=GrantState.SUSPENDED)),
        GateName.GRANT,
        "tax-firms version 1 is suspended",
    ),
    "revoked": (circumstances(a_grant(state=GrantState.REVOKED)), GateName.GRANT, "is revoked"),
    "recorded as expired": (circumstances(a_grant(state=GrantState.EXPIRED)), GateName.GRANT, "is expired"),
    "term not begun": (
        circumstances(a_grant(starts_at=NOON + timedelta(seconds=1))),
        GateName.TERM,
        "the term had not begun; purpose: assessment",
    ),
    "term over, at that very instant": (
        circumstances(a_grant(expires_at=NOON)),
        GateName.TERM,
        "the term was over",
    ),
    "a sensitive field of an unconditional resource": (
        circumstances(
            share_type=ShareType.UNCONDITIONAL, contract=_declassified(name=Classification.SENSITIVE)
        ),
        GateName.CLASSIFICATION,
        "field 'name' is sensitive",
    ),
    "a sensitive field in the row filter of one": (
        circumstances(
            a_grant(rows="staff > 3"),
            share_type=ShareType.UNCONDITIONAL,
            contract=_declassified(staff=Classification.CORE),
        ),
        GateName.CLASSIFICATION,
        "field 'staff' is core",
    ),
    "no field": (circumstances(a_grant(fields=rules("code"))), GateName.FIELDS, "names no field"),
    "larger than a record may be": (
        circumstances(largest=20),
        GateName.FIELDS,
        "dead-lettered in the grant's name: the projected record is larger",
    ),
    "no view schema": (
        circumstances(schemas={k: v for k, v in circumstances().schemas.items() if k != 200}),
        GateName.FIELDS,
        "the registry does not know a schema that the view needs",
    ),
    "the row filter is false": (
        circumstances(a_grant(rows="staff > 3 AND city = '3301'")),
        GateName.ROWS,
        "not true: \"city\" = '3301'",
    ),
    "the row filter is unknown": (
        circumstances(a_grant(rows="NOT city = '3301'"), version_of(firm(0, "A", city=None))),
        GateName.ROWS,
        "not true: NOT \"city\" = '3301'",
    ),
}


def _emptied(c: Circumstances) -> Circumstances:
    """Let the grant name no field, which no view schema can be made for."""
    assert c.granted is not None
    grant = replace(c.granted.grant, fields=())
    return replace(c, granted=replace(c.granted, published=replace(c.granted.published, grant=grant)))


@pytest.mark.parametrize("case", STOPS)
def test_each_gate_can_be_the_one_that_stops(case: str) -> None:
    c, name, why = STOPS[case]
    if case == "no field":
        c = _emptied(c)
    if case == "another kind of record":
        both = dict(c.schemas)
        both[300] = VALUE
        c = replace(c, schemas=both, resource=a_resource(value_schema_id=300))

    gates = judge(c)

    assert answer_of(gates) == (Answer.NOT_SHARED, name)
    assert why in gate(gates, name).why


def test_every_gate_that_makes_the_answer_stops_in_some_case() -> None:
    """``published`` alone cannot: what was read from the topic was acknowledged."""
    assert {name for _, name, _ in STOPS.values()} == set(JUDGED) - {GateName.PUBLISHED}


def test_what_compaction_took_is_unknown_and_not_made_up() -> None:
    later = version_of(firm(5, "A"), NOON + timedelta(hours=1))
    forgotten = circumstances(a_grant(rows="staff > 3"), latest=False, history=history(later, complete=False))

    gates = judge(forgotten)

    assert answer_of(gates) == (Answer.UNKNOWN, None)
    assert gate(gates, GateName.CAPTURED).why.startswith("compacted away: ")
    assert {gate(gates, name).status for name in (GateName.VALID, GateName.PUBLISHED, GateName.ROWS)} == {
        Status.UNKNOWN
    }
    assert gate(gates, GateName.TERM).status is Status.PASS


def test_a_stop_is_a_no_even_when_the_row_is_not_known_any_more() -> None:
    forgotten = circumstances(no_grant=True, latest=False, history=history(complete=False))

    assert stopped(forgotten) == (Answer.NOT_SHARED, GateName.GRANT)


def test_the_row_counts_as_it_was_and_not_as_it_is() -> None:
    was = version_of(firm(0, "A", city="3308"), BEFORE)
    became = version_of(firm(1, "A", city="3301"), NOON + timedelta(hours=1))
    grant = a_grant(rows="city = '3308'")

    assert stopped(circumstances(grant, was, became, latest=False))[0] is Answer.SHARED
    assert stopped(circumstances(grant, was, became, latest=True)) == (Answer.NOT_SHARED, GateName.ROWS)


def test_the_newest_version_counts_now_even_if_its_source_has_a_clock_that_is_ahead() -> None:
    ahead = version_of(firm(0, "A"), NOON + timedelta(minutes=5))

    assert stopped(circumstances(None, ahead))[0] is Answer.SHARED


def test_gates_behind_the_one_that_stops_are_asked_as_well() -> None:
    """A grant that is resumed must not turn out to be over."""
    grant = a_grant(state=GrantState.SUSPENDED, expires_at=NOON, rows="staff > 9")

    gates = judge(circumstances(grant, share_type=ShareType.WITHHELD))

    stops = [one.name for one in gates if one.status is Status.STOP]
    assert stops == [GateName.SHARE_TYPE, GateName.GRANT, GateName.TERM, GateName.ROWS]


def test_without_the_secret_a_pseudonymised_key_makes_no_difference_to_the_answer() -> None:
    grant = a_grant(fields=rules(("code", {"pseudonym": {}}), "name"), rows="staff > 3")

    assert stopped(circumstances(grant, pseudonym_key=None))[0] is Answer.SHARED


def test_an_event_cannot_be_deleted() -> None:
    c = circumstances(None, version_of(gone(0, "A")), resource=a_resource(kind=ResourceKind.EVENT))

    assert gate(judge(c), GateName.VALID).status is Status.STOP


def test_fields_are_named_with_what_is_done_to_them() -> None:
    grant = a_grant(fields=rules(("code", {"pseudonym": {"epoch": 2}}), "name", ("city", {"truncate": 2})))

    assert describe_fields(grant) == "code (pseudonym), name, city (truncate)"
    assert parse_transform("keep").spec() == "keep"


@pytest.mark.parametrize("rows", [None, "name = 'x'", "name <> 'x' AND city LIKE '33%'", "city IS NULL"])
def test_no_gate_holds_a_value_of_the_row(rows: str | None) -> None:
    row = version_of(firm(0, SECRET, name=SECRET, city=SECRET, staff=424_242))
    for c in (
        circumstances(a_grant(rows=rows), row),
        circumstances(a_grant(rows=rows), replace(row, value=(row.value or b"")[:-1])),
        circumstances(a_grant(rows=rows), replace(row, key=row.key + b"x")),
        circumstances(a_grant(rows=rows), row, largest=1),
    ):
        told = json.dumps([one.why for one in judge(c)], ensure_ascii=False)

        assert SECRET not in told
        assert "424242" not in told
