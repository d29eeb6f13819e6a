"""From runs to figures."""

from __future__ import annotations

from typing import Any

import pytest

from bench.exchange import Runs
from bench.lineup import Peer, Started
from bench.report import align, exchange_figures, exchange_table, quantile, ratios, spread
from bench.views import MOST, views
from bench.window import Window


def a_peer(name: str) -> Peer:
    def start(*_: Any, **__: Any) -> Started:
        raise AssertionError("nothing is started here")

    return Peer(name=name, title=f"the {name} peer", start=start)


def runs(name: str, *rates: float) -> Runs:
    windows = [
        Window(
            seconds=100_000 / rate,
            records_per_s=rate,
            steady_records_per_s=rate * 2,
            cpu_s=1.0,
            start_cpu_s=0.5,
            broker_cpu_s=0.25,
            peak_mb=100.0,
        )
        for rate in rates
    ]
    return Runs(a_peer(name), 100_000, windows)


def test_a_peer_s_figure_is_the_median_with_minimum_and_maximum_beside_it() -> None:
    figures = exchange_figures([runs("raw", 300.0, 100.0, 200.0)])

    assert figures["raw"]["records_per_s"] == 200
    assert (figures["raw"]["records_per_s_min"], figures["raw"]["records_per_s_max"]) == (100, 300)
    assert figures["raw"]["cpu_s"] == 1.0
    assert figures["raw"]["peak_mb"] == 100.0
    assert figures["raw"]["cpu_us_per_record"] == 10.0


def test_a_ratio_is_reached_at_its_target_and_not_just_below() -> None:
    at_target = exchange_figures([runs("govbus_alo", 200.0), runs("kafka_streams_alo", 100.0)])
    below = exchange_figures([runs("govbus_alo", 199.0), runs("kafka_streams_alo", 100.0)])

    assert at_target["ratios"]["govbus_alo/kafka_streams_alo"]["reached"] is True
    assert below["ratios"]["govbus_alo/kafka_streams_alo"]["reached"] is False


def test_peers_that_did_not_take_part_are_not_compared() -> None:
    assert ratios({"raw": {"records_per_s": 1}}) == {}


def test_the_table_shows_each_peer_and_whether_a_ratio_is_reached() -> None:
    table = exchange_table(exchange_figures([runs("raw", 247_000.0), runs("govbus_alo", 100_000.0)]))

    assert "the raw peer" in table
    assert "247,000" in table
    assert "govbus_alo / raw" in table
    assert "NOT reached" in table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert align([["a", "1"], ["bcd", "1,000"]]) == "a        1\nbcd  1,000"


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)])
def test_a_quantile_is_the_smallest_value_that_enough_values_do_not_exceed(share: float, value: int) -> None:
    assert quantile(list(range(1, 101)), share) == value


def test_a_spread_names_its_minimum_and_maximum() -> None:
    assert spread("ms", [3.0, 1.0, 2.0]) == {"ms": 2.0, "ms_min": 1.0, "ms_max": 3.0}


def test_no_two_views_have_the_same_fields_and_each_masks_the_name() -> None:
    made = views(MOST, resource="residents")

    assert len({view.names for view in made}) == len({view.grant.topic for view in made}) == MOST
    assert all({"name": {"partial": {"head": 1}}} in view.grant.fields for view in made)
    assert {len(view.names) for view in made} == {4}
