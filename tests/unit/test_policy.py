"""The decision point rule by rule, and what makes a grant impossible."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from govbus.catalogue import ShareType
from govbus.contract import DataContract, parse_contract
from govbus.errors import FilterRefusedError, GrantRefusedError, TransformRefusedError
from govbus.grant import DataDuty, FieldRule, Grant, GrantState
from govbus.policy import Decision, Effect, Reason, check_grant, decide, may_share, view_id
from govbus.topics import is_name, shared
from govbus.transform import Keep, Null, Partial, Pseudonym, Redact, Transform, parse_transform

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPEN, CONDITIONAL, WITHHELD = ShareType.UNCONDITIONAL, ShareType.CONDITIONAL, ShareType.WITHHELD


def rules(**transforms: object) -> tuple[FieldRule, ...]:
    return tuple(FieldRule(name=name, transform=parse_transform(spec)) for name, spec in transforms.items())


def a_grant(**changes: Any) -> Grant:
    grant = Grant(
        id="residents-for-health",
        version=1,
        state=GrantState.ACTIVE,
        subscriber="health",
        owner="civil",
        resource="residents",
        fields=rules(id="pseudonym", name={"partial": {"head": 1}}, born={"generalise": "year"}),
        rows="district LIKE '3308%'",
        purpose="vaccination planning",
        starts_at=NOON - timedelta(days=1),
        expires_at=NOON + timedelta(days=1),
    )
    return replace(grant, **changes)


def a_contract() -> DataContract:
    fields: list[tuple[str, Any, str]] = [
        ("id", "string", "sensitive"),
        ("district", "string", "public"),
        ("name", "string", "sensitive"),
        ("born", {"type": "int", "logicalType": "date"}, "internal"),
        ("phone", ["null", "string"], "core"),
    ]
    return parse_contract(
        json.dumps(
            {
                "type": "record",
                "name": "Residents",
                "govbus": {"key": ["id"]},
                "fields": [
                    {"name": name, "type": avro_type, "classification": grade}
                    for name, avro_type, grade in fields
                ],
            }
        ),
        owner="civil",
        resource="residents",
    )


def decided(
    share_type: ShareType = CONDITIONAL,
    grant: Grant | None = None,
    *,
    now: datetime = NOON,
    fresh: bool = True,
) -> Decision:
    return decide(share_type=share_type, grant=grant, now=now, fresh=fresh)


def test_a_grant_in_force_permits_exactly_its_fields_each_through_its_transform() -> None:
    grant = a_grant()

    assert decided(grant=grant) == Decision(
        effect=Effect.PERMIT, reason=Reason.PERMITTED, fields=grant.fields
    )


@pytest.mark.parametrize("share_type", [OPEN, CONDITIONAL])
def test_unconditional_sharing_needs_a_grant_too(share_type: ShareType) -> None:
    assert decided(share_type, None).reason is Reason.NO_GRANT
    assert decided(share_type, a_grant()).permits


def test_of_a_withheld_resource_nothing_is_shared_whatever_was_granted() -> None:
    decision = decided(WITHHELD, a_grant())

    assert decision == Decision(effect=Effect.DENY, reason=Reason.RESOURCE_WITHHELD)


def test_what_is_not_known_to_be_current_permits_nothing() -> None:
    assert decided(grant=a_grant(), fresh=False).reason is Reason.POLICY_STALE
    assert decided(grant=None, fresh=False).reason is Reason.POLICY_STALE


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (GrantState.SUSPENDED, Reason.GRANT_SUSPENDED),
        (GrantState.REVOKED, Reason.GRANT_REVOKED),
        (GrantState.EXPIRED, Reason.GRANT_EXPIRED),
    ],
)
def test_a_grant_that_is_not_active_denies_and_says_which_it_is(state: GrantState, reason: Reason) -> None:
    assert decided(grant=a_grant(state=state)) == Decision(effect=Effect.DENY, reason=reason)


def test_every_state_of_a_grant_has_its_own_answer() -> None:
    """A state that is added to the model must be thought about here."""
    permitted = [state for state in GrantState if decided(grant=a_grant(state=state)).permits]

    assert permitted == [GrantState.ACTIVE]
    assert all(decided(grant=a_grant(state=s)).reason is not Reason.COULD_NOT_DECIDE for s in GrantState)


def test_a_grant_begins_at_its_first_instant_and_ends_before_its_last() -> None:
    tick = timedelta(microseconds=1)
    grant = a_grant()

    assert decided(grant=grant, now=grant.starts_at - tick).reason is Reason.GRANT_NOT_STARTED
    assert decided(grant=grant, now=grant.starts_at).permits
    assert decided(grant=grant, now=grant.expires_at - tick).permits
    assert decided(grant=grant, now=grant.expires_at).reason is Reason.GRANT_EXPIRED


def test_a_grant_without_fields_shares_nothing() -> None:
    """Nothing means "all": an empty list least of all."""
    assert decided(grant=a_grant(fields=())) == Decision(effect=Effect.DENY, reason=Reason.NO_FIELDS)


@pytest.mark.parametrize(
    "question",
    [
        {"now": NOON.replace(tzinfo=None)},
        {"now": "noon"},
        {"now": None},
        {"share_type": "open"},
        {"share_type": None},
        {"grant": "residents-for-health"},
    ],
)
def test_what_cannot_be_decided_is_denied(question: dict[str, Any]) -> None:
    asked = {"share_type": CONDITIONAL, "grant": a_grant(), "now": NOON, "fresh": True} | question

    assert decide(**asked) == Decision(effect=Effect.DENY, reason=Reason.COULD_NOT_DECIDE)


def test_only_true_counts_as_fresh() -> None:
    answer: Any = "no"

    assert decided(grant=a_grant(), fresh=answer).reason is Reason.POLICY_STALE


def test_a_share_type_given_as_its_word_is_understood() -> None:
    """Withheld must not be passed over because it arrived as plain text."""
    assert (
        decide(share_type="withheld", grant=a_grant(), now=NOON, fresh=True).reason
        is Reason.RESOURCE_WITHHELD
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("effect", "fields"), [(Effect.DENY, rules(id="keep")), (Effect.PERMIT, ())], ids=["deny", "permit"]
)
def test_a_denial_cannot_carry_fields_nor_a_permit_none(
    effect: Effect, fields: tuple[FieldRule, ...]
) -> None:
    with pytest.raises(ValueError, match="a denial names none"):
        Decision(effect=effect, reason=Reason.PERMITTED, fields=fields)


def test_reason_codes_are_stable() -> None:
    """Decision records, metrics and scripts match on them: a change here breaks dashboards."""
    assert sorted(Reason) == [
        "could-not-decide",
        "grant-expired",
        "grant-not-started",
        "grant-revoked",
        "grant-suspended",
        "no-fields",
        "no-grant",
        "permitted",
        "policy-stale",
        "resource-withheld",
    ]


# -- before a grant exists -------------------------------------------------------------------------


def test_a_grant_that_fits_its_contract_is_accepted() -> None:
    check_grant(a_grant(), a_contract(), CONDITIONAL)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fields": ()}, "names no field"),
        (
            {"fields": rules(id="keep", colour="keep")},
            "no field 'colour'; it has id, district, name, born",
        ),
        ({"fields": rules(id="keep") + rules(id="pseudonym")}, "'id' twice"),
        ({"fields": rules(name="keep")}, "every key field; missing: id"),
        ({"fields": rules(id="null")}, "kept or pseudonymised"),
        ({"fields": rules(id={"truncate": 3})}, "kept or pseudonymised"),
        ({"fields": rules(id={"partial": {"head": 3}})}, "kept or pseudonymised"),
        ({"fields": rules(id={"redact": "x"})}, "kept or pseudonymised"),
        ({"expires_at": NOON - timedelta(days=1)}, "ends before it begins"),
        ({"expires_at": NOON - timedelta(days=2)}, "ends before it begins"),
        ({"resource": "firms"}, "civil.firms, the contract for civil.residents"),
        ({"owner": "stats"}, "stats.residents, the contract for civil.residents"),
        ({"subscriber": "civil"}, "nobody approves their own request"),
    ],
)
def test_a_grant_that_contradicts_the_contract_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(GrantRefusedError, match="grant residents-for-health: ") as caught:
        check_grant(a_grant(**changes), a_contract(), CONDITIONAL)

    assert why in str(caught.value)


def test_a_grant_on_a_withheld_resource_is_refused() -> None:
    with pytest.raises(GrantRefusedError, match="withheld"):
        check_grant(a_grant(), a_contract(), WITHHELD, owner_allows=True)


def test_a_transform_that_does_not_fit_its_field_is_refused_with_grant_and_field() -> None:
    grant = a_grant(fields=rules(id="keep", born={"partial": {"head": 1}}))

    with pytest.raises(TransformRefusedError, match="grant residents-for-health: field 'born': partial"):
        check_grant(grant, a_contract(), CONDITIONAL)


@pytest.mark.parametrize("rows", ["", "1 = 1", "colour = 'red'", "district = 7", "upper(name) = 'A'"])
def test_a_row_filter_that_is_not_allowed_is_refused_with_its_grant(rows: str) -> None:
    with pytest.raises(FilterRefusedError, match="grant residents-for-health: row filter"):
        check_grant(a_grant(rows=rows), a_contract(), CONDITIONAL)


def test_a_row_filter_may_look_at_fields_that_are_not_delivered() -> None:
    check_grant(a_grant(fields=rules(id="keep"), rows="phone IS NOT NULL"), a_contract(), CONDITIONAL)


@pytest.mark.parametrize(
    ("fields", "rows", "why"),
    [
        (rules(id="keep"), None, "'id' is sensitive"),
        (rules(id="pseudonym"), None, "'id' is sensitive"),
        (rules(district="keep", phone="keep"), None, "'phone' is core"),
        (rules(district="keep", phone={"truncate": 3}), None, "'phone' is core"),
        (rules(district="keep"), "phone IS NOT NULL", "'phone' is core"),
        (rules(district="keep"), "district = '3308' OR name LIKE '张%'", "'name' is sensitive"),
    ],
)
def test_sensitive_and_core_fields_stay_out_of_unconditional_sharing_also_as_a_row_filter(
    fields: tuple[FieldRule, ...], rows: str | None, why: str
) -> None:
    contract = a_contract() if fields[0].name == "id" else replace(a_contract(), key=("district",))
    grant = a_grant(fields=fields, rows=rows)

    with pytest.raises(GrantRefusedError, match=why):
        check_grant(grant, contract, OPEN)
    check_grant(grant, contract, OPEN, owner_allows=True)
    check_grant(grant, contract, CONDITIONAL)


def test_a_type_that_another_field_defines_is_known_by_its_name() -> None:
    """Avro defines a type where it is first used and names it everywhere after that."""
    level = {"type": "enum", "name": "Level", "symbols": ["CITY", "COUNTY"]}
    fields = [("id", "string"), ("level", level), ("former", ["null", "Level"])]
    schema = {
        "type": "record",
        "name": "Divisions",
        "namespace": "gov",
        "govbus": {"key": ["id"]},
        "fields": [{"name": name, "type": kind, "classification": "public"} for name, kind in fields],
    }
    contract = parse_contract(json.dumps(schema), owner="civil", resource="residents")
    grant = a_grant(fields=rules(id="keep", former={"redact": "CITY"}), rows="former = 'COUNTY'")

    check_grant(grant, contract, OPEN)
    with pytest.raises(TransformRefusedError, match="one of its symbols"):
        check_grant(replace(grant, fields=rules(id="keep", former={"redact": "X"})), contract, OPEN)
    with pytest.raises(FilterRefusedError, match="one of its symbols"):
        check_grant(replace(grant, rows="former = 'X'"), contract, OPEN)


@pytest.mark.parametrize("spec", ["null", {"redact": "***"}])
def test_a_sensitive_field_that_tells_nothing_may_be_part_of_unconditional_sharing(spec: object) -> None:
    contract = replace(a_contract(), key=("district",))

    check_grant(a_grant(fields=rules(district="keep", name=spec), rows=None), contract, OPEN)


# -- shared copies ---------------------------------------------------------------------------------


def test_only_unconditional_views_without_a_pseudonym_may_be_shared() -> None:
    plain = a_grant(fields=rules(id="keep"))

    assert may_share(plain, OPEN)
    assert not may_share(plain, CONDITIONAL)
    assert not may_share(plain, WITHHELD)
    assert not may_share(a_grant(fields=rules(id="keep", name="pseudonym")), OPEN)
    assert not may_share(a_grant(fields=rules(id="keep"), quota_records_per_day=10), OPEN)
    assert not may_share(a_grant(fields=rules(id="keep"), quota_keys_per_day=10), OPEN)


def test_grants_with_the_same_view_have_the_same_view_id() -> None:
    grant = a_grant(fields=rules(id="keep", name={"truncate": 1}))
    twin = replace(
        grant,
        id="residents-for-tax",
        version=7,
        subscriber="tax",
        purpose="assessment",
        state=GrantState.SUSPENDED,
        expires_at=NOON + timedelta(days=99),
        data_on_end=DataDuty.KEEP,
        fields=grant.fields[::-1],
        rows=f"  {grant.rows}\n",
    )

    assert view_id(twin, 1) == view_id(grant, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"resource": "firms"},
        {"owner": "stats"},
        {"rows": None},
        {"rows": "district LIKE '33%'"},
        {"fields": rules(id="keep")},
        {"fields": rules(id="keep", name={"truncate": 2})},
        {"fields": rules(id="keep", name={"generalise": {"prefix": 1}})},
        {"fields": rules(id="keep", name="keep")},
        {"fields": rules(id="keep", name={"truncate": 1}, born="keep")},
        {"fields": rules(name="keep", id={"truncate": 1})},
    ],
)
def test_grants_with_another_view_have_another_view_id(changes: dict[str, Any]) -> None:
    grant = a_grant(fields=rules(id="keep", name={"truncate": 1}))

    assert view_id(replace(grant, **changes), 1) != view_id(grant, 1)


def test_a_view_with_a_quota_is_one_grant_s_own_whatever_the_bound() -> None:
    """What one grant delivers is counted; another bound must not begin its deliveries anew."""
    counted = a_grant(quota_keys_per_day=10)

    assert view_id(counted, 1) != view_id(a_grant(), 1)
    assert view_id(counted, 1) != view_id(replace(counted, id="residents-for-tax"), 1)
    assert view_id(counted, 1) == view_id(replace(counted, quota_keys_per_day=20), 1)


def test_another_contract_version_is_another_view() -> None:
    assert view_id(a_grant(), 1) != view_id(a_grant(), 2)


def test_a_view_id_tells_constants_of_different_types_apart() -> None:
    def view(transform: Transform) -> str:
        return view_id(a_grant(fields=(FieldRule(name="id", transform=transform),)), 1)

    assert len({view(Redact(constant=c)) for c in (1, 1.0, True, "1")} | {view(Null()), view(Keep())}) == 6
    assert view(Partial(head=1)) != view(Partial(tail=1))


@pytest.mark.parametrize("change", [{"subscriber": "tax"}, {"purpose": "research"}])
def test_views_with_a_pseudonym_belong_to_one_subscriber_and_purpose(change: dict[str, Any]) -> None:
    """Whoever compiles views by their id must not hand one department another's pseudonyms."""
    grant = a_grant(fields=(FieldRule(name="id", transform=Pseudonym()),))

    assert view_id(replace(grant, **change), 1) != view_id(grant, 1)


def test_a_view_id_can_stand_in_the_name_of_a_topic_with_the_longest_names() -> None:
    view = view_id(a_grant(), 1)

    assert is_name(view)
    assert len(shared("a" * 80, "b" * 80, view)) <= 249


def test_a_view_id_never_changes_between_releases() -> None:
    """It names topics: another id for the same view would leave subscribers on a topic that nobody writes."""
    assert view_id(a_grant(), 1) == "vc73036c64d476eb01e43ab907fac1806"
