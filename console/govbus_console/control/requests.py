"""Requests from draft to grant: what each may do with them, and what follows. Does I/O.

Every function of :class:`Requests` takes who acts. An account is held against
the store: it exists, is not disabled, and acts for no other department and in no
other role than the store says. Who may make which step is the table's
(:data:`govbus.request.TRANSITIONS`); how an account stands to a request is worked
out here, and the database's guards stand behind both.

1. A decision and what it leads to are two steps. ``approved`` is committed first;
   then the grant version comes into being, in one transaction with
   ``provisioned``. A crash in between leaves a request that whoever keeps the bus
   provides later (:meth:`Requests.provide_pending`).
2. What was decided is checked again when the version is made: a contract or a
   share type that has changed since refuses it.
3. A count of matching rows is told in steps, never exactly: "how many are called
   so, in this street" must not become a way to ask about one person.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from govbus.catalogue import ShareType
from govbus.errors import GrantRefusedError, NotAllowedError, NotFoundError, RefusedError
from govbus.grant import DataDuty, FieldRule, Grant, GrantState
from govbus.request import (
    Action,
    Ground,
    Party,
    RequestKind,
    RequestState,
    approval_action,
    approvers_needed,
    transition,
    wider,
)
from govbus.topics import is_name
from govbus.transform import parse_transform
from govbus_console.control.apply import StalePlanError, provide
from govbus_console.control.bus import Bus
from govbus_console.control.plan import check_against
from govbus_console.control.request_access import has_role, held, may_see, parties_of, subscriber_of
from govbus_console.control.request_shapes import (
    HOUR,
    Amendment,
    Ask,
    Happened,
    Request,
    amended,
    approvers,
    checked_term,
    normalised,
    read_request,
    spelled,
)
from govbus_console.control.request_steps import Clocks, move, note, read_calendar
from govbus_console.control.request_tables import (
    AccountRow,
    ApprovalRow,
    RequestEventRow,
    RequestRow,
)
from govbus_console.control.roles import Account, Role
from govbus_console.control.rowcount import Counting
from govbus_console.control.store import (
    ControlStore,
    GrantRow,
    Snapshot,
    StoredResource,
    Writing,
    stored_grant,
)
from govbus_console.settings import RequestSettings

_log = logging.getLogger(__name__)
_COUNT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Everything that is done with requests."""

    store: ControlStore
    bus: Callable[[], AbstractContextManager[Bus]]
    """Reaches the broker and the registry when a step needs them."""

    rules: RequestSettings = field(default_factory=RequestSettings)
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    # -- asking ------------------------------------------------------------------------------------

    def draft(self, actor: Account, ask: Ask) -> Request:
        """Write a request down. Nobody is told yet.

        Raises:
            NotFoundError: there is no such resource.
            NotAllowedError: the account is no subscriber's.
            GrantRefusedError, FilterRefusedError, TransformRefusedError: no such grant could ever be made.
        """
        with self._acting(actor, why="drafted") as (writing, account):
            department = subscriber_of(account)
            row = self._new_row(writing, account, RequestKind.NEW, department, ask)
            return read_request(writing.session, row)

    def count(self, actor: Account, request_id: str) -> Request:
        """Count the rows that match, in steps, and write the number down.

        The number stays unknown when the bus does not answer in a minute. Every count is in the history.

        Raises:
            NotFoundError, NotAllowedError: not this account's to ask.
        """
        with self.store.reading() as session:
            account = held(session, actor)
            row = self._row(session, account, request_id)
            if not parties_of(row, account, ()) & {Party.REQUESTER, Party.STEWARD}:
                raise NotAllowedError(f"request {request_id} is for its requester and its owner to count")
            ref, rows = f"{row.owner}.{row.resource}", row.rows
        stored = _stored(self.store.snapshot(), ref)
        with self.bus() as bus:
            exact = Counting(bus.broker, bus.registry, seconds=_COUNT_SECONDS).count(stored, rows)
        step = self.rules.count_step
        with self._acting(actor, why="counted") as (writing, account):
            row = self._row(writing.session, account, request_id)
            if exact is not None:
                row.matching = exact // step * step
                row.counted_at = writing.now
            note(
                writing.session,
                row,
                "count",
                row.state,
                who=account.name,
                said="unknown" if exact is None else f"{row.matching} or more",
                now=writing.now,
            )
            return read_request(writing.session, row)

    def submit(self, actor: Account, request_id: str) -> Request:
        """Hand a request in. Where nobody has to decide, it is granted at once.

        Raises:
            TransitionRefusedError: it is no draft, or not this account's.
            GrantRefusedError, FilterRefusedError, TransformRefusedError: the permission model forbids it.
            BrokerUnavailableError, RegistryUnavailableError: granted on record, and provided later.
        """
        with self._acting(actor, why="submitted") as (writing, account):
            row = self._row(writing.session, account, request_id)
            self._submit(writing, row, account)
        return self._provided(actor, request_id)

    def answer(self, actor: Account, request_id: str, text: str) -> Request:
        """Answer what the owner asked; its clock goes on."""
        return self._step(actor, request_id, Action.ANSWER, _said(text, "an answer"))

    def withdraw(self, actor: Account, request_id: str, why: str = "") -> Request:
        """Take a request back that has not been decided."""
        return self._step(actor, request_id, Action.WITHDRAW, why)

    # -- deciding ----------------------------------------------------------------------------------

    def take(self, actor: Account, request_id: str) -> Request:
        """Begin the review."""
        return self._step(actor, request_id, Action.TAKE, "")

    def ask(self, actor: Account, request_id: str, question: str) -> Request:
        """Ask the requester for information."""
        return self._step(actor, request_id, Action.ASK, _said(question, "a question"))

    def reject(self, actor: Account, request_id: str, ground: Ground, why: str = "") -> Request:
        """Say no, on a ground."""
        return self._step(actor, request_id, Action.REJECT, why, {"ground": ground.value})

    def approve(self, actor: Account, request_id: str, why: str = "") -> Request:
        """Say yes. With the last approval that is needed the grant version comes into being.

        Raises:
            TransitionRefusedError: not in review, or this account may not approve it, or has already.
            GrantRefusedError, FilterRefusedError, TransformRefusedError: it cannot be granted any more
                as it was asked; reject it.
            BrokerUnavailableError, RegistryUnavailableError: approved on record, and provided later.
        """
        with self._acting(actor, why=why or "approved") as (writing, account):
            session = writing.session
            row = self._row(session, account, request_id)
            given = approvers(session, row)
            if account.name in given:
                raise NotAllowedError(f"{account.name} has approved request {row.id} already")
            parties = parties_of(row, account, given)
            action = approval_action(max(row.approvals_needed, 1), len(given))
            transition(RequestState(row.state), action, parties)
            known = writing.snapshot()
            check_against(self._grant(row, known, session, writing.now), _resource(known, row))
            session.add(ApprovalRow(request=row.id, approver=account.name, at=writing.now, note=why))
            session.flush()
            move(
                session,
                row,
                action,
                parties,
                who=account.name,
                said=why,
                now=writing.now,
                clocks=self._clocks(session),
            )
        return self._provided(actor, request_id)

    # -- existing grants ---------------------------------------------------------------------------

    def amend(
        self, actor: Account, grant_id: str, change: Amendment, *, why: str, legal_basis: str = ""
    ) -> Request:
        """Ask for another version of a grant, or make it where the owner's steward does.

        A steward's own amendment is the owner's decision; where it lets through more of sensitive or
        core fields than before, a second steward approves it. A subscriber's is reviewed as a new request is.

        Raises:
            NotFoundError: there is no such grant, or not for this account.
            GrantRefusedError, FilterRefusedError, TransformRefusedError: it cannot become so.
        """
        with self._acting(actor, why=why) as (writing, account):
            known = writing.snapshot()
            old = self._grant_for(known, account, grant_id)
            if not has_role(account, Role.STEWARD, old.owner) and not has_role(
                account, Role.SUBSCRIBER, old.subscriber
            ):
                raise NotAllowedError(f"grant {grant_id} is for its owner or its subscriber to amend")
            row = self._new_row(
                writing,
                account,
                RequestKind.AMEND,
                old.subscriber,
                amended(old, change, legal_basis or _legal_basis(writing.session, old.id) or why),
                old=old,
                why=_said(why, "a reason"),
            )
            self._submit(writing, row, account)
            made = row.id
        return self._provided(actor, made)

    def renew(
        self, actor: Account, grant_id: str, term: timedelta, *, why: str, legal_basis: str = ""
    ) -> Request:
        """Ask for another term of a grant that delivers; it is approved as the first one was.

        Raises:
            NotFoundError: there is no such grant, or not for this account.
            GrantRefusedError: the grant has ended, or was made in an emergency.
        """
        with self._acting(actor, why=why) as (writing, account):
            old = self._grant_for(writing.snapshot(), account, grant_id)
            if not has_role(account, Role.SUBSCRIBER, old.subscriber):
                raise NotAllowedError(f"grant {grant_id} is for its subscriber to renew")
            ask = amended(
                old,
                Amendment(term=term),
                legal_basis or _legal_basis(writing.session, old.id) or why,
            )
            reason = _said(why, "a reason")
            row = self._new_row(writing, account, RequestKind.RENEW, old.subscriber, ask, old=old, why=reason)
            self._submit(writing, row, account)
            made = row.id
        return self._provided(actor, made)

    # -- emergencies -------------------------------------------------------------------------------

    def emergency(self, actor: Account, ask: Ask, *, requester: str, why: str) -> Request:
        """Grant a narrow view for some hours, at once; the owner's steward reviews it afterwards.

        Args:
            actor: an operator, or a steward of the owner; never the requester, nor of its department.
            ask: names fields and a row filter; its term is hours, at most ``emergency_hours``.
            requester: the subscriber's account that asked, by whatever means.
            why: what the emergency is.

        Raises:
            NotAllowedError: not for this account to grant; or the last one has not been reviewed yet.
            GrantRefusedError, FilterRefusedError, TransformRefusedError: not narrow, too long, or not
                allowed by the permission model.
            BrokerUnavailableError, RegistryUnavailableError: granted on record, and provided later.
        """
        _said(why, "a reason")
        if ask.rows is None:
            raise GrantRefusedError("an emergency grant is narrow: name its rows by a row filter")
        if ask.term > timedelta(hours=self.rules.emergency_hours):
            raise GrantRefusedError(f"an emergency grant lasts {self.rules.emergency_hours} hours at most")
        with self._acting(actor, why=why) as (writing, account):
            session = writing.session
            asking = session.get(AccountRow, requester)
            if asking is None or asking.disabled or asking.department is None or not asking.subscriber:
                raise NotFoundError(f"there is no subscriber's account {requester!r} to grant this to")
            owner = ask.resource.partition(".")[0]
            if not (Role.OPERATOR in account.roles or has_role(account, Role.STEWARD, owner)) or (
                account.department == asking.department
            ):
                raise NotAllowedError(
                    "an emergency is granted by an operator or a steward of the owner, not of the subscriber"
                )
            due = session.scalar(
                select(RequestRow.id).where(
                    RequestRow.review == "due",
                    RequestRow.subscriber == asking.department,
                    RequestRow.owner == owner,
                    RequestRow.resource == ask.resource.partition(".")[2],
                )
            )
            if due is not None:
                raise NotAllowedError(
                    f"request {due} has not been reviewed yet; until then {asking.department} gets no other "
                    f"emergency grant on {ask.resource}"
                )
            by = Account(name=asking.name, department=asking.department, roles=frozenset({Role.SUBSCRIBER}))
            row = self._new_row(writing, by, RequestKind.EMERGENCY, asking.department, ask)
            party = Party.OPERATOR if Role.OPERATOR in account.roles else Party.STEWARD
            row.submitted_at = writing.now
            move(
                session,
                row,
                Action.BREAK_GLASS,
                {party},
                who=account.name,
                said=why,
                now=writing.now,
                clocks=self._clocks(session),
                changes={"granted_by": account.name},
            )
            made = row.id
        return self._provided(actor, made)

    def review_emergency(self, actor: Account, request_id: str, *, upheld: bool, why: str) -> Request:
        """Say afterwards whether an emergency grant was right. Revoke the grant to end it sooner.

        Raises:
            NotAllowedError: not for this account: the owner's steward reviews, and never who granted it.
            RefusedError: there is no review to make.
        """
        _said(why, "a reason")
        with self._acting(actor, why=why) as (writing, account):
            row = self._row(writing.session, account, request_id)
            if row.review != "due":
                raise RefusedError(f"request {request_id} has no review to make")
            if Party.STEWARD not in parties_of(row, account, ()) or row.granted_by == account.name:
                raise NotAllowedError(
                    f"request {request_id} is reviewed by a steward of the owner who has not granted it"
                )
            row.review, row.reviewed_by, row.upheld = "done", account.name, upheld
            note(
                writing.session,
                row,
                "review",
                row.state,
                who=account.name,
                said=f"{'upheld' if upheld else 'objected'}: {why}",
                now=writing.now,
            )
            writing.session.flush()
            return read_request(writing.session, row)

    # -- looking -----------------------------------------------------------------------------------

    def find(self, actor: Account, request_id: str) -> Request:
        """One request. NotFoundError when there is none that this account may see."""
        with self.store.reading() as session:
            account = held(session, actor)
            return read_request(session, self._row(session, account, request_id))

    def history(self, actor: Account, request_id: str) -> Sequence[Happened]:
        """What happened to a request, oldest first."""
        with self.store.reading() as session:
            row = self._row(session, held(session, actor), request_id)
            events = session.scalars(
                select(RequestEventRow).where(RequestEventRow.request == row.id).order_by(RequestEventRow.seq)
            )
            return [
                Happened(
                    at=event.at,
                    who=event.who,
                    action=event.action,
                    before=event.before,
                    after=event.after,
                    said=event.said,
                )
                for event in events
            ]

    def listing(
        self,
        actor: Account,
        *,
        state: RequestState | None = None,
        to_review: bool = False,
        limit: int = 100,
        after: str = "",
    ) -> Sequence[Request]:
        """Requests that this account may see, oldest first.

        Args:
            actor: who asks.
            state: only those in it.
            to_review: only those that wait for this account's department as the owner.
            limit: at most so many.
            after: go on behind the request of this id.
        """
        with self.store.reading() as session:
            account = held(session, actor)
            length = func.length(RequestRow.id)
            query = select(RequestRow).order_by(length, RequestRow.id).limit(limit)
            if after:
                behind = and_(length == len(after), RequestRow.id > after)
                query = query.where(or_(length > len(after), behind))
            if not account.roles & {Role.OPERATOR, Role.AUDITOR}:
                query = query.where(
                    or_(RequestRow.subscriber == account.department, RequestRow.owner == account.department)
                )
            if state is not None:
                query = query.where(RequestRow.state == state.value)
            if to_review:
                waiting = [RequestState.SUBMITTED.value, RequestState.IN_REVIEW.value]
                query = query.where(
                    RequestRow.owner == account.department,
                    or_(RequestRow.state.in_(waiting), RequestRow.review == "due"),
                )
            return [read_request(session, row) for row in session.scalars(query).all()]

    # -- by itself ---------------------------------------------------------------------------------

    def provide_pending(self, *, before: datetime) -> Sequence[str]:
        """Make the grants of requests that were approved before a moment; return the requests' ids.

        What the catalogue does not allow any more is left for its owner to reject.
        """
        with self.store.reading() as session:
            due = session.scalars(
                select(RequestRow.id).where(
                    RequestRow.state == RequestState.APPROVED.value, RequestRow.changed_at < before
                )
            ).all()
        done = []
        for request_id in due:
            try:
                if self._provide(request_id):
                    done.append(request_id)
            except RefusedError as error:
                _log.warning("an approved request cannot be provided", extra={"code": error.code})
        return done

    # -- inside ------------------------------------------------------------------------------------

    def _acting(self, actor: Account, *, why: str) -> AbstractContextManager[tuple[Writing, Account]]:
        return _acting(self.store, actor, why=why, now=_to_the_millisecond(self.clock()))

    def _clocks(self, session: Session) -> Clocks:
        return Clocks(rules=self.rules, calendar=read_calendar(session, self.rules))

    def _step(
        self,
        actor: Account,
        request_id: str,
        action: Action,
        said: str,
        changes: Mapping[str, Any] | None = None,
    ) -> Request:
        with self._acting(actor, why=said or action.value) as (writing, account):
            row = self._row(writing.session, account, request_id)
            given = approvers(writing.session, row)
            move(
                writing.session,
                row,
                action,
                parties_of(row, account, given),
                who=account.name,
                said=said,
                now=writing.now,
                clocks=self._clocks(writing.session),
                changes=changes,
            )
            return read_request(writing.session, row)

    def _new_row(
        self,
        writing: Writing,
        account: Account,
        kind: RequestKind,
        subscriber: str,
        ask: Ask,
        *,
        old: Grant | None = None,
        why: str = "",
    ) -> RequestRow:
        """Write a draft, after holding it against what could be granted.

        Its history begins with the purpose or, where that is the grant's already, with ``why``.
        """
        known = writing.snapshot()
        stored = known.resources.get(ask.resource)
        if stored is None:
            raise NotFoundError(f"there is no resource {ask.resource!r}")
        if kind is not RequestKind.AMEND:
            checked_term(ask.term)
        owner, _, resource = ask.resource.partition(".")
        if subscriber == owner:
            raise GrantRefusedError("the owner needs no grant of its own resource")
        row = RequestRow(
            id=_next_id(writing.session),
            kind=kind.value,
            state=RequestState.DRAFT.value,
            requester=account.name,
            subscriber=subscriber,
            owner=owner,
            resource=resource,
            fields=spelled(ask.fields, stored),
            rows=normalised(ask.rows, stored),
            purpose=_said(ask.purpose, "a purpose"),
            legal_basis=_said(ask.legal_basis, "a legal basis"),
            term_hours=ask.term // HOUR,
            data_on_end=ask.data_on_end.value,
            quota_records_per_day=ask.quota_records_per_day,
            quota_keys_per_day=ask.quota_keys_per_day,
            grant_id=None if old is None else old.id,
            grant_version=None if old is None else old.version,
            share_type=stored.resource.share_type.value,
            approvals_needed=0,
            made_at=writing.now,
            changed_at=writing.now,
        )
        check_against(self._grant(row, known, writing.session, writing.now), stored)
        writing.session.add(row)
        writing.session.flush()
        said = why or ask.purpose
        note(writing.session, row, "draft", row.state, who=account.name, said=said, now=writing.now)
        writing.session.flush()
        return row

    def _submit(self, writing: Writing, row: RequestRow, account: Account) -> None:
        session, now = writing.session, writing.now
        known = writing.snapshot()
        stored = _resource(known, row)
        grant = self._grant(row, known, session, now)
        check_against(grant, stored)
        needed = self._needed(session, row, grant, stored)
        move(
            session,
            row,
            Action.SUBMIT,
            parties_of(row, account, ()),
            who=account.name,
            said=row.purpose,
            now=now,
            clocks=self._clocks(session),
            changes={
                "share_type": stored.resource.share_type.value,
                "approvals_needed": needed,
                "submitted_at": now,
            },
        )
        if needed == 0:
            why = "unconditional" if stored.resource.share_type is ShareType.UNCONDITIONAL else "the owner's"
            move(
                session,
                row,
                Action.OPEN,
                {Party.BUS},
                who="govbus",
                said=f"nobody has to decide: {why}",
                now=now,
                clocks=self._clocks(session),
            )

    def _needed(self, session: Session, row: RequestRow, grant: Grant, stored: StoredResource) -> int:
        """How many must approve besides whoever asked."""
        if stored.resource.share_type is ShareType.UNCONDITIONAL or row.kind == RequestKind.EMERGENCY:
            return 0
        if row.kind == RequestKind.AMEND:
            base = _version(session, str(row.grant_id), int(row.grant_version or 0))
            people = approvers_needed(grant, stored.contract, before=base)
            # A steward who proposes has agreed; a first of two is still one too few.
            by_owner = session.get_one(AccountRow, row.requester).department == row.owner
            return people - 1 if by_owner else people
        return approvers_needed(grant, stored.contract)

    def _grant(self, row: RequestRow, known: Snapshot, session: Session, now: datetime) -> Grant:
        """The grant version that a request comes to, if it is made at ``now``."""
        rules = tuple(
            FieldRule(name=rule["name"], transform=parse_transform(rule["transform"])) for rule in row.fields
        )
        kind, term = RequestKind(row.kind), timedelta(hours=row.term_hours)
        if kind in (RequestKind.NEW, RequestKind.EMERGENCY):
            return Grant(
                id=_unused_id(known, row),
                version=1,
                state=GrantState.ACTIVE,
                subscriber=row.subscriber,
                owner=row.owner,
                resource=row.resource,
                fields=rules,
                rows=row.rows,
                purpose=row.purpose,
                starts_at=now,
                expires_at=now + term,
                data_on_end=DataDuty(row.data_on_end),
                quota_records_per_day=row.quota_records_per_day,
                quota_keys_per_day=row.quota_keys_per_day,
            )
        old = known.grants[str(row.grant_id)].grant
        base = _version(session, old.id, int(row.grant_version or 0))
        if old.state not in (GrantState.ACTIVE, GrantState.SUSPENDED) or old.expires_at <= now:
            raise GrantRefusedError(f"grant {old.id} has ended; ask for a new one")
        if replace(old, version=base.version, state=base.state) != base:
            raise GrantRefusedError(f"grant {old.id} has become another since this was asked; ask again")
        new = replace(
            old,
            version=old.version + 1,
            fields=rules,
            rows=row.rows,
            expires_at=now + term if term else old.expires_at,
            data_on_end=DataDuty(row.data_on_end),
            quota_records_per_day=row.quota_records_per_day,
            quota_keys_per_day=row.quota_keys_per_day,
        )
        if _of_emergency(session, old.id):
            if kind is RequestKind.RENEW:
                raise GrantRefusedError(f"grant {old.id} was made in an emergency and is not renewed")
            if wider(old, new):
                raise GrantRefusedError(f"grant {old.id} was made in an emergency and does not become wider")
        if kind is RequestKind.RENEW and new.expires_at <= old.expires_at:
            raise GrantRefusedError(f"grant {old.id} lasts longer than that already")
        return new

    def _provided(self, actor: Account, request_id: str) -> Request:
        """The request, its grant made where it has just been approved."""
        seen = self.find(actor, request_id)
        if seen.state is RequestState.APPROVED:
            self._provide(request_id)
            seen = self.find(actor, request_id)
        return seen

    def _provide(self, request_id: str) -> bool:
        """Make the grant version of an approved request; False when somebody else has."""
        now = _to_the_millisecond(self.clock())
        with self.store.reading() as session:
            row = session.get_one(RequestRow, request_id)
            if row.state != RequestState.APPROVED:
                return False
            what = f"request {row.id}: {_begun_with(session, row)}"

        def make(known: Snapshot) -> Grant:
            with self.store.reading() as session:
                row = session.get_one(RequestRow, request_id)
                stored = _resource(known, row)
                grant = self._grant(row, known, session, now)
                if self._needed(session, row, grant, stored) > row.approvals_needed:
                    raise GrantRefusedError(
                        f"request {row.id} needs more approvals than it was given, because the catalogue "
                        "has changed since; reject it and ask again"
                    )
                return grant

        def also(writing: Writing, grant: Grant) -> None:
            row = writing.session.get_one(RequestRow, request_id)
            if row.state != RequestState.APPROVED:
                raise StalePlanError(f"request {request_id} has been provided by somebody else")
            move(
                writing.session,
                row,
                Action.PROVISION,
                {Party.BUS},
                who="govbus",
                said=f"grant {grant.id}, version {grant.version}",
                now=now,
                changes={"grant_id": grant.id, "grant_version": grant.version},
            )

        try:
            with self.bus() as bus:
                provide(make, self.store, bus, who="govbus", why=what, now=now, also=also)
        except StalePlanError:
            with self.store.reading() as session:
                if session.get_one(RequestRow, request_id).state == RequestState.APPROVED:
                    raise
            return False
        return True

    def _row(self, session: Session, account: Account, request_id: str) -> RequestRow:
        row = session.get(RequestRow, request_id)
        if row is None or not may_see(row, account):
            raise NotFoundError(
                f"there is no request {request_id!r} of yours; govbus request list shows them"
            )
        return row

    def _grant_for(self, known: Snapshot, account: Account, grant_id: str) -> Grant:
        stored = known.grants.get(grant_id)
        if stored is None or not (
            account.department in (stored.grant.owner, stored.grant.subscriber)
            or account.roles & {Role.OPERATOR, Role.AUDITOR}
        ):
            raise NotFoundError(f"there is no grant {grant_id!r} of yours")
        return stored.grant


@contextmanager
def _acting(
    store: ControlStore, actor: Account, *, why: str, now: datetime
) -> Iterator[tuple[Writing, Account]]:
    """One write transaction, for an account as the store has it."""
    with store.writing(who=actor.name, why=why, now=now) as writing:
        yield writing, held(writing.session, actor)


def _resource(known: Snapshot, row: RequestRow) -> StoredResource:
    return _stored(known, f"{row.owner}.{row.resource}")


def _stored(known: Snapshot, ref: str) -> StoredResource:
    stored = known.resources.get(ref)
    if stored is None:
        # A draft outlives its resource: nobody but the requester can take it back.
        raise GrantRefusedError(f"resource {ref} is not in the catalogue any more; withdraw the request")
    return stored


def _next_id(session: Session) -> str:
    # Under the write lock, and requests are never taken out.
    return f"r-{(session.scalar(select(func.count()).select_from(RequestRow)) or 0) + 1}"


def _unused_id(known: Snapshot, row: RequestRow) -> str:
    """Name a grant after what it shares and with whom; it is also the landing table's name."""
    stem = f"{row.resource}-for-{row.subscriber}"
    number = 1
    name = stem
    while name in known.grants:
        number += 1
        name = f"{stem}-{number}"
    return name if is_name(name) else row.id


def _version(session: Session, grant_id: str, version: int) -> Grant:
    return stored_grant(session.get_one(GrantRow, (grant_id, version))).grant


def _of_emergency(session: Session, grant_id: str) -> bool:
    made = select(RequestRow.id).where(
        RequestRow.grant_id == grant_id, RequestRow.kind == RequestKind.EMERGENCY.value
    )
    return session.scalar(made) is not None


def _legal_basis(session: Session, grant_id: str) -> str | None:
    """What the first request of a grant rested on; None for one that came from a catalogue file."""
    made = select(RequestRow.legal_basis).where(RequestRow.grant_id == grant_id)
    return session.scalar(made.order_by(RequestRow.made_at).limit(1))


def _begun_with(session: Session, row: RequestRow) -> str:
    """What was said when it was written down."""
    first = select(RequestEventRow.said).where(RequestEventRow.request == row.id)
    return session.scalar(first.order_by(RequestEventRow.seq).limit(1)) or row.purpose


def _said(text: str, what: str) -> str:
    if not text.strip():
        raise RefusedError(f"{what} has to be said")
    return text.strip()


def _to_the_millisecond(moment: datetime) -> datetime:
    """What the store and Kafka keep; a finer start would differ from itself when read back."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)
