"""What departments have answered for grants that ended: collected, verified, kept. Does I/O.

Receipts are read off each department's own topic and held against what the store
knows. The first that applies:

1. It answers a grant version that exists, has ended and is that department's, or it
   is no receipt of anything and is left out, with a line in the log.
2. ``unknown-key``: its key is not the one that is pinned for the department. Where
   none is pinned, the key of the first receipt with a good signature is (decision
   0130: only the department may write the topic, so the broker has checked who it is).
3. ``bad-signature``: the facts are not those that the key has signed.
4. ``duty-not-done``: by its own facts, what was done is not what the grant asks for.
5. ``verified``. Such a receipt is never replaced; any other is, by the next that comes.

Everything that is kept leaves an audit row.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from confluent_kafka import Message
from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from govbus import topics
from govbus.errors import NotFoundError, RefusedError, RejectedRecordError
from govbus.event import RecordAddress
from govbus.grant import DataDuty, GrantState
from govbus.receipt import SignedReceipt, fingerprint, receipt_from_record
from govbus_console.cluster import TopicSpec
from govbus_console.control.bus import Bus
from govbus_console.control.reading import records_since
from govbus_console.control.store import AuditRow, ControlStore, GrantRow, Moment, StoredGrant, Table

_log = logging.getLogger(__name__)

ENDED = (GrantState.REVOKED, GrantState.EXPIRED)
_LARGEST = "16384"
"""Bytes of a receipt, with room; the topic is the department's to write, and it should hold receipts."""

_KEY_BYTES = 32


class Verdict(StrEnum):
    """What a receipt is worth."""

    VERIFIED = "verified"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"
    DUTY_NOT_DONE = "duty-not-done"


class ReceiptSourceRow(Table):
    """A department that answers: the key that it signs with, and how far its topic has been read."""

    __tablename__ = "receipt_sources"

    department: Mapped[str] = mapped_column(ForeignKey("departments.name"), primary_key=True)
    public_key: Mapped[str | None] = mapped_column(String(64))
    """Hexadecimal; None while no receipt has come and none was enrolled."""

    pinned_at: Mapped[datetime | None] = mapped_column(Moment)
    next_offset: Mapped[int] = mapped_column(BigInteger)


class ReceiptRow(Table):
    """What has been answered for one version of a grant."""

    __tablename__ = "receipts"
    __table_args__ = (ForeignKeyConstraint(["grant_id", "version"], ["grants.id", "grants.version"]),)

    grant_id: Mapped[str] = mapped_column(String(80), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    department: Mapped[str] = mapped_column(ForeignKey("departments.name"))
    verdict: Mapped[str] = mapped_column(String(20))
    duty: Mapped[str] = mapped_column(String(10))
    table_name: Mapped[str] = mapped_column(Text)
    rows_before: Mapped[int] = mapped_column(BigInteger)
    rows_after: Mapped[int] = mapped_column(BigInteger)
    rows_blanked: Mapped[int] = mapped_column(BigInteger)
    digest_before: Mapped[str] = mapped_column(Text)
    digest_after: Mapped[str] = mapped_column(Text)
    carried_out_at: Mapped[datetime] = mapped_column(Moment)
    process: Mapped[str] = mapped_column(Text)
    public_key: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str] = mapped_column(String(128))
    received_at: Mapped[datetime] = mapped_column(Moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a department has answered, as the store keeps it."""

    verdict: Verdict
    table: str
    rows_before: int
    rows_after: int
    rows_blanked: int
    digest_before: str
    digest_after: str
    carried_out_at: datetime
    process: str
    key: str
    """Fingerprint of the key that the receipt names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An ended grant, and whether its subscriber has answered for it."""

    grant: str
    version: int
    resource: str
    """``owner.resource``"""

    department: str
    state: GrantState
    duty: DataDuty
    ended_at: datetime
    answer: Answer | None

    @property
    def answered(self) -> bool:
        """Whether there is a receipt that can be relied on."""
        return self.answer is not None and self.answer.verdict is Verdict.VERIFIED

    @property
    def status(self) -> str:
        """``answered``, ``not answered``, or why the receipt that came does not count."""
        if self.answer is None:
            return "not answered"
        return "answered" if self.answered else self.answer.verdict.value

    def as_json(self) -> dict[str, Any]:
        """The same for a script."""
        found: dict[str, Any] = {
            "grant": self.grant,
            "version": self.version,
            "resource": self.resource,
            "department": self.department,
            "state": self.state.value,
            "duty": self.duty.value,
            "ended_at": self.ended_at.isoformat(),
            "status": self.status,
        }
        if self.answer is not None:
            found |= {
                "table": self.answer.table,
                "rows_before": self.answer.rows_before,
                "rows_after": self.answer.rows_after,
                "rows_blanked": self.answer.rows_blanked,
                "digest_before": self.answer.digest_before,
                "digest_after": self.answer.digest_after,
                "carried_out_at": self.answer.carried_out_at.isoformat(),
                "process": self.answer.process,
                "key": self.answer.key,
            }
        return found

    def line(self) -> str:
        """The same for a person, in one line."""
        head = f"receipt of {self.department} for {self.grant} version {self.version} ({self.duty}): "
        if self.answer is None:
            return f"{head}not answered since {self.ended_at.isoformat(timespec='seconds')}"
        blanked = f", {self.answer.rows_blanked} blanked" if self.answer.rows_blanked else ""
        return (
            f"{head}{self.status}; {self.answer.rows_before} rows before, {self.answer.rows_after} after"
            f"{blanked}; digest {self.answer.digest_before[:12]}… before, {self.answer.digest_after[:12]}… "
            f"after; signed with key {self.answer.key}"
        )


def receipts_topic(department: str) -> TopicSpec:
    """Where a department answers; nothing on it is ever forgotten."""
    return TopicSpec.retained(topics.receipts(department), retention_ms=-1, max_message_bytes=_LARGEST)


def standings(store: ControlStore) -> list[Standing]:
    """Every grant that has ended, with what was answered for it."""
    ended = [stored for stored in store.snapshot().grants.values() if stored.grant.state in ENDED]
    with store.reading() as session:
        rows = {(row.grant_id, row.version): row for row in session.scalars(select(ReceiptRow))}
    return sorted(
        (_standing(stored, rows.get((stored.grant.id, stored.grant.version))) for stored in ended),
        key=lambda standing: standing.grant,
    )


def standing_of(session: Session, stored: StoredGrant) -> Standing | None:
    """What was answered for one grant; None while it has not ended."""
    if stored.grant.state not in ENDED:
        return None
    return _standing(stored, session.get(ReceiptRow, (stored.grant.id, stored.grant.version)))


def collect(store: ControlStore, bus: Bus, departments: Collection[str], *, now: datetime) -> int:
    """Read, verify and keep what departments have answered since the last time; return how many records.

    Raises:
        BrokerUnavailableError, RegistryUnavailableError: nothing is lost; collect again.
    """
    with store.reading() as session:
        starts = {
            topics.receipts(row.department): row.next_offset
            for row in session.scalars(select(ReceiptSourceRow))
        }
    wanted = {topics.receipts(department): department for department in departments}
    heard = records_since(bus.broker, {topic: starts.get(topic, 0) for topic in wanted})
    # Decoded before the store is locked: the registry may take its time.
    receipts = [(message, _decoded(message, bus)) for message in heard]
    if heard:
        with store.locked() as session:
            for message, signed in receipts:
                _take(session, wanted[message.topic()], message.offset(), signed, now)
    return len(heard)


def enrol(store: ControlStore, department: str, public_key: str, *, who: str, why: str, now: datetime) -> str:
    """Pin a department's key that came to the administrator by another way; return its fingerprint.

    It takes the place of the one that was pinned before. What was verified stays verified.

    Raises:
        NotFoundError: there is no such department.
        RefusedError: this is no key.
    """
    try:
        raw = bytes.fromhex(public_key)
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise RefusedError(f"a public key has {2 * _KEY_BYTES} hexadecimal digits")
    if department not in store.snapshot().departments:
        raise NotFoundError(f"there is no department {department!r}; govbus apply makes departments")
    with store.locked() as session:
        source = _source(session, department)
        _pin(session, source, raw, who=who, why=why, now=now)
    return fingerprint(raw)


def pinned_key(store: ControlStore, department: str) -> bytes | None:
    """The key that a department's receipts must be signed with, if one is known."""
    with store.reading() as session:
        row = session.get(ReceiptSourceRow, department)
        return bytes.fromhex(row.public_key) if row is not None and row.public_key else None


def _standing(stored: StoredGrant, row: ReceiptRow | None) -> Standing:
    grant = stored.grant
    return Standing(
        grant=grant.id,
        version=grant.version,
        resource=grant.resource_ref,
        department=grant.subscriber,
        state=grant.state,
        duty=grant.data_on_end,
        ended_at=stored.made_at,
        answer=None if row is None else _answer(row),
    )


def _answer(row: ReceiptRow) -> Answer:
    return Answer(
        verdict=Verdict(row.verdict),
        table=row.table_name,
        rows_before=row.rows_before,
        rows_after=row.rows_after,
        rows_blanked=row.rows_blanked,
        digest_before=row.digest_before,
        digest_after=row.digest_after,
        carried_out_at=row.carried_out_at,
        process=row.process,
        key=fingerprint(bytes.fromhex(row.public_key)),
    )


def _decoded(message: Message, bus: Bus) -> SignedReceipt | None:
    """Read a record that a department wrote: anything may stand in it."""
    at = RecordAddress(topic=message.topic(), partition=0, offset=message.offset())
    try:
        return receipt_from_record(bus.registry.decode(message.value(), at=at))
    except (RejectedRecordError, KeyError, TypeError, ValueError, AttributeError):
        _log.warning("a record that is no receipt", extra={"address": str(at), "code": "no-receipt"})
        return None


def _take(
    session: Session, department: str, offset: int, signed: SignedReceipt | None, now: datetime
) -> None:
    source = _source(session, department)
    if offset < source.next_offset:
        return  # somebody else has been faster
    source.next_offset = offset + 1
    if signed is None:
        return
    receipt = signed.receipt
    grant = session.get(GrantRow, (receipt.grant, receipt.version))
    asked = grant is not None and grant.state in ENDED and grant.subscriber == department
    if grant is None or not asked or receipt.department != department:
        _log.warning("a receipt of nothing that has ended", extra={"topic": topics.receipts(department)})
        return
    before = session.get(ReceiptRow, (receipt.grant, receipt.version))
    if before is not None and before.verdict == Verdict.VERIFIED:
        return
    verdict = _judge(session, source, signed, grant, now)
    kept = session.merge(
        ReceiptRow(
            grant_id=receipt.grant,
            version=receipt.version,
            department=department,
            verdict=verdict.value,
            duty=receipt.duty.value,
            table_name=receipt.table,
            rows_before=receipt.rows_before,
            rows_after=receipt.rows_after,
            rows_blanked=receipt.rows_blanked,
            digest_before=receipt.digest_before,
            digest_after=receipt.digest_after,
            carried_out_at=receipt.carried_out_at,
            process=receipt.process,
            public_key=signed.public_key.hex(),
            signature=signed.signature.hex(),
            received_at=now,
        )
    )
    facts = {
        "version": kept.version,
        "verdict": kept.verdict,
        "duty": kept.duty,
        "rows_before": kept.rows_before,
        "rows_after": kept.rows_after,
        "rows_blanked": kept.rows_blanked,
    }
    _audit(session, f"receipt {receipt.grant}", None, facts, who=department, why="answered", now=now)
    level = logging.INFO if verdict is Verdict.VERIFIED else logging.WARNING
    _log.log(
        level, "receipt", extra={"grant": receipt.grant, "version": receipt.version, "code": verdict.value}
    )


def _judge(
    session: Session, source: ReceiptSourceRow, signed: SignedReceipt, grant: GrantRow, now: datetime
) -> Verdict:
    if source.public_key is None and signed.signed_by(signed.public_key):
        why = "the key of its first receipt"
        _pin(session, source, signed.public_key, who=source.department, why=why, now=now)
    if source.public_key is not None and signed.public_key.hex() != source.public_key:
        return Verdict.UNKNOWN_KEY
    if source.public_key is None or not signed.signed_by(bytes.fromhex(source.public_key)):
        return Verdict.BAD_SIGNATURE
    if signed.receipt.duty != grant.data_on_end or not signed.receipt.duty_done:
        return Verdict.DUTY_NOT_DONE
    return Verdict.VERIFIED


def _source(session: Session, department: str) -> ReceiptSourceRow:
    row = session.get(ReceiptSourceRow, department)
    if row is None:
        row = ReceiptSourceRow(department=department, public_key=None, pinned_at=None, next_offset=0)
        session.add(row)
    return row


def _pin(
    session: Session, source: ReceiptSourceRow, public_key: bytes, *, who: str, why: str, now: datetime
) -> None:
    before = None if source.public_key is None else {"key": source.public_key}
    source.public_key, source.pinned_at = public_key.hex(), now
    after = {"key": source.public_key}
    _audit(session, f"receipt key {source.department}", before, after, who=who, why=why, now=now)


def _audit(
    session: Session,
    what: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    who: str,
    why: str,
    now: datetime,
) -> None:
    session.add(
        AuditRow(
            at=now,
            who=who,
            what=what,
            before=None if before is None else dict(before),
            after=None if after is None else dict(after),
            why=why,
        )
    )


def departments_of(standing: Iterable[Standing]) -> frozenset[str]:
    """Those that still have to answer."""
    return frozenset(each.department for each in standing if not each.answered)
