"""up, down, demo: a bus of one's own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from govbus_console.commands.options import Json

if TYPE_CHECKING:
    from govbus_console.uptime import Up

_Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="How many exchange workers.")]
_Api = Annotated[bool, typer.Option("--api", help="Serve the control API too.")]
_Detach = Annotated[bool, typer.Option("--detach", help="Return when everything runs, and leave it running.")]
_Level = Annotated[
    str, typer.Option("--level", metavar="areas|streets|villages", help="How fine the division codes are.")
]
_Keep = Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")]
_People = Annotated[
    int, typer.Option("--people", min=100, max=1_000_000, help="How many synthetic residents.")
]


def up(*, workers: _Workers = 2, api: _Api = False, detach: _Detach = False, as_json: Json = False) -> None:
    """Run a bus in GOVBUS_HOME until Ctrl-C: broker, registry, exchange."""
    from govbus import observe
    from govbus.settings import ProcessSettings
    from govbus_console import connect
    from govbus_console.render import show
    from govbus_console.settings import ApiSettings
    from govbus_console.uptime import run_up, start_detached

    home = connect.home()
    if detach:
        log = start_detached(home, workers=workers, api=api)
        run = home.read_run()
        endpoints = (
            {}
            if run is None
            else {"bootstrap": run.endpoints.bootstrap, "registry": run.endpoints.registry_url}
        )
        show(
            {"home": str(home.root), "log": str(log), **endpoints}
            | ({"api": ApiSettings().url} if api else {}),
            as_json=as_json,
            text=f"the bus runs in {home.root}; `govbus status` shows it, `govbus down` ends it",
        )
        return

    def ready(up: Up) -> None:
        show(
            {
                "home": str(home.root),
                "bootstrap": up.endpoints.bootstrap,
                "registry": up.endpoints.registry_url,
                "workers": list(up.workers),
                "metrics": up.metrics,
                "api": up.api,
            },
            as_json=as_json,
            text=(
                f"the bus runs in {home.root}\n"
                f"  broker    {up.endpoints.bootstrap}\n"
                f"  registry  {up.endpoints.registry_url}\n"
                f"  metrics   {up.metrics}; all targets in {home.targets_file}\n"
                + (f"  API       {up.api}\n" if up.api else "")
                + "Ctrl-C ends it"
            ),
        )
        sys.stdout.flush()

    observe.setup_logging("up", ProcessSettings().log_level)
    run_up(home, workers=workers, api=api, progress=_progress, ready=ready)


def down(*, as_json: Json = False) -> None:
    """Stop what runs in GOVBUS_HOME. Nothing that was shared is lost."""
    from govbus_console import connect
    from govbus_console.embedded import stop_running
    from govbus_console.render import show

    home = connect.home()
    stopped = stop_running(home, seconds=60.0)
    show(
        {"home": str(home.root), "stopped": stopped},
        as_json=as_json,
        text=f"stopped what ran in {home.root}" if stopped else f"nothing runs in {home.root}",
    )


def demo(
    *,
    level: _Level = "streets",
    people: _People = 20_000,
    workers: _Workers = 2,
    keep: _Keep = False,
    as_json: Json = False,
) -> None:
    """Share real data among five departments and check every row."""
    from govbus_console import connect
    from govbus_console.demo.divisions import Detail, can_be_had
    from govbus_console.demo.run import Options, run_demo
    from govbus_console.render import FAILED, draw, show

    try:
        detail = Detail(level)
    except ValueError:
        raise typer.BadParameter("write areas, streets or villages", param_hint="--level") from None
    if not can_be_had(detail):
        sys.stderr.write("npm is missing: playing on the areas, which ship with govbus\n")
        detail = Detail.AREAS
    options = Options(detail=detail, people=people, workers=workers, keep=keep)
    report = run_demo(connect.home(), options, _progress)
    show(report.as_json(), as_json=as_json, text="" if as_json else draw(report.renderable()))
    if as_json:
        sys.stderr.write(report.failures() + report.running())
    if not report.ok:
        raise typer.Exit(FAILED)


def _progress(step: str, seconds: float | None) -> None:
    """Write each step on stderr: stdout is for the result."""
    if seconds is None:
        if sys.stderr.isatty():
            sys.stderr.write(f"  …     {step}\n")
    else:
        sys.stderr.write(f"{seconds:6.1f} s {step}\n")
    sys.stderr.flush()


COMMANDS = (up, down, demo)
