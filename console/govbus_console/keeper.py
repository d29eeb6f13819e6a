"""What has to be done to a running bus as time passes. Does I/O.

One round, about every second:

1. grants whose term is over are recorded as expired and their subscribers told;
2. shared topics are opened and closed as terms begin and end;
3. receipts are collected for grants that have ended, and their delivery topics removed;
4. what an earlier command had left undone (a crash between store and broker) is
   carried through: decisions that Kafka has not been told of, and requests that
   were approved and have no grant yet;
5. once a minute the clocks of requests are looked at (:mod:`.control.clocks`).

The exchange denies an expired grant by its own clock, whether the keeper runs or
not; the one thing that rests on the keeper alone is closing a shared topic.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

from govbus import observe
from govbus.errors import FencedError, RetriableError
from govbus_console.control import endings, outbox, shared_access
from govbus_console.control.apply import settle
from govbus_console.control.bus import Bus
from govbus_console.control.clocks import run_clocks
from govbus_console.control.lifecycle import expire_due
from govbus_console.control.requests import Requests
from govbus_console.control.store import ControlStore

_log = logging.getLogger(__name__)
_ROUND_SECONDS = 1.0
_CLOCKS = timedelta(minutes=1)
_GRACE = timedelta(seconds=30)
"""How long a command may take to publish what it has decided; after that it counts as dead."""

_FOLLOW_UP_SECONDS = 5.0
"""How often departments that have not answered are looked at: reading their topics takes a connection."""


def keep(store: ControlStore, bus: Bus, *, stop: threading.Event) -> None:
    """Go round until ``stop`` is set; what cannot be done now is tried again in the next round."""
    opened: frozenset[object] | None = None
    concluded: frozenset[str] = frozenset()
    look_at = 0.0
    requests = Requests(store=store, bus=lambda: nullcontext(bus))
    clocks_at = datetime.now(UTC)
    while not stop.is_set():
        now = datetime.now(UTC)
        try:
            for grant in expire_due(store, bus, now=now):
                _log.info("grant expired", extra={"grant": grant})
            due = shared_access.due(store.snapshot(), now=now)
            observe.revocations_pending.set(outbox.pending(store))
            if due != opened or outbox.pending(store, before=now - _GRACE):
                settle(store, bus, now=now)
                opened = due
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + _FOLLOW_UP_SECONDS
                followed = endings.follow_up(store, bus, now=now, concluded=concluded)
                concluded |= followed.concluded
                observe.unanswered_grants.set(sum(not each.answered for each in followed.standings))
            for request in requests.provide_pending(before=now - _GRACE):
                _log.info("request provided", extra={"request": request})
            if now >= clocks_at:
                run_clocks(store, requests.rules, now=now)
                clocks_at = now + _CLOCKS
        except (RetriableError, FencedError) as error:
            _log.warning("the keeper waits", extra={"code": error.code})
        observe.heartbeat("keeper")
        stop.wait(_ROUND_SECONDS)
