"""From runs to figures: medians with their range, ratios, a table for people and JSON for programs.

The figure of a peer is the median of its rounds; minimum and maximum stand
beside it. A ratio is the ratio of two medians of the same benchmark run: on
another machine the figures differ, the ratios much less.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.exchange import Runs

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A ratio between two peers that is to be reached."""

    peer: str
    over: str
    at_least: float

    @property
    def name(self) -> str:
        """As in the JSON."""
        return f"{self.peer}/{self.over}"


TARGETS = (
    Target(peer="govbus_alo", over="raw", at_least=0.8),
    Target(peer="govbus_alo", over="kafka_streams_alo", at_least=2.0),
    Target(peer="govbus_eos", over="kafka_streams_eos", at_least=2.5),
    Target(peer="govbus_alo", over="quix", at_least=5.0),
    Target(peer="govbus_alo", over="faust", at_least=40.0),
)


def spread(name: str, values: Sequence[float], digits: int = 1) -> JsonObject:
    """Give the median under ``name``, and minimum and maximum beside it."""
    return {
        name: round(median(values), digits),
        f"{name}_min": round(min(values), digits),
        f"{name}_max": round(max(values), digits),
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give the smallest value that at least ``share`` of the values do not exceed (nearest rank)."""
    if not ordered:
        raise ValueError("no values")
    rank = max(1, -(-len(ordered) * round(share * 1_000_000) // 1_000_000))
    return ordered[rank - 1]


def exchange_figures(results: Sequence[Runs]) -> JsonObject:
    """Give ``exchange`` as the JSON has it: one object for each peer, and the ratios."""
    figures: JsonObject = {}
    for runs in results:
        windows = runs.windows
        figures[runs.peer.name] = {
            "title": runs.peer.title,
            "records": runs.records,
            **spread("records_per_s", [w.records_per_s for w in windows], 0),
            **spread("steady_records_per_s", [w.steady_records_per_s for w in windows], 0),
            **spread("cpu_s", [w.cpu_s for w in windows], 2),
            "start_cpu_s": round(median(w.start_cpu_s for w in windows), 2),
            "cpu_us_per_record": round(
                median(w.cpu_s / (w.records_per_s * w.seconds) * 1e6 for w in windows), 2
            ),
            "broker_cpu_s": round(median(w.broker_cpu_s for w in windows), 2),
            **spread("peak_mb", [w.peak_mb for w in windows]),
        }
    figures["ratios"] = ratios(figures)
    return figures


def ratios(figures: Mapping[str, Any]) -> JsonObject:
    """Compare the peers that took part with the targets, by whole runs and by their steady halves."""
    found: JsonObject = {}
    for target in TARGETS:
        if target.peer in figures and target.over in figures:
            peer, over = figures[target.peer], figures[target.over]
            ratio = peer["records_per_s"] / over["records_per_s"]
            found[target.name] = {
                "ratio": round(ratio, 2),
                "steady_ratio": round(peer["steady_records_per_s"] / over["steady_records_per_s"], 2),
                "target": target.at_least,
                "reached": ratio >= target.at_least,
            }
    return found


def machine() -> JsonObject:
    """Say what the figures were measured on."""
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.release(),
        "python": sys.version.split()[0],
        "load_before": round(os.getloadavg()[0], 2),
    }


def exchange_table(figures: Mapping[str, Any]) -> str:
    """Lay the exchange's figures out for people."""
    lines = [
        [
            "peer",
            "records",
            "records/s",
            "min",
            "max",
            "steady/s",
            "CPU s",
            "us/record",
            "start CPU s",
            "broker CPU s",
            "peak MB",
        ]
    ]
    for name, peer in figures.items():
        if name != "ratios":
            lines.append(
                [
                    peer["title"],
                    f"{peer['records']:,}",
                    f"{peer['records_per_s']:,.0f}",
                    f"{peer['records_per_s_min']:,.0f}",
                    f"{peer['records_per_s_max']:,.0f}",
                    f"{peer['steady_records_per_s']:,.0f}",
                    f"{peer['cpu_s']:.2f}",
                    f"{peer['cpu_us_per_record']:.2f}",
                    f"{peer['start_cpu_s']:.2f}",
                    f"{peer['broker_cpu_s']:.2f}",
                    f"{peer['peak_mb']:.0f}",
                ]
            )
    table = align(lines)
    compared = [["ratio", "found", "steady", "to reach", ""]]
    for name, ratio in figures["ratios"].items():
        compared.append(
            [
                name.replace("/", " / "),
                f"{ratio['ratio']:.2f}",
                f"{ratio['steady_ratio']:.2f}",
                f"{ratio['target']:.1f}",
                "reached" if ratio["reached"] else "NOT reached",
            ]
        )
    return table + ("\n\n" + align(compared) if len(compared) > 1 else "")


def align(lines: Sequence[Sequence[str]]) -> str:
    """Put cells under each other: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
