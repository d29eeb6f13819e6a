"""Answers with the store and the broker at hand. Does I/O."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from govbus_console.answers.explain import explain
from govbus_console.answers.landed import landed_lookup
from govbus_console.answers.received import who_received
from govbus_console.control import entries, usage
from govbus_console.control.direct import Clock, OpenBus, OpenStore, now_utc
from govbus_console.control.entries import Question
from govbus_console.control.shown import Shown

if TYPE_CHECKING:
    from govbus_consumers.config import LandConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectAnswers:
    """:class:`~govbus_console.control.interface.Answers` over store and broker."""

    store: OpenStore
    bus: OpenBus
    """Opened only for what is asked about a row."""

    landing: LandConfig | None = None
    """Of a subscriber whose own database :meth:`explain` looks into as well."""

    clock: Clock = now_utc

    def find(self, question: Question) -> Shown:
        """Look through the catalogue."""
        with self.store() as store:
            page = entries.find(store, question)
        return {"found": [found.as_json() for found in page.found], "next": page.next}

    def who_uses(self, what: str, *, ended: bool = False) -> Sequence[Shown]:
        """Who receives something."""
        asked = usage.What.parse(what)
        with self.store() as store:
            uses = usage.who_uses(store, asked, now=self.clock(), ended=ended)
        return [use.as_json() for use in uses]

    def can(self, department: str, what: str) -> Shown:
        """Whether a department may."""
        asked = usage.What.parse(what)
        with self.store() as store:
            answer = usage.can(store, department, asked, now=self.clock())
        return {"department": department, "what": what, **answer.as_json()}

    def explain(self, record: str, to: str, *, at: datetime | None = None) -> Shown:
        """Why a row reached a department or did not."""
        looking = nullcontext() if self.landing is None else landed_lookup(self.landing, to)
        with self.bus() as bus, self.store() as store, looking as landed:
            found = explain(record, to, store, bus, at=at, now=self.clock(), landed=landed)
        return found.as_json()

    def who_received(self, record: str) -> Shown:
        """Who received a row."""
        with self.bus() as bus, self.store() as store:
            return who_received(record, store, bus, now=self.clock()).as_json()
