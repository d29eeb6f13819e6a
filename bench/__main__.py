"""``python -m bench``: ask one of the questions, or all of them, and print a table or JSON.

Progress goes to standard error, so the output can be piped. Exit codes: 0
measured, 1 a peer failed or delivered something wrong, 2 called wrongly.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence

from bench import fanout, growth, latency, parts, revoke
from bench.exchange import exchange
from bench.ground import ground
from bench.lineup import Peer, peers
from bench.report import JsonObject, align, exchange_figures, exchange_table, machine
from bench.window import PeerFailedError

_Answer = tuple[JsonObject, str]
_TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    wanted = _parser().parse_args(arguments)
    # As after Ctrl-C: the broker is stopped and its directory removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("bench").setLevel(logging.INFO)
    questions: dict[str, Callable[[argparse.Namespace], _Answer]] = {
        "parts": _parts,
        "exchange": _exchange,
        "fanout": _fanout,
        "latency": _latency,
        "revoke": _revoke,
        "growth": _growth,
    }
    figures: JsonObject = {"machine": machine()}
    for name, ask in questions.items():
        if wanted.question not in (name, "all"):
            continue
        try:
            found, table = ask(wanted)
        except PeerFailedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        figures |= found
        if not wanted.json:
            print(f"\n{name}\n\n{table}\n")
    if wanted.json:
        print(json.dumps(figures, indent=2))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "question", choices=["parts", "exchange", "fanout", "latency", "revoke", "growth", "all"]
    )
    parser.add_argument("--records", type=_count, default=1_000_000, help="of the exchange's input")
    parser.add_argument("--runs", type=_count, default=3, help="interleaved rounds; the median is reported")
    parser.add_argument("--only", type=_names, default=(), help="peers of the exchange, joined by commas")
    parser.add_argument("--seconds", type=_count, default=60, help="of traffic, for latency")
    parser.add_argument("--rate", type=_count, default=latency.RATE, help="changes a second, for latency")
    parser.add_argument("--scale", type=float, default=1.0, help="of the inputs of fanout and growth")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _names(text: str) -> tuple[str, ...]:
    names, known = tuple(text.split(",")), [peer.name for peer in peers()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {unknown[0]!r}; there are {', '.join(known)}")
    return names


def _parts(_wanted: argparse.Namespace) -> _Answer:
    found = parts.parts()
    return {"parts": found}, align(parts.table(found))


def _exchange(wanted: argparse.Namespace) -> _Answer:
    lineup: list[Peer] = [p for p in peers() if (p.name in wanted.only if wanted.only else not p.extra)]
    with ground() as here:
        figures = exchange_figures(exchange(here, lineup, records=wanted.records, rounds=wanted.runs))
    return {"exchange": figures}, exchange_table(figures)


def _fanout(wanted: argparse.Namespace) -> _Answer:
    with ground() as here:
        figures = fanout.fanout(here, rounds=wanted.runs, scale=wanted.scale)
    lines = [["grants", "records", "views/s", "min", "max", "CPU us/view"]]
    for grants, found in figures.items():
        lines.append(
            [
                grants,
                f"{found['records']:,}",
                f"{found['views_per_s']:,.0f}",
                f"{found['views_per_s_min']:,.0f}",
                f"{found['views_per_s_max']:,.0f}",
                f"{found['cpu_us_per_view']:.2f}",
            ]
        )
    return {"fanout": figures}, align(lines)


def _latency(wanted: argparse.Namespace) -> _Answer:
    with ground() as here:
        figures = latency.latency(here, seconds=wanted.seconds, rate=wanted.rate)
    return figures, latency.table(figures)


def _revoke(_wanted: argparse.Namespace) -> _Answer:
    with ground() as here:
        figures = revoke.revoke(here)
    return figures, align([["figure", "ms"], *([name, f"{value:.0f}"] for name, value in figures.items())])


def _growth(wanted: argparse.Namespace) -> _Answer:
    with ground() as here:
        figures = growth.growth(here, scale=wanted.scale)
    lines = [["of", "times", "number", "records/s", "second half", "peak MB"]]
    for what, found in figures.items():
        for times, point in found.items():
            lines.append(
                [
                    what,
                    times,
                    f"{point['number']:,}",
                    f"{point['records_per_s']:,.0f}",
                    f"{point['steady_records_per_s']:,.0f}",
                    f"{point['peak_mb']:.0f}",
                ]
            )
    return {"growth": figures}, align(lines)


if __name__ == "__main__":
    sys.exit(main())
