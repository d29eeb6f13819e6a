"""Write a row filter in the SQL of a department's database, so that rows which nobody may have stay there."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

from sqlglot import exp

from govbus.filterreader import OPERATORS
from govbus.filtertree import (
    AllOf,
    AnyOf,
    Between,
    Column,
    Compare,
    In,
    IsNull,
    Literal,
    Node,
    Not,
    Prefix,
    Truth,
    number_text,
)


def push_down(node: Node, dialect: str) -> exp.Expr:  # noqa: PLR0911 - one line for each form
    """Write a checked row filter as sqlglot's tree, to be written in the dialect of one database."""
    match node:
        case AllOf(parts):
            return exp.and_(*(push_down(part, dialect) for part in parts), copy=False)
        case AnyOf(parts):
            return exp.or_(*(push_down(part, dialect) for part in parts), copy=False)
        case Not(inner):
            return exp.not_(push_down(inner, dialect), copy=False)
        case Compare(operator, left, right):
            other = _column_sql(right) if isinstance(right, Column) else _literal_sql(right, dialect)
            return _COMPARISONS[operator](this=_column_sql(left), expression=other)
        case In(column, values):
            return exp.In(
                this=_column_sql(column), expressions=[_literal_sql(value, dialect) for value in values]
            )
        case Between(column, low, high):
            return exp.Between(
                this=_column_sql(column), low=_literal_sql(low, dialect), high=_literal_sql(high, dialect)
            )
        case Prefix(column, prefix):
            return _prefix_sql(column, prefix, dialect)
        case IsNull(column):
            return exp.Is(this=_column_sql(column), expression=exp.Null())
        case Truth(column):
            return _column_sql(column)


_COMPARISONS = {operator: kind for kind, operator in OPERATORS.items()}


def _column_sql(column: Column) -> exp.Expr:
    return exp.column(column.name, quoted=True)


def _prefix_sql(column: Column, prefix: str, dialect: str) -> exp.Expr:
    if dialect == "sqlite":
        # SQLite's LIKE does not tell upper from lower case.
        start = exp.Substring(
            this=_column_sql(column), start=exp.Literal.number(1), length=exp.Literal.number(len(prefix))
        )
        return exp.EQ(this=start, expression=exp.Literal.string(prefix))
    return exp.Like(this=_column_sql(column), expression=exp.Literal.string(prefix + "%"))


def _literal_sql(literal: Literal, dialect: str) -> exp.Expr:
    value = literal.value
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, int | float | Decimal):
        written = number_text(value)
        number = exp.Literal.number(written.removeprefix("-"))
        return exp.Neg(this=number) if written.startswith("-") else number
    if isinstance(value, datetime):
        return _datetime_sql(value, dialect)
    if isinstance(value, date):
        day = exp.Literal.string(value.isoformat())
        return day if dialect == "sqlite" else exp.cast(day, exp.DType.DATE)
    return exp.Literal.string(str(value))


def _datetime_sql(value: datetime, dialect: str) -> exp.Expr:
    if dialect == "sqlite":
        return exp.Literal.string(value.replace(tzinfo=None).isoformat(" ", "microseconds"))
    kind = exp.DType.TIMESTAMP if value.tzinfo is None else exp.DType.TIMESTAMPTZ
    return exp.cast(exp.Literal.string(value.isoformat(" ")), kind)
