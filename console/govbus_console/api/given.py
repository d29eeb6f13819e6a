"""What endpoints are given: the services, the caller, and parameters of a known form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from govbus_console.api import shapes
from govbus_console.api.desk import Desk
from govbus_console.api.pages import LARGEST_LIMIT
from govbus_console.api.routing import caller, token
from govbus_console.control.interface import Answers, Catalogue, Control, Receipts
from govbus_console.control.licence import Licence
from govbus_console.control.requests import Requests
from govbus_console.control.roles import Account
from govbus_console.control.store import ControlStore
from govbus_console.control.tokens import Token

Limit = Annotated[int, Query(ge=1, le=LARGEST_LIMIT, description="At most so many entries.")]
Cursor = Annotated[
    str | None, Query(max_length=400, description="`next` of the page before; absent: the first page.")
]
Ref = Annotated[str, Path(max_length=161, pattern=shapes.REF, description="`owner.resource`")]
GrantId = Annotated[str, Path(max_length=80, pattern=shapes.NAME, description="Id of the grant.")]
TokenId = Annotated[str, Path(max_length=16, pattern=r"^[0-9a-f]+$", description="Id of the token.")]
RequestId = Annotated[str, Path(max_length=20, pattern=r"^r-[0-9]+$", description="Id of the request.")]
Name = Annotated[str | None, Query(max_length=80, pattern=shapes.NAME)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the endpoints work on."""

    store: ControlStore
    """For tokens."""

    control: Callable[[str], Control]
    """The control side for what is asked of grants and the bus; its argument is who stands in the audit."""

    answers: Callable[[], Answers]
    receipts: Callable[[str], Receipts]
    """Its argument is who stands in the audit."""

    catalogue: Callable[[str, Licence], Catalogue]
    """Its arguments are who stands in the audit, and what that may state and change."""

    requests: Requests
    """Requests and what is decided about them; it asks itself who may."""

    clock: Callable[[], datetime]


def _services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


TheServices = Annotated[Services, Depends(_services)]
TheToken = Annotated[Token, Depends(token)]


def _desk(request: Request, services: TheServices) -> Desk:
    account = caller(request)
    return Desk(account, services.control(account.name))


TheDesk = Annotated[Desk, Depends(_desk)]
TheCaller = Annotated[Account, Depends(caller)]
