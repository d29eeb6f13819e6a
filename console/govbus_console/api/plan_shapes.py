"""What planning and applying a catalogue file takes and gives, as OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from govbus_console.api.shapes import REF, Given, Text
from govbus_console.control.planned import Action


class BasisShown(BaseModel):
    """What a plan was made from; send it with ``apply``, so that nothing else is done than was shown."""

    catalogue_digest: str
    store_digest: str


class BasisGiven(Given):
    """The same, sent back."""

    catalogue_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    store_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ContractGiven(Given):
    """The data contract of one resource."""

    resource: Annotated[str, Field(max_length=161, pattern=REF)]
    avro: str
    """An Avro schema as JSON text."""


class StatementGiven(Given):
    """A catalogue file and the contracts of the resources that it states. No path in it is opened."""

    catalogue: Annotated[str, Field(min_length=1)]
    """YAML."""

    contracts: Annotated[list[ContractGiven], Field(max_length=10_000)] = []
    """One for each resource that it states."""

    name: Annotated[str, Field(min_length=1, max_length=1_000, pattern=r"^[^\x00-\x1f]+$")] = "catalogue.yaml"
    """What messages call it."""

    count_seconds: Annotated[int, Field(ge=0, le=30)] = 10
    """How long rows may be counted; 0: not at all."""


class ApplyGiven(StatementGiven):
    """What is to be applied, and why."""

    why: Text
    basis: BasisGiven | None = None
    """Of the plan that was looked at; null: whatever the plan is now."""


class PlanChangeShown(BaseModel):
    """One line of a plan."""

    kind: Literal["department", "resource", "grant"]
    name: str
    action: Action
    details: list[str]
    for_: Annotated[list[str], Field(alias="for")]
    """Departments that receive something else because of it."""


class RowsShown(BaseModel):
    """How many rows a subscriber would see before and after."""

    before: int
    after: int
    more: int
    less: int


class ImpactShown(BaseModel):
    """What one subscriber would see otherwise."""

    grant: str
    subscriber: str
    resource: str
    fields_more: list[str]
    fields_less: list[str]
    fields_otherwise: list[str]
    rows: RowsShown | None
    """Null: not known."""


class PlanShown(BaseModel):
    """What applying would change, and for whom."""

    pending: bool
    changes: list[PlanChangeShown]
    grants: list[ImpactShown]
    warnings: list[str]


class PlannedShown(BaseModel):
    """A plan, and what it was made from."""

    plan: PlanShown
    basis: BasisShown


class AppliedShown(PlanShown):
    """What was changed."""

    published: int
    """Records that Kafka was told of."""
