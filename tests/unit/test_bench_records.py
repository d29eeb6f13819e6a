"""The input of the benchmarks, and what must come out of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from bench.records import (
    CITY,
    PROJECTED,
    Coder,
    Digest,
    Expected,
    contract_schema,
    key_schema,
    mask,
    projected_schema,
    rows,
)
from govbus.contract import parse_contract

COUNT = 2_000


def test_the_input_is_the_same_every_time_and_follows_its_contract() -> None:
    coder = Coder(contract_schema())

    once, again = list(rows(COUNT)), list(rows(COUNT))

    assert once == again
    assert [coder.decode(coder.encode(row)) for row in once] == once


def test_a_record_has_thirteen_fields_and_about_120_bytes_with_half_of_them_in_one_city() -> None:
    coder = Coder(contract_schema())

    made = list(rows(COUNT))

    sizes = [len(coder.encode(row)) + 5 for row in made]
    assert {len(row) for row in made} == {13}
    assert 110 < sum(sizes) / COUNT < 130
    assert 0.45 < sum(row["city"] == CITY for row in made) / COUNT < 0.55
    assert all(any(ord(c) > 0x4E00 for c in row["address"]) for row in made)


def test_the_key_and_the_first_output_are_what_the_contract_derives() -> None:
    contract = parse_contract(json.dumps(contract_schema()), owner="bench", resource="residents")

    assert key_schema() == contract.key_schema
    assert tuple(f["name"] for f in projected_schema()["fields"]) == PROJECTED


def test_a_mask_shows_the_first_character_only() -> None:
    assert [mask("王欣"), mask("王欣然"), mask("")] == ["王*", "王**", ""]


def test_what_must_come_out_is_every_row_masked_and_half_of_them_whole() -> None:
    expected, coder = Expected(), Coder(key_schema())
    for row in rows(COUNT):
        expected.add(coder.encode({"id_number": row["id_number"]}), row)

    assert expected.projected.count == expected.through.count == COUNT
    assert expected.full.count == sum(row["city"] == CITY for row in rows(COUNT))
    assert expected.projected.total not in (0, expected.through.total)


def test_a_digest_does_not_depend_on_the_order() -> None:
    records = [(b"a", ["1", datetime(2024, 5, 1, tzinfo=UTC)]), (b"b", [None, 2.5])]

    assert _digest(records) == _digest(reversed(records))


def test_a_digest_notices_a_missing_a_repeated_and_an_altered_record() -> None:
    whole = _digest([(b"a", [1]), (b"b", [2])])

    assert _digest([(b"a", [1])]) != whole
    assert _digest([(b"a", [1]), (b"b", [2]), (b"b", [2])]) != whole
    assert _digest([(b"a", [1]), (b"b", [3])]) != whole
    assert _digest([(b"a", [1]), (b"c", [2])]) != whole
    assert _digest([(b"a", [2]), (b"b", [1])]) != whole


def test_bytes_after_a_record_are_not_overlooked() -> None:
    coder = Coder(key_schema())
    body = coder.encode({"id_number": "1"})

    with pytest.raises(ValueError, match="bytes after the end"):
        coder.decode(body + b"\0")


def _digest(records: Iterable[tuple[bytes, list[Any]]]) -> Digest:
    digest = Digest()
    for key, values in records:
        digest.add(key, values)
    return digest
