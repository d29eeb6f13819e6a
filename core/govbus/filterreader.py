"""Read a row filter against the allow-list: words first, then the tree that sqlglot makes of them.

sqlglot reads nearly all of SQL and its tree changes between releases, so it is
not trusted with the question of what is allowed. Each token is compared with
the text it came from, nothing but spaces may lie between two, and names of
fields are marked as names. Then each node, and each part of a node, must be
known here. A new release can make a filter refused, never read as another.

What is allowed is listed in :mod:`govbus.rowfilter`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from govbus.errors import FilterRefusedError
from govbus.filterliterals import LITERALS, WANTED
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
from govbus.valuekind import value_branches, value_kind

MAX_CHARACTERS = 20_000
MAX_TOKENS = 4_000
MAX_DEPTH = 16
"""Parentheses, or NOTs, inside one another. sqlglot and Python recurse; a filter must not end the process."""

_ALLOWED = (
    "allowed are fields, texts, numbers, TRUE, FALSE, DATE '…', TIMESTAMP '…', = <> < <= > >=, IN, BETWEEN, "
    "LIKE 'prefix%', IS NULL, AND, OR, NOT and parentheses"
)


def read_filter(text: str, fields: Mapping[str, Any]) -> Node:
    """Read and check a row filter; see :func:`govbus.rowfilter.parse_filter`.

    Raises:
        FilterRefusedError: it is not allowed, names a field that does not exist, or is too large.
    """
    if len(text) > MAX_CHARACTERS:
        raise FilterRefusedError(f"row filter: longer than {MAX_CHARACTERS} characters")
    try:
        tokens = _checked_tokens(text, fields)
        return _Reader(text, fields).condition(_parsed(text, tokens))
    except RecursionError:
        raise FilterRefusedError("row filter: nested too deeply") from None


_WORDS = {
    TokenType.AND: "AND",
    TokenType.OR: "OR",
    TokenType.NOT: "NOT",
    TokenType.IN: "IN",
    TokenType.LIKE: "LIKE",
    TokenType.BETWEEN: "BETWEEN",
    TokenType.IS: "IS",
    TokenType.NULL: "NULL",
    TokenType.TRUE: "TRUE",
    TokenType.FALSE: "FALSE",
}
_SIGNS = {
    TokenType.EQ: ("=",),
    TokenType.NEQ: ("<>", "!="),
    TokenType.LT: ("<",),
    TokenType.LTE: ("<=",),
    TokenType.GT: (">",),
    TokenType.GTE: (">=",),
    TokenType.L_PAREN: ("(",),
    TokenType.R_PAREN: (")",),
    TokenType.COMMA: (",",),
    TokenType.DASH: ("-",),
}
_TYPED = (TokenType.DATE, TokenType.TIMESTAMP)
_NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SPACE = " \t\r\n"


def _checked_tokens(text: str, fields: Mapping[str, Any]) -> list[Token]:
    """Cut the filter into tokens and let only known ones through.

    sqlglot reads far more than is allowed here, drops comments and turns some
    statements into strings. So each token is compared with the text that it
    came from, nothing but spaces may lie between two, and each name of a field
    is marked as a name, so that a field called ``date`` or ``if`` is nothing else.
    """
    dialect = Dialect.get_or_raise(None)
    try:
        tokens = dialect.tokenize(text)
    except SqlglotError:
        raise FilterRefusedError("row filter: a quote or comment is opened and not closed") from None
    if not tokens:
        raise FilterRefusedError("row filter: empty; leave it out to let every row through")
    if len(tokens) > MAX_TOKENS:
        raise FilterRefusedError(f"row filter: more than {MAX_TOKENS} words and signs")
    done = 0
    depth = nots = 0
    checked = []
    for index, token in enumerate(tokens):
        _only_spaces(text, done, token.start)
        done = token.end + 1
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        checked.append(_checked(text, token, following, fields))
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        nots = nots + 1 if token.token_type is TokenType.NOT else 0
        if max(depth, nots) > MAX_DEPTH:
            _refuse(text, token.start, f"nested deeper than {MAX_DEPTH}")
    _only_spaces(text, done, len(text))
    return checked


def _only_spaces(text: str, start: int, end: int) -> None:
    rest = text[start:end].lstrip(_SPACE)
    if rest:
        _refuse(text, end - len(rest), "comments and unknown signs are not allowed")


def _checked(text: str, token: Token, following: Token | None, fields: Mapping[str, Any]) -> Token:
    kind, raw = token.token_type, text[token.start : token.end + 1]
    if kind is TokenType.STRING:
        if raw != "'" + token.text.replace("'", "''") + "'":
            _refuse(text, token.start, "a text must stand in single quotes")
        if _CONTROL.search(token.text):
            _refuse(text, token.start, "a text must not contain control characters")
        return token
    if kind is TokenType.NUMBER:
        if not _NUMBER.fullmatch(raw):
            _refuse(text, token.start, "a number is written as digits, with a point where it has decimals")
        return token
    if raw in _SIGNS.get(kind, ()) or raw.upper() == _WORDS.get(kind):
        return token
    calls = following is not None and following.token_type is TokenType.L_PAREN
    if kind in _TYPED and following is not None and following.token_type is TokenType.STRING:
        return token
    if calls and kind is not TokenType.IDENTIFIER:
        _refuse(text, token.start, "functions, casts and subqueries are not allowed")
    if kind is TokenType.IDENTIFIER and raw != f'"{token.text}"':
        _refuse(text, token.start, "a field is quoted with double quotes or not at all")
    if token.text in fields:
        return Token(TokenType.IDENTIFIER, token.text, token.line, token.col, token.start, token.end)
    if kind in (TokenType.VAR, TokenType.IDENTIFIER):
        _refuse(text, token.start, _no_field(token.text, fields))
    _refuse(text, token.start, "not allowed here")


def _no_field(name: str, fields: Mapping[str, Any]) -> str:
    near = [known for known in fields if known.lower() == name.lower()]
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"the resource has no field of this name{hint}"


def _parsed(text: str, tokens: list[Token]) -> exp.Expr:
    try:
        trees = Dialect.get_or_raise(None).parser().parse_into(exp.Condition, tokens, text)
    except SqlglotError:
        # Not chained and not quoted: sqlglot repeats the text, literals and all.
        raise FilterRefusedError(f"row filter: not a boolean expression; {_ALLOWED}") from None
    if len(trees) != 1 or trees[0] is None:
        raise FilterRefusedError(f"row filter: must be one boolean expression; {_ALLOWED}")
    return trees[0]


OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
"""sqlglot's comparisons, and how this package writes them."""

_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ORDERED = frozenset(
    {"string", "int", "long", "float", "double", "decimal", "date", "timestamp", "local-timestamp", "uuid"}
)
_COMPARABLE = _ORDERED | {"boolean", "enum"}
_FAMILY = {"long": "int", "double": "float"}


class _Reader:
    """Turns sqlglot's tree into the checked tree; whatever it does not know is refused."""

    def __init__(self, text: str, fields: Mapping[str, Any]) -> None:
        self._text = text
        self._fields = fields

    def condition(self, node: exp.Expr) -> Node:  # noqa: PLR0911 - one line for each allowed form
        node = _unwrapped(node)
        if isinstance(node, exp.And):
            return AllOf(tuple(self.condition(part) for part in _chain(node, exp.And)))
        if isinstance(node, exp.Or):
            return AnyOf(tuple(self.condition(part) for part in _chain(node, exp.Or)))
        self._only(node)
        if isinstance(node, exp.Not):
            return _negated(self.condition(node.this))
        if isinstance(node, exp.Is):
            return self._is_null(node)
        if isinstance(node, exp.In):
            return self._in(node)
        if isinstance(node, exp.Between):
            return self._between(node)
        if isinstance(node, exp.Like):
            return self._prefix(node)
        if isinstance(node, exp.Column):
            return self._truth(node)
        if type(node) in OPERATORS:
            return self._compare(node)
        self._refuse(node, f"this is not allowed; {_ALLOWED}")

    def _only(self, node: exp.Expr) -> None:
        """Refuse a node that carries a part which this module does not read, e.g. BETWEEN SYMMETRIC."""
        for name, part in node.args.items():
            if part and name not in _PARTS.get(type(node), ("this", "expression")):
                self._refuse(node, f"this form is not allowed; {_ALLOWED}")

    def _compare(self, node: exp.Expr) -> Node:
        operator = OPERATORS[type(node)]
        left, right = _unwrapped(node.this), _unwrapped(node.expression)
        if not isinstance(left, exp.Column):
            left, right, operator = right, left, _FLIPPED[operator]
        if not isinstance(left, exp.Column):
            self._refuse(
                node, "a comparison needs a field on one side; it must not say the same of every row"
            )
        column = self._column(left)
        ordered = operator not in ("=", "<>")
        if column.kind not in (_ORDERED if ordered else _COMPARABLE):
            self._refuse(node, f"{column.kind} fields cannot be compared by {operator}")
        if not isinstance(right, exp.Column):
            return Compare(operator, column, self._literal(right, column))
        other = self._column(right)
        if other.name == column.name:
            self._refuse(node, "a field compared with itself says the same of every row")
        if _FAMILY.get(other.kind, other.kind) != _FAMILY.get(column.kind, column.kind):
            self._refuse(node, f"a {column.kind} field cannot be compared with a {other.kind} field")
        return Compare(operator, column, other)

    def _is_null(self, node: exp.Is) -> Node:
        if not isinstance(node.expression, exp.Null):
            self._refuse(node, "IS goes with NULL or NOT NULL only")
        return IsNull(self._field(node, "IS NULL"))

    def _in(self, node: exp.In) -> Node:
        column = self._field(node, "IN")
        if column.kind not in _COMPARABLE:
            self._refuse(node, f"{column.kind} fields cannot be compared")
        if not node.expressions:
            self._refuse(node, "IN needs a list of literals in parentheses")
        return In(column, tuple(self._literal(_unwrapped(value), column) for value in node.expressions))

    def _between(self, node: exp.Between) -> Node:
        column = self._field(node, "BETWEEN")
        if column.kind not in _ORDERED:
            self._refuse(node, f"{column.kind} fields have no order")
        low, high = (self._literal(_unwrapped(node.args[name]), column) for name in ("low", "high"))
        return Between(column, low, high)

    def _prefix(self, node: exp.Like) -> Node:
        column = self._field(node, "LIKE")
        pattern = _unwrapped(node.expression)
        if column.kind != "string":
            self._refuse(node, "LIKE needs a text field")
        if not (isinstance(pattern, exp.Literal) and pattern.is_string):
            self._refuse(node, "LIKE needs a pattern in single quotes")
        prefix = pattern.name[:-1]
        # A backslash is an escape in some databases and a plain character in others.
        if not prefix or pattern.name[-1] != "%" or set(prefix) & set("%_\\"):
            self._refuse(node, "LIKE takes a prefix only: some characters, then one % at the end")
        tested = Prefix(column, prefix)
        # Some releases of sqlglot 30 wrap NOT LIKE in a Not, as all do with NOT IN; others set this flag.
        return Not(tested) if node.args.get("negate") else tested

    def _truth(self, node: exp.Column) -> Node:
        column = self._column(node)
        if column.kind != "boolean":
            self._refuse(node, "only a boolean field may stand by itself")
        return Truth(column)

    def _field(self, node: exp.Expr, word: str) -> Column:
        inner = _unwrapped(node.this)
        if not isinstance(inner, exp.Column):
            self._refuse(node, f"{word} needs a field on its left")
        return self._column(inner)

    def _column(self, node: exp.Column) -> Column:
        self._only(node)
        name = node.name
        if name not in self._fields:
            self._refuse(node, _no_field(name, self._fields))
        values = value_branches(self._fields[name])
        if not values:
            self._refuse(node, "this field is always null")
        return Column(name, value_kind(values[0]) if len(values) == 1 else "union")

    def _literal(self, node: exp.Expr, column: Column) -> Literal:
        if isinstance(node, exp.Null):
            self._refuse(node, "a comparison with NULL is never true; use IS NULL")
        reader = LITERALS.get(column.kind)
        value = reader(node) if reader is not None else None
        if value is None or (column.kind == "enum" and value not in self._symbols(column)):
            self._refuse(node, f"a {column.kind} field is compared with {WANTED.get(column.kind, 'nothing')}")
        return Literal(value, column.kind)

    def _symbols(self, column: Column) -> list[str]:
        (branch,) = value_branches(self._fields[column.name])
        return list(branch["symbols"])

    def _refuse(self, node: exp.Expr, why: str) -> NoReturn:
        identifier = node.find(exp.Identifier)
        start = identifier.meta.get("start") if identifier is not None else None
        if start is None and node.parent is not None and not isinstance(node.parent, exp.And | exp.Or):
            self._refuse(node.parent, why)
        if start is None:
            raise FilterRefusedError(f"row filter: {why}")
        _refuse(self._text, start, why)


_PARTS: dict[type[exp.Expr], tuple[str, ...]] = {
    exp.In: ("this", "expressions"),
    exp.Between: ("this", "low", "high"),
    exp.Like: ("this", "expression", "negate"),
    exp.Column: ("this",),
}
"""What a node may carry beside the usual two operands."""


def _negated(node: Node) -> Node:
    # NOT NOT x is x, for unknown too. Taken out here, so that no spelling of a filter is deeper than another.
    return node.inner if isinstance(node, Not) else Not(node)


def _unwrapped(node: exp.Expr) -> exp.Expr:
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def _chain(node: exp.Expr, connector: type[exp.Expr]) -> Iterator[exp.Expr]:
    """Give the parts of ``a AND b AND c`` in order, without recursion: a chain may be a thousand long."""
    waiting = [node]
    while waiting:
        part = _unwrapped(waiting.pop())
        if type(part) is connector:
            waiting += [part.args["expression"], part.this]
        else:
            yield part


def _refuse(text: str, start: int, why: str) -> NoReturn:
    line = text.count("\n", 0, start) + 1
    column = start - (text.rfind("\n", 0, start) + 1) + 1
    raise FilterRefusedError(f"row filter, line {line}, column {column}: {why}")
