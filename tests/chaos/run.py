"""One run: a bus, two resources, some grants, a storm over them, and the verdict."""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from chaos.control import Control, Owner
from chaos.ground import Ground, ground
from chaos.judge import Broken, Findings, Judge
from chaos.model import View, keep
from chaos.mutations import program
from chaos.reading import Subscriber, timestamps
from chaos.storm import Storm
from chaos.traffic import Traffic
from chaos.views import EVERY_ROW

_log = logging.getLogger("chaos")

SETTLED_WITHIN = 120.0
"""Seconds that everything has for arriving once the harm is over; what has not come by then is lost."""

_LINGER = 2.0
"""Seconds after everything has arrived, in which a repetition would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is to be."""

    seed: int
    seconds: float
    """How long the storm lasts, quiet points aside."""

    quiet_every: float = 45.0
    """Seconds of faults between two quiet points."""

    rate: int = 200
    """Records written a second."""

    least: int = 1
    """So many faults at least, also when the time is over."""

    only: frozenset[str] = frozenset()
    """Names of the faults to draw from; empty: all."""

    mutation: str | None = None
    """What is put into the engine by hand (:mod:`chaos.mutations`)."""

    settled_within: float = SETTLED_WITHIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a run has shown."""

    seed: int
    seconds: float
    faults: dict[str, int]
    written: int
    delivered: int
    topics: int
    quiet_points: int
    fenced: int
    slowest_barrier: float
    ended_alone: dict[str, int]
    broken: dict[str, int]
    cases: tuple[str, ...]
    mutation: str | None = None
    """What was put into the engine by hand, so that promises break."""

    @property
    def good(self) -> bool:
        """Whether every promise held, and there was something to break."""
        return not any(self.broken.values()) and self.delivered > 0

    @property
    def survived(self) -> int:
        """How many faults there were."""
        return sum(self.faults.values())


class Run:
    """Everything of one run, once the bus is there."""

    def __init__(self, here: Ground, folder: Path, plan: Plan, stack: ExitStack) -> None:
        self._here = here
        self._plan = plan
        self._findings = Findings()
        self._judges: dict[str, Judge] = {}
        self._quiet_points = 0
        dice = random.Random(plan.seed)
        self._owners = [
            Owner(here.bus, folder, partitions=4),
            Owner(here.bus, folder, partitions=2, kind="event"),
        ]
        for owner in self._owners:
            stack.callback(owner.close)
        self._control = Control(dice, self._owners)
        stack.callback(self._control.close)
        self._subscriber = self._new_subscriber()
        self._first_grants()
        # A stream of its own: how many records fit between two faults must not change what follows.
        self._traffic = Traffic(random.Random(plan.seed + 1), self._owners, rate=plan.rate)
        stack.callback(self._traffic.close)
        self._storm = Storm(
            random.Random(plan.seed),
            dice,
            here,
            self._owners,
            self._control,
            self._traffic,
            only=plan.only,
            first="" if plan.mutation is None else program(plan.mutation),
        )
        stack.callback(self._storm.close)
        self._storm.begin()

    def weather(self) -> None:
        """Let the storm go over it, with quiet points in between and at the end.

        It lasts until the time is over and there were faults enough, or a promise is broken.
        """
        plan = self._plan
        until = time.monotonic() + plan.seconds
        self.quiet()
        while not self._findings.counts:
            left = until - time.monotonic()
            missing = plan.least - sum(self._storm.faults.values())
            if left <= 0 and missing <= 0:
                return
            self._traffic.go_on()
            self._storm.rage(min(left, plan.quiet_every), least=missing)
            self.quiet()

    def quiet(self) -> None:
        """Let everything arrive that is due, and see that nothing else does."""
        self._quiet_points += 1
        self._storm.calm()
        self._traffic.pause()
        until = time.monotonic() + self._plan.settled_within
        while True:
            self._storm.look_after()
            self._read()
            if all(judge.complete() for judge in self._judges.values()) or time.monotonic() > until:
                break
            time.sleep(0.3)
        time.sleep(_LINGER)
        self._read()
        for judge in self._judges.values():
            judge.close()
        _log.info("quiet: %d deliveries, %s", self._delivered(), dict(self._findings.counts) or "all is well")

    def check_the_ground(self) -> None:
        """See that the owners' topics hold what was written, and that nothing was put aside as unusable.

        Raises:
            AssertionError: they do not, so what was delivered says nothing about the exchange.
        """
        for owner in self._owners:
            there = timestamps(self._new_subscriber(), owner.source, owner.partitions)
            wanted = [[record.at for record in records] for records in owner.records.written]
            assert list(there) == wanted, f"{owner.source} does not hold what was written"
            for message in owner.read(owner.dead_letter_topic):
                self._findings.note(
                    Broken.LOST, owner.dead_letter_topic, f"offset {message.offset()}", "a good record"
                )

    def verdict(self, seconds: float) -> Verdict:
        """Sum up."""
        return Verdict(
            seed=self._plan.seed,
            seconds=seconds,
            faults=dict(sorted(self._storm.faults.items())),
            written=sum(len(owner.records) for owner in self._owners),
            delivered=self._delivered(),
            topics=len(self._judges),
            quiet_points=self._quiet_points,
            fenced=self._control.fenced,
            slowest_barrier=self._control.slowest,
            ended_alone=dict(self._storm.ended_alone),
            broken={broken.value: self._findings.counts[broken] for broken in Broken},
            cases=tuple(self._findings.cases),
            mutation=self._plan.mutation,
        )

    def _first_grants(self) -> None:
        """Every kind of grant once: whole, filtered, under a pseudonym, of events, shared."""
        state, event = self._owners
        everything = View(
            rows=EVERY_ROW, fields=(keep("code"), keep("name"), keep("staff")), key=keep("code")
        )
        self._control.grant(state, view=everything)
        self._control.grant(state)
        self._control.grant(state, hidden=True)
        self._control.grant(event)
        self._control.share(event, 3)

    def _new_subscriber(self) -> Subscriber:
        return Subscriber(self._here.bus.broker_settings().client(), self._here.bus.endpoints.registry_url)

    def _read(self) -> None:
        partitions: dict[str, int] = {}
        for agreement in self._control.agreements():
            partitions[agreement.topic] = agreement.source.partitions
            if agreement.topic not in self._judges:
                self._judges[agreement.topic] = Judge(agreement, self._findings)
        for topic, message in self._subscriber.read(partitions):
            self._judges[topic].take(self._subscriber.seen(message))

    def _delivered(self) -> int:
        return sum(judge.records for judge in self._judges.values())


def run(plan: Plan, *, keep_logs: Callable[[Path], None] = lambda _folder: None) -> Verdict:
    """Start a bus, let a storm go over it, and judge the outcome.

    ``keep_logs`` is given the directory with the workers' logs before it is removed.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="govbus-chaos-workers-") as folder, ground() as here:
        with ExitStack() as stack:
            going = Run(here, Path(folder), plan, stack)
            going.weather()
            going.check_the_ground()
            verdict = going.verdict(time.monotonic() - began)
        keep_logs(Path(folder))
    return verdict
