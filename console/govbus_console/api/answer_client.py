"""Answers from afar. Does I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from govbus_console.api.client import Connection, named
from govbus_console.control.entries import Question
from govbus_console.control.shown import Shown
from govbus_console.control.usage import What


class RemoteAnswers:
    """:class:`~govbus_console.control.interface.Answers` over the API."""

    def __init__(self, connection: Connection) -> None:
        self._to = connection

    def find(self, question: Question) -> Shown:
        """Look through the catalogue."""
        query: list[tuple[str, str]] = [
            (word, value)
            for word, value in (
                ("text", question.text),
                ("owner", question.owner),
                ("share_type", question.share_type or ""),
                ("classification", question.classification or ""),
                *(("category", name) for name in question.category),
                ("level", question.level or ""),
                ("code", question.code),
            )
            if value
        ]
        if question.open is not None:
            query.append(("open", "true" if question.open else "false"))
        query += [("limit", str(question.limit)), ("after", str(question.after))]
        return self._to.ask("GET", "/v1/find", query=query)

    def who_uses(self, what: str, *, ended: bool = False) -> Sequence[Shown]:
        """Who receives something, as far as this token may see it."""
        found = self._to.all(f"/v1/uses/{_asked(what)}", {"ended": "true" if ended else ""})
        # Pages come by grant; people read by department, as at hand.
        return sorted(found, key=lambda use: (use["department"], use["grant"]))

    def can(self, department: str, what: str) -> Shown:
        """Whether a department may."""
        return self._to.ask("GET", f"/v1/departments/{named(department)}/can/{_asked(what)}")

    def explain(self, record: str, to: str, *, at: datetime | None = None) -> Shown:
        """Why a row reached a department or did not."""
        given = {"record": record, "to": to, "at": None if at is None else at.isoformat()}
        return self._to.ask("POST", "/v1/explain", given)

    def who_received(self, record: str) -> Shown:
        """Who received a row."""
        return self._to.ask("POST", "/v1/who-received", {"record": record})


def _asked(what: str) -> str:
    """What is asked about, as part of a path."""
    asked = What.parse(what)
    return asked.ref if asked.field is None else f"{asked.ref}.{named(asked.field, also='_')}"
