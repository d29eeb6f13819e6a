"""A catalogue file is read strictly, and every mistake is named with its place and its fix."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from govbus.catalogue import Department, DepartmentLevel, ShareType
from govbus.entry import UpdateCycle, entry_to_facts
from govbus.errors import CatalogueError, TransformRefusedError
from govbus.grant import DataDuty
from govbus.transform import Keep, Pseudonym
from govbus_console.control.catalogue_file import read_catalogue

DIVISIONS = {
    "type": "record",
    "name": "Division",
    "govbus": {"version": 1, "kind": "state", "key": ["code"]},
    "fields": [
        {"name": "code", "type": "string", "classification": "public"},
        {"name": "name", "type": "string", "classification": "public"},
        {"name": "officer", "type": ["null", "string"], "default": None, "classification": "sensitive"},
    ],
}

VALID = """\
departments:
  - name: stats
    title: Statistics bureau
  - {name: quzhou, title: Quzhou city}
resources:
  - ref: stats.divisions
    title: Division codes
    share_type: conditional
grants:
  - id: quzhou-divisions
    subscriber: quzhou
    resource: stats.divisions
    fields: [code, {name: keep}]
    rows: "code LIKE '3308%'"
    purpose: Address register
    term_days: 365
"""


def write(folder: Path, text: str, *, contract: object = DIVISIONS) -> Path:
    """Put a catalogue and its contract where ``read_catalogue`` looks for them."""
    place = folder / "avro_schemas" / "stats" / "divisions.avsc"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(contract), encoding="utf-8")
    path = folder / "catalogue.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str) -> str:
    """What is said about ``text``."""
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(write(folder, text))
    return str(caught.value)


def test_a_catalogue_says_who_shares_what_with_whom(tmp_path: Path) -> None:
    catalogue = read_catalogue(write(tmp_path, VALID))

    assert [entry.department.name for entry in catalogue.departments] == ["stats", "quzhou"]
    (resource,) = catalogue.resources
    assert (resource.ref, resource.share_type, resource.synthetic) == (
        "stats.divisions",
        ShareType.CONDITIONAL,
        False,
    )
    assert resource.contract.key == ("code",)
    (grant,) = catalogue.grants
    assert [(rule.name, rule.transform) for rule in grant.fields] == [("code", Keep()), ("name", Keep())]
    assert (grant.rows, grant.term, grant.starts_at) == ("code LIKE '3308%'", timedelta(days=365), None)
    assert grant.data_on_end is DataDuty.DELETE


def test_several_documents_are_one_catalogue(tmp_path: Path) -> None:
    departments, rest = VALID.split("resources:")

    catalogue = read_catalogue(write(tmp_path, f"{departments}---\nresources:{rest}"))

    assert len(catalogue.departments) == 2
    assert [entry.ref for entry in catalogue.resources] == ["stats.divisions"]
    assert [entry.id for entry in catalogue.grants] == ["quzhou-divisions"]


def test_all_rows_must_be_asked_for_by_name(tmp_path: Path) -> None:
    everything = VALID.replace("\"code LIKE '3308%'\"", "all")
    unsaid = VALID.replace("    rows: \"code LIKE '3308%'\"\n", "")

    (grant,) = read_catalogue(write(tmp_path, everything)).grants

    assert grant.rows is None
    assert "line 10: grants[0].rows: missing; write the condition as SQL, or the word all" in complaint(
        tmp_path, unsaid
    )


def test_a_moment_keeps_its_zone(tmp_path: Path) -> None:
    dated = VALID.replace("term_days: 365", "expires_at: 2027-01-01T00:00:00+08:00")

    (grant,) = read_catalogue(write(tmp_path, dated)).grants

    assert grant.expires_at == datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=8)))
    assert grant.expires_at.astimezone(UTC).day == 31


def test_a_transform_is_written_after_its_field(tmp_path: Path) -> None:
    masked = VALID.replace("{name: keep}", "name: {partial: {head: 1}}").replace(
        "[code, ", "[code: pseudonym, "
    )

    (grant,) = read_catalogue(write(tmp_path, masked)).grants

    assert grant.fields[0].transform == Pseudonym()
    assert grant.fields[1].transform.spec() == {"partial": {"head": 1, "tail": 0}}


def test_a_transform_that_does_not_exist_is_refused_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace("{name: keep}", "{name: shred}"))

    with pytest.raises(
        TransformRefusedError, match=r"catalogue.yaml, line 13: grants\[0\].fields\[1\].name: "
    ):
        read_catalogue(path)


@pytest.mark.parametrize(
    ("wrong", "right", "says"),
    [
        (
            "share_type: open",
            "share_type: conditional",
            "line 8: resources[0].share_type: 'open' is none of them",
        ),
        (
            "titel: Division codes",
            "title: Division codes",
            "line 7: resources[0].titel: unknown; write one of",
        ),
        (
            "name: Stats",
            "name: stats",
            "line 2: departments[0].name: 'Stats' is not a name; write lower-case",
        ),
        ("name: exchange", "name: stats", "line 2: departments[0].name: 'exchange' is a user of the bus"),
        (
            "ref: divisions",
            "ref: stats.divisions",
            "line 6: resources[0].ref: 'divisions' is not owner.resource",
        ),
        ("[code, code]", "[code, {name: keep}]", "line 13: grants[0].fields[1]: 'code' is named twice"),
        (
            "[[code]]",
            "[code, {name: keep}]",
            "line 13: grants[0].fields[0]: not one field; write a field name",
        ),
        ("fields: code", "fields: [code, {name: keep}]", "line 13: grants[0].fields: not a list"),
        ("rows: ''", "rows: \"code LIKE '3308%'\"", "line 14: grants[0].rows: empty"),
        ("purpose: ''", "purpose: Address register", "line 15: grants[0].purpose: empty; write a few words"),
        ("purpose:", "purpose: Address register", "line 15: grants[0].purpose: not a single value"),
        (
            "term_days: a year",
            "term_days: 365",
            "line 16: grants[0].term_days: not a term; write a whole number",
        ),
        ("term_days: 0", "term_days: 365", "line 16: grants[0].term_days: not a term"),
        (
            "term_days: 365\n    quota_keys_per_day: 0",
            "term_days: 365",
            "line 17: grants[0].quota_keys_per_day: not a quota; write a whole number",
        ),
        (
            "data_on_end: keep",
            "term_days: 365",
            "line 10: grants[0].expires_at: a grant needs one end; write either",
        ),
        (
            "expires_at: 2027-01-01T00:00:00",
            "term_days: 365",
            "line 16: grants[0].expires_at: no time zone; write",
        ),
        (
            "expires_at: soon",
            "term_days: 365",
            "line 16: grants[0].expires_at: not a moment; write date, time",
        ),
        (
            "expires_at: 2027-01-01T00:00:00Z\n    starts_at: 2027-01-01T00:00:00Z",
            "term_days: 365",
            "line 16: grants[0].expires_at: the end is not after the start",
        ),
        ("term_days: 365\n    term_days: 30", "term_days: 365", "line 17: grants[0].term_days: given twice"),
        (
            "share_type: withheld\n    synthetic: perhaps",
            "share_type: conditional",
            "line 9: resources[0].synthetic: 'perhaps' is neither",
        ),
        (
            "- {name: stats, title: Again}",
            "- {name: quzhou, title: Quzhou city}",
            "is also at line 2; keep one",
        ),
        ("title: [a", "title: Division codes", "line 8: not YAML"),
        ("departments: []\nextra:", "resources:", "line 6: the document.extra: unknown"),
    ],
)
def test_a_mistake_is_named_with_line_field_and_fix(
    tmp_path: Path, wrong: str, right: str, says: str
) -> None:
    assert right in VALID

    said = complaint(tmp_path, VALID.replace(right, wrong))

    assert says in said
    assert str(tmp_path / "catalogue.yaml") in said


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    text = VALID.replace("title: Statistics bureau", "titel: x").replace("conditional", "open")

    said = complaint(tmp_path, text.replace("term_days: 365", "term_days: 0"))

    assert [line.split(", line ")[1].split(":")[0] for line in said.splitlines()] == ["3", "2", "8", "16"]


@pytest.mark.parametrize("text", ["", "- a\n", "departments: 3\n", "just words\n", "a: \x07\n", "&a [*a]\n"])
def test_what_is_not_a_catalogue_is_refused(tmp_path: Path, text: str) -> None:
    assert "catalogue.yaml" in complaint(tmp_path, text)


def test_a_file_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    said = complaint(tmp_path, VALID.replace("{name: keep}", "name: &a {partial: *a}"))

    assert "line 13: grants[0].fields[1].name: nested too deeply" in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"nowhere.yaml: cannot be read: No such file"):
        read_catalogue(tmp_path / "nowhere.yaml")


def test_a_resource_needs_its_contract(tmp_path: Path) -> None:
    text = VALID.replace("share_type: conditional", "share_type: conditional\n    contract: other.avsc")

    said = complaint(tmp_path, text)

    assert f"line 9: resources[0].contract: stats.divisions has no contract at {tmp_path}/other.avsc" in said


def test_a_mistake_in_a_contract_names_both_files(tmp_path: Path) -> None:
    broken = DIVISIONS | {"fields": [{"name": "code", "type": "string"}]}
    path = write(tmp_path, VALID, contract=broken)

    with pytest.raises(CatalogueError, match=r"divisions.avsc: .*'code' needs \"classification\".*line 6\)"):
        read_catalogue(path)


def test_a_contract_must_be_an_avro_schema(tmp_path: Path) -> None:
    unknown = [*DIVISIONS["fields"], {"name": "area", "type": "acre", "classification": "public"}]  # type: ignore[misc]
    path = write(tmp_path, VALID, contract=DIVISIONS | {"fields": unknown})

    with pytest.raises(CatalogueError, match=r"divisions.avsc: .*not an Avro schema: .*acre.*line 6\)"):
        read_catalogue(path)


def test_an_owner_opens_only_fields_that_exist(tmp_path: Path) -> None:
    opened = VALID.replace("share_type: conditional", "share_type: unconditional\n    owner_allows: [{}]")

    (resource,) = read_catalogue(write(tmp_path, opened.replace("{}", "officer"))).resources
    said = complaint(tmp_path, opened.replace("{}", "oficer"))

    assert resource.owner_allows == ("officer",)
    assert (
        "resources[0].owner_allows[0]: 'oficer' is not a field of stats.divisions; write one of code" in said
    )


def test_owner_allows_says_nothing_about_a_conditional_resource(tmp_path: Path) -> None:
    said = complaint(
        tmp_path,
        VALID.replace("share_type: conditional", "share_type: conditional\n    owner_allows: [officer]"),
    )

    assert "line 9: resources[0].owner_allows: only an unconditional resource needs it; remove it" in said


ENTRY = """\
    share_type: conditional
    entry:
      code: 330000A01/000001
      category: [基础信息资源, 行政区划]
      provider: 省统计局
      provider_code: 11330000DEM0000012
      abstract: Codes of divisions
      format: database
      items:
        - {name: code, title: 区划代码, type: C, length: 12, classification: public}
        - {name: officer, share_type: withheld}
      condition: Needed for a duty
      manner: platform
      open: true
      open_condition: by application
      update_cycle: yearly
      published_on: 2026-01-05
      related_codes: [330000A01/000002]
      legal_basis: Statistics law
"""
WITH_ENTRY = VALID.replace("    share_type: conditional\n", ENTRY)


def test_an_entry_says_what_the_catalogue_says(tmp_path: Path) -> None:
    (resource,) = read_catalogue(write(tmp_path, WITH_ENTRY)).resources

    assert resource.entry is not None
    assert entry_to_facts(resource.entry) == {
        "code": "330000A01/000001",
        "category": ["基础信息资源", "行政区划"],
        "provider": "省统计局",
        "provider_code": "11330000DEM0000012",
        "abstract": "Codes of divisions",
        "format": "database",
        "items": [
            {"name": "code", "title": "区划代码", "type": "C", "length": 12}
            | {"classification": "public", "share_type": None},
            {"name": "name", "title": "", "type": "C", "length": None}
            | {"classification": "public", "share_type": None},
            {"name": "officer", "title": "", "type": "C", "length": None}
            | {"classification": "sensitive", "share_type": "withheld"},
        ],
        "condition": "Needed for a duty",
        "manner": "platform",
        "open": True,
        "open_condition": "by application",
        "update_cycle": "yearly",
        "published_on": "2026-01-05",
        "related_codes": ["330000A01/000002"],
        "legal_basis": "Statistics law",
        "ground": "",
    }
    assert resource.contract.field("officer").share_type is ShareType.WITHHELD


def test_a_file_without_entries_reads_as_before(tmp_path: Path) -> None:
    catalogue = read_catalogue(write(tmp_path, VALID))

    assert catalogue.resources[0].entry is None
    assert catalogue.departments[0].department == Department(name="stats", title="Statistics bureau")
    assert catalogue.removals == ()


def test_the_update_cycle_follows_from_the_contract_where_nobody_says_it(tmp_path: Path) -> None:
    monthly = DIVISIONS | {"govbus": {"version": 1, "key": ["code"], "updateInterval": "P1M"}}
    unsaid = WITH_ENTRY.replace("      update_cycle: yearly\n", "")

    (resource,) = read_catalogue(write(tmp_path, unsaid, contract=monthly)).resources

    assert resource.entry is not None
    assert resource.entry.update_cycle is UpdateCycle.MONTHLY


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "condition: Needed for a duty",
            "ground: A law",
            "resources[0].entry: a conditional resource states",
        ),
        ("      abstract: Codes of divisions\n", "", "resources[0].entry.abstract: missing"),
        ("type: C", "type: X", "resources[0].entry.items[0].type: 'X' is none of them; write one of C, N"),
        ("type: C", "type: I", "the contract's type is C, not I"),
        ("length: 12", "length: -1", "items[0].length: not a length; write a whole number from 1"),
        ("{name: officer,", "{name: code,", "items[1]: 'code' is described twice"),
        ("{name: officer,", "{name: oficer,", "'oficer' is not a field of stats.divisions"),
        ("{name: officer, share_type: withheld}", "officer", "items[1]: not a mapping"),
        ("2026-01-05", "5.1.2026", "published_on: not a day; write it as 2026-01-31"),
        ("11330000DEM0000012", "11330000DEM0000013", "not the check character of the others (GB 32100)"),
        ("manner: platform", "manner: pigeon", "manner: 'pigeon' is none of them; write one of platform"),
        ("open: true", "open: maybe", "entry.open: 'maybe' is neither"),
        ("legal_basis", "basis", "resources[0].entry.basis: unknown; write one of abstract, "),
        ("[基础信息资源, 行政区划]", "基础信息资源/行政区划", "entry.category: not a list"),
    ],
)
def test_a_mistake_in_an_entry_is_named_with_its_place(
    tmp_path: Path, before: str, after: str, says: str
) -> None:
    assert before in WITH_ENTRY

    said = complaint(tmp_path, WITH_ENTRY.replace(before, after, 1))

    assert says in said
    assert "catalogue.yaml, line " in said


def test_a_department_says_where_it_stands(tmp_path: Path) -> None:
    text = VALID.replace(
        "    title: Statistics bureau\n",
        "    title: Statistics bureau\n    level: city\n    parent: quzhou\n"
        "    credit_code: 11330000DEM0000012\n    contact: Data office\n",
    )

    department = read_catalogue(write(tmp_path, text)).departments[0].department

    assert department == Department(
        name="stats",
        title="Statistics bureau",
        level=DepartmentLevel.CITY,
        parent="quzhou",
        credit_code="11330000DEM0000012",
        contact="Data office",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "credit_code: 11330000DEM0000013",
            "departments[0].credit_code: the last character is not the check",
        ),
        ("level: village", "departments[0].level: 'village' is none of them; write one of national, "),
        ("parent: quzhou", "departments[0].level: missing beside parent"),
    ],
)
def test_a_department_that_cannot_be_is_named_with_its_place(tmp_path: Path, words: str, says: str) -> None:
    said = complaint(tmp_path, VALID.replace("    title: Statistics", f"    {words}\n    title: Statistics"))

    assert says in said


def test_what_is_to_go_is_named_and_not_stated_as_well(tmp_path: Path) -> None:
    removing = VALID + "remove:\n  grants: [old-grant]\n  departments: [tax]\n  resources: [stats.old]\n"

    removals = read_catalogue(write(tmp_path, removing)).removals
    both = complaint(tmp_path, removing.replace("[tax]", "[stats]"))
    twice = complaint(tmp_path, removing.replace("[tax]", "[tax, tax]"))

    assert {(removal.kind, removal.name) for removal in removals} == {
        ("grant", "old-grant"),
        ("resource", "stats.old"),
        ("department", "tax"),
    }
    assert "line 19: department 'stats' is stated and to be removed; keep one" in both
    assert "'tax' is also at line 19" in twice


def test_the_digest_moves_with_the_file_and_with_each_contract(tmp_path: Path) -> None:
    first = read_catalogue(write(tmp_path, VALID)).digest

    assert read_catalogue(write(tmp_path, VALID)).digest == first
    assert read_catalogue(write(tmp_path, VALID + "# a remark\n")).digest != first
    documented = read_catalogue(write(tmp_path, VALID, contract=DIVISIONS | {"doc": "Codes"}))
    assert documented.digest != first
