"""A plan that is kept in a file, to be looked at by others and applied as it is, or not at all. Does I/O.

It holds what ``govbus plan --json`` prints, and two numbers of what was read for
it: a digest of the catalogue file with its contracts, and one of the store. When
either has moved, the plan that somebody approved is not the plan that would be
applied, and it is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from govbus.errors import CatalogueError, PlanMovedError
from govbus_console.control.catalogue_file import CatalogueFile
from govbus_console.control.store import Snapshot

_FORM = 1
"""Of the file; a plan of another form was made by another version, which planned otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a plan rests on."""

    catalogue_digest: str
    store_digest: str

    @classmethod
    def of(cls, catalogue: CatalogueFile, known: Snapshot) -> Basis:
        """Take note of what a plan was made from."""
        return cls(catalogue_digest=catalogue.digest, store_digest=store_digest(known))

    def check(self, catalogue: CatalogueFile, known: Snapshot) -> None:
        """Hold it against what is there now.

        Raises:
            PlanMovedError: the file, one of its contracts, or the store is not what it was.
        """
        if self.catalogue_digest != catalogue.digest:
            raise PlanMovedError(
                f"{catalogue.path} or one of its contracts has changed since the plan was made"
            )
        if self.store_digest != store_digest(known):
            raise PlanMovedError("the catalogue or a grant of record has changed since the plan was made")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """A plan in a file."""

    catalogue: Path
    """The catalogue file, as it was named."""

    basis: Basis

    @classmethod
    def load(cls, path: Path) -> SavedPlan:
        """Read a saved plan.

        Raises:
            CatalogueError: it cannot be read, or is no saved plan.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["govbus_plan"] != _FORM:
                raise PlanMovedError(f"{path}: made by another version of govbus")
            return cls(
                catalogue=Path(told["catalogue"]),
                basis=Basis(
                    catalogue_digest=str(told["catalogue_digest"]), store_digest=str(told["store_digest"])
                ),
            )
        except OSError as error:
            raise CatalogueError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise CatalogueError(f"{path}: not a plan that `govbus plan --out` has written") from None

    def save(self, path: Path, shown: Mapping[str, Any]) -> None:
        """Write it, with what was shown to whoever made it.

        Raises:
            CatalogueError: the file cannot be written.
        """
        told = {
            "govbus_plan": _FORM,
            "catalogue": str(self.catalogue),
            "catalogue_digest": self.basis.catalogue_digest,
            "store_digest": self.basis.store_digest,
            **shown,
        }
        try:
            path.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise CatalogueError(f"{path}: cannot be written: {error.strerror}") from None


def store_digest(known: Snapshot) -> str:
    """Everything that counts, in one number (SHA-256, hexadecimal)."""
    canonical = json.dumps(_plain(known), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Any value of a snapshot as JSON; types are named, because two transforms may have equal contents.

    What two snapshots are not compared by is left out.
    """
    if is_dataclass(value):
        named = {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.compare}
        return named | {"": type(value).__name__}
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime | date) else value
