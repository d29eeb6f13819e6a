"""The error tree is as errors.py's first page says, and no error can carry a value by accident."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from govbus import errors
from govbus.errors import BusError, RejectedRecordError
from govbus.event import RecordAddress


def documented() -> dict[str, str | None]:
    """Name and parent of every error in the drawing in the module's docstring."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([│├└─\s]*)(\w+Error)\b", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        path = [*path[:depth], match[2]]
        parents[match[2]] = path[-2] if depth else None
    return parents


def defined(root: type[BusError] = BusError) -> Iterator[type[BusError]]:
    """Every error that errors.py defines, the root included."""
    if root.__module__ == errors.__name__:
        yield root
    for child in root.__subclasses__():
        yield from defined(child)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    classes: dict[str, str | None] = {
        error.__name__: None if error is BusError else error.__bases__[0].__name__ for error in defined()
    }

    assert documented() == classes
    assert len(classes) > 15


def test_every_error_has_a_code_of_its_own_that_scripts_can_match_on() -> None:
    codes = [error.code for error in defined()]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_every_error_says_in_its_docstring_what_it_means() -> None:
    assert all(error.__doc__ for error in defined())


def test_what_the_caller_does_next_follows_from_the_second_level() -> None:
    """So ``except`` clauses name four classes and no error falls between them."""
    assert [child.__name__ for child in BusError.__subclasses__() if child.__module__ == errors.__name__] == [
        "FatalError",
        "RetriableError",
        "RefusedError",
        "RejectedRecordError",
    ]
    assert all(len(error.__bases__) == 1 for error in defined())


def test_a_rejected_record_is_named_by_its_address_and_code() -> None:
    at = RecordAddress(topic="govbus.captured.stats.divisions", partition=3, offset=42)

    error = errors.UndecodableRecordError("the length runs past the end", at=at)

    assert str(error) == "govbus.captured.stats.divisions[3]@42: the length runs past the end (undecodable)"
    assert (error.at, error.detail) == (at, "the length runs past the end")


def test_a_record_whose_place_is_not_known_yet_is_named_by_its_code_alone() -> None:
    assert str(errors.ViewError("a value is not what its type says")) == (
        "a value is not what its type says (view-failed)"
    )


@pytest.mark.parametrize("error", [error for error in defined() if issubclass(error, RejectedRecordError)])
def test_no_rejected_record_takes_a_payload(error: type[RejectedRecordError]) -> None:
    with pytest.raises(TypeError):
        error("detail", payload=b"330802199001011234")  # type: ignore[call-arg]
