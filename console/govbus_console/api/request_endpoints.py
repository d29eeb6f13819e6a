"""Endpoints over requests: every step from draft to grant, and what is decided about them.

:class:`~govbus_console.control.requests.Requests` holds every step against who
acts; the account comes from the token and from nothing that was sent.
"""

from __future__ import annotations

from datetime import timedelta

from govbus.request import RequestState
from govbus_console.api import shapes
from govbus_console.api.access import Right
from govbus_console.api.given import Cursor, GrantId, Limit, RequestId, TheCaller, TheServices
from govbus_console.api.pages import DEFAULT_LIMIT, last_shown, rest
from govbus_console.api.routing import Route, needs
from govbus_console.control.request_json import read_amendment, read_ask, show_happened, show_request
from govbus_console.control.shown import Shown


@needs(Right.ASK)
def draft_request(caller: TheCaller, services: TheServices, given: shapes.AskGiven) -> Shown:
    """Write a request down. Nobody is told yet."""
    return show_request(services.requests.draft(caller, read_ask(given.model_dump())))


@needs(Right.SEE_REQUESTS)
def requests(
    caller: TheCaller,
    services: TheServices,
    *,
    state: RequestState | None = None,
    to_review: bool = False,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Shown:
    """Requests that the caller may see: its department's and those for its resources, or all, by role."""
    found = services.requests.listing(
        caller, state=state, to_review=to_review, limit=limit + 1, after=last_shown(cursor, "requests")
    )
    return rest([show_request(one) for one in found], name="requests", key="id", limit=limit)


@needs(Right.SEE_REQUESTS)
def request(caller: TheCaller, services: TheServices, request_id: RequestId) -> Shown:
    """One request."""
    return show_request(services.requests.find(caller, request_id))


@needs(Right.SEE_REQUESTS)
def request_history(caller: TheCaller, services: TheServices, request_id: RequestId) -> Shown:
    """What happened to a request."""
    return {"items": [show_happened(one) for one in services.requests.history(caller, request_id)]}


@needs(Right.COUNT)
def count_request(
    caller: TheCaller,
    services: TheServices,
    request_id: RequestId,
    given: shapes.Empty,  # noqa: ARG001  so that a body is refused that says something
) -> Shown:
    """Count the rows that match, in steps; never values. Takes up to a minute."""
    return show_request(services.requests.count(caller, request_id))


@needs(Right.ASK)
def submit_request(
    caller: TheCaller,
    services: TheServices,
    request_id: RequestId,
    given: shapes.Empty,  # noqa: ARG001
) -> Shown:
    """Hand a request in. Where nobody has to decide, it is granted at once."""
    return show_request(services.requests.submit(caller, request_id))


@needs(Right.ASK)
def answer_request(
    caller: TheCaller, services: TheServices, request_id: RequestId, given: shapes.Said
) -> Shown:
    """Answer what the owner asked."""
    return show_request(services.requests.answer(caller, request_id, given.text))


@needs(Right.ASK)
def withdraw_request(
    caller: TheCaller, services: TheServices, request_id: RequestId, given: shapes.Note
) -> Shown:
    """Take a request back that has not been decided."""
    return show_request(services.requests.withdraw(caller, request_id, given.why))


@needs(Right.DECIDE)
def take_request(
    caller: TheCaller,
    services: TheServices,
    request_id: RequestId,
    given: shapes.Empty,  # noqa: ARG001
) -> Shown:
    """Begin the review."""
    return show_request(services.requests.take(caller, request_id))


@needs(Right.DECIDE)
def ask_about_request(
    caller: TheCaller, services: TheServices, request_id: RequestId, given: shapes.Said
) -> Shown:
    """Ask the requester for information."""
    return show_request(services.requests.ask(caller, request_id, given.text))


@needs(Right.DECIDE)
def reject_request(
    caller: TheCaller, services: TheServices, request_id: RequestId, given: shapes.Rejection
) -> Shown:
    """Say no, on a ground."""
    return show_request(services.requests.reject(caller, request_id, given.ground, given.why))


@needs(Right.DECIDE)
def approve_request(
    caller: TheCaller, services: TheServices, request_id: RequestId, given: shapes.Note
) -> Shown:
    """Say yes. With the last approval that is needed the grant comes into being."""
    return show_request(services.requests.approve(caller, request_id, given.why))


@needs(Right.DECIDE)
def review_emergency(
    caller: TheCaller, services: TheServices, request_id: RequestId, given: shapes.Review
) -> Shown:
    """Say afterwards whether an emergency grant was right."""
    reviewed = services.requests.review_emergency(caller, request_id, upheld=given.upheld, why=given.why)
    return show_request(reviewed)


@needs(Right.EMERGENCY)
def grant_emergency(caller: TheCaller, services: TheServices, given: shapes.EmergencyGiven) -> Shown:
    """Grant a narrow view for some hours, at once; the owner's steward reviews it afterwards."""
    granted = services.requests.emergency(
        caller, read_ask(given.model_dump()), requester=given.requester, why=given.why
    )
    return show_request(granted)


@needs(Right.AMEND_GRANTS)
def amend(caller: TheCaller, services: TheServices, grant_id: GrantId, given: shapes.AmendmentGiven) -> Shown:
    """Ask for another version of a grant, or make it where the owner's steward does."""
    change = read_amendment(given.model_dump())
    made = services.requests.amend(caller, grant_id, change, why=given.why, legal_basis=given.legal_basis)
    return show_request(made)


@needs(Right.ASK)
def renew(caller: TheCaller, services: TheServices, grant_id: GrantId, given: shapes.RenewalGiven) -> Shown:
    """Ask for another term of a grant that delivers."""
    term = timedelta(hours=given.term_hours)
    made = services.requests.renew(caller, grant_id, term, why=given.why, legal_basis=given.legal_basis)
    return show_request(made)


ROUTES: tuple[Route, ...] = (
    ("POST", "/requests", draft_request, shapes.RequestShown),
    ("GET", "/requests", requests, shapes.Page[shapes.RequestShown]),
    ("GET", "/requests/{request_id}", request, shapes.RequestShown),
    ("GET", "/requests/{request_id}/history", request_history, shapes.History),
    ("POST", "/requests/{request_id}/count", count_request, shapes.RequestShown),
    ("POST", "/requests/{request_id}/submit", submit_request, shapes.RequestShown),
    ("POST", "/requests/{request_id}/answer", answer_request, shapes.RequestShown),
    ("POST", "/requests/{request_id}/withdraw", withdraw_request, shapes.RequestShown),
    ("POST", "/requests/{request_id}/take", take_request, shapes.RequestShown),
    ("POST", "/requests/{request_id}/ask", ask_about_request, shapes.RequestShown),
    ("POST", "/requests/{request_id}/reject", reject_request, shapes.RequestShown),
    ("POST", "/requests/{request_id}/approve", approve_request, shapes.RequestShown),
    ("POST", "/requests/{request_id}/review", review_emergency, shapes.RequestShown),
    ("POST", "/emergencies", grant_emergency, shapes.RequestShown),
    ("POST", "/grants/{grant_id}/amend", amend, shapes.RequestShown),
    ("POST", "/grants/{grant_id}/renew", renew, shapes.RequestShown),
)
