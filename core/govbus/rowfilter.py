"""Which rows of a resource a grant lets through: a small, checked part of SQL.

A row filter is a SQL boolean expression over the fields of one resource. It is
read with sqlglot, and everything that is not on this list is refused with its
position (:class:`~govbus.errors.FilterRefusedError`):

- fields of the resource, bare or in double quotes, spelled exactly as in the contract;
- texts ``'…'``, whole and decimal numbers with a minus, TRUE, FALSE, ``DATE '2024-05-01'``,
  ``TIMESTAMP '2024-05-01T00:00:00+08:00'`` (an instant needs its zone, a local timestamp has none);
- ``= <> < <= > >=`` between a field and a literal, or two fields of one kind;
- ``IN (…)``, ``BETWEEN … AND …``, ``LIKE 'prefix%'``, ``IS NULL``, each also with NOT;
- a boolean field by itself; AND, OR, NOT and parentheses.

So there are no functions, subqueries, casts, arithmetic, parameters or comments,
and a comparison of two literals, of a field with itself, or with NULL is refused:
it says the same of every row. Kinds must agree: a text field is not compared
with a number. Bytes, times of day, arrays, maps, records and unions of several
types can only be asked whether they are null.

The logic is SQL's, with three values. A comparison with null is unknown, and
unknown is not true, so that row does not pass. Texts compare by code point, as
SQLite's BINARY and PostgreSQL's "C" collation do. NaN counts as null, as SQLite
has it: a number that is not one must not slip through under NOT.

The compiled form never contains the text of the filter: it is Python source
made from the checked tree alone, with literals bound as constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from govbus.filtercode import Matcher, compile_tree
from govbus.filterreader import read_filter
from govbus.filtersql import push_down
from govbus.filtertree import AllOf, Node, columns_of, text_of

__all__ = ["Matcher", "RowFilter", "parse_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """A row filter that has been checked against the fields of a resource."""

    text: str
    """Normalised: equal for filters that differ only in spacing, case of keywords or needless parentheses."""

    fields: tuple[str, ...]
    """The fields that it looks at, in the order of their first use."""

    _tree: Node = field(repr=False)

    def compile(self) -> Matcher:
        """Make the function that decides one row; pure, and safe to call from any thread."""
        return compile_tree(self._tree, self.fields)

    def not_true(self, values: Sequence[Any]) -> tuple[str, ...]:
        """Say which of the conditions joined by AND keep a row out, as they stand in the filter.

        Args:
            values: those of ``fields``, in that order.

        Whether a condition is false or unknown is not told apart: that would tell which value is null.
        """
        parts = self._tree.parts if isinstance(self._tree, AllOf) else (self._tree,)
        return tuple(text_of(part) for part in parts if compile_tree(part, self.fields)(*values) is not True)

    def sql(self, dialect: str) -> str:
        """Write the filter for a source's database, to be pushed down into its query.

        Dates and timestamps are written for SQLite as the texts that SQLAlchemy stores there. Comparing
        texts is left to the collation of the column; the exchange decides again in any case.

        Raises:
            ValueError: sqlglot knows no such dialect.
        """
        return push_down(self._tree, dialect).sql(dialect=dialect)


def parse_filter(text: str, fields: Mapping[str, Any]) -> RowFilter:
    """Read and check a row filter.

    Args:
        text: what the grant says.
        fields: Avro type (as JSON has it) by name of field, for all fields of the resource.

    Raises:
        FilterRefusedError: the filter is outside the allow-list, names a field that does not exist, compares
            what cannot be compared, or is too large. The message never repeats a literal.
    """
    tree = read_filter(text, fields)
    return RowFilter(text=text_of(tree), fields=tuple(dict.fromkeys(columns_of(tree))), _tree=tree)
