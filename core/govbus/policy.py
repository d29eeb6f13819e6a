"""Decide whether a department may receive a change, and which fields of it.

This is the policy decision point. It is pure: the clock, the catalogue and the
grant all arrive as arguments, so an auditor can replay any decision from the
decision records and must get the same answer. The exchange enforces it.

The first rule that applies wins. No rule, no delivery; any error is a deny.

1. The resource is withheld: deny.
2. No grant is in force now: deny. There is none, the worker's knowledge of the
   grants is not fresh, the grant is suspended or revoked, or its term has not
   begun or is over.
3. The grant names no field: deny. An empty list shares nothing.
4. Otherwise permit exactly the fields that the grant names, each through its transform.

The row filter is the one part of the permission model that needs the record. It
is the view's to ask, after rule 4 and before anything is delivered: a row for
which it is not TRUE is not delivered.

Before a grant exists, :func:`check_grant` holds it against the contract. What
it refuses never reaches the exchange; the exchange still decides every batch
afresh, because terms end and share types change under grants that were once good.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NoReturn

from govbus.avro import Definitions
from govbus.catalogue import ShareType
from govbus.contract import DataContract
from govbus.errors import FilterRefusedError, GrantRefusedError, TransformRefusedError
from govbus.grant import FieldRule, Grant, GrantState
from govbus.rowfilter import parse_filter
from govbus.transform import Keep, Null, Pseudonym, Redact, result_type


class Effect(StrEnum):
    """What a decision comes to."""

    PERMIT = "permit"
    DENY = "deny"


class Reason(StrEnum):
    """Why; stable codes that decision records, metrics and scripts match on."""

    PERMITTED = "permitted"
    RESOURCE_WITHHELD = "resource-withheld"
    NO_GRANT = "no-grant"
    POLICY_STALE = "policy-stale"
    GRANT_SUSPENDED = "grant-suspended"
    GRANT_REVOKED = "grant-revoked"
    GRANT_NOT_STARTED = "grant-not-started"
    GRANT_EXPIRED = "grant-expired"
    NO_FIELDS = "no-fields"
    COULD_NOT_DECIDE = "could-not-decide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer, with its reason."""

    effect: Effect
    reason: Reason
    fields: tuple[FieldRule, ...] = ()
    """What may be shown and how. Empty when denied: whoever ignores the effect still shows nothing."""

    def __post_init__(self) -> None:
        if (self.effect is Effect.PERMIT) != bool(self.fields):
            raise ValueError("a permit names fields and a denial names none")

    @property
    def permits(self) -> bool:
        """Whether anything may be delivered."""
        return self.effect is Effect.PERMIT


def decide(*, share_type: ShareType, grant: Grant | None, now: datetime, fresh: bool) -> Decision:
    """Answer for one resource, one grant and one moment.

    Args:
        share_type: the resource's, as the catalogue has it now.
        grant: the latest version of the grant, or None.
        now: with time zone.
        fresh: whether the caller has confirmed within its lease that it knows the latest grants.

    Never raises: what cannot be decided is denied with the reason ``could-not-decide``.
    """
    try:
        reason = _reason(ShareType(share_type), grant, now=now, fresh=fresh)
        if reason is Reason.PERMITTED and grant is not None:
            return Decision(effect=Effect.PERMIT, reason=reason, fields=tuple(grant.fields))
    except Exception:  # Whatever went wrong, an open question must not become a delivery.
        reason = Reason.COULD_NOT_DECIDE
    return Decision(effect=Effect.DENY, reason=reason)


def _reason(share_type: ShareType, grant: Grant | None, *, now: datetime, fresh: bool) -> Reason:
    if now.tzinfo is None:
        return Reason.COULD_NOT_DECIDE
    if share_type is ShareType.WITHHELD:
        return Reason.RESOURCE_WITHHELD
    if fresh is not True:
        # Asked before the grant is looked at: what it says may have been taken back already.
        return Reason.POLICY_STALE
    if grant is None:
        return Reason.NO_GRANT
    if not grant.in_force(now):
        return _why_not_in_force(grant, now)
    return Reason.PERMITTED if grant.fields else Reason.NO_FIELDS


def _why_not_in_force(grant: Grant, now: datetime) -> Reason:
    by_state = {
        GrantState.SUSPENDED: Reason.GRANT_SUSPENDED,
        GrantState.REVOKED: Reason.GRANT_REVOKED,
        GrantState.EXPIRED: Reason.GRANT_EXPIRED,
    }
    if grant.state in by_state:
        return by_state[grant.state]
    return Reason.GRANT_NOT_STARTED if now < grant.starts_at else Reason.GRANT_EXPIRED


def check_grant(
    grant: Grant, contract: DataContract, share_type: ShareType, *, owner_allows: bool = False
) -> None:
    """Hold a grant against the contract and the permission model before it comes into being.

    Args:
        grant: as it would be published.
        contract: of the resource that the grant names.
        share_type: of that resource.
        owner_allows: the owner has said that sensitive and core fields, and items that are shared on
            conditions, may be part of unconditional sharing. A conditional grant needs no such word:
            the owner approves it field by field.

    Raises:
        GrantRefusedError: it contradicts the catalogue, the contract or itself.
        TransformRefusedError: a transform does not fit the type of its field.
        FilterRefusedError: the row filter is not allowed.
    """
    if share_type is ShareType.WITHHELD:
        _refuse(grant, f"{grant.resource_ref} is withheld: nothing of it may be shared")
    if (grant.owner, grant.resource) != (contract.owner, contract.resource):
        _refuse(
            grant, f"it is for {grant.resource_ref}, the contract for {contract.owner}.{contract.resource}"
        )
    if grant.subscriber == grant.owner:
        _refuse(grant, "the owner cannot subscribe to its own resource: nobody approves their own request")
    if grant.starts_at >= grant.expires_at:
        _refuse(grant, "it ends before it begins; expires_at must lie after starts_at")
    _check_quotas(grant, contract)
    types = field_types(contract)
    _check_fields(grant, contract, types)
    looked_at = _check_rows(grant, types)
    _check_withheld_items(grant, contract, looked_at)
    if share_type is ShareType.UNCONDITIONAL and not owner_allows:
        _check_open(grant, contract, looked_at)


def field_types(contract: DataContract) -> dict[str, Any]:
    """Return each field's type as it stands alone: a type that another field defines is looked up."""
    definitions = Definitions(contract.schema)
    return {
        field["name"]: definitions.spell(field["type"], home="govbus")
        for field in definitions.record["fields"]
    }


def _check_fields(grant: Grant, contract: DataContract, types: Mapping[str, Any]) -> None:
    if not grant.fields:
        _refuse(grant, "it names no field, so it shares nothing; list the fields (no word means all of them)")
    names = [rule.name for rule in grant.fields]
    for rule in grant.fields:
        if rule.name not in contract.names:
            _refuse(
                grant, f"{grant.resource_ref} has no field {rule.name!r}; it has {', '.join(contract.names)}"
            )
        if names.count(rule.name) > 1:
            _refuse(grant, f"it names field {rule.name!r} twice")
        try:
            result_type(rule.transform, types[rule.name])
        except TransformRefusedError as error:
            raise TransformRefusedError(f"grant {grant.id}: field {rule.name!r}: {error}") from None
    for rule in grant.fields:
        if rule.name in contract.key and not isinstance(rule.transform, Keep | Pseudonym):
            _refuse(grant, f"key field {rule.name!r} can be kept or pseudonymised, nothing else")
    missing = [name for name in contract.key if name not in names]
    if missing:
        _refuse(grant, f"it must name every key field; missing: {', '.join(missing)}")


def _check_quotas(grant: Grant, contract: DataContract) -> None:
    """Refuse a quota that leaves a partition with nothing: each partition has an equal share of it."""
    for quota in (grant.quota_records_per_day, grant.quota_keys_per_day):
        if quota is not None and quota < contract.partitions:
            _refuse(
                grant,
                f"a quota of {quota} a day is too small for the {contract.partitions} partitions of "
                f"{grant.resource_ref}, each of which has a share of it",
            )


def _check_rows(grant: Grant, types: Mapping[str, Any]) -> tuple[str, ...]:
    """Check the row filter and return the fields that it looks at."""
    if grant.rows is None:
        return ()
    try:
        return parse_filter(grant.rows, types).fields
    except FilterRefusedError as error:
        raise FilterRefusedError(f"grant {grant.id}: {error}") from None


def _check_withheld_items(grant: Grant, contract: DataContract, looked_at: tuple[str, ...]) -> None:
    """Refuse what the catalogue entry withholds by itself, under any transform and in the row filter."""
    for name in (*(rule.name for rule in grant.fields), *looked_at):
        if contract.field(name).share_type is ShareType.WITHHELD:
            _refuse(grant, f"field {name!r} is withheld: it may be part of no grant and of no row filter")


def _check_open(grant: Grant, contract: DataContract, looked_at: tuple[str, ...]) -> None:
    """Keep sensitive and core fields, and items with conditions, out of sharing that no owner approves.

    A field that is nulled or redacted tells nothing. A field in the row filter
    tells its value for every row that arrives, although it is not delivered.
    """
    shown = [rule.name for rule in grant.fields if not isinstance(rule.transform, Null | Redact)]
    for name in (*shown, *looked_at):
        field = contract.field(name)
        conditional = field.share_type is ShareType.CONDITIONAL
        if conditional or field.classification.needs_owner:
            kind = ShareType.CONDITIONAL if conditional else field.classification
            _refuse(
                grant,
                f"field {name!r} is {kind}: it stays out of unconditional sharing, also as part of the "
                "row filter, unless the owner allows it",
            )


def shown_with_owner_only(grant: Grant, contract: DataContract) -> tuple[str, ...]:
    """Name the sensitive and core fields of which a grant tells something.

    As in unconditional sharing, a nulled or redacted field tells nothing, and a
    field in the row filter tells its value for every row that arrives.

    Raises:
        KeyError: the contract has no field that the grant names.
        FilterRefusedError: the row filter is not allowed.
    """
    shown = [rule.name for rule in grant.fields if not isinstance(rule.transform, Null | Redact)]
    looked_at = () if grant.rows is None else parse_filter(grant.rows, field_types(contract)).fields
    return tuple(
        name
        for name in dict.fromkeys((*shown, *looked_at))
        if contract.field(name).classification.needs_owner
    )


def _refuse(grant: Grant, why: str) -> NoReturn:
    raise GrantRefusedError(f"grant {grant.id}: {why}")


def may_share(grant: Grant, share_type: ShareType) -> bool:
    """Say whether one copy of the deliveries may serve every grant with the same view.

    Only for unconditional resources, and only when nothing in the view is the
    subscriber's own: a pseudonym is made for one subscriber, and a quota counts
    what one grant delivers.
    """
    return share_type is ShareType.UNCONDITIONAL and not _has_pseudonym(grant) and not grant.has_quota


def view_id(grant: Grant, contract_version: int) -> str:
    """Name what the grant lets through: equal for grants that let through the same, and for no others.

    Takes in resource, contract version, row filter, fields and transforms; for
    a view with a pseudonym also subscriber and purpose, on which its key
    depends; for a view with a quota also the grant, whose deliveries are
    counted (not the bound: another bound lets through the same rows). Usable in
    a topic name. 128 bits of SHA-256, so that nobody can word a request to be
    taken for another department's view.
    """
    what: dict[str, object] = {
        "resource": grant.resource_ref,
        "contract": contract_version,
        "rows": grant.rows.strip() if grant.rows is not None else None,
        "fields": {rule.name: rule.transform.spec() for rule in grant.fields},
    }
    if _has_pseudonym(grant):
        what |= {"subscriber": grant.subscriber, "purpose": grant.purpose}
    if grant.has_quota:
        what |= {"counted": grant.id}
    canonical = json.dumps(what, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "v" + hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _has_pseudonym(grant: Grant) -> bool:
    return any(isinstance(rule.transform, Pseudonym) for rule in grant.fields)
