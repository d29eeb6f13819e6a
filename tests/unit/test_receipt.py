"""A receipt is its department's, unchanged, and the same however often it is written."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from govbus.codec import bus_schema, decode_body, encode, parse_schema, unframe
from govbus.grant import DataDuty, GrantState
from govbus.receipt import (
    EMPTY_DIGEST,
    Receipt,
    ReceiptKey,
    fingerprint,
    receipt_from_record,
    receipt_to_record,
)

KEY = ReceiptKey(bytes(range(32)))
OTHER = ReceiptKey(bytes(32))
RECEIPT = Receipt(
    grant="firms-for-tax",
    version=2,
    department="tax",
    state=GrantState.REVOKED,
    duty=DataDuty.DELETE,
    table="firms_for_tax",
    rows_before=7,
    rows_after=0,
    rows_blanked=0,
    digest_before="ab" * 32,
    digest_after=EMPTY_DIGEST,
    carried_out_at=datetime(2026, 7, 1, 12, 0, 0, 123_000, tzinfo=UTC),
    process="tax.land@host:1",
)
CHANGES: dict[str, Any] = {
    "grant": "firms-for-others",
    "version": 3,
    "department": "health",
    "state": GrantState.EXPIRED,
    "duty": DataDuty.KEEP,
    "table": "other",
    "rows_before": 6,
    "rows_after": 1,
    "rows_blanked": 1,
    "digest_before": "cd" * 32,
    "digest_after": "cd" * 32,
    "carried_out_at": RECEIPT.carried_out_at + timedelta(milliseconds=1),
    "process": "tax.land@host:2",
}


def test_a_receipt_is_signed_by_the_key_that_signed_it_and_no_other() -> None:
    signed = KEY.sign(RECEIPT)

    assert signed.signed_by(KEY.public)
    assert not signed.signed_by(OTHER.public)
    assert not signed.signed_by(b"no key")


@pytest.mark.parametrize("name", [field.name for field in fields(Receipt)])
def test_no_fact_can_be_changed_under_the_signature(name: str) -> None:
    signed = KEY.sign(RECEIPT)

    forged = replace(signed, receipt=replace(RECEIPT, **{name: CHANGES[name]}))

    assert not forged.signed_by(KEY.public)


def test_the_same_facts_give_the_same_bytes_on_the_bus() -> None:
    schema = parse_schema(1, bus_schema("receipt"))

    first = encode(schema, receipt_to_record(KEY.sign(RECEIPT)))
    again = encode(schema, receipt_to_record(ReceiptKey(bytes(range(32))).sign(replace(RECEIPT))))

    assert first == again


def test_what_was_signed_is_still_signed_after_the_way_over_the_bus() -> None:
    schema = parse_schema(1, bus_schema("receipt"))
    signed = KEY.sign(RECEIPT)

    record = decode_body(schema, unframe(encode(schema, receipt_to_record(signed)))[1])

    assert receipt_from_record(record) == signed
    assert receipt_from_record(record).signed_by(KEY.public)


@pytest.mark.parametrize(
    ("duty", "after", "digest", "done"),
    [
        (DataDuty.DELETE, 0, EMPTY_DIGEST, True),
        (DataDuty.DELETE, 1, EMPTY_DIGEST, False),
        (DataDuty.DELETE, 0, "cd" * 32, False),
        (DataDuty.BLANK, 7, "cd" * 32, True),
        (DataDuty.BLANK, 6, "cd" * 32, False),
        (DataDuty.KEEP, 7, "ab" * 32, True),
        (DataDuty.KEEP, 7, "cd" * 32, False),
        (DataDuty.KEEP, 6, "ab" * 32, False),
    ],
)
def test_a_receipt_tells_by_its_own_facts_whether_the_duty_was_done(
    duty: DataDuty, after: int, digest: str, done: bool
) -> None:
    receipt = replace(RECEIPT, duty=duty, rows_after=after, digest_after=digest)

    assert receipt.duty_done is done


def test_digests_of_one_row_under_two_grants_or_departments_cannot_be_compared() -> None:
    keys = {
        KEY.digest_key("a", 1),
        KEY.digest_key("a", 2),
        KEY.digest_key("b", 1),
        OTHER.digest_key("a", 1),
    }

    assert len(keys) == 4
    assert KEY.digest_key("a", 1) == ReceiptKey(bytes(range(32))).digest_key("a", 1)


@pytest.mark.parametrize(
    "change",
    [{"state": GrantState.ACTIVE}, {"rows_after": -1}, {"carried_out_at": datetime(2026, 1, 1)}],  # noqa: DTZ001
)
def test_a_receipt_that_makes_no_sense_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        replace(RECEIPT, **change)


def test_a_key_shows_itself_by_its_fingerprint_only() -> None:
    assert fingerprint(KEY.public) != fingerprint(OTHER.public)
    assert bytes(range(32)).hex() not in repr(KEY)
    with pytest.raises(ValueError, match="32 bytes"):
        ReceiptKey(b"short")


@pytest.mark.parametrize(
    "junk",
    [
        {"process": "x\x1b[2J"},
        {"table": "a\x00"},
        {"digest_before": "ab" * 33},
        {"grant": "g" * 81},
        {"version": 1 << 40},
        {"version": "2"},
        {"rows_before": -1},
        {"carried_out_at": "now"},
        {"state": "active"},
        {"duty": "burn"},
    ],
)
def test_what_could_be_neither_stored_nor_shown_is_no_receipt(junk: dict[str, Any]) -> None:
    """A department writes its topic itself, and may write anything."""
    record = receipt_to_record(KEY.sign(RECEIPT))

    with pytest.raises((ValueError, TypeError)):
        receipt_from_record(record | junk)
