"""Every topic name on the bus, and nothing else decides one.

Departments, resources and grants are lower-case words joined by hyphens, never
dots: a dot separates the parts of a topic name, and prefixed ACLs
(``govbus.captured.<department>.``) are only safe while that holds.
"""

from __future__ import annotations

import re

GRANTS = "govbus.grants"
"""Compacted, one partition: every resource and grant version that the exchange enforces."""

DECISIONS = "govbus.decisions"
"""One decision record per batch and grant: who received how much, under which version, and why."""

WORKERS = "govbus.workers"
"""Compacted: which grants offset each exchange worker applies. The revocation barrier reads it."""

PROGRESS = "govbus.progress"
"""Compacted: how far each grant version has been brought up to the present, per source partition."""

EXCHANGE_GROUP = "govbus.exchange"
"""The consumer group that the exchange workers' intakes share."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 80  # three names and the words around them stay below Kafka's 249 characters


def is_name(text: str) -> bool:
    """Say whether ``text`` may name a department, a resource or a grant."""
    return len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) is not None


def _checked(*names: str) -> tuple[str, ...]:
    for name in names:
        if not is_name(name):
            raise ValueError("names are lower-case words joined by hyphens, at most 80 characters")
    return names


def captured(owner: str, resource: str) -> str:
    """Where an owner publishes the changes of one resource."""
    return "govbus.captured.{}.{}".format(*_checked(owner, resource))


def captured_prefix(owner: str) -> str:
    """What the names of all topics begin with that an owner may write."""
    return "govbus.captured.{}.".format(*_checked(owner))


def resource_of(captured_topic: str) -> str:
    """Give back ``owner.resource`` from the name of a captured topic."""
    prefix = "govbus.captured."
    if not captured_topic.startswith(prefix):
        raise ValueError(f"{captured_topic} is not a captured topic")
    return captured_topic[len(prefix) :]


def delivered(subscriber: str, grant: str) -> str:
    """Where one grant's deliveries go."""
    return "govbus.delivered.{}.{}".format(*_checked(subscriber, grant))


def delivered_prefix(subscriber: str) -> str:
    """What the names of all delivery topics begin with that only this subscriber may read."""
    return "govbus.delivered.{}.".format(*_checked(subscriber))


def shared(owner: str, resource: str, view: str) -> str:
    """Where the one copy goes that all grants with the same unconditional view share."""
    return "govbus.shared.{}.{}.{}".format(*_checked(owner, resource, view))


def is_shared(topic: str) -> bool:
    """Say whether a delivery topic is one that several grants may share."""
    return topic.startswith("govbus.shared.")


def dead_letter(owner: str, resource: str) -> str:
    """Where records of a resource go that cannot be processed."""
    return "govbus.dead-letter.{}.{}".format(*_checked(owner, resource))


def dead_letters_of(dead_letter_topic: str) -> str:
    """Give back ``owner.resource`` from the name of a dead-letter topic."""
    prefix = "govbus.dead-letter."
    if not dead_letter_topic.startswith(prefix):
        raise ValueError(f"{dead_letter_topic} is not a dead-letter topic")
    return dead_letter_topic[len(prefix) :]


def subscriptions(department: str) -> str:
    """The compacted topic that tells one department what it is granted, and only it may read."""
    return "govbus.subscriptions.{}".format(*_checked(department))


def receipts(department: str) -> str:
    """Where one department says what became of landed rows, and nobody else may write."""
    return "govbus.receipts.{}".format(*_checked(department))
