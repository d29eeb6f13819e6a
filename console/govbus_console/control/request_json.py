"""Requests as JSON and back: one shape for ``--json``, for the API and for its client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from govbus.grant import DataDuty, FieldRule
from govbus.request import Ground, RequestKind, RequestState
from govbus.transform import parse_transform
from govbus_console.control.request_shapes import HOUR, Amendment, Ask, Happened, Request
from govbus_console.control.shown import Shown

ALL_ROWS = "all"
"""Asks for every row. Nothing means "all", so it has to be said."""


def show_request(request: Request) -> Shown:
    """A request as it stands."""
    return {
        "id": request.id,
        "kind": request.kind.value,
        "state": request.state.value,
        "requester": request.requester,
        "subscriber": request.subscriber,
        **show_ask(request.ask),
        "rows": request.ask.rows,
        "grant": request.grant_id,
        "grant_version": request.grant_version,
        "approvals_needed": request.approvals_needed,
        "approved_by": list(request.approved_by),
        "ground": None if request.ground is None else request.ground.value,
        "matching": request.matching,
        "counted_at": _shown(request.counted_at),
        "made_at": _shown(request.made_at),
        "submitted_at": _shown(request.submitted_at),
        "changed_at": _shown(request.changed_at),
        "due_at": _shown(request.due_at),
        "granted_by": request.granted_by,
        "review": request.review,
        "review_due_at": _shown(request.review_due_at),
        "reviewed_by": request.reviewed_by,
        "upheld": request.upheld,
    }


def read_shown_request(shown: Mapping[str, Any]) -> Request:
    """The request that :func:`show_request` showed."""
    return Request(
        id=shown["id"],
        kind=RequestKind(shown["kind"]),
        state=RequestState(shown["state"]),
        requester=shown["requester"],
        subscriber=shown["subscriber"],
        ask=read_ask({**shown, "rows": shown["rows"] or ALL_ROWS}),
        grant_id=shown["grant"],
        grant_version=shown["grant_version"],
        approvals_needed=shown["approvals_needed"],
        approved_by=tuple(shown["approved_by"]),
        ground=None if shown["ground"] is None else Ground(shown["ground"]),
        matching=shown["matching"],
        counted_at=_read(shown["counted_at"]),
        made_at=datetime.fromisoformat(shown["made_at"]),
        submitted_at=_read(shown["submitted_at"]),
        changed_at=datetime.fromisoformat(shown["changed_at"]),
        due_at=_read(shown["due_at"]),
        granted_by=shown["granted_by"],
        review=shown["review"],
        review_due_at=_read(shown["review_due_at"]),
        reviewed_by=shown["reviewed_by"],
        upheld=shown["upheld"],
    )


def show_ask(ask: Ask) -> Shown:
    """What is asked for."""
    return {
        "resource": ask.resource,
        "fields": _show_fields(ask.fields),
        "rows": ALL_ROWS if ask.rows is None else ask.rows,
        "purpose": ask.purpose,
        "legal_basis": ask.legal_basis,
        "term_hours": ask.term // HOUR,
        "data_on_end": ask.data_on_end.value,
        "quota_records_per_day": ask.quota_records_per_day,
        "quota_keys_per_day": ask.quota_keys_per_day,
    }


def read_ask(given: Mapping[str, Any]) -> Ask:
    """What is asked for, out of JSON.

    Raises:
        TransformRefusedError: a field is to be treated in a way that there is not.
    """
    return Ask(
        resource=given["resource"],
        fields=_read_fields(given["fields"]),
        rows=None if given["rows"] == ALL_ROWS else given["rows"],
        purpose=given["purpose"],
        legal_basis=given["legal_basis"],
        term=timedelta(hours=given["term_hours"]),
        data_on_end=DataDuty(given["data_on_end"]),
        quota_records_per_day=given["quota_records_per_day"],
        quota_keys_per_day=given["quota_keys_per_day"],
    )


def show_amendment(change: Amendment) -> Shown:
    """What is to become different; null: stays."""
    return {
        "fields": None if change.fields is None else _show_fields(change.fields),
        "rows": change.rows,
        "term_hours": None if change.term is None else change.term // HOUR,
        "data_on_end": None if change.data_on_end is None else change.data_on_end.value,
        "quota_records_per_day": change.quota_records_per_day,
        "quota_keys_per_day": change.quota_keys_per_day,
    }


def read_amendment(given: Mapping[str, Any]) -> Amendment:
    """The amendment that :func:`show_amendment` showed; raises as :func:`read_ask` does."""
    fields, hours, duty = given["fields"], given["term_hours"], given["data_on_end"]
    return Amendment(
        fields=None if fields is None else _read_fields(fields),
        rows=given["rows"],
        term=None if hours is None else timedelta(hours=hours),
        data_on_end=None if duty is None else DataDuty(duty),
        quota_records_per_day=given["quota_records_per_day"],
        quota_keys_per_day=given["quota_keys_per_day"],
    )


def show_happened(happened: Happened) -> Shown:
    """One line of a request's history."""
    return {
        "at": happened.at.isoformat(),
        "who": happened.who,
        "action": happened.action,
        "before": happened.before,
        "after": happened.after,
        "said": happened.said,
    }


def read_happened(shown: Mapping[str, Any]) -> Happened:
    """The line that :func:`show_happened` showed."""
    return Happened(**{**shown, "at": datetime.fromisoformat(shown["at"])})


def _show_fields(rules: Sequence[FieldRule]) -> list[Shown]:
    return [{"name": rule.name, "transform": rule.transform.spec()} for rule in rules]


def _read_fields(given: Sequence[Mapping[str, Any]]) -> tuple[FieldRule, ...]:
    return tuple(
        FieldRule(name=field["name"], transform=parse_transform(field["transform"])) for field in given
    )


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _read(shown: str | None) -> datetime | None:
    return None if shown is None else datetime.fromisoformat(shown)
