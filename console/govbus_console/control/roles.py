"""Who acts: an account with its department and its roles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody does on the bus."""

    STEWARD = "steward"
    """Decides for its department as the owner of resources."""

    SUBSCRIBER = "subscriber"
    """Acts for its department as a receiver of others' resources."""

    OPERATOR = "operator"
    """Keeps the bus running."""

    AUDITOR = "auditor"
    """Sees who shares what with whom, and changes nothing."""


_OF_A_DEPARTMENT = frozenset({Role.STEWARD, Role.SUBSCRIBER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody, or something, that may ask."""

    name: str
    """Stands in the audit."""

    department: str | None
    """None: of the bus itself."""

    roles: frozenset[Role]

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("Account.name must say who it is")
        if self.department is None and self.roles & _OF_A_DEPARTMENT:
            raise ValueError("stewards and subscribers act for a department")


def known_roles(names: Iterable[str]) -> frozenset[Role]:
    """The roles among ``names``. A word that is none gives its bearer nothing."""
    return frozenset(role for role in Role if role.value in set(names))
