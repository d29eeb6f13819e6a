"""How departments, resources, grants and what was done with them are shown: one JSON shape each.

The command line prints these with ``--json`` and lays them out for people; the
API answers with them. Nothing in them comes out of a record.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Whoever only reads these shapes, as the API's client does, needs neither store nor broker.
    from govbus.catalogue import Department
    from govbus_console.control.lifecycle import Changed
    from govbus_console.control.receipts import Standing
    from govbus_console.control.store import StoredGrant, StoredResource

Shown = dict[str, Any]


def department(known: Department) -> Shown:
    """A department on the bus."""
    return {"department": known.name, "title": known.title}


def resource(stored: StoredResource) -> Shown:
    """A catalogue entry with its fields."""
    entry, contract = stored.resource, stored.contract
    return {
        "resource": entry.ref,
        "owner": entry.owner,
        "title": entry.title,
        "share_type": entry.share_type.value,
        "kind": entry.kind.value,
        "synthetic": stored.synthetic,
        "contract": contract.version,
        "key": list(contract.key),
        "update_interval": contract.update_interval,
        "fields": [
            {
                "name": field.name,
                "type": field.avro_type,
                "classification": field.classification.value,
                "nullable": field.nullable,
                "doc": field.doc,
            }
            for field in contract.fields
        ],
    }


def mentions(entry: Shown, text: str) -> bool:
    """Whether every word of ``text`` stands in a catalogue entry's name, title or fields."""
    fields = " ".join(f"{field['name']} {field['doc']}" for field in entry["fields"])
    said = f"{entry['resource']} {entry['title']} {fields}".casefold()
    return all(word in said for word in text.casefold().split())


def grant(stored: StoredGrant, *, now: datetime) -> Shown:
    """The newest version of a grant, and whether it delivers at ``now``."""
    agreed, published = stored.grant, stored.published
    return {
        "grant": agreed.id,
        "version": agreed.version,
        "state": agreed.state.value,
        "in_force": agreed.in_force(now),
        "subscriber": agreed.subscriber,
        "resource": agreed.resource_ref,
        "fields": [{"name": rule.name, "transform": rule.transform.spec()} for rule in agreed.fields],
        "rows": agreed.rows,
        "purpose": agreed.purpose,
        "starts_at": agreed.starts_at.isoformat(),
        "expires_at": agreed.expires_at.isoformat(),
        "data_on_end": agreed.data_on_end.value,
        "quota_records_per_day": agreed.quota_records_per_day,
        "quota_keys_per_day": agreed.quota_keys_per_day,
        "topic": published.delivery_topic,
        "shared": published.shared,
    }


def change(changed: Changed, standing: Standing | None = None) -> Shown:
    """What revoking, suspending or resuming came to, and what the subscriber of an ended grant answered."""
    agreed, barriers = changed.grant, changed.settled.barriers
    return {
        "grant": agreed.id,
        "version": agreed.version,
        "state": agreed.state.value,
        "data_on_end": agreed.data_on_end.value,
        "already": changed.already,
        "barrier_ms": round(changed.barrier_seconds * 1000, 1) if barriers else None,
        "fenced_workers": sorted({name for passed in barriers for name in passed.fenced}),
        "receipt": None if standing is None else receipt(standing),
    }


def receipt(standing: Standing) -> Shown:
    """What was answered for an ended grant; ``line`` says it for people."""
    return standing.as_json() | {"line": standing.line()}
