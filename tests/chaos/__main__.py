"""``python -m chaos``: one run of faults at random, and a table of what became of it.

The seed stands first, so that whatever follows can be tried again. Exit codes:
0 every promise held, 1 one did not, 2 called wrongly.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from chaos.mutations import MUTATIONS
from chaos.run import SETTLED_WITHIN, Plan, Verdict, run
from chaos.storm import FAULTS

_TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    wanted = _parser().parse_args(arguments)
    # As after Ctrl-C: everything that was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("chaos").setLevel(logging.INFO)
    seed = random.SystemRandom().randrange(1_000_000) if wanted.seed is None else wanted.seed
    print(f"seed {seed}", file=sys.stderr if wanted.json else sys.stdout, flush=True)

    def keep_logs(folder: Path) -> None:
        if wanted.logs is not None:
            shutil.copytree(
                folder, wanted.logs, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.secret")
            )

    plan = Plan(
        seed=seed,
        seconds=wanted.seconds,
        quiet_every=wanted.quiet_every,
        rate=wanted.rate,
        only=frozenset(wanted.only),
        mutation=wanted.mutation,
        settled_within=wanted.settled_within,
    )
    verdict = run(plan, keep_logs=keep_logs)
    print(json.dumps(asdict(verdict), indent=2, ensure_ascii=False) if wanted.json else table(verdict))
    return 0 if verdict.good else 1


def table(verdict: Verdict) -> str:
    """Put a verdict into lines to read."""
    lines = [
        *((name, str(count)) for name, count in verdict.faults.items()),
        ("faults", str(verdict.survived)),
        ("", ""),
        ("records written", f"{verdict.written:,}"),
        ("deliveries judged", f"{verdict.delivered:,} on {verdict.topics} topics"),
        ("quiet points", str(verdict.quiet_points)),
        ("workers fenced by a barrier", str(verdict.fenced)),
        ("longest barrier", f"{verdict.slowest_barrier:.1f} s"),
        *((f"worker ended: {reason}", str(count)) for reason, count in verdict.ended_alone.items()),
        ("", ""),
        *verdict.broken.items(),
        ("verdict", "every promise held" if verdict.good else "BROKEN"),
    ]
    width = max(len(name) for name, _ in lines)
    table = "\n".join(f"{name:{width}}  {value}".rstrip() for name, value in lines)
    changed = "" if verdict.mutation is None else f", engine changed: {verdict.mutation}"
    return "\n".join([f"{verdict.seconds:.0f} s, seed {verdict.seed}{changed}", "", table, *verdict.cases])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of an earlier run, to try it again; else one is drawn")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long the storm lasts")
    parser.add_argument("--quiet-every", type=float, default=45.0, help="seconds between two quiet points")
    parser.add_argument("--rate", type=int, default=200, help="records written a second")
    parser.add_argument(
        "--only", action="append", default=[], choices=FAULTS, help="draw this fault alone; may be repeated"
    )
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="put this fault into the engine first")
    parser.add_argument(
        "--settled-within", type=float, default=SETTLED_WITHIN, help="seconds after which what is due is lost"
    )
    parser.add_argument("--logs", type=Path, help="a directory to keep the workers' logs in")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
