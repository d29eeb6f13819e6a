"""Why a route may stand still although the policy permits it: codes for decisions, reports and metrics."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from govbus_processors.routes import Route


class Hold(StrEnum):
    """What holds a route back. It keeps its cursor, so nothing is lost while it stands still."""

    QUOTA_USED_UP = "quota-used-up"
    """Until the next day."""

    QUOTA_UNKNOWN = "quota-unknown"
    """What was used of the quota today has not been read yet."""

    QUOTA_NEAR = "quota-near"
    """Brought on apart from the live stream, to end exactly at its quota; it does not stand still."""

    GUARD_VIOLATION = "guard-violation"
    """The guard has seen a delivery that its grant does not allow; until a new version of the grant."""


Holder = Callable[["Route", int], Hold | None]
"""Answers for a route and a partition; None: nothing holds it back."""


def nothing(_route: Route, _partition: int) -> None:
    """Hold no route back."""
