"""The publisher on a real broker: what arrives, where, and what is refused."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from govbus.codec import Registry
from govbus.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    ContractViolationError,
    OversizedRecordError,
    RegistryUnavailableError,
    UnknownContractError,
)
from govbus.event import Change
from govbus_producers.publish import Publisher
from support.broker import RunningBus, unique_name
from support.capturing import DIVISIONS
from support.published import ResourceFactory, published_resources, register_contract

MAY = datetime(2024, 5, 1, 8, 30, tzinfo=UTC)


@pytest.fixture
def a_resource(bus: RunningBus) -> Iterator[ResourceFactory]:
    with published_resources(bus) as make:
        yield make


def change(code: str, name: str | None = "浙江省", *, at: datetime | None = None) -> Change:
    row = {"code": code, "name": name, "level": 1, "parent": None}
    return Change(key={"code": code}, row=row, changed_at=at)


def delete(code: str) -> Change:
    return Change(key={"code": code}, row=None)


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key (org.apache.kafka.common.utils.Utils.murmur2), written anew."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if len(data) % 4:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def test_changes_arrive_in_order_with_key_value_and_time(a_resource: ResourceFactory) -> None:
    resource = a_resource()
    before = time.time() * 1_000

    with resource.publisher() as publisher:
        published = publisher.publish(
            "divisions", [change("33", "A", at=MAY), change("33", "B"), delete("33"), change("34", "C")]
        )

    records = resource.records()
    assert published.acknowledged == 4
    assert [(record.key["code"], record.value and record.value["name"]) for record in records] == [
        ("33", "A"),
        ("33", "B"),
        ("33", None),
        ("34", "C"),
    ]
    assert records[0].timestamp_ms == MAY.timestamp() * 1_000
    assert before - 1 <= records[1].timestamp_ms <= time.time() * 1_000


def test_a_key_lives_in_the_partition_that_any_kafka_client_computes(a_resource: ResourceFactory) -> None:
    resource = a_resource(partitions=5)

    with resource.publisher() as publisher:
        publisher.publish("divisions", [change(str(code)) for code in range(100)])

    records = resource.records()
    assert len({record.partition for record in records}) == 5
    assert all(record.partition == murmur2(record.key_bytes) % 5 for record in records)


def test_a_bad_change_is_left_out_and_the_others_arrive(a_resource: ResourceFactory) -> None:
    """One breaks the contract, one is larger than this topic takes: that is for the broker to say."""
    resource = a_resource(max_message_bytes="2000")
    random_text = os.urandom(4_000).hex()  # or compression would make it fit

    with resource.publisher() as publisher:
        published = publisher.publish("divisions", [change("33"), change("34", None)])
        too_large = publisher.publish("divisions", [change("35", random_text)])
        after = publisher.publish("divisions", [change("36")])

    assert {position: type(error) for position, error in published.rejected.items()} == {
        1: ContractViolationError
    }
    assert isinstance(too_large.rejected[0], OversizedRecordError)
    assert after.acknowledged == 1
    assert set(resource.table()) == {"33", "36"}


def test_a_department_cannot_publish_as_another(a_resource: ResourceFactory) -> None:
    victim = a_resource()
    other = victim.bus.department("tax")

    publisher = Publisher(victim.owner.name, broker=other.settings, registry=victim.registry)
    with publisher, pytest.raises(AccessDeniedError):
        publisher.publish("divisions", [change("33")])

    assert victim.records() == []


def test_a_wrong_password_is_told_at_once_and_not_waited_for(
    a_resource: ResourceFactory, tmp_path: Path
) -> None:
    resource = a_resource()
    (tmp_path / "password").write_text("wrong")
    settings = resource.owner.settings.model_copy(update={"password_file": tmp_path / "password"})

    started = time.monotonic()
    publisher = Publisher(resource.owner.name, broker=settings, registry=resource.registry)
    with publisher, pytest.raises(AccessDeniedError) as raised:
        publisher.publish("divisions", [change("33")])

    assert time.monotonic() - started < 10
    assert "wrong" not in str(raised.value)


def test_a_resource_without_contract_or_topic_is_unknown(a_resource: ResourceFactory) -> None:
    resource = a_resource()
    name = unique_name("offices")

    with resource.publisher(delivery_seconds=5.0) as publisher:
        with pytest.raises(UnknownContractError, match="no contract"):
            publisher.publish(name, [change("33")])
        register_contract(resource.registry, resource.owner.name, name, DIVISIONS)
        with pytest.raises(UnknownContractError, match="there is no topic"):
            publisher.topic_id(name)


def test_without_a_registry_a_first_publish_asks_to_try_again(a_resource: ResourceFactory) -> None:
    resource = a_resource()
    nowhere = Registry("http://127.0.0.1:1")
    away = replace(resource, registry=nowhere)

    with closing(nowhere), away.publisher() as publisher, pytest.raises(RegistryUnavailableError):
        publisher.publish("divisions", [change("33")])


def test_a_broker_that_is_away_is_waited_for_and_then_has_everything(a_resource: ResourceFactory) -> None:
    """The broker is frozen, not stopped: what it has is not lost, and it does not answer."""
    resource = a_resource()
    kafka = resource.bus.embedded.kafka
    assert kafka is not None

    with resource.publisher(delivery_seconds=2.0) as publisher:
        publisher.publish("divisions", [change("33", "A")])
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            with pytest.raises(BrokerUnavailableError):
                publisher.publish("divisions", [change("33", "B"), change("34", "B")])
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        published = _until_published(publisher, [change("33", "B"), change("34", "B")])

    assert published == 2
    assert {code: row["name"] for code, row in resource.table().items()} == {"33": "B", "34": "B"}


def _until_published(publisher: Publisher, changes: list[Change]) -> int:
    deadline = time.monotonic() + 30
    while True:
        try:
            return publisher.publish("divisions", changes).acknowledged
        except BrokerUnavailableError:
            assert time.monotonic() < deadline


def test_a_stop_ends_the_wait_for_a_broker_that_is_away(a_resource: ResourceFactory) -> None:
    resource = a_resource()
    kafka = resource.bus.embedded.kafka
    assert kafka is not None
    stop = threading.Event()

    with resource.publisher(stop=stop) as publisher:
        publisher.publish("divisions", [change("33", "A")])
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            stop.set()
            started = time.monotonic()
            with pytest.raises(BrokerUnavailableError, match="stopped before"):
                publisher.publish("divisions", [change("33", "B")])
            assert time.monotonic() - started < 10
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
