"""What a department can join: everything inside one agreement, and nothing across agreements."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from govbus import topics
from govbus.codec import decode_body, parse_schema, unframe
from govbus.errors import BusError
from govbus.event import RecordAddress
from govbus.grant import grant_to_record
from govbus.transform import parse_transform
from govbus_processors.directory import Directory, NoHashError
from support.intake_bench import IntakeBench
from support.policies import KEY, VALUE, Published, a_grant, a_policy, firm, published, rules

CODES = st.lists(st.text("0123456789", min_size=18, max_size=18), min_size=1, max_size=12, unique=True)


class Known:
    """A registry that knows the schemas of some grants."""

    def __init__(self, *grants: Published) -> None:
        self.schemas = {VALUE.id: VALUE, KEY.id: KEY}
        for one in grants:
            self.schemas |= {number: parse_schema(number, raw) for number, raw in one.schemas.items()}

    def schema(self, schema_id: int) -> Any:
        return self.schemas[schema_id]


def copies(codes: list[str], *agreements: dict[str, Any]) -> list[tuple[set[str], set[str]]]:
    """Exchange firms for several grants; what each subscriber holds, in its keys and in its rows."""
    grants = [
        published(
            a_grant(
                id=f"grant-{number}",
                subscriber=agreement.get("subscriber", "tax"),
                purpose=agreement.get("purpose", "assessment"),
                fields=rules(
                    ("code", agreement.get("spec", "pseudonym")), ("name", agreement.get("spec", "pseudonym"))
                ),
            ),
            value_schema_id=200 + 10 * number,
        )
        for number, agreement in enumerate(agreements)
    ]
    bench = IntakeBench(a_policy(*grants), Known(*grants))
    bench.live([firm(offset, code, name=code) for offset, code in enumerate(codes)])
    held = []
    for one in grants:
        given = one.grant
        value = parse_schema(given.value_schema_id, one.schemas[given.value_schema_id])
        key = parse_schema(given.key_schema_id, one.schemas[given.key_schema_id])
        outputs = bench.sent(topics.delivered(given.grant.subscriber, given.grant.id))
        assert len(outputs) == len(codes)
        keys = {decode_body(key, unframe(output.key)[1])["code"] for output in outputs}
        names = {decode_body(value, unframe(output.value)[1])["name"] for output in outputs}
        held.append((keys, names))
    return held


@settings(deadline=None, max_examples=30)
@given(codes=CODES)
def test_inside_an_agreement_everything_joins(codes: list[str]) -> None:
    """Two grants of one department for one purpose; and a key joins with the same value in a field."""
    (one_keys, one_names), (other_keys, other_names) = copies(codes, {}, {})

    assert one_keys == one_names == other_keys == other_names
    assert len(one_keys) == len(codes)


@pytest.mark.parametrize(
    "other",
    [
        {"subscriber": "health"},
        {"purpose": "research"},
        {"spec": {"pseudonym": {"epoch": 2}}},
        {"spec": {"pseudonym": {"hash": "sm3"}}},
    ],
    ids=["two subscribers", "two purposes", "two epochs", "two hashes"],
)
@settings(deadline=None, max_examples=30)
@given(codes=CODES)
def test_across_agreements_nothing_joins(other: dict[str, Any], codes: list[str]) -> None:
    """Both hold the same people, and not one value in common; nor the value itself."""
    (one_keys, one_names), (other_keys, other_names) = copies(codes, {}, other)

    assert not (one_keys | one_names) & (other_keys | other_names)
    assert not (one_keys | one_names | other_keys | other_names) & set(codes)


def test_a_worker_without_sm3_makes_no_route_of_a_grant_that_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is held as unusable, with a code, and gets nothing."""
    from govbus_processors import directory as module

    made = published(a_grant(fields=rules("code", ("name", {"pseudonym": {"hash": "sm3"}}))))
    record = grant_to_record(made.grant)

    class Decoding(Known):
        def decode(self, _value: bytes, *, at: RecordAddress) -> dict[str, Any]:
            return record

    known: Any = Decoding(made)
    able = Directory(None, known, lease_seconds=5.0, pseudonyms=True)  # type: ignore[arg-type]
    able._apply(b"grant/tax-firms", b"", 7)
    assert able._routing.grant("tax-firms") is not None

    monkeypatch.setattr(module, "has_hash", lambda name: name != "sm3")
    unable = Directory(None, known, lease_seconds=5.0, pseudonyms=True)  # type: ignore[arg-type]
    unable._apply(b"grant/tax-firms", b"", 7)

    assert unable._routing.grant("tax-firms") is None
    assert unable._routing.policy(7).unusable == {"tax-firms": NoHashError.code}
    assert issubclass(NoHashError, BusError)


def test_the_grant_of_another_hash_is_read_back_as_it_was_written() -> None:
    for spec in ("pseudonym", {"pseudonym": {"epoch": 3}}, {"pseudonym": {"epoch": 3, "hash": "sm3"}}):
        assert parse_transform(spec).spec() == spec
