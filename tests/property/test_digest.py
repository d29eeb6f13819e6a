"""The digest of a table does not depend on the order of its rows, and on everything else."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from govbus.receipt import EMPTY_DIGEST
from govbus_consumers.digest import RowsDigest

KEY, OTHER_KEY = b"k" * 32, b"o" * 32

values: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**63), max_value=2**63 - 1),
    st.floats(allow_nan=False).filter(lambda number: number != 0),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
    st.times(),
    st.uuids(),
)
rows = st.tuples(values, values)


def digest(some: list[tuple[Any, ...]], key: bytes = KEY) -> str:
    found = RowsDigest(key)
    for row in some:
        found.add(row)
    assert found.rows == len(some)
    return found.hexdigest()


def shown(row: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
    """What tells two rows apart: 1, 1.0 and True are equal in Python, and not in a table."""
    return tuple((type(value).__name__, repr(value)) for value in row)


@given(st.lists(rows), st.randoms(use_true_random=False))
def test_the_order_of_rows_makes_no_difference(some: list[tuple[Any, ...]], random: Any) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)

    assert digest(shuffled) == digest(some)


@given(st.lists(rows), rows, rows)
def test_another_row_one_more_or_one_twice_makes_a_difference(
    some: list[tuple[Any, ...]], one: tuple[Any, ...], other: tuple[Any, ...]
) -> None:
    assume(shown(one) != shown(other))

    found = [digest(some), digest([*some, one]), digest([*some, other]), digest([*some, one, one])]

    assert len(set(found)) == 4


def test_values_that_look_alike_are_told_apart() -> None:
    lookalikes = [
        ("as", "b"), ("a", "sb"), ("ab", "c"), ("a", "bc"), ("abc", ""), ("abc", None), ("1", 1), (1, "1"),
        (True, "1"), (1.0, "1"),
        (Decimal(1), "1"), (b"1", "1"), (date(2026, 1, 1), "1"), ("2026-01-01", "1"),
        (datetime(2026, 1, 1, tzinfo=UTC), "1"), ("1:", "1"),
    ]  # fmt: skip

    assert len({digest([row]) for row in lookalikes}) == len(lookalikes)


def test_without_the_key_a_guess_cannot_be_tried() -> None:
    """The digest of one guessed row is not the digest of that row under another key."""
    assert digest([("李四", 1990)], KEY) != digest([("李四", 1990)], OTHER_KEY)


def test_no_rows_have_the_digest_that_a_receipt_of_deletion_shows() -> None:
    assert digest([]) == EMPTY_DIGEST
