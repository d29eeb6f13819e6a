"""The intake and rebalances: a record that comes beside one is neither used twice nor passed over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from govbus.codec import Registry
from govbus.settings import BrokerSettings, ExchangeSettings
from govbus_processors import intake
from govbus_processors.batch import Batch
from govbus_processors.checkpoint import Checkpoints
from govbus_processors.cursors import Cursor
from govbus_processors.directory import Directory
from govbus_processors.intake import Intake
from govbus_processors.membership import Membership
from govbus_processors.polling import Objects
from govbus_processors.reader import Reader
from govbus_processors.transaction import Guarantee
from support.policies import SOURCE, Record, a_grant, a_policy, firm, published

PLACE = (SOURCE, 0)
GRANT = published(a_grant())


class _ConsumerThatRebalances:
    """Hands records over in the very call that serves a rebalance, as librdkafka does."""

    def __init__(self, log: list[Record], committed: int, error: KafkaError | None = None) -> None:
        self._log = log
        self._committed = committed
        self._error = error
        self._position: int | None = None
        self.rebalance: Callable[[], None] | None = None
        self.left = False

    def subscribe(self, _topics: list[str], **callbacks: Any) -> None:
        partition = [TopicPartition(*PLACE)]
        self.rebalance = lambda: callbacks["on_assign"](self, partition)

    def unsubscribe(self) -> None:
        self.left = True

    def committed(self, places: list[TopicPartition], timeout: float) -> list[Any]:
        return [
            SimpleNamespace(
                topic=place.topic,
                partition=place.partition,
                offset=self._committed,
                error=self._error,
                metadata="",
            )
            for place in places
        ]

    def assign(self, places: list[Any]) -> None:
        self._position = None
        for place in places:
            self._position = 0 if place.offset == OFFSET_BEGINNING else place.offset

    def resume(self, places: list[TopicPartition]) -> None:
        """Nothing is paused."""

    def poll(self, seconds: float) -> Record | None:
        waiting, self.rebalance = self.rebalance, None
        if waiting is not None:
            waiting()
        if self._position is None:
            return None
        left = [record for record in self._log if record.offset() >= (self._position or 0)]
        if not left:
            return None
        self._position = left[0].offset() + 1
        return left[0]

    def consume(self, limit: int, timeout: float) -> list[Record]:
        found = []
        while len(found) < limit and (record := self.poll(0)) is not None:
            found.append(record)
        return found

    def consumer_group_metadata(self) -> object:
        return object()

    def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:
        return 0, len(self._log)


class _FreshDirectory:
    lease_seconds = 5.0
    failure = None
    policy = a_policy(GRANT)

    def fresh(self, *, since: float = 0.0) -> bool:
        return True


class _WillingGuarantee:
    transactional_id = ""

    def __getattr__(self, _step: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.mark.parametrize("committed", [-1001, 0, 2])
def test_records_that_come_in_the_same_call_as_a_rebalance_are_read_again(
    committed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To drop them would lose them: the client stands behind them already."""
    offered: list[list[int]] = []
    consumer = _ConsumerThatRebalances([firm(n, f"{n}") for n in range(5)], committed)
    intake = an_intake(consumer, offered, tmp_path, monkeypatch)

    intake._turn()
    nothing_yet = list(offered)
    with pytest.raises(_SeenEnoughError):
        intake._turn()

    assert nothing_yet == []
    assert offered == [list(range(max(committed, 0), 5))]


def test_an_offset_that_cannot_be_read_is_not_taken_for_one_that_was_never_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first record on everything would be delivered again."""
    offered: list[list[int]] = []
    error = KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT)
    consumer = _ConsumerThatRebalances([firm(0, "0")], committed=-1001, error=error)
    intake = an_intake(consumer, offered, tmp_path, monkeypatch)

    intake._turn()

    assert consumer.left
    assert offered == []
    assert intake._cursors.places == []


def an_intake(
    consumer: _ConsumerThatRebalances,
    offered: list[list[int]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Intake:
    """An intake that does not get further than to offer a batch, whose offsets are noted."""

    def stop_here(batch: Batch) -> None:
        offered.append([message.offset() for part in batch.slices for message in part.messages])
        raise _SeenEnoughError

    intake = Intake(
        worker="w",
        broker=BrokerSettings(),
        registry=cast("Registry", None),
        settings=ExchangeSettings(),
        directory=cast("Directory", _FreshDirectory()),
        membership=Membership(),
        checkpoints=Checkpoints(folder),
        submit=stop_here,
    )
    live = {GRANT.grant.delivery_topic: Cursor(GRANT.grant.view, live=True, offset=0)}
    if consumer._committed < 0:
        live.clear()  # a cursor is stored together with an offset
    monkeypatch.setattr(
        intake._stored, "read_on", lambda *_, **__: intake._stored._cursors.update({PLACE: live})
    )
    monkeypatch.setattr(intake, "_report_if_due", lambda: None)
    monkeypatch.setattr(intake, "_look_for_ends", lambda: None)
    intake._consumer = consumer
    intake._inlet = Objects(cast("Consumer", consumer))
    intake._reader = cast("Reader", None)
    intake._guarantee = cast("Guarantee", _WillingGuarantee())
    intake._known_since = 0.0
    return intake


class _SeenEnoughError(Exception):
    """The batch that the test waits for has been offered."""


def test_setting_the_wall_clock_back_revives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A term that was over stays over; the clock stands still until time has come that far again."""
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    moments = iter([noon, noon + timedelta(hours=1), noon, noon + timedelta(hours=2)])
    monkeypatch.setattr(intake, "datetime", SimpleNamespace(now=lambda _zone: next(moments)))
    clock = intake.Clock()

    told = [clock.now() for _ in range(3)]

    assert told == [noon + timedelta(hours=hours) for hours in (1, 1, 2)]
