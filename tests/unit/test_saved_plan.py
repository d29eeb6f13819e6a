"""A saved plan notices every change of what it was made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from govbus.catalogue import Department, ShareType
from govbus.errors import CatalogueError, PlanMovedError
from govbus.grant import FieldRule, GrantState
from govbus.transform import Keep, Null
from govbus_console.control.catalogue_file import CatalogueFile
from govbus_console.control.saved_plan import Basis, SavedPlan, store_digest
from govbus_console.control.store import Snapshot, StoredGrant, StoredResource, contract_text
from support.policies import CONTRACT, NOON, a_grant, a_resource, published

FIRMS = StoredResource(
    resource=a_resource(),
    contract=CONTRACT,
    contract_text=contract_text(CONTRACT),
    synthetic=False,
    owner_allows=(),
)
FILE = CatalogueFile(
    path=Path("catalogue.yaml"), departments=(), resources=(), grants=(), removals=(), digest="d1"
)


def known(**changes: Any) -> Snapshot:
    grant = a_grant(**changes)
    stored = StoredGrant(published=published(grant).grant, contract_version=1, made_at=NOON)
    return Snapshot(
        departments={"tax": Department(name="tax", title="Tax")},
        resources={"registrar.firms": FIRMS},
        grants={"tax-firms": stored},
    )


def a_saved_plan() -> SavedPlan:
    return SavedPlan(catalogue=FILE.path.absolute(), basis=Basis.of(FILE, known()))


def with_one_view(snapshot: Snapshot) -> Snapshot:
    """The same but for the view's id, which tells transforms apart, too."""
    stored = snapshot.grants["tax-firms"]
    same = replace(stored, published=replace(stored.published, view="v"))
    return replace(snapshot, grants={"tax-firms": same})


def withheld(snapshot: Snapshot) -> Snapshot:
    resource = replace(FIRMS, resource=a_resource(share_type=ShareType.WITHHELD))
    return replace(snapshot, resources={"registrar.firms": resource})


@pytest.mark.parametrize(
    "other",
    [
        lambda: known(purpose="another"),
        lambda: known(state=GrantState.SUSPENDED),
        lambda: known(rows="city = '3308'"),
        lambda: known(fields=(FieldRule(name="code", transform=Keep()),)),
        lambda: withheld(known()),
        lambda: replace(known(), departments={}),
        lambda: replace(known(), removed_departments={"old": Department(name="old", title="Old")}),
    ],
)
def test_the_digest_of_the_store_moves_with_everything_that_counts(other: Callable[[], Snapshot]) -> None:
    assert store_digest(known()) == store_digest(known())
    assert store_digest(other()) != store_digest(known())


def test_two_transforms_without_arguments_are_not_taken_for_each_other() -> None:
    key = FieldRule(name="code", transform=Keep())
    kept, nulled = (known(fields=(key, FieldRule(name="city", transform=how))) for how in (Keep(), Null()))

    assert store_digest(with_one_view(kept)) != store_digest(with_one_view(nulled))


def test_a_plan_is_good_for_what_it_was_made_from_alone(tmp_path: Path) -> None:
    a_saved_plan().save(tmp_path / "plan", {"changes": []})

    saved = SavedPlan.load(tmp_path / "plan")

    saved.basis.check(FILE, known())
    assert saved.catalogue == FILE.path.absolute()
    with pytest.raises(PlanMovedError, match="or one of its contracts has changed"):
        saved.basis.check(replace(FILE, digest="d2"), known())
    with pytest.raises(PlanMovedError, match="the catalogue or a grant of record has changed"):
        saved.basis.check(FILE, known(purpose="another"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"govbus_plan": 1}', "departments: []", '"x"'])
def test_what_is_no_saved_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan").write_text(text, encoding="utf-8")

    with pytest.raises(CatalogueError, match="not a plan"):
        SavedPlan.load(tmp_path / "plan")


def test_a_plan_of_another_form_is_refused(tmp_path: Path) -> None:
    a_saved_plan().save(tmp_path / "plan", {})
    told = json.loads((tmp_path / "plan").read_text(encoding="utf-8"))
    (tmp_path / "plan").write_text(json.dumps(told | {"govbus_plan": 2}), encoding="utf-8")

    with pytest.raises(PlanMovedError, match="another version"):
        SavedPlan.load(tmp_path / "plan")


def test_a_plan_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="cannot be read"):
        SavedPlan.load(tmp_path / "nowhere")
    with pytest.raises(CatalogueError, match="cannot be written"):
        a_saved_plan().save(tmp_path, {})
