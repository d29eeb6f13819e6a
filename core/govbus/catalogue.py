"""What there is to share, and how each thing may be shared.

Share types are stored as words; platforms number them differently, so digits
are made of them only where a platform asks for digits (政务信息资源共享属性:
无条件共享, 有条件共享, 不予共享).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from govbus.topics import is_name


class ShareType(StrEnum):
    """How a resource may be shared."""

    UNCONDITIONAL = "unconditional"
    CONDITIONAL = "conditional"
    WITHHELD = "withheld"


class Classification(StrEnum):
    """The sensitivity grade of a field, from open to most protected."""

    PUBLIC = "public"
    INTERNAL = "internal"
    SENSITIVE = "sensitive"
    CORE = "core"

    @property
    def needs_owner(self) -> bool:
        """Whether such a field stays out of unconditional sharing unless the owner says otherwise."""
        return self in (Classification.SENSITIVE, Classification.CORE)


class ResourceKind(StrEnum):
    """What a resource's topic holds."""

    STATE = "state"
    """The current row per key: compacted, deletes are tombstones."""

    EVENT = "event"
    """Things that happened: append-only, kept for a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Department:
    """An organisation on the bus: owner of resources, subscriber to others'."""

    name: str
    title: str

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError("Department.name: lower-case words joined by hyphens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One shareable data set with a catalogue entry, as the exchange needs to know it."""

    owner: str
    name: str
    title: str
    share_type: ShareType
    kind: ResourceKind
    contract_version: int
    key: tuple[str, ...]
    """Names of the key fields, in contract order."""

    partitions: int
    """Of the captured topic and so of each delivery topic. 1 for a small resource."""

    value_schema_id: int
    """Registry id of the contract's value schema; records may also be under older ones."""

    key_schema_id: int
    """Registry id of the key schema: the only one that a key of this resource may carry."""

    def __post_init__(self) -> None:
        if not (is_name(self.owner) and is_name(self.name)):
            raise ValueError("Resource names: lower-case words joined by hyphens")
        if not self.key:
            raise ValueError("Resource.key needs at least one field")
        if self.partitions < 1:
            raise ValueError("Resource.partitions must be at least 1")

    @property
    def ref(self) -> str:
        """``owner.resource``: how a resource is named everywhere outside its topic."""
        return f"{self.owner}.{self.name}"
