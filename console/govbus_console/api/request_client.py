"""Requests from afar: what :class:`~govbus_console.control.requests.Requests` does, over HTTP. Does I/O.

The methods are its methods, so that a command is written once. Who acts is whom
the token stands for: :meth:`RemoteRequests.acting` gives that account, and no
method takes another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from govbus.errors import NotAllowedError
from govbus.request import Ground, RequestState
from govbus_console.api.client import Connection, named
from govbus_console.api.pages import cursor_behind
from govbus_console.control.request_json import (
    read_happened,
    read_shown_request,
    show_amendment,
    show_ask,
)
from govbus_console.control.request_shapes import HOUR, Amendment, Ask, Happened, Request
from govbus_console.control.roles import Account, known_roles


class RemoteRequests:
    """Requests over the API."""

    def __init__(self, connection: Connection) -> None:
        self._to = connection
        self._held: Account | None = None

    def acting(self, name: str) -> Account:
        """The account that the token stands for.

        Raises:
            NotAllowedError: it is not the account of that name: nobody acts as another by mistake.
        """
        me = self._to.ask("GET", "/v1/me")
        if me["account"] != name:
            raise NotAllowedError(f"the token stands for {me['account']}, not for {name}")
        self._held = Account(name=name, department=me["department"], roles=known_roles(me["roles"]))
        return self._held

    def draft(self, actor: Account, ask: Ask) -> Request:
        """Write a request down."""
        return self._post(actor, "/v1/requests", show_ask(ask))

    def count(self, actor: Account, request_id: str) -> Request:
        """Count the rows that match."""
        return self._step(actor, request_id, "count", {})

    def submit(self, actor: Account, request_id: str) -> Request:
        """Hand a request in."""
        return self._step(actor, request_id, "submit", {})

    def answer(self, actor: Account, request_id: str, text: str) -> Request:
        """Answer what the owner asked."""
        return self._step(actor, request_id, "answer", {"text": text})

    def withdraw(self, actor: Account, request_id: str, why: str = "") -> Request:
        """Take a request back."""
        return self._step(actor, request_id, "withdraw", {"why": why})

    def take(self, actor: Account, request_id: str) -> Request:
        """Begin the review."""
        return self._step(actor, request_id, "take", {})

    def ask(self, actor: Account, request_id: str, question: str) -> Request:
        """Ask the requester for information."""
        return self._step(actor, request_id, "ask", {"text": question})

    def reject(self, actor: Account, request_id: str, ground: Ground, why: str = "") -> Request:
        """Say no, on a ground."""
        return self._step(actor, request_id, "reject", {"ground": ground.value, "why": why})

    def approve(self, actor: Account, request_id: str, why: str = "") -> Request:
        """Say yes."""
        return self._step(actor, request_id, "approve", {"why": why})

    def amend(
        self, actor: Account, grant_id: str, change: Amendment, *, why: str, legal_basis: str = ""
    ) -> Request:
        """Ask for another version of a grant, or make it."""
        given = show_amendment(change) | {"why": why, "legal_basis": legal_basis}
        return self._post(actor, f"/v1/grants/{named(grant_id)}/amend", given)

    def renew(
        self, actor: Account, grant_id: str, term: timedelta, *, why: str, legal_basis: str = ""
    ) -> Request:
        """Ask for another term of a grant."""
        given = {"term_hours": term // HOUR, "why": why, "legal_basis": legal_basis}
        return self._post(actor, f"/v1/grants/{named(grant_id)}/renew", given)

    def emergency(self, actor: Account, ask: Ask, *, requester: str, why: str) -> Request:
        """Grant a narrow view for some hours, at once."""
        return self._post(actor, "/v1/emergencies", show_ask(ask) | {"requester": requester, "why": why})

    def review_emergency(self, actor: Account, request_id: str, *, upheld: bool, why: str) -> Request:
        """Say afterwards whether an emergency grant was right."""
        return self._step(actor, request_id, "review", {"upheld": upheld, "why": why})

    def find(self, actor: Account, request_id: str) -> Request:
        """One request."""
        self._must_be(actor)
        return read_shown_request(self._to.ask("GET", f"/v1/requests/{named(request_id)}"))

    def history(self, actor: Account, request_id: str) -> Sequence[Happened]:
        """What happened to a request, oldest first."""
        self._must_be(actor)
        told = self._to.ask("GET", f"/v1/requests/{named(request_id)}/history")
        return [read_happened(one) for one in told["items"]]

    def listing(
        self,
        actor: Account,
        *,
        state: RequestState | None = None,
        to_review: bool = False,
        limit: int = 100,
        after: str = "",
    ) -> Sequence[Request]:
        """Requests that the account may see, oldest first, at most ``limit``, behind one of them."""
        self._must_be(actor)
        query = ({} if state is None else {"state": state.value}) | (
            {"to_review": "true"} if to_review else {}
        )
        found = []
        for shown in self._to.pages("/v1/requests", query, cursor=cursor_behind("requests", after)):
            found.append(read_shown_request(shown))
            if len(found) == limit:
                break
        return found

    def _step(self, actor: Account, request_id: str, step: str, given: Mapping[str, Any]) -> Request:
        return self._post(actor, f"/v1/requests/{named(request_id)}/{step}", given)

    def _post(self, actor: Account, path: str, given: Mapping[str, Any]) -> Request:
        self._must_be(actor)
        return read_shown_request(self._to.ask("POST", path, given))

    def _must_be(self, actor: Account) -> None:
        if actor != self._held:
            raise NotAllowedError(f"the token does not stand for {actor.name}")
