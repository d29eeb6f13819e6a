"""Plans, as far as a caller may see them.

What a file may state and change is asked by :mod:`.licence`, where the plan is made. A plan
also lists what the file does not mention, and that is everybody's: of it the caller gets what
it may see anyway.
"""

from __future__ import annotations

from govbus_console.api.desk import Desk
from govbus_console.control.interface import Catalogue
from govbus_console.control.planned import Action
from govbus_console.control.saved_plan import Basis
from govbus_console.control.shown import Shown
from govbus_console.control.statement import Statement


class CatalogueDesk:
    """:class:`~govbus_console.control.interface.Catalogue`, as far as an account may use it."""

    def __init__(self, catalogue: Catalogue, desk: Desk) -> None:
        """Put it in front of a catalogue that works within the caller's licence.

        Args:
            catalogue: with that licence.
            desk: of the same caller, for the grants that it may see.
        """
        self._catalogue = catalogue
        self._desk = desk

    def plan(self, stated: Statement, *, count_seconds: int) -> tuple[Shown, Basis]:
        """What applying would change."""
        made, basis = self._catalogue.plan(stated, count_seconds=count_seconds)
        return self._seen(made), basis

    def apply(self, stated: Statement, *, basis: Basis | None, why: str, count_seconds: int) -> Shown:
        """Do it."""
        return self._seen(self._catalogue.apply(stated, basis=basis, why=why, count_seconds=count_seconds))

    def _seen(self, made: Shown) -> Shown:
        visible = {grant["grant"] for grant in self._desk.grants()}
        return made | {
            "changes": [
                change
                for change in made["changes"]
                if change["kind"] != "grant" or change["action"] != Action.LEFT or change["name"] in visible
            ]
        }
