"""What the demo says at its end."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from govbus_console.demo.report import Check, Line, Report
from govbus_console.render import draw

LINE = Line(
    resource="stats.divisions",
    subscriber="civil",
    captured=5,
    delivered=3,
    filtered=2,
    left_view=1,
    landed=4,
    oracle_equal=True,
)
REPORT = Report(
    lines=[LINE],
    checks=[Check(what="rows are right", holds=True)],
    throughput={"capture": 1234.5, "exchange": 2.0, "landing": 3.0},
    p50_ms=12.34,
    p99_ms=56.78,
    revoke_ms=400.04,
    memory={"kafka": 350 << 20},
)


def test_the_json_has_the_promised_shape() -> None:
    assert json.loads(json.dumps(REPORT.as_json())) == {
        "ok": True,
        "tables": [
            {
                "resource": "stats.divisions",
                "subscriber": "civil",
                "captured": 5,
                "delivered": 3,
                "filtered": 2,
                "left_view": 1,
                "landed": 4,
                "oracle_equal": True,
            }
        ],
        "throughput": {"capture": 1234, "exchange": 2, "landing": 3},
        "latency_ms": {"p50": 12.3, "p99": 56.8},
        "revoke_ms": 400.0,
        "receipt": None,
    }


@pytest.mark.parametrize(
    "report",
    [
        replace(REPORT, lines=[replace(LINE, oracle_equal=False)]),
        replace(REPORT, checks=[Check(what="a", holds=True), Check(what="b", holds=False)]),
    ],
    ids=["a table differs", "a check fails"],
)
def test_one_thing_that_does_not_hold_is_enough(report: Report) -> None:
    assert report.as_json()["ok"] is False
    assert "Not everything holds" in draw(report.renderable())


def test_what_does_not_hold_is_said_with_what_was_found() -> None:
    wrong = Check(what="nothing was rejected", holds=False, found="3 undecodable")

    report = replace(REPORT, checks=[*REPORT.checks, wrong])

    assert report.failures() == "nothing was rejected: 3 undecodable\n"
    assert "✗ nothing was rejected: 3 undecodable" in draw(report.renderable())
    assert REPORT.failures() == ""


def test_what_was_not_measured_is_null_because_json_has_no_nan() -> None:
    report = replace(REPORT, p50_ms=math.nan)

    assert report.as_json()["latency_ms"]["p50"] is None
    assert "p50 not measured" in draw(report.renderable())


def test_what_is_left_running_says_where_its_metrics_are_and_how_to_stop_it() -> None:
    report = replace(REPORT, left_running={"exchange-1": "http://127.0.0.1:9/metrics"})

    assert "http://127.0.0.1:9/metrics" in report.running()
    assert "govbus down" in report.running()
    assert REPORT.running() == ""
