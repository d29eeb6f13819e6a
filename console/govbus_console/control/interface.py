"""What a command asks of the control side, wherever that is.

Two things answer each of these: one with the store and the broker at hand
(:class:`~govbus_console.control.direct.DirectControl` and its like), and one that
asks the API with a token (:class:`~govbus_console.api.client.RemoteControl` and
its like). A command is written against this and does not know which one it has;
:mod:`govbus_console.connect` chooses.

Every answer is one of the shapes of :mod:`govbus_console.control.shown`, so both
print the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from govbus.grant import DataDuty
from govbus.request import Ground, RequestState
from govbus_console.control.request_shapes import Amendment, Ask, Happened, Request
from govbus_console.control.roles import Account
from govbus_console.control.shown import Shown

if TYPE_CHECKING:
    # A client needs neither the catalogue's reader nor the store to ask.
    from govbus_console.control.entries import Question
    from govbus_console.control.saved_plan import Basis
    from govbus_console.control.statement import Statement


class Control(Protocol):
    """The operations. Each may raise what the store, the broker and the registry raise.

    Raises:
        NotFoundError: what is named does not exist, or not for whoever asks.
        NotAllowedError: whoever asks may not do this.
        RefusedError: it cannot be done; nothing has changed.
        RetriableError: something is away; the same again, later.
    """

    def departments(self) -> Sequence[Shown]:
        """Everybody on the bus, by name."""
        ...

    def resources(self, *, text: str = "", share_type: str = "") -> Sequence[Shown]:
        """Catalogue entries by name; ``text`` stands in their name, title or fields."""
        ...

    def resource(self, ref: str) -> Shown:
        """One catalogue entry, ``owner.resource``."""
        ...

    def grants(
        self, *, owner: str = "", resource: str = "", subscriber: str = "", state: str = ""
    ) -> Sequence[Shown]:
        """The newest version of each grant, by id."""
        ...

    def grant(self, grant_id: str) -> Shown:
        """The newest version of one grant."""
        ...

    def grant_history(self, grant_id: str) -> Shown:
        """All versions of one grant, who decided, and what became of it (:mod:`.grant_history`)."""
        ...

    def suspend(self, grant_id: str, *, why: str) -> Shown:
        """Stop deliveries for the time being; returns when nothing more is delivered."""
        ...

    def resume(self, grant_id: str, *, why: str) -> Shown:
        """Let a suspended grant deliver again."""
        ...

    def revoke(
        self, grant_id: str, *, why: str, data: DataDuty | None = None, wait_seconds: float = 0.0
    ) -> Shown:
        """End a grant for good; returns when nothing more is delivered.

        The subscriber's receipt is waited for, but not longer than ``wait_seconds``.
        """
        ...

    def status(self) -> Shown:
        """What runs, and how far it has got."""
        ...


class Answers(Protocol):
    """What is answered about the catalogue, its grants and single rows. Nothing changes by asking.

    Raises what :class:`Control` raises.
    """

    def find(self, question: Question) -> Shown:
        """Catalogue entries: ``found``, and ``next``, the place to go on from."""
        ...

    def who_uses(self, what: str, *, ended: bool = False) -> Sequence[Shown]:
        """Who receives ``owner.resource`` or ``owner.resource.field``, under which grants."""
        ...

    def can(self, department: str, what: str) -> Shown:
        """Whether a department may receive it: ``answer``, ``reason``, and the grant that decides."""
        ...

    def explain(self, record: str, to: str, *, at: datetime | None = None) -> Shown:
        """Why a row reached a department or did not; ``at`` None: as it is now."""
        ...

    def who_received(self, record: str) -> Shown:
        """Which departments received a row, or may have."""
        ...


class Receipts(Protocol):
    """What departments have answered for grants that ended, and the keys that they answer with.

    Raises what :class:`Control` raises.
    """

    def receipts(self, *, department: str = "") -> Sequence[Shown]:
        """Collect what has come, and show every ended grant with its answer, by grant."""
        ...

    def key(self, department: str) -> Shown:
        """The public key that is ``pinned`` for a department, in hexadecimal; None: none yet."""
        ...

    def enrol(self, department: str, public_key: str, *, why: str) -> Shown:
        """Pin a key that came another way; answers as :meth:`key` does."""
        ...


class Catalogue(Protocol):
    """Planning and applying what a catalogue file states.

    Raises what :class:`Control` raises, and CatalogueError where the file says what cannot be.
    """

    def plan(self, stated: Statement, *, count_seconds: int) -> tuple[Shown, Basis]:
        """What applying would change, and what that answer rests on."""
        ...

    def apply(self, stated: Statement, *, basis: Basis | None, why: str, count_seconds: int) -> Shown:
        """Do it; with a ``basis`` only if that is still so."""
        ...


class RequestControl(Protocol):
    """What is done with requests; :class:`~govbus_console.control.requests.Requests` says what each means.

    Its other implementation is :class:`~govbus_console.api.request_client.RemoteRequests`.
    """

    def draft(self, actor: Account, ask: Ask) -> Request:
        """Write a request down."""
        ...

    def count(self, actor: Account, request_id: str) -> Request:
        """Count the rows that match, in steps."""
        ...

    def submit(self, actor: Account, request_id: str) -> Request:
        """Hand a request in."""
        ...

    def answer(self, actor: Account, request_id: str, text: str) -> Request:
        """Answer what the owner asked."""
        ...

    def withdraw(self, actor: Account, request_id: str, why: str = "") -> Request:
        """Take a request back."""
        ...

    def take(self, actor: Account, request_id: str) -> Request:
        """Begin the review."""
        ...

    def ask(self, actor: Account, request_id: str, question: str) -> Request:
        """Ask the requester for information."""
        ...

    def reject(self, actor: Account, request_id: str, ground: Ground, why: str = "") -> Request:
        """Say no, on a ground."""
        ...

    def approve(self, actor: Account, request_id: str, why: str = "") -> Request:
        """Say yes."""
        ...

    def amend(
        self, actor: Account, grant_id: str, change: Amendment, *, why: str, legal_basis: str = ""
    ) -> Request:
        """Ask for another version of a grant, or make it."""
        ...

    def renew(
        self, actor: Account, grant_id: str, term: timedelta, *, why: str, legal_basis: str = ""
    ) -> Request:
        """Ask for another term of a grant."""
        ...

    def emergency(self, actor: Account, ask: Ask, *, requester: str, why: str) -> Request:
        """Grant a narrow view for some hours, at once."""
        ...

    def review_emergency(self, actor: Account, request_id: str, *, upheld: bool, why: str) -> Request:
        """Say afterwards whether an emergency grant was right."""
        ...

    def find(self, actor: Account, request_id: str) -> Request:
        """One request."""
        ...

    def history(self, actor: Account, request_id: str) -> Sequence[Happened]:
        """What happened to a request, oldest first."""
        ...

    def listing(
        self,
        actor: Account,
        *,
        state: RequestState | None = None,
        to_review: bool = False,
        limit: int = 100,
        after: str = "",
    ) -> Sequence[Request]:
        """Requests that an account may see, oldest first."""
        ...
