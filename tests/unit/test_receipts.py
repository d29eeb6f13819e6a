"""Control believes a receipt only from the department that owed it, under its key, unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from govbus import topics
from govbus.catalogue import Department, Resource, ResourceKind, ShareType
from govbus.contract import parse_contract
from govbus.errors import RefusedError, UndecodableRecordError
from govbus.grant import DataDuty, FieldRule, Grant, GrantState, PublishedGrant
from govbus.receipt import EMPTY_DIGEST, Receipt, ReceiptKey, SignedReceipt, receipt_to_record
from govbus.transform import Keep
from govbus_console.control import endings, receipts
from govbus_console.control.receipts import Verdict
from govbus_console.control.store import (
    AuditRow,
    ControlStore,
    OutboxRow,
    StoredGrant,
    StoredResource,
    contract_text,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY, OTHER = ReceiptKey(bytes(range(32))), ReceiptKey(bytes(32))
RECEIPT = Receipt(
    grant="quzhou-divisions",
    version=2,
    department="quzhou",
    state=GrantState.REVOKED,
    duty=DataDuty.DELETE,
    table="quzhou_divisions",
    rows_before=7,
    rows_after=0,
    rows_blanked=0,
    digest_before="ab" * 32,
    digest_after=EMPTY_DIGEST,
    carried_out_at=NOON,
    process="quzhou.land@host:1",
)


CONTRACT = parse_contract(
    json.dumps(
        {
            "type": "record",
            "name": "Division",
            "govbus": {"version": 1, "kind": "state", "key": ["code"]},
            "fields": [{"name": "code", "type": "string", "classification": "public"}],
        }
    ),
    owner="stats",
    resource="divisions",
)


def a_resource() -> StoredResource:
    return StoredResource(
        resource=Resource(
            owner="stats",
            name="divisions",
            title="Division codes",
            share_type=ShareType.CONDITIONAL,
            kind=ResourceKind.STATE,
            contract_version=1,
            key=("code",),
            partitions=1,
            value_schema_id=11,
            key_schema_id=12,
        ),
        contract=CONTRACT,
        contract_text=contract_text(CONTRACT),
        synthetic=True,
        owner_allows=(),
    )


def a_grant() -> StoredGrant:
    return StoredGrant(
        published=PublishedGrant(
            grant=Grant(
                id="quzhou-divisions",
                version=1,
                state=GrantState.ACTIVE,
                subscriber="quzhou",
                owner="stats",
                resource="divisions",
                fields=(FieldRule(name="code", transform=Keep()),),
                rows=None,
                purpose="Address register",
                starts_at=NOON,
                expires_at=NOON + timedelta(days=1),
            ),
            view="v-1",
            delivery_topic=topics.delivered("quzhou", "quzhou-divisions"),
            value_schema_id=13,
            key_schema_id=14,
        ),
        contract_version=1,
        made_at=NOON,
    )


@dataclass(frozen=True)
class Received:
    """A record on a department's topic."""

    at: int
    department: str
    what: SignedReceipt | None

    def topic(self) -> str:
        return topics.receipts(self.department)

    def offset(self) -> int:
        return self.at

    def value(self) -> Any:
        return self.what


class Cluster:
    """A broker's topics and permissions."""

    def __init__(self, *there: str) -> None:
        self.there = set(there)

    def topics(self) -> dict[str, int]:
        return dict.fromkeys(self.there, 1)

    def delete_topic(self, name: str) -> bool:
        self.there.discard(name)
        return True

    def acls(self, principal: str) -> frozenset[Any]:
        return frozenset()


class Control:
    """A store with one ended grant, and a bus that is a list of records."""

    own_topic = topics.delivered("quzhou", "quzhou-divisions")

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = ControlStore.open(url)
        self.log: list[Received] = []
        self.cluster = Cluster(self.own_topic, "govbus.delivered.quzhou.another")
        self.bus: Any = SimpleNamespace(
            broker=None, cluster=self.cluster, registry=SimpleNamespace(decode=self._decode)
        )
        monkeypatch.setattr(receipts, "records_since", self._since)

    def end(self, duty: DataDuty = DataDuty.DELETE, *, told: bool = True) -> None:
        """Grant something and revoke it."""
        stored = a_grant()
        over = replace(stored.grant, version=2, state=GrantState.REVOKED, data_on_end=duty)
        with self.store.writing(who="li", why="test", now=NOON) as writing:
            for name in ("stats", "quzhou", "tax"):
                writing.department(Department(name=name, title=name))
            writing.resource(a_resource())
            writing.grant(stored)
            writing.grant(replace(stored, published=replace(stored.published, grant=over), made_at=NOON))
        if told:
            with self.store.locked() as session:
                for row in session.scalars(select(OutboxRow)):
                    row.published_at = NOON

    def answer(self, what: SignedReceipt | None, department: str = "quzhou") -> None:
        """Put a record on a department's topic."""
        offset = sum(record.department == department for record in self.log)
        self.log.append(Received(offset, department, what))

    def status(self) -> str:
        """Collect, and say how the one grant stands."""
        receipts.collect(self.store, self.bus, ["quzhou", "tax"], now=NOON)
        (standing,) = receipts.standings(self.store)
        return standing.status

    def follow_up(self, *, after: timedelta = timedelta()) -> endings.FollowedUp:
        return endings.follow_up(self.store, self.bus, now=NOON + after)

    def audited(self, what: str) -> int:
        with self.store.reading() as session:
            return len(list(session.scalars(select(AuditRow).where(AuditRow.what.startswith(what)))))

    def _since(self, _broker: object, starts: dict[str, int]) -> list[Received]:
        return [record for record in self.log if record.offset() >= starts.get(record.topic(), 1_000)]

    def _decode(self, value: SignedReceipt | None, *, at: object) -> dict[str, Any]:
        if value is None:
            raise UndecodableRecordError("not a receipt")
        return receipt_to_record(value)


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    control = Control(f"sqlite:///{tmp_path / 'control.db'}", monkeypatch)
    yield control
    control.store.close()


def test_a_receipt_that_holds_is_verified_and_its_key_pinned(control: Control) -> None:
    control.end()
    before = control.status()
    control.answer(KEY.sign(RECEIPT))

    assert (before, control.status()) == ("not answered", "answered")
    assert receipts.pinned_key(control.store, "quzhou") == KEY.public
    assert (control.audited("receipt quzhou-divisions"), control.audited("receipt key quzhou")) == (1, 1)


def test_a_receipt_that_comes_twice_is_one(control: Control) -> None:
    control.end()
    control.answer(KEY.sign(RECEIPT))
    control.answer(KEY.sign(RECEIPT))

    assert control.status() == "answered"
    assert control.audited("receipt quzhou-divisions") == 1


@pytest.mark.parametrize(
    ("forged", "verdict"),
    [
        (OTHER.sign(RECEIPT), Verdict.UNKNOWN_KEY),
        (replace(OTHER.sign(RECEIPT), public_key=KEY.public), Verdict.BAD_SIGNATURE),
        (replace(KEY.sign(RECEIPT), receipt=replace(RECEIPT, rows_before=6)), Verdict.BAD_SIGNATURE),
        (KEY.sign(replace(RECEIPT, rows_after=3)), Verdict.DUTY_NOT_DONE),
        (KEY.sign(replace(RECEIPT, duty=DataDuty.KEEP, digest_before=EMPTY_DIGEST)), Verdict.DUTY_NOT_DONE),
    ],
)
def test_a_forged_receipt_is_refused_and_the_right_one_still_counts(
    control: Control, forged: SignedReceipt, verdict: Verdict
) -> None:
    control.end()
    receipts.enrol(control.store, "quzhou", KEY.public.hex(), who="li", why="by courier", now=NOON)
    control.answer(forged)

    first = control.status()
    control.answer(KEY.sign(RECEIPT))

    assert (first, control.status()) == (verdict.value, "answered")


def test_a_receipt_with_a_bad_signature_pins_no_key(control: Control) -> None:
    control.end()
    control.answer(replace(OTHER.sign(RECEIPT), receipt=replace(RECEIPT, rows_before=6)))

    assert control.status() == "bad-signature"
    assert receipts.pinned_key(control.store, "quzhou") is None


def test_a_verified_receipt_is_never_replaced(control: Control) -> None:
    control.end()
    control.answer(KEY.sign(RECEIPT))
    control.answer(KEY.sign(replace(RECEIPT, rows_before=1)))
    control.answer(OTHER.sign(RECEIPT))

    assert control.status() == "answered"
    (standing,) = receipts.standings(control.store)
    assert standing.answer is not None
    assert standing.answer.rows_before == 7


@pytest.mark.parametrize(
    ("signed", "department"),
    [
        (None, "quzhou"),
        (KEY.sign(RECEIPT), "tax"),
        (KEY.sign(replace(RECEIPT, department="tax")), "tax"),
        (KEY.sign(replace(RECEIPT, department="tax")), "quzhou"),
        (KEY.sign(replace(RECEIPT, version=1)), "quzhou"),
        (KEY.sign(replace(RECEIPT, version=3)), "quzhou"),
        (KEY.sign(replace(RECEIPT, grant="no-such")), "quzhou"),
    ],
)
def test_what_answers_nothing_that_its_department_owes_is_passed_over(
    control: Control, signed: SignedReceipt | None, department: str
) -> None:
    control.end()
    control.answer(signed, department)

    assert control.status() == "not answered"
    assert receipts.pinned_key(control.store, department) is None


def test_an_enrolled_key_takes_the_place_of_the_one_before(control: Control) -> None:
    control.end()
    receipts.enrol(control.store, "quzhou", OTHER.public.hex(), who="li", why="first", now=NOON)
    receipts.enrol(control.store, "quzhou", KEY.public.hex(), who="li", why="lost the first", now=NOON)
    control.answer(KEY.sign(RECEIPT))

    assert control.status() == "answered"
    with pytest.raises(RefusedError, match="64 hexadecimal digits"):
        receipts.enrol(control.store, "quzhou", "beef", who="li", why="", now=NOON)
    with pytest.raises(RefusedError, match="no department"):
        receipts.enrol(control.store, "nobody", KEY.public.hex(), who="li", why="", now=NOON)


@pytest.mark.parametrize("duty", [DataDuty.DELETE, DataDuty.BLANK])
def test_the_topic_of_a_grant_with_a_purge_goes_without_waiting_for_an_answer(
    control: Control, duty: DataDuty
) -> None:
    control.end(duty)

    found = control.follow_up()

    assert found.removed == (control.own_topic,)
    assert control.cluster.there == {"govbus.delivered.quzhou.another"}
    assert control.audited("topic ") == 1
    assert control.follow_up().removed == ()
    assert found.concluded == frozenset()  # the answer is still to come


def test_what_may_be_kept_stays_until_it_is_answered_for(control: Control) -> None:
    control.end(DataDuty.KEEP)
    waiting = control.follow_up().removed
    kept = replace(RECEIPT, duty=DataDuty.KEEP, rows_after=7, digest_after=RECEIPT.digest_before)
    control.answer(KEY.sign(kept))

    found = control.follow_up()

    assert (waiting, found.removed) == ((), (control.own_topic,))
    assert found.concluded == {"quzhou-divisions"}


def test_what_may_be_kept_and_is_never_answered_for_goes_in_the_end(control: Control) -> None:
    control.end(DataDuty.KEEP)

    early = control.follow_up(after=endings.KEPT - timedelta(seconds=1)).removed
    late = control.follow_up(after=endings.KEPT).removed

    assert (early, late) == ((), (control.own_topic,))


def test_nothing_is_removed_before_the_subscriber_was_told(control: Control) -> None:
    control.end(told=False)

    assert control.follow_up().removed == ()
