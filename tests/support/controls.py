"""A control side that holds still: what the API's tests ask, and what they have done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from govbus.errors import NotFoundError
from govbus.grant import DataDuty

Shown = dict[str, Any]

DEPARTMENTS = ("civil", "health", "stats", "tax")


def a_resource(ref: str, *, share_type: str = "conditional", title: str = "Residents") -> Shown:
    """One catalogue entry."""
    return {
        "resource": ref,
        "owner": ref.partition(".")[0],
        "title": title,
        "share_type": share_type,
        "kind": "state",
        "synthetic": True,
        "contract": 1,
        "key": ["code"],
        "update_interval": "",
        "fields": [
            {"name": "code", "type": "string", "classification": "public", "nullable": False, "doc": "Code"},
            {
                "name": "born",
                "type": ["null", "int"],
                "classification": "sensitive",
                "nullable": True,
                "doc": "",
            },
        ],
    }


def a_grant(name: str, resource: str, subscriber: str) -> Shown:
    """One grant in force."""
    return {
        "grant": name,
        "version": 1,
        "state": "active",
        "in_force": True,
        "subscriber": subscriber,
        "resource": resource,
        "fields": [{"name": "code", "transform": "keep"}],
        "rows": "code LIKE '33%'",
        "purpose": "Vaccination",
        "starts_at": "2026-01-01T00:00:00+00:00",
        "expires_at": "2027-01-01T00:00:00+00:00",
        "data_on_end": "delete",
        "quota_records_per_day": None,
        "quota_keys_per_day": None,
        "topic": f"govbus.delivered.{subscriber}.{name}",
        "shared": False,
    }


def a_receipt(grant: str, resource: str, department: str) -> Shown:
    """What was answered for an ended grant: nothing yet."""
    return {
        "grant": grant,
        "version": 2,
        "resource": resource,
        "department": department,
        "state": "revoked",
        "duty": "delete",
        "ended_at": "2026-05-01T00:00:00+00:00",
        "status": "not answered",
        "line": f"receipt of {department} for {grant} version 2 (delete): not answered since 2026-05-01",
    }


@dataclass
class StillControl:
    """:class:`~govbus_console.control.interface.Control` over fixed data; it notes what it was told to do."""

    who: str = "tester"
    known_resources: list[Shown] = field(
        default_factory=lambda: [
            a_resource("civil.protected", share_type="withheld", title="Protected persons"),
            a_resource("civil.residents"),
            a_resource("stats.divisions", share_type="unconditional", title="Division codes"),
        ]
    )
    known_grants: list[Shown] = field(
        default_factory=lambda: [
            a_grant("health-residents", "civil.residents", "health"),
            a_grant("tax-divisions", "stats.divisions", "tax"),
        ]
    )
    done: list[tuple[str, ...]] = field(default_factory=list)
    raises: Exception | None = None
    """What the next question ends with."""

    def departments(self) -> Sequence[Shown]:
        self._asked()
        return [{"department": name, "title": name.title()} for name in DEPARTMENTS]

    def resources(self, *, text: str = "", share_type: str = "") -> Sequence[Shown]:
        self._asked()
        return [entry for entry in self.known_resources if share_type in ("", entry["share_type"])]

    def resource(self, ref: str) -> Shown:
        self._asked()
        return self._one(self.known_resources, "resource", ref)

    def grants(
        self, *, owner: str = "", resource: str = "", subscriber: str = "", state: str = ""
    ) -> Sequence[Shown]:
        self._asked()
        return [
            grant
            for grant in self.known_grants
            if owner in ("", grant["resource"].partition(".")[0])
            and resource in ("", grant["resource"])
            and subscriber in ("", grant["subscriber"])
            and state in ("", grant["state"])
        ]

    def grant(self, grant_id: str) -> Shown:
        self._asked()
        return self._one(self.known_grants, "grant", grant_id)

    def grant_history(self, grant_id: str) -> Shown:
        made = {"version": 1, "state": "active", "made_at": "2026-01-01T00:00:00+00:00", "changes": []}
        said = {"who": "wang-civil", "why": "agreed", "decided": None}
        found = {"reason": "permitted", "held": [], "versions": [made | said], "receipt": None}
        return {"grant": self.grant(grant_id), **found}

    def suspend(self, grant_id: str, *, why: str) -> Shown:
        return self._changed("suspend", grant_id, "suspended", why)

    def resume(self, grant_id: str, *, why: str) -> Shown:
        return self._changed("resume", grant_id, "active", why)

    def revoke(
        self, grant_id: str, *, why: str, data: DataDuty | None = None, wait_seconds: float = 0.0
    ) -> Shown:
        return self._changed("revoke", grant_id, "revoked", why)

    def status(self) -> Shown:
        self._asked()
        return {
            "home": "/srv/govbus",
            "running": False,
            "processes": [],
            "unpublished": 0,
            "resources": [],
            "grants": [],
            "workers": [],
        }

    def _asked(self) -> None:
        if self.raises is not None:
            raise self.raises

    def _one(self, entries: Sequence[Shown], key: str, name: str) -> Shown:
        found = next((entry for entry in entries if entry[key] == name), None)
        if found is None:
            raise NotFoundError(f"there is no such {key}")
        return found

    def _changed(self, what: str, grant_id: str, state: str, why: str) -> Shown:
        self._asked()
        self.done.append((what, grant_id, self.who, why))
        return {
            "grant": grant_id,
            "version": 2,
            "state": state,
            "data_on_end": "delete",
            "already": False,
            "barrier_ms": 12.5,
            "fenced_workers": [],
            "receipt": None,
        }


@dataclass
class StillReceipts:
    """:class:`~govbus_console.control.interface.Receipts` over fixed data; it notes what it pinned."""

    known: list[Shown] = field(
        default_factory=lambda: [
            a_receipt("health-clinics", "civil.residents", "health"),
            a_receipt("tax-roads", "stats.divisions", "tax"),
        ]
    )
    pinned: dict[str, str] = field(default_factory=dict)
    done: list[tuple[str, ...]] = field(default_factory=list)
    who: str = "tester"

    def receipts(self, *, department: str = "") -> Sequence[Shown]:
        return [each for each in self.known if department in ("", each["department"])]

    def key(self, department: str) -> Shown:
        if department not in DEPARTMENTS:
            raise NotFoundError(f"there is no department {department!r}")
        return {"department": department, "pinned": self.pinned.get(department)}

    def enrol(self, department: str, public_key: str, *, why: str) -> Shown:
        self.key(department)
        self.done.append(("enrol", department, self.who, why))
        self.pinned[department] = public_key
        return self.key(department)


def an_explanation(record: str, to: str, at: datetime | None) -> Shown:
    """An answer about a row, of the shape that every answer has."""
    return {
        "record": record,
        "to": to,
        "at": "2026-06-01T12:00:00.123456+00:00" if at is None else at.isoformat(),
        "answer": "not-shared",
        "stopped_by": "row-filter",
        "grant": "health-residents",
        "version": 1,
        "gates": [
            {"gate": "captured", "status": "pass", "why": "it is there", "at": "2026-05-31T12:00:00+00:00"},
            {"gate": "row-filter", "status": "stop", "why": "not true", "at": None},
        ],
        "others": [{"grant": "health-more", "version": 3, "answer": "unknown", "stopped_by": None}],
        "same_answer_now": True,
        "next": "govbus plan --file catalogue.yaml",
    }


def receptions(record: str) -> Shown:
    """Who received a row, of the shape that every answer has."""
    return {
        "record": record,
        "at": "2026-06-01T12:00:00+00:00",
        "history_complete": False,
        "received": [
            {
                "department": "health",
                "grant": "health-residents",
                "version": 1,
                "purpose": "Vaccination",
                "fields": [
                    {"name": "code", "transform": "keep"},
                    {"name": "name", "transform": {"truncate": 1}},
                ],
                "certainty": "delivered",
                "first": "2026-05-31T12:00:01+00:00",
                "last": "2026-05-31T12:00:01+00:00",
                "deliveries": [
                    {
                        "topic": "govbus.delivered.health.health-residents",
                        "partition": 0,
                        "offset": 17,
                        "changed_at": "2026-05-31T12:00:00+00:00",
                        "decided_at": "2026-05-31T12:00:01+00:00",
                    }
                ],
                "in_force_from": "2026-05-01T00:00:00+00:00",
                "in_force_until": None,
                "shared": False,
                "why": "",
            }
        ],
    }
