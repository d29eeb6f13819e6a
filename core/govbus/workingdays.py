"""Working days: which days are worked, and when so many of them are over. Pure.

Monday to Friday are worked unless the calendar says that they are free; Saturday
and Sunday are free unless the calendar says that they are worked, as weekends
are that are swapped for the days of a long holiday (调休). The State Council
publishes the arrangement for each year in the autumn before; a year that the
calendar does not know yet has plain weekends.

A day is a day at the office, so a calendar has the office's offset from UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from enum import StrEnum

CHINA = timezone(timedelta(hours=8))
"""China has one time and changes no clocks (since 1992), so an offset says it all."""

_SATURDAY = 5
_LONGEST = 3_660
"""No term runs for ten years of days; a calendar without a worked day would be searched for ever."""


class DayKind(StrEnum):
    """What a day is that is not as its weekday says."""

    FREE = "free"
    WORKED = "worked"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkCalendar:
    """The days that are worked."""

    exceptions: Mapping[date, DayKind] = field(default_factory=dict)
    zone: timezone = CHINA

    def worked(self, day: date) -> bool:
        """Whether a day is worked."""
        kind = self.exceptions.get(day)
        return day.weekday() < _SATURDAY if kind is None else kind is DayKind.WORKED

    def day_of(self, moment: datetime) -> date:
        """Which day it is at the office; ValueError for a moment without zone."""
        if moment.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return moment.astimezone(self.zone).date()

    def due(self, since: datetime, days: int) -> datetime:
        """When ``days`` working days after the day of ``since`` are over.

        The day itself does not count, whatever the hour (Civil Code of the PRC,
        article 201). The answer is the midnight that ends the last of them, in UTC.
        """
        if days < 0:
            raise ValueError("working days are counted from 0")
        day = self.day_of(since)
        left = days
        for _ in range(_LONGEST):
            if left == 0:
                break
            day += timedelta(days=1)
            left -= self.worked(day)
        else:
            raise ValueError("the calendar has too few working days")
        return datetime.combine(day + timedelta(days=1), time(), self.zone).astimezone(UTC)

    def left(self, now: datetime, due: datetime) -> int:
        """How many working days lie after the day of ``now`` up to the end that :meth:`due` gave."""
        day, last = self.day_of(now), self.day_of(due) - timedelta(days=1)
        return sum(self.worked(day + timedelta(days=n)) for n in range(1, (last - day).days + 1))


def span(first: date, last: date) -> Iterable[date]:
    """All days from ``first`` to ``last``, both included."""
    return (first + timedelta(days=n) for n in range((last - first).days + 1))
