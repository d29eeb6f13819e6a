"""Where the contracts of a catalogue file come from: the files beside it, or what was sent with it.

1. On a department's own machine a contract is a file: the one that is named after ``contract:``,
   seen from the catalogue file, or ``avro_schemas/<owner>/<resource>.avsc`` beside it, here, or
   among those that govbus brings along.
2. What came from elsewhere brings its contracts with it. A path in it is a word and never opened:
   whoever sends a catalogue to the control side must not choose what is read there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from govbus.codec import schemas_folder


class NoContractError(Exception):
    """There is no such contract, or it cannot be read; the reader of the file makes a place of it."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.fix = fix


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractText:
    """A contract as it was written."""

    where: str
    """For people: a path, or whose contract it is."""

    text: str


class ContractSource(Protocol):
    """Asked once for each resource of a file."""

    def find(self, named: str | None, owner: str, resource: str) -> ContractText:
        """The contract of a resource.

        Args:
            named: what stands after ``contract:``; None when nothing does.
            owner: of the resource.
            resource: its name.

        Raises:
            NoContractError: it is not there, or cannot be read.
        """
        ...


class ContractsBeside:
    """Files, seen from the folder of the catalogue file. Does I/O."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, named: str | None, owner: str, resource: str) -> ContractText:
        """The first of the places that is a file."""
        if named is not None:
            places = [self._folder / named]
        else:
            usual = Path(owner) / f"{resource}.avsc"
            places = [
                self._folder / "avro_schemas" / usual,
                Path("avro_schemas") / usual,
                schemas_folder() / usual,
            ]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise NoContractError(
                f"{owner}.{resource} has no contract at {places[0]}",
                'write the Avro schema there, or its path after "contract:"',
            )
        try:
            return ContractText(where=str(found), text=found.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise NoContractError(f"{found}: {type(error).__name__}", "make it readable UTF-8") from None


class ContractsSent:
    """Those that came with the catalogue file, and no others."""

    def __init__(self, contracts: Mapping[str, ContractText]) -> None:
        """Take the contracts by ``owner.resource``."""
        self._contracts = contracts

    def find(self, named: str | None, owner: str, resource: str) -> ContractText:  # noqa: ARG002  never opened
        """The one that was sent for this resource."""
        found = self._contracts.get(f"{owner}.{resource}")
        if found is None:
            raise NoContractError(
                f"{owner}.{resource} has no contract among those that were sent", "send its Avro schema too"
            )
        return found
