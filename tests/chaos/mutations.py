"""Faults put into the engine by hand, one at a time, to see that the judge finds what they lead to.

A judge that has never said *broken* of a real run proves little. Each mutation takes
away one thing that a promise rests on, in the exchange workers of one run and
nowhere else: the worker's process applies it before it begins (:func:`program`).

A mutation takes hold of what it changes by name. When the engine has changed so that
there is no such thing any more, it raises, and ``tests/unit/test_chaos_mutations.py``
says so: a worker that cannot start must not be taken for one that was found out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

MUTATIONS: dict[str, Callable[[], None]] = {}
"""By name; calling one changes the engine of this process."""

_TESTS = str(Path(__file__).parents[1])
_HELD_OPEN = 0.3
"""Seconds for which a window is held open that is otherwise too short for a short storm to hit."""

_LATE = 4.0
"""Longer than a barrier takes while every worker answers."""


def mutation(change: Callable[[], None]) -> Callable[[], None]:
    """List a mutation; its docstring says what it does to the engine."""
    MUTATIONS[change.__name__.replace("_", "-")] = change
    return change


def program(name: str) -> str:
    """The lines of Python that apply a mutation, to be run at the beginning of a worker's process."""
    if name not in MUTATIONS:
        raise ValueError(f"no such mutation; there are {', '.join(sorted(MUTATIONS))}")
    return (
        f"import sys\nsys.path.insert(0, {_TESTS!r})\n"
        f"from chaos.mutations import MUTATIONS\nMUTATIONS[{name!r}]()\n"
    )


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put something in the place of what an owner has under a name, made from it."""
    setattr(owner, name, make(getattr(owner, name)))


@mutation
def offsets_outside_the_transaction() -> None:
    """Deliveries are committed first, the source offsets in a transaction after it."""
    from govbus_processors.transaction import ExactlyOnce

    def make(honest: Any) -> Any:
        def commit(self: Any, offsets: Any, group: Any) -> None:
            honest(self, [], None)
            if offsets:
                time.sleep(_HELD_OPEN)
                self.begin()
                honest(self, offsets, group)

        return commit

    _replace(ExactlyOnce, "commit", make)


@mutation
def lease_never_over() -> None:
    """A policy that was confirmed once is taken for current ever after."""
    from govbus_processors.directory import Directory

    def make(_honest: Any) -> Any:
        def fresh(self: Any, *, since: float = 0.0) -> bool:
            confirmed = self._confirmed_at
            return confirmed is not None and confirmed >= since

        return fresh

    _replace(Directory, "fresh", make)


@mutation
def policy_applied_late() -> None:
    """What is reported as applied is the newest policy; what is applied is older by four seconds."""
    from govbus_processors.directory import Directory
    from govbus_processors.routes import Policy

    made: dict[tuple[int, int], Policy] = {}

    def kept(self: Any) -> list[tuple[float, Policy]]:
        return self.__dict__.setdefault("_kept", [])  # type: ignore[no-any-return]

    def get(self: Any) -> Policy:
        newest = kept(self)[-1][1]
        old = [policy for at, policy in kept(self) if at <= time.monotonic() - _LATE] or [kept(self)[0][1]]
        # The same object for the same answer: a worker tells a change by it.
        return made.setdefault((old[-1].offset, newest.offset), replace(old[-1], offset=newest.offset))

    def put(self: Any, policy: Policy) -> None:
        kept(self).append((time.monotonic(), policy))

    Directory.policy = property(get, put)  # type: ignore[assignment]


@mutation
def row_filter_ignored() -> None:
    """Views are compiled without their row filter."""
    from govbus_processors import exchange

    def make(honest: Any) -> Any:
        def compile_view(*, published: Any, **others: Any) -> Any:
            return honest(published=replace(published, grant=replace(published.grant, rows=None)), **others)

        return compile_view

    _replace(exchange, "compile_view", make)


@mutation
def a_tombstone_in_ten_dropped() -> None:
    """One in ten deletions, and rows that left the view, is not told."""
    _edit_deliveries(lambda outputs: [one for n, one in enumerate(outputs) if n % 10 or one[1] is not None])


@mutation
def two_deliveries_swapped() -> None:
    """The first two deliveries of a batch to one topic change places."""
    _edit_deliveries(lambda outputs: [*outputs[1::-1], *outputs[2:]])


def _edit_deliveries(edit: Callable[[list[Any]], list[Any]]) -> None:
    from govbus_processors.exchange import Exchange

    def make(honest: Any) -> Any:
        def process(self: Any, batch: Any) -> Any:
            outcome = honest(self, batch)
            for topic, outputs in outcome.deliveries.items():
                outcome.deliveries[topic] = edit(outputs)
            return outcome

        return process

    _replace(Exchange, "process", make)


@mutation
def uncommitted_records_read() -> None:
    """Everything is read as it is written, also what is aborted afterwards."""
    from govbus.settings import BrokerSettings

    def make(honest: Any) -> Any:
        def client(self: Any, **extra: Any) -> dict[str, Any]:
            if "isolation_level" in extra:
                extra["isolation_level"] = "read_uncommitted"
            config: dict[str, Any] = honest(self, **extra)
            return config

        return client

    _replace(BrokerSettings, "client", make)


@mutation
def records_beside_a_rebalance_dropped() -> None:
    """Records that come in the same call as a rebalance are dropped, and not read again."""
    from govbus_processors.intake import Intake

    _replace(Intake, "_read_again", lambda _honest: lambda _self, _dropped: None)


@mutation
def key_sets_kept_through_a_rebalance() -> None:
    """What subscribers hold is taken for known, although others may have written meanwhile."""
    from govbus_processors.membership import Membership

    _replace(Membership, "suspend", lambda _honest: Membership.rollback)


@mutation
def amendment_from_where_it_stood() -> None:
    """A grant whose view was amended goes on where it stands, instead of from the start."""
    from govbus_processors.cursors import Cursors

    def call_it_the_same(cursors: Any, policy: Any, place: Any) -> None:
        for route in policy.routes.get(place[0], ()):
            cursor = cursors.of(route, place[1])
            if cursor is not None:
                cursors._cursors[route.topic, place[1]] = replace(cursor, view=route.first.view)

    def make_slice(honest: Any) -> Any:
        def live_slice(self: Any, place: Any, messages: Any, *, policy: Any, **others: Any) -> Any:
            call_it_the_same(self, policy, place)
            return honest(self, place, messages, policy=policy, **others)

        return live_slice

    def make_behind(honest: Any) -> Any:
        def behind(self: Any, policy: Any, **others: Any) -> Any:
            for place in self.places:
                call_it_the_same(self, policy, place)
            return honest(self, policy, **others)

        return behind

    _replace(Cursors, "live_slice", make_slice)
    _replace(Cursors, "behind", make_behind)


@mutation
def unreadable_grant_left_live() -> None:
    """The cursor of a grant that cannot be read moves on with its partition."""
    from govbus_processors.cursors import Cursors

    def make(honest: Any) -> Any:
        def live_slice(self: Any, place: Any, messages: Any, *, policy: Any, **others: Any) -> Any:
            staged = set(self.staged())
            part = honest(self, place, messages, policy=policy, **others)
            for key in set(self.staged()) - staged:
                if key[0] not in policy.deliveries:
                    del self._staged[key]
            return part

        return live_slice

    _replace(Cursors, "live_slice", make)


@mutation
def staged_cursors_kept_after_an_abort() -> None:
    """What an aborted batch would have made of the cursors is stored with the next one."""
    from govbus_processors.cursors import Cursors

    _replace(Cursors, "rollback", lambda _honest: lambda _self: None)
