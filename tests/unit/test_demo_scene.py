"""What the demo writes for the departments is what the commands read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from govbus.catalogue import ShareType
from govbus.errors import GrantRefusedError
from govbus_console.control.catalogue_file import read_catalogue
from govbus_console.control.plan import Plan, plan
from govbus_console.control.store import ControlStore
from govbus_console.demo.divisions import Detail
from govbus_console.demo.scene import OWNERS, SUBSCRIBERS, Scene, sweep_every
from govbus_console.embedded import Home
from govbus_consumers.config import load_config as load_land
from govbus_producers.config import PollMode
from govbus_producers.config import load_config as load_capture

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(Home(tmp_path / "home"))


def _planned(path: Path, store_folder: Path) -> Plan:
    store_folder.mkdir(exist_ok=True)
    store = ControlStore.open(f"sqlite:///{store_folder / 'control.db'}")
    try:
        return plan(read_catalogue(path), store.snapshot(), now=NOON)
    finally:
        store.close()


def test_the_catalogue_can_be_applied_and_has_every_share_type(scene: Scene, tmp_path: Path) -> None:
    path = scene.write_catalogue()

    planned = _planned(path, tmp_path)

    assert {d.name for d in planned.departments} == {"stats", "civil", "health", "quzhou", "tax"}
    share_types = [resource.share_type for resource in planned.resources]
    assert share_types.count(ShareType.UNCONDITIONAL) == 1
    assert share_types.count(ShareType.CONDITIONAL) == 2
    assert share_types.count(ShareType.WITHHELD) == 1
    assert list(planned.grants) == []


def test_people_are_marked_as_made_up(scene: Scene, tmp_path: Path) -> None:
    path = scene.write_catalogue()

    synthetic = {resource.ref: resource.synthetic for resource in _planned(path, tmp_path).resources}

    assert synthetic.pop("stats.divisions") is False
    assert all(synthetic.values())


def test_the_forbidden_grant_is_refused(scene: Scene, tmp_path: Path) -> None:
    """Together with the catalogue, because the demo applies it after that."""
    path = scene.write_catalogue()
    forbidden = scene.write_forbidden_grant()
    both = tmp_path / "both.yaml"
    both.write_text(f"{path.read_text(encoding='utf-8')}\n---\n{forbidden.read_text(encoding='utf-8')}")

    with pytest.raises(GrantRefusedError, match="protected-for-tax"):
        _planned(both, tmp_path)


@pytest.mark.parametrize("department", OWNERS)
def test_capture_reads_what_is_written_for_it(scene: Scene, department: str) -> None:
    config = load_capture(scene.write_capture(department, Detail.AREAS), environment={})

    assert config.department == department
    assert config.source.database == str(scene.system(department))
    for table in config.tables:
        swept = 1 if table.mode is PollMode.HASH else table.sweep_every
        # The wait for capture rests on it: after so many polls the whole table has been read.
        assert swept <= sweep_every(f"{department}.{table.resource}", Detail.AREAS)


def test_both_ways_of_polling_are_played(scene: Scene) -> None:
    tables = load_capture(scene.write_capture("civil", Detail.STREETS), environment={}).tables

    assert {table.mode for table in tables} == {PollMode.HASH, PollMode.COLUMN}


@pytest.mark.parametrize("department", SUBSCRIBERS)
def test_land_reads_what_is_written_for_it(scene: Scene, department: str) -> None:
    config = load_land(scene.write_land(department), environment={})

    assert config.department == department
    assert config.sink.database == str(scene.landed(department))
    assert scene.landed(department) != scene.system(department)
