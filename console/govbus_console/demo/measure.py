"""Read what the processes say of themselves in their metrics, and what the kernel says of their memory.

Nothing is estimated from the outside: counts and times are those that every
process publishes for Prometheus, and a histogram's quantile is interpolated
within its bucket as Prometheus does it.
"""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from govbus.errors import BrokerUnavailableError

_SCRAPE_SECONDS = 10.0
_KIBIBYTE = 1024


class Samples:
    """All samples of one scrape, or of several added up."""

    def __init__(self, values: Mapping[tuple[str, frozenset[tuple[str, str]]], float]) -> None:
        self._values = dict(values)

    def __sub__(self, earlier: Samples) -> Samples:
        """Give the increase since an earlier scrape; only counters and histograms have one."""
        return Samples({key: value - earlier._values.get(key, 0.0) for key, value in self._values.items()})

    def total(self, name: str, **labels: str) -> float:
        """Add up the samples of a name that carry these labels, whatever their others are."""
        return sum(value for _labels, value in self._matching(name, labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Add up the samples of a name for each value of one label."""
        sums: dict[str, float] = {}
        for found, value in self._matching(name, labels):
            of = dict(found).get(label, "")
            sums[of] = sums.get(of, 0.0) + value
        return sums

    def quantile(self, q: float, histogram: str, **labels: str) -> float:
        """Interpolate a quantile of a histogram over all matching label sets; NaN if it is empty."""
        counts: dict[float, float] = {}
        for found, value in self._matching(f"{histogram}_bucket", labels):
            bound = float(dict(found)["le"])
            counts[bound] = counts.get(bound, 0.0) + value
        bounds = sorted(counts)
        if not bounds or counts[bounds[-1]] <= 0:
            return math.nan
        rank = q * counts[bounds[-1]]
        lower, below = 0.0, 0.0
        for bound in bounds:
            if counts[bound] >= rank:
                if math.isinf(bound):
                    return lower
                share = (rank - below) / max(counts[bound] - below, 1.0)
                return lower + (bound - lower) * share
            lower, below = bound, counts[bound]
        return lower

    def _matching(
        self, name: str, labels: Mapping[str, str]
    ) -> Iterable[tuple[frozenset[tuple[str, str]], float]]:
        wanted = frozenset(labels.items())
        return (
            (found, value) for (of, found), value in self._values.items() if of == name and wanted <= found
        )


def parse(text: str) -> Samples:
    """Read Prometheus' text format."""
    values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name, frozenset(sample.labels.items())] = sample.value
    return Samples(values)


def added(samples: Iterable[Samples]) -> Samples:
    """Add up several processes' samples."""
    values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for one in samples:
        for key, value in one._values.items():
            values[key] = values.get(key, 0.0) + value
    return Samples(values)


def scrape(port: int) -> Samples:
    """Ask a process on this machine for its metrics.

    Raises:
        BrokerUnavailableError: it does not answer.
    """
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=_SCRAPE_SECONDS) as answer:  # noqa: S310 - a fixed scheme
            return parse(answer.read().decode("utf-8"))
    except (urllib.error.URLError, OSError) as error:
        raise BrokerUnavailableError(f"no metrics at {url}: {type(error).__name__}") from None


def peak_memory(pid: int) -> int | None:
    """Give the most bytes that a process has had resident (VmHWM); None where Linux does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * _KIBIBYTE
    return None
