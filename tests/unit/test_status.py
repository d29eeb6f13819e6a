"""What ``govbus status`` makes of what the exchange has committed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from govbus.grant import GrantState
from govbus_console.status import Stand, backfills_of, text_of
from support.policies import a_grant, published

NOW = datetime.now(UTC)


def known(**changes: Any) -> Any:
    """A catalogue with one grant of one resource."""
    term = {"starts_at": NOW - timedelta(days=1), "expires_at": NOW + timedelta(days=1)}
    made = published(a_grant(**term | changes)).grant
    return SimpleNamespace(grants={made.grant.id: SimpleNamespace(grant=made.grant, published=made)})


TOPIC = "govbus.delivered.tax.tax-firms"
VIEW = known().grants["tax-firms"].published.view
STANDS = {"registrar.firms": Stand(ends={0: 100, 1: 50, 2: 9}, done={0: 90, 1: 50})}


def cursor(offset: int, *, live: bool, view: str = VIEW) -> dict[str, Any]:
    return {"view": view, "live": live, "next_offset": offset}


@pytest.mark.parametrize(
    ("cursors", "expected"),
    [
        ({0: cursor(3, live=True), 1: cursor(0, live=True)}, None),
        ({0: cursor(30, live=False), 1: cursor(0, live=True)}, (80, 140)),
        ({0: cursor(30, live=False)}, (30, 140)),
        ({0: cursor(3, live=True, view="older"), 1: cursor(0, live=True)}, (50, 140)),
        ({0: cursor(90, live=False), 1: cursor(50, live=False)}, (140, 140)),
        ({}, (0, 140)),
    ],
)
def test_a_grant_has_been_brought_as_far_as_its_cursors_say(
    cursors: dict[int, Any], expected: tuple[int, int] | None
) -> None:
    """Partition 2 was never read: whatever comes first there, every grant begins with it."""
    found = backfills_of(known(), STANDS, {(TOPIC, number): at for number, at in cursors.items()})

    if expected is None:
        assert found == {}
    else:
        done, whole = expected
        assert found == {"tax-firms": {"done": done, "expected": whole, "remaining": whole - done}}


def test_a_grant_that_may_not_deliver_now_is_not_being_brought_anywhere() -> None:
    assert backfills_of(known(state=GrantState.SUSPENDED), STANDS, {}) == {}


def test_a_person_reads_done_of_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    grant = {
        "grant": "tax-firms", "version": 1, "state": "active", "subscriber": "tax",
        "resource": "registrar.firms", "topic": TOPIC,
        "backfill": {"done": 80, "expected": 140, "remaining": 60},
    }  # fmt: skip
    found = {
        "home": "h", "running": True, "bootstrap": "b", "unpublished": 0,
        "processes": [], "resources": [], "grants": [grant], "workers": [],
    }  # fmt: skip

    assert "80 of 140" in " ".join(text_of(found).split())
