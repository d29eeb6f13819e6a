"""What whoever applies a catalogue file may state in it, and change by it.

Applying on the control machine has none: whoever can open the control store answers for
what is applied there. The API gives each caller one (:mod:`govbus_console.api.licence`).
"""

from __future__ import annotations

from typing import Protocol

from govbus_console.control.catalogue_file import CatalogueFile
from govbus_console.control.planned import Plan
from govbus_console.control.store import Snapshot


class Licence(Protocol):
    """Asked twice for each plan, with nothing done yet; raising refuses the whole file."""

    def stating(self, catalogue: CatalogueFile, known: Snapshot) -> None:
        """Asked before planning, whose refusals would tell of what somebody else has agreed.

        Raises:
            RefusedError: it names what its bearer has no say in.
        """
        ...

    def changing(self, made: Plan, known: Snapshot) -> None:
        """Asked with the plan that is about to be applied.

        Raises:
            NotAllowedError: one of its changes is not for its bearer to make.
        """
        ...
