"""What a publisher lets through, and what it says of the rest."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaError

from govbus.codec import Registry, Schema, decode_body, parse_schema, unframe
from govbus.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    ContractViolationError,
    OversizedRecordError,
    UnknownContractError,
    UnknownSchemaError,
)
from govbus.event import Change
from govbus.settings import BrokerSettings
from govbus_producers.publish import ChangeEncoder, Publisher, _stamp, registered_contract
from support.capturing import DIVISIONS, a_contract, published_contract

ZHEJIANG = {"code": "33", "name": "浙江省", "level": 1, "parent": None}
KEY = {"code": "33"}


class RegistryWith(Registry):
    """Answers with the schemas it was given, by subject."""

    def __init__(self, **subjects: dict[str, Any]) -> None:
        self._by_subject = {
            f"govbus.captured.stats.divisions-{part}": parse_schema(number, schema)
            for number, (part, schema) in enumerate(subjects.items(), 1)
        }

    def latest(self, subject: str) -> Schema:
        if subject not in self._by_subject:
            raise UnknownSchemaError("none")
        return self._by_subject[subject]


def test_a_change_travels_framed_under_the_registered_schemas() -> None:
    known = published_contract()

    key, value = ChangeEncoder(known).encode(Change(key=KEY, row=ZHEJIANG))

    assert value is not None
    key_id, key_body = unframe(key)
    value_id, value_body = unframe(value)
    assert (key_id, decode_body(known.key, key_body)) == (1, KEY)
    assert (value_id, decode_body(known.value, value_body)) == (2, ZHEJIANG)


def test_a_delete_is_a_tombstone_under_the_same_key() -> None:
    encoder = ChangeEncoder(published_contract())

    gone = encoder.encode(Change(key=KEY, row=None))

    assert gone == (encoder.encode(Change(key=KEY, row=ZHEJIANG))[0], None)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"name": None}, "field 'name': the contract has string, not this null"),
        ({"name": 7}, "field 'name': the contract has string, not this int"),
        ({"name": "\ud800"}, "field 'name': the contract has string"),
        ({"level": True}, "field 'level': the contract has int, not this bool"),
        ({"level": 2**31}, "field 'level': the contract has int"),
        ({"level": 1.0}, "field 'level'"),
        ({"parent": b"33"}, "field 'parent': the contract has string or null, not this bytes"),
        ({"code": "34"}, "field 'code' differs between key and row"),
        ({"extra": 1}, "has a field that the contract of stats.divisions has not"),
    ],
)
def test_a_change_that_breaks_the_contract_is_refused_by_field(wrong: dict[str, Any], complaint: str) -> None:
    encoder = ChangeEncoder(published_contract())

    with pytest.raises(ContractViolationError) as raised:
        encoder.encode(Change(key=KEY, row={**ZHEJIANG, **wrong}))

    assert complaint in str(raised.value)


def test_a_missing_field_and_a_key_of_another_resource_are_refused() -> None:
    encoder = ChangeEncoder(published_contract())

    with pytest.raises(ContractViolationError, match="field 'name' is missing"):
        encoder.encode(Change(key=KEY, row={"code": "33", "level": 1, "parent": None}))
    with pytest.raises(ContractViolationError, match="the key of stats.divisions is code"):
        encoder.encode(Change(key={"id": "33"}, row=ZHEJIANG))
    with pytest.raises(ContractViolationError, match="field 'code'"):
        encoder.encode(Change(key={"code": None}, row=None))


def test_no_complaint_quotes_what_the_row_holds() -> None:
    encoder = ChangeEncoder(published_contract())

    for name in ZHEJIANG:
        with pytest.raises(ContractViolationError) as raised:
            encoder.encode(Change(key=KEY, row={**ZHEJIANG, name: ["330102199001011234"]}))
        assert "330102199001011234" not in str(raised.value)


def test_the_contract_is_what_the_registry_has() -> None:
    registry = RegistryWith(key=a_contract().key_schema, value=DIVISIONS)

    known = registered_contract(registry, "stats", "divisions")

    assert known.contract == a_contract()
    assert (known.key.id, known.value.id) == (1, 2)


def test_a_contract_that_is_not_registered_or_does_not_fit_its_key_is_unknown() -> None:
    other_key = {"type": "record", "name": "K", "fields": [{"name": "code", "type": "int"}]}
    no_contract = json.loads(json.dumps(DIVISIONS))
    del no_contract["govbus"]

    with pytest.raises(UnknownContractError, match=r"no contract of stats\.divisions is registered"):
        registered_contract(RegistryWith(), "stats", "divisions")
    with pytest.raises(UnknownContractError, match="is not the key of its contract"):
        registered_contract(RegistryWith(key=other_key, value=DIVISIONS), "stats", "divisions")
    with pytest.raises(UnknownContractError, match="is no contract"):
        registered_contract(
            RegistryWith(key=a_contract().key_schema, value=no_contract), "stats", "divisions"
        )


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(timedelta(hours=-1), -3_600_000), (timedelta(0), 0), (timedelta(days=400), 0), (None, 0)],
)
def test_a_time_of_change_in_the_future_gives_way_to_now(ahead: timedelta | None, expected: int) -> None:
    """The broker refuses records from far ahead; a wrong clock must not stop a department's data."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    now_ms = int(now.timestamp() * 1_000)

    stamp = _stamp(None if ahead is None else now + ahead, now_ms)

    assert stamp - now_ms == expected


def test_a_time_of_change_before_1970_gives_way_to_now() -> None:
    assert _stamp(datetime(1949, 10, 1, tzinfo=UTC), 5) == 5


@pytest.fixture
def nowhere() -> Publisher:
    return Publisher(
        "stats",
        broker=BrokerSettings(bootstrap="127.0.0.1:1", security_protocol="PLAINTEXT"),
        registry=RegistryWith(key=a_contract().key_schema, value=DIVISIONS),
        delivery_seconds=1.0,
    )


def test_without_a_broker_publishing_ends_with_an_error_that_asks_to_try_again(nowhere: Publisher) -> None:
    with nowhere, pytest.raises(BrokerUnavailableError):
        nowhere.publish("divisions", [Change(key=KEY, row=ZHEJIANG)])


def test_what_breaks_the_contract_needs_no_broker_to_be_refused(nowhere: Publisher) -> None:
    large = {**ZHEJIANG, "name": "x" * 1_000_000}

    with nowhere:
        published = nowhere.publish(
            "divisions", [Change(key=KEY, row={**ZHEJIANG, "level": "1"}), Change(key=KEY, row=large)]
        )

    assert published.acknowledged == 0
    assert {position: type(error) for position, error in published.rejected.items()} == {
        0: ContractViolationError,
        1: OversizedRecordError,
    }


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, AccessDeniedError),
        (KafkaError._AUTHENTICATION, AccessDeniedError),
        (KafkaError._UNKNOWN_TOPIC, UnknownContractError),
        (KafkaError._MSG_TIMED_OUT, BrokerUnavailableError),
        (KafkaError.NOT_ENOUGH_REPLICAS, BrokerUnavailableError),
    ],
)
def test_a_failed_delivery_says_what_to_do_next(
    nowhere: Publisher, code: int, error: type[Exception]
) -> None:
    with nowhere, pytest.raises(error):
        nowhere._rejection(KafkaError(code), "govbus.captured.stats.divisions")


def test_a_record_that_the_broker_finds_too_large_is_only_that_record_s_fault(nowhere: Publisher) -> None:
    with nowhere:
        error = nowhere._rejection(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), "t")

    assert isinstance(error, OversizedRecordError)
