"""A row filter after it has been checked: the only form in which anything is done with one.

What is not here cannot be in a row filter. The nodes are plain data, equal when
they say the same in the same order; :func:`text_of` writes one down again so
that reading it gives an equal tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Column:
    """A field of the resource, and what its values are."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Any
    """As Python compares it with a decoded value of the field beside it."""

    kind: str


@dataclass(frozen=True, slots=True)
class Compare:
    """``left operator right``; the operator is one of = <> < <= > >=."""

    operator: str
    left: Column
    right: Column | Literal


@dataclass(frozen=True, slots=True)
class In:
    """``column IN (values)``."""

    column: Column
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """``column BETWEEN low AND high``."""

    column: Column
    low: Literal
    high: Literal


@dataclass(frozen=True, slots=True)
class Prefix:
    """``column LIKE 'prefix%'``."""

    column: Column
    prefix: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """``column IS NULL``."""

    column: Column


@dataclass(frozen=True, slots=True)
class Truth:
    """A boolean field by itself."""

    column: Column


@dataclass(frozen=True, slots=True)
class Not:
    """``NOT inner``."""

    inner: Node


@dataclass(frozen=True, slots=True)
class AllOf:
    """Parts joined by AND, two or more."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Parts joined by OR, two or more."""

    parts: tuple[Node, ...]


Node = Compare | In | Between | Prefix | IsNull | Truth | Not | AllOf | AnyOf
"""One condition of a row filter."""


def columns_of(node: Node) -> Iterator[str]:
    """Give the name of each field that the tree looks at, each time that it does."""
    match node:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from columns_of(part)
        case Not(inner):
            yield from columns_of(inner)
        case Compare(_, left, Column() as right):
            yield from (left.name, right.name)
        case Compare(_, column, _):
            yield column.name
        case _:
            yield node.column.name


def text_of(node: Node) -> str:
    """Write the tree as the row filter that would be read as this tree."""
    match node:
        case AllOf(parts):
            return " AND ".join(_within(part, AnyOf) for part in parts)
        case AnyOf(parts):
            return " OR ".join(text_of(part) for part in parts)
        case Not(inner):
            return f"NOT {_within(inner, AllOf | AnyOf)}"
        case _:
            return _leaf_text(node)


def _within(node: Node, looser: Any) -> str:
    """Write an operand, in parentheses if it would fall apart without: AND binds tighter than OR."""
    return f"({text_of(node)})" if isinstance(node, looser) else text_of(node)


def _leaf_text(node: Compare | In | Between | Prefix | IsNull | Truth) -> str:
    match node:
        case Compare(operator, left, right):
            written = _name(right) if isinstance(right, Column) else _literal_text(right)
            return f"{_name(left)} {operator} {written}"
        case In(column, values):
            return f"{_name(column)} IN ({', '.join(_literal_text(value) for value in values)})"
        case Between(column, low, high):
            return f"{_name(column)} BETWEEN {_literal_text(low)} AND {_literal_text(high)}"
        case Prefix(column, prefix):
            return f"{_name(column)} LIKE {_quoted(prefix + '%')}"
        case IsNull(column):
            return f"{_name(column)} IS NULL"
        case Truth(column):
            return _name(column)


def _name(column: Column) -> str:
    return f'"{column.name}"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal_text(literal: Literal) -> str:
    value = literal.value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat()}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, int | float | Decimal):
        return number_text(value)
    return _quoted(str(value))


def number_text(value: float | Decimal) -> str:
    """Write a number as digits, which is the only form of one in a row filter."""
    if isinstance(value, int):
        return str(value)
    # A float's shortest form may have an exponent, which the reader does not take.
    text = format(Decimal(repr(value)) if isinstance(value, float) else value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
