"""What each principal may do, as a list that an auditor can read."""

from __future__ import annotations

import pytest

from govbus import topics
from govbus.errors import CatalogueError
from govbus_console.acls import (
    Acl,
    Kind,
    Operation,
    check_department,
    exchange_acls,
    owner_acls,
    shared_acl,
    subscriber_acls,
)


def lines(acls: frozenset[Acl]) -> set[str]:
    return {f"{acl.operation} {acl.kind} {acl.name}{'*' if acl.prefixed else ''}" for acl in acls}


def test_an_owner_has_what_it_captured_and_its_dead_letters() -> None:
    assert lines(owner_acls("stats")) == {
        "write topic govbus.captured.stats.*",
        "read topic govbus.captured.stats.*",
        "read topic govbus.dead-letter.stats.*",
        "read group stats.*",
    }


def test_a_subscriber_has_its_deliveries_and_its_subscriptions_and_answers_on_a_topic_of_its_own() -> None:
    assert lines(subscriber_acls("quzhou")) == {
        "read topic govbus.delivered.quzhou.*",
        "read topic govbus.subscriptions.quzhou",
        "write topic govbus.receipts.quzhou",
        "read group quzhou.*",
    }


def test_the_exchange_has_the_stream_and_its_own_records_and_only_reads_the_policy() -> None:
    assert lines(exchange_acls()) == {
        "read topic govbus.captured.*",
        "read topic govbus.delivered.*",
        "write topic govbus.delivered.*",
        "read topic govbus.shared.*",
        "write topic govbus.shared.*",
        "write topic govbus.dead-letter.*",
        "read topic govbus.grants",
        "write topic govbus.decisions",
        "read topic govbus.workers",
        "write topic govbus.workers",
        "read topic govbus.progress",
        "write topic govbus.progress",
        "read group govbus.exchange*",
        "write transactional-id govbus.exchange.*",
        "describe transactional-id govbus.exchange.*",
    }


def test_a_shared_topic_is_opened_by_name_and_never_by_prefix() -> None:
    acl = shared_acl("civil", topics.shared("stats", "divisions", "all"))

    assert acl == Acl(
        principal="civil",
        kind=Kind.TOPIC,
        name="govbus.shared.stats.divisions.all",
        prefixed=False,
        operation=Operation.READ,
    )


def test_only_a_shared_topic_is_opened_to_others() -> None:
    """A mistake elsewhere must not open what an owner captured, or another's deliveries."""
    for topic in (topics.captured("stats", "divisions"), topics.delivered("tax", "g"), topics.GRANTS):
        with pytest.raises(ValueError, match="not a shared topic"):
            shared_acl("civil", topic)


def test_every_prefix_of_a_department_ends_where_its_name_ends() -> None:
    """Else ``tax`` would have the rights of ``tax-office``."""
    for acl in owner_acls("tax") | subscriber_acls("tax"):
        assert acl.principal == "tax"
        if acl.prefixed:
            assert acl.name.endswith("tax.")


@pytest.mark.parametrize("name", ["admin", "exchange", "govbus.node", "*", "User:x", "Tax", "tax.", ""])
def test_a_department_cannot_take_the_name_of_a_user_of_the_bus_or_of_everyone(name: str) -> None:
    with pytest.raises(CatalogueError):
        check_department(name)
    with pytest.raises(CatalogueError):
        owner_acls(name)
    with pytest.raises(CatalogueError):
        subscriber_acls(name)
