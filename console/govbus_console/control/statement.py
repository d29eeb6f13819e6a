"""A catalogue file with its contracts, as text that can travel. Reads files.

Planning and applying begin with one of these, on the command line as behind the
API: what is sent is what was read, so both work out the same digest of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from govbus_console.control.catalogue_file import CatalogueFile, read_catalogue_text, text_of
from govbus_console.control.contract_source import ContractsBeside, ContractsSent, ContractText


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What somebody states about departments, resources and grants."""

    path: Path
    """What messages call it; it need not exist here."""

    text: str
    contracts: Mapping[str, ContractText]
    """Of the resources that it states, by ``owner.resource``."""

    def read(self) -> CatalogueFile:
        """Check it and take it apart.

        Raises:
            CatalogueError, TransformRefusedError: as :func:`.catalogue_file.read_catalogue`.
        """
        return read_catalogue_text(self.text, self.path, ContractsSent(self.contracts))


class _Noting:
    """Files, and what was read of them."""

    def __init__(self, folder: Path) -> None:
        self._files = ContractsBeside(folder)
        self.read: dict[str, ContractText] = {}

    def find(self, named: str | None, owner: str, resource: str) -> ContractText:
        found = self._files.find(named, owner, resource)
        self.read[f"{owner}.{resource}"] = found
        return found


def statement_at(path: Path) -> Statement:
    """Read a catalogue file and the contracts that it names, and check them where they are.

    Raises:
        CatalogueError, TransformRefusedError: as :func:`.catalogue_file.read_catalogue`.
    """
    source = _Noting(path.parent)
    text = text_of(path)
    read_catalogue_text(text, path, source)
    return Statement(path=path, text=text, contracts=source.read)
