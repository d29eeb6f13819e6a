"""Compile a row filter into one Python function.

The function's source is made from the checked tree alone: arguments and
constants are numbered, literals are bound as constants, and no character of the
filter's text is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

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
)

Matcher = Callable[..., bool | None]
"""Takes the values of a row filter's ``fields`` by position; gives TRUE, FALSE or, for unknown, None."""

_PYTHON = {"=": "==", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_OPPOSITE = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def compile_tree(tree: Node, fields: tuple[str, ...]) -> Matcher:
    """Make one Python function of the tree.

    The tree is asked two questions, "is it true?" and "is it false?", because
    each of them is ordinary two-valued logic: no intermediate result has to be
    carried around as unknown. Only if neither holds is the answer None.
    """
    writer = _Writer({name: f"c{index}" for index, name in enumerate(fields)})
    is_true = writer.holds(tree)
    is_false = writer.fails(tree)
    body = [f"    if {name} != {name}: {name} = None" for name in writer.floats()]
    source = "\n".join(
        [
            f"def matches({', '.join(writer.names.values())}):",
            *body,
            f"    if {is_true}: return True",
            f"    return False if {is_false} else None",
        ]
    )
    namespace: dict[str, Any] = {"__builtins__": {}, **writer.constants}
    # Nothing of the filter's text is in here: names and constants are numbered, the rest is this module's.
    exec(compile(source, "<row filter>", "exec"), namespace)  # noqa: S102
    return cast(Matcher, namespace["matches"])


class _Writer:
    """Writes a tree as Python conditions over numbered arguments and constants."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.constants: dict[str, Any] = {}
        self._floats: set[str] = set()

    def floats(self) -> list[str]:
        """Return the arguments that may hold NaN."""
        return sorted(self._floats)

    def holds(self, node: Node) -> str:  # noqa: PLR0911 - one line for each form
        """Write the condition under which the node is TRUE."""
        match node:
            case AllOf(parts):
                return self._joined(" and ", [self.holds(part) for part in parts])
            case AnyOf(parts):
                return self._joined(" or ", [self.holds(part) for part in parts])
            case Not(inner):
                return self.fails(inner)
            case Compare(operator, left, right):
                return self._compared(operator, left, right)
            case In(column, values):
                return f"{self._name(column)} in {self._set(values)}"
            case Between(column, low, high):
                return f"{self._known(column)} and {self._within(column, low, high)}"
            case Prefix(column, prefix):
                return f"{self._known(column)} and {self._begins(column, prefix)}"
            case IsNull(column):
                return f"{self._name(column)} is None"
            case Truth(column):
                return f"{self._name(column)} is True"

    def fails(self, node: Node) -> str:  # noqa: PLR0911 - one line for each form
        """Write the condition under which the node is FALSE."""
        match node:
            case AllOf(parts):
                return self._joined(" or ", [self.fails(part) for part in parts])
            case AnyOf(parts):
                return self._joined(" and ", [self.fails(part) for part in parts])
            case Not(inner):
                return self.holds(inner)
            case Compare(operator, left, right):
                return self._compared(_OPPOSITE[operator], left, right)
            case In(column, values):
                return f"{self._known(column)} and {self._name(column)} not in {self._set(values)}"
            case Between(column, low, high):
                return f"{self._known(column)} and not {self._within(column, low, high)}"
            case Prefix(column, prefix):
                return f"{self._known(column)} and not {self._begins(column, prefix)}"
            case IsNull(column):
                return self._known(column)
            case Truth(column):
                return f"{self._name(column)} is False"

    def _joined(self, word: str, parts: list[str]) -> str:
        return "(" + word.join(f"({part})" for part in parts) + ")"

    def _compared(self, operator: str, left: Column, right: Column | Literal) -> str:
        known = [self._known(side) for side in (left, right) if isinstance(side, Column)]
        other = self._name(right) if isinstance(right, Column) else self._constant(right.value)
        test = f"{self._name(left)} {_PYTHON[operator]} {other}"
        if operator == "=" and isinstance(right, Literal):
            return test  # None equals no literal, so this needs no guard.
        return " and ".join([*known, test])

    def _within(self, column: Column, low: Literal, high: Literal) -> str:
        return f"({self._constant(low.value)} <= {self._name(column)} <= {self._constant(high.value)})"

    def _begins(self, column: Column, prefix: str) -> str:
        return f"{self._name(column)}.startswith({self._constant(prefix)})"

    def _known(self, column: Column) -> str:
        return f"{self._name(column)} is not None"

    def _name(self, column: Column) -> str:
        name = self.names[column.name]
        if column.kind in ("float", "double"):
            self._floats.add(name)
        return name

    def _set(self, values: tuple[Literal, ...]) -> str:
        return self._constant(frozenset(literal.value for literal in values))

    def _constant(self, value: Any) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name
