"""What a department's own store says of one delivery, whatever the type of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.engine import make_url

from govbus.deliverytrail import Delivered, LandingFacts
from govbus.errors import ConfigurationError
from govbus.event import RecordAddress
from govbus.explanation import GrantVersion
from govbus.grant import DataDuty
from govbus_console.answers.landed import landed_lookup
from govbus_consumers.config import LandConfig
from support.hostile_deliveries import CODE, optional
from support.landing_doubles import NOON, TOPIC, PaperLanding
from support.policies import a_grant, published

STORES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))
KEYS: list[tuple[Any, Any]] = [
    ("string", "衢州"),
    ("long", 7),
    ("bytes", b"\x00\xff"),
    ("boolean", True),
    ({"type": "int", "logicalType": "date"}, date(2024, 5, 1)),
    ({"type": "long", "logicalType": "timestamp-micros"}, datetime(2024, 5, 1, 8, 30, tzinfo=UTC)),
    ({"type": "string", "logicalType": "uuid"}, UUID(int=7)),
    ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("12.50")),
]


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'landed.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def landing(url: str) -> Iterator[PaperLanding]:
    with closing(PaperLanding(url)) as landing:
        yield landing


def config(url: str) -> LandConfig:
    return LandConfig(department="tax", sink=make_url(url), receipt_key=Path("unused"))


def look(landing: PaperLanding, offset: int, code: Any) -> LandingFacts:
    """Ask about one delivery of the grant that lands there."""
    granted = GrantVersion(published=published(a_grant(id="rows")).grant, made_at=NOON)
    at = RecordAddress(topic=TOPIC, partition=0, offset=offset)
    delivery = Delivered(at=at, schema_id=landing.value_schema.id, changed_at=NOON)
    with landed_lookup(config(landing.url), "tax") as ask:
        return ask(granted, delivery, landing.key_of({"code": code}), landing.key_schema)


@pytest.mark.parametrize(("kind", "code"), KEYS, ids=str)
def test_a_row_is_found_under_a_key_of_any_type(landing: PaperLanding, kind: Any, code: Any) -> None:
    landing.agree(({"name": "code", "type": kind}, optional("name", "string")))
    landing.put({"code": code, "name": "n"})
    landing.land()

    assert look(landing, 0, code) == LandingFacts(next_offset=1, landed_at=NOON, row_offset=0)


def test_a_row_is_told_from_another_and_from_its_later_self(landing: PaperLanding) -> None:
    landing.agree((CODE, optional("name", "string")))
    for code in ("A", "B", "A"):
        landing.put({"code": code, "name": "n"})
    landing.land()

    assert [look(landing, offset, code).row_offset for offset, code in ((0, "A"), (1, "B"), (2, "C"))] == [
        2,
        1,
        None,
    ]


def test_what_has_not_landed_what_was_put_aside_and_what_was_purged(landing: PaperLanding) -> None:
    landing.agree((CODE, optional("name", "string")))
    landing.put({"code": "A", "name": "n"})
    landing.deliver(landing.key_of({"code": "B"}), b"junk")
    landing.land()
    before = look(landing, 2, "C")
    aside = look(landing, 1, "B")

    landing.end(DataDuty.DELETE)

    assert (before.next_offset, before.row_offset) == (2, None)
    assert aside.dead_letter == "undecodable"
    purged = look(landing, 0, "A")
    assert (purged.row_offset, purged.purged_at is not None) == (None, True)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (f"sqlite:///{folder}/nothing.db", "tax"), "landing has never run"),
        (lambda folder: (f"sqlite:///{folder}/nothing.db", "health"), "that of tax, not of health"),
    ],
)
def test_a_store_that_is_not_the_one_that_is_meant_is_refused_and_not_made(
    spoil: Callable[[Path], tuple[str, str]], why: str, tmp_path: Path
) -> None:
    url, department = spoil(tmp_path)

    with pytest.raises(ConfigurationError, match=why), landed_lookup(config(url), department):
        pass

    assert list(tmp_path.iterdir()) == []
