"""A digest of the rows of a landing table, whatever order the store gives them in.

Each row becomes bytes (every value with its type and length, so that no two rows
become the same bytes), the bytes a keyed BLAKE2b (RFC 7693) of 256 bits, and the
digest is the sum of these modulo 2^256: adding is commutative, and a row that is
there twice counts twice. No rows give 0.

Why a sum and not a hash of the rows in order: the order of a text column is not the
same in every store, and rows are read once, a few thousand at a time, without
sorting them. Why keyed: a plain hash of a row of personal values is found by trying
all people, and the sum over a table of one row is that hash. Why not secure against
the department itself: it has the key, and with it could look for other rows of the
same sum; it signs the digest, and could as well sign a wrong one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnClause, Connection, column, select, table
from sqlalchemy.sql import quoted_name

_AT_ONCE = 5_000
_BYTES = 32
_MODULUS = 1 << (8 * _BYTES)

_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _value: b"n",
    bool: lambda value: b"o1" if value else b"o0",
    int: lambda value: b"i%d" % value,
    float: lambda value: b"f" + repr(value).encode(),
    str: lambda value: b"s" + value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: b"b" + value,
    bytearray: lambda value: b"b" + value,
    memoryview: lambda value: b"b" + value.tobytes(),
    Decimal: lambda value: b"d" + str(value).encode(),
    datetime: lambda value: b"t" + value.isoformat().encode(),
    date: lambda value: b"y" + value.isoformat().encode(),
    time: lambda value: b"h" + value.isoformat().encode(),
    UUID: lambda value: b"u" + value.bytes,
}


class RowsDigest:
    """Sums rows up."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sum = 0
        self.rows = 0

    def add(self, row: Sequence[Any]) -> None:
        """Take a row in; its values as the store's driver gives them."""
        parts = []
        for value in row:
            part = _ENCODERS[type(value)](value)
            parts.append(b"%d:" % len(part))
            parts.append(part)
        hashed = hashlib.blake2b(b"".join(parts), digest_size=_BYTES, key=self._key).digest()
        self._sum = (self._sum + int.from_bytes(hashed, "big")) % _MODULUS
        self.rows += 1

    def hexdigest(self) -> str:
        """Return 64 digits."""
        return f"{self._sum:0{2 * _BYTES}x}"


def digest_table(
    connection: Connection, name: str, columns: Sequence[str], key: bytes, *, beat: Callable[[], None]
) -> RowsDigest:
    """Digest a whole table inside the caller's transaction, in bounded memory.

    Args:
        connection: in the transaction whose view of the table is meant.
        name: of the table.
        columns: all of them; they are taken in the order of their names.
        key: of the digest, 32 bytes.
        beat: called every few thousand rows, for a large table takes a while.
    """
    wanted: list[ColumnClause[Any]] = [column(quoted_name(each, quote=True)) for each in sorted(columns)]
    rows = select(*wanted).select_from(table(quoted_name(name, quote=True)))
    digest = RowsDigest(key)
    # A server-side cursor where the store has them: the client must not hold the whole answer.
    streamed = rows.execution_options(stream_results=True, max_row_buffer=_AT_ONCE)
    with connection.execute(streamed) as found:
        for some in found.partitions(_AT_ONCE):
            for row in some:
                digest.add(row)
            beat()
    return digest
