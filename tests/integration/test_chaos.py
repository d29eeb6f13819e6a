"""A short storm with a known seed; ``make chaos`` does longer ones."""

from __future__ import annotations

import pytest

from chaos.__main__ import table
from chaos.run import run

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SEED = 7
SECONDS = 20.0
FAULTS = 8


def test_a_storm_of_faults_loses_duplicates_reorders_and_leaks_nothing() -> None:
    """On a bus of its own: broker and registry are killed as well."""
    print(f"seed {SEED}")

    verdict = run(seed=SEED, seconds=SECONDS, quiet_every=SECONDS, least=FAULTS)

    print(table(verdict))
    assert verdict.broken == {"lost": 0, "duplicated": 0, "out of order": 0, "leaked": 0}, verdict.cases
    assert verdict.good
    assert verdict.survived >= FAULTS
