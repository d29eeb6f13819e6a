"""What a data contract promises, and every mistake in one that is found before anything is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from govbus.catalogue import Classification, ResourceKind
from govbus.contract import DataContract, parse_contract
from govbus.errors import CatalogueError

SCHEMAS = Path(__file__).parents[2] / "avro_schemas"


def a_schema(**changes: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "record",
        "name": "Division",
        "namespace": "gov.stats",
        "govbus": {"version": 3, "kind": "state", "key": ["code"], "partitions": 4, "updateInterval": "P1Y"},
        "fields": [
            {"name": "code", "type": "string", "classification": "public", "doc": "GB/T 2260"},
            {"name": "year", "type": "int", "classification": "internal"},
            {"name": "note", "type": ["null", "string"], "default": None, "classification": "core"},
        ],
    }
    return schema | changes


def parsed(schema: object) -> DataContract:
    return parse_contract(json.dumps(schema), owner="stats", resource="divisions")


def with_field(**field: Any) -> dict[str, Any]:
    return a_schema(fields=[*a_schema()["fields"], field])


def test_a_contract_says_what_its_schema_and_attributes_say() -> None:
    contract = parsed(a_schema())

    assert (contract.owner, contract.resource, contract.version) == ("stats", "divisions", 3)
    assert (contract.kind, contract.partitions, contract.update_interval) == (ResourceKind.STATE, 4, "P1Y")
    assert contract.names == ("code", "year", "note")
    assert contract.field("code").doc == "GB/T 2260"
    assert contract.field("code").classification is Classification.PUBLIC
    assert [contract.field(name).nullable for name in contract.names] == [False, False, True]
    assert [contract.field(name).has_default for name in contract.names] == [False, False, True]
    assert contract.schema == a_schema()


def test_what_a_contract_leaves_out_has_a_plain_meaning() -> None:
    contract = parsed(a_schema(govbus={"key": ["code"]}))

    assert (contract.version, contract.partitions, contract.update_interval) == (1, 1, "")
    assert contract.kind is ResourceKind.STATE


def test_the_key_schema_has_the_key_fields_in_contract_order() -> None:
    """Whatever the order in govbus.key: two spellings must not give one row two keys."""
    contract = parsed(a_schema(govbus={"key": ["year", "code"]}))

    assert contract.key == ("code", "year")
    assert contract.key_schema == {
        "type": "record",
        "name": "DivisionKey",
        "namespace": "gov.stats",
        "fields": [{"name": "code", "type": "string"}, {"name": "year", "type": "int"}],
    }


def test_a_contract_without_namespace_gets_its_owners() -> None:
    schema = a_schema()
    del schema["namespace"]

    contract = parse_contract(json.dumps(schema), owner="civil-affairs", resource="divisions")
    assert contract.key_schema["namespace"] == "govbus.civil_affairs"


def test_an_unknown_field_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        parsed(a_schema()).field("colour")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ([], "must be an Avro record"),
        ("string", "must be an Avro record"),
        (a_schema(type="enum"), "must be an Avro record"),
        (a_schema(fields=[]), "at least one field"),
        (a_schema(fields={"code": "string"}), "at least one field"),
        (a_schema(govbus=None), '"govbus"'),
        (a_schema(govbus={}), "govbus.key must list"),
        (a_schema(govbus={"key": []}), "govbus.key must list"),
        (a_schema(govbus={"key": "code"}), "govbus.key must list"),
        (a_schema(govbus={"key": ["colour"]}), "'colour', which is not a field"),
        (a_schema(govbus={"key": [["code"]]}), "which is not a field"),
        (a_schema(govbus={"key": ["code", "code"]}), "'code' twice"),
        (a_schema(govbus={"key": ["note"]}), "'note' must be a string, int, long, bytes or boolean"),
        (a_schema(govbus={"key": ["code"], "version": 0}), "govbus.version"),
        (a_schema(govbus={"key": ["code"], "version": "1"}), "govbus.version"),
        (a_schema(govbus={"key": ["code"], "version": True}), "govbus.version"),
        (a_schema(govbus={"key": ["code"], "partitions": 1001}), "from 1 to 1000"),
        (a_schema(govbus={"key": ["code"], "kind": "table"}), "one of state, event"),
        (with_field(name="x", type="string"), "'x' needs \"classification\", one of public, internal"),
        (with_field(name="x", type="string", classification="secret"), "'x' needs \"classification\""),
        (with_field(name="x", type="string", classification=["core"]), "'x' needs \"classification\""),
        (with_field(name="x", classification="core"), '"name" and "type"'),
        (with_field(type="string", classification="core"), '"name" and "type"'),
        (with_field(name=7, type="string", classification="core"), "letters, digits and _"),
        (a_schema(fields=["code"]), '"name" and "type"'),
        (with_field(name="code", type="string", classification="core"), "field 'code' twice"),
        (
            with_field(name="x", type="strin", classification="core"),
            "not an Avro schema: type 'gov.stats.strin'",
        ),
        (with_field(name="x y", type="string", classification="core"), "letters, digits and _"),
        (with_field(name="x", type=[["null"]], classification="core"), "not an Avro schema"),
        (
            with_field(name="x", type={"type": {"type": "string"}}, classification="core"),
            "not an Avro schema",
        ),
        (with_field(name="x", type={"type": "array"}, classification="core"), "not an Avro schema"),
        (
            with_field(
                name="x",
                type={"type": "bytes", "logicalType": "decimal", "precision": "9", "scale": 2},
                classification="core",
            ),
            "not an Avro schema",
        ),
        (a_schema(name=None), "not an Avro schema"),
    ],
)
def test_a_mistake_in_a_contract_is_named_with_its_field(schema: object, why: str) -> None:
    with pytest.raises(CatalogueError, match="contract stats.divisions") as caught:
        parsed(schema)

    assert why in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"type": "record",\n}', "[" * 100_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(CatalogueError, match="contract stats.divisions"):
        parse_contract(text, owner="stats", resource="divisions")


def test_a_mistake_in_json_is_named_with_its_line() -> None:
    with pytest.raises(CatalogueError, match="line 2: not JSON"):
        parse_contract('{"type": "record",\n}', owner="stats", resource="divisions")


@pytest.mark.parametrize(
    "path",
    sorted(path for path in SCHEMAS.glob("*/*.avsc") if path.parent.name != "bus"),
    ids=lambda path: f"{path.parent.name}.{path.stem}",
)
def test_every_contract_that_ships_with_the_project_is_sound(path: Path) -> None:
    contract = parse_contract(path.read_text("utf-8"), owner=path.parent.name, resource=path.stem)

    assert contract.key
