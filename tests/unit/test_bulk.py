"""Deliveries and records packed in one piece of memory: what goes in comes out, whatever it is.

What is done with a broker is in tests/integration/test_bulk_broker.py.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from govbus_processors.batch import Output

bulk = pytest.importorskip("govbus_processors.bulk", reason="govbus was installed without a C compiler")

NOWHERE = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
outputs = st.lists(
    st.builds(
        Output,
        key=st.none() | st.binary(max_size=40),
        value=st.none() | st.binary(max_size=200) | st.integers(30_000, 80_000).map(bytes),
        partition=st.integers(0, 2**31 - 1),
        timestamp_ms=st.integers(0, 2**62),
    ),
    max_size=600,
)


@given(made=outputs)
def test_packed_deliveries_are_those_that_were_added(made: Sequence[Output]) -> None:
    packed = bulk.Outputs.of(made)

    assert len(packed) == len(made)
    assert list(packed) == made
    assert [packed[index] for index in range(len(made))] == made
    assert packed[::3] == made[::3]
    assert packed[-2:] == made[-2:]


def test_an_empty_value_is_not_a_tombstone_and_an_empty_key_is_not_no_key() -> None:
    packed = bulk.Outputs.of([(b"", b"", 0, 1), (None, None, 0, 1)])

    assert list(packed) == [Output(b"", b"", 0, 1), Output(None, None, 0, 1)]


@pytest.mark.parametrize("index", [2, -3])
def test_there_is_nothing_outside(index: int) -> None:
    packed = bulk.Outputs.of([(b"a", b"b", 0, 1)] * 2)

    with pytest.raises(IndexError):
        packed[index]
    with pytest.raises(IndexError):
        bulk.Records("topic", 0)[index]


def test_only_bytes_are_delivered() -> None:
    with pytest.raises(TypeError):
        bulk.Outputs().add("text", b"", 0, 1)
    with pytest.raises(TypeError):
        bulk.Outputs().add(b"", bytearray(b"x"), 0, 1)


def test_clients_whose_handle_is_not_known_for_certain_are_not_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer = Producer(NOWHERE)

    class Other(Producer):
        """May have its handle anywhere."""

    assert bulk.usable(producer)
    assert not bulk.usable(object())
    assert not bulk.usable(AdminClient(NOWHERE))
    assert not bulk.usable(Other(NOWHERE))
    for version in ("1.9.2", "2.11.1", "2.17.0", "3.0.0"):
        monkeypatch.setattr("confluent_kafka.version", lambda version=version: version)
        assert not bulk.usable(producer)


def test_no_version_is_installed_whose_handle_is_not_known() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    (wanted,) = [one for one in project["project"]["dependencies"] if one.startswith("confluent-kafka")]
    (major, first), (_, last) = bulk.KNOWN

    assert wanted.endswith(f">={major}.{first},<{major}.{last + 1}")


def test_the_two_kinds_of_clients_are_told_apart() -> None:
    consumer, producer = Consumer(NOWHERE | {"group.id": "g"}), Producer(NOWHERE)

    with pytest.raises(TypeError):
        bulk.Inlet(producer, on_assign=print, on_revoke=print)
    with pytest.raises(TypeError):
        bulk.Outlet(consumer)
    consumer.close()
    assert not bulk.usable(consumer)


def test_a_closed_inlet_gives_nothing() -> None:
    consumer = Consumer(NOWHERE | {"group.id": "g"})
    inlet = bulk.Inlet(consumer, on_assign=print, on_revoke=print)

    assert inlet.fetch(0.0, 0.0, 10)[0] == {}
    inlet.close()
    inlet.close()

    with pytest.raises(ValueError, match="closed"):
        inlet.fetch(0.0, 0.0, 10)
    consumer.close()


def test_a_full_queue_says_how_far_it_got() -> None:
    producer = Producer(NOWHERE | {"queue.buffering.max.messages": 5})
    outlet = bulk.Outlet(producer)
    packed = bulk.Outputs.of([(b"k", b"%d" % number, 0, 1) for number in range(12)])

    queued = outlet.queue("topic", packed)

    assert queued == 5
    assert outlet.failure is None
    assert outlet.flush(0.05) == 5
    producer.purge()
    assert outlet.flush(5.0) == 0
    assert outlet.failure.code() == KafkaError._PURGE_QUEUE
    assert outlet.queue("topic", packed, queued) == 10
    outlet.forget()
    assert outlet.failure is None
