"""The keeper goes round: what has ended is followed up until nothing is left to do."""

from __future__ import annotations

import threading
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from govbus.errors import BrokerUnavailableError
from govbus.grant import DataDuty, GrantState
from govbus_console import keeper
from govbus_console.control.endings import FollowedUp
from govbus_console.control.receipts import Standing

STANDING = Standing(
    grant="firms-for-tax",
    version=2,
    resource="registrar.firms",
    department="tax",
    state=GrantState.EXPIRED,
    duty=DataDuty.DELETE,
    ended_at=datetime(2026, 1, 1, tzinfo=UTC),
    answer=None,
)


def test_ended_grants_are_followed_up_until_nothing_is_left_and_an_outage_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = threading.Event()
    asked: list[AbstractSet[str]] = []

    def follow_up(_store: Any, _bus: Any, *, now: datetime, concluded: AbstractSet[str]) -> FollowedUp:
        asked.append(concluded)
        if len(asked) == 1:
            raise BrokerUnavailableError("away")
        if len(asked) == 4:
            stop.set()
        done = frozenset({"another"}) if len(asked) == 2 else frozenset[str]()
        return FollowedUp(standings=(STANDING,), concluded=done)

    monkeypatch.setattr(keeper, "_ROUND_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "_FOLLOW_UP_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "expire_due", lambda *_, **__: [])
    monkeypatch.setattr(keeper, "settle", lambda *_, **__: None)
    monkeypatch.setattr(keeper.shared_access, "due", lambda *_, **__: frozenset())
    monkeypatch.setattr(keeper.outbox, "pending", lambda *_, **__: 0)
    monkeypatch.setattr(keeper.endings, "follow_up", follow_up)
    monkeypatch.setattr(keeper.Requests, "provide_pending", lambda *_, **__: [])
    monkeypatch.setattr(keeper, "run_clocks", lambda *_, **__: None)
    store: Any = SimpleNamespace(snapshot=lambda: None)
    bus: Any = None

    keeper.keep(store, bus, stop=stop)

    assert asked == [set(), set(), {"another"}, {"another"}]
    assert REGISTRY.get_sample_value("govbus_unanswered_grants") == 1
