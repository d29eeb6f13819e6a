"""What operators see, and what they must never see."""

from __future__ import annotations

import io
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from govbus import observe
from govbus.errors import UndecodableRecordError


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict]]]:
    """Log as a process does, and read what it wrote."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    observe.setup_logging("test", "INFO")
    written = io.StringIO()
    root.handlers[0].setStream(written)  # type: ignore[attr-defined]
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)


def test_a_log_line_is_a_fact_and_keys_from_the_fixed_list(lines) -> None:
    logging.getLogger("x").warning(
        "record rejected", extra={"code": "undecodable", "name_of_citizen": "张三"}
    )

    (line,) = lines()

    assert (line["event"], line["code"], line["process"]) == ("record rejected", "undecodable", "test")
    assert "张三" not in json.dumps(line, ensure_ascii=False)


def test_a_traceback_says_where_and_not_with_what(lines) -> None:
    try:
        {"330102": 1}["PRIVATE-KEY"]
    except KeyError:
        logging.getLogger("x").exception("failed")

    (line,) = lines()

    assert line["exception"] == "KeyError"
    assert any("test_observe.py" in frame for frame in line["trace"])
    assert "PRIVATE" not in json.dumps(line)


def test_an_error_of_the_bus_keeps_its_text_which_holds_no_values(lines) -> None:
    try:
        raise UndecodableRecordError("cut short")
    except UndecodableRecordError:
        logging.getLogger("x").exception("failed")

    assert lines()[0]["exception"] == "cut short (undecodable)"


def test_health_turns_bad_when_a_loop_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "_stages", {})
    observe.heartbeat("a stage")
    assert observe.health() == (True, {"a stage": "ok"})

    monkeypatch.setattr(observe, "_stale_after_seconds", -1.0)

    assert observe.health() == (False, {"a stage": "stalled"})


def test_metrics_and_health_are_served_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "_stages", {})
    port = observe.serve_metrics(0, process="test")
    base = f"http://127.0.0.1:{port}"

    with urllib.request.urlopen(f"{base}/metrics") as answer:
        text = answer.read().decode()
    with urllib.request.urlopen(f"{base}/health") as answer:
        well = json.load(answer)

    assert "govbus_build_info{" in text
    assert well == {}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{base}/etc/passwd")
    refused.value.close()


def test_every_metric_has_help_a_unit_and_a_closed_set_of_labels() -> None:
    allowed = {
        "resource", "operation", "code", "grant", "result", "reason", "stage", "version", "process", "kernel",
        "outcome", "department", "route", "status",
    }  # fmt: skip
    metrics = [value for value in vars(observe).values() if hasattr(value, "_labelnames")]
    assert len(metrics) > 20

    for metric in metrics:
        assert metric._documentation.endswith(".") or ";" in metric._documentation
        assert set(metric._labelnames) <= allowed
        assert metric._name.startswith("govbus_")
