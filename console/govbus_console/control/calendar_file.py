"""Read a calendar of holidays and swapped weekends, and keep it in the store. Does I/O.

A file lists, for each arrangement, the free days and the weekend days that are
worked for them::

    years: [2026]
    arrangements:
      - {name: 春节, free: [2026-02-15, 2026-02-23], worked: [2026-02-14, 2026-02-28]}

``free`` is the first and the last day, both included. Applying a file replaces
the years that it names and leaves the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import select

from govbus.errors import CatalogueError
from govbus.workingdays import DayKind, span
from govbus_console.control.request_tables import HolidayRow
from govbus_console.control.store import AuditRow, ControlStore

_SATURDAY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarFile:
    """The years that a file speaks for, and the days in them that are not as their weekday says."""

    years: frozenset[int]
    days: Mapping[date, tuple[DayKind, str]]
    """Kind of day, and the arrangement's name."""


def read_calendar_file(path: Path) -> CalendarFile:
    """Read a file strictly.

    Raises:
        CatalogueError: it is not such a file; the message says what to write.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: {type(error).__name__}; make it readable UTF-8") from None
    except yaml.YAMLError:
        raise CatalogueError(f"{path}: not YAML") from None
    if not isinstance(found, dict) or set(found) != {"years", "arrangements"}:
        raise CatalogueError(f"{path}: write years and arrangements, and nothing else")
    years, arrangements = found["years"], found["arrangements"]
    if not isinstance(years, list) or not years or not all(type(year) is int for year in years):
        raise CatalogueError(f"{path}: years lists those that the file speaks for, e.g. [2026]")
    if not isinstance(arrangements, list):
        raise CatalogueError(f"{path}: arrangements is a list")
    days: dict[date, tuple[DayKind, str]] = {}
    for number, arrangement in enumerate(arrangements):
        place = f"{path}: arrangements[{number}]"
        for day, kind, name in _days(arrangement, place):
            if day.year not in years:
                raise CatalogueError(f"{place}: {day} is in none of the years")
            if day in days:
                raise CatalogueError(f"{place}: {day} is named twice")
            days[day] = (kind, name)
    return CalendarFile(years=frozenset(years), days=days)


def _days(arrangement: Any, place: str) -> list[tuple[date, DayKind, str]]:
    fix = "write {name: …, free: [first day, last day], worked: [days]}"
    if not isinstance(arrangement, dict) or not {"name", "free"} <= set(arrangement) <= {
        "name",
        "free",
        "worked",
    }:
        raise CatalogueError(f"{place}: {fix}")
    name, free, worked = arrangement["name"], arrangement["free"], arrangement.get("worked", [])
    dates = isinstance(free, list) and isinstance(worked, list) and all(_is_day(d) for d in (*free, *worked))
    if not isinstance(name, str) or not dates or len(free) != 2 or free[0] > free[1]:
        raise CatalogueError(f"{place}: {fix}")
    for day in worked:
        if day.weekday() < _SATURDAY:
            raise CatalogueError(f"{place}: {day} is no weekend day, so it is worked in any case")
    return [(day, DayKind.FREE, name) for day in span(*free)] + [
        (day, DayKind.WORKED, name) for day in worked
    ]


def _is_day(value: Any) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)


def apply_calendar(store: ControlStore, calendar: CalendarFile, *, who: str, why: str, now: datetime) -> int:
    """Replace the years that a file speaks for; return how many days have changed."""
    with store.locked() as session:
        before = {
            row.day: row for row in session.scalars(select(HolidayRow)) if row.day.year in calendar.years
        }
        changed = 0
        for day, row in before.items():
            if day not in calendar.days:
                session.delete(row)
                changed += 1
        for day, (kind, name) in calendar.days.items():
            old = before.get(day)
            if old is None or (old.kind, old.name) != (kind.value, name):
                session.merge(HolidayRow(day=day, kind=kind.value, name=name))
                changed += 1
        if changed:
            for year in sorted(calendar.years):
                session.add(
                    AuditRow(
                        at=now,
                        who=who,
                        what=f"calendar {year}",
                        before=_facts(before.values(), year),
                        after={
                            day.isoformat(): kind.value
                            for day, (kind, _) in sorted(calendar.days.items())
                            if day.year == year
                        },
                        why=why,
                    )
                )
        return changed


def _facts(rows: Any, year: int) -> dict[str, str]:
    return {row.day.isoformat(): row.kind for row in rows if row.day.year == year}
