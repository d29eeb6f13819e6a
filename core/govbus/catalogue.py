"""What there is to share, and how each thing may be shared.

Share types are stored as words; platforms number them differently, so digits
are made of them only where a platform asks for digits (政务信息资源共享属性:
无条件共享, 有条件共享, 不予共享).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from stdnum.cn import uscc
from stdnum.exceptions import InvalidChecksum, InvalidLength, ValidationError

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


class DepartmentLevel(StrEnum):
    """Which tier of government a department belongs to, from the highest down (层级)."""

    NATIONAL = "national"
    PROVINCE = "province"
    CITY = "city"
    COUNTY = "county"

    def above(self, other: DepartmentLevel) -> bool:
        """Whether this tier stands strictly above ``other``."""
        order = list(DepartmentLevel)
        return order.index(self) < order.index(other)


def check_credit_code(text: str) -> str:
    """Return a unified social credit code (统一社会信用代码, GB 32100) as it is, if it is one.

    Raises:
        ValueError: it is none; the message says which rule it breaks.
    """
    try:
        code = str(uscc.validate(text))
    except InvalidLength:
        raise ValueError("a unified social credit code has 18 characters (GB 32100)") from None
    except InvalidChecksum:
        raise ValueError("the last character is not the check character of the others (GB 32100)") from None
    except ValidationError:
        raise ValueError(
            "a unified social credit code is digits and capital letters without I, O, S, V and Z, "
            "its first 8 characters digits (GB 32100)"
        ) from None
    if code != text:
        # Stored as it is compared: two spellings of one code would be two providers.
        raise ValueError("write it in capital letters without spaces or hyphens (GB 32100)")
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class Department:
    """An organisation on the bus: owner of resources, subscriber to others'."""

    name: str
    title: str
    level: DepartmentLevel | None = None
    """None where nobody has said."""

    parent: str | None = None
    """Name of the department above, which is of a higher level: so no chain of parents comes back."""

    credit_code: str | None = None
    """Unified social credit code (统一社会信用代码)."""

    contact: str = ""
    """How to reach the office that answers for its data; an office, never a person."""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError("Department.name: lower-case words joined by hyphens")
        if self.parent is not None and self.level is None:
            raise ValueError("Department.parent needs Department.level: a parent is of a higher level")
        if self.credit_code is not None:
            check_credit_code(self.credit_code)


def check_parent(department: Department, parent: Department) -> None:
    """Hold a department against the one above it.

    Levels strictly fall from parent to child, so a circle of parents cannot be said.

    Raises:
        ValueError: the parent has no level, or none above the department's.
    """
    if department.level is None or parent.level is None or not parent.level.above(department.level):
        has = "no level" if parent.level is None else f"level {parent.level}"
        raise ValueError(
            f"{parent.name!r} has {has} and cannot be the parent of {department.name!r}, "
            f"which is of level {department.level}; name a department of a higher level"
        )


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
