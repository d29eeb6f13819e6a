"""Each mutation of the chaos runs still takes hold of the engine; what the judge says, runs show."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

from chaos import storm
from chaos.mutations import MUTATIONS, program

_APPLY_ALL = """
import sys
for program in sys.argv[1:]:
    exec(program)
import govbus_processors.app
"""


def test_every_mutation_finds_what_it_changes() -> None:
    """Else its workers would not start, and would be taken for workers that were found out."""
    programs = [program(name) for name in MUTATIONS]

    done = subprocess.run(
        [sys.executable, "-c", _APPLY_ALL, *programs], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_every_mutation_says_what_it_does() -> None:
    assert [name for name, change in MUTATIONS.items() if not change.__doc__] == []


def test_a_mutation_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="row-filter-ignored"):
        program("everything")


def test_the_faults_that_can_be_asked_for_are_those_that_can_be_drawn() -> None:
    drawn = re.findall(r"\(\s*\d+, \"([^\"]+)\",", inspect.getsource(storm.Storm))

    assert set(drawn) == set(storm.FAULTS)
    assert len(storm.FAULTS) == len(set(storm.FAULTS))
