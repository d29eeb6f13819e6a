# mypy: disable-error-code="untyped-decorator"
# (Cython's decorators have no types; what they decorate has.)
"""The keys that are in one view, sixteen bytes each, with the last batch's changes undoable.

A key set answers one question, "does the subscriber hold this row?", for every
record of a filtered view, so it is compiled (hatch_build.py) and keeps digests
in a flat table instead of Python objects: 21 to 43 bytes a key, 537 MB for 24
million. The table doubles when it is three quarters full, and then old and new
are there at once: 64 bytes a key at that moment, 805 MB on the way to 24 million.
Loading a checkpoint takes most, 94 bytes a key.

A digest is SipHash-2-4 with 128 bits, under a key that is drawn at random for
each set, so nobody who chooses keys can make two of them collide.

Changes take effect at once and are written to an undo log until
:meth:`KeySet.commit`; :meth:`KeySet.rollback` takes them back in reverse.

Interpreted, the same class keeps the digests (BLAKE2b, 128 bits) in a Python
set: larger and slower, with the same answers.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Any

import cython

if cython.compiled:
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
    from cython.cimports.libc.stdlib import calloc, free
    from cython.cimports.libc.string import memcpy

COMPILED: bool = bool(cython.compiled)
DIGEST_BYTES = 16
_SEED_BYTES = 16
_FIRST_SLOTS = 64

ALGORITHM: str = "siphash-2-4-128" if COMPILED else "blake2b-128"
"""What a stored key set was made with; one made with another cannot be loaded."""


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _sip_rounds(v: cython.p_ulonglong, count: cython.int) -> cython.void:
    """SipRound on the four words of a state; inlined, so that they stay in registers."""
    v0: cython.ulonglong = v[0]
    v1: cython.ulonglong = v[1]
    v2: cython.ulonglong = v[2]
    v3: cython.ulonglong = v[3]
    _round: cython.int
    for _round in range(count):
        v0 += v1
        v1 = (v1 << 13) | (v1 >> 51)
        v1 ^= v0
        v0 = (v0 << 32) | (v0 >> 32)
        v2 += v3
        v3 = (v3 << 16) | (v3 >> 48)
        v3 ^= v2
        v0 += v3
        v3 = (v3 << 21) | (v3 >> 43)
        v3 ^= v0
        v2 += v1
        v1 = (v1 << 17) | (v1 >> 47)
        v1 ^= v2
        v2 = (v2 << 32) | (v2 >> 32)
    v[0] = v0
    v[1] = v1
    v[2] = v2
    v[3] = v3


@cython.cclass
class KeySet:
    """A set of keys. Not for two threads at once."""

    position = cython.declare(cython.longlong, visibility="public")
    """Everything in the delivery topic before this offset is taken into account."""

    changes = cython.declare(cython.longlong, visibility="public")
    """How often keys entered or left since this was last set to 0: what a new checkpoint would gain."""

    seed = cython.declare(bytes, visibility="readonly")
    _plain: set[bytes]
    _undo: list[tuple[Any, ...]]
    _count: cython.Py_ssize_t
    _slots: cython.Py_ssize_t
    _k0: cython.ulonglong
    _k1: cython.ulonglong
    _h0: cython.ulonglong
    _h1: cython.ulonglong
    _table: cython.p_ulonglong

    def __init__(self, seed: bytes | None = None) -> None:
        self.position = 0
        self.changes = 0
        self.seed = secrets.token_bytes(_SEED_BYTES) if seed is None else seed
        if len(self.seed) != _SEED_BYTES:
            raise ValueError("the seed of a key set has 16 bytes")
        self._k0 = int.from_bytes(self.seed[:8], "little")
        self._k1 = int.from_bytes(self.seed[8:], "little")
        self._plain = set()
        self._undo = []
        self._count = 0
        self._slots = 0
        if cython.compiled:
            self._resize(_FIRST_SLOTS)

    def __dealloc__(self) -> None:
        if cython.compiled:
            free(self._table)

    def __len__(self) -> int:
        return int(self._count) if cython.compiled else len(self._plain)

    @property
    def bytes_used(self) -> int:
        """Memory of the table; 0 where it is not known."""
        return int(self._slots) * DIGEST_BYTES

    def enter(self, key: bytes) -> None:
        """The subscriber holds this row from now on."""
        if cython.compiled:
            self._hash(key)
            if self._add(self._h0, self._h1):
                self._undo.append((True, self._h0, self._h1))
        else:
            mark = self._mark(key)
            if mark not in self._plain:
                self._plain.add(mark)
                self._undo.append((True, mark))

    def leave(self, key: bytes) -> bool:
        """The row is gone; says whether the subscriber held it."""
        if cython.compiled:
            self._hash(key)
            if self._remove(self._h0, self._h1):
                self._undo.append((False, self._h0, self._h1))
                return True
            return False
        mark = self._mark(key)
        if mark not in self._plain:
            return False
        self._plain.remove(mark)
        self._undo.append((False, mark))
        return True

    def digest(self, key: bytes) -> bytes:
        """The sixteen bytes that stand for a key."""
        if not cython.compiled:
            return self._mark(key)
        self._hash(key)
        return int(self._h0).to_bytes(8, "little") + int(self._h1).to_bytes(8, "little")

    def load(self, key: bytes, *, present: bool) -> None:
        """Take over one record of the delivery topic, outside any batch."""
        if present:
            self.enter(key)
        else:
            self.leave(key)
        self._undo.clear()

    def commit(self) -> None:
        """Let the changes since the last commit stand."""
        self.settle(self.seal())

    def rollback(self) -> None:
        """Take the changes since the last commit back."""
        self.undo(self.seal())

    def seal(self) -> list[tuple[Any, ...]]:
        """End one batch and return its changes, for :meth:`settle` or :meth:`undo`; the next one begins."""
        sealed, self._undo = self._undo, []
        return sealed

    def settle(self, sealed: list[tuple[Any, ...]]) -> None:
        """Let a batch's changes stand."""
        self.changes += len(sealed)

    def undo(self, sealed: list[tuple[Any, ...]]) -> None:
        """Take a batch's changes back; those of a later batch must have been taken back before."""
        while sealed:
            change = sealed.pop()
            if cython.compiled:
                if change[0]:
                    self._remove(change[1], change[2])
                else:
                    self._add(change[1], change[2])
            elif change[0]:
                self._plain.discard(change[1])
            else:
                self._plain.add(change[1])

    def dump(self) -> bytes:
        """All digests, one after another, in no particular order."""
        if not cython.compiled:
            return b"".join(self._plain)
        out: bytes = PyBytes_FromStringAndSize(cython.NULL, self._count * 16)
        target: cython.p_char = PyBytes_AS_STRING(out)
        slot: cython.Py_ssize_t
        for slot in range(self._slots):
            if self._table[2 * slot] or self._table[2 * slot + 1]:
                memcpy(target, self._table + 2 * slot, 16)
                target += 16
        return out

    def restore(self, digests: bytes) -> None:
        """Put back what :meth:`dump` gave, under the same seed; ValueError when it cannot be that."""
        if len(digests) % DIGEST_BYTES:
            raise ValueError("not a whole number of digests")
        if not cython.compiled:
            self._plain |= {digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)}
            return
        source: cython.p_char = PyBytes_AS_STRING(digests)
        at: cython.Py_ssize_t
        h0: cython.ulonglong = 0
        h1: cython.ulonglong = 0
        for at in range(0, len(digests), 16):
            memcpy(cython.address(h0), source + at, 8)
            memcpy(cython.address(h1), source + at + 8, 8)
            self._add(h0, h1)

    def _mark(self, key: bytes) -> bytes:
        return blake2b(key, digest_size=DIGEST_BYTES, key=self.seed).digest()

    # ---- the table: linear probing, and removal by moving back what follows ----

    @cython.cfunc
    def _resize(self, slots: cython.Py_ssize_t) -> object:
        old = self._table
        old_slots: cython.Py_ssize_t = self._slots
        slot: cython.Py_ssize_t
        self._table = cython.cast(cython.pointer(cython.ulonglong), calloc(slots * 2, 8))
        if self._table == cython.NULL:
            self._table = old
            raise MemoryError("no memory for a larger key set")
        self._slots = slots
        self._count = 0
        for slot in range(old_slots):
            if old[2 * slot] or old[2 * slot + 1]:
                self._place(old[2 * slot], old[2 * slot + 1])
        free(old)
        return None

    @cython.cfunc
    @cython.exceptval(check=False)
    def _find(self, h0: cython.ulonglong, h1: cython.ulonglong) -> cython.Py_ssize_t:
        """The slot of a digest, or of the free slot where it would be."""
        mask: cython.ulonglong = self._slots - 1
        slot: cython.ulonglong = h0 & mask
        table = self._table
        while (table[2 * slot] or table[2 * slot + 1]) and not (
            table[2 * slot] == h0 and table[2 * slot + 1] == h1
        ):
            slot = (slot + 1) & mask
        return slot

    @cython.cfunc
    @cython.exceptval(check=False)
    def _place(self, h0: cython.ulonglong, h1: cython.ulonglong) -> cython.bint:
        slot: cython.Py_ssize_t = self._find(h0, h1)
        if self._table[2 * slot] or self._table[2 * slot + 1]:
            return False
        self._table[2 * slot] = h0
        self._table[2 * slot + 1] = h1
        self._count += 1
        return True

    @cython.cfunc
    def _add(self, h0: cython.ulonglong, h1: cython.ulonglong) -> object:
        if self._count * 4 >= self._slots * 3:
            self._resize(self._slots * 2)
        return self._place(h0, h1)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _remove(self, h0: cython.ulonglong, h1: cython.ulonglong) -> cython.bint:
        table = self._table
        mask: cython.ulonglong = self._slots - 1
        hole: cython.ulonglong = self._find(h0, h1)
        slot: cython.ulonglong
        home: cython.ulonglong
        if not (table[2 * hole] or table[2 * hole + 1]):
            return False
        slot = hole
        while True:
            slot = (slot + 1) & mask
            if not (table[2 * slot] or table[2 * slot + 1]):
                break
            home = table[2 * slot] & mask
            # It may move back only if its home is not between the hole and where it stands.
            if ((slot - home) & mask) >= ((slot - hole) & mask):
                table[2 * hole] = table[2 * slot]
                table[2 * hole + 1] = table[2 * slot + 1]
                hole = slot
        table[2 * hole] = 0
        table[2 * hole + 1] = 0
        self._count -= 1
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def _hash(self, key: bytes) -> cython.void:
        """SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, and the authors' reference code)."""
        data: cython.p_char = PyBytes_AS_STRING(key)
        size: cython.Py_ssize_t = len(key)
        at: cython.Py_ssize_t = 0
        word: cython.ulonglong = 0
        v = cython.declare(cython.ulonglong[4])
        v[0] = self._k0 ^ 0x736F6D6570736575
        v[1] = self._k1 ^ 0x646F72616E646F6D ^ 0xEE
        v[2] = self._k0 ^ 0x6C7967656E657261
        v[3] = self._k1 ^ 0x7465646279746573
        while at <= size:
            word = 0
            if size - at >= 8:
                memcpy(cython.address(word), data + at, 8)
            else:
                memcpy(cython.address(word), data + at, size - at)
                word |= cython.cast(cython.ulonglong, size & 0xFF) << 56
            at += 8
            v[3] ^= word
            _sip_rounds(v, 2)
            v[0] ^= word
        v[2] ^= 0xEE
        _sip_rounds(v, 4)
        self._h0 = v[0] ^ v[1] ^ v[2] ^ v[3]
        v[1] ^= 0xDD
        _sip_rounds(v, 4)
        self._h1 = v[0] ^ v[1] ^ v[2] ^ v[3]
        if self._h0 == 0 and self._h1 == 0:
            self._h1 = 1  # all zeros marks a free slot
