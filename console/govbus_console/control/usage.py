"""Who receives what, and whether a department may: answered from the store by the policy itself. Does I/O.

Both questions are put to :func:`govbus.policy.decide`, which the exchange asks,
for the grant versions that count now; so an answer is what is enforced, up to
what has been decided in this moment and is on its way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from govbus.catalogue import ShareType
from govbus.errors import NotFoundError, RefusedError
from govbus.grant import FieldRule, Grant
from govbus.policy import Decision, Reason, decide
from govbus.topics import is_name
from govbus_console.control.store import (
    ContractRow,
    ControlStore,
    DepartmentRow,
    GrantRow,
    ResourceRow,
    stored_grant,
)

FIELD_NOT_GRANTED = "field-not-granted"
"""A grant is in force and does not name the field that was asked for."""

_NEAREST = (
    Reason.PERMITTED,
    Reason.NO_FIELDS,
    Reason.GRANT_SUSPENDED,
    Reason.GRANT_NOT_STARTED,
    Reason.GRANT_EXPIRED,
    Reason.GRANT_REVOKED,
)
"""With several grants, the reason of the one that is nearest to a yes is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class What:
    """A resource, or one field of it."""

    owner: str
    resource: str
    field: str | None

    @classmethod
    def parse(cls, text: str) -> What:
        """Read ``owner.resource`` or ``owner.resource.field``; RefusedError when it is neither."""
        owner, _, rest = text.partition(".")
        resource, dot, field = rest.partition(".")
        if not (is_name(owner) and is_name(resource)) or (dot and not field):
            raise RefusedError(f"{text!r} is neither owner.resource nor owner.resource.field")
        return cls(owner=owner, resource=resource, field=field or None)

    @property
    def ref(self) -> str:
        """``owner.resource``."""
        return f"{self.owner}.{self.resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One department's grant of a resource, and what it comes to now."""

    department: str
    """The subscriber's title, for people."""

    grant: Grant
    decision: Decision
    fields: tuple[FieldRule, ...]
    """Of those that were asked for, what is delivered and how; empty when nothing is."""

    def as_json(self) -> dict[str, Any]:
        """In the shape that ``--json`` prints and the API answers with."""
        grant = self.grant
        return {
            "department": grant.subscriber,
            "title": self.department,
            "grant": grant.id,
            "version": grant.version,
            "state": grant.state.value,
            "reason": self.decision.reason.value,
            "purpose": grant.purpose,
            "fields": [{"name": rule.name, "transform": rule.transform.spec()} for rule in self.fields],
            "rows": grant.rows,
            "starts_at": grant.starts_at.isoformat(),
            "expires_at": grant.expires_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether a department may receive something."""

    yes: bool
    reason: str
    """A reason code of the policy, or :data:`FIELD_NOT_GRANTED`."""

    use: Use | None
    """The grant that decides; None when there is none."""

    def as_json(self) -> dict[str, Any]:
        """In the shape that ``--json`` prints and the API answers with."""
        return {
            "answer": "yes" if self.yes else "no",
            "reason": self.reason,
            "use": None if self.use is None else self.use.as_json(),
        }


def who_uses(store: ControlStore, what: What, *, now: datetime, ended: bool = False) -> tuple[Use, ...]:
    """Find out who receives a resource, or a field of it, now.

    Args:
        store: the catalogue of record.
        what: what is asked about.
        now: with time zone.
        ended: also give the grants under which nothing is delivered now.

    Raises:
        NotFoundError: there is no such resource or field.
    """
    with store.reading() as session:
        share_type = _share_type(session, what)
        uses = _uses(session, what, share_type, now=now, subscriber=None)
    return tuple(use for use in uses if use.fields or ended)


def can(store: ControlStore, department: str, what: What, *, now: datetime) -> Answer:
    """Find out whether a department may receive a resource, or a field of it, now.

    Raises:
        NotFoundError: there is no such department, resource or field.
    """
    with store.reading() as session:
        row = session.get(DepartmentRow, department)
        if row is None or row.removed_at is not None:
            raise NotFoundError(f"there is no department {department!r}")
        share_type = _share_type(session, what)
        uses = _uses(session, what, share_type, now=now, subscriber=department)
    if not uses:
        none = decide(share_type=share_type, grant=None, now=now, fresh=True)
        return Answer(yes=False, reason=none.reason.value, use=None)
    best = min(uses, key=lambda use: (not use.fields, _distance(use.decision.reason), use.grant.id))
    if best.fields:
        return Answer(yes=True, reason=best.decision.reason.value, use=best)
    reason = FIELD_NOT_GRANTED if best.decision.permits else best.decision.reason.value
    return Answer(yes=False, reason=reason, use=best)


def _distance(reason: Reason) -> int:
    return _NEAREST.index(reason) if reason in _NEAREST else len(_NEAREST)


def _share_type(session: Session, what: What) -> ShareType:
    row = session.get(ResourceRow, (what.owner, what.resource))
    if row is None or row.removed_at is not None:
        raise NotFoundError(f"there is no resource {what.ref} in the catalogue; `govbus find` looks for one")
    if what.field is not None:
        contract = session.get_one(ContractRow, (what.owner, what.resource, row.contract_version))
        names = [field["name"] for field in json.loads(contract.schema)["fields"]]
        if what.field not in names:
            raise NotFoundError(f"{what.ref} has no field {what.field!r}; it has {', '.join(names)}")
    return ShareType(row.share_type)


def _uses(
    session: Session, what: What, share_type: ShareType, *, now: datetime, subscriber: str | None
) -> list[Use]:
    wanted = [GrantRow.owner == what.owner, GrantRow.resource == what.resource]
    if subscriber is not None:
        wanted.append(GrantRow.subscriber == subscriber)
    newest = (
        select(GrantRow.id, func.max(GrantRow.version).label("version"))
        .where(*wanted)
        .group_by(GrantRow.id)
        .subquery()
    )
    rows = session.execute(
        select(GrantRow, DepartmentRow.title)
        .join(newest, (GrantRow.id == newest.c.id) & (GrantRow.version == newest.c.version))
        .join(DepartmentRow, DepartmentRow.name == GrantRow.subscriber)
        .order_by(GrantRow.subscriber, GrantRow.id)
    )
    uses = []
    for row, title in rows:
        grant = stored_grant(row).grant
        decision = decide(share_type=share_type, grant=grant, now=now, fresh=True)
        fields = tuple(rule for rule in decision.fields if what.field in (None, rule.name))
        uses.append(Use(department=title, grant=grant, decision=decision, fields=fields))
    return uses
