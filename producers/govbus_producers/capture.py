"""Carry a department's changes from its own system onto the bus, for as long as the process lives.

For each resource, again and again:

1. the source looks for changes and notes durably which keys it hands out;
2. each change is checked against the contract; one that breaks it is set
   aside: counted, logged by its place, and not tried again until it changes;
3. the others are published, and the broker acknowledges them;
4. only then does the source remember that they are done.

A crash between any two steps repeats some of them, which is harmless, and
loses nothing. An outage is the same: a source, broker or registry that is away
is reported, waited for with growing pauses, and everything that was not
settled comes again. What cannot heal by waiting (credentials, a contract that
is not there, a table without the contract's columns) ends the process.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Protocol

from sqlalchemy import Engine

from govbus import observe
from govbus.codec import Registry
from govbus.errors import ConfigurationError, RejectedRecordError, RetriableError
from govbus.event import Change
from govbus.settings import BrokerSettings
from govbus_producers.config import CaptureConfig, TableConfig
from govbus_producers.polling import TablePolling, open_source
from govbus_producers.publish import Published, PublishedContract, Publisher, registered_contract
from govbus_producers.snapshot import StateFolder
from govbus_producers.source import ChangeBatch, ChangeSource

log = logging.getLogger(__name__)

STAGE = "capture"

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
_LOOK_AGAIN_SECONDS = 30.0
_LOGGED_REJECTIONS = 20


class PublishesChanges(Protocol):
    """What the capture loop needs of a :class:`~govbus_producers.publish.Publisher`."""

    def publish(self, resource: str, changes: Sequence[Change]) -> Published:
        """Publish, wait for the acknowledgement, and report what broke the contract."""
        ...


def run(
    config: CaptureConfig,
    broker: BrokerSettings,
    registry: Registry,
    *,
    stop: threading.Event,
    once: bool = False,
) -> int:
    """Capture until ``stop`` is set, and return how many changes were published.

    One thread serves all tables in turn. ``stop`` is looked at between batches; a wait for the broker
    ends a few seconds after it is set.

    Args:
        config: what to capture, and where from.
        broker: Kafka, with the department's own credentials.
        registry: where the contracts are.
        stop: set it, for example from a signal handler, to end cleanly.
        once: poll each table once and return; an outage is raised instead of waited for.

    Raises:
        FatalError: waiting cannot help.
        RetriableError: with ``once`` only.
    """
    with ExitStack() as stack:
        folder = StateFolder(config.state, config.department)
        stack.callback(folder.close)
        engine = open_source(config.source)
        stack.callback(engine.dispose)
        publisher = stack.enter_context(
            Publisher(
                config.department,
                broker=broker,
                registry=registry,
                stop=stop,
                on_wait=lambda: observe.heartbeat(STAGE),
            )
        )
        tables = [
            _CapturedTable(
                config.department, table, engine=engine, folder=folder, publisher=publisher, registry=registry
            )
            for table in config.tables
        ]
        for table in tables:
            stack.callback(table.close)
        log.info("capture started", extra={"department": config.department, "count": len(tables)})
        total = _poll_each_once(tables, stop) if once else _poll_in_turn(tables, stop)
        log.info("capture stopped", extra={"department": config.department, "count": total})
        return total


def _poll_each_once(tables: Sequence[_CapturedTable], stop: threading.Event) -> int:
    return sum(table.poll(stop) for table in tables)


def _poll_in_turn(tables: Sequence[_CapturedTable], stop: threading.Event) -> int:
    total = 0
    while not stop.is_set():
        observe.heartbeat(STAGE)
        table = min(tables, key=lambda one: one.due)
        pause = table.due - time.monotonic()
        if pause > 0:
            stop.wait(min(pause, 1.0))
            continue
        started = time.monotonic()
        try:
            total += table.poll(stop)
            table.attempt = 0
            table.due = started + table.interval_seconds
        except RetriableError as error:
            if stop.is_set():
                break
            pause = pause_after(table.attempt)
            table.attempt += 1
            table.due = time.monotonic() + pause
            log.warning(
                "waiting, nothing is lost",
                extra={
                    "resource": table.ref,
                    "code": error.code,
                    "detail": str(error),
                    "attempt": table.attempt,
                    "seconds": round(pause, 2),
                },
            )
    return total


def pause_after(attempt: int) -> float:
    """Seconds to wait after so many failures in a row: doubling, spread, and bounded."""
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 10))
    # Spread, so that 300 departments do not all come back in the same moment after a broker's restart.
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def publish_changes(
    source: ChangeSource, publisher: PublishesChanges, *, owner: str, resource: str, stop: threading.Event
) -> int:
    """Carry out one poll of a source to its end, or to ``stop``; return how many changes were published.

    When the publisher raises, the batch stays unsettled and its keys come again in a later poll.
    """
    ref = f"{owner}.{resource}"
    total = 0
    reported = _Rejections(ref)
    with closing(source.poll()) as batches:
        for batch in batches:
            observe.heartbeat(STAGE)
            for place, error in batch.refused.items():
                reported.add(place, error)
            published = publisher.publish(resource, batch.changes)
            # Acknowledged first, remembered second. A crash in between publishes the batch again; the
            # other order would lose it.
            source.remember(published.rejected.keys())
            for position, error in published.rejected.items():
                reported.add(batch.places[position], error)
            _count(ref, batch, published)
            total += published.acknowledged
            if stop.is_set():
                break
    reported.close()
    return total


def _count(ref: str, batch: ChangeBatch, published: Published) -> None:
    deleted = sum(change.row is None for change in batch.changes)
    for operation, number in (
        ("create", batch.created),
        ("update", len(batch.changes) - batch.created - deleted),
        ("delete", deleted),
    ):
        if number:
            observe.captured_records.labels(ref, operation).inc(number)
    if published.acknowledged:
        observe.published_records.labels(ref).inc(published.acknowledged)


class _Rejections:
    """Counts what one poll set aside, and logs the first few of it one by one."""

    def __init__(self, ref: str) -> None:
        self._ref = ref
        self._number = 0

    def add(self, place: int, error: RejectedRecordError) -> None:
        """Report one row."""
        observe.rejected_changes.labels(self._ref, error.code).inc()
        self._number += 1
        if self._number <= _LOGGED_REJECTIONS:
            log.warning(
                "row breaks the contract and is not published until it changes",
                extra={
                    "resource": self._ref,
                    "address": f"row {place} of this reading" if place else "a deleted row",
                    "code": error.code,
                    "detail": error.detail,
                },
            )

    def close(self) -> None:
        """Report how many there were, when not all of them were logged."""
        if self._number > _LOGGED_REJECTIONS:
            log.warning("more rows break the contract", extra={"resource": self._ref, "count": self._number})


class _CapturedTable:
    """One table with its contract, its snapshot and its turn."""

    def __init__(
        self,
        department: str,
        table: TableConfig,
        *,
        engine: Engine,
        folder: StateFolder,
        publisher: Publisher,
        registry: Registry,
    ) -> None:
        self.ref = f"{department}.{table.resource}"
        self.interval_seconds = table.interval_seconds
        self.due = 0.0
        """On the monotonic clock, when this table is to be polled next."""

        self.attempt = 0
        """How many polls have failed since the last good one."""

        self._department = department
        self._table = table
        self._engine = engine
        self._folder = folder
        self._publisher = publisher
        self._registry = registry
        self._source: TablePolling | None = None
        self._target = ""
        self._look_again = 0.0

    def poll(self, stop: threading.Event) -> int:
        """Poll once; return how many changes were published."""
        source = self._ready()
        began = time.perf_counter()
        with observe.capture_seconds.labels(self.ref).time():
            published = publish_changes(
                source,
                self._publisher,
                owner=self._department,
                resource=self._table.resource,
                stop=stop,
            )
        if published:
            observe.batch_seconds.labels(STAGE).observe(time.perf_counter() - began)
            observe.batch_records.labels(STAGE).observe(published)
        return published

    def close(self) -> None:
        """Close the snapshot."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _ready(self) -> TablePolling:
        """The source, built for the contract and the topic that there are now."""
        if self._source is not None and time.monotonic() < self._look_again:
            return self._source
        try:
            known = registered_contract(self._registry, self._department, self._table.resource)
            topic_id = self._publisher.topic_id(self._table.resource)
        except RetriableError:
            if self._source is None:
                raise
            # Not needed to go on: what was known a moment ago still holds for what is published now.
            return self._source
        self._look_again = time.monotonic() + _LOOK_AGAIN_SECONDS
        target = f"{topic_id}/{known.key.id}/{known.value.id}"
        if self._source is None or target != self._target:
            self.close()
            self._source = self._build(known, target)
            self._target = target
        return self._source

    def _build(self, known: PublishedContract, target: str) -> TablePolling:
        snapshot = self._folder.snapshot(self._table.resource)
        try:
            key = json.dumps([[name, known.contract.field(name).avro_type] for name in known.contract.key])
            if snapshot.about("key", key) != key:
                raise ConfigurationError(
                    f"the key of {self.ref} is not what it was when its snapshot was made; a resource with "
                    "another key is another resource: give it a new name"
                )
            if snapshot.about("target", target) != target:
                # Another contract version, or a topic that was made anew and is empty: what the
                # snapshot says of the topic no longer holds.
                log.info(
                    "the contract or the topic is new: every row is published again",
                    extra={"resource": self.ref, "schema_id": known.value.id},
                )
                snapshot.start_over("target", target)
            self._publisher.use(self._table.resource, known)
        except BaseException:
            snapshot.close()
            raise
        return TablePolling(
            engine=self._engine,
            contract=known.contract,
            table=self._table,
            snapshot=snapshot,
            spool=self._folder.path,
        )
