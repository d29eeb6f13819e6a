"""A department's ask, from draft to the end of what it led to: its states and what changes them.

Pure. :data:`TRANSITIONS` is the whole of it: from which state, by which action,
to which state, who may make it, and what it causes. Nothing else changes a
state; the control store refuses any other change of state as well, whoever
tries it (a trigger; ``tests/unit/test_request_tables.py`` compares it with this table).

1. A request states its ask when it is submitted and never changes it afterwards.
   Who wants something else asks again.
2. Nobody approves their own request: a requester is never one of those who decide.
3. A request that needs two approvals is not approved by the first; the second
   is another person's.
4. A rejection names its ground, one of :class:`Ground`.
5. Once provisioned, a request follows its grant. :data:`FINAL` states are left by nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from govbus.contract import DataContract
from govbus.errors import TransitionRefusedError
from govbus.grant import Grant, GrantState
from govbus.policy import shown_with_owner_only


class RequestState(StrEnum):
    """Where a request stands."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    IN_REVIEW = "in_review"
    NEEDS_INFO = "needs_info"
    APPROVED = "approved"
    """Decided; its grant version is being made."""

    PROVISIONED = "provisioned"
    """Its grant delivers."""

    SUSPENDED = "suspended"
    EXPIRED = "expired"
    REVOKED = "revoked"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


FINAL = frozenset({RequestState.EXPIRED, RequestState.REVOKED, RequestState.REJECTED, RequestState.WITHDRAWN})
"""States that nothing leaves."""


class RequestKind(StrEnum):
    """What a request asks for."""

    NEW = "new"
    """A grant that there is not yet."""

    AMEND = "amend"
    """Another version of a grant: other fields, rows, quotas or end."""

    RENEW = "renew"
    """The same grant for another term."""

    EMERGENCY = "emergency"
    """A narrow grant for some hours, at once, reviewed afterwards."""


class Party(StrEnum):
    """Who makes a transition, as they stand to the request."""

    REQUESTER = "requester"
    """Whoever asked, or a subscriber account of the same department."""

    STEWARD = "steward"
    """A steward of the owner who is not the requester."""

    SECOND_APPROVER = "second approver"
    """A steward as above, and not the one who has approved already."""

    OPERATOR = "operator"
    """Keeps the bus running; is asked in an emergency."""

    CLOCK = "clock"
    """A term that is over."""

    BUS = "bus"
    """What follows by itself from what was decided."""


class Action(StrEnum):
    """What is done with a request."""

    SUBMIT = "submit"
    TAKE = "take"
    ASK = "ask"
    ANSWER = "answer"
    ENDORSE = "endorse"
    """The first of two approvals."""

    APPROVE = "approve"
    """The one approval that is needed."""

    CONFIRM = "confirm"
    """The second of two approvals."""

    OPEN = "open"
    """Approved without anybody's decision, because none is needed."""

    BREAK_GLASS = "break-glass"
    """Granted in an emergency, to be reviewed afterwards."""

    REJECT = "reject"
    WITHDRAW = "withdraw"
    PROVISION = "provision"
    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"
    EXPIRE = "expire"


class Effect(StrEnum):
    """What a transition causes besides the new state."""

    REVIEW_CLOCK = "review clock"
    """The owner has so many working days to decide."""

    ANSWER_CLOCK = "answer clock"
    """The requester has so many working days to answer; the owner's clock stands still."""

    PROVIDE_CLOCK = "provide clock"
    """The bus has so many working days to deliver."""

    STOP_CLOCK = "stop clock"
    MAKE_GRANT = "make grant"
    AFTER_REVIEW = "after-the-fact review"
    """The owner's steward has to review what was granted without asking."""

    TELL_OWNER = "tell owner"
    TELL_REQUESTER = "tell requester"


class Ground(StrEnum):
    """Why a request was rejected. One has to be chosen."""

    NO_LEGAL_BASIS = "no-legal-basis"
    PURPOSE_NOT_COVERED = "purpose-not-covered"
    MORE_THAN_NEEDED = "more-than-needed"
    TERM_TOO_LONG = "term-too-long"
    CONFIDENTIAL_BY_LAW = "confidential-by-law"
    NOT_HELD = "not-held"
    """The owner does not have what is asked for."""

    INFORMATION_MISSING = "information-missing"
    DUPLICATE = "duplicate"
    CANNOT_BE_PROVIDED = "cannot-be-provided"
    """Approved, and then found impossible: the contract or the share type has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One line of the table."""

    before: RequestState
    action: Action
    after: RequestState
    who: frozenset[Party]
    effects: frozenset[Effect] = frozenset()


def _line(
    before: RequestState, action: Action, after: RequestState, who: Collection[Party], *effects: Effect
) -> Transition:
    return Transition(
        before=before, action=action, after=after, who=frozenset(who), effects=frozenset(effects)
    )


_S, _A, _P, _E = RequestState, Action, Party, Effect
_DECIDED = (_E.MAKE_GRANT, _E.PROVIDE_CLOCK, _E.TELL_REQUESTER)
_KEEPERS = (_P.STEWARD, _P.OPERATOR, _P.BUS)
"""Who suspends, resumes and revokes a grant; the request follows, which is the bus's doing."""

# fmt: off
TRANSITIONS: tuple[Transition, ...] = (
    _line(_S.DRAFT, _A.SUBMIT, _S.SUBMITTED, [_P.REQUESTER], _E.REVIEW_CLOCK, _E.TELL_OWNER),
    _line(_S.DRAFT, _A.BREAK_GLASS, _S.APPROVED, [_P.STEWARD, _P.OPERATOR],
          *_DECIDED, _E.AFTER_REVIEW, _E.TELL_OWNER),
    _line(_S.DRAFT, _A.WITHDRAW, _S.WITHDRAWN, [_P.REQUESTER]),
    _line(_S.SUBMITTED, _A.OPEN, _S.APPROVED, [_P.BUS], *_DECIDED),
    _line(_S.SUBMITTED, _A.TAKE, _S.IN_REVIEW, [_P.STEWARD]),
    _line(_S.SUBMITTED, _A.WITHDRAW, _S.WITHDRAWN, [_P.REQUESTER], _E.STOP_CLOCK),
    _line(_S.IN_REVIEW, _A.ASK, _S.NEEDS_INFO, [_P.STEWARD], _E.ANSWER_CLOCK, _E.TELL_REQUESTER),
    _line(_S.IN_REVIEW, _A.ENDORSE, _S.IN_REVIEW, [_P.STEWARD], _E.TELL_OWNER),
    _line(_S.IN_REVIEW, _A.APPROVE, _S.APPROVED, [_P.STEWARD], *_DECIDED),
    _line(_S.IN_REVIEW, _A.CONFIRM, _S.APPROVED, [_P.SECOND_APPROVER], *_DECIDED),
    _line(_S.IN_REVIEW, _A.REJECT, _S.REJECTED, [_P.STEWARD], _E.STOP_CLOCK, _E.TELL_REQUESTER),
    _line(_S.IN_REVIEW, _A.WITHDRAW, _S.WITHDRAWN, [_P.REQUESTER], _E.STOP_CLOCK),
    _line(_S.NEEDS_INFO, _A.ANSWER, _S.IN_REVIEW, [_P.REQUESTER], _E.REVIEW_CLOCK, _E.TELL_OWNER),
    _line(_S.NEEDS_INFO, _A.REJECT, _S.REJECTED, [_P.STEWARD], _E.STOP_CLOCK, _E.TELL_REQUESTER),
    _line(_S.NEEDS_INFO, _A.WITHDRAW, _S.WITHDRAWN, [_P.REQUESTER], _E.STOP_CLOCK),
    _line(_S.APPROVED, _A.PROVISION, _S.PROVISIONED, [_P.BUS], _E.STOP_CLOCK, _E.TELL_REQUESTER),
    _line(_S.APPROVED, _A.REJECT, _S.REJECTED, [_P.STEWARD], _E.STOP_CLOCK, _E.TELL_REQUESTER),
    _line(_S.PROVISIONED, _A.SUSPEND, _S.SUSPENDED, _KEEPERS, _E.TELL_REQUESTER),
    _line(_S.PROVISIONED, _A.REVOKE, _S.REVOKED, _KEEPERS, _E.TELL_REQUESTER),
    _line(_S.PROVISIONED, _A.EXPIRE, _S.EXPIRED, [_P.CLOCK], _E.TELL_REQUESTER),
    _line(_S.SUSPENDED, _A.RESUME, _S.PROVISIONED, _KEEPERS, _E.TELL_REQUESTER),
    _line(_S.SUSPENDED, _A.REVOKE, _S.REVOKED, _KEEPERS, _E.TELL_REQUESTER),
    _line(_S.SUSPENDED, _A.EXPIRE, _S.EXPIRED, [_P.CLOCK], _E.TELL_REQUESTER),
)
# fmt: on

_BY_STEP = {(line.before, line.action): line for line in TRANSITIONS}


def transition(state: RequestState, action: Action, parties: Iterable[Party]) -> Transition:
    """Find the line of the table for an action, for somebody who stands to the request as ``parties``.

    Raises:
        TransitionRefusedError: there is no such line, or none of ``parties`` may make it.
    """
    line = _BY_STEP.get((state, action))
    if line is None:
        possible = sorted(step.action for step in TRANSITIONS if step.before is state)
        what = f"possible now: {', '.join(possible)}" if possible else "nothing changes it any more"
        raise TransitionRefusedError(f"a request that is {state} cannot be changed by {action!r}; {what}")
    if not line.who & set(parties):
        raise TransitionRefusedError(
            f"only the {' or the '.join(sorted(line.who))} may {action} this request"
        )
    return line


def approval_action(needed: int, given: int) -> Action:
    """Say which step one more approval is.

    Args:
        needed: how many approvals the request needs, 1 or 2.
        given: how many there are already.
    """
    if needed == 1:
        return Action.APPROVE
    return Action.ENDORSE if given == 0 else Action.CONFIRM


FOLLOWS: dict[tuple[RequestState, GrantState], Action] = {
    (RequestState.PROVISIONED, GrantState.SUSPENDED): Action.SUSPEND,
    (RequestState.PROVISIONED, GrantState.REVOKED): Action.REVOKE,
    (RequestState.PROVISIONED, GrantState.EXPIRED): Action.EXPIRE,
    (RequestState.SUSPENDED, GrantState.ACTIVE): Action.RESUME,
    (RequestState.SUSPENDED, GrantState.REVOKED): Action.REVOKE,
    (RequestState.SUSPENDED, GrantState.EXPIRED): Action.EXPIRE,
}
"""What happens to a request when its grant comes to be in a state; nothing where nothing stands."""

FOLLOWED = frozenset(
    {RequestState.PROVISIONED, RequestState.SUSPENDED, RequestState.EXPIRED, RequestState.REVOKED}
)
"""A grant version was made for a request in one of these; from then on it follows the grant."""


def wider(old: Grant, new: Grant) -> bool:
    """Say whether ``new`` may let through anything that ``old`` does not.

    Where it cannot be told, the answer is yes: another row filter counts as
    wider unless there was none before, and so does another transform of a field.
    """
    rules = {rule.name: rule.transform for rule in old.fields}
    return (
        any(rules.get(rule.name) != rule.transform for rule in new.fields)
        or (new.rows != old.rows and old.rows is not None)
        or new.starts_at < old.starts_at
        or new.expires_at > old.expires_at
        or _raised(old.quota_records_per_day, new.quota_records_per_day)
        or _raised(old.quota_keys_per_day, new.quota_keys_per_day)
        or new.purpose != old.purpose
    )


def _raised(old: int | None, new: int | None) -> bool:
    return old is not None and (new is None or new > old)


def approvers_needed(grant: Grant, contract: DataContract, *, before: Grant | None = None) -> int:
    """Count the people who must agree where the owner decides.

    Two where the grant shows sensitive or core fields, or asks for rows by
    them, and it is new or lets through more than the version before; else one.
    """
    if before is not None and not wider(before, grant):
        return 1
    return 2 if shown_with_owner_only(grant, contract) else 1
