"""Topic names: prefixed ACLs are only safe while no name can reach into another's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from govbus import topics

NAMES = ["a", "stats", "civil-affairs", "z9", "a-1-b", "x" * 80]
NOT_NAMES = [
    "",
    ".",
    "a.b",
    "stats.",
    "A",
    "a_b",
    "-a",
    "a-",
    "a--b",
    "9a",
    "a b",
    "a\n",
    "统计",
    "x" * 81,
    "a*",
    "a/b",
]


@pytest.mark.parametrize("name", NAMES)
def test_lower_case_words_joined_by_hyphens_are_names(name: str) -> None:
    assert topics.is_name(name)


@pytest.mark.parametrize("name", NOT_NAMES)
def test_nothing_else_is_a_name(name: str) -> None:
    assert not topics.is_name(name)


@pytest.mark.parametrize("bad", NOT_NAMES)
@pytest.mark.parametrize(
    "build",
    [
        lambda bad: topics.captured(bad, "a"),
        lambda bad: topics.captured("a", bad),
        topics.captured_prefix,
        lambda bad: topics.delivered(bad, "a"),
        lambda bad: topics.delivered("a", bad),
        topics.delivered_prefix,
        lambda bad: topics.shared("a", "b", bad),
        lambda bad: topics.dead_letter(bad, "a"),
        topics.subscriptions,
    ],
)
def test_no_topic_is_named_after_something_that_is_not_a_name(build: Callable[[str], str], bad: str) -> None:
    with pytest.raises(ValueError, match="lower-case words"):
        build(bad)


def test_the_names_of_topics_are_these() -> None:
    """They are in ACLs, dashboards and other people's clients: a change here is a migration."""
    assert topics.captured("stats", "divisions") == "govbus.captured.stats.divisions"
    assert topics.delivered("quzhou", "divisions-3308") == "govbus.delivered.quzhou.divisions-3308"
    assert topics.shared("stats", "divisions", "v1") == "govbus.shared.stats.divisions.v1"
    assert topics.dead_letter("stats", "divisions") == "govbus.dead-letter.stats.divisions"
    assert topics.subscriptions("quzhou") == "govbus.subscriptions.quzhou"
    assert topics.GRANTS == "govbus.grants"
    assert topics.DECISIONS == "govbus.decisions"
    assert topics.WORKERS == "govbus.workers"
    assert topics.PROGRESS == "govbus.progress"
    assert topics.EXCHANGE_GROUP == "govbus.exchange"


@pytest.mark.parametrize("one", NAMES)
@pytest.mark.parametrize("other", [*NAMES, "sta", "stats-2", "civil"])
def test_a_departments_prefix_covers_its_own_topics_and_nobody_elses(one: str, other: str) -> None:
    own = one == other

    assert topics.captured(other, "x").startswith(topics.captured_prefix(one)) is own
    assert topics.delivered(other, "x").startswith(topics.delivered_prefix(one)) is own


def test_the_longest_names_stay_below_kafkas_limit() -> None:
    longest = "x" * 80

    assert len(topics.delivered(longest, longest)) <= 249
    assert len(topics.dead_letter(longest, longest)) <= 249
    assert len(topics.shared(longest, longest, "v" * 33)) <= 249


def test_a_captured_topic_gives_back_its_resource() -> None:
    assert topics.resource_of(topics.captured("stats", "divisions")) == "stats.divisions"


def test_another_topic_has_no_resource_to_give_back() -> None:
    with pytest.raises(ValueError, match="not a captured topic"):
        topics.resource_of("govbus.delivered.stats.divisions")


def test_the_resource_of_a_dead_letter_topic_is_read_back_and_that_of_no_other() -> None:
    assert topics.dead_letters_of(topics.dead_letter("stats", "divisions")) == "stats.divisions"
    with pytest.raises(ValueError, match="not a dead-letter topic"):
        topics.dead_letters_of(topics.captured("stats", "divisions"))
