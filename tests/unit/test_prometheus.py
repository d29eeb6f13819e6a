"""Prometheus's own tool finds nothing wrong with our metrics or with the scrape configuration."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from govbus import observe

ROOT = Path(__file__).parents[2]
PROMTOOL = shutil.which("promtool", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing (Debian: it is in prometheus)")


def _promtool(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(PROMTOOL), *arguments], input=given, capture_output=True, check=False, timeout=60
    )


def test_the_metrics_are_as_prometheus_wants_them() -> None:
    registry = CollectorRegistry()
    metrics = [value for value in vars(observe).values() if hasattr(value, "_labelnames")]
    own = [metric for metric in metrics if any(f.name.startswith("govbus_") for f in metric.describe())]
    assert len(own) > 20
    for metric in own:
        registry.register(metric)
        if metric._labelnames and not metric._labelvalues:
            metric.labels(*("example" for _ in metric._labelnames))

    checked = _promtool("check", "metrics", given=generate_latest(registry))

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_the_scrape_configuration_is_valid() -> None:
    checked = _promtool("check", "config", "--syntax-only", str(ROOT / "deploy/prometheus/prometheus.yml"))

    assert checked.returncode == 0, checked.stderr
