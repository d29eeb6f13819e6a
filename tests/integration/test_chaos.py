"""A short storm with a known seed, and one over an engine with a fault; ``make chaos`` does longer ones."""

from __future__ import annotations

import pytest

from chaos.__main__ import table
from chaos.run import Plan, run

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SEED = 7
SECONDS = 20.0
FAULTS = 8
KILLS = 6


def test_a_storm_of_faults_loses_duplicates_reorders_and_leaks_nothing() -> None:
    """On a bus of its own: broker and registry are killed as well."""
    print(f"seed {SEED}")

    verdict = run(Plan(seed=SEED, seconds=SECONDS, quiet_every=SECONDS, least=FAULTS))

    print(table(verdict))
    assert verdict.broken == {"lost": 0, "duplicated": 0, "out of order": 0, "leaked": 0}, verdict.cases
    assert verdict.good
    assert verdict.survived >= FAULTS


def test_the_judge_finds_a_fault_that_only_a_crash_brings_to_light() -> None:
    """Offsets are committed beside the transactions: a worker that is killed in between repeats a batch."""
    verdict = run(
        Plan(
            seed=SEED,
            seconds=0.0,
            least=KILLS,
            only=frozenset({"worker killed"}),
            mutation="offsets-outside-the-transaction",
            settled_within=20.0,
        )
    )

    print(table(verdict))
    assert verdict.broken["duplicated"] > 0
    assert verdict.ended_alone == {}, "workers that cannot run are not workers that were found out"
