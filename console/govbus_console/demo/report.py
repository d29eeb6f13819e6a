"""What the demo has found, as a person reads it and as a program does. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from govbus_console.control.receipts import Standing

_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What went from one resource to one department, over all years."""

    resource: str
    subscriber: str
    captured: int
    """Records that the owner published."""

    delivered: int
    """Records of the exchange to this subscriber: rows and deletions of rows, without those that left."""

    filtered: int
    left_view: int
    landed: int
    """Records that the subscriber's store has taken in; with nothing under way, delivered plus left."""

    oracle_equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must hold."""

    what: str
    holds: bool
    found: str = ""
    """What was found instead; never a field value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of one demo."""

    lines: Sequence[Line]
    checks: Sequence[Check]
    throughput: Mapping[str, float]
    """Records a second of capture, exchange and landing, while they worked on the first edition."""

    p50_ms: float
    p99_ms: float
    """From commit at the source to commit in the subscriber's store, over the yearly changes."""

    revoke_ms: float
    receipt: Standing | None = None
    """What the subscriber of the revoked grant has answered."""

    memory: Mapping[str, int] = field(default_factory=dict)
    """The most bytes that each process has had resident."""

    seconds: float = 0.0
    left_running: Mapping[str, str] = field(default_factory=dict)
    """Address of the metrics of each process that was left running."""

    targets: Path | None = None
    """What Prometheus is to read for all of them."""

    @property
    def ok(self) -> bool:
        """Whether all of it holds."""
        return all(check.holds for check in self.checks) and all(line.oracle_equal for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        """Give what ``govbus demo --json`` prints."""
        return {
            "ok": self.ok,
            "tables": [
                {
                    "resource": line.resource,
                    "subscriber": line.subscriber,
                    "captured": line.captured,
                    "delivered": line.delivered,
                    "filtered": line.filtered,
                    "left_view": line.left_view,
                    "landed": line.landed,
                    "oracle_equal": line.oracle_equal,
                }
                for line in self.lines
            ],
            "throughput": {stage: round(rate) for stage, rate in self.throughput.items()},
            "latency_ms": {"p50": _rounded(self.p50_ms), "p99": _rounded(self.p99_ms)},
            "revoke_ms": _rounded(self.revoke_ms),
            "receipt": None if self.receipt is None else self.receipt.as_json(),
        }

    def renderable(self) -> RenderableType:
        """Give what ``govbus demo`` shows at its end."""
        from rich.console import Group
        from rich.text import Text

        rates = ", ".join(f"{stage} {rate:,.0f}" for stage, rate in self.throughput.items())
        facts = [
            f"records/s: {rates} (while working on the first edition)",
            f"source commit to landed commit: p50 {_shown(self.p50_ms)}, p99 {_shown(self.p99_ms)}",
            f"revoke to barrier: {_shown(self.revoke_ms)}",
            *([] if self.receipt is None else [self.receipt.line()]),
            f"all in {self.seconds:.0f} s",
        ]
        verdict = (
            Text("Every row is equal to the oracle, and everything holds.", style="bold green")
            if self.ok
            else Text("Not everything holds.", style="bold red")
        )
        told = Text("\n".join(facts))
        return Group(self._shares(), self._held(), self._memory(), told, verdict, Text(self.running()))

    def failures(self) -> str:
        """Say what does not hold, a line each; empty when everything does."""
        return "".join(f"{check.what}: {check.found or 'no'}\n" for check in self.checks if not check.holds)

    def running(self) -> str:
        """Say what was left running, where its metrics are, and how to stop it; empty when nothing was."""
        if not self.left_running:
            return ""
        addresses = "".join(f"  {name}: {address}\n" for name, address in self.left_running.items())
        return (
            f"\nEverything is left running. Metrics:\n{addresses}"
            f"  all of them, for Prometheus: {self.targets}\nStop it with `govbus down`."
        )

    def _shares(self) -> RenderableType:
        from rich.table import Table

        table = Table(title="What was shared", title_justify="left")
        for heading in ("resource", "department"):
            table.add_column(heading)
        for heading in ("captured", "delivered", "filtered", "left the view", "landed"):
            table.add_column(heading, justify="right")
        table.add_column("oracle")
        for line in self.lines:
            table.add_row(
                line.resource,
                line.subscriber,
                *(
                    f"{count:,}"
                    for count in (line.captured, line.delivered, line.filtered, line.left_view, line.landed)
                ),
                "[green]equal[/]" if line.oracle_equal else "[bold red]NOT EQUAL[/]",
            )
        return table

    def _held(self) -> RenderableType:
        from rich.text import Text

        text = Text()
        for check in self.checks:
            text.append("✓ " if check.holds else "✗ ", style="green" if check.holds else "bold red")
            text.append(check.what)
            if not check.holds and check.found:
                text.append(f": {check.found}", style="red")
            text.append("\n")
        return text

    def _memory(self) -> RenderableType:
        from rich.text import Text

        shown = ", ".join(f"{name} {size / _MEBIBYTE:,.0f}" for name, size in self.memory.items())
        return Text(f"peak memory, MiB: {shown}\n" if shown else "")


def _rounded(number: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(number) else round(number, 1)


def _shown(milliseconds: float) -> str:
    return "not measured" if math.isnan(milliseconds) else f"{milliseconds:,.0f} ms"
