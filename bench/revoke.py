"""Revocation: from the command to the certainty that nothing more is delivered.

Two exchange workers are at work, exactly once, on 2,000 changes a second and
ten grants. One grant after the other is revoked, as ``govbus revoke`` does it.
``revoke_ms`` is the whole call: the record in the store, the outbox, the
barrier, the subscriber told. After each, the delivery topic must not grow any
more while the traffic goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.govbus_peer import OWNER, control, start_worker
from bench.records import rows
from bench.report import JsonObject, spread
from bench.views import views
from bench.window import PeerFailedError
from govbus.event import Change
from govbus_producers.publish import Publisher

if TYPE_CHECKING:
    from bench.ground import Ground

_log = logging.getLogger(__name__)

GRANTS = 10
WORKERS = 2
RATE = 2_000
_STEP_SECONDS = 0.02
_RESOURCE = "revoked"
_PATIENCE_SECONDS = 60.0
_WATCHED_SECONDS = 1


def revoke(ground: Ground) -> JsonObject:
    """Revoke all grants but one and give the median of the times.

    Raises:
        PeerFailedError: a worker ended, nothing was delivered, or something was after a revocation.
    """
    wanted = views(GRANTS, resource=_RESOURCE)
    calls, barriers = [], []
    with control(ground) as side, ExitStack() as stack:
        side.apply([_RESOURCE], [view.grant for view in wanted], kind="state")
        workers = [start_worker(ground, f"revoke-{n}", guarantee="exactly-once") for n in range(WORKERS)]
        for worker in workers:
            stack.callback(worker.stop)
        stack.enter_context(_traffic(ground))
        _await_growth(ground, [view.grant.topic for view in wanted])
        for view in wanted[1:]:
            began = time.monotonic()
            barrier = side.revoke(view.grant.id)
            calls.append((time.monotonic() - began) * 1_000)
            barriers.append(barrier * 1_000)
            _log.info(
                "%s revoked in %.0f ms, the barrier took %.0f ms", view.grant.id, calls[-1], barriers[-1]
            )
            _check_still(ground, view.grant.topic, wanted[0].grant.topic)
        if any(worker.exit_code is not None for worker in workers):
            raise PeerFailedError("a worker ended during the revocations")
    return {**spread("revoke_ms", calls), **spread("revoke_barrier_ms", barriers)}


def _check_still(ground: Ground, revoked: str, alive: str) -> None:
    """Compare a revoked grant's topic before and after traffic has passed that it would have been part of."""
    before = ground.visible([revoked, alive])
    until = time.monotonic() + _PATIENCE_SECONDS
    while (after := ground.visible([revoked, alive]))[1] < before[1] + RATE * _WATCHED_SECONDS:
        if time.monotonic() > until:
            raise PeerFailedError("nothing is delivered any more under the grant that still stands")
        time.sleep(0.1)
    if after[0] != before[0]:
        raise PeerFailedError(
            f"{after[0] - before[0]} records were delivered to {revoked} after its revocation"
        )


def _await_growth(ground: Ground, topics: list[str]) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not all(ground.visible(topics)):
        if time.monotonic() > until:
            raise PeerFailedError("not every grant got deliveries")
        time.sleep(0.2)


@contextmanager
def _traffic(ground: Ground) -> Iterator[None]:
    """Publish changes in the background."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def publish() -> None:
        source = rows(10**9)
        try:
            with Publisher(
                OWNER, broker=ground.bus.broker_settings(OWNER), registry=ground.registry
            ) as publisher:
                while not stop.wait(_STEP_SECONDS):
                    batch = [next(source) for _ in range(round(RATE * _STEP_SECONDS))]
                    publisher.publish(
                        _RESOURCE, [Change(key={"id_number": row["id_number"]}, row=row) for row in batch]
                    )
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=publish, name="traffic")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise PeerFailedError(f"the traffic stopped: {failed[0]}")
