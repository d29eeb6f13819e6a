"""The question of latency: its command line and what it says."""

from __future__ import annotations

import os
import time

import pytest

from bench import latency
from bench.__main__ import _parser
from bench.window import Process


def test_the_rate_is_2000_changes_a_second_unless_told_otherwise() -> None:
    assert _parser().parse_args(["latency"]).rate == latency.RATE == 2_000
    assert _parser().parse_args(["latency", "--rate", "500"]).rate == 500


@pytest.mark.parametrize("rate", ["0", "-5", "many"])
def test_a_rate_that_is_none_is_refused(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["latency", "--rate", rate])

    assert "--rate" in capsys.readouterr().err


def test_a_kind_s_share_is_what_its_processes_took_since_the_meter_was_made() -> None:
    mine = Process(os.getpid())
    meter = latency._Meter({"busy": [mine], "twice": [mine, mine], "none": []})
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass

    shares = meter.shares()

    assert 0.0 < shares["busy"] <= 1.5
    assert shares["twice"] == pytest.approx(2 * shares["busy"], abs=0.1)
    assert shares["none"] == 0.0


def test_the_table_says_where_the_time_goes() -> None:
    figures = {
        "latency_ms": {"p50": 40.4, "p99": 120.0, "p999": 200.0},
        "latency": {
            "cpu_share": {"source": 0.25, "exchange": 0.3, "landings": 1.125, "broker": 0.2, "registry": 0.0},
            "transactions_per_s": {"exchange": 50.0, "each_landing": 20.0},
        },
    }

    said = latency.table(figures)

    assert "ms  p50  p99  p999" in said
    assert "share of a core  source  exchange  landings  broker  registry" in said
    assert "1.12" in said
    assert "transactions/s  exchange  each_landing" in said
