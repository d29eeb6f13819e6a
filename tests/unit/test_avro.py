"""What names in Avro schemas mean, and parts of schemas that stand alone."""

from __future__ import annotations

from typing import Any

import pytest
from fastavro import parse_schema

from govbus.avro import Definitions, SchemaError, resolvable, same_encoding

ADDRESS = {"type": "record", "name": "Address", "fields": [{"name": "street", "type": "string"}]}


def record(*types: Any, namespace: str = "gov") -> dict[str, Any]:
    fields = [{"name": f"f{i}", "type": one} for i, one in enumerate(types)]
    return {"type": "record", "name": "R", "namespace": namespace, "fields": fields}


def compared(writer: Any, reader: Any) -> tuple[bool, bool]:
    """Whether two types have the same encoding, and whether the first resolves to the second."""
    one, other = Definitions(record(writer)), Definitions(record(reader))
    mine, theirs = one.record["fields"][0]["type"], other.record["fields"][0]["type"]
    return same_encoding(one, mine, other, theirs), resolvable(one, mine, other, theirs)


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def test_a_type_is_defined_where_it_is_used_first_and_named_after_that() -> None:
    definitions = Definitions(record(ADDRESS, {"type": "array", "items": "Address"}, ["null", "gov.Address"]))
    fields = definitions.record["fields"]
    defined: set[str] = set()

    spelt = [definitions.spell(field["type"], defined=defined) for field in fields[1:]]

    assert spelt[0] == {"type": "array", "items": {**ADDRESS, "namespace": "gov"}}
    assert spelt[1] == ["null", "gov.Address"]
    parse_schema(record(*spelt))


def test_a_type_keeps_its_namespace_wherever_it_goes() -> None:
    inner = {"type": "record", "name": "In", "fields": [{"name": "deep", "type": ADDRESS}]}
    outer = {"type": "record", "name": "Out", "namespace": "other", "fields": [{"name": "in", "type": inner}]}
    definitions = Definitions(record(outer, "other.Address"))

    spelt = definitions.spell(definitions.record["fields"][1]["type"])

    assert spelt == {**ADDRESS, "namespace": "other"}


def test_a_type_that_cannot_be_named_where_it_would_stand_is_refused() -> None:
    """Inside ``gov`` the name T means gov.T, and Avro has no other way to say T."""
    inner = {
        "type": "record",
        "name": "T",
        "namespace": "",
        "fields": [{"name": "up", "type": ["null", "gov.R"]}],
    }
    definitions = Definitions(record(inner))
    node = definitions.record["fields"][0]["type"]

    with pytest.raises(SchemaError, match="no namespace"):
        definitions.spell(node)
    parse_schema(definitions.spell(node, home="elsewhere"))


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        ("string", {"type": "string", "avro.java.string": "String"}),
        (enum("A", "B", doc="old"), enum("A", "B", doc="new")),
        (["null", ADDRESS], ["null", ADDRESS]),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
        ),
    ],
)
def test_what_does_not_change_the_bytes_or_their_meaning_is_the_same(writer: Any, reader: Any) -> None:
    assert compared(writer, reader) == (True, True)


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        ("int", "long"),
        ("long", "double"),
        ("string", "bytes"),
        (["null", "int"], ["int", "null"]),
        ("int", ["null", "long"]),
        (["null", "int"], "int"),
        (enum("A", "B"), enum("B", "A", "C")),
        (enum("A"), enum("B", default="B")),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "double"}),
        ("long", {"type": "long", "logicalType": "timestamp-millis"}),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1},
        ),
        ({**ADDRESS, "fields": [*ADDRESS["fields"], {"name": "x", "type": "int"}]}, ADDRESS),
    ],
)
def test_what_avro_can_read_in_another_way_is_resolvable_and_not_the_same(writer: Any, reader: Any) -> None:
    assert compared(writer, reader) == (False, True)


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        ("long", "int"),
        ("string", "int"),
        ("null", "string"),
        (enum("A"), enum("B")),
        (ADDRESS, {**ADDRESS, "name": "Other"}),
        (ADDRESS, {**ADDRESS, "fields": [{"name": "x", "type": "int"}]}),
        ({"type": "fixed", "name": "F", "size": 1}, {"type": "fixed", "name": "F", "size": 2}),
        ({"type": "map", "values": "string"}, {"type": "map", "values": "int"}),
        (["null", "string"], ["boolean", "int"]),
    ],
)
def test_what_avro_cannot_read_is_not_resolvable(writer: Any, reader: Any) -> None:
    assert compared(writer, reader) == (False, False)


def test_recursive_types_can_be_compared() -> None:
    def tree(value: str) -> dict[str, Any]:
        fields = [
            {"name": "value", "type": value},
            {"name": "children", "type": {"type": "array", "items": "Tree"}},
        ]
        return {"type": "record", "name": "Tree", "fields": fields}

    assert compared(tree("int"), tree("int")) == (True, True)
    assert compared(tree("int"), tree("long")) == (False, True)
    assert compared(tree("long"), tree("int")) == (False, False)


@pytest.mark.parametrize(
    "avro_type",
    [
        7,
        None,
        [],
        ["null", ["int"]],
        {"type": "array"},
        {"type": "map"},
        {"type": {"type": "int"}},
        {"type": "Unknown"},
        {"type": "enum", "name": "E", "symbols": []},
        {"type": "enum", "name": "E", "symbols": ["A", "A"]},
        {"type": "fixed", "name": "F", "size": -1},
        {"type": "fixed", "name": "F", "size": 2**31},
        {"type": "record", "fields": []},
        {"type": "record", "name": "R", "fields": []},
        {"type": "record", "name": "X", "fields": [{"name": "a"}]},
        {
            "type": "record",
            "name": "X",
            "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}],
        },
    ],
)
def test_what_is_not_avro_is_refused(avro_type: Any) -> None:
    with pytest.raises(SchemaError):
        Definitions(record(avro_type))


def test_a_schema_may_be_deep_but_not_endless() -> None:
    schema: Any = "int"
    for _ in range(5_000):
        schema = {"type": "array", "items": schema}

    with pytest.raises(SchemaError, match="too deep"):
        Definitions(record(schema))
