"""A second look at what is about to leave, by other rules than those that made it.

The view decides what a grant lets through, and the exchange applies it. The
guard knows neither. From the grant as it was published, and from the schema
that the registry has under the id in the outgoing bytes, it works out what such
a delivery may look like, and checks each batch before it is committed. Per
delivery topic:

1. The topic is the one that the grant's own words lead to.
2. Sixteen records of the batch, the first and the last among them, begin with the schema ids that the
   grant version now applied was published with. (All of them would cost a twentieth of the exchange.)
3. The schema under that id has exactly the granted fields, names this grant, and gives no masked field a
   type that its mask cannot have made. Looked at once for each grant version.
4. One record is decoded by fastavro, to the last byte, and no masked field of it holds what its mask
   cannot have made. (Where it holds a date that Python cannot, that is said of texts alone.)

Of a sweep, whose keys the subscriber has held since before, it checks 1, and that all are tombstones.

It must never find anything. When it does, there is a fault in the exchange or in
what was published, and going on could leak: nothing of the batch is committed,
and nothing more is delivered under that grant by this worker until a new
version of the grant is published or the worker is started again. The route's
cursor stays, so nothing is lost, and the other grants go on.

To stay independent, this module shares no code with :mod:`govbus.view`,
:mod:`govbus.compiledview` and :mod:`govbus.splice`, and of transforms it uses
the names and parameters only.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any
from uuid import UUID

from govbus import observe, topics
from govbus.codec import Schema, decode_body, header, parse_schema, unframe
from govbus.errors import GuardViolationError, RejectedRecordError
from govbus.transform import Generalise, Grain, Keep, Null, Partial, Pseudonym, Redact, Transform, Truncate

if TYPE_CHECKING:
    from govbus.codec import Registry
    from govbus.grant import PublishedGrant
    from govbus_processors.batch import Batch, Outcome, Output
    from govbus_processors.routes import Route

_log = logging.getLogger(__name__)

SAMPLES = 16
"""Records of each batch and route whose schema ids are looked at."""

_HEX = re.compile(r"[0-9a-f]{32}")
_MONTH = re.compile(r"\d{4}-\d{2}")
_EXACT = {"float": 2.0**24, "double": 2.0**53}
"""Beyond these, floating point has no room for a band's exact bound."""

_Version = tuple[tuple[str, int], ...]
"""The grants of a route with their versions."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """What the guard found out of the grants of one route."""

    route: Route
    version: _Version
    own_topic: bool


class Guard:
    """Checks batches for one worker; used by one thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._suspended: dict[str, _Version] = {}
        self._known: dict[str, tuple[_Version, Schema]] = {}
        self._looked_at: dict[str, _Looked] = {}
        self._plain: dict[int, Schema] = {}
        """Schemas without their logical types, by id."""

    def suspends(self, route: Route) -> bool:
        """Whether the route was caught, and its grants have not been published anew since."""
        return route.topic in self._suspended and self._suspended[route.topic] == self._look(route).version

    def check(self, batch: Batch, outcome: Outcome) -> None:
        """Look at what a batch leads to.

        Raises:
            GuardViolationError: some of it must not leave. The grant is suspended from now on; working
                the batch out again leaves it out.
        """
        routes = {route.topic: route for part in batch.slices for route in part.routes}
        caught = []
        for topic, outputs in outcome.deliveries.items():
            if not outputs:
                continue
            route = routes.get(topic)
            if route is None:
                raise GuardViolationError("records for a topic of which no grant is part of the batch")
            fault = self._fault(route, outputs)
            if fault is not None:
                self._suspend(route, fault)
                caught.append(route.label)
        if caught:
            raise GuardViolationError(f"suspended: {', '.join(caught)}")

    def check_swept(self, route: Route, outcome: Outcome) -> None:
        """Look at what a sweep takes away: rows of an earlier version too, under the keys that they had then.

        Raises:
            GuardViolationError: it is something else than tombstones on the grant's own topic.
        """
        fault = None
        if set(outcome.deliveries) != {route.topic} or not self._look(route).own_topic:
            fault = "foreign-topic"
        elif any(value is not None for _, value, *_ in outcome.deliveries[route.topic]):
            fault = "swept-value"
        if fault is not None:
            self._suspend(route, fault)
            raise GuardViolationError(f"suspended: {route.label}")

    def _suspend(self, route: Route, fault: str) -> None:
        self._suspended[route.topic] = self._look(route).version
        observe.guard_violations.labels(route.label).inc()
        _log.error(
            "guard violation: nothing more is delivered under this grant",
            extra={"grant": route.label, "reason": fault, "topic": route.topic},
        )

    def _look(self, route: Route) -> _Looked:
        """What there is to know of all grants of a route; three hundred may share it, so found out once."""
        looked = self._looked_at.get(route.topic)
        if looked is None or looked.route is not route:
            looked = self._looked_at[route.topic] = _Looked(
                route=route,
                version=tuple((published.grant.id, published.grant.version) for published in route.grants),
                own_topic=all(_topic_of(one) == route.topic for one in route.grants),
            )
        return looked

    def _fault(self, route: Route, outputs: Sequence[Output]) -> str | None:
        """Name what is wrong with the deliveries of a route; None when nothing is."""
        published = route.first
        if not self._look(route).own_topic:
            return "foreign-topic"
        value_head, key_head = header(published.value_schema_id), header(published.key_schema_id)
        for key, value, *_ in [*outputs[:: max(1, len(outputs) // (SAMPLES - 1))], outputs[-1]]:
            if key is None or not key.startswith(key_head):
                return "key-schema-id"
            if value is not None and not value.startswith(value_head):
                return "value-schema-id"
        try:
            return self._check_schema(route) or self._check_record(route, outputs)
        except RejectedRecordError:
            return "undecodable"

    def _check_schema(self, route: Route) -> str | None:
        version = self._look(route).version
        known = self._known.get(route.topic)
        if known is not None and known[0] == version:
            return None
        schema = self._registry.schema(route.first.value_schema_id)
        grant = route.first.grant
        transforms = {rule.name: rule.transform for rule in grant.fields}
        fields = {field["name"]: field["type"] for field in schema.raw["fields"]}
        if set(fields) != set(transforms):
            return "fields"
        if not route.first.shared and schema.raw.get("govbus", {}).get("grant") != grant.id:
            return "agreement"
        for name, avro_type in fields.items():
            if not _type_fits(transforms[name], avro_type):
                return "type"
        self._known[route.topic] = (version, schema)
        return None

    def _check_record(self, route: Route, outputs: Sequence[Output]) -> str | None:
        value = next((value for _, value, *_ in outputs if value is not None), None)
        transforms = {rule.name: rule.transform for rule in route.first.grant.fields}
        shown = self._fields(self._registry.schema(route.first.key_schema_id), outputs[0][0])
        if value is not None:
            shown += self._fields(self._known[route.topic][1], value)
        for name, held, readable in shown:
            if name not in transforms:
                return "fields"
            transform = transforms[name]
            if (readable or isinstance(transform, Null)) and not _could_be(transform, held):
                return "value"
        return None

    def _fields(self, schema: Schema, framed: bytes | None) -> list[tuple[str, Any, bool]]:
        """Name and value of each field, and whether the value is as its logical type has it.

        A source may have a date in the year 20000, which Avro can hold and Python cannot. Then the record
        is read without logical types, and only texts and nulls in it are what they would be with them.
        """
        body = unframe(framed)[1]
        try:
            return [(name, held, True) for name, held in decode_body(schema, body).items()]
        except RejectedRecordError:
            plain = self._plain.get(schema.id)
            if plain is None:
                plain = self._plain[schema.id] = parse_schema(schema.id, _without_logical_types(schema.raw))
            row = decode_body(plain, body)
        return [(name, held, held is None or isinstance(held, str)) for name, held in row.items()]


def _without_logical_types(node: Any) -> Any:
    if isinstance(node, Mapping):
        kept = {name: value for name, value in node.items() if name != "logicalType"}
        for name in ("type", "items", "values", "fields"):
            if name in kept:
                kept[name] = _without_logical_types(kept[name])
        return kept
    return [_without_logical_types(part) for part in node] if isinstance(node, list) else node


def _topic_of(published: PublishedGrant) -> str:
    grant = published.grant
    if published.shared:
        return topics.shared(grant.owner, grant.resource, published.view)
    return topics.delivered(grant.subscriber, grant.id)


# -- what a mask can have made ---------------------------------------------------------------------


def _type_fits(transform: Transform, avro_type: Any) -> bool:
    """Whether a field that is shown through a transform can have this type."""
    branches = avro_type if isinstance(avro_type, list) else [avro_type]
    names = [_named(branch) for branch in branches]
    values = [name for name in names if name != "null"]
    match transform:
        case Null():
            return "null" in names
        case Partial() | Truncate() | Pseudonym() | Generalise(to=Grain.PREFIX | Grain.MONTH):
            return values == ["string"]
        case Generalise(to=Grain.YEAR):
            return values == ["int"]
        case Generalise(to=Grain.DATE):
            return values == ["date"]
    return True


def _named(branch: Any) -> str:
    if isinstance(branch, Mapping):
        return str(branch.get("logicalType", branch.get("type")))
    return str(branch)


def _could_be(transform: Transform, value: Any) -> bool:  # noqa: PLR0911 - one answer for each transform
    """Whether a value can have come out of a transform."""
    if isinstance(transform, Keep):
        return True
    if isinstance(transform, Redact):
        return _is_constant(transform.constant, value)
    if value is None:
        return True
    match transform:
        case Null():
            return False
        case Pseudonym():
            return isinstance(value, str) and _HEX.fullmatch(value) is not None
        case Partial(head=head, tail=tail, mask=mask):
            if not isinstance(value, str):
                return False
            hidden = value[head : len(value) - tail] if len(value) > head + tail else value
            return set(hidden) <= {mask}
        case Truncate(length=length) | Generalise(to=Grain.PREFIX, size=int(length)):
            return isinstance(value, str) and len(value) <= length
        case Generalise(to=grain, size=size):
            return _is_coarse(grain, size or 1, value)
    return False


def _is_coarse(grain: Grain, size: int, value: Any) -> bool:
    match grain:
        case Grain.YEAR:
            return type(value) is int and 1 <= value <= date.max.year
        case Grain.MONTH:
            return isinstance(value, str) and _MONTH.fullmatch(value) is not None
        case Grain.DATE:
            return type(value) is date
        case Grain.HOUR:
            return isinstance(value, time | datetime) and not (
                value.minute or value.second or value.microsecond
            )
        case Grain.BAND:
            return _is_bound(size, value)
    return False


def _is_bound(width: int, value: Any) -> bool:
    """Whether a number is the lower bound of a band, or the least number there is."""
    if isinstance(value, Decimal):
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            return False
        return set(digits) == {9} or int(value) == value and int(value) % width == 0
    if isinstance(value, float):
        return not math.isfinite(value) or abs(value) >= _EXACT["float"] or value % width == 0
    return isinstance(value, int) and (value % width == 0 or value in (-(2**31), -(2**63)))


def _is_constant(constant: object, value: Any) -> bool:
    """Whether a value is what a grant's constant, as JSON has it, stands for."""
    if isinstance(value, float) and isinstance(constant, int | float):
        return math.isclose(value, constant, rel_tol=1e-6, abs_tol=1e-45)
    if isinstance(value, Decimal):
        return _is_decimal(constant, value)
    if not isinstance(constant, str) or isinstance(value, str):
        return type(value) is type(constant) and value == constant
    try:
        if isinstance(value, datetime | date | time):
            return type(value).fromisoformat(constant) == value
        return isinstance(value, UUID) and UUID(constant) == value
    except ValueError:
        return False


def _is_decimal(constant: object, value: Decimal) -> bool:
    try:
        return isinstance(constant, str | int) and Decimal(constant) == value
    except InvalidOperation:
        return False
