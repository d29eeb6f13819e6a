"""Faults at random, from a seed: each is done, counted, and undone in time.

The seed decides what happens, to whom, and for how long; what the processes
make of it at which moment is theirs. A fault may begin while others last: a
worker is frozen while the broker is killed, a grant is revoked while the
registry is away.
"""

from __future__ import annotations

import logging
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos.control import Control, Held, Owner
from chaos.ground import Ground
from chaos.traffic import Traffic
from govbus.grant import GrantState
from support.exchanges import WorkerProcess

_log = logging.getLogger("chaos")

_GRANTS_AT_MOST = 14
_LEASE_SECONDS = 5.0
"""As workers have it unless told otherwise."""

_COMMIT_SECONDS = 3.0
"""What was begun while the lease held is visible by then, also on a busy machine."""

_ENVIRONMENT = {
    # Small transactions, so that faults find many of them, and bringing a grant on takes many turns.
    "GOVBUS_EXCHANGE_BATCH_RECORDS": "400",
}

FAULTS = (
    "worker killed",
    "worker frozen for a moment",
    "worker frozen beyond session and lease",
    "worker frozen beyond its transaction",
    "worker joins or leaves",
    "broker stopped and started",
    "broker killed",
    "broker frozen for a moment",
    "broker frozen around the lease",
    "registry killed",
    "burst of records",
    "grant made",
    "grant amended",
    "grant amended, registry killed",
    "policy out of reach",
    "grant suspended",
    "grant unreadable",
    "grant unreadable for a moment",
    "grant resumed",
    "grant revoked",
    "grant revoked, worker frozen",
    "grant revoked, registry killed",
)
"""Every fault that may be drawn, by its name."""


@dataclass(slots=True)
class _Worker:
    """A place for a worker, whether or not one is there."""

    name: str
    process: WorkerProcess | None = None
    frozen: bool = False


@dataclass(slots=True)
class Storm:
    """Does harm, and keeps the workers running as a supervisor would."""

    plan: random.Random
    """Draws what each fault is drawn with: what one finds must not change what the next one is."""

    dice: random.Random
    ground: Ground
    owners: list[Owner]
    control: Control
    traffic: Traffic
    workers: int = 3
    only: frozenset[str] = frozenset()
    """Names of the faults to draw from; empty: all."""

    first: str = ""
    """Python that every worker runs before it begins."""

    faults: Counter[str] = field(default_factory=Counter)
    ended_alone: Counter[str] = field(default_factory=Counter)
    """Workers that ended without having been killed, by the code of the reason that they gave."""

    _places: list[_Worker] = field(default_factory=list)
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _registry_stays_away: bool = False

    def begin(self) -> None:
        """Start the workers."""
        self._places = [_Worker(name) for name in "abcdef"[: self.workers]]
        for place in self._places[:2]:
            self._start(place)

    def rage(self, seconds: float, *, least: int) -> None:
        """Do faults, one after the other, for so long, and at least so many."""
        until = time.monotonic() + seconds
        enough = sum(self.faults.values()) + least
        while time.monotonic() < until or sum(self.faults.values()) < enough:
            self.dice.seed(self.plan.getrandbits(64))
            self._wait(self.dice.uniform(0.2, 1.8))
            name, fault = self._choose()
            _log.info("%6.1f s left: %s", until - time.monotonic(), name)
            self.faults[name] += 1
            fault()

    def calm(self) -> None:
        """Undo what lasts; two workers or more are running when this returns."""
        while self._later:
            self._wait(0.1)
        if not self.ground.registry_runs:
            self.ground.start_registry()
        for place in self._places[:2]:
            if place.process is None:
                self._start(place)
        self.look_after()

    def close(self) -> None:
        """Let go on what is frozen, so that it can be ended."""
        for place in self._places:
            if place.process is not None and place.process.process.poll() is None:
                place.process.signal(signal.SIGCONT)

    def look_after(self) -> None:
        """Start the workers again that have ended."""
        for place in self._places:
            process = place.process
            if process is not None and process.process.poll() is not None:
                reason = _last_reason(process.output())
                self.ended_alone[reason] += 1
                _log.info("worker %s has ended: %s", place.name, reason)
                self._start(place)

    # ---- the faults ----

    def _choose(self) -> tuple[str, Callable[[], None]]:
        """Draw a fault: one that has not been yet while there are such, then by weight."""
        faults: list[tuple[int, str, Callable[[], None]]] = [
            (5, "worker killed", self._kill),
            (3, "worker frozen for a moment", lambda: self._freeze(0.2, 3.0)),
            (3, "worker frozen beyond session and lease", lambda: self._freeze(5.5, 9.0)),
            (2, "worker frozen beyond its transaction", lambda: self._freeze(10.5, 14.0)),
            (3, "worker joins or leaves", self._join_or_leave),
            (1, "broker stopped and started", lambda: self._broker(kill=False)),
            (2, "broker killed", lambda: self._broker(kill=True)),
            (1, "broker frozen for a moment", lambda: self._freeze_broker(0.5, 4.0)),
            (1, "broker frozen around the lease", lambda: self._freeze_broker(4.5, 8.0)),
            (2, "registry killed", self._registry),
            (2, "burst of records", lambda: self.traffic.burst(self.dice.randrange(500, 3_000))),
        ]
        faults += self._grant_faults()
        if self.only:
            # What is asked for may have nobody to meet at the moment.
            faults = [fault for fault in faults if fault[1] in self.only] or [
                (1, "burst of records", lambda: self.traffic.burst(100))
            ]
        new = [fault for fault in faults if not self.faults[fault[1]]]
        weights, names, actions = zip(*(new or faults), strict=True)
        (at,) = self.dice.choices(range(len(names)), weights=weights)
        return names[at], actions[at]

    def _grant_faults(self) -> list[tuple[int, str, Callable[[], None]]]:
        control, dice = self.control, self.dice
        active = control.candidates(GrantState.ACTIVE)
        suspended = control.candidates(GrantState.SUSPENDED)
        amendable = [h for h in active + suspended if not h.shared and not h.agreement.source.event]
        ending = [h for h in active if not h.shared]
        faults: list[tuple[int, str, Callable[[], None]]] = []
        if len(active) + len(suspended) < _GRANTS_AT_MOST:
            faults.append((3, "grant made", self._with_registry(self._new_grant)))
        if amendable:
            held = dice.choice(amendable)
            faults.append((5, "grant amended", self._with_registry(lambda: control.amend(held))))
            faults.append((2, "grant amended, registry killed", lambda: self._amend_and_kill_registry(held)))
            faults.append((1, "policy out of reach", lambda: self._put_the_policy_out_of_reach(held)))
        if active:
            paused = dice.choice(active)
            faults.append((2, "grant suspended", self._with_registry(lambda: control.suspend(paused))))
        if ending:
            spoilt = dice.choice(ending)
            faults.append((1, "grant unreadable", lambda: control.spoil(spoilt)))
            faults.append(
                (1, "grant unreadable for a moment", self._with_registry(lambda: self._stutter(spoilt)))
            )
        if suspended:
            resumed = dice.choice(suspended)
            faults.append((4, "grant resumed", self._with_registry(lambda: control.resume(resumed))))
        if len(ending) > 3:
            ended = dice.choice(ending)
            faults.append((2, "grant revoked", self._with_registry(lambda: control.revoke(ended))))
            faults.append((2, "grant revoked, worker frozen", lambda: self._revoke_from_the_frozen(ended)))
            faults.append(
                (1, "grant revoked, registry killed", lambda: self._revoke_and_kill_registry(ended))
            )
        return faults

    def _new_grant(self) -> None:
        owner = self.dice.choice(self.owners)
        self.control.grant(owner, hidden=self.dice.random() < 0.3)

    def _kill(self) -> None:
        place = self._running()
        if place is None or place.process is None:
            return
        process, place.process = place.process, None
        process.kill()
        self._after(self.dice.uniform(0.0, 3.0), lambda: self._start(place))

    def _freeze(self, least: float, most: float) -> None:
        place = self._running()
        if place is None or place.process is None:
            return
        process = place.process
        process.signal(signal.SIGSTOP)
        place.frozen = True

        def thaw() -> None:
            place.frozen = False
            if process.process.poll() is None:
                process.signal(signal.SIGCONT)

        self._after(self.dice.uniform(least, most), thaw)

    def _join_or_leave(self) -> None:
        place = self._places[-1]
        if place.process is None:
            self._start(place)
        elif not place.frozen:
            process, place.process = place.process, None
            process.process.terminate()

    def _broker(self, *, kill: bool) -> None:
        self.ground.end_broker(kill=kill)
        self._wait(self.dice.choice((0.0, 0.0, 2.0, 7.0)))
        self.ground.start_broker()

    def _freeze_broker(self, least: float, most: float) -> None:
        self.ground.freeze_broker()
        try:
            self._wait(self.dice.uniform(least, most))
        finally:
            self.ground.thaw_broker()

    def _registry(self) -> None:
        if self.ground.registry_runs:
            self.ground.end_registry()
            self._after(self.dice.uniform(0.5, 8.0), self._bring_registry)

    def _amend_and_kill_registry(self, held: Held) -> None:
        self._bring_registry()
        held.owner.before_saying = self._registry
        self.control.amend(held)

    def _put_the_policy_out_of_reach(self, held: Held) -> None:
        """A version that no worker can read on to: once the lease is over, nothing at all is delivered.

        Nobody is frozen meanwhile: a worker that is, between its check of the lease and its commit, may
        commit when it wakes. Only a revocation has to prevent that, and does, by fencing it.
        """
        while any(place.frozen for place in self._places):
            self._wait(0.1)
        self._bring_registry()
        self._registry_stays_away = True
        held.owner.before_saying = self.ground.end_registry
        try:
            self.control.amend(held, certain=False)
            self._wait(_LEASE_SECONDS + _COMMIT_SECONDS)
            closed = self.control.close_everything()
            self._wait(self.dice.uniform(1.0, 4.0))
            self.control.reopen(closed)
        finally:
            self._registry_stays_away = False
            self._bring_registry()

    def _stutter(self, held: Held) -> None:
        self.control.garble(held)
        self._wait(self.dice.choice((0.0, 0.3, 2.0)))
        self.control.repair(held)

    def _revoke_and_kill_registry(self, held: Held) -> None:
        self._bring_registry()
        held.owner.before_saying = self._registry
        self.control.revoke(held)

    def _revoke_from_the_frozen(self, held: Held) -> None:
        self._bring_registry()
        self.traffic.burst(400)
        self._freeze(2.0, 12.0)
        self.control.revoke(held)

    # ---- what they are made of ----

    def _with_registry(self, change: Callable[[], None]) -> Callable[[], None]:
        """Control needs the registry for a new version: nothing is granted while it is away."""

        def changed() -> None:
            self._bring_registry()
            change()

        return changed

    def _bring_registry(self) -> None:
        if not self.ground.registry_runs and not self._registry_stays_away:
            self.ground.start_registry()

    def _running(self) -> _Worker | None:
        running = [
            place
            for place in self._places
            if place.process is not None and not place.frozen and place.process.process.poll() is None
        ]
        return self.dice.choice(running) if running else None

    def _start(self, place: _Worker) -> None:
        place.frozen = False
        place.process = self.owners[0].worker(place.name, first=self.first, **_ENVIRONMENT)

    def _after(self, seconds: float, undo: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, undo))

    def _wait(self, seconds: float) -> None:
        """Let time pass, undo what is due, and look after the workers."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            due = [one for one in self._later if one[0] <= now]
            self._later = [one for one in self._later if one[0] > now]
            for _, undo in due:
                undo()
            self.look_after()
            if now >= until:
                return
            time.sleep(0.05)


def _last_reason(output: str) -> str:
    """The last line of a worker's output that says why it ended."""
    for line in reversed(output.strip().splitlines()):
        if "Error" in line or "error" in line:
            return line.strip()[:160]
    return "no reason given"
