"""The policy tables in this folder hold. They are written for policy officers; this file only reads them.

A row goes the way it goes in the exchange: decision, row filter, transforms.
Every word in a table is known here or the test fails, so that a misspelt line
cannot be true by saying nothing.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from govbus.catalogue import ShareType
from govbus.contract import DataContract, parse_contract
from govbus.entry import Entry, SaidItem, items_of, with_items
from govbus.errors import RefusedError
from govbus.grant import FieldRule, Grant, GrantState
from govbus.policy import Decision, Reason, check_grant, decide
from govbus.pseudonym import derive_key
from govbus.rowfilter import parse_filter
from govbus.transform import Pseudonym, compile_transform, parse_transform

HERE = Path(__file__).parent
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MASTER = b"the secret of the scenario tests"
ROW_FILTER = "row-filter"
"""What "because" says when the decision is a permit and the row does not match."""

A_PSEUDONYM = "a pseudonym"
"""How a table writes one: no reader could check the characters."""

TYPES: dict[str, Any] = {
    "string": "string",
    "bytes": "bytes",
    "date": {"type": "int", "logicalType": "date"},
    "nullable long": ["null", "long"],
    "nullable boolean": ["null", "boolean"],
}


def table(name: str) -> list[Any]:
    """One parameter for each scenario of a table: its resource and the scenario."""
    text = yaml.safe_load((HERE / f"{name}.yaml").read_text("utf-8"))
    words(text, {"resource", "scenarios"})
    names = [scenario["name"] for scenario in text["scenarios"]]
    assert len(set(names)) == len(names), "two scenarios have one name"
    return [pytest.param(text["resource"], scenario, id=scenario["name"]) for scenario in text["scenarios"]]


def words(mapping: dict[str, Any], known: set[str]) -> None:
    assert set(mapping) <= known, f"unknown words: {set(mapping) - known}"


def the_contract(resource: dict[str, Any]) -> DataContract:
    words(resource, {"name", "fields", "key"})
    owner, name = resource["name"].split(".")
    fields = [
        {"name": field, "type": TYPES[avro_type], "classification": grade}
        for field, (avro_type, grade, *_) in resource["fields"].items()
    ]
    schema = {"type": "record", "name": "Row", "govbus": {"key": resource["key"]}, "fields": fields}
    contract = parse_contract(json.dumps(schema), owner=owner, resource=name)
    said = [
        SaidItem(name=field, share_type=ShareType(own[0]))
        for field, (_, _, *own) in resource["fields"].items()
        if own
    ]
    return with_items(contract, Entry(abstract="Rows", items=items_of(contract, said)))


def the_grant(resource: dict[str, Any], said: dict[str, Any]) -> Grant:
    words(said, {"subscriber", "purpose", "state", "fields", "rows", "from", "until"})
    owner, name = resource["name"].split(".")
    return Grant(
        id="the-grant",
        version=1,
        state=GrantState(said.get("state", "active")),
        subscriber=said.get("subscriber", "health"),
        owner=owner,
        resource=name,
        fields=tuple(
            FieldRule(name=field, transform=parse_transform(spec)) for field, spec in said["fields"].items()
        ),
        rows=said.get("rows"),
        purpose=said.get("purpose", "planning"),
        starts_at=said.get("from", datetime(2026, 1, 1, tzinfo=UTC)),
        expires_at=said.get("until", datetime(2027, 1, 1, tzinfo=UTC)),
    )


def received(contract: DataContract, grant: Grant, decision: Decision, row: dict[str, Any]) -> Any:
    """What the exchange would deliver of one row after a permit."""
    types = {field.name: field.avro_type for field in contract.fields}
    if grant.rows is not None:
        row_filter = parse_filter(grant.rows, types)
        if row_filter.compile()(*(row[name] for name in row_filter.fields)) is not True:
            return "nothing"
    delivered = {}
    for rule in decision.fields:
        epoch = rule.transform.epoch if isinstance(rule.transform, Pseudonym) else 1
        key = derive_key(MASTER, subscriber=grant.subscriber, purpose=grant.purpose, epoch=epoch)
        function = compile_transform(rule.transform, types[rule.name], pseudonym_key=key)
        value = function(row[rule.name])
        is_pseudonym = isinstance(rule.transform, Pseudonym) and re.fullmatch("[0-9a-f]{32}", value)
        delivered[rule.name] = A_PSEUDONYM if is_pseudonym else value
    return delivered


@pytest.mark.parametrize(("resource", "scenario"), table("who-may-see-what"))
def test_who_may_see_what(resource: dict[str, Any], scenario: dict[str, Any]) -> None:
    words(scenario, {"name", "given", "when", "then"})
    given, when, then = scenario["given"], scenario["when"], scenario["then"]
    words(given, {"share_type", "grant", "policy"})
    words(when, {"row", "at"})
    words(then, {"receives", "because"})
    contract = the_contract(resource)
    grant = None if given["grant"] == "none" else the_grant(resource, given["grant"])
    if grant is not None and grant.fields and given["share_type"] != "withheld":
        check_grant(grant, contract, ShareType(given["share_type"]))

    decision = decide(
        share_type=ShareType(given["share_type"]),
        grant=grant,
        now=when.get("at", NOON),
        fresh={"current": True, "stale": False}[given.get("policy", "current")],
    )

    if not decision.permits or grant is None:
        assert then == {"receives": "nothing", "because": str(decision.reason)}
        return
    delivered = received(contract, grant, decision, when["row"])
    assert delivered == then["receives"]
    assert then.get("because") == (ROW_FILTER if delivered == "nothing" else None)


@pytest.mark.parametrize(("resource", "scenario"), table("which-grants-are-possible"))
def test_which_grants_are_possible(resource: dict[str, Any], scenario: dict[str, Any]) -> None:
    words(scenario, {"name", "given", "when", "then"})
    given, then = scenario["given"], scenario["then"]
    words(given, {"share_type", "owner_allows"})
    words(scenario["when"], {"grant"})
    contract = the_contract(resource)
    share_type, owner_allows = ShareType(given["share_type"]), given.get("owner_allows", False)
    grant = the_grant(resource, scenario["when"]["grant"])

    if then == "accepted":
        check_grant(grant, contract, share_type, owner_allows=owner_allows)
        return
    words(then, {"refused"})
    with pytest.raises(RefusedError) as caught:
        check_grant(grant, contract, share_type, owner_allows=owner_allows)
    assert then["refused"] in str(caught.value)


def test_every_reason_to_deny_has_a_scenario() -> None:
    """A policy officer finds each reason in the table; the last one has no scenario a person could write."""
    scenarios = yaml.safe_load((HERE / "who-may-see-what.yaml").read_text("utf-8"))["scenarios"]
    shown = {scenario["then"].get("because", "permitted") for scenario in scenarios} - {ROW_FILTER}

    assert shown == set(Reason) - {Reason.COULD_NOT_DECIDE}
