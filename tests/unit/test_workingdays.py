"""Working days, against the arrangements that the State Council published for 2024 to 2026."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govbus.errors import CatalogueError
from govbus.workingdays import DayKind, WorkCalendar, span
from govbus_console.control.calendar_file import apply_calendar, read_calendar_file
from govbus_console.control.request_steps import read_calendar
from govbus_console.control.store import ControlStore
from govbus_console.settings import RequestSettings

CHINA = Path(__file__).parents[2] / "deploy" / "calendar" / "china.yaml"
DAYS = WorkCalendar(exceptions={day: kind for day, (kind, _) in read_calendar_file(CHINA).days.items()})


def china(year: int, month: int, day: int, hour: int = 10) -> datetime:
    """A moment of office hours in China, in UTC."""
    return datetime(year, month, day, hour, tzinfo=DAYS.zone).astimezone(UTC)


@pytest.mark.parametrize(("year", "worked"), [(2024, 251), (2025, 248), (2026, 248)])
def test_a_year_has_as_many_working_days_as_are_counted_for_wages(year: int, worked: int) -> None:
    assert sum(DAYS.worked(day) for day in span(date(year, 1, 1), date(year, 12, 31))) == worked


@pytest.mark.parametrize(
    ("day", "worked"),
    [
        ("2024-02-04", True),  # a Sunday, worked for Spring Festival
        ("2024-02-09", True),  # New Year's Eve was a working day in 2024
        ("2024-02-12", False),
        ("2024-10-12", True),
        ("2025-01-28", False),  # and is a holiday since 2025
        ("2025-02-04", False),
        ("2025-05-05", False),
        ("2025-09-28", True),
        ("2025-10-08", False),
        ("2026-01-04", True),
        ("2026-02-14", True),
        ("2026-02-23", False),
        ("2026-05-09", True),
        ("2026-09-25", False),
        ("2026-10-10", True),
        ("2026-10-11", False),
    ],
)
def test_holidays_are_free_and_swapped_weekends_are_worked(day: str, worked: bool) -> None:
    assert DAYS.worked(date.fromisoformat(day)) is worked


@pytest.mark.parametrize(
    ("since", "days", "last"),
    [
        ("2025-01-24", 1, "2025-01-26"),  # the Sunday before Spring Festival is worked
        ("2025-01-24", 3, "2025-02-05"),
        ("2025-09-26", 10, "2025-10-16"),
        ("2026-02-13", 1, "2026-02-14"),
        ("2026-02-13", 2, "2026-02-24"),
        ("2026-09-30", 3, "2026-10-10"),
        ("2027-01-01", 1, "2027-01-04"),  # not arranged yet: plain weekends
        ("2026-09-30", 0, "2026-09-30"),
    ],
)
def test_a_term_is_over_at_the_end_of_its_last_working_day(since: str, days: int, last: str) -> None:
    begun = date.fromisoformat(since)

    due = DAYS.due(china(begun.year, begun.month, begun.day), days)

    assert due.astimezone(DAYS.zone).date() - timedelta(days=1) == date.fromisoformat(last)
    assert due.astimezone(DAYS.zone).hour == 0


def test_the_day_is_the_office_s_not_that_of_utc() -> None:
    # 23:30 on a Thursday in UTC is Friday in China, and the next working day there is Monday.
    assert DAYS.due(datetime(2026, 11, 5, 23, 30, tzinfo=UTC), 1) == datetime(2026, 11, 9, 16, tzinfo=UTC)
    with pytest.raises(ValueError, match="time zone"):
        DAYS.due(datetime(2026, 11, 6, 23, 30), 1)  # noqa: DTZ001


@given(
    begun=st.datetimes(datetime(2024, 1, 1), datetime(2026, 11, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    days=st.integers(0, 60),
)
def test_what_is_left_of_a_fresh_term_is_all_of_it(begun: datetime, days: int) -> None:
    due = DAYS.due(begun, days)

    assert DAYS.left(begun, due) == days
    assert DAYS.left(due, due) == 0
    last = DAYS.day_of(due) - timedelta(days=1)
    assert days == 0 or DAYS.worked(last)


def test_a_calendar_without_a_working_day_is_refused_instead_of_searched_for_ever() -> None:
    never = {day: DayKind.FREE for day in span(date(2026, 1, 1), date(2040, 1, 1))}

    with pytest.raises(ValueError, match="too few working days"):
        WorkCalendar(exceptions=never).due(china(2026, 1, 1), 1)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("years: [2026]", "write years and arrangements"),
        ("years: 2026\narrangements: []", "years lists"),
        ("years: [2026]\narrangements: [{name: a}]", "write {name"),
        ("years: [2026]\narrangements: [{name: a, free: [2026-01-02, 2026-01-01]}]", "write {name"),
        ("years: [2026]\narrangements: [{name: a, free: [2025-01-01, 2025-01-01]}]", "none of the years"),
        (
            "years: [2026]\narrangements: [{name: a, free: [2026-01-01, 2026-01-01], worked: [2026-01-05]}]",
            "is no weekend day",
        ),
        (
            "years: [2026]\narrangements:\n- {name: a, free: [2026-01-01, 2026-01-02]}\n"
            "- {name: b, free: [2026-01-02, 2026-01-03]}",
            "named twice",
        ),
        (": :", "not YAML"),
    ],
)
def test_a_calendar_file_that_says_something_else_is_refused(tmp_path: Path, text: str, match: str) -> None:
    file = tmp_path / "calendar.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(CatalogueError, match=match):
        read_calendar_file(file)


def test_applying_a_calendar_replaces_the_years_that_it_names_and_no_others(tmp_path: Path) -> None:
    store = ControlStore.open(f"sqlite:///{tmp_path / 'control.db'}")
    file = tmp_path / "calendar.yaml"
    file.write_text(
        "years: [2025]\narrangements: [{name: 元旦, free: [2025-01-01, 2025-01-01]}]", encoding="utf-8"
    )
    moment = china(2026, 1, 1)

    first = apply_calendar(store, read_calendar_file(CHINA), who="li", why="notice", now=moment)
    again = apply_calendar(store, read_calendar_file(CHINA), who="li", why="notice", now=moment)
    changed = apply_calendar(store, read_calendar_file(file), who="li", why="notice", now=moment)

    with store.reading() as session:
        kept = read_calendar(session, RequestSettings())
    assert (first, again) == (len(DAYS.exceptions), 0)
    assert changed > 20
    assert {day for day in kept.exceptions if day.year == 2025} == {date(2025, 1, 1)}
    assert not kept.worked(date(2026, 2, 23))
    store.close()
