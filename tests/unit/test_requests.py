"""What a department may do with a request, what its owner may, and what comes of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from govbus.catalogue import ShareType
from govbus.errors import (
    BrokerUnavailableError,
    GrantRefusedError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    TransitionRefusedError,
)
from govbus.grant import GrantState
from govbus.request import Ground, RequestKind, RequestState
from govbus_console.control import accounts, requests
from govbus_console.control.request_shapes import Amendment
from govbus_console.control.roles import Role
from govbus_console.control.store import AuditRow, ControlStore, StoredGrant
from support.requesting import (
    AUDIT,
    HU,
    LI,
    MONDAY,
    QIAN,
    SUN,
    WANG,
    ZHAO,
    Office,
    an_ask,
    keeping,
    stored_resource,
)


@pytest.fixture
def office(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    store = ControlStore.open(f"sqlite:///{shutil.copy(filled, tmp_path)}")
    yield Office(store, monkeypatch)
    store.close()


def the_grant(office: Office, name: str = "residents-for-tax") -> StoredGrant:
    return office.store.snapshot().grants[name]


def change_grant(office: Office, state: GrantState, name: str = "residents-for-tax") -> None:
    stored = the_grant(office, name)
    grant = replace(stored.grant, state=state, version=stored.grant.version + 1)
    with office.store.writing(who="ops", why="a test", now=office.now) as writing:
        writing.grant(replace(stored, published=replace(stored.published, grant=grant)))


# -- asking ----------------------------------------------------------------------------------------


def test_a_conditional_request_becomes_a_grant_when_the_owner_s_steward_approves_it(office: Office) -> None:
    made = office.in_review()

    done = office.desk.approve(WANG, made, "as agreed")

    grant = the_grant(office).grant
    assert (done.state, done.grant_id, done.grant_version) == ("provisioned", "residents-for-tax", 1)
    assert (grant.subscriber, grant.rows, grant.purpose) == (
        "tax",
        "\"code\" LIKE '33%'",
        "Assessment",
    )
    assert (grant.starts_at, grant.expires_at) == (MONDAY, MONDAY + timedelta(days=30))
    assert [rule.name for rule in grant.fields] == ["code", "name"]


def test_an_unconditional_request_is_granted_at_once_and_recorded(office: Office) -> None:
    made = office.desk.draft(LI, an_ask(resource="civil.offices"))

    done = office.desk.submit(LI, made.id)

    assert done.state == "provisioned"
    assert the_grant(office, "offices-for-tax").published.shared
    assert [event.action for event in office.desk.history(LI, made.id)] == [
        "draft", "submit", "open", "provision",
    ]  # fmt: skip


def test_an_unconditional_request_for_a_sensitive_field_is_refused_when_it_is_written(office: Office) -> None:
    with pytest.raises(GrantRefusedError, match="'phone' is sensitive"):
        office.desk.draft(LI, an_ask(resource="civil.offices", fields=keeping("code", "phone")))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"resource": "civil.nothing"}, NotFoundError),
        ({"fields": ()}, GrantRefusedError),
        ({"fields": keeping("code", "shoe_size")}, GrantRefusedError),
        ({"rows": "shoe_size = 1"}, RefusedError),
        ({"purpose": " "}, RefusedError),
        ({"legal_basis": ""}, RefusedError),
        ({"term": timedelta(0)}, GrantRefusedError),
        ({"term": timedelta(minutes=90)}, GrantRefusedError),
    ],
)
def test_what_could_never_be_granted_is_refused_before_it_is_written(
    office: Office, change: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        office.desk.draft(LI, an_ask(**change))

    assert office.desk.listing(LI) == []


def test_quotas_that_were_asked_for_are_the_grant_s(office: Office) -> None:
    office.provisioned(quota_records_per_day=500, quota_keys_per_day=50)

    grant = the_grant(office).grant
    assert (grant.quota_records_per_day, grant.quota_keys_per_day) == (500, 50)


def test_a_count_is_told_in_steps_and_stands_in_the_history(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = office.desk.draft(LI, an_ask())
    asked = []

    class Counting:
        def __init__(self, *_: object, **__: object) -> None: ...

        def count(self, stored: object, rows: str | None) -> int:
            asked.append(rows)
            return 1_234

    monkeypatch.setattr(requests, "Counting", Counting)

    assert office.desk.count(LI, made.id).matching == 1_230
    assert asked == ["\"code\" LIKE '33%'"]
    assert office.desk.history(LI, made.id)[-1].said == "1230 or more"
    with pytest.raises(NotFoundError):
        office.desk.count(SUN, made.id)
    with pytest.raises(NotAllowedError):
        office.desk.count(AUDIT, made.id)


# -- deciding --------------------------------------------------------------------------------------


def test_a_sensitive_field_takes_two_stewards(office: Office) -> None:
    made = office.in_review(fields=keeping("code", "phone"))

    first = office.desk.approve(WANG, made)
    with pytest.raises(NotAllowedError, match="has approved request r-1 already"):
        office.desk.approve(WANG, made)
    assert office.store.snapshot().grants == {}
    second = office.desk.approve(ZHAO, made)

    assert (first.state, first.approvals_needed, first.approved_by) == ("in_review", 2, ("wang-civil",))
    assert (second.state, second.approved_by) == ("provisioned", ("wang-civil", "zhao-civil"))


@pytest.mark.parametrize(
    "ask", [{"rows": "phone LIKE '1%'"}, {"fields": keeping("code", phone={"truncate": 3})}]
)
def test_what_tells_anything_of_a_sensitive_field_takes_two(office: Office, ask: dict[str, object]) -> None:
    assert office.desk.approve(WANG, office.in_review(**ask)).state == "in_review"


def test_a_sensitive_field_that_is_redacted_takes_one(office: Office) -> None:
    made = office.in_review(fields=keeping("code", phone={"redact": "***"}))

    assert office.desk.approve(WANG, made).state == "provisioned"


def test_nobody_but_a_steward_of_the_owner_decides(office: Office) -> None:
    made = office.in_review()

    for account in (LI, HU, QIAN):
        with pytest.raises(TransitionRefusedError):
            office.desk.approve(account, made)
    with pytest.raises(TransitionRefusedError):
        office.desk.reject(QIAN, made, Ground.DUPLICATE)
    with pytest.raises(TransitionRefusedError):
        office.desk.approve(AUDIT, made)
    assert office.store.snapshot().grants == {}


def test_a_department_does_not_see_the_requests_of_others(office: Office) -> None:
    made = office.in_review()

    with pytest.raises(NotFoundError):
        office.desk.find(SUN, made)
    assert office.desk.listing(SUN) == []
    assert [r.id for r in office.desk.listing(HU)] == [made]
    assert [r.id for r in office.desk.listing(AUDIT)] == [made]
    assert [r.id for r in office.desk.listing(WANG, to_review=True)] == [made]
    assert office.desk.listing(LI, to_review=True) == []


def test_lists_go_on_where_they_stopped(office: Office) -> None:
    for _ in range(12):
        office.desk.draft(LI, an_ask())

    pages = [office.desk.listing(LI, limit=5, after=after) for after in ("", "r-5", "r-10")]

    assert [[r.id for r in page] for page in pages] == [
        ["r-1", "r-2", "r-3", "r-4", "r-5"],
        ["r-6", "r-7", "r-8", "r-9", "r-10"],
        ["r-11", "r-12"],
    ]
    assert office.desk.listing(LI, state=RequestState.SUBMITTED) == []


def test_a_question_and_its_answer_stand_in_the_history_and_the_owner_s_clock_stands_still(
    office: Office,
) -> None:
    made = office.in_review()
    before = office.desk.find(LI, made).due_at
    office.now += timedelta(days=1)
    asked = office.desk.ask(WANG, made, "Which districts?")
    office.now += timedelta(days=7)
    answered = office.desk.answer(LI, made, "All of 33")

    assert before is not None
    assert asked.state == "needs_info"
    assert answered.state == "in_review"
    # Asked with nine working days left, answered a week later: nine are left.
    assert answered.due_at == before + timedelta(days=7) + timedelta(days=0)
    assert [(e.action, e.said) for e in office.desk.history(WANG, made)][-2:] == [
        ("ask", "Which districts?"),
        ("answer", "All of 33"),
    ]


def test_a_rejection_names_its_ground_and_is_final(office: Office) -> None:
    made = office.in_review()

    done = office.desk.reject(WANG, made, Ground.MORE_THAN_NEEDED, "names are not needed")

    assert (done.state, done.ground, done.due_at) == ("rejected", Ground.MORE_THAN_NEEDED, None)
    with pytest.raises(TransitionRefusedError, match="nothing changes it any more"):
        office.desk.approve(WANG, made)


def test_a_request_can_be_withdrawn_until_it_is_decided(office: Office) -> None:
    made = office.in_review()

    assert office.desk.withdraw(LI, made, "not needed").state == "withdrawn"
    with pytest.raises(TransitionRefusedError):
        office.desk.withdraw(LI, office.provisioned())


@pytest.mark.parametrize("state", ["draft", "submitted", "needs_info"])
def test_a_requester_may_withdraw_before_and_during_the_review(office: Office, state: str) -> None:
    made = office.in_review() if state == "needs_info" else office.desk.draft(LI, an_ask()).id
    if state == "needs_info":
        office.desk.ask(WANG, made, "Which districts?")
    if state == "submitted":
        office.desk.submit(LI, made)
    before = office.desk.find(LI, made).state

    done = office.desk.withdraw(LI, made, "not needed")

    assert (before, done.state, done.due_at) == (state, "withdrawn", None)


def test_a_steward_may_reject_without_waiting_for_the_answer(office: Office) -> None:
    made = office.in_review()
    office.desk.ask(WANG, made, "Which districts?")

    assert office.desk.reject(WANG, made, Ground.INFORMATION_MISSING).state == "rejected"


def test_a_disabled_account_and_one_that_claims_more_than_it_is_may_nothing(office: Office) -> None:
    made = office.in_review()
    accounts.disable(office.store, WANG.name, who="ops", why="left", now=office.now)

    with pytest.raises(NotAllowedError):
        office.desk.approve(WANG, made)
    with pytest.raises(NotAllowedError):
        office.desk.approve(replace(SUN, department="civil", roles=frozenset({Role.STEWARD})), made)
    with pytest.raises(TransitionRefusedError):
        office.desk.approve(replace(LI, roles=frozenset({Role.SUBSCRIBER, Role.STEWARD})), made)
    with pytest.raises(NotFoundError):
        office.desk.find(replace(SUN, roles=frozenset({Role.AUDITOR})), made)


def test_a_decision_survives_a_bus_that_is_down_and_is_provided_later(office: Office) -> None:
    made = office.in_review()
    office.down = BrokerUnavailableError("away")

    with pytest.raises(BrokerUnavailableError):
        office.desk.approve(WANG, made)
    assert office.desk.find(LI, made).state == "approved"
    office.down = None
    office.now += timedelta(minutes=1)

    assert office.desk.provide_pending(before=office.now) == [made]
    assert office.desk.find(LI, made).state == "provisioned"
    assert office.desk.provide_pending(before=office.now) == []


def test_what_the_catalogue_allows_no_more_is_not_provided_and_can_be_rejected(
    office: Office,
) -> None:
    made = office.in_review()
    office.down = BrokerUnavailableError("away")
    with pytest.raises(BrokerUnavailableError):
        office.desk.approve(WANG, made)
    office.down = None
    with office.store.writing(who="ops", why="withheld", now=office.now) as writing:
        writing.resource(stored_resource("residents", ShareType.WITHHELD))

    office.now += timedelta(minutes=1)
    assert office.desk.provide_pending(before=office.now) == []
    assert office.store.snapshot().grants == {}
    assert office.desk.reject(WANG, made, Ground.CANNOT_BE_PROVIDED).state == "rejected"


def test_an_unconditional_request_that_waits_is_not_provided_once_it_needs_approval(office: Office) -> None:
    made = office.desk.draft(LI, an_ask(resource="civil.offices"))
    office.down = BrokerUnavailableError("away")
    with pytest.raises(BrokerUnavailableError):
        office.desk.submit(LI, made.id)
    office.down = None
    with office.store.writing(who="ops", why="changed", now=office.now) as writing:
        writing.resource(stored_resource("offices", ShareType.CONDITIONAL))

    office.now += timedelta(minutes=1)

    assert office.desk.provide_pending(before=office.now) == []
    assert office.store.snapshot().grants == {}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (GrantState.SUSPENDED, RequestState.SUSPENDED),
        (GrantState.REVOKED, RequestState.REVOKED),
        (GrantState.EXPIRED, RequestState.EXPIRED),
    ],
)
def test_a_request_follows_its_grant(office: Office, state: GrantState, expected: RequestState) -> None:
    made = office.provisioned()

    change_grant(office, state)

    assert office.desk.find(LI, made).state is expected


def test_a_request_follows_its_grant_back(office: Office) -> None:
    made = office.provisioned()
    change_grant(office, GrantState.SUSPENDED)

    change_grant(office, GrantState.ACTIVE)

    assert office.desk.find(LI, made).state == "provisioned"


def test_every_step_leaves_an_audit_row(office: Office) -> None:
    made = office.provisioned()

    with office.store.reading() as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.what == f"request {made}")).all()
    assert [(row.who, (row.after or {})["action"]) for row in rows] == [
        ("li-tax", "draft"),
        ("li-tax", "submit"),
        ("wang-civil", "take"),
        ("wang-civil", "approve"),
        ("govbus", "provision"),
    ]


# -- existing grants -------------------------------------------------------------------------------


def test_a_steward_narrows_a_grant_at_once(office: Office) -> None:
    office.provisioned(fields=keeping("code", "name", "phone"))

    done = office.desk.amend(
        WANG, "residents-for-tax", Amendment(fields=keeping("code", "phone")), why="name not needed"
    )

    assert (done.kind, done.state, done.grant_version) == (RequestKind.AMEND, "provisioned", 2)
    assert [rule.name for rule in the_grant(office).grant.fields] == ["code", "phone"]
    assert done.ask.legal_basis == "Tax Collection Law, article 6"


def test_a_steward_widens_a_grant_alone_unless_sensitive_fields_are_in_it(office: Office) -> None:
    office.provisioned(fields=keeping("code"))

    wider = office.desk.amend(
        WANG, "residents-for-tax", Amendment(fields=keeping("code", "name")), why="asked for"
    )
    sensitive = office.desk.amend(
        WANG, "residents-for-tax", Amendment(fields=keeping("code", "phone")), why="asked for"
    )

    assert (wider.state, sensitive.state) == ("provisioned", "submitted")
    with pytest.raises(TransitionRefusedError):
        office.desk.take(WANG, sensitive.id)
    office.desk.take(ZHAO, sensitive.id)
    assert office.desk.approve(ZHAO, sensitive.id).grant_version == 3


def test_more_rows_of_a_sensitive_field_take_two_as_well(office: Office) -> None:
    office.provisioned(fields=keeping("code", "phone"))

    done = office.desk.amend(WANG, "residents-for-tax", Amendment(rows="all"), why="asked for")

    assert (done.state, done.approvals_needed) == ("submitted", 1)


def test_a_subscriber_s_amendment_is_reviewed(office: Office) -> None:
    office.provisioned()

    done = office.desk.amend(LI, "residents-for-tax", Amendment(rows="all"), why="moved offices")

    assert (done.state, done.approvals_needed) == ("submitted", 1)
    office.desk.take(WANG, done.id)
    assert office.desk.approve(WANG, done.id).grant_version == 2
    assert the_grant(office).grant.rows is None


def test_why_a_grant_is_to_change_begins_the_history_of_what_changes_it(office: Office) -> None:
    office.provisioned()
    (grant,) = office.store.snapshot().grants

    amended = office.desk.amend(LI, grant, Amendment(fields=keeping("code")), why="the names are not needed")
    renewed = office.desk.renew(LI, grant, timedelta(days=90), why="the audit takes longer")

    begun = [office.desk.history(LI, one.id)[0] for one in (amended, renewed)]
    assert [(event.action, event.said) for event in begun] == [
        ("draft", "the names are not needed"),
        ("draft", "the audit takes longer"),
    ]
    with pytest.raises(RefusedError, match="a reason has to be said"):
        office.desk.renew(LI, grant, timedelta(days=90), why=" ")


def test_an_amendment_that_was_asked_of_another_version_is_refused(office: Office) -> None:
    office.provisioned()
    late = office.desk.amend(LI, "residents-for-tax", Amendment(rows="all"), why="moved")
    office.desk.amend(WANG, "residents-for-tax", Amendment(fields=keeping("code")), why="narrower")
    office.desk.take(WANG, late.id)

    with pytest.raises(GrantRefusedError, match="has become another since"):
        office.desk.approve(WANG, late.id)
    assert office.desk.find(LI, late.id).approved_by == ()


def test_an_amendment_changes_a_suspended_grant_and_leaves_it_suspended(office: Office) -> None:
    office.provisioned()
    change_grant(office, GrantState.SUSPENDED)

    office.desk.amend(WANG, "residents-for-tax", Amendment(fields=keeping("code")), why="narrower")

    assert the_grant(office).grant.state is GrantState.SUSPENDED


def test_renewing_takes_the_approvals_of_the_original(office: Office) -> None:
    office.provisioned(fields=keeping("code", "phone"))
    office.now += timedelta(days=20)

    asked = office.desk.renew(LI, "residents-for-tax", timedelta(days=30), why="goes on")
    office.desk.take(WANG, asked.id)
    first = office.desk.approve(WANG, asked.id)
    done = office.desk.approve(ZHAO, asked.id)

    assert (first.state, done.state) == ("in_review", "provisioned")
    assert the_grant(office).grant.expires_at == office.now + timedelta(days=30)


def test_neither_an_ended_grant_nor_a_stranger_s_is_renewed(office: Office) -> None:
    office.provisioned()
    with pytest.raises(NotFoundError):
        office.desk.renew(SUN, "residents-for-tax", timedelta(days=60), why="x")
    with pytest.raises(NotAllowedError):
        office.desk.renew(WANG, "residents-for-tax", timedelta(days=60), why="x")
    with pytest.raises(GrantRefusedError, match="lasts longer than that already"):
        office.desk.renew(LI, "residents-for-tax", timedelta(days=10), why="x")
    change_grant(office, GrantState.EXPIRED)

    with pytest.raises(GrantRefusedError, match="has ended"):
        office.desk.renew(LI, "residents-for-tax", timedelta(days=60), why="x")


def test_an_ended_grant_s_name_is_not_used_again(office: Office) -> None:
    office.provisioned()
    change_grant(office, GrantState.REVOKED)

    again = office.desk.find(LI, office.provisioned())

    assert again.grant_id == "residents-for-tax-2"


# -- emergencies -----------------------------------------------------------------------------------


def an_emergency(office: Office, **changes: object) -> str:
    ask = an_ask(fields=keeping("code", "phone"), term=timedelta(hours=12), **changes)
    return office.desk.emergency(QIAN, ask, requester=LI.name, why="flood").id


def test_an_emergency_grant_delivers_at_once_for_some_hours_and_leaves_a_review(office: Office) -> None:
    done = office.desk.find(LI, an_emergency(office))

    grant = the_grant(office).grant
    assert (done.state, done.granted_by, done.review) == ("provisioned", "qian-ops", "due")
    assert grant.expires_at == MONDAY + timedelta(hours=12)
    assert [r.id for r in office.desk.listing(WANG, to_review=True)] == [done.id]


@pytest.mark.parametrize(
    ("ask", "match"),
    [({"rows": None}, "is narrow"), ({"term": timedelta(hours=25)}, "lasts 24 hours at most")],
)
def test_an_emergency_grant_is_narrow_and_short(office: Office, ask: dict[str, object], match: str) -> None:
    with pytest.raises(GrantRefusedError, match=match):
        office.desk.emergency(QIAN, an_ask(**ask), requester=LI.name, why="flood")


@pytest.mark.parametrize("account", [LI, HU, SUN, AUDIT])
def test_an_emergency_is_granted_by_an_operator_or_the_owner_s_steward_alone(
    office: Office, account: object
) -> None:
    with pytest.raises(NotAllowedError):
        office.desk.emergency(account, an_ask(term=timedelta(hours=1)), requester=LI.name, why="flood")  # type: ignore[arg-type]


def test_there_is_no_second_emergency_grant_before_the_first_was_reviewed(office: Office) -> None:
    first = an_emergency(office)
    change_grant(office, GrantState.EXPIRED)

    with pytest.raises(NotAllowedError, match="has not been reviewed yet"):
        an_emergency(office)
    reviewed = office.desk.review_emergency(WANG, first, upheld=True, why="it was a flood")

    assert (reviewed.state, reviewed.review, reviewed.reviewed_by) == ("expired", "done", "wang-civil")
    assert office.desk.find(LI, an_emergency(office)).state == "provisioned"


def test_who_granted_an_emergency_does_not_review_it(office: Office) -> None:
    ask = an_ask(term=timedelta(hours=1))
    made = office.desk.emergency(WANG, ask, requester=LI.name, why="flood")

    for account in (WANG, LI, QIAN):
        with pytest.raises(NotAllowedError):
            office.desk.review_emergency(account, made.id, upheld=True, why="fine")
    assert office.desk.review_emergency(ZHAO, made.id, upheld=False, why="no flood").upheld is False
    with pytest.raises(RefusedError):
        office.desk.review_emergency(ZHAO, made.id, upheld=True, why="again")


def test_an_emergency_grant_is_neither_renewed_nor_made_wider(office: Office) -> None:
    an_emergency(office)

    with pytest.raises(GrantRefusedError, match="is not renewed"):
        office.desk.renew(LI, "residents-for-tax", timedelta(days=3), why="x")
    for change in (
        Amendment(fields=keeping("code", "name", "phone")),
        Amendment(rows="all"),
        Amendment(term=timedelta(days=2)),
    ):
        with pytest.raises(GrantRefusedError, match="does not become wider"):
            office.desk.amend(WANG, "residents-for-tax", change, why="x")
    assert (
        office.desk.amend(WANG, "residents-for-tax", Amendment(fields=keeping("code")), why="x").state
        == "provisioned"
    )


def test_no_other_path_makes_an_emergency_grant_last_longer(office: Office) -> None:
    """A catalogue file that names the grant would write its versions past the requests."""
    an_emergency(office)
    stored = the_grant(office)
    longer = replace(stored.grant, version=2, expires_at=stored.grant.expires_at + timedelta(days=1))

    with (
        pytest.raises(GrantRefusedError, match="does not become wider"),
        office.store.writing(who="ops", why="apply", now=office.now) as writing,
    ):
        writing.grant(replace(stored, published=replace(stored.published, grant=longer)))
    assert the_grant(office).grant.version == 1
