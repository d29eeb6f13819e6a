"""No byte of a field that was not granted leaves: thousands of generated resources, all output searched."""

from __future__ import annotations

import random
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from govbus.avro import SchemaError
from govbus.errors import TransformRefusedError
from govbus.transform import parse_transform, result_type
from support.avro_strategies import LOGICAL, schemas
from support.leak_kit import Tally, a_case, check, look_at_metrics

SPECS: tuple[Any, ...] = (
    "keep",
    "null",
    "pseudonym",
    {"pseudonym": {"epoch": 2, "hash": "sm3"}},
    {"redact": "-"},
    {"redact": 7},
    {"redact": True},
    {"partial": {"head": 1, "tail": 1}},
    {"truncate": 3},
    {"generalise": "year"},
    {"generalise": "month"},
    {"generalise": "date"},
    {"generalise": "hour"},
    {"generalise": {"band": 10}},
    {"generalise": {"prefix": 2}},
)
MASKABLE: tuple[Any, ...] = (
    *("string", "int", "long", "float", "double", "bytes", "boolean"),
    *(["null", "string"], ["string", "null"], ["null", "long"], ["null", "int", "string"]),
    *LOGICAL,
    *(["null", one] for one in LOGICAL),
)
"""Types that more can be done to than keep and null; added apart, or hardly any would be masked."""

PER_SCHEMA = 5
"""Cases per generated schema: drawing a schema takes longer than filling it."""


def fitting(name: str, avro_type: Any) -> list[Any]:
    """The transforms that may be granted for a type; masks first where there are any."""
    fits = []
    for spec in SPECS:
        try:
            result_type(parse_transform(spec), avro_type)
        except TransformRefusedError:
            continue
        fits.append(spec)
    if name.startswith("m"):
        return [spec for spec in fits if spec not in ("keep", "null")] or fits
    return fits


def test_no_byte_of_a_field_that_was_not_granted_leaves(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    cases, chosen = request.config.getoption("--leak-cases"), request.config.getoption("--leak-seed")
    tally = Tally()

    @hypothesis.seed(chosen)
    @settings(
        max_examples=max(1, cases // PER_SCHEMA),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schema=schemas(max_fields=4), seed=st.integers(0, 2**64 - 1))
    def search(schema: dict[str, Any], seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(PER_SCHEMA):
            masked = [
                {"name": f"m{index}", "type": rng.choice(MASKABLE)} for index in range(rng.randrange(5))
            ]
            wider = {**schema, "fields": [*schema["fields"], *masked]}
            try:
                case = a_case(wider, fitting, rng)
                check(case, tally)
            except SchemaError:
                continue  # a recursive type that cannot be named where it would stand: refused as a grant
            assert not tally.leaks, (tally.leaks, case.rules)

    search()
    look_at_metrics(tally)

    with capsys.disabled():
        report = request.config.pluginmanager.get_plugin("terminalreporter")
        report.write_line(f"\nleak proof kit, seed {chosen}: {tally}")
    assert not tally.leaks
    assert tally.guarded == 0
    assert tally.cases >= cases * 0.9
    assert tally.kept_found > tally.cases
