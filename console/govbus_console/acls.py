"""What each principal may do at the broker. Pure: the broker is told by :mod:`govbus_console.cluster`.

What is not listed here is refused, so the lists below are the whole of it.

- A department writes and reads what it captured, reads its own dead letters,
  what was delivered to it and its subscriptions, writes its receipts, and uses
  consumer groups under its own name. What another department shares under one topic for all, it reads
  for as long as a literal permission says so.
- The exchange reads what was captured and the policy, writes (and, to know what
  a subscriber already has, reads) deliveries, writes dead letters and decisions,
  and keeps its own records. It cannot write the policy that it enforces.
- Only the control side (the broker's super user) makes topics, users and
  permissions.

READ and WRITE include DESCRIBE, and WRITE on any topic includes idempotent
writing (KIP-679), so neither is listed.

Prefixes end in a dot, and names have none: ``tax.`` never covers ``tax-office``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from govbus import topics
from govbus.errors import CatalogueError

ADMIN = "admin"
"""The SASL user that administers the broker; the control side works as this user."""

EXCHANGE = "exchange"
"""The SASL user of the exchange workers."""

# What the names of one kind of topic begin with, taken from the one module that decides names.
_ALL_CAPTURED = topics.captured("x", "x").removesuffix("x.x")
_ALL_DELIVERED = topics.delivered("x", "x").removesuffix("x.x")
_ALL_SHARED = topics.shared("x", "x", "x").removesuffix("x.x.x")
_ALL_DEAD_LETTERS = topics.dead_letter("x", "x").removesuffix("x.x")

RESERVED = frozenset({ADMIN, EXCHANGE})
"""Users of the bus itself: no department may be named so."""


class Kind(StrEnum):
    """What a permission is about."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional-id"


class Operation(StrEnum):
    """What a permission allows."""

    READ = "read"
    WRITE = "write"
    DESCRIBE = "describe"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Acl:
    """One permission; there are no prohibitions, because nothing else is allowed."""

    principal: str
    """The SASL user, without Kafka's ``User:``."""

    kind: Kind
    name: str
    prefixed: bool = False
    """Whether ``name`` is the beginning of the names meant, or the one name."""

    operation: Operation


def check_department(department: str) -> str:
    """Give the name back when a department can have it.

    Raises:
        CatalogueError: it is not a name, or is one of the bus's own users.
    """
    if not topics.is_name(department) or department in RESERVED:
        raise CatalogueError(
            f"{department!r} cannot name a department: names are lower-case words joined by hyphens, "
            f"and {', '.join(sorted(RESERVED))} are the bus's own"
        )
    return department


def owner_acls(department: str) -> frozenset[Acl]:
    """What a department needs to publish, and to see what it published and what was rejected."""
    user = check_department(department)
    captured = topics.captured_prefix(user)
    return frozenset(
        {
            _topic(user, captured, Operation.WRITE, prefixed=True),
            _topic(user, captured, Operation.READ, prefixed=True),
            _topic(user, f"{_ALL_DEAD_LETTERS}{user}.", Operation.READ, prefixed=True),
            _group(user, f"{user}."),
        }
    )


def subscriber_acls(department: str) -> frozenset[Acl]:
    """What a department needs to receive: subscriptions, deliveries, groups of its own; and to answer."""
    user = check_department(department)
    return frozenset(
        {
            _topic(user, topics.delivered_prefix(user), Operation.READ, prefixed=True),
            _topic(user, topics.subscriptions(user), Operation.READ),
            _topic(user, topics.receipts(user), Operation.WRITE),
            _group(user, f"{user}."),
        }
    )


def shared_acl(department: str, topic: str) -> Acl:
    """What a department needs to read one topic that several share."""
    if not topic.startswith(_ALL_SHARED):
        raise ValueError(f"{topic} is not a shared topic")
    return _topic(check_department(department), topic, Operation.READ)


def exchange_acls() -> frozenset[Acl]:
    """What the exchange workers need, and nothing that would let them change the policy."""
    # The groups of Faust's applications, one a worker, begin like the group of the intakes.
    own = topics.EXCHANGE_GROUP
    return frozenset(
        {
            _topic(EXCHANGE, _ALL_CAPTURED, Operation.READ, prefixed=True),
            *(
                _topic(EXCHANGE, stem, operation, prefixed=True)
                for stem in (_ALL_DELIVERED, _ALL_SHARED)
                for operation in (Operation.READ, Operation.WRITE)
            ),
            _topic(EXCHANGE, _ALL_DEAD_LETTERS, Operation.WRITE, prefixed=True),
            _topic(EXCHANGE, topics.GRANTS, Operation.READ),
            _topic(EXCHANGE, topics.DECISIONS, Operation.WRITE),
            *(
                _topic(EXCHANGE, topic, operation)
                for topic in (topics.WORKERS, topics.PROGRESS)
                for operation in (Operation.READ, Operation.WRITE)
            ),
            _group(EXCHANGE, own),
            *(
                Acl(
                    principal=EXCHANGE,
                    kind=Kind.TRANSACTIONAL_ID,
                    name=f"{own}.",
                    prefixed=True,
                    operation=operation,
                )
                for operation in (Operation.WRITE, Operation.DESCRIBE)
            ),
        }
    )


def _topic(principal: str, name: str, operation: Operation, *, prefixed: bool = False) -> Acl:
    return Acl(principal=principal, kind=Kind.TOPIC, name=name, prefixed=prefixed, operation=operation)


def _group(principal: str, prefix: str) -> Acl:
    return Acl(principal=principal, kind=Kind.GROUP, name=prefix, prefixed=True, operation=Operation.READ)
