"""What a consumer gave, sorted by partition, in order; errors apart. Compiled and interpreted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message
from hypothesis import given
from hypothesis import strategies as st

import govbus_processors
from govbus_processors import slicework
from support.kernels import interpreted

SOURCE = Path(str(govbus_processors.__file__)).with_name("slicework.py")
SORTS = pytest.mark.parametrize(
    "sort",
    [slicework.sorted_out, interpreted(SOURCE).sorted_out],
    ids=["as installed", "interpreted"],
)
given_messages = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2), st.integers(0, 9) | st.none()), max_size=40
)


def a_message(topic: str, partition: int, offset: int, *, fault: bool = False) -> Message:
    error = KafkaError(KafkaError._TRANSPORT) if fault else None
    return Message(topic=topic, partition=partition, offset=offset, error=error)


@SORTS
@given(made=given_messages)
def test_each_partition_has_its_records_in_their_order_and_nothing_is_lost(
    sort: Callable[..., Any], made: list[tuple[str, int, int | None]]
) -> None:
    messages = [
        a_message(topic, partition, number, fault=offset is None)
        for number, (topic, partition, offset) in enumerate(made)
    ]

    found, errors = sort(messages)

    expected: dict[tuple[str, int], list[int]] = {}
    for number, (topic, partition, offset) in enumerate(made):
        if offset is not None:
            expected.setdefault((topic, partition), []).append(number)
    assert {place: [one.offset() for one in run] for place, run in found.items()} == expected
    assert len(errors) == sum(offset is None for _, _, offset in made)
    assert all(error.code() == KafkaError._TRANSPORT for error in errors)
