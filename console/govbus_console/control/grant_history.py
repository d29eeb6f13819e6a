"""One grant from its first version to now: what changed, who decided, whether it delivers. Does I/O.

A version was made by a request, by a catalogue file, or by a change of state. The
audit says who wrote each and why; a request beside it says who asked and who
approved. Nothing is kept for this: it is read from what is of record anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from govbus.catalogue import ShareType
from govbus.errors import NotFoundError
from govbus.grant import PublishedGrant
from govbus.policy import Reason, decide
from govbus.request import FOLLOWED
from govbus_console.control import shown
from govbus_console.control.planned import agreed_facts, differences
from govbus_console.control.receipts import Standing, standing_of
from govbus_console.control.request_shapes import approvers
from govbus_console.control.request_tables import RequestRow
from govbus_console.control.shown import Shown
from govbus_console.control.store import (
    AuditRow,
    ControlStore,
    GrantRow,
    ResourceRow,
    StoredGrant,
    stored_grant,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The request that a version was made for."""

    request: str
    kind: str
    requester: str
    approved_by: tuple[str, ...]
    granted_by: str | None
    """Who granted in an emergency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a grant, and how it came to be."""

    stored: StoredGrant
    who: str
    why: str
    changes: tuple[str, ...]
    """What is otherwise than in the version before; nothing in the first."""

    decided: Decided | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantHistory:
    """All versions of one grant."""

    versions: Sequence[Version]
    """Oldest first; there is one at least."""

    reason: Reason
    """Why it delivers now, or does not, by the policy that the exchange enforces."""

    receipt: Standing | None
    """What its subscriber has answered for it; None while it has not ended."""

    at: datetime

    @property
    def newest(self) -> PublishedGrant:
        """The version that counts."""
        return self.versions[-1].stored.published

    def as_json(self, *, held: Sequence[str] | None) -> Shown:
        """The same for a script.

        Args:
            held: why workers hold it back all the same; None: nobody can say.
        """
        return {
            "grant": shown.grant(self.versions[-1].stored, now=self.at),
            "reason": self.reason.value,
            "held": None if held is None else list(held),
            "versions": [_version(one) for one in self.versions],
            "receipt": None if self.receipt is None else shown.receipt(self.receipt),
        }


def read(store: ControlStore, grant_id: str, *, now: datetime) -> GrantHistory:
    """Read one grant.

    Raises:
        NotFoundError: there is none of this id.
    """
    with store.reading() as session:
        rows = session.scalars(select(GrantRow).where(GrantRow.id == grant_id).order_by(GrantRow.version))
        versions = [stored_grant(row) for row in rows]
        if not versions:
            raise NotFoundError(
                f"there is no grant {grant_id!r}; govbus grant list shows those that there are"
            )
        newest = versions[-1]
        resource = session.get_one(ResourceRow, (newest.grant.owner, newest.grant.resource))
        # What was taken out of the catalogue is withheld, as the exchange has been told.
        gone = resource.removed_at is not None
        share_type = ShareType.WITHHELD if gone else ShareType(resource.share_type)
        return GrantHistory(
            versions=_versions(session, versions),
            reason=decide(share_type=share_type, grant=newest.grant, now=now, fresh=True).reason,
            receipt=standing_of(session, newest),
            at=now,
        )


def _versions(session: Session, versions: Sequence[StoredGrant]) -> Sequence[Version]:
    grant_id = versions[0].grant.id
    written: dict[int, AuditRow] = {
        row.after["version"]: row
        for row in session.scalars(select(AuditRow).where(AuditRow.what == f"grant {grant_id}"))
        if row.after is not None
    }
    made = {
        row.grant_version: row
        for row in session.scalars(
            select(RequestRow).where(
                RequestRow.grant_id == grant_id, RequestRow.state.in_([state.value for state in FOLLOWED])
            )
        )
    }
    found = []
    for before, stored in zip([None, *versions], versions, strict=False):
        number = stored.grant.version
        audit, request = written[number], made.get(number)
        found.append(
            Version(
                stored=stored,
                who=audit.who,
                why=audit.why,
                changes=() if before is None else _changes(before, stored),
                decided=None if request is None else _decided(session, request),
            )
        )
    return found


def _changes(before: StoredGrant, after: StoredGrant) -> tuple[str, ...]:
    return differences(
        [
            ("state", before.grant.state.value, after.grant.state.value),
            *agreed_facts(before.grant, after.grant),
            ("contract", before.contract_version, after.contract_version),
            ("topic", before.published.delivery_topic, after.published.delivery_topic),
        ]
    )


def _decided(session: Session, row: RequestRow) -> Decided:
    return Decided(
        request=row.id,
        kind=row.kind,
        requester=row.requester,
        approved_by=tuple(approvers(session, row)),
        granted_by=row.granted_by,
    )


def _version(one: Version) -> dict[str, Any]:
    decided = one.decided
    return {
        "version": one.stored.grant.version,
        "state": one.stored.grant.state.value,
        "made_at": one.stored.made_at.isoformat(),
        "who": one.who,
        "why": one.why,
        "changes": list(one.changes),
        "decided": None
        if decided is None
        else {
            "request": decided.request,
            "kind": decided.kind,
            "requester": decided.requester,
            "approved_by": list(decided.approved_by),
            "granted_by": decided.granted_by,
        },
    }
