"""Lists in pages: a limit, and a cursor that says where the next page begins. Pure.

A cursor holds the name of the last entry that was shown, and for which list. It
is opaque to the caller and no secret: what may be seen is asked again for each
page. An entry that comes or goes between two pages moves no other.
"""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from collections.abc import Sequence

from govbus.errors import NotFoundError
from govbus_console.control.shown import Shown

DEFAULT_LIMIT, LARGEST_LIMIT = 50, 200


def page(entries: Sequence[Shown], *, name: str, key: str, limit: int, cursor: str | None) -> Shown:
    """One page: ``{"items": […], "next": cursor or null}``.

    Args:
        entries: all that the caller may see, in the order of ``key``.
        name: of the list; a cursor of another list is refused.
        key: which part of an entry names it.
        limit: how many at most.
        cursor: ``next`` of the page before; None: the first page.

    Raises:
        NotFoundError: the cursor is not one of this list's, so it leads to no page.
    """
    keys = [str(entry[key]) for entry in entries]
    begin = 0 if cursor is None else bisect_right(keys, _read(cursor, name))
    items = list(entries[begin : begin + limit])
    more = begin + limit < len(entries)
    return {"items": items, "next": _write(name, str(items[-1][key])) if more else None}


def rest(entries: Sequence[Shown], *, name: str, key: str, limit: int) -> Shown:
    """The same of a list that was asked for ``limit`` + 1 entries behind :func:`last_shown`."""
    items = list(entries[:limit])
    return {"items": items, "next": _write(name, str(items[-1][key])) if len(entries) > limit else None}


def last_shown(cursor: str | None, name: str) -> str:
    """The entry behind which to go on; empty: from the beginning. Raises as :func:`page` does."""
    return "" if cursor is None else _read(cursor, name)


def cursor_behind(name: str, last: str) -> str | None:
    """A cursor for what comes behind an entry of a list; None, the first page, when ``last`` is empty."""
    return _write(name, last) if last else None


def _write(name: str, last: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([name, last]).encode()).decode().rstrip("=")


def _read(cursor: str, name: str) -> str:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        listed, last = json.loads(raw)
    except (binascii.Error, ValueError, TypeError):
        raise NotFoundError("this cursor leads to no page of this list") from None
    if listed != name or not isinstance(last, str):
        raise NotFoundError("this cursor leads to no page of this list")
    return last
