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


def actor(given: str) -> str:
    """Who is written down in the audit."""
    import getpass

    return given or getpass.getuser()
