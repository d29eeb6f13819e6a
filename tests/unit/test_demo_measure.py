"""What the demo reads off its processes."""

from __future__ import annotations

import math
import os

import pytest

from govbus.errors import BrokerUnavailableError
from govbus_console.demo.measure import added, parse, peak_memory, scrape

TEXT = """
# TYPE landed counter
landed_total{grant="a",x="1"} 3
landed_total{grant="a",x="2"} 4
landed_total{grant="b",x="1"} 5
# TYPE seconds histogram
seconds_bucket{grant="a",le="0.1"} 50
seconds_bucket{grant="a",le="0.2"} 90
seconds_bucket{grant="a",le="+Inf"} 100
seconds_count{grant="a"} 100
seconds_sum{grant="a"} 12
"""


def test_samples_add_up_over_the_labels_that_are_not_asked_for() -> None:
    samples = parse(TEXT)

    assert samples.total("landed_total", grant="a") == 7
    assert samples.total("landed_total") == 12
    assert samples.total("landed_total", grant="c") == 0
    assert samples.by("grant", "landed_total") == {"a": 7, "b": 5}


def test_an_increase_leaves_out_what_was_there_before() -> None:
    before, after = parse(TEXT), parse(TEXT.replace('x="2"} 4', 'x="2"} 10'))

    assert (after - before).total("landed_total", grant="a") == 6
    assert added([before, before]).total("landed_total") == 24


@pytest.mark.parametrize(("q", "seconds"), [(0.25, 0.05), (0.5, 0.1), (0.7, 0.15), (0.9, 0.2), (0.99, 0.2)])
def test_a_quantile_lies_within_its_bucket(q: float, seconds: float) -> None:
    """Beyond the last bound nothing is known but that bound."""
    assert parse(TEXT).quantile(q, "seconds") == pytest.approx(seconds)


def test_a_histogram_without_observations_has_no_quantile() -> None:
    assert math.isnan((parse(TEXT) - parse(TEXT)).quantile(0.5, "seconds"))
    assert math.isnan(parse(TEXT).quantile(0.5, "other"))


def test_the_peak_memory_of_this_process_is_known() -> None:
    peak = peak_memory(os.getpid())

    assert peak is not None
    assert 5_000_000 < peak < 100_000_000_000
    assert peak_memory(2**22 + 1) is None


def test_a_process_that_is_away_has_no_metrics() -> None:
    with pytest.raises(BrokerUnavailableError, match="no metrics"):
        scrape(9)
