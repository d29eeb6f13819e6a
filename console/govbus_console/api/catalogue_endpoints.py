"""Endpoints that plan and apply a catalogue file: its text and its contracts come in the body.

Nothing is read from this machine's disk by what stands in them, and a plan that was looked at
is applied as it was shown, or refused, as on the command line.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from fastapi import Depends

from govbus.errors import RefusedError
from govbus_console.api import plan_shapes
from govbus_console.api.access import Right
from govbus_console.api.catalogue_desk import CatalogueDesk
from govbus_console.api.given import TheCaller, TheDesk, TheServices
from govbus_console.api.licence import RoleLicence
from govbus_console.api.routing import Route, needs
from govbus_console.control.contract_source import ContractText
from govbus_console.control.saved_plan import Basis
from govbus_console.control.shown import Shown
from govbus_console.control.statement import Statement


def _catalogue_desk(services: TheServices, account: TheCaller, desk: TheDesk) -> CatalogueDesk:
    return CatalogueDesk(services.catalogue(account.name, RoleLicence(account)), desk)


TheCatalogue = Annotated[CatalogueDesk, Depends(_catalogue_desk)]


@needs(Right.PLAN)
def plan(catalogue: TheCatalogue, given: plan_shapes.StatementGiven) -> Shown:
    """What applying a catalogue file would change, and for whom. Changes nothing."""
    made, basis = catalogue.plan(_statement(given), count_seconds=given.count_seconds)
    return {"plan": made, "basis": asdict(basis)}


@needs(Right.PLAN)
def apply(catalogue: TheCatalogue, given: plan_shapes.ApplyGiven) -> Shown:
    """Bring the bus in line with a catalogue file: all of it, or nothing. Doing it again changes nothing."""
    basis = None if given.basis is None else Basis(**given.basis.model_dump())
    return catalogue.apply(_statement(given), basis=basis, why=given.why, count_seconds=given.count_seconds)


def _statement(given: plan_shapes.StatementGiven) -> Statement:
    contracts = {
        sent.resource: ContractText(where=f"contract of {sent.resource}", text=sent.avro)
        for sent in given.contracts
    }
    if len(contracts) < len(given.contracts):
        raise RefusedError("there are two contracts of one resource; send the one that counts")
    return Statement(path=Path(given.name), text=given.catalogue, contracts=contracts)


ROUTES: tuple[Route, ...] = (
    ("POST", "/plan", plan, plan_shapes.PlannedShown),
    ("POST", "/apply", apply, plan_shapes.AppliedShown),
)
