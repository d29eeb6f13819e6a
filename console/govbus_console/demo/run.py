"""Play the demo: five departments, five years, every row compared. Does I/O.

1. Find the division codes; make the departments' own systems; start the broker and the registry; apply
   the catalogue; let the departments ask and decide (:mod:`.agree`); start capture, exchange and landing
   (:mod:`.stage`).
2. For each edition: the departments change their own databases (:mod:`.departments`); wait until every
   change has arrived (:mod:`.settle`); ask the oracle about every landed table (:mod:`.judge`).
3. After the third edition one grant is revoked, with purge of what was landed; its subscriber answers with
   a receipt; and two more follow.
4. Whoever was granted nothing tries to read, and must be refused by the broker (:mod:`.judge`).
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from govbus.grant import DataDuty
from govbus_console.control import endings, lifecycle
from govbus_console.control.receipts import Standing
from govbus_console.demo import oracle
from govbus_console.demo.agree import WHO, typed
from govbus_console.demo.departments import CivilAffairs, StatisticsBureau
from govbus_console.demo.divisions import EDITIONS, Edition, archive, read
from govbus_console.demo.judge import Judge
from govbus_console.demo.measure import added
from govbus_console.demo.report import Report
from govbus_console.demo.settle import Settling
from govbus_console.demo.stage import STALLED_SECONDS, Options, Show, Stage
from govbus_console.embedded import Home

__all__ = ["Options", "run_demo"]

SEED = 3308
"""The same people in every demo on the same divisions."""

REVOKED_AFTER = 2021

_STAGES = {
    "capture": ("capture", "govbus_published_records_total"),
    "exchange": ("exchange", "govbus_exchanged_records_total"),
    "landing": ("land", "govbus_landed_records_total"),
}
"""What the metrics call a stage, as the names of its processes begin; and what counts its records."""


def run_demo(home: Home, options: Options, show: Show) -> Report:
    """Play the demo in a home, and say what was found.

    Raises:
        ConfigurationError: something that the demo needs is not on this machine.
        RetriableError: something that it needs does not answer.
        FatalError: a process ended, or no progress was made; the message names the log.
    """
    with Stage(home, options, show) as stage:
        return _Demo(stage).play()


class _Demo:
    def __init__(self, stage: Stage) -> None:
        self._began = time.monotonic()
        self._stage = stage
        self._archives = self._find_divisions()
        # Before anything is captured: a department has its tables before it joins a bus.
        self._stats = StatisticsBureau(stage.scene.system("stats"))
        self._civil = CivilAffairs(stage.scene.system("civil"), seed=SEED)
        stage.open()
        self._settling = stage.step("bring the bus to rest", lambda: Settling(stage))
        self._judge = Judge(stage, self._settling, self._archives)

    def play(self) -> Report:
        """Go through the years."""
        first, *others = EDITIONS
        self._year(first)
        throughput = self._throughput()
        after_first = added(self._stage.metrics("land-").values())
        revoke_ms, receipt = 0.0, None
        for edition in others:
            self._year(edition)
            if edition.year == REVOKED_AFTER:
                revoke_ms, receipt = self._revoke()
        latency = added(self._stage.metrics("land-").values()) - after_first
        self._judge.note_receipt(receipt)
        checks = self._stage.step("try to read what was not granted", self._judge.checks)
        return Report(
            lines=self._judge.lines(),
            checks=checks,
            throughput=throughput,
            p50_ms=latency.quantile(0.5, "govbus_latency_seconds") * 1_000,
            p99_ms=latency.quantile(0.99, "govbus_latency_seconds") * 1_000,
            revoke_ms=revoke_ms,
            receipt=receipt,
            memory=self._stage.memory(),
            seconds=time.monotonic() - self._began,
            left_running=self._stage.leave_running() if self._stage.options.keep else {},
            targets=self._stage.home.targets_file,
        )

    def _find_divisions(self) -> dict[int, Path]:
        found = {}
        for edition in EDITIONS:
            find = partial(archive, edition, self._stage.options.detail)
            found[edition.year] = self._stage.step(f"{edition.year}: find the division codes", find)
        return found

    def _year(self, edition: Edition) -> None:
        stage, year = self._stage, edition.year
        rows = read(self._archives[year], stage.options.detail)
        stage.step(f"{year}: the bureau takes over its edition", lambda: self._stats.take_over(rows))
        places = self._stats.places()
        if edition is EDITIONS[0]:
            stage.step(
                f"{year}: civil affairs opens its register",
                lambda: self._civil.open_register(places, count=stage.options.people, year=year),
            )
        else:
            stage.step(f"{year}: people move, marry and die", lambda: self._civil.live_through(year, places))
        stage.step(f"{year}: captured, exchanged, landed", self._settling.settle)
        stage.step(f"{year}: the oracle compares every row", lambda: self._judge.ask_oracle(edition))

    def _revoke(self) -> tuple[float, Standing | None]:
        """Revoke, wait for purge and receipt; return the milliseconds that revoking took, and the receipt."""
        stage = self._stage
        share = next(share for share in stage.shares if share.id == stage.to_revoke)
        began = time.monotonic()
        stage.step(
            typed(["revoke", share.id, "--data", "delete", "--why", "half way"]),
            lambda: lifecycle.revoke(
                share.id, stage.store, stage.bus, who=WHO, why="half way", data=DataDuty.DELETE
            ),
        )
        took = (time.monotonic() - began) * 1_000
        self._judge.note_revoked(share)
        self._settling.ended.add(share.id)
        with self._settling.patience("landing has not purged what was revoked") as progressing:
            while not oracle.check_empty(stage.scene.landed(share.subscriber), share.table).equal:
                progressing(None)
        receipt = stage.step(
            "health's receipt",
            lambda: endings.conclude(share.id, stage.store, stage.bus, wait_seconds=STALLED_SECONDS),
        )
        return took, receipt

    def _throughput(self) -> dict[str, float]:
        """Records a second of each stage: all that it did, by the time that its busiest process worked."""
        rates = {}
        for name, (stage, count) in _STAGES.items():
            increases = self._settling.increase(f"{stage}-").values()
            busiest = max(increase.total("govbus_batch_seconds_sum", stage=stage) for increase in increases)
            rates[name] = added(increases).total(count) / busiest if busiest > 0 else 0.0
        return rates
