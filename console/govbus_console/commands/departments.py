"""capture, exchange, land: the processes that move records. Each runs until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from typing import Annotated

import typer

from govbus_console.commands.options import Config, Json

_Once = Annotated[bool, typer.Option("--once", help="Do what is there to do, then end.")]
_Worker = Annotated[
    str,
    typer.Option("--worker", help="Name of this worker: no other may have it, and it keeps it."),
]


def capture(*, config: Config, once: _Once = False, as_json: Json = False) -> None:
    """Find changes in a department's own system and publish them."""
    from govbus.codec import Registry
    from govbus_console import connect
    from govbus_console.render import show
    from govbus_producers import capture as capturing
    from govbus_producers.config import load_config

    settings = load_config(config)
    broker, registry = connect.endpoints(settings.department)
    _serve(f"capture-{settings.department}")
    with closing(Registry(registry.url)) as opened:
        published = capturing.run(settings, broker, opened, stop=_until_asked(), once=once)
    show({"published": published}, as_json=as_json, text=f"{published} changes published")


def exchange(*, worker: _Worker = "worker-1", as_json: Json = False) -> None:
    """Decide, project and route what was captured, as one worker."""
    from govbus.settings import ExchangeSettings, ProcessSettings
    from govbus_console import connect
    from govbus_console.control.bus import PSEUDONYM_SECRET
    from govbus_console.embedded import EXCHANGE
    from govbus_console.render import show
    from govbus_processors import app

    broker, registry = connect.endpoints(EXCHANGE)
    process, settings = ProcessSettings(), ExchangeSettings()
    secret = connect.home().secrets / f"{PSEUDONYM_SECRET}.password"
    if settings.pseudonym_secret_file is None and secret.exists():
        settings = settings.model_copy(update={"pseudonym_secret_file": secret})
    _log_as(f"exchange-{worker}")
    code = app.run(worker, broker, registry, process, settings)
    show({"worker": worker, "exit_code": code}, as_json=as_json, text=f"{worker} has stopped")
    raise typer.Exit(code)


def land(*, config: Config, as_json: Json = False) -> None:
    """Write a department's deliveries into its own database."""
    from govbus.codec import Registry
    from govbus_console import connect
    from govbus_console.render import show
    from govbus_consumers import land as landing
    from govbus_consumers.config import load_config

    settings = load_config(config)
    broker, registry = connect.endpoints(settings.department)
    _serve(f"land-{settings.department}")
    with closing(Registry(registry.url)) as opened:
        landing.run(settings, broker, opened, stop=_until_asked())
    show({"department": settings.department}, as_json=as_json, text="landing has stopped")


def _log_as(process: str) -> None:
    from govbus import observe
    from govbus.settings import ProcessSettings

    observe.setup_logging(process, ProcessSettings().log_level)


def _serve(process: str) -> None:
    from govbus import observe
    from govbus.settings import ProcessSettings

    _log_as(process)
    settings = ProcessSettings()
    observe.serve_metrics(settings.metrics_port, process=process, host=settings.metrics_host)


def _until_asked() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


COMMANDS = (capture, exchange, land)
