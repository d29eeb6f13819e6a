"""Endpoints over what is answered: catalogue search, who receives what, single rows, receipts.

A row is named in a body, never in an address: its key may name a person, and addresses
end up in the logs of proxies.
"""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from govbus.catalogue import Classification, DepartmentLevel, ShareType
from govbus.errors import RefusedError
from govbus_console.api import answer_shapes, shapes
from govbus_console.api.access import Right
from govbus_console.api.answer_desk import AnswerDesk
from govbus_console.api.given import Cursor, Limit, Name, TheCaller, TheDesk, TheServices
from govbus_console.api.pages import DEFAULT_LIMIT, page
from govbus_console.api.receipt_desk import ReceiptDesk
from govbus_console.api.routing import Route, caller, needs
from govbus_console.control.entries import LARGEST_PAGE, Question
from govbus_console.control.shown import Shown

_Department = Annotated[str, Path(max_length=80, pattern=shapes.NAME, description="A department.")]
_What = Annotated[
    str,
    Path(
        max_length=300, pattern=answer_shapes.WHAT, description="`owner.resource` or `owner.resource.field`"
    ),
]
_Words = Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$")]


def _answer_desk(request: Request, services: TheServices, desk: TheDesk) -> AnswerDesk:
    return AnswerDesk(caller(request), services.answers(), desk)


def _receipt_desk(services: TheServices, account: TheCaller) -> ReceiptDesk:
    return ReceiptDesk(account, services.receipts(account.name))


TheAnswers = Annotated[AnswerDesk, Depends(_answer_desk)]
TheReceipts = Annotated[ReceiptDesk, Depends(_receipt_desk)]


@needs(Right.SEE_CATALOGUE)
def find(
    answers: TheAnswers,
    *,
    text: _Words = "",
    owner: Name = None,
    share_type: ShareType | None = None,
    classification: Classification | None = None,
    category: Annotated[list[_Words] | None, Query(max_length=4, description="From the top.")] = None,
    level: DepartmentLevel | None = None,
    public: Annotated[bool | None, Query(alias="open", description="Open to the public, or not.")] = None,
    code: _Words = "",
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="At most so many entries.")] = 20,
    after: Annotated[int, Query(ge=0, le=2**53, description="`next` of the page before.")] = 0,
) -> Shown:
    """Look through the catalogue by words, owner, category and more, in the order in which it grew."""
    try:
        question = Question(
            text=text,
            owner=owner or "",
            share_type=share_type,
            classification=classification,
            category=tuple(category or ()),
            level=level,
            open=public,
            code=code,
            limit=limit,
            after=after,
        )
    except ValueError as error:
        raise RefusedError(str(error)) from None
    return answers.find(question)


@needs(Right.SEE_GRANTS)
def who_uses(
    answers: TheAnswers,
    what: _What,
    *,
    ended: Annotated[bool, Query(description="Also grants under which nothing is delivered now.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Shown:
    """Who receives a resource, or a field of it, as far as the caller may see the grants."""
    found = sorted(answers.who_uses(what, ended=ended), key=lambda use: str(use["grant"]))
    return page(found, name="uses", key="grant", limit=limit, cursor=cursor)


@needs(Right.SEE_GRANTS)
def can(answers: TheAnswers, department: _Department, what: _What) -> Shown:
    """Whether a department may receive a resource, or a field of it, and by which rule."""
    return answers.can(department, what)


@needs(Right.EXPLAIN)
def explain(answers: TheAnswers, services: TheServices, given: answer_shapes.ExplainGiven) -> Shown:
    """Say gate by gate why a row reached a department or did not. Changes nothing."""
    at = None if given.at is None else given.at.astimezone(UTC)
    if at is not None and at > services.clock():
        raise RefusedError("at: lies ahead; what was, or is now, can be explained")
    return answers.explain(given.record, given.to, at=at)


@needs(Right.EXPLAIN)
def who_received(answers: TheAnswers, given: answer_shapes.RowGiven) -> Shown:
    """Name the departments that received a row, under which agreement. Changes nothing."""
    return answers.who_received(given.record)


@needs(Right.SEE_GRANTS)
def receipts(
    desk: TheReceipts, *, department: Name = None, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Shown:
    """Ended grants, and what their subscribers have answered; what has come meanwhile is collected first."""
    found = desk.receipts(department=department or "")
    return page(found, name="receipts", key="grant", limit=limit, cursor=cursor)


@needs(Right.SEE_GRANTS)
def receipt_key(desk: TheReceipts, department: _Department) -> Shown:
    """The key that a department's receipts are checked with."""
    return desk.key(department)


@needs(Right.ENROL_KEYS)
def enrol_receipt_key(desk: TheReceipts, department: _Department, given: answer_shapes.KeyGiven) -> Shown:
    """Pin the key that a department has given to the operator itself."""
    return desk.enrol(department, given.key, why=given.why)


ROUTES: tuple[Route, ...] = (
    ("GET", "/find", find, answer_shapes.FoundPage),
    ("GET", "/uses/{what}", who_uses, shapes.Page[answer_shapes.UseShown]),
    ("GET", "/departments/{department}/can/{what}", can, answer_shapes.CanShown),
    ("POST", "/explain", explain, answer_shapes.ExplanationShown),
    ("POST", "/who-received", who_received, answer_shapes.ReceptionsShown),
    ("GET", "/receipts", receipts, shapes.Page[answer_shapes.ReceiptShown]),
    ("GET", "/departments/{department}/receipt-key", receipt_key, answer_shapes.KeyShown),
    ("POST", "/departments/{department}/receipt-key", enrol_receipt_key, answer_shapes.KeyShown),
)
