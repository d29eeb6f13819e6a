"""The owner's versioned promise about one resource: schema, key, classifications, update interval.

A contract is an Avro record schema (``avro_schemas/<owner>/<resource>.avsc``)
with what Avro does not say in custom attributes, which every Avro tool keeps:

- on the record: ``"govbus": {"version", "kind", "key", "partitions", "updateInterval"}``;
- on each field: ``"classification"``, one of public, internal, sensitive, core. A field without
  one is a mistake, not a public field.

Key fields are scalars that cannot be null: a row without a key cannot be told from another.
What is not an Avro schema is refused here, before anything is registered or published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastavro import parse_schema
from fastavro.schema import SchemaParseException, UnknownType

from govbus.avro import Definitions, SchemaError
from govbus.catalogue import Classification, ResourceKind, ShareType
from govbus.errors import CatalogueError

_KEY_TYPES = frozenset({"string", "int", "long", "bytes", "boolean"})
_LARGEST_PARTITIONS = 1_000
_AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractField:
    """One field of a resource."""

    name: str
    avro_type: Any
    """The Avro type as JSON has it: a name, a union list, or an object."""

    classification: Classification
    has_default: bool
    default: object = None
    doc: str = ""
    share_type: ShareType | None = None
    """The item's own, where the catalogue entry gives one (:func:`govbus.entry.with_items`)."""

    @property
    def nullable(self) -> bool:
        """Whether null is one of the values that the type allows."""
        return self.avro_type == "null" or (isinstance(self.avro_type, list) and "null" in self.avro_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataContract:
    """What an owner promises about one resource."""

    owner: str
    resource: str
    version: int
    kind: ResourceKind
    key: tuple[str, ...]
    partitions: int
    update_interval: str
    """ISO 8601 duration between updates, as the owner states it; empty when it does not."""

    fields: tuple[ContractField, ...]
    schema: Mapping[str, Any]
    """The Avro record schema as JSON, custom attributes included."""

    def field(self, name: str) -> ContractField:
        """Return one field; KeyError when the contract has none of that name."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """All field names in contract order."""
        return tuple(field.name for field in self.fields)

    @property
    def key_schema(self) -> dict[str, Any]:
        """The Avro record of the key fields alone, in contract order."""
        return {
            "type": "record",
            "name": f"{self.schema['name']}Key",
            "namespace": self.schema.get("namespace", f"govbus.{self.owner}".replace("-", "_")),
            "fields": [{"name": name, "type": self.field(name).avro_type} for name in self.key],
        }


def parse_contract(text: str, *, owner: str, resource: str) -> DataContract:
    """Read one contract file.

    Raises:
        CatalogueError: the text is not JSON, not an Avro record, or lacks what a contract needs;
            the message names the field and what to write.
    """
    place = f"contract {owner}.{resource}"
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise CatalogueError(f"{place}, line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise CatalogueError(f"{place}: nested too deeply") from None
    if not (isinstance(schema, dict) and schema.get("type") == "record" and _listed(schema.get("fields"))):
        raise CatalogueError(f"{place}: must be an Avro record with at least one field")
    promise = schema.get("govbus")
    if not isinstance(promise, dict):
        raise CatalogueError(f'{place}: needs "govbus": {{"version", "kind", "key"}} beside "fields"')
    fields = tuple(_field(place, raw) for raw in schema["fields"])
    names = [field.name for field in fields]
    key = _key(place, promise, fields)
    _check_avro(place, schema)
    return DataContract(
        owner=owner,
        resource=resource,
        version=_positive(place, promise, "version", 1),
        kind=_kind(place, promise.get("kind", "state")),
        key=tuple(name for name in names if name in key),
        partitions=_positive(place, promise, "partitions", 1, largest=_LARGEST_PARTITIONS),
        update_interval=str(promise.get("updateInterval", "")),
        fields=fields,
        schema=schema,
    )


def _listed(fields: object) -> bool:
    return isinstance(fields, list) and len(fields) > 0


def _field(place: str, raw: Any) -> ContractField:
    if not isinstance(raw, dict) or "name" not in raw or "type" not in raw:
        raise CatalogueError(f'{place}: every field needs "name" and "type"')
    name = raw["name"]
    if not isinstance(name, str) or _AVRO_NAME.fullmatch(name) is None:
        raise CatalogueError(f"{place}: the name of a field is letters, digits and _, not a digit first")
    try:
        classification = Classification(str(raw.get("classification")))
    except ValueError:
        allowed = ", ".join(Classification)
        raise CatalogueError(f'{place}: field {name!r} needs "classification", one of {allowed}') from None
    return ContractField(
        name=name,
        avro_type=raw["type"],
        classification=classification,
        has_default="default" in raw,
        default=raw.get("default"),
        doc=raw.get("doc", ""),
    )


def _check_avro(place: str, schema: dict[str, Any]) -> None:
    try:
        Definitions(schema)
        parse_schema(schema)
    except (SchemaError, SchemaParseException, UnknownType) as error:
        raise CatalogueError(f"{place}: not an Avro schema: {error}") from None
    # fastavro stumbles over some mistakes instead of naming them, e.g. over a precision in quotes.
    except (TypeError, ValueError, KeyError, AttributeError):
        raise CatalogueError(
            f"{place}: not an Avro schema: check names, defaults and logical types"
        ) from None


def _key(place: str, promise: Mapping[str, Any], fields: tuple[ContractField, ...]) -> list[str]:
    key = promise.get("key")
    if not isinstance(key, list) or not key:
        raise CatalogueError(f'{place}: govbus.key must list the key fields, e.g. ["code"]')
    types = {field.name: field.avro_type for field in fields}
    for name in key:
        if not isinstance(name, str) or name not in types:
            raise CatalogueError(f"{place}: govbus.key names {name!r}, which is not a field")
        if key.count(name) > 1:
            raise CatalogueError(f"{place}: govbus.key names {name!r} twice")
        if _plain(types[name]) not in _KEY_TYPES:
            raise CatalogueError(
                f"{place}: key field {name!r} must be a string, int, long, bytes or boolean, never null"
            )
    return key


def _plain(avro_type: Any) -> str:
    """Name the primitive type; anything else, such as a union, is no type of a key."""
    plain = avro_type.get("type") if isinstance(avro_type, dict) else avro_type
    return plain if isinstance(plain, str) else ""


def _kind(place: str, word: object) -> ResourceKind:
    try:
        return ResourceKind(str(word))
    except ValueError:
        raise CatalogueError(f"{place}: govbus.kind must be one of {', '.join(ResourceKind)}") from None


def _positive(
    place: str, promise: Mapping[str, Any], name: str, default: int, *, largest: int = 2**31 - 1
) -> int:
    number = promise.get(name, default)
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= largest:
        raise CatalogueError(f"{place}: govbus.{name} must be a whole number from 1 to {largest}")
    return number
