"""Circumstances for explanations, short: the firms' register, a grant of tax, one row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from govbus.catalogue import ShareType
from govbus.deliverytrail import BatchDecision, Delivered, Trail
from govbus.event import RecordAddress
from govbus.explanation import Circumstances, Gate, GateName, GrantVersion, RowHistory, RowVersion
from govbus.grant import Grant
from support.policies import CONTRACT, KEY, NOON, SOURCE, VALUE, Record, a_grant, a_resource, firm, published
from support.views import Written

BEFORE = NOON - timedelta(hours=1)
TOPIC = "govbus.delivered.tax.tax-firms"


def version_of(record: Record, changed_at: datetime = BEFORE) -> RowVersion:
    """A captured record, as a version of its row."""
    key = record.key()
    assert key is not None
    return RowVersion(
        at=RecordAddress(topic=SOURCE, partition=0, offset=record.offset()),
        key=key,
        value=record.value(),
        changed_at=changed_at,
    )


def history(*versions: RowVersion, complete: bool = True) -> RowHistory:
    """What the captured topic holds of a row."""
    return RowHistory(versions=versions, complete=complete)


def circumstances(
    grant: Grant | None = None, *versions: RowVersion, no_grant: bool = False, **changes: Any
) -> Circumstances:
    """Tax asks about firm A at noon; everything passes unless something is changed."""
    known = published(grant or a_grant())
    schemas = {VALUE.id: VALUE, KEY.id: KEY} | {
        number: Written(raw, number) for number, raw in known.schemas.items()
    }
    given: dict[str, Any] = {
        "at": NOON,
        "latest": True,
        "resource": a_resource(),
        "share_type": ShareType.CONDITIONAL,
        "granted": None if no_grant else GrantVersion(published=known.grant, made_at=BEFORE),
        "contract": CONTRACT,
        "history": history(*(versions or (version_of(firm(0, "A")),))),
        "schemas": schemas,
        "pseudonym_key": None,
        "largest": 1_000_000,
    }
    return Circumstances(**given | changes)


def gate(gates: tuple[Gate, ...], name: GateName) -> Gate:
    """The gate of a name."""
    (found,) = [one for one in gates if one.name is name]
    return found


def delivered(offset: int, *, schema_id: int | None = 200, changed_at: datetime = BEFORE) -> Delivered:
    """A delivery of firm A to tax."""
    return Delivered(
        at=RecordAddress(topic=TOPIC, partition=0, offset=offset), schema_id=schema_id, changed_at=changed_at
    )


def a_trail(*found: Delivered, **changes: Any) -> Trail:
    """What was found in tax's delivery topic."""
    given: dict[str, Any] = {
        "topic": TOPIC,
        "there": True,
        "key_known": True,
        "found": found,
        "exchanged_to": 99,
    }
    return Trail(**given | changes)


def a_decision(**changes: Any) -> BatchDecision:
    """The exchange's word on a batch that holds the captured offsets 0 to 9."""
    given: dict[str, Any] = {
        "label": "tax-firms",
        "version": 1,
        "partition": 0,
        "first_offset": 0,
        "last_offset": 9,
        "permitted": True,
        "delivered": 1,
        "value_schema_id": 200,
        "decided_at": NOON.astimezone(UTC),
    }
    return BatchDecision(**given | changes)
