"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
File = Annotated[
    Path,
    typer.Option("--file", "-f", help="Catalogue file (YAML).", show_default=False),
]
Config = Annotated[
    Path,
    typer.Option("--config", "-c", help="Configuration file (YAML) of this process.", show_default=False),
]
Detailed = Annotated[
    bool,
    typer.Option("--detailed-exitcode", help="Exit with 3 when there are changes, instead of 0."),
]
Why = Annotated[str, typer.Option("--why", help="The reason, for the audit.")]
Who = Annotated[
    str,
    typer.Option("--who", envvar="GOVBUS_ACTOR", help="Who asks, for the audit. Default: your login name."),
]
MaybeAs = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="ACCOUNT",
        envvar="GOVBUS_ACCOUNT",
        help="The account that acts, as far as its roles allow. Without: whoever may write the store.",
        show_default=False,
    ),
]


def actor(given: str) -> str:
    """Who is written down in the audit where no account acts.

    It is said, so that a name that somebody gives does not pass for an account of that name, whose roles
    were asked.
    """
    import getpass

    return f"{given or getpass.getuser()} (no account)"
