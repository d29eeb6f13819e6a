"""Planning and applying from afar. Does I/O."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from govbus_console.api.client import Connection
from govbus_console.control.saved_plan import Basis
from govbus_console.control.shown import Shown
from govbus_console.control.statement import Statement

_LONGEST_COUNT_SECONDS = 30
"""The API's bound."""


class RemoteCatalogue:
    """:class:`~govbus_console.control.interface.Catalogue` over the API."""

    def __init__(self, connection: Connection) -> None:
        self._to = connection

    def plan(self, stated: Statement, *, count_seconds: int) -> tuple[Shown, Basis]:
        """What applying would change, as far as this token may see it."""
        told = self._to.ask("POST", "/v1/plan", _given(stated, count_seconds))
        return told["plan"], Basis(**told["basis"])

    def apply(self, stated: Statement, *, basis: Basis | None, why: str, count_seconds: int) -> Shown:
        """Do it. The API counts rows no longer than half a minute."""
        given = _given(stated, count_seconds) | {
            "why": why,
            "basis": None if basis is None else asdict(basis),
        }
        return self._to.ask("POST", "/v1/apply", given)


def _given(stated: Statement, count_seconds: int) -> dict[str, Any]:
    return {
        "catalogue": stated.text,
        "contracts": [{"resource": ref, "avro": contract.text} for ref, contract in stated.contracts.items()],
        "name": str(stated.path),
        "count_seconds": min(count_seconds, _LONGEST_COUNT_SECONDS),
    }
