"""Batches grow as far as time allows, and no further."""

from __future__ import annotations

import pytest

from govbus_processors.pace import BATCH_SECONDS, FEWEST_RECORDS, Pace


def test_a_worker_begins_with_small_batches_and_grows() -> None:
    pace = Pace(30_000)
    assert pace.limit == FEWEST_RECORDS

    pace.note(FEWEST_RECORDS, 0.02)

    assert pace.limit == FEWEST_RECORDS / 0.02 * BATCH_SECONDS


@pytest.mark.parametrize(
    ("records", "seconds", "limit"),
    [(30_000, 3.0, 2_500), (30_000, 0.1, 30_000), (10, 0.5, FEWEST_RECORDS), (0, 0.0, 30_000)],
)
def test_a_batch_takes_about_a_quarter_of_a_second(records: int, seconds: float, limit: int) -> None:
    pace = Pace(30_000)

    pace.note(records, seconds)

    assert pace.limit == limit


def test_no_batch_is_larger_than_the_setting() -> None:
    pace = Pace(8)
    assert pace.limit == 8

    pace.note(8, 10.0)

    assert pace.limit == 8
