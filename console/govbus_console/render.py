"""What a person, or a script, gets to see of a command: results on stdout, errors on stderr.

An error has four parts: what did not happen, why, how to put it right, and where
to read more. It never shows a traceback without ``--debug``, and never a field
value or a secret: foreign exceptions, whose text may quote either, are named by
their type alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from govbus.errors import (
    AccessDeniedError,
    BusError,
    CatalogueError,
    ConfigurationError,
    FilterRefusedError,
    GrantRefusedError,
    NotAllowedError,
    PlanMovedError,
    RefusedError,
    RetriableError,
    TransformRefusedError,
    TransitionRefusedError,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

DONE, FAILED, USAGE, PENDING, REFUSED, UNREACHABLE = range(6)
"""Exit codes: done, failed, called wrongly, changes pending, refused by policy, dependency unreachable."""

_BY_POLICY = (
    GrantRefusedError,
    FilterRefusedError,
    TransformRefusedError,
    NotAllowedError,
    PlanMovedError,
    TransitionRefusedError,
)

INTERRUPTED = 130
"""128 and SIGINT's number, as shells have it."""

_MORE = "docs/commands.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """An error, ready to be shown."""

    code: str
    what: str
    why: str
    fix: str
    more: str
    exit_code: int

    def as_json(self) -> dict[str, Any]:
        """The same for a script."""
        return {"error": {name: getattr(self, name) for name in ("code", "what", "why", "fix", "more")}}

    def as_text(self) -> str:
        """The same for a person: several reasons stand one below the other."""
        why = self.why.replace("\n", "\n      ")
        return f"error {self.what} [{self.code}]\n why  {why}\n fix  {self.fix}\n more {self.more}"


def exit_code(error: BaseException) -> int:
    """Which exit code an error ends a command with."""
    if isinstance(error, _BY_POLICY):
        return REFUSED
    if isinstance(error, RetriableError | AccessDeniedError):
        return UNREACHABLE
    if isinstance(error, ConfigurationError) or _is_settings_error(error):
        return USAGE
    return FAILED


def complaint(error: BaseException, *, command: str) -> Complaint:
    """Put an error into its four parts."""
    code = exit_code(error)
    if isinstance(error, BusError):
        return Complaint(
            code=error.code,
            what=_what(error, command),
            why=str(error),
            fix=error.fix or _fix(error),
            more=f"{_MORE}#{error.code}",
            exit_code=code,
        )
    if _is_settings_error(error):
        return Complaint(
            code="configuration",
            what=f"govbus {command} has not started",
            why=_settings_reason(error),
            fix="Correct the environment variable that is named and start again.",
            more="docs/settings.md",
            exit_code=code,
        )
    return Complaint(
        code="internal",
        what=f"govbus {command} met an error of its own",
        why=f"{type(error).__name__} at {_place(error)}",
        fix="Run it again with `govbus --debug`, and report what it then shows.",
        more=f"{_MORE}#internal",
        exit_code=code,
    )


def show_error(error: BaseException, *, command: str, as_json: bool, debug: bool) -> int:
    """Write an error on stderr and return the exit code."""
    told = complaint(error, command=command)
    if debug:
        sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.write(_json(told.as_json()) if as_json else told.as_text() + "\n")
    return told.exit_code


def show(data: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Write a result on stdout: the data for a script, or the text for a person."""
    sys.stdout.write(_json(data) if as_json else text.rstrip("\n") + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay rows out for a terminal of any width."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        # As plain text: a name in square brackets is not a style.
        drawn.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return draw(drawn)


def field_text(name: str, spec: object) -> str:
    """A granted field for people: its name, and how it is transformed where it is not kept."""
    return name if spec == "keep" else f"{name} ({_spec_text(spec)})"


def quota_text(records: int | None, keys: int | None) -> str:
    """The most that a day delivers, for people."""
    bounds = [f"{most} {what}" for most, what in ((records, "records"), (keys, "keys")) if most is not None]
    return ", ".join(bounds) or "no bound"


def facts_text(facts: Iterable[tuple[str, str]]) -> str:
    """One thing, a line for each fact of it."""
    return "\n".join(f"  {word:<24}{said}" for word, said in facts)


def _spec_text(spec: object) -> str:
    if isinstance(spec, Mapping):
        return " ".join(f"{name} {_spec_text(inner)}" for name, inner in spec.items())
    return str(spec)


def draw(what: RenderableType) -> str:
    """Turn something that Rich can show into text for this terminal."""
    from rich.console import Console

    width = shutil.get_terminal_size((120, 24)).columns
    console = Console(width=width, force_terminal=sys.stdout.isatty(), highlight=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, default=str) + "\n"


def _what(error: BusError, command: str) -> str:
    if isinstance(error, RefusedError):
        return f"govbus {command} was refused; nothing has changed"
    if isinstance(error, RetriableError | AccessDeniedError):
        return f"govbus {command} cannot reach what it needs"
    return f"govbus {command} has stopped"


def _fix(error: BusError) -> str:
    if isinstance(error, CatalogueError):
        return "Correct the lines that are named and apply again."
    if exit_code(error) == REFUSED:
        return "Change what was asked so that the permission model allows it."
    if isinstance(error, RefusedError):
        return "Ask for what is there; `govbus status` lists it."
    return "Try again; `govbus doctor` says what is missing."


def _is_settings_error(error: BaseException) -> bool:
    # By name: pydantic takes long to import, and whoever raised this has imported it.
    return type(error).__name__ == "ValidationError" and type(error).__module__.startswith("pydantic")


def _settings_reason(error: Any) -> str:
    """Which variables, and what is wrong with them; their values may be secrets."""
    prefix = {
        "BrokerSettings": "GOVBUS_BROKER_",
        "RegistrySettings": "GOVBUS_REGISTRY_",
        "ExchangeSettings": "GOVBUS_EXCHANGE_",
        "ControlSettings": "GOVBUS_CONTROL_",
        "RequestSettings": "GOVBUS_REQUEST_",
        "ApiSettings": "GOVBUS_API_",
        "ApiClientSettings": "GOVBUS_API_",
    }.get(error.title, "GOVBUS_")
    return "\n".join(
        f"{prefix}{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
        for fault in error.errors(include_input=False, include_url=False, include_context=False)
    )


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
