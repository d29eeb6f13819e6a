"""What each role may do through the API: the one table that is asked. Pure.

1. No rule, no access. A role does what :data:`RULES` lists for it and nothing else; a
   word that is no role, and an account without roles, may do nothing.
2. Every route says which right it needs, or it cannot be made (:class:`.routing.Guarded`).
3. A right reaches as far as its rule says: to everything, to what the caller's
   department *owns*, or to what it *receives*. Several roles add up.
4. The steps of a request have a table of their own (:mod:`govbus.request`), which the
   service behind the API asks as well, and the database after it. A right here says
   only who may try.
5. What the caller may not see does not exist for it (404); what it may see and
   not do is refused (403).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Flag, StrEnum, auto
from types import MappingProxyType

from govbus_console.control.roles import Account, Role


class Right(StrEnum):
    """One kind of thing to do."""

    ONESELF = "oneself"
    """See who one is, what the API offers, and one's own tokens; give up a token."""

    SEE_CATALOGUE = "see-catalogue"
    """Departments and resources with their fields: what the catalogue makes public."""

    SEE_GRANTS = "see-grants"
    STOP_GRANTS = "stop-grants"
    """Suspend and resume."""

    END_GRANTS = "end-grants"
    """Revoke: for good."""

    SEE_REQUESTS = "see-requests"
    ASK = "ask"
    """Draft, submit, answer, withdraw and renew requests for one's department."""

    COUNT = "count"
    """Ask how many rows a request would match, in steps."""

    DECIDE = "decide"
    """Take up, question, approve and reject requests; review what was granted in an emergency."""

    AMEND_GRANTS = "amend-grants"
    EMERGENCY = "emergency"
    """Grant at once, narrowly, for hours."""

    EXPLAIN = "explain"
    """Ask why a row reached a department, and which departments received it: whether it exists, too."""

    ENROL_KEYS = "enrol-keys"
    """Pin the key that a department's receipts have to be signed with."""

    PLAN = "plan"
    """Hand in a catalogue file; what it may state and change is asked line by line (:mod:`.licence`)."""

    KEEP_DEPARTMENTS = "keep-departments"
    """Take departments in, and out again."""

    KEEP_RESOURCES = "keep-resources"
    """Say what there is and how it is shared."""

    SEE_BUS = "see-bus"
    """How the processes are doing."""


class Reach(Flag):
    """To which objects a right extends."""

    NONE = 0
    OWNED = auto()
    """Of resources that the caller's department owns."""

    RECEIVED = auto()
    """Of grants whose subscriber is the caller's department."""

    ALL = auto()


RULES: Mapping[Role, Mapping[Right, Reach]] = MappingProxyType(
    {
        Role.STEWARD: {
            Right.ONESELF: Reach.ALL,
            Right.SEE_CATALOGUE: Reach.ALL,
            Right.SEE_GRANTS: Reach.OWNED | Reach.RECEIVED,
            Right.STOP_GRANTS: Reach.OWNED,
            Right.END_GRANTS: Reach.OWNED,
            Right.AMEND_GRANTS: Reach.OWNED,
            Right.SEE_REQUESTS: Reach.OWNED | Reach.RECEIVED,
            Right.COUNT: Reach.OWNED,
            Right.DECIDE: Reach.OWNED,
            Right.EMERGENCY: Reach.OWNED,
            Right.EXPLAIN: Reach.OWNED,
            Right.PLAN: Reach.OWNED,
            Right.KEEP_RESOURCES: Reach.OWNED,
        },
        Role.SUBSCRIBER: {
            Right.ONESELF: Reach.ALL,
            Right.SEE_CATALOGUE: Reach.ALL,
            Right.SEE_GRANTS: Reach.RECEIVED,
            Right.AMEND_GRANTS: Reach.RECEIVED,
            Right.SEE_REQUESTS: Reach.RECEIVED,
            Right.ASK: Reach.RECEIVED,
            Right.COUNT: Reach.RECEIVED,
        },
        Role.OPERATOR: {
            Right.ONESELF: Reach.ALL,
            Right.SEE_CATALOGUE: Reach.ALL,
            Right.SEE_GRANTS: Reach.ALL,
            # Who is on call at night must be able to stop a stream, and not to end an agreement.
            Right.STOP_GRANTS: Reach.ALL,
            Right.SEE_REQUESTS: Reach.ALL,
            Right.EMERGENCY: Reach.ALL,
            Right.ENROL_KEYS: Reach.ALL,
            # Who is on the bus is the bus's affair; what they share is theirs.
            Right.PLAN: Reach.ALL,
            Right.KEEP_DEPARTMENTS: Reach.ALL,
            Right.SEE_BUS: Reach.ALL,
        },
        Role.AUDITOR: {
            Right.ONESELF: Reach.ALL,
            Right.SEE_CATALOGUE: Reach.ALL,
            Right.SEE_GRANTS: Reach.ALL,
            Right.SEE_REQUESTS: Reach.ALL,
            Right.EXPLAIN: Reach.ALL,
            Right.SEE_BUS: Reach.ALL,
        },
    }
)


def reach(account: Account, right: Right) -> Reach:
    """How far an account's roles together carry a right."""
    total = Reach.NONE
    for role in account.roles:
        total |= RULES.get(role, {}).get(right, Reach.NONE)
    return total


def may(account: Account, right: Right, *, owner: str = "", subscriber: str = "") -> bool:
    """Whether an account may do this to an object.

    Args:
        account: who asks.
        right: to do what.
        owner: department that owns the resource concerned; empty: it has none.
        subscriber: department that receives it; empty: there is none.
    """
    far = reach(account, right)
    if Reach.ALL in far:
        return True
    own = account.department
    if not own:
        return False
    return (Reach.OWNED in far and owner == own) or (Reach.RECEIVED in far and subscriber == own)
