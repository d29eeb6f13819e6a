"""Avro schemas as JSON: what each name in them means, and pieces of them that stand alone.

Avro lets a type be defined where it is first used and named everywhere after
that, with a name that depends on where it stands. A view keeps some fields of
a record and drops others, so it may drop the place where a type was defined
and keep the places that name it. Everything here follows from that:

- :class:`Definitions` reads a schema once and replaces every named type, where it is defined and
  where it is used, by a :class:`Reference` to its full name;
- :meth:`Definitions.spell` writes any part of it down again as an Avro schema that is complete: each
  named type is defined at its first use, with its namespace spelt out;
- :func:`same_encoding` and :func:`resolvable` compare two types by what Avro says about their bytes.

Reading is strict: a schema that Avro does not allow is a :class:`SchemaError`,
never a guess. The messages name types and fields, which are not secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED = frozenset({"record", "error", "enum", "fixed"})

DEEPEST_SCHEMA = 64
"""How deep types may stand inside one another as the schema is written. Deeper is a mistake or an attack."""

_LARGEST_FIXED = 2**31 - 1
_PROMOTIONS = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
"""What a reader may ask for beside the writer's own type (Avro 1.12, "Schema Resolution")."""

_MEANING = ("logicalType", "precision", "scale")
"""Attributes that leave the bytes alone and change what they say."""


class SchemaError(ValueError):
    """Not an Avro schema, or one that refers to a type which it does not define."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A named type by its full name, wherever it stands."""

    name: str


class Definitions:
    """One schema, taken apart: its root and its named types, with a reference at every use.

    ``root`` and the values of ``named`` are JSON as in the schema, except that
    every named type inside them is a :class:`Reference`. Attributes that Avro
    does not know are kept.
    """

    def __init__(self, schema: Any) -> None:
        self.named: dict[str, dict[str, Any]] = {}
        self.root = self._read(schema, "", 0)

    @property
    def record(self) -> dict[str, Any]:
        """The root, which must be a record; its fields' types are in the form of ``root``."""
        if isinstance(self.root, Reference):
            definition = self.named[self.root.name]
            if definition["type"] in ("record", "error"):
                return definition
        raise SchemaError("the schema must be an Avro record")

    def definition(self, node: Any) -> Any:
        """Look through a reference; anything else comes back as it is."""
        return self.named[node.name] if isinstance(node, Reference) else node

    def spell(self, node: Any, *, defined: set[str] | None = None, within: str = "", home: str = "") -> Any:
        """Write a part of the schema as JSON that stands alone.

        Args:
            node: a part of ``root`` or of ``named``.
            defined: the full names that are defined already where the result will stand; names
                defined here are added to it.
            within: the namespace in which the result will stand.
            home: where types without namespace go. Empty leaves them without.

        Raises:
            SchemaError: a type without namespace would have to be named inside one, which Avro
                cannot say. Only a recursive type can bring this about.
        """
        if defined is None:
            defined = set()
        if isinstance(node, Reference):
            namespace, _, name = node.name.rpartition(".")
            namespace = namespace or home
            if node.name in defined:
                if within and not namespace:
                    raise SchemaError(f"type {name!r} has no namespace and is used inside {within!r}")
                return f"{namespace}.{name}" if namespace else name
            defined.add(node.name)
            definition = self.named[node.name]
            spelt = {"type": definition["type"], "name": name, "namespace": namespace}
            return spelt | self._spell_inside(definition, defined, namespace, home)
        if isinstance(node, list):
            return [self.spell(branch, defined=defined, within=within, home=home) for branch in node]
        if isinstance(node, dict):
            return self._spell_inside(node, defined, within, home)
        return node

    def _spell_inside(
        self, node: dict[str, Any], defined: set[str], within: str, home: str
    ) -> dict[str, Any]:
        spelt = dict(node)
        if node["type"] in ("array", "map"):
            inner = "items" if node["type"] == "array" else "values"
            spelt[inner] = self.spell(node[inner], defined=defined, within=within, home=home)
        elif node["type"] in ("record", "error"):
            spelt["fields"] = [
                {**field, "type": self.spell(field["type"], defined=defined, within=within, home=home)}
                for field in node["fields"]
            ]
        return spelt

    def _read(self, schema: Any, namespace: str, depth: int) -> Any:
        if depth > DEEPEST_SCHEMA:
            raise SchemaError("types stand too deep inside one another")
        if isinstance(schema, str):
            return self._read_name(schema, namespace)
        if isinstance(schema, list):
            return self._read_union(schema, namespace, depth)
        if not isinstance(schema, Mapping):
            raise SchemaError("a type is a name, a list of types or an object")
        kind = schema.get("type")
        if not isinstance(kind, str):
            raise SchemaError('"type" must be the name of a type')
        if kind in PRIMITIVES:
            return dict(schema)
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            if inner not in schema:
                raise SchemaError(f'{kind} needs "{inner}"')
            return {**schema, inner: self._read(schema[inner], namespace, depth + 1)}
        if kind in NAMED:
            return self._read_named(schema, kind, namespace, depth)
        raise SchemaError(f"unknown type {kind!r}")

    def _read_name(self, name: str, namespace: str) -> Any:
        if name in PRIMITIVES:
            return name
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if full not in self.named:
            raise SchemaError(f"type {full!r} is not defined before it is used")
        return Reference(full)

    def _read_union(self, schema: list[Any], namespace: str, depth: int) -> list[Any]:
        if not schema:
            raise SchemaError("a union needs at least one branch")
        if any(isinstance(branch, list) for branch in schema):
            raise SchemaError("a union cannot stand directly in a union")
        return [self._read(branch, namespace, depth + 1) for branch in schema]

    def _read_named(self, schema: Mapping[str, Any], kind: str, namespace: str, depth: int) -> Reference:
        name = schema.get("name")
        if not isinstance(name, str) or not name:
            raise SchemaError(f"{kind} needs a name")
        if "." in name:
            namespace = name.rpartition(".")[0]
            full = name
        else:
            namespace = schema.get("namespace", namespace) or ""
            full = f"{namespace}.{name}" if namespace else name
        if full in self.named:
            raise SchemaError(f"type {full!r} is defined twice")
        definition = {key: value for key, value in schema.items() if key not in ("name", "namespace")}
        self.named[full] = definition
        if kind == "enum":
            symbols = schema.get("symbols")
            if not isinstance(symbols, list) or not symbols or len(set(symbols)) != len(symbols):
                raise SchemaError(f"enum {full!r} needs symbols, each once")
        elif kind == "fixed":
            size = schema.get("size")
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST_FIXED:
                raise SchemaError(f"fixed {full!r} needs a size")
        else:
            definition["fields"] = self._read_fields(schema, full, namespace, depth)
        return Reference(full)

    def _read_fields(
        self, schema: Mapping[str, Any], full: str, namespace: str, depth: int
    ) -> list[dict[str, Any]]:
        fields = schema.get("fields")
        if not isinstance(fields, list):
            raise SchemaError(f"record {full!r} needs a list of fields")
        read: list[dict[str, Any]] = []
        seen: set[str] = set()
        for field in fields:
            if (
                not isinstance(field, Mapping)
                or not isinstance(field.get("name"), str)
                or "type" not in field
            ):
                raise SchemaError(f'record {full!r}: every field needs "name" and "type"')
            if field["name"] in seen:
                raise SchemaError(f"record {full!r}: field {field['name']!r} twice")
            seen.add(field["name"])
            read.append({**field, "type": self._read(field["type"], namespace, depth + 1)})
        return read


def shape_of(definition: Any) -> str:
    """Say how a type is encoded: ``union``, a primitive's name, ``record`` and so on.

    What it means in Python once it is decoded is for :mod:`govbus.valuekind` to say.
    """
    if isinstance(definition, list):
        return "union"
    kind = definition["type"] if isinstance(definition, dict) else definition
    return "record" if kind == "error" else str(kind)


def same_encoding(writer: Definitions, one: Any, reader: Definitions, other: Any) -> bool:
    """Whether each encoded value of ``one`` is, byte for byte, the same value of ``other``.

    Names of types must agree too: a union that was told apart by name must
    stay told apart. Documentation, defaults and aliases do not matter.
    """
    return _Comparison(writer, reader).same(one, other)


def resolvable(writer: Definitions, one: Any, reader: Definitions, other: Any) -> bool:
    """Whether Avro's schema resolution can read some value written as ``one`` under ``other``.

    A union or an enum may still hold a value that the reader does not know:
    that is found when the value is read.
    """
    return _Comparison(writer, reader).resolves(one, other)


class _Comparison:
    """Two schemas side by side; pairs of named types under comparison count as equal (recursive types)."""

    def __init__(self, writer: Definitions, reader: Definitions) -> None:
        self._writer = writer
        self._reader = reader
        self._known: dict[tuple[str, str], bool] = {}

    def same(self, one: Any, other: Any) -> bool:
        if isinstance(one, Reference) or isinstance(other, Reference):
            if not (isinstance(one, Reference) and isinstance(other, Reference)) or one.name != other.name:
                return False
            return self._once(one, other, self._same)
        return self._same(one, other)

    def resolves(self, one: Any, other: Any) -> bool:
        if isinstance(one, Reference) and isinstance(other, Reference):
            return self._once(one, other, self._resolves)
        return self._resolves(one, other)

    def _once(self, one: Reference, other: Reference, compare: Callable[[Any, Any], bool]) -> bool:
        pair = (one.name, other.name)
        if pair not in self._known:
            self._known[pair] = True
            self._known[pair] = compare(one, other)
        return self._known[pair]

    def _same(self, one: Any, other: Any) -> bool:  # noqa: PLR0911 one answer per kind of type
        left, right = self._writer.definition(one), self._reader.definition(other)
        kind = shape_of(left)
        if kind != shape_of(right) or any(
            _attribute(left, key) != _attribute(right, key) for key in _MEANING
        ):
            return False
        if kind == "union":
            return len(left) == len(right) and all(map(self.same, left, right))
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            return self.same(left[inner], right[inner])
        if kind == "record":
            return len(left["fields"]) == len(right["fields"]) and all(
                mine["name"] == theirs["name"] and self.same(mine["type"], theirs["type"])
                for mine, theirs in zip(left["fields"], right["fields"], strict=True)
            )
        if kind == "enum":
            return bool(left["symbols"] == right["symbols"])
        if kind == "fixed":
            return bool(left["size"] == right["size"])
        return True

    def _resolves(self, one: Any, other: Any) -> bool:  # noqa: PLR0911 one answer per kind of type
        left, right = self._writer.definition(one), self._reader.definition(other)
        kind, wanted = shape_of(left), shape_of(right)
        if kind == "union":
            return any(self.resolves(branch, other) for branch in left)
        if wanted == "union":
            return any(self.resolves(one, branch) for branch in right)
        if kind != wanted:
            return wanted in _PROMOTIONS.get(kind, ())
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            return self.resolves(left[inner], right[inner])
        if kind in NAMED and not _names_match(one, other, right):
            return False
        if kind == "record":
            mine = {field["name"]: field["type"] for field in left["fields"]}
            return all(
                self.resolves(mine[field["name"]], field["type"])
                if field["name"] in mine
                else "default" in field
                for field in right["fields"]
            )
        if kind == "enum":
            return "default" in right or not set(left["symbols"]).isdisjoint(right["symbols"])
        return kind != "fixed" or bool(left["size"] == right["size"])


def _attribute(definition: Any, key: str) -> Any:
    return definition.get(key) if isinstance(definition, dict) else None


def _names_match(one: Any, other: Any, reader: dict[str, Any]) -> bool:
    simple = one.name.rpartition(".")[2]
    aliases = reader.get("aliases", ())
    return bool(simple == other.name.rpartition(".")[2] or one.name in aliases or simple in aliases)
