"""The command line: the composition root of every govbus process.

Commands import what they need when they run, so that ``govbus --help`` answers
at once. Every error ends here and becomes four parts on stderr and an exit code
(:mod:`govbus_console.render`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from govbus_console.commands import (
    answers,
    api,
    bus,
    catalogue,
    departments,
    discover,
    grants,
    look,
    office,
    receipts,
    requests,
)

app = typer.Typer(
    name="govbus",
    help="An exchange bus on which departments share change records under enforced agreements.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: the rich one costs more time than everything else together.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 called wrongly, 3 changes pending, 4 refused by policy, "
    "5 a dependency is unreachable.",
)


def _version(wanted: bool) -> None:  # noqa: FBT001  the shape that Typer calls
    if wanted:
        from govbus import __version__

        sys.stdout.write(f"govbus {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,  # noqa: ARG001  read in run()
    version: Annotated[  # noqa: ARG001  its callback does it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An exchange bus on which departments share change records under enforced agreements."""


for module in (bus, catalogue, discover, departments, look, requests, receipts, answers, api):
    for command in module.COMMANDS:
        app.command(command.__name__.replace("_", "-"))(command)
for grouped in (requests, grants, office, api):
    for group in grouped.GROUPS:
        app.add_typer(group, no_args_is_help=True)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    from govbus_console.render import INTERRUPTED, show_error

    words = list(arguments)
    name = next((word for word in words if not word.startswith("-")), "")
    try:
        app(args=words, prog_name="govbus")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        return show_error(error, command=name, as_json="--json" in words, debug="--debug" in words)
    return 0


def main() -> None:
    """Entry point of the ``govbus`` program."""
    sys.exit(run(sys.argv[1:]))
