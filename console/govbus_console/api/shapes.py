"""What the API takes and gives, as OpenAPI describes it.

The answers are those of :mod:`govbus_console.control.shown`.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from govbus.catalogue import Classification, ResourceKind, ShareType
from govbus.grant import DataDuty, GrantState
from govbus.request import Ground, RequestKind, RequestState
from govbus_console.control.roles import Role

NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
REF = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*\.[a-z][a-z0-9]*(-[a-z0-9]+)*$"
"""As :func:`govbus.topics.is_name` has it; a test compares them."""


class Given(BaseModel):
    """What callers send: nothing unknown, nothing left over."""

    model_config = ConfigDict(extra="forbid")


class Fault(BaseModel):
    """What went wrong."""

    code: str
    message: str
    fix: str | None = None


class Problem(BaseModel):
    """The one shape of everything that is not a success."""

    error: Fault


_Entry = TypeVar("_Entry")


class Page(BaseModel, Generic[_Entry]):
    """A part of a list; send ``next`` as ``cursor`` for the part after it."""

    items: list[_Entry]
    next: str | None


class Me(BaseModel):
    """Who the token stands for, and what that may do."""

    account: str
    department: str | None
    roles: list[Role]
    rights: list[str]
    token: str
    """Id of the token."""

    expires_at: str


class TokenShown(BaseModel):
    """A token, without the token."""

    id: str
    account: str
    department: str | None
    roles: list[Role]
    made_at: str
    expires_at: str
    revoked_at: str | None


class DepartmentShown(BaseModel):
    """A department on the bus."""

    department: str
    title: str


class FieldShown(BaseModel):
    """One field of a resource."""

    name: str
    type: Any
    """The Avro type as JSON has it."""

    classification: Classification
    nullable: bool
    doc: str


class ResourceShown(BaseModel):
    """A catalogue entry. A withheld resource of another department has no fields here."""

    resource: str
    owner: str
    title: str
    share_type: ShareType
    kind: ResourceKind
    synthetic: bool
    contract: int
    key: list[str]
    update_interval: str
    fields: list[FieldShown]


class FieldRuleShown(BaseModel):
    """One granted field and what is done to it."""

    name: str
    transform: Any


class GrantShown(BaseModel):
    """The newest version of a grant."""

    grant: str
    version: int
    state: GrantState
    in_force: bool
    subscriber: str
    resource: str
    fields: list[FieldRuleShown]
    rows: str | None
    purpose: str
    starts_at: str
    expires_at: str
    data_on_end: DataDuty
    quota_records_per_day: int | None
    quota_keys_per_day: int | None
    topic: str
    shared: bool


class DecidedShown(BaseModel):
    """The request that a version was made for, and who decided about it."""

    request: str
    kind: RequestKind
    requester: str
    approved_by: list[str]
    granted_by: str | None
    """Who granted in an emergency."""


class VersionShown(BaseModel):
    """One version of a grant."""

    version: int
    state: GrantState
    made_at: str
    who: str
    why: str
    changes: list[str]
    """What is otherwise than in the version before, as ``word: before → after``."""

    decided: DecidedShown | None
    """null: it came from a catalogue file, or is a change of state."""


class GrantHistory(BaseModel):
    """A grant, how it came to be as it is, and what becomes of it."""

    grant: GrantShown
    reason: str
    """Of the policy: whether it delivers now, and why not."""

    held: list[str] | None
    """Why workers hold it back although the policy permits it; null: the bus does not say."""

    versions: list[VersionShown]
    """Oldest first."""

    receipt: dict[str, Any] | None
    """What the subscriber has answered for it once it ended; ``line`` says it for people."""


class ChangeShown(BaseModel):
    """What changing a grant's state came to."""

    grant: str
    version: int
    state: GrantState
    data_on_end: DataDuty
    already: bool
    """It was in that state before."""

    barrier_ms: float | None
    """How long it took until nothing more could be delivered; null: no barrier was needed."""

    fenced_workers: list[str]
    receipt: dict[str, Any] | None
    """What the subscriber has answered for a grant that ended; ``line`` says it for people."""


LONGEST_TERM_HOURS = 876_000
"""36,500 days, as :mod:`govbus_console.control.request_shapes` has it."""

Text = Annotated[str, Field(min_length=1, max_length=2_000, pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")]
"""Something that is said; PostgreSQL's texts cannot hold a NUL."""

_Quota = Annotated[int, Field(ge=0, le=10**12)]
_Hours = Annotated[int, Field(ge=1, le=LONGEST_TERM_HOURS)]


class Empty(Given):
    """Nothing: the address says it all."""


class Reason(Given):
    """Why something is done, for the audit."""

    why: Text


class Note(Given):
    """Why something is done, if there is something to say."""

    why: Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00]*$")] = ""


class Said(Given):
    """A question or an answer."""

    text: Text


class Rejection(Note):
    """Why a request is rejected; a ground has to be chosen."""

    ground: Ground


class Review(Reason):
    """Whether an emergency grant was right."""

    upheld: bool


class Revocation(Reason):
    """Why a grant ends, and what happens to the rows that were landed."""

    data: DataDuty | None = None
    """Null: what the grant says."""

    wait_seconds: Annotated[float, Field(ge=0.0, le=30.0)] = 0.0
    """How long the subscriber's receipt may be waited for."""


class FieldRuleGiven(Given):
    """One field and what is to be done to it: a word, or one key with its parameters."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
    transform: str | dict[str, Any] = "keep"


_Fields = Annotated[list[FieldRuleGiven], Field(min_length=1, max_length=1_000)]
_Rows = Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"^[^\x00]+$")]


class AskGiven(Given):
    """What a department asks for."""

    resource: Annotated[str, Field(max_length=161, pattern=REF)]
    fields: _Fields
    rows: _Rows
    """A row filter, or the word ``all``: nothing means "all"."""

    purpose: Text
    legal_basis: Text
    term_hours: _Hours
    data_on_end: DataDuty = DataDuty.DELETE
    quota_records_per_day: Annotated[int, Field(ge=1, le=10**12)] | None = None
    quota_keys_per_day: Annotated[int, Field(ge=1, le=10**12)] | None = None


class EmergencyGiven(AskGiven):
    """What is granted at once, to whom, and what the emergency is."""

    requester: Annotated[str, Field(max_length=80, pattern=NAME)]
    """The subscriber's account that asked."""

    why: Text


class AmendmentGiven(Reason):
    """What is to become different in a grant; what is left out stays."""

    fields: _Fields | None = None
    rows: _Rows | None = None
    term_hours: _Hours | None = None
    data_on_end: DataDuty | None = None
    quota_records_per_day: _Quota | None = None
    """0 takes the bound away."""

    quota_keys_per_day: _Quota | None = None
    """0 takes the bound away."""

    legal_basis: Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00]*$")] = ""


class RenewalGiven(Reason):
    """For how long a grant is to go on."""

    term_hours: _Hours
    legal_basis: Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00]*$")] = ""


class RequestShown(BaseModel):
    """A request as it stands."""

    id: str
    kind: RequestKind
    state: RequestState
    requester: str
    subscriber: str
    resource: str
    fields: list[FieldRuleShown]
    rows: str | None
    """The row filter; null: every row."""

    purpose: str
    legal_basis: str
    term_hours: int
    data_on_end: DataDuty
    quota_records_per_day: int | None
    quota_keys_per_day: int | None
    grant: str | None
    grant_version: int | None
    approvals_needed: int
    approved_by: list[str]
    ground: Ground | None
    matching: int | None
    """Rows that match, rounded down to a step; null: not counted."""

    counted_at: str | None
    made_at: str
    submitted_at: str | None
    changed_at: str
    due_at: str | None
    """When whoever has to act next should have."""

    granted_by: str | None
    review: str | None
    """``due`` or ``done``, of an emergency."""

    review_due_at: str | None
    reviewed_by: str | None
    upheld: bool | None


class HappenedShown(BaseModel):
    """One thing that happened to a request."""

    at: str
    who: str
    action: str
    before: str
    after: str
    said: str


class History(BaseModel):
    """All that happened to a request, oldest first."""

    items: list[HappenedShown]
