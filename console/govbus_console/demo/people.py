"""Make up residents: nobody of the demo exists or could.

Everything comes from one seed, so that two runs on the same divisions make the
same people.

1. A citizen identification number is area code, date of birth, serial and check
   character (GB 11643). The serials 996 to 999 were set aside for people born
   before 1900, in the time when a number had only two digits for the year; nobody
   born later was ever given one. Each number here has one of those four and a
   year of birth after 1900: the check character is right, and no such person
   can have been issued that number.
2. A phone number begins with 100, which no mobile network in China has.
3. Names are Faker's (locale zh_CN); addresses are a real division and a street
   and number of Faker's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from govbus.errors import ConfigurationError

if TYPE_CHECKING:
    from faker import Faker

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_CHARACTERS = "10X98765432"
_SERIALS = {"male": ("997", "999"), "female": ("996", "998")}
"""Odd serials are men's, even ones women's (GB 11643)."""

_OLDEST_YEARS = 95
_PHONES_FROM = 18
"""Age from which a resident has a phone in the register."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A division where people live."""

    code: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One made-up person, as first registered."""

    id_number: str
    name: str
    sex: str
    birth_date: date
    phone: str | None
    place: Place
    address: str


def check_character(first_17: str) -> str:
    """Work out the last character of a citizen identification number (GB 11643, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, first_17, strict=True))
    return _CHECK_CHARACTERS[total % 11]


class People:
    """Makes up people one after another; no two have the same number."""

    def __init__(self, *, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - made-up people, not secrets
        self._faker = _faker(seed)
        self._given: set[str] = set()

    def born(self, place: Place, *, first: date, last: date) -> Person:
        """Make up one person who lives in ``place`` and was born between the two days."""
        sex = self._random.choice(("male", "female"))
        birth_date, id_number = self._number(place, sex, first, last)
        name = self._faker.name_male() if sex == "male" else self._faker.name_female()
        adult = (last - birth_date).days >= _PHONES_FROM * 365
        return Person(
            id_number=id_number,
            name=name,
            sex=sex,
            birth_date=birth_date,
            phone=f"100{self._random.randrange(10**8):08}" if adult else None,
            place=place,
            address=self.address(place),
        )

    def of_any_age(self, place: Place, *, on: date) -> Person:
        """Make up one person alive on a day."""
        return self.born(place, first=on - timedelta(days=_OLDEST_YEARS * 365), last=on)

    def address(self, place: Place) -> str:
        """Make up an address in a real division."""
        return f"{place.name}{self._faker.street_name()}{self._random.randrange(1, 400)}号"

    def _number(self, place: Place, sex: str, first: date, last: date) -> tuple[date, str]:
        days = (last - first).days
        while True:
            birth_date = first + timedelta(days=self._random.randrange(days))
            serial = self._random.choice(_SERIALS[sex])
            body = f"{place.code[:6]}{birth_date:%Y%m%d}{serial}"
            if body not in self._given:
                self._given.add(body)
                return birth_date, body + check_character(body)


def _faker(seed: int) -> Faker:
    try:
        from faker import Faker
    except ImportError:
        raise ConfigurationError("the demo needs Faker: pip install 'govbus[demo]'") from None
    faker = Faker("zh_CN")
    faker.seed_instance(seed)
    return faker


def spread(places: Sequence[Place], count: int, *, seed: int, city: str, share: float) -> list[Place]:
    """Choose where ``count`` people live: a share of them in one city, the others anywhere."""
    chooser = random.Random(seed)  # noqa: S311 - where made-up people live
    there = [place for place in places if place.code.startswith(city)]
    return [
        chooser.choice(there) if there and chooser.random() < share else chooser.choice(places)
        for _ in range(count)
    ]
