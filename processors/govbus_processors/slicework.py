# mypy: disable-error-code="untyped-decorator"
# (Cython's decorators have no types; what they decorate has.)
"""One slice of records, exchanged for its routes: the loop that every record goes through.

It is apart from :mod:`govbus_processors.exchange` because it is compiled
(hatch_build.py): what is here runs once for every record, or once for every
record and route; what is there runs once for every batch, schema or grant.
Interpreted it does the same.

The rules are those of the exchange. Their order here: whatever is wrong with
the record itself is found before any route is asked, so that either no route
has seen a record or all of them have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cython

from govbus import topics
from govbus.catalogue import ResourceKind
from govbus.codec import HEADER_BYTES, header
from govbus.errors import (
    ContractViolationError,
    OversizedRecordError,
    RejectedRecordError,
    UndecodableRecordError,
    ViewError,
)
from govbus.splice import MalformedAvroError
from govbus_processors.queueing import Deliveries

if TYPE_CHECKING:
    from govbus.catalogue import Resource
    from govbus_processors.batch import Batch, Outcome, Slice
    from govbus_processors.exchange import Exchange
    from govbus_processors.routes import Route

if cython.compiled:
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING
    from cython.cimports.govbus.compiledview import CompiledView
    from cython.cimports.govbus.splice import Walker
    from cython.cimports.govbus_processors.bulk import Outputs, Records
    from cython.cimports.libc.string import memcmp

LARGEST_RECORD = 1_000_000
"""Bytes of key and value together that a delivery may have; the broker's own bound is a little higher."""

_HEADER: cython.Py_ssize_t = HEADER_BYTES
_LARGEST: cython.Py_ssize_t = LARGEST_RECORD


@cython.cclass
class Lane:
    """One route while a slice is worked on: its view, its keys, what it delivers, what it counts."""

    route: Any
    view: CompiledView
    """For the writer schema of the record at hand; None where it cannot be made for that."""

    keys: Any
    """The keys that the subscriber holds, where rows can leave the view while they stay; else None."""

    output: Outputs
    delivered: cython.Py_ssize_t
    filtered: cython.Py_ssize_t
    left_view: cython.Py_ssize_t
    rejected: cython.Py_ssize_t

    def __init__(self, route: Route, keys: Any, output: Any) -> None:
        self.route = route
        self.view = None
        self.keys = keys
        self.output = output
        self.delivered = self.filtered = self.left_view = self.rejected = 0

    def counts(self) -> dict[str, int]:
        """What became of the slice's records on this route."""
        return {
            "delivered": self.delivered,
            "filtered": self.filtered,
            "left_view": self.left_view,
            "rejected": self.rejected,
        }


@cython.cclass
class SliceWork:
    """One slice while it is worked on."""

    exchange: Any
    part: Any
    resource: Any
    now: Any
    outcome: Any
    topic: str
    partition: cython.int
    lanes: list[Lane]
    timestamp: cython.longlong
    key_head: bytes
    key_walker: Walker
    head: bytes
    walker: Walker
    key_field: cython.Py_ssize_t
    key_fields: tuple[int, ...]

    def __init__(
        self, exchange: Exchange, part: Slice, resource: Resource, batch: Batch, outcome: Outcome
    ) -> None:
        self.exchange = exchange
        self.part = part
        self.resource = resource
        self.now = batch.now
        self.outcome = outcome
        self.topic, self.partition = part.place
        self.key_head = header(resource.key_schema_id)
        self.lanes = [
            Lane(
                route,
                exchange.key_set(route, self.partition),
                outcome.deliveries.setdefault(route.topic, Deliveries()),
            )
            for route in part.routes
        ]
        self.key_walker = None
        self.head = b"\xff"  # no record begins so
        self.walker = None
        self.key_field = -1
        self.key_fields = ()
        self.timestamp = 0

    def run(self) -> int:
        """Exchange the records in order, and return how many were: fewer if one has to wait for a schema."""
        done: cython.Py_ssize_t = 0
        count: cython.Py_ssize_t
        messages = self.part.messages
        self.key_walker = self.exchange.key_walker(self.resource)
        if self.key_walker is None:
            self._wait()
            return 0
        packed: cython.bint = False
        if cython.compiled:
            packed = isinstance(messages, Records)
        if packed:
            records: Records = messages
            count = records.count
        else:
            count = len(messages)
        while done < count:
            if packed:
                key = records.key_of(done)
                value = records.value_of(done)
                self.timestamp = records.entries[done].timestamp
            else:
                message = messages[done]
                key = message.key()
                value = message.value()
                self.timestamp = message.timestamp()[1]
            if not self._one(done, key, value):
                self._wait()
                break
            done += 1
        return int(done)

    def lane_counts(self) -> list[dict[str, int]]:
        """What became of the records, route by route."""
        return [lane.counts() for lane in self.lanes]

    @cython.cfunc
    def _one(self, index: cython.Py_ssize_t, key: Any, value: Any) -> object:
        """Exchange one record; False if it has to wait for a schema, and nothing was done with it."""
        lane: Lane
        try:
            if key is None or not _begins(key, self.key_head):
                raise ContractViolationError("the key is not under the resource's key schema")
            if value is None:
                return self._gone(index, key)
            if not _begins(value, self.head) and not self._turn_to(value[:HEADER_BYTES]):
                return False
            self.walker.walk(value, _HEADER)
            self._check_key(key)
        except MalformedAvroError as error:
            self._dead_letter(index, UndecodableRecordError(str(error)), None)
            return True
        except RejectedRecordError as error:
            self._dead_letter(index, error, None)
            return True
        for lane in self.lanes:
            try:
                self._deliver(lane, key)
            except RejectedRecordError as error:
                lane.rejected += 1
                self._dead_letter(index, error, lane.route.label)
        return True

    @cython.cfunc
    def _check_key(self, key: bytes) -> object:
        """Make sure that the key is that of the row: what is routed by one must be judged by the other."""
        if self.key_field >= 0:
            same = self.walker.same(self.key_field, key, _HEADER)
        else:
            same = key[_HEADER:] == b"".join([self.walker.field(index) for index in self.key_fields])
        if not same:
            raise ContractViolationError("the key is not that of the row")
        return None

    def _turn_to(self, head: bytes) -> bool:
        """Switch to another writer schema; False while it is not there."""
        plan = self.exchange.plan(self.topic, head, self.resource)
        if plan is None:
            return False
        lane: Lane
        for lane in self.lanes:
            lane.view = self.exchange.view(plan, head, lane.route)
        self.walker = plan.walker
        self.key_fields = plan.key_fields
        self.key_field = plan.key_fields[0] if len(plan.key_fields) == 1 else -1
        self.head = head
        return True

    @cython.cfunc
    def _deliver(self, lane: Lane, key: bytes) -> object:
        view: CompiledView = lane.view
        if view is None:
            raise ViewError("the view cannot be made for this writer schema")
        if not view.matches(self.walker):
            lane.filtered += 1
            if lane.keys is not None:
                shown = view.key(key, self.key_walker)
                if lane.keys.leave(shown):
                    lane.left_view += 1
                    lane.output.add(shown, None, self.partition, self.timestamp)
            return None
        shown = view.key(key, self.key_walker)
        projected = view.project(self.walker)
        if len(shown) + len(projected) > _LARGEST:
            raise OversizedRecordError("the projected record is larger than a record may be")
        if lane.keys is not None:
            lane.keys.enter(shown)
        lane.delivered += 1
        lane.output.add(shown, projected, self.partition, self.timestamp)
        return None

    def _gone(self, index: int, key: bytes) -> bool:
        """The row is gone: tell exactly those who hold it."""
        if self.resource.kind is ResourceKind.EVENT:
            raise ContractViolationError("an event has a value")
        self.key_walker.walk(key, HEADER_BYTES)
        lane: Lane
        views = []
        for lane in self.lanes:
            there, view = self.exchange.key_view(lane.route)
            if not there:
                return False
            views.append(view)
        for lane, view in zip(self.lanes, views, strict=True):
            try:
                if view is None:
                    raise ViewError("the view cannot be made for the contract's schema")
                shown = view.key(key, self.key_walker)
            except RejectedRecordError as error:
                lane.rejected += 1
                self._dead_letter(index, error, lane.route.label)
                continue
            if lane.keys is None or lane.keys.leave(shown):
                lane.delivered += 1
                lane.output.add(shown, None, self.partition, self.timestamp)
            else:
                lane.filtered += 1
        return True

    def _wait(self) -> None:
        self.outcome.waiting[self.part.place] = "schema-not-there"

    def _dead_letter(self, index: int, error: RejectedRecordError, grant: str | None) -> None:
        if grant is None and not self.part.live:
            return  # it was dead-lettered when it was live
        message = self.part.messages[index]
        self.outcome.dead_letters.append(
            (
                topics.dead_letter(self.resource.owner, self.resource.name),
                message.key(),
                {
                    "topic": self.topic,
                    "partition": self.partition,
                    "offset": message.offset(),
                    "timestamp_ms": message.timestamp()[1],
                    "code": error.code,
                    "detail": error.detail,
                    "stage": "exchange",
                    "grant": grant,
                    "key": message.key(),
                    "value": message.value(),
                    "rejected_at": self.now,
                },
            )
        )


@cython.cfunc
@cython.inline
def _begins(data: bytes, head: bytes) -> cython.bint:
    if not cython.compiled:
        return data.startswith(head)
    size: cython.Py_ssize_t = len(head)
    return len(data) >= size and memcmp(PyBytes_AS_STRING(data), PyBytes_AS_STRING(head), size) == 0
