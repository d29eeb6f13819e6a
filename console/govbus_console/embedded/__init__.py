"""A real broker and a real registry on this machine, without Docker: for the demo, the tests, a first look.

``home`` is where everything lies; ``java`` and ``artifacts`` find what to run;
``processes`` and ``children`` start and end it safely; ``kafka`` and ``registry``
configure one of the two each; ``bus`` puts them together.
"""

from govbus_console.acls import ADMIN, EXCHANGE
from govbus_console.embedded.bus import (
    BusOptions,
    EmbeddedBus,
    Progress,
    broker_settings,
    running,
    stop_running,
)
from govbus_console.embedded.children import Child, Children
from govbus_console.embedded.home import Endpoints, Home, Run, ScrapeTarget
from govbus_console.embedded.kafka import KafkaOptions
from govbus_console.embedded.processes import ProcessRef

__all__ = [
    "ADMIN",
    "EXCHANGE",
    "BusOptions",
    "Child",
    "Children",
    "EmbeddedBus",
    "Endpoints",
    "Home",
    "KafkaOptions",
    "ProcessRef",
    "Progress",
    "Run",
    "ScrapeTarget",
    "broker_settings",
    "running",
    "stop_running",
]
