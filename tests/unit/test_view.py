"""What a view looks like, how records go through it, and when there is no view."""

from __future__ import annotations

import json
import traceback
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer

from govbus.avro import Definitions, SchemaError
from govbus.errors import TransformRefusedError, ViewError
from govbus.splice import Walker
from govbus.view import compile_view, encoder, key_schema, view_schema
from support.avro_strategies import counted, decoded, varint
from support.views import (
    SOURCE_KEY,
    VIEW,
    VIEW_KEY,
    Written,
    compiled,
    contract_of,
    grant_of,
    published,
    record,
    resource_of,
)

PERSON = record(
    ("id", "string"),
    ("name", "string"),
    ("city", ["null", "string"], None),
    ("phone", ["null", "string"], None),
    ("born", {"type": "int", "logicalType": "date"}),
)
CONTRACT = contract_of(PERSON, "id")
ADDRESS = record(("street", "string"), ("number", "int"), name="Address")


def body(schema: Any, **row: Any) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(schema), row)
    return stream.getvalue()


def person(**changes: Any) -> bytes:
    row = {"id": "A1", "name": "Li Na", "city": "3308", "phone": "138", "born": 3_653}
    return body(PERSON, **row | changes)


def seen(view: Any, walker: Walker, data: bytes, view_raw: Any) -> Any:
    walker.walk(data)
    delivered = view.project(walker)
    assert delivered[:5] == b"\0" + VIEW.to_bytes(4, "big")
    return decoded(view_raw, delivered[5:])


def through(contract: Any, rules: Any, data: bytes, *, writer: Any = None) -> Any:
    """What a subscriber reads of a record."""
    view, walker = compiled(contract, rules, writer=writer)
    return seen(view, walker, data, view_schema(grant_of(rules), contract))


# -- the schema


def test_a_view_schema_has_the_granted_fields_in_contract_order_and_the_agreement() -> None:
    grant = grant_of({"city": "keep", "born": {"generalise": "year"}, "id": "pseudonym", "phone": "null"})

    assert view_schema(grant, CONTRACT) == {
        "type": "record",
        "name": "RowView",
        "namespace": "gov",
        "govbus": {"grant": "tax-rows", "version": 3, "purpose": "assessment"},
        "fields": [
            {"name": "id", "type": "string", "classification": "public"},
            {"name": "city", "type": ["null", "string"], "classification": "public", "default": None},
            {"name": "phone", "type": ["null", "string"], "classification": "public", "default": None},
            {"name": "born", "type": "int", "classification": "public"},
        ],
    }


def test_a_shared_view_names_the_view_and_the_contract_and_no_grant() -> None:
    schema = view_schema(grant_of({"id": "keep"}), CONTRACT, shared_view="v1")

    assert schema["govbus"] == {"view": "v1", "contract": 1}
    assert "tax" not in json.dumps(schema)


def test_a_view_schema_does_not_depend_on_the_order_in_which_a_grant_names_fields() -> None:
    one = view_schema(grant_of({"id": "keep", "city": "keep"}), CONTRACT)
    other = view_schema(grant_of({"city": "keep", "id": "keep"}), CONTRACT)

    assert json.dumps(one) == json.dumps(other)


def test_a_type_that_was_defined_in_a_dropped_field_is_defined_where_it_is_used_first() -> None:
    contract = contract_of(
        record(("id", "string"), ("secret", ADDRESS), ("home", "Address"), ("work", ["null", "gov.Address"])),
        "id",
    )

    schema = view_schema(grant_of({"id": "keep", "home": "keep", "work": "keep"}), contract)

    assert schema["fields"][1]["type"] == ADDRESS
    assert schema["fields"][2]["type"] == ["null", "gov.Address"]
    parse_schema(schema)


def test_a_record_that_refers_to_itself_keeps_its_own_name_inside_the_view() -> None:
    """The view has another name, or the inner rows would be taken for views."""
    schema = record(("id", "string"), ("secret", "string"), ("parent", ["null", "Row"]))
    contract = contract_of(schema, "id")
    rules = {"id": "keep", "parent": "keep"}

    shown = view_schema(grant_of(rules), contract)
    parent = {"id": "B", "secret": "s", "parent": None}
    row = through(contract, rules, body(schema, id="A", secret="t", parent=parent))

    assert (shown["name"], shown["fields"][1]["type"][1]["name"]) == ("RowView", "Row")
    assert row == {"id": "A", "parent": parent}


def test_a_view_takes_a_name_that_no_type_of_the_contract_has() -> None:
    contract = contract_of(record(("id", "string"), ("x", record(("a", "int"), name="RowView"))), "id")

    assert view_schema(grant_of({"id": "keep", "x": "keep"}), contract)["name"] == "RowView_"


@pytest.mark.parametrize(
    ("avro_type", "default", "transform", "stays"),
    [
        ("string", "x", "keep", True),
        (["null", "int"], None, "keep", True),
        (["int", "null"], None, "keep", False),
        ("bytes", "\u00ff", "keep", True),
        ("bytes", "\u4e00", "keep", False),
        ("string", "secret", {"truncate": 3}, False),
        (["null", "string"], None, {"truncate": 3}, True),
        (["null", "string"], None, {"redact": "-"}, False),
        (["null", "string"], None, "pseudonym", True),
        ("int", 5, "null", False),
    ],
)
def test_a_default_stays_only_where_it_is_still_what_the_field_says(
    avro_type: Any, default: Any, transform: Any, stays: bool
) -> None:
    contract = contract_of(record(("id", "string"), ("x", avro_type, default)), "id")

    field = view_schema(grant_of({"id": "keep", "x": transform}), contract)["fields"][1]

    assert ("default" in field) == stays
    assert field.get("default", default) == default


def test_a_transform_that_does_not_fit_is_refused_when_the_schema_is_made() -> None:
    with pytest.raises(TransformRefusedError):
        view_schema(grant_of({"id": "keep", "born": {"truncate": 2}}), CONTRACT)


def test_the_key_schema_is_the_sources_own_unless_a_key_field_is_pseudonymised() -> None:
    contract = contract_of(record(("area", "int"), ("id", "string"), ("name", "string")), "id", "area")

    assert key_schema(grant_of({"id": "keep", "area": "keep"}), contract) is None
    made = key_schema(grant_of({"id": "keep", "area": "pseudonym"}), contract)
    assert made is not None
    assert made.pop("name").startswith("RowViewKey_")
    assert made == {
        "type": "record",
        "namespace": "gov",
        "fields": [{"name": "area", "type": "string"}, {"name": "id", "type": "string"}],
    }


def test_pseudonymised_keys_of_another_epoch_hash_or_purpose_have_another_schema() -> None:
    """The rows landed under the old ones can never be named again, and landing goes by the schema's name."""
    contract = contract_of(record(("id", "string"), ("name", "string")), "id")
    first = grant_of({"id": "pseudonym"})
    others = [
        grant_of({"id": {"pseudonym": {"epoch": 2}}}),
        grant_of({"id": {"pseudonym": {"hash": "sm3"}}}),
        replace(first, purpose="research"),
    ]

    names = {key_schema(grant, contract)["name"] for grant in (first, *others)}

    assert len(names) == 4
    assert key_schema(replace(first, version=9, rows="id = '1'"), contract) == key_schema(first, contract)


def test_a_pseudonymised_text_key_has_another_schema_than_the_key_itself() -> None:
    """Both are records of one text; under equal schemas the registry would give them one id."""
    contract = contract_of(record(("id", "string"), ("name", "string")), "id")

    assert key_schema(grant_of({"id": "pseudonym"}), contract) != contract.key_schema


@pytest.mark.parametrize("rules", [{"name": "keep"}, {"id": "null"}, {"id": {"truncate": 1}}])
def test_a_grant_that_does_not_say_what_becomes_of_the_key_has_no_view(rules: Any) -> None:
    """A key always travels: it must not travel because nobody thought of it."""
    with pytest.raises(ViewError, match="key field 'id'"):
        key_schema(grant_of(rules), CONTRACT)
    kept = published(grant_of({"id": "keep"}), CONTRACT)

    with pytest.raises(ViewError, match="key field 'id'"):
        compile_view(
            writer=Written(PERSON),
            resource=resource_of(CONTRACT),
            published=replace(kept, grant=grant_of(rules)),
            view_raw=view_schema(grant_of(rules), CONTRACT),
            pseudonym_key=None,
        )


# -- records


def test_a_record_goes_through_with_the_granted_fields_each_through_its_transform() -> None:
    rules = {"id": "keep", "name": {"partial": {"head": 1}}, "phone": "null", "born": {"generalise": "year"}}

    assert through(CONTRACT, rules, person()) == {
        "id": "A1",
        "name": "L****",
        "phone": None,
        "born": 1980,
    }


def test_the_row_filter_must_be_true_and_unknown_is_not() -> None:
    view, walker = compiled(CONTRACT, {"id": "keep"}, rows="city LIKE '3308%'")
    answers = []

    for city in ("3308", "33", None):
        walker.walk(person(city=city))
        answers.append(view.matches(walker))

    assert answers == [True, False, False]


def test_the_row_filter_may_look_at_fields_that_are_not_granted() -> None:
    view, walker = compiled(CONTRACT, {"id": "keep"}, rows="born < DATE '2000-01-01' AND phone IS NOT NULL")
    walker.walk(person())

    assert view.matches(walker)
    assert b"138" not in view.project(walker)


def test_a_view_without_row_filter_lets_every_row_through() -> None:
    view, walker = compiled(CONTRACT, {"id": "keep"})
    walker.walk(person())

    assert view.matches(walker) is True


def test_a_key_that_is_kept_is_delivered_as_it_is() -> None:
    view, _ = compiled(CONTRACT, {"id": "keep"})
    key = b"\0" + SOURCE_KEY.to_bytes(4, "big") + counted(b"A1")

    assert view.key(key, None) is key


def test_a_key_field_that_is_pseudonymised_is_the_same_in_key_and_value_and_hides_the_id() -> None:
    view, walker = compiled(CONTRACT, {"id": "pseudonym", "name": "keep"})
    walker.walk(person(id="330802199901010018"))
    source = b"\0" + SOURCE_KEY.to_bytes(4, "big") + counted(b"330802199901010018")

    delivered = view.key(source, Walker(CONTRACT.key_schema))

    assert delivered[:5] == b"\0" + VIEW_KEY.to_bytes(4, "big")
    value = decoded(
        view_schema(grant_of({"id": "pseudonym", "name": "keep"}), CONTRACT), view.project(walker)[5:]
    )
    assert decoded(CONTRACT.key_schema, delivered[5:]) == {"id": value["id"]}
    assert b"330802" not in delivered


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"\0\0\0\0\1" + counted(b"A1"),
        b"\1" + SOURCE_KEY.to_bytes(4, "big") + counted(b"A1"),
        b"\0" + SOURCE_KEY.to_bytes(4, "big") + counted(b"A1") + b"x",
        b"\0" + SOURCE_KEY.to_bytes(4, "big") + varint(9) + b"A1",
    ],
)
def test_a_key_that_is_not_the_resources_does_not_pass(key: bytes) -> None:
    view, _ = compiled(CONTRACT, {"id": "pseudonym"})

    with pytest.raises(ViewError):
        view.key(key, Walker(CONTRACT.key_schema))


def test_a_pseudonymised_key_needs_the_key_schema_and_the_right_one() -> None:
    view, _ = compiled(CONTRACT, {"id": "pseudonym"})
    key = b"\0" + SOURCE_KEY.to_bytes(4, "big") + counted(b"A1")

    with pytest.raises(ViewError, match="needs the key schema"):
        view.key(key, None)
    with pytest.raises(ViewError, match="exactly the key fields"):
        view.key(key, Walker(record(("other", "string"))))


# -- writers that are older or newer than the view


@pytest.mark.parametrize(
    ("written", "shown", "value", "expected"),
    [
        ("int", "long", 7, 7),
        ("int", ["null", "double"], 7, 7.0),
        (["null", "string"], ["string", "null"], "x", "x"),
        (["null", "string"], ["string", "null"], None, None),
        (
            {"type": "enum", "name": "E", "symbols": ["A", "B"]},
            {"type": "enum", "name": "E", "symbols": ["Z", "B", "A"]},
            "B",
            "B",
        ),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, [1, 2], [1, 2]),
    ],
)
def test_a_kept_field_of_another_type_is_read_by_avros_rules(
    written: Any, shown: Any, value: Any, expected: Any
) -> None:
    contract = contract_of(record(("id", "string"), ("x", shown)), "id")
    writer = record(("id", "string"), ("x", written))

    assert through(contract, {"id": "keep", "x": "keep"}, body(writer, id="A", x=value), writer=writer) == {
        "id": "A",
        "x": expected,
    }


def test_what_a_newer_writer_adds_inside_a_kept_record_does_not_pass() -> None:
    """The grant was for the record as the contract had it, without the field that came later."""
    contract = contract_of(record(("id", "string"), ("home", ADDRESS)), "id")
    newer = record(
        ("id", "string"),
        ("home", record(("street", "string"), ("secret", "string"), ("number", "int"), name="Address")),
    )
    home = {"street": "Main", "secret": "CANARY", "number": 3}
    view, walker = compiled(contract, {"id": "keep", "home": "keep"}, writer=newer)
    walker.walk(body(newer, id="A", home=home))

    delivered = view.project(walker)

    assert b"CANARY" not in delivered
    assert decoded(view_schema(grant_of({"id": "keep", "home": "keep"}), contract), delivered[5:]) == {
        "id": "A",
        "home": {"street": "Main", "number": 3},
    }


def test_a_field_that_the_writer_does_not_know_is_its_default() -> None:
    contract = contract_of(
        record(("id", "string"), ("x", ["null", "int"], None), ("y", "string", "new")), "id"
    )
    older = record(("id", "string"))

    row = through(contract, {"id": "keep", "x": "keep", "y": "keep"}, body(older, id="A"), writer=older)

    assert row == {"id": "A", "x": None, "y": "new"}


def test_a_hidden_field_need_not_be_known_to_the_writer() -> None:
    contract = contract_of(record(("id", "string"), ("x", "int"), ("y", "string")), "id")
    older = record(("id", "string"))

    row = through(
        contract, {"id": "keep", "x": "null", "y": {"redact": "-"}}, body(older, id="A"), writer=older
    )

    assert row == {"id": "A", "x": None, "y": "-"}


@pytest.mark.parametrize(
    ("writer", "rules", "rows"),
    [
        (record(("id", "string")), {"id": "keep", "x": "keep"}, None),
        (record(("id", "string")), {"id": "keep", "x": {"truncate": 1}}, None),
        (record(("id", "string"), ("x", "boolean")), {"id": "keep", "x": "keep"}, None),
        (record(("id", "string"), ("x", "long")), {"id": "keep", "x": {"truncate": 1}}, None),
        (record(("id", "string")), {"id": "keep"}, "x = 'a'"),
        (record(("id", "string"), ("x", "boolean")), {"id": "keep"}, "x = 'a'"),
    ],
)
def test_a_writer_that_the_view_cannot_follow_has_no_view(writer: Any, rules: Any, rows: str | None) -> None:
    contract = contract_of(record(("id", "string"), ("x", "string")), "id")

    with pytest.raises(ViewError):
        compiled(contract, rules, rows=rows, writer=writer)


def test_a_masked_value_of_a_type_that_the_view_cannot_hold_has_no_view() -> None:
    """The band of a long is a long, and the view promised an int."""
    contract = contract_of(record(("id", "string"), ("x", "int")), "id")
    newer = record(("id", "string"), ("x", "long"))

    with pytest.raises(ViewError, match="whose transform the view cannot show"):
        compiled(contract, {"id": "keep", "x": {"generalise": {"band": 10}}}, writer=newer)


@pytest.mark.parametrize(
    ("avro_type", "value"),
    [
        ("int", 2**31),
        ("int", "7"),
        ("string", b"x"),
        ("string", None),
        (["null", "string"], 7),
    ],
)
def test_a_value_that_is_not_of_its_type_is_not_encoded(avro_type: Any, value: object) -> None:
    """An int that is too long for its type would otherwise be found by the subscriber, or by nobody."""
    types = Definitions(record(("x", avro_type)))
    encode = encoder(types, types.record["fields"][0]["type"])

    with pytest.raises((TypeError, ValueError)):
        encode(value)


def test_a_value_that_the_views_type_does_not_have_does_not_pass() -> None:
    contract = contract_of(record(("id", "string"), ("x", "string")), "id")
    writer = record(("id", "string"), ("x", ["null", "string"]))
    view, walker = compiled(contract, {"id": "keep", "x": "keep"}, writer=writer)
    walker.walk(body(writer, id="A", x=None))

    with pytest.raises(ViewError, match="field 'x'"):
        view.project(walker)


# -- faults


@pytest.mark.parametrize("fields", [("id",), ("id", "name", "city"), ("id", "phone")])
def test_a_view_schema_with_other_fields_than_the_grant_is_refused(fields: tuple[str, ...]) -> None:
    other = view_schema(grant_of(dict.fromkeys(fields, "keep")), CONTRACT)

    with pytest.raises(ViewError, match="exactly the fields"):
        compiled(CONTRACT, {"id": "keep", "name": "keep"}, view_raw=other)


def test_a_view_schema_that_was_registered_for_another_grant_is_refused() -> None:
    """Or the subscriber's records would name an agreement that is not theirs."""
    schema = view_schema(grant_of({"id": "keep"}), CONTRACT)
    other = {**schema, "govbus": {**schema["govbus"], "grant": "health-rows"}}

    with pytest.raises(ViewError, match="another grant"):
        compiled(CONTRACT, {"id": "keep"}, view_raw=other)


def test_a_grant_for_another_resource_has_no_view() -> None:
    grant = grant_of({"id": "keep"})

    with pytest.raises(ViewError, match="another resource"):
        compile_view(
            writer=Written(PERSON),
            resource=replace(resource_of(CONTRACT), name="others"),
            published=published(grant, CONTRACT),
            view_raw=view_schema(grant, CONTRACT),
            pseudonym_key=None,
        )


def test_a_pseudonym_without_a_secret_is_refused() -> None:
    with pytest.raises(ViewError, match="key"):
        compiled(CONTRACT, {"id": "keep", "name": "pseudonym"}, secret=None)


@pytest.mark.parametrize("key_schema_id", [SOURCE_KEY, VIEW_KEY])
def test_a_key_schema_id_that_does_not_say_what_becomes_of_the_key_is_refused(key_schema_id: int) -> None:
    grant = grant_of({"id": "pseudonym" if key_schema_id == SOURCE_KEY else "keep"})

    with pytest.raises(ViewError, match="delivered key's schema"):
        compile_view(
            writer=Written(PERSON),
            resource=resource_of(CONTRACT),
            published=published(grant, CONTRACT, key_schema_id=key_schema_id),
            view_raw=view_schema(grant, CONTRACT),
            pseudonym_key=lambda _epoch: b"k" * 32,
        )


def test_a_date_that_no_calendar_has_does_not_pass_and_is_not_shown() -> None:
    view, walker = compiled(
        CONTRACT, {"id": "keep", "born": {"generalise": "year"}}, rows="born > DATE '1900-01-01'"
    )
    walker.walk(person(born=2_000_000_000))

    for use in (view.matches, view.project):
        with pytest.raises(ViewError) as caught:
            use(walker)
        assert "2000000000" not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None


def test_a_kept_date_that_no_calendar_has_passes_as_it_was_written() -> None:
    """Nothing has to be decoded, and the owner's bytes are the owner's."""
    view, walker = compiled(CONTRACT, {"id": "keep", "born": "keep"})
    walker.walk(person(born=2_000_000_000))

    assert view.project(walker).endswith(varint(2_000_000_000))


def test_a_walker_of_another_schema_gets_nothing_out_of_a_view() -> None:
    view, _ = compiled(CONTRACT, {"id": "keep"})
    other = Walker(record(("secret", "string"), ("id", "string")))
    other.walk(counted(b"CANARY") + counted(b"A"))

    with pytest.raises(ViewError):
        view.project(other)


def test_a_schema_that_fastavro_does_not_take_has_no_view() -> None:
    """Other tools are stricter than Avro needs; whoever refuses, the exchange must not fall over."""
    good = {"type": "enum", "name": "E", "symbols": ["A"]}
    odd = {**good, "symbols": ["A", "not a symbol"]}
    contract = contract_of(record(("id", "string"), ("x", good)), "id")

    with pytest.raises(ViewError, match="SchemaParseException"):
        compiled(contract, {"id": "keep", "x": "keep"}, writer=record(("id", "string"), ("x", odd)))


def test_types_that_cannot_be_named_in_the_view_are_refused_when_the_schema_is_made() -> None:
    inner = record(("up", ["null", "gov.Row"]), name="T", namespace="")
    contract = contract_of(record(("id", "string"), ("x", inner)), "id")

    with pytest.raises(SchemaError):
        view_schema(grant_of({"id": "keep", "x": "keep"}), contract)
