"""``govbus tail``: the last records of a topic, as much of them as the reader may see. Does I/O.

Without more being asked, a line gives place, time, schema id and size of a
record, and nothing of what it says: operators need no personal data. What the
bus says of itself (grants, decisions, reports, receipts) is shown whole. Everything else
is decoded only with ``--values``, under a department's own login, so that the
broker decides whether it may.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from govbus import topics
from govbus.codec import Registry, unframe
from govbus.errors import RefusedError, RejectedRecordError
from govbus.settings import BrokerSettings
from govbus_console.control.reading import last_records
from govbus_console.embedded import ADMIN

if TYPE_CHECKING:
    from confluent_kafka import Message

    from govbus_console.control.store import ControlStore

_OWN = (topics.GRANTS, topics.DECISIONS, topics.WORKERS, topics.PROGRESS)
_OWN_PREFIXES = tuple(name("x").removesuffix("x") for name in (topics.subscriptions, topics.receipts))


def topic_of(what: str, store: Callable[[], AbstractContextManager[ControlStore]]) -> str:
    """Turn a topic's name, ``owner.resource`` or a grant's id into a topic's name.

    Raises:
        RefusedError: it is none of these.
    """
    if what.startswith("govbus."):
        return what
    with store() as opened:
        known = opened.snapshot()
    if what in known.resources:
        return topics.captured(*what.split(".", 1))
    if what in known.grants:
        return known.grants[what].published.delivery_topic
    raise RefusedError(
        f"{what} is neither a topic (govbus.…), nor a resource (owner.name), nor a grant; "
        "govbus status lists them"
    )


def follow_topic(
    topic: str,
    broker: BrokerSettings,
    registry_url: str,
    *,
    count: int,
    values: bool,
    follow: bool,
    as_json: bool,
) -> None:
    """Write one line for each record on stdout.

    Raises:
        AccessDeniedError: this user may not read the topic.
        RefusedError: there is no such topic, or values are asked for as the administrator.
    """
    of_the_bus = topic in _OWN or topic.startswith(_OWN_PREFIXES)
    if values and not of_the_bus and broker.user == ADMIN:
        raise RefusedError("the administrator does not look into deliveries; read them as a department")
    with closing(Registry(registry_url)) as registry:
        for message in last_records(broker, topic, count, follow=follow):
            _write(describe(message, registry, decoded=values or of_the_bus), as_json=as_json)


def _write(shown: dict[str, Any], *, as_json: bool) -> None:
    line = json.dumps(shown, ensure_ascii=False, default=str) if as_json else _line(shown)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def describe(message: Message, registry: Registry, *, decoded: bool) -> dict[str, Any]:
    """What may be said of one record."""
    key, value = message.key(), message.value()
    shown: dict[str, Any] = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "time": datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC).isoformat(timespec="milliseconds"),
        "key_bytes": None if key is None else len(key),
        "value_bytes": None if value is None else len(value),
        "schema_id": _schema_id(value),
    }
    if decoded:
        shown["key"] = _decoded(key, registry)
        shown["value"] = _decoded(value, registry)
    return shown


def _schema_id(value: bytes | None) -> int | None:
    try:
        return unframe(value)[0]
    except RejectedRecordError:
        return None


def _decoded(data: bytes | None, registry: Registry) -> Any:
    if data is None:
        return None
    try:
        return registry.decode(data)
    except RejectedRecordError as error:
        # A key of the bus's own topics is plain text; anything else is not shown.
        text = data.decode("utf-8", "replace")
        return text if text.isprintable() else f"({error.code})"


def _line(shown: dict[str, Any]) -> str:
    size = "tombstone" if shown["value_bytes"] is None else f"{shown['value_bytes']} bytes"
    schema = "" if shown["schema_id"] is None else f" schema {shown['schema_id']}"
    line = f"{shown['time']} {shown['topic']}[{shown['partition']}]@{shown['offset']} {size}{schema}"
    if "key" in shown:
        facts = {"key": shown["key"], "value": shown["value"]}
        line += " " + json.dumps(facts, ensure_ascii=False, default=str)
    return line
