"""A catalogue entry narrows what may be shared, never widens it, and says nothing against the contract."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govbus.catalogue import Classification, ShareType
from govbus.contract import DataContract, parse_contract
from govbus.entry import (
    Entry,
    Format,
    ItemType,
    Manner,
    SaidItem,
    UpdateCycle,
    check_entry,
    entry_from_facts,
    entry_to_facts,
    is_regular_code,
    items_of,
    with_items,
)

TYPES: dict[str, tuple[Any, str]] = {
    "id": ("string", "C"),
    "count": ("int", "I"),
    "long": (["null", "long"], "I"),
    "share": ("double", "F"),
    "money": ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "N"),
    "born": ({"type": "int", "logicalType": "date"}, "D"),
    "seen": (["null", {"type": "long", "logicalType": "timestamp-millis"}], "T"),
    "valid": ("boolean", "L"),
    "sex": ({"type": "enum", "name": "Sex", "symbols": ["m", "f"]}, "C"),
    "other_sex": ("Sex", "C"),
    "either": (["string", "int"], "C"),
    "list": ({"type": "array", "items": "int"}, "C"),
}


def a_contract() -> DataContract:
    fields = [
        {"name": name, "type": avro_type, "classification": "internal"}
        for name, (avro_type, _) in TYPES.items()
    ]
    schema = {"type": "record", "name": "Row", "govbus": {"key": ["id"]}, "fields": fields}
    return parse_contract(json.dumps(schema), owner="civil", resource="residents")


def an_entry(**changes: Any) -> Entry:
    given: dict[str, Any] = {"abstract": "Residents", "items": items_of(a_contract())}
    return Entry(**given | changes)


def test_the_type_of_an_item_follows_from_the_contract_where_nobody_says_it() -> None:
    assert {item.name: item.type.value for item in items_of(a_contract())} == {
        name: letter for name, (_, letter) in TYPES.items()
    }


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (SaidItem(name="salary"), "'salary' is not a field of civil.residents; write one of id, "),
        (SaidItem(name="born", type=ItemType.DATETIME), "item 'born': the contract's type is D, not T"),
        (SaidItem(name="count", type=ItemType.FLOAT), "the contract's type is I or N, not F"),
        (SaidItem(name="id", classification=Classification.PUBLIC), "classifies it as internal, not public"),
        (SaidItem(name="id", length=0), "a length is a whole number from 1"),
        (SaidItem(name="id", share_type=ShareType.WITHHELD), "withhold the resource instead"),
    ],
)
def test_what_is_said_of_an_item_fits_the_contract(said: SaidItem, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        items_of(a_contract(), [said])


def test_an_item_may_be_called_numeric_when_it_is_a_number() -> None:
    said = [SaidItem(name="count", type=ItemType.NUMERIC, title="人数", length=6)]

    item = next(item for item in items_of(a_contract(), said) if item.name == "count")

    assert (item.type, item.title, item.length) == (ItemType.NUMERIC, "人数", 6)
    assert item.classification is Classification.INTERNAL


def test_the_policy_finds_an_items_own_share_type_in_the_contract() -> None:
    entry = an_entry(items=items_of(a_contract(), [SaidItem(name="born", share_type=ShareType.WITHHELD)]))

    contract = with_items(a_contract(), entry)

    assert contract.field("born").share_type is ShareType.WITHHELD
    assert {field.share_type for field in contract.fields if field.name != "born"} == {None}
    assert with_items(contract, None) == a_contract()


@pytest.mark.parametrize(
    ("changes", "share_type", "complaint"),
    [
        ({}, ShareType.CONDITIONAL, 'add "condition:"'),
        ({}, ShareType.WITHHELD, 'add "ground:"'),
        ({"ground": "A law", "open": True}, ShareType.WITHHELD, "cannot be open to the public"),
    ],
)
def test_an_entry_states_what_its_share_type_asks_for(
    changes: dict[str, Any], share_type: ShareType, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_entry(an_entry(**changes), share_type)


def test_an_entry_that_says_enough_is_taken() -> None:
    check_entry(an_entry(), ShareType.UNCONDITIONAL)
    check_entry(an_entry(condition="Needed for a duty"), ShareType.CONDITIONAL)
    check_entry(an_entry(ground="A law"), ShareType.WITHHELD)


@pytest.mark.parametrize(
    "changes",
    [
        {"abstract": ""},
        {"category": ("a", "b", "c", "d", "e")},
        {"category": ("a/b",)},
        {"category": ("",)},
        {"category": ("x" * 201,)},
        {"code": "with space"},
        {"code": "x" * 81},
        {"related_codes": ("",)},
        {"provider_code": "11330000DEM0000013"},
        {"open_condition": "by application"},
    ],
)
def test_an_entry_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Entry\.|GB 32100"):
        an_entry(**changes)


@pytest.mark.parametrize(
    ("code", "regular"),
    [
        ("330000A01/000001", True),
        ("330000/1", True),
        ("330000A01", False),
        ("33000/1", False),
        ("330000A01/", False),
        ("330000A01/00x", False),
        ("３３００００/1", False),
        ("330000-A01/1", False),
    ],
)
def test_a_code_is_opaque_and_an_unusual_one_is_named(code: str, regular: bool) -> None:
    assert is_regular_code(code) is regular

    warnings = an_entry(code=code).warnings

    assert len(warnings) == (0 if regular else 1)
    assert regular or code in warnings[0]


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@given(
    category=st.lists(st.sampled_from(["人口", "民政", "a b"]), max_size=4).map(tuple),
    texts=st.tuples(_TEXT, _TEXT, _TEXT, _TEXT),
    day=st.none() | st.dates(date(1950, 1, 1)),
    form=st.sampled_from(Format),
    manner=st.sampled_from(Manner),
    cycle=st.sampled_from(UpdateCycle),
    own=st.sampled_from([None, *ShareType]),
)
def test_an_entry_survives_being_stored(  # noqa: PLR0917  one for each drawn word
    category: tuple[str, ...],
    texts: tuple[str, ...],
    day: date | None,
    form: Format,
    manner: Manner,
    cycle: UpdateCycle,
    own: ShareType | None,
) -> None:
    entry = an_entry(
        code="330000A01/000001",
        category=category,
        provider=texts[0],
        provider_code="11330000DEM0000012",
        abstract="x" + texts[1],
        condition=texts[2],
        ground=texts[3],
        legal_basis=texts[3],
        format=form,
        manner=manner,
        update_cycle=cycle,
        published_on=day,
        open=True,
        open_condition=texts[2],
        related_codes=("330000/1",),
        items=items_of(a_contract(), [SaidItem(name="born", share_type=own, length=3, title=texts[0])]),
    )

    assert entry_from_facts(json.loads(json.dumps(entry_to_facts(entry)))) == entry
