"""What stands on record about a resource, and what to type after an answer."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from govbus.catalogue import Classification, Department, ShareType
from govbus.errors import RefusedError
from govbus.explanation import JUDGED, GateName, GrantVersion, Status, stopped, unknown
from govbus.grant import GrantState
from govbus_console import cli, render
from govbus_console.answers.explain import Explained, next_command
from govbus_console.answers.record import look_up
from govbus_console.control.store import ControlStore, StoredGrant, StoredResource, contract_text
from support.policies import CONTRACT, NOON, a_grant, a_resource, published

DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    """Firms were conditional on the first day and withheld on the third; tax's grant has two versions."""
    opened = ControlStore.open(f"sqlite:///{tmp_path / 'control.db'}")
    resource = StoredResource(
        resource=a_resource(),
        contract=CONTRACT,
        contract_text=contract_text(CONTRACT),
        synthetic=False,
        owner_allows=(),
    )
    grant = a_grant(rows="city = '3308'")
    with opened.writing(who="li", why="agreed", now=NOON) as writing:
        for name in ("registrar", "tax"):
            writing.department(Department(name=name, title=name))
        writing.resource(resource)
        writing.grant(StoredGrant(published=published(grant).grant, contract_version=1, made_at=NOON))
    with opened.writing(who="li", why="narrower", now=NOON + DAY) as writing:
        second = replace(grant, version=2, rows="city = '3301'")
        writing.grant(StoredGrant(published=published(second).grant, contract_version=1, made_at=NOON + DAY))
    with opened.writing(who="li", why="a new law", now=NOON + 2 * DAY) as writing:
        withheld = replace(resource.resource, share_type=ShareType.WITHHELD)
        writing.resource(replace(resource, resource=withheld, owner_allows=("staff",)))
    yield opened
    opened.close()


def test_the_version_that_counted_at_a_moment_is_found_not_the_one_that_counts_now(
    store: ControlStore,
) -> None:
    (agreement,) = look_up(store, "registrar.firms", subscriber="tax").agreements

    moments = [NOON - DAY, NOON, NOON + DAY - timedelta(seconds=1), NOON + DAY, NOON + 9 * DAY]

    assert [agreement.as_of(moment) for moment in moments] == [None, 0, 0, 1, 1]
    assert [version.grant.rows for version in agreement.versions] == ["city = '3308'", "city = '3301'"]


def test_the_share_type_is_the_one_of_the_moment(store: ControlStore) -> None:
    known = look_up(store, "registrar.firms")

    assert [known.share_type(NOON + days * DAY) for days in (-1, 0, 1, 2, 3)] == [
        None,
        ShareType.CONDITIONAL,
        ShareType.CONDITIONAL,
        ShareType.WITHHELD,
        ShareType.WITHHELD,
    ]


def test_a_field_that_the_owner_has_opened_counts_as_internal_from_then_on(store: ControlStore) -> None:
    known = look_up(store, "registrar.firms")
    sensitive = replace(known.contract(1, NOON).field("staff"), classification=Classification.SENSITIVE)
    contract = replace(CONTRACT, fields=(*CONTRACT.fields[:3], sensitive))
    marked = replace(known, _contracts={1: contract})

    grades = [marked.contract(1, NOON + days * DAY).field("staff").classification for days in (0, 2)]

    assert grades == [Classification.SENSITIVE, Classification.INTERNAL]


def test_what_is_not_there_is_refused_by_name(store: ControlStore) -> None:
    with pytest.raises(RefusedError, match=r"no resource registrar\.farms"):
        look_up(store, "registrar.farms")
    with pytest.raises(RefusedError, match="no department health"):
        look_up(store, "registrar.firms", subscriber="health")
    assert look_up(store, "registrar.firms", subscriber="registrar").agreements == ()


RECORD = 'registrar.firms/it\'s a "key"'


def _command(state: GrantState, *, gate: GateName | None, known: bool = True, looked: bool = False) -> str:
    gates = () if gate is None else (stopped(gate, "why"),)
    if not known:
        gates = (unknown(GateName.CAPTURED, "why"),)
    elif gate is None:
        gates = tuple(replace(stopped(name, "why"), status=Status.PASS) for name in JUDGED)
    granted = GrantVersion(published=published(a_grant(state=state)).grant, made_at=NOON)
    explained = Explained(granted=granted, gates=gates)
    return next_command(explained, RECORD, "tax", "registrar.firms", looked_landed=looked)


@pytest.mark.parametrize("state", GrantState)
@pytest.mark.parametrize("gate", [None, *JUDGED])
def test_the_next_command_is_one_that_can_be_typed(state: GrantState, gate: GateName | None) -> None:
    root = typer.main.get_command(cli.app)
    for looked in (False, True):
        for known in (False, True):
            program, name, *words = shlex.split(_command(state, gate=gate, known=known, looked=looked))

            assert program == "govbus"
            root.commands[name].make_context(name, words)  # type: ignore[attr-defined]


def test_a_suspended_grant_is_resumed_and_a_permitted_row_looked_for_at_its_landing() -> None:
    assert _command(GrantState.SUSPENDED, gate=GateName.GRANT) == "govbus resume tax-firms"
    assert _command(GrantState.ACTIVE, gate=None).endswith("--to tax --landing land.yaml")
    assert _command(GrantState.ACTIVE, gate=None, looked=True).startswith("govbus who-received ")
    assert _command(GrantState.ACTIVE, gate=GateName.VALID) == (
        "govbus tail govbus.dead-letter.registrar.firms"
    )


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        ("yesterday", "ISO 8601"),
        ("2026-01-01T08:00:00", "needs a zone"),
        pytest.param((datetime.now(UTC) + DAY).isoformat(), "lies ahead", id="tomorrow"),
    ],
)
def test_a_moment_that_cannot_be_meant_is_refused_before_anything_is_asked(
    moment: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.run(["explain", "--record", "a.b/1", "--to", "tax", "--at", moment])

    assert code == render.USAGE
    assert why in capsys.readouterr().err
