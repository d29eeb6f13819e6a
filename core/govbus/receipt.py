"""What a department answers when a grant has ended: a receipt, signed with the department's own key.

A receipt says what landing has done about the rows of one grant version: how many
there were before and after, and a digest of them before and after. What can be
concluded from one:

1. It is the department's: it stands on a topic that only the department may
   write, and its Ed25519 signature (RFC 8032) was made with the department's key.
2. It has not been changed since, by nobody: every fact is signed.
3. It answers one grant version. The same facts give the same signature, so a
   receipt that is sent again is the same receipt.

What cannot be concluded: that no copy of the rows exists elsewhere. A receipt is a
statement that can be held against whoever signed it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from govbus.grant import DataDuty, GrantState

SEED_BYTES = 32
"""Of a private key, which for Ed25519 is any 32 random bytes."""

EMPTY_DIGEST = "0" * 64
"""The digest of no rows."""

_DOMAIN = b"govbus receipt 1\n"
"""Stands before what is signed, so that no signature made for something else passes for a receipt's."""

_LONGEST_TEXTS = {
    "grant": 80,
    "department": 80,
    "table": 200,
    "process": 500,
    "digest_before": 64,
    "digest_after": 64,
}
_FIRST_PRINTED = 32
_NUMBERS = {"version": 31, "rows_before": 63, "rows_after": 63, "rows_blanked": 63}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was done about the landed rows of one ended grant version."""

    grant: str
    version: int
    department: str
    state: GrantState
    duty: DataDuty
    table: str
    """Landing table; empty when nothing was ever landed."""

    rows_before: int
    rows_after: int
    rows_blanked: int
    digest_before: str
    digest_after: str
    carried_out_at: datetime
    """With time zone; what is finer than a millisecond is not part of a receipt."""

    process: str
    """The landing process that did it, as its department calls it."""

    def __post_init__(self) -> None:
        if self.carried_out_at.tzinfo is None:
            raise ValueError("Receipt.carried_out_at needs a time zone")
        if self.state not in (GrantState.REVOKED, GrantState.EXPIRED):
            raise ValueError("a receipt answers a grant that has ended")
        if min(self.rows_before, self.rows_after, self.rows_blanked) < 0:
            raise ValueError("rows are counted from 0")

    @property
    def duty_done(self) -> bool:
        """Whether what was done is what the duty asks for, by the receipt's own facts."""
        if self.duty is DataDuty.DELETE:
            return self.rows_after == 0 and self.digest_after == EMPTY_DIGEST
        if self.duty is DataDuty.BLANK:
            return self.rows_after == self.rows_before
        return (self.rows_after, self.digest_after) == (self.rows_before, self.digest_before)

    def signed_bytes(self) -> bytes:
        """What the signature is made over: every fact, in one form only."""
        facts = _facts(self) | {"carried_out_at": (self.carried_out_at - _EPOCH) // _MILLISECOND}
        return _DOMAIN + json.dumps(facts, sort_keys=True, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReceipt:
    """A receipt with the signature under it."""

    receipt: Receipt
    public_key: bytes
    """Of the department, as it says; whether it is the department's is for the reader to know."""

    signature: bytes

    def signed_by(self, public_key: bytes) -> bool:
        """Whether the holder of this key has signed exactly these facts."""
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signature, self.receipt.signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


class ReceiptKey:
    """A department's private key: it signs receipts, and keys the digests in them."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a receipt key has {SEED_BYTES} bytes")
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public(self) -> bytes:
        """What control needs to check signatures; no secret."""
        return self._private.public_key().public_bytes_raw()

    def sign(self, receipt: Receipt) -> SignedReceipt:
        """Sign a receipt; the same facts give the same signature."""
        return SignedReceipt(
            receipt=receipt, public_key=self.public, signature=self._private.sign(receipt.signed_bytes())
        )

    def digest_key(self, grant: str, version: int) -> bytes:
        """Derive the key of the row digests of one receipt (HKDF-SHA-256, RFC 5869).

        Not part of the receipt: whoever knew it could guess a row and see in the digest whether the
        guess is right. The department can derive it again and show that a digest is that of given rows.
        """
        info = b"govbus receipt digest 1\n" + json.dumps([grant, version]).encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._seed)


def fingerprint(public_key: bytes) -> str:
    """A public key, short enough to be read aloud: 16 digits of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def receipt_key(grant: str, version: int) -> bytes:
    """Key of a receipt on its topic."""
    return f"{grant}/{version}".encode()


def receipt_to_record(signed: SignedReceipt) -> dict[str, Any]:
    """Write what avro_schemas/bus/receipt.avsc describes."""
    facts = _facts(signed.receipt) | {"carried_out_at": signed.receipt.carried_out_at}
    return facts | {"public_key": signed.public_key, "signature": signed.signature}


def receipt_from_record(record: Mapping[str, Any]) -> SignedReceipt:
    """Read it back; KeyError, TypeError or ValueError when it cannot be one.

    A department may write anything, under a schema of its own; what gets through can be stored and shown.
    """
    for name, most in _LONGEST_TEXTS.items():
        if len(record[name]) > most or any(ord(character) < _FIRST_PRINTED for character in record[name]):
            raise ValueError(f"{name} is not a plain text")
    for name, bits in _NUMBERS.items():
        if not isinstance(record[name], int) or not 0 <= record[name] < 1 << bits:
            raise ValueError(f"{name} is out of range")
    if not isinstance(record["carried_out_at"], datetime):
        raise TypeError("carried_out_at is not a moment")
    return SignedReceipt(
        receipt=Receipt(
            grant=str(record["grant"]),
            version=record["version"],
            department=str(record["department"]),
            state=GrantState(record["state"]),
            duty=DataDuty(record["duty"]),
            table=str(record["table"]),
            rows_before=record["rows_before"],
            rows_after=record["rows_after"],
            rows_blanked=record["rows_blanked"],
            digest_before=str(record["digest_before"]),
            digest_after=str(record["digest_after"]),
            carried_out_at=record["carried_out_at"],
            process=str(record["process"]),
        ),
        public_key=bytes(record["public_key"]),
        signature=bytes(record["signature"]),
    )


def _facts(receipt: Receipt) -> dict[str, Any]:
    """Every fact but the time, which has one form for signing and another for Avro."""
    return {
        "grant": receipt.grant,
        "version": receipt.version,
        "department": receipt.department,
        "state": receipt.state.value,
        "duty": receipt.duty.value,
        "table": receipt.table,
        "rows_before": receipt.rows_before,
        "rows_after": receipt.rows_after,
        "rows_blanked": receipt.rows_blanked,
        "digest_before": receipt.digest_before,
        "digest_after": receipt.digest_after,
        "process": receipt.process,
    }
