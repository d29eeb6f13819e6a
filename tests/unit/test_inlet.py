"""What a consumer gave, sorted by partition, in order; errors apart."""

from __future__ import annotations

from confluent_kafka import KafkaError, Message
from hypothesis import given
from hypothesis import strategies as st

from govbus_processors.polling import Objects, open_inlet, sorted_out

given_messages = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2), st.integers(0, 9) | st.none()), max_size=40
)


def a_message(topic: str, partition: int, offset: int, *, fault: bool = False) -> Message:
    error = KafkaError(KafkaError._TRANSPORT) if fault else None
    return Message(topic=topic, partition=partition, offset=offset, error=error)


@given(made=given_messages)
def test_each_partition_has_its_records_in_their_order_and_nothing_is_lost(
    made: list[tuple[str, int, int | None]],
) -> None:
    messages = [
        a_message(topic, partition, number, fault=offset is None)
        for number, (topic, partition, offset) in enumerate(made)
    ]

    found, errors = sorted_out(messages)

    expected: dict[tuple[str, int], list[int]] = {}
    for number, (topic, partition, offset) in enumerate(made):
        if offset is not None:
            expected.setdefault((topic, partition), []).append(number)
    assert {place: [one.offset() for one in run] for place, run in found.items()} == expected
    assert len(errors) == sum(offset is None for _, _, offset in made)
    assert all(error.code() == KafkaError._TRANSPORT for error in errors)


class Client:
    """A consumer that is not of confluent-kafka, with some messages."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)

    def poll(self, _seconds: float) -> Message | None:
        return self._messages.pop(0) if self._messages else None

    def consume(self, limit: int, timeout: float) -> list[Message]:  # noqa: ARG002 - the client's signature
        taken, self._messages = self._messages[:limit], self._messages[limit:]
        return taken


def test_a_client_whose_handle_is_not_known_is_read_message_by_message() -> None:
    client = Client(*[a_message("a", 0, number) for number in range(5)])
    inlet = open_inlet(client, on_assign=print, on_revoke=print)  # type: ignore[arg-type]

    fetched = [inlet.fetch(0.0, 0.0, 3)[0].get(("a", 0), []) for _ in range(3)]

    assert isinstance(inlet, Objects)
    assert [[one.offset() for one in records] for records in fetched] == [[0, 1, 2], [3, 4], []]


def test_a_limit_of_one_is_one() -> None:
    client = Client(*[a_message("a", 0, number) for number in range(2)])

    found, _ = Objects(client).fetch(0.0, 0.0, 1)  # type: ignore[arg-type]

    assert len(found["a", 0]) == 1
