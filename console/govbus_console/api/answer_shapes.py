"""What is asked and answered about catalogue, grants, single rows and receipts, as OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field

from govbus.catalogue import Classification, DepartmentLevel, ShareType
from govbus.explanation import Answer, GateName, Status
from govbus.grant import DataDuty, GrantState
from govbus.reception import Certainty
from govbus_console.api.shapes import NAME, REF, FieldRuleShown, Given, Reason

_Line = Annotated[str, Field(min_length=1, max_length=2_000, pattern=r"^[^\x00]+$")]


def _written(value: object) -> object:
    """Left to itself pydantic takes a number for seconds since 1970, which OpenAPI does not say."""
    if value is not None and not isinstance(value, str):
        raise ValueError("a moment is written as text")
    return value


WHAT = REF.removesuffix("$") + r"(\.[A-Za-z_][A-Za-z0-9_]*)?$"
"""A resource, or one field of it."""


class FoundShown(BaseModel):
    """A catalogue entry that was found. Of a withheld resource others see no ``items``."""

    place: int
    resource: str
    title: str
    owner: str
    """The owner's title."""

    level: DepartmentLevel | None
    share_type: ShareType
    classification: Classification
    """The highest of the fields'."""

    entry: dict[str, Any] | None
    """The core metadata of a government information resource; null where only the title was stated."""


class FoundPage(BaseModel):
    """Some of what was found. Send ``next`` as ``after`` for what comes behind it; a page may be short."""

    found: list[FoundShown]
    next: int | None


class UseShown(BaseModel):
    """One department's grant of a resource, and what it comes to now."""

    department: str
    title: str
    grant: str
    version: int
    state: GrantState
    reason: str
    purpose: str
    fields: list[FieldRuleShown]
    rows: str | None
    starts_at: str
    expires_at: str


class CanShown(BaseModel):
    """Whether a department may receive something."""

    department: str
    what: str
    answer: Literal["yes", "no"]
    reason: str
    use: UseShown | None


class RowGiven(Given):
    """One row: ``OWNER.RESOURCE/KEY``."""

    record: _Line


class ExplainGiven(RowGiven):
    """Why one row reached a department, or did not."""

    to: Annotated[str, Field(max_length=80, pattern=NAME)]
    at: Annotated[AwareDatetime | None, BeforeValidator(_written)] = None
    """Null: now."""


class GateShown(BaseModel):
    """One question on a row's way."""

    gate: GateName
    status: Status
    why: str
    at: str | None


class OtherShown(BaseModel):
    """What another grant of the same department comes to."""

    grant: str
    version: int
    answer: Answer
    stopped_by: GateName | None


class ExplanationShown(BaseModel):
    """Why a row reached a department or did not; never what it says."""

    record: str
    to: str
    at: str
    answer: Answer
    stopped_by: GateName | None
    grant: str | None
    version: int | None
    gates: list[GateShown]
    others: list[OtherShown]
    same_answer_now: bool
    next: str
    """The command to type next."""


class DeliveryShown(BaseModel):
    """Where a delivery stands."""

    topic: str
    partition: int
    offset: int
    changed_at: str
    decided_at: str | None


class ReceptionShown(BaseModel):
    """What one version of one grant brought a department of a row."""

    department: str
    grant: str
    version: int
    purpose: str
    fields: list[FieldRuleShown]
    certainty: Certainty
    first: str | None
    last: str | None
    deliveries: list[DeliveryShown]
    in_force_from: str
    in_force_until: str | None
    shared: bool
    why: str


class ReceptionsShown(BaseModel):
    """Who received a row, or may have."""

    record: str
    at: str
    history_complete: bool
    received: list[ReceptionShown]


class ReceiptShown(BaseModel):
    """An ended grant, and what its subscriber has answered for it."""

    grant: str
    version: int
    resource: str
    department: str
    state: GrantState
    duty: DataDuty
    ended_at: str
    status: str
    table: str | None = None
    rows_before: int | None = None
    rows_after: int | None = None
    rows_blanked: int | None = None
    digest_before: str | None = None
    digest_after: str | None = None
    carried_out_at: str | None = None
    process: str | None = None
    key: str | None = None
    """Fingerprint of the key that signed it."""

    line: str
    """The same for a person."""


class KeyShown(BaseModel):
    """The public key that a department's receipts have to be signed with."""

    department: str
    pinned: str | None
    """Hexadecimal; null: the key of the first receipt will be."""


class KeyGiven(Reason):
    """A key that the department has given to the operator itself."""

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
