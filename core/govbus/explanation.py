"""Why a department received one row, or did not: the gates of the bus, asked again one by one.

Nothing here is looked up in a log of denials. The decision is made again, by the
code that the exchange decides with (:func:`govbus.policy.decide`,
:func:`govbus.view.compile_view`), from the grant version and the row as they
were at the moment in question. Everything arrives as an argument, so the same
question always has the same answer.

1. The gates are asked in the order of the flow. The first that stops is the reason, and the gates
   behind it are still asked where they can be, so that one question shows everything that stands
   in the way.
2. One stop is a no. Without a stop, one gate that cannot be judged makes the answer *unknown*; only
   when every gate passes is it *shared*.
3. A topic that is compacted may have forgotten how a row was. Then the gates that need the row are
   *unknown*, and no row is made up for them: not the one before, nor the one after.
4. Where a delivery stands, whether it has landed and what came after is evidence
   (:mod:`govbus.deliverytrail`). It is told beside the answer and never changes it.
5. A gate names fields, transforms and conditions of the row filter. It never holds a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from govbus.avro import Definitions
from govbus.catalogue import Classification, Resource, ResourceKind, ShareType
from govbus.compiledview import CompiledView
from govbus.contract import DataContract
from govbus.errors import (
    ContractViolationError,
    OversizedRecordError,
    RefusedError,
    RejectedRecordError,
    UndecodableRecordError,
    UnknownSchemaError,
    ViewError,
)
from govbus.event import RecordAddress
from govbus.grant import Grant, GrantState, PublishedGrant
from govbus.policy import Reason, check_grant, decide
from govbus.rowfilter import parse_filter
from govbus.splice import MalformedAvroError, Walker
from govbus.view import PseudonymKeys, WriterSchema, compile_view

_HEADER_BYTES = 5
"""The Confluent wire format's: magic byte 0 and the schema id, big-endian."""


class GateName(StrEnum):
    """The gates, in the order in which a row meets them."""

    CAPTURED = "captured"
    VALID = "valid"
    PUBLISHED = "published"
    SHARE_TYPE = "share-type"
    GRANT = "grant"
    TERM = "term"
    CLASSIFICATION = "classification"
    FIELDS = "fields"
    ROWS = "row-filter"
    ROUTED = "routed"
    LANDED = "landed"
    AFTERWARDS = "afterwards"


JUDGED = tuple(GateName)[: tuple(GateName).index(GateName.ROUTED)]
"""The gates that make the answer; those behind them are evidence."""


class Status(StrEnum):
    """What became of the row at one gate."""

    PASS = "pass"  # noqa: S105 - not a password
    STOP = "stop"
    UNKNOWN = "unknown"
    NOT_ASKED = "not-asked"
    """A gate before it left nothing to ask about."""


class Answer(StrEnum):
    """What the gates come to."""

    SHARED = "shared"
    NOT_SHARED = "not-shared"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One gate: whether the row came through, why, and the moment that the reason is about."""

    name: GateName
    status: Status
    why: str
    """For a person, without a field's value."""

    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowVersion:
    """One row as one record of its captured topic has it."""

    at: RecordAddress
    key: bytes
    value: bytes | None
    """None: the row is gone."""

    changed_at: datetime
    """The record's Kafka timestamp: when the source committed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowHistory:
    """What the captured topic still holds of one row, oldest first.

    Compaction keeps the newest version and goes through the topic from its beginning, so what it takes
    is always the oldest part: between two versions that are there, none is missing.
    """

    versions: tuple[RowVersion, ...]
    complete: bool
    """Nothing was ever taken out of the partition, so before the first version there was none."""

    def as_of(self, moment: datetime | None) -> RowVersion | None:
        """Return the version that counted at a moment, or the newest; None when none is known."""
        found = None
        for version in self.versions:
            if moment is None or version.changed_at <= moment:
                found = version
        return found

    def after(self, version: RowVersion | None) -> RowVersion | None:
        """Return the version that followed, or None."""
        if version is None:
            return self.versions[0] if self.versions else None
        later = [one for one in self.versions if one.at.offset > version.at.offset]
        return later[0] if later else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantVersion:
    """A grant version with the moment from which it counted."""

    published: PublishedGrant
    made_at: datetime

    @property
    def grant(self) -> Grant:
        """The agreement itself."""
        return self.published.grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Everything that the answer depends on, as it was at one moment."""

    at: datetime
    latest: bool
    """The question is about now: the newest version of the row counts, whatever its source's clock says."""

    resource: Resource
    share_type: ShareType | None
    """The resource's at that moment; None: it was not in the catalogue yet."""

    granted: GrantVersion | None
    """The version that counted; None: the department had no grant."""

    contract: DataContract
    """That the grant was made for. Fields that the owner has opened count as internal."""

    history: RowHistory
    schemas: Mapping[int, WriterSchema]
    """By id: the row's, the resource's and the view's. One that is missing is unknown to the registry."""

    pseudonym_key: PseudonymKeys | None
    """None: the secret is not at hand. Whether a row comes through does not depend on it."""

    largest: int
    """Bytes of key and value together that a delivery may have."""

    @property
    def row(self) -> RowVersion | None:
        """The row as it was; None when there was none, or none is known."""
        return self.history.as_of(None if self.latest else self.at)


def answer_of(gates: Sequence[Gate]) -> tuple[Answer, GateName | None]:
    """Say what the gates come to, and the first that stopped the row."""
    judged = [gate for gate in gates if gate.name in JUDGED]
    for gate in judged:
        if gate.status is Status.STOP:
            return Answer.NOT_SHARED, gate.name
    if judged and all(gate.status is Status.PASS for gate in judged):
        return Answer.SHARED, None
    return Answer.UNKNOWN, None


def judge(c: Circumstances) -> tuple[Gate, ...]:
    """Ask the gates that make the answer. Never raises: what cannot be judged is not a pass."""
    row = c.row
    captured = _captured(c, row)
    valid, walker = _valid(c, row)
    share_type, grant, term, empty = _decided(c)
    classification = _classified(c)
    if empty is not None:
        fields, rows = empty, not_asked(GateName.ROWS, "there is nothing to show")
    else:
        fields, rows = _viewed(c, row, walker)
    return (
        captured,
        valid,
        _published(c, row),
        share_type,
        grant,
        term,
        classification,
        fields,
        rows,
    )


# -- the row ---------------------------------------------------------------------------------------


def _captured(c: Circumstances, row: RowVersion | None) -> Gate:
    name = GateName.CAPTURED
    if row is not None:
        if row.value is None:
            return Gate(
                name=name, status=Status.STOP, why="the owner has deleted this row", at=row.changed_at
            )
        return Gate(name=name, status=Status.PASS, why="the owner's change was captured", at=row.changed_at)
    first = c.history.after(None)
    if c.history.complete:
        why = "no change of this row was ever captured"
        if first is not None:
            why = "no change of this row had been captured by then; the first came later"
        return stopped(name, why, first.changed_at if first else None)
    if first is None and c.latest:
        return stopped(
            name,
            "the topic holds no row with this key: none was captured, or it was deleted so long ago that "
            "the deletion is gone too",
        )
    if first is None:
        why = "compacted away: the topic holds nothing under this key any more, if it ever did"
    else:
        why = "compacted away: the oldest version that the topic still holds is from later"
    return Gate(name=name, status=Status.UNKNOWN, why=why, at=None if first is None else first.changed_at)


def _published(c: Circumstances, row: RowVersion | None) -> Gate:
    name = GateName.PUBLISHED
    if row is None:
        return _without_row(c, name)
    return Gate(name=name, status=Status.PASS, why=f"acknowledged at {row.at}", at=row.changed_at)


def _valid(c: Circumstances, row: RowVersion | None) -> tuple[Gate, Walker | None]:
    name = GateName.VALID
    if row is None:
        return _without_row(c, name), None
    try:
        walker = check_row(row, c.resource, c.schemas)
    except RejectedRecordError as error:
        why = f"dead-lettered as {error.code}: {error.detail}"
        return Gate(name=name, status=Status.STOP, why=why, at=row.changed_at), None
    why = "a deletion under the resource's key" if walker is None else "a record that keeps the contract"
    return Gate(name=name, status=Status.PASS, why=why, at=row.changed_at), walker


def check_row(row: RowVersion, resource: Resource, schemas: Mapping[int, WriterSchema]) -> Walker | None:
    """Hold one record to what the exchange asks of every record, before any grant is looked at.

    Returns:
        What walked the record, or None: it is a deletion, and in order.

    Raises:
        RejectedRecordError: the exchange dead-letters it, with the same code.
    """
    key, value = row.key, row.value
    if not key.startswith(_header(resource.key_schema_id)):
        raise ContractViolationError("the key is not under the resource's key schema")
    if value is None:
        _check_deletion(key, resource, schemas)
        return None
    if len(value) < _HEADER_BYTES or value[0] != 0:
        raise UndecodableRecordError("no Confluent header")
    writer = schemas.get(int.from_bytes(value[1:_HEADER_BYTES], "big"))
    contract = schemas.get(resource.value_schema_id)
    if writer is None or contract is None:
        raise UnknownSchemaError("the registry does not know the schema of the record")
    if _full_name(writer.raw) != _full_name(contract.raw):
        raise ContractViolationError(f"schema {writer.id} describes another kind of record")
    try:
        walker = Walker(writer.raw)
    except ValueError:
        raise UndecodableRecordError(f"schema {writer.id} cannot be used to read records") from None
    if any(name not in walker.names for name in resource.key):
        raise ContractViolationError(f"schema {writer.id} lacks a key field")
    try:
        walker.walk(value, _HEADER_BYTES)
    except MalformedAvroError as error:
        raise UndecodableRecordError(str(error)) from None
    own = b"".join([walker.field(walker.names.index(name)) for name in resource.key])
    if key[_HEADER_BYTES:] != own:
        raise ContractViolationError("the key is not that of the row")
    return walker


def _check_deletion(key: bytes, resource: Resource, schemas: Mapping[int, WriterSchema]) -> None:
    if resource.kind is ResourceKind.EVENT:
        raise ContractViolationError("an event has a value")
    keys = schemas.get(resource.key_schema_id)
    if keys is None:
        raise UnknownSchemaError("the registry does not know the key's schema")
    try:
        Walker(keys.raw).walk(key, _HEADER_BYTES)
    except MalformedAvroError as error:
        raise UndecodableRecordError(str(error)) from None


def _without_row(c: Circumstances, name: GateName) -> Gate:
    if c.history.complete or c.latest:
        return not_asked(name, "there was no row to ask about")
    return Gate(name=name, status=Status.UNKNOWN, why="how the row was then is not known any more")


# -- the agreement ---------------------------------------------------------------------------------


def _decided(c: Circumstances) -> tuple[Gate, Gate, Gate, Gate | None]:
    """Ask the policy: share type, grant, term, and a stop at the fields when it names none.

    The policy gives the first reason alone. To learn what stands behind it, it is asked again as if
    that reason were mended.
    """
    share_type = _share_type(c)
    if c.granted is None:
        grant = stopped(GateName.GRANT, "the department had no grant for this resource")
        return share_type, grant, not_asked(GateName.TERM, "there was no grant"), None
    agreed = c.granted.grant
    reason = _reason(c, agreed)
    grant = _in_state(c.granted, reason)
    if grant.status is Status.STOP:
        reason = _reason(c, replace(agreed, state=GrantState.ACTIVE))
    empty = None
    if reason is Reason.NO_FIELDS:
        empty = stopped(GateName.FIELDS, "the grant names no field, so it shares nothing", c.granted.made_at)
    return share_type, grant, _in_term(agreed, reason), empty


def _share_type(c: Circumstances) -> Gate:
    name, ref = GateName.SHARE_TYPE, c.resource.ref
    if c.share_type is None:
        return stopped(name, f"{ref} was not in the catalogue yet")
    decision = decide(share_type=c.share_type, grant=None, now=c.at, fresh=True)
    if decision.reason is Reason.RESOURCE_WITHHELD:
        return stopped(name, f"{ref} is withheld: nothing of it may be shared")
    return Gate(name=name, status=Status.PASS, why=f"{ref} is {c.share_type}")


def _reason(c: Circumstances, grant: Grant) -> Reason:
    return decide(share_type=ShareType.CONDITIONAL, grant=grant, now=c.at, fresh=True).reason


def _in_state(granted: GrantVersion, reason: Reason) -> Gate:
    grant = granted.grant
    which = f"{grant.id} version {grant.version}"
    ended = (Reason.GRANT_SUSPENDED, Reason.GRANT_REVOKED, Reason.COULD_NOT_DECIDE)
    if grant.state is GrantState.EXPIRED or reason in ended:
        return stopped(GateName.GRANT, f"{which} is {grant.state}", granted.made_at)
    return Gate(name=GateName.GRANT, status=Status.PASS, why=f"{which} is {grant.state}", at=granted.made_at)


def _in_term(grant: Grant, reason: Reason) -> Gate:
    name, purpose = GateName.TERM, f"purpose: {grant.purpose}"
    if reason is Reason.GRANT_NOT_STARTED:
        return stopped(name, f"the term had not begun; {purpose}", grant.starts_at)
    if reason is Reason.GRANT_EXPIRED:
        return stopped(name, f"the term was over; {purpose}", grant.expires_at)
    if reason in (Reason.PERMITTED, Reason.NO_FIELDS):
        return Gate(name=name, status=Status.PASS, why=f"within the term; {purpose}", at=grant.expires_at)
    return stopped(name, f"could not be decided ({reason})")


def _classified(c: Circumstances) -> Gate:
    """Hold the grant to its contract once more, as was done when it was made."""
    name = GateName.CLASSIFICATION
    if c.granted is None:
        return not_asked(name, "there was no grant")
    grant = c.granted.grant
    if not grant.fields:
        return not_asked(name, "the grant names no field")
    try:
        # Withheld and ended grants are stopped at gates of their own; here only the fields count.
        share_type = c.share_type if c.share_type is ShareType.UNCONDITIONAL else ShareType.CONDITIONAL
        check_grant(grant, c.contract, share_type)
    except RefusedError as error:
        return stopped(name, f"such a grant is refused when it is made: {error}")
    grades: dict[Classification, list[str]] = {}
    for rule in grant.fields:
        grades.setdefault(c.contract.field(rule.name).classification, []).append(rule.name)
    listed = "; ".join(f"{grade}: {', '.join(grades[grade])}" for grade in Classification if grade in grades)
    return Gate(name=name, status=Status.PASS, why=listed)


# -- the view --------------------------------------------------------------------------------------


def _viewed(c: Circumstances, row: RowVersion | None, walker: Walker | None) -> tuple[Gate, Gate]:
    """Ask the view of the row: can the fields be shown, and is the row filter TRUE."""
    names = (GateName.FIELDS, GateName.ROWS)
    if c.granted is None:
        fields, rows = (not_asked(name, "there was no grant") for name in names)
        return fields, rows
    if row is None or walker is None:
        if row is None:
            fields, rows = (_without_row(c, name) for name in names)
        else:
            fields, rows = (not_asked(name, "there is no valid row to ask about") for name in names)
        return fields, rows
    try:
        view = compiled(c, row.value)
    except RejectedRecordError as error:
        return (
            stopped(GateName.FIELDS, f"dead-lettered in the grant's name: {error.detail}"),
            not_asked(GateName.ROWS, "there is no view to ask"),
        )
    return _shown(c, row, walker, view), _matched(c, walker, view)


def compiled(c: Circumstances, value: bytes | None) -> CompiledView:
    """Make the view of one record's value as the exchange would; of the contract's own for a deletion.

    Without the pseudonyms' secret it is made with a key that is none: rows come through, or do not, as
    they would with the right one. What such a view shows must not be used.

    Raises:
        ViewError: nothing of a record like this one can be delivered under the grant.
    """
    if c.granted is None:
        raise ViewError("there is no grant")
    published = c.granted.published
    wanted = c.resource.value_schema_id
    if value is not None:
        wanted = int.from_bytes(value[1:_HEADER_BYTES], "big")
    writer = c.schemas.get(wanted)
    shown = c.schemas.get(published.value_schema_id)
    if writer is None or shown is None:
        raise ViewError("the registry does not know a schema that the view needs")
    return compile_view(
        writer=writer,
        resource=c.resource,
        published=published,
        view_raw=shown.raw,
        pseudonym_key=c.pseudonym_key or _no_key,
    )


def delivered_key(c: Circumstances, key: bytes) -> bytes:
    """Return the key under which a row with this key is delivered, framed.

    Only meaningful with the pseudonyms' secret, where the grant has a pseudonymised key.

    Raises:
        RejectedRecordError: there is none.
    """
    keys = c.schemas.get(c.resource.key_schema_id)
    return compiled(c, None).key(key, None if keys is None else Walker(keys.raw))


def _no_key(epoch: int) -> bytes:  # noqa: ARG001 - the shape of PseudonymKeys
    return bytes(32)


def _shown(c: Circumstances, row: RowVersion, walker: Walker, view: CompiledView) -> Gate:
    name = GateName.FIELDS
    try:
        keys = c.schemas.get(c.resource.key_schema_id)
        size = len(view.key(row.key, None if keys is None else Walker(keys.raw))) + len(view.project(walker))
        if size > c.largest:
            raise OversizedRecordError("the projected record is larger than a record may be")
    except RejectedRecordError as error:
        return stopped(name, f"dead-lettered in the grant's name: {error.detail}")
    assert c.granted is not None  # noqa: S101 - there is a view, so there is a grant
    return Gate(name=name, status=Status.PASS, why=describe_fields(c.granted.grant))


def describe_fields(grant: Grant) -> str:
    """Name the granted fields, each with its transform where it has one."""
    return describe_specs((rule.name, rule.transform.spec()) for rule in grant.fields)


def describe_specs(fields: Iterable[tuple[str, Any]]) -> str:
    """The same of names with the specs of their transforms."""
    listed = []
    for name, spec in fields:
        word = spec if isinstance(spec, str) else next(iter(spec))
        listed.append(name if word == "keep" else f"{name} ({word})")
    return ", ".join(listed)


def _matched(c: Circumstances, walker: Walker, view: CompiledView) -> Gate:
    name = GateName.ROWS
    assert c.granted is not None  # noqa: S101 - there is a view, so there is a grant
    text = c.granted.grant.rows
    if text is None:
        return Gate(name=name, status=Status.PASS, why="the grant lets every row through")
    try:
        if view.matches(walker):
            return Gate(name=name, status=Status.PASS, why=f"true: {text}")
        written = Definitions(walker.schema)
        fields = written.record["fields"]
        rows = parse_filter(text, {one["name"]: written.spell(one["type"], home="govbus") for one in fields})
        values = [walker.value(walker.names.index(field)) for field in rows.fields]
        return stopped(name, "not true: " + "; ".join(rows.not_true(values)))
    except ViewError as error:
        return stopped(name, f"dead-lettered in the grant's name: {error.detail}")


# -- the parts of all of these ------------------------------------------------------------------------


def stopped(name: GateName, why: str, at: datetime | None = None) -> Gate:
    """A gate that stopped the row."""
    return Gate(name=name, status=Status.STOP, why=why, at=at)


def unknown(name: GateName, why: str) -> Gate:
    """A gate that cannot be judged."""
    return Gate(name=name, status=Status.UNKNOWN, why=why)


def not_asked(name: GateName, why: str) -> Gate:
    """A gate without anything to ask about."""
    return Gate(name=name, status=Status.NOT_ASKED, why=why)


def _header(schema_id: int) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big")


def _full_name(raw: Mapping[str, object]) -> str:
    """An Avro record's full name: name and namespace, however they are written."""
    name = str(raw.get("name", ""))
    return name if "." in name or not raw.get("namespace") else f"{raw['namespace']}.{name}"
