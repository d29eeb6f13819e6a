"""Loopback ports that stay the same from one start to the next.

They are drawn from below the range that Linux and macOS hand to outgoing
connections, so that a passing connection does not sit on one of them when the
bus is started again. Nothing can reserve a port between looking and listening;
whoever listens must be ready to draw again.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path

from govbus.errors import ConfigurationError
from govbus_console.embedded.home import write_json

LOOPBACK = "127.0.0.1"

_LOWEST, _HIGHEST = 20_000, 29_999
_DRAWS = 1_000
_dice = random.SystemRandom()


def is_free(port: int) -> bool:
    """Say whether one could listen on a loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the JVM does: connections of an earlier run that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def draw(*, avoid: frozenset[int] = frozenset()) -> int:
    """Give a free port that is none of ``avoid``."""
    for _ in range(_DRAWS):
        port = _dice.randint(_LOWEST, _HIGHEST)
        if port not in avoid and is_free(port):
            return port
    raise ConfigurationError(f"no free port on {LOOPBACK} between {_LOWEST} and {_HIGHEST}")


def kept(file: Path, names: Sequence[str]) -> dict[str, int]:
    """Give each name the port it had before where that is free, else a new one, and remember it."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        before = {name: int(raw[name]) for name in names if name in raw}
    except (OSError, ValueError, TypeError):
        before = {}
    ports: dict[str, int] = {}
    for name in names:
        port = before.get(name)
        taken = frozenset(ports.values())
        ports[name] = port if port and port not in taken and is_free(port) else draw(avoid=taken)
    if ports != before:
        write_json(file, ports)
    return ports
