"""What one grant lets through of a resource's records: which rows, which fields, and each field how.

A view is made twice from a grant. Before anything is delivered,
:func:`view_schema` says what a delivered record looks like, and the registry
gives that schema an id. For each writer schema that the owner's records turn
up with, :func:`compile_view` then makes a :class:`CompiledView`, which turns
walked records into delivered ones.

1. A delivered record has exactly the fields that the grant names, and each has been through its transform.
   A view schema that names other fields than the grant is refused.
2. Kept fields are copied byte for byte where writer and view agree on their type. Where they do not, the
   value is read by Avro's rules of schema resolution and written anew; where those have no answer, there is
   no view.
3. A field that the writer does not know yet is the default of the view's field. Without one there is no view.
4. The row filter lets a record through when it is TRUE; unknown is not.
5. Whatever fails, nothing passes: every fault is a :class:`~govbus.errors.ViewError`, which shows no value.

The record's key always travels, so a grant has to name every key field, and
can only keep or pseudonymise it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Protocol

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from govbus.avro import Definitions, SchemaError, resolvable, same_encoding, shape_of
from govbus.avrodefault import encode_default
from govbus.catalogue import Resource
from govbus.compiledview import CompiledView, KeyView
from govbus.contract import DataContract
from govbus.errors import FilterRefusedError, TransformRefusedError, ViewError
from govbus.grant import Grant, PublishedGrant
from govbus.rowfilter import Matcher, parse_filter
from govbus.splice import Constant, Copy, Mask, Piece, Recode, Retext, Rewrite, Splicer, Walker
from govbus.transform import Keep, Null, Partial, Pseudonym, Redact, Transform, compile_transform, result_type
from govbus.valuekind import value_kind

_HOME = "govbus_view"
"""Where types without namespace go when only their encoding matters."""

PseudonymKeys = Callable[[int], bytes]
"""Gives the key of an epoch's pseudonyms, for the subscriber and purpose of one grant."""


class WriterSchema(Protocol):
    """A registered schema under which an owner's records are written."""

    @property
    def id(self) -> int:
        """The registry's number for it."""

    @property
    def raw(self) -> Mapping[str, Any]:
        """The schema as JSON."""


# -- what a view looks like ------------------------------------------------------------------------


def view_schema(grant: Grant, contract: DataContract, shared_view: str | None = None) -> dict[str, Any]:
    """Return the Avro schema of what the grant delivers, to be registered for this grant version.

    The record is named after the contract's with ``View`` behind, has the
    granted fields in contract order, and carries the agreement in the
    attribute ``govbus``: grant, version and purpose, or, for a view that
    several grants share, ``shared_view`` and the contract's version. Equal
    arguments give equal schemas.

    A default stays where it still is what the field says: on a kept field, and
    as null where null stays null. The default of a masked field would be a
    value that was never masked.

    Raises:
        TransformRefusedError: a transform does not fit the type of its field.
        SchemaError: a named type cannot be named where it would stand (see
            :meth:`govbus.avro.Definitions.spell`).
        KeyError: the contract has no field that the grant names.
    """
    definitions = Definitions(contract.schema)
    namespace, _, name = definitions.root.name.rpartition(".")
    rules = {rule.name: rule.transform for rule in grant.fields}
    for wanted in rules:
        contract.field(wanted)
    defined: set[str] = set()
    fields = []
    for field in definitions.record["fields"]:
        if field["name"] in rules:
            fields.append(_view_field(definitions, field, rules[field["name"]], namespace, defined))
    if shared_view is None:
        agreement = {"grant": grant.id, "version": grant.version, "purpose": grant.purpose}
    else:
        agreement = {"view": shared_view, "contract": contract.version}
    schema: dict[str, Any] = {"type": "record", "name": _unused(f"{name}View", namespace, definitions)}
    if namespace:
        schema["namespace"] = namespace
    if "doc" in contract.schema:
        schema["doc"] = contract.schema["doc"]
    return schema | {"govbus": agreement, "fields": fields}


def _view_field(
    definitions: Definitions,
    field: Mapping[str, Any],
    transform: Transform,
    namespace: str,
    defined: set[str],
) -> dict[str, Any]:
    result = result_type(transform, definitions.spell(field["type"], within=namespace))
    # The result defines all its types anew; what an earlier field of the view has defined is only named.
    alone = Definitions(_one_field(result, namespace))
    node = alone.record["fields"][0]["type"]
    shown = {"name": field["name"], "type": alone.spell(node, defined=defined, within=namespace)}
    for attribute in ("doc", "classification"):
        if attribute in field:
            shown[attribute] = field[attribute]
    if "default" in field and _default_stays(alone, node, field["default"], transform):
        shown["default"] = field["default"]
    return shown


def _default_stays(types: Definitions, node: Any, default: object, transform: Transform) -> bool:
    if isinstance(transform, Redact) or not (isinstance(transform, Keep) or default is None):
        return False
    # Of a union's first branch, as every version of Avro allows.
    definition = types.definition(node)
    try:
        encode_default(types, definition[0] if shape_of(definition) == "union" else node, default)
    except SchemaError:
        return False
    return True


def _unused(name: str, namespace: str, definitions: Definitions) -> str:
    prefix = f"{namespace}." if namespace else ""
    while prefix + name in definitions.named:
        name += "_"
    return name


def key_schema(grant: Grant, contract: DataContract) -> dict[str, Any] | None:
    """Return the Avro schema of the delivered key, or None: all key fields are kept, the source's own serves.

    It says nothing of the grant or its version: a key must stay byte for byte
    the same from one version to the next, or a compacted topic would hold the
    row twice. Its name is never that of the source's own key: the pseudonym of a
    text is a text, and the registry gives equal schemas one id, so that nothing
    in a record would tell a pseudonymised key from a key that was kept. For the
    same reason pseudonyms of another epoch, hash or purpose have another name:
    they are other keys, and whoever lands them has to begin anew.

    Raises:
        ViewError: the grant does not name a key field, or does something else with it than keep or
            pseudonymise it.
    """
    transforms = _key_transforms(grant, contract.key)
    if all(isinstance(transform, Keep) for transform in transforms.values()):
        return None
    schema = contract.key_schema
    fields = [
        {**field, "type": result_type(transforms[field["name"]], field["type"])} for field in schema["fields"]
    ]
    kind = json.dumps([grant.purpose, [transforms[field["name"]].spec() for field in schema["fields"]]])
    mark = hashlib.sha256(kind.encode()).hexdigest()[:8]
    return {**schema, "name": f"{contract.schema['name']}ViewKey_{mark}", "fields": fields}


def _key_transforms(grant: Grant, key: tuple[str, ...]) -> dict[str, Transform]:
    transforms = {rule.name: rule.transform for rule in grant.fields if rule.name in key}
    for name in key:
        if not isinstance(transforms.get(name), Keep | Pseudonym):
            raise ViewError(f"key field {name!r} is neither kept nor pseudonymised")
    return transforms


# -- records through a view ------------------------------------------------------------------------


def compile_view(
    *,
    writer: WriterSchema,
    resource: Resource,
    published: PublishedGrant,
    view_raw: Mapping[str, Any],
    pseudonym_key: PseudonymKeys | None,
) -> CompiledView:
    """Work out, once, how records under ``writer`` become records under the view's schema.

    Args:
        writer: the schema that the records name; it may be older or newer than the contract.
        resource: whose records they are.
        published: the grant version.
        view_raw: the schema registered for it, from :func:`view_schema`.
        pseudonym_key: gives the key of an epoch's pseudonyms; None where there is no secret, and then
            a view with a pseudonym is refused.

    Raises:
        ViewError: no record under ``writer`` can be delivered under this grant version.
    """
    try:
        return _compile(writer, resource, published, view_raw, pseudonym_key)
    except ViewError:
        raise
    except (SchemaError, TransformRefusedError, FilterRefusedError) as error:
        reason = str(error)
    except Exception as error:
        # fastavro and sqlglot have many more. What they say may quote a schema's defaults, so only the kind.
        reason = type(error).__name__
    raise ViewError(f"no view of records under schema {writer.id}: {reason}")


def _compile(
    writer: WriterSchema,
    resource: Resource,
    published: PublishedGrant,
    view_raw: Mapping[str, Any],
    pseudonym_key: PseudonymKeys | None,
) -> CompiledView:
    grant = published.grant
    if (resource.owner, resource.name) != (grant.owner, grant.resource):
        raise ViewError("the grant is for another resource")
    walker = Walker(writer.raw)
    mine, theirs = Definitions(writer.raw), Definitions(view_raw)
    _check_agreement(published, theirs)
    transforms = {rule.name: rule.transform for rule in grant.fields}
    places = {name: place for place, name in enumerate(walker.names)}
    fields = [
        _Field(
            name=shown["name"],
            place=places.get(shown["name"]),
            written=mine,
            written_type=mine.record["fields"][places[shown["name"]]]["type"]
            if shown["name"] in places
            else None,
            shown=theirs,
            shown_field=shown,
            pseudonym_key=pseudonym_key,
        )
        for shown in theirs.record["fields"]
    ]
    plan = [field.piece(transforms[field.name]) for field in fields]
    matcher, looked_at = _row_filter(grant, mine)
    return CompiledView(
        splicer=Splicer(walker, plan),
        value_header=_header(published.value_schema_id),
        matcher=matcher,
        looked_at=looked_at,
        key=_key_view(resource, published, pseudonym_key),
    )


def _check_agreement(published: PublishedGrant, view: Definitions) -> None:
    grant = published.grant
    granted = [rule.name for rule in grant.fields]
    shown = [field["name"] for field in view.record["fields"]]
    if not granted or sorted(granted) != sorted(shown):
        raise ViewError("the view's schema does not have exactly the fields of the grant")
    named = view.record.get("govbus", {}).get("grant", grant.id)
    if named != grant.id and not published.shared:
        raise ViewError("the view's schema was registered for another grant")


def _row_filter(grant: Grant, written: Definitions) -> tuple[Matcher | None, tuple[int, ...]]:
    if grant.rows is None:
        return None, ()
    fields = written.record["fields"]
    rows = parse_filter(
        grant.rows, {field["name"]: written.spell(field["type"], home=_HOME) for field in fields}
    )
    names = [field["name"] for field in fields]
    return rows.compile(), tuple(names.index(name) for name in rows.fields)


def _header(schema_id: int) -> bytes:
    """The Confluent wire format's: magic byte 0 and the schema id, big-endian."""
    return b"\x00" + schema_id.to_bytes(4, "big")


class _Field:
    """One field of a view, with its place in the writer's records."""

    def __init__(
        self,
        *,
        name: str,
        place: int | None,
        written: Definitions,
        written_type: Any,
        shown: Definitions,
        shown_field: Mapping[str, Any],
        pseudonym_key: PseudonymKeys | None,
    ) -> None:
        self.name = name
        self._place = place
        self._written = written
        self._written_type = written_type
        self._shown = shown
        self._shown_field = shown_field
        self._shown_type = shown_field["type"]
        self._pseudonym_key = pseudonym_key

    def piece(self, transform: Transform) -> Piece:
        """Say how the field comes into a delivered record."""
        if isinstance(transform, Null | Redact):
            return self._constant(transform)
        if self._place is None:
            return self._default()
        if isinstance(transform, Keep):
            return self._kept(self._place)
        written = self._written.spell(self._written_type, home=_HOME)
        self._check_result(result_type(transform, written))
        key = None
        if isinstance(transform, Pseudonym) and self._pseudonym_key is not None:
            key = self._pseudonym_key(transform.epoch)
        change = compile_transform(transform, written, pseudonym_key=key)
        encode = encoder(self._shown, self._shown_type)
        if encode is _encode_text:
            if isinstance(transform, Partial) and value_kind(written) == "string":
                return Mask(self._place, transform.head, transform.tail, transform.mask)
            return Retext(self._place, change)
        return Recode(self._place, _named(self.name, lambda value: encode(change(value))))

    def _constant(self, transform: Null | Redact) -> Constant:
        """The same whatever the record holds: the field is not looked at, and need not be there."""
        change = compile_transform(transform, self._shown.spell(self._shown_type, home=_HOME))
        encode = _named(self.name, encoder(self._shown, self._shown_type))
        return Constant(encode(change(None)))

    def _default(self) -> Constant:
        if "default" not in self._shown_field:
            raise ViewError(f"the writer does not know field {self.name!r}, and it has no default")
        return Constant(encode_default(self._shown, self._shown_type, self._shown_field["default"]))

    def _kept(self, place: int) -> Copy | Rewrite:
        if same_encoding(self._written, self._written_type, self._shown, self._shown_type):
            return Copy(place)
        if not resolvable(self._written, self._written_type, self._shown, self._shown_type):
            raise ViewError(f"field {self.name!r} was written as a type that cannot be read as the view's")
        writer = parse_schema(_one_field(self._written.spell(self._written_type, home=_HOME)))
        reader = parse_schema(_one_field(self._shown.spell(self._shown_type, home=_HOME)))
        encode = encoder(self._shown, self._shown_type)
        return Rewrite(
            place,
            _named(self.name, lambda data: encode(schemaless_reader(BytesIO(data), writer, reader)["value"])),
        )

    def _check_result(self, result: Any) -> None:
        """Make sure that what the transform makes of the writer's type can be a value of the view's."""
        made = Definitions(_one_field(result))
        if not resolvable(made, made.record["fields"][0]["type"], self._shown, self._shown_type):
            raise ViewError(f"field {self.name!r} was written as a type whose transform the view cannot show")


def _one_field(avro_type: Any, namespace: str = "") -> dict[str, Any]:
    """A record of one field: encoded as the field is."""
    return {
        "type": "record",
        "name": "govbus_view_value",
        "namespace": namespace,
        "fields": [{"name": "value", "type": avro_type}],
    }


def _named(name: str, encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Turn whatever an encoder raises into an error that names the field and shows no value."""

    def encoded(value: Any) -> bytes:
        try:
            return encode(value)
        except Exception:  # noqa: S110 whatever it was: raised below, without the values it may show
            pass
        raise ViewError(f"field {name!r} could not be worked out")

    return encoded


# -- the delivered key -----------------------------------------------------------------------------


def _key_view(resource: Resource, published: PublishedGrant, pseudonym_key: PseudonymKeys | None) -> KeyView:
    transforms = _key_transforms(published.grant, resource.key)
    kept = all(isinstance(transform, Keep) for transform in transforms.values())
    source_header, shown_header = _header(resource.key_schema_id), _header(published.key_schema_id)
    if kept != (shown_header == source_header):
        raise ViewError("the delivered key's schema is not that of the grant's key fields")

    def splicer(walker: Walker) -> Splicer:
        return _key_splicer(walker, transforms, pseudonym_key)

    return KeyView(source_header, shown_header, None if kept else splicer)


def _key_splicer(
    walker: Walker, transforms: Mapping[str, Transform], pseudonym_key: PseudonymKeys | None
) -> Splicer:
    if set(walker.names) != set(transforms):
        raise ViewError("the key schema does not have exactly the key fields")
    definitions = Definitions(walker.schema)
    plan: list[Piece] = []
    for place, field in enumerate(definitions.record["fields"]):
        transform = transforms[field["name"]]
        if isinstance(transform, Pseudonym):
            spelt = definitions.spell(field["type"], home=_HOME)
            key = pseudonym_key(transform.epoch) if pseudonym_key is not None else None
            try:
                change = compile_transform(transform, spelt, pseudonym_key=key)
            except TransformRefusedError as error:
                raise ViewError(f"key field {field['name']!r}: {error}") from None
            plan.append(Retext(place, change))
        else:
            plan.append(Copy(place))
    return Splicer(walker, plan)


# -- values into bytes -----------------------------------------------------------------------------


def encoder(types: Definitions, node: Any) -> Callable[[Any], bytes]:
    """Make the function that encodes one value of a type; it raises when the value is not one.

    Text, which most transforms make, is encoded here, also when it may be null; everything else by
    fastavro, and what that makes is walked, because it does not check ranges.
    """
    definition = types.definition(node)
    kinds = (
        [value_kind(branch) for branch in definition]
        if isinstance(definition, list)
        else value_kind(definition)
    )
    if kinds == "string":
        return _encode_text
    if kinds in (["null", "string"], ["string", "null"]):
        return _nullable_text(kinds.index("string"))
    schema = _one_field(types.spell(node, home=_HOME))
    parsed = parse_schema(schema)
    walker = Walker(schema)

    def encode(value: Any) -> bytes:
        stream = BytesIO()
        schemaless_writer(stream, parsed, {"value": value}, strict=True)
        data = stream.getvalue()
        walker.walk(data)
        return data

    return encode


def _encode_text(value: Any) -> bytes:
    if type(value) is not str:
        raise TypeError("not a text")
    data = value.encode()
    return _length(len(data)) + data


def _nullable_text(branch: int) -> Callable[[Any], bytes]:
    text, null = bytes([2 * branch]), bytes([2 * (1 - branch)])

    def encode(value: Any) -> bytes:
        return null if value is None else text + _encode_text(value)

    return encode


def _length(count: int) -> bytes:
    count <<= 1
    encoded = bytearray()
    while count > 0x7F:
        encoded.append(count & 0x7F | 0x80)
        count >>= 7
    encoded.append(count)
    return bytes(encoded)
