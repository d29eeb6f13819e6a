"""Hand notices to whatever sends them. Does I/O.

A notice is marked as sent after it was delivered, one by one and in order, so a
crash repeats at most one, and two who drain at once may both deliver one; its
``id`` tells a receiver that it has it already.
Only facts about the request travel: never what it asks for, nor any data.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from govbus.errors import ConfigurationError, SinkUnavailableError
from govbus_console.control.request_tables import NoticeRow
from govbus_console.control.store import ControlStore

_SECONDS = 10.0
_AT_ONCE = 100

Send = Callable[[dict[str, Any]], None]
"""Delivers one notice, or raises SinkUnavailableError."""


def drain(store: ControlStore, send: Send, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """Deliver what has not been sent yet, oldest first; return how many.

    Raises:
        SinkUnavailableError: this notice and those after it stay for the next time.
    """
    sent = 0
    while True:
        with store.reading() as session:
            query = select(NoticeRow).where(NoticeRow.sent_at.is_(None)).order_by(NoticeRow.seq)
            due = [(row.seq, as_json(row)) for row in session.scalars(query.limit(_AT_ONCE))]
        if not due:
            return sent
        for seq, notice in due:
            # Not under the write lock: a receiver that is slow must not hold up a revocation.
            send(notice)
            with store.locked() as session:
                session.get_one(NoticeRow, seq).sent_at = now()
            sent += 1


def waiting(store: ControlStore) -> int:
    """How many notices have not been sent."""
    with store.reading() as session:
        query = select(func.count()).select_from(NoticeRow).where(NoticeRow.sent_at.is_(None))
        return session.scalar(query) or 0


def as_json(row: NoticeRow) -> dict[str, Any]:
    """A notice as it is delivered."""
    return {
        "id": row.seq,
        "request": row.request,
        "kind": row.kind,
        "about": row.about,
        "to": {"role": row.role, "department": row.department, "account": row.account},
        "at": row.due_at.isoformat(),
        "made_at": row.made_at.isoformat(),
    }


def to_stdout() -> Send:
    """Print each as one line of JSON."""

    def send(notice: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(notice, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    return send


def to_file(path: Path) -> Send:
    """Append to a file, one JSON object a line, on the disk before it counts as delivered."""

    def send(notice: dict[str, Any]) -> None:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(notice, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SinkUnavailableError(f"cannot write {path}: {type(error).__name__}") from None

    return send


def to_webhook(url: str) -> Send:
    """POST each notice as JSON; any 2xx answer delivers it.

    Raises:
        ConfigurationError: ``url`` is not http or https.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError("a webhook is an http or https URL")

    def send(notice: dict[str, Any]) -> None:
        asked = urllib.request.Request(  # noqa: S310  checked above
            url,
            data=json.dumps(notice, ensure_ascii=False).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(asked, timeout=_SECONDS):  # noqa: S310  checked above
                pass
        except (urllib.error.URLError, OSError) as error:
            # The URL may hold a token, so it is not repeated.
            code = getattr(error, "code", type(error).__name__)
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # an answer that is an error is an open answer all the same
            raise SinkUnavailableError(f"the webhook has not taken notice {notice['id']}: {code}") from None

    return send
