"""Many different views of one resource, and what each must deliver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Any

from bench.govbus_peer import Wanted
from bench.records import MASKED, Digest, contract_schema, mask

MOST = 55


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Four of thirteen fields, the name masked: no two views have the same fields."""

    grant: Wanted
    names: tuple[str, ...]
    """In contract order."""

    expected: Digest = field(default_factory=Digest)

    def add(self, key: bytes, row: Mapping[str, Any]) -> None:
        """Take in one row of the input."""
        self.expected.add(key, [mask(row[n]) if n == MASKED else row[n] for n in self.names])


def views(number: int, *, resource: str) -> list[View]:
    """Make up to 55 views of a resource, each for a department of its own."""
    if number > MOST:
        raise ValueError(f"there are {MOST} views")
    order = [f["name"] for f in contract_schema()["fields"]]
    others = [name for name in order if name not in ("id_number", MASKED)]
    found = []
    for at, pair in enumerate(islice(combinations(others, 2), number)):
        names = tuple(sorted(("id_number", MASKED, *pair), key=order.index))
        grant = Wanted(
            id=f"{resource}-view-{at}",
            subscriber=f"subscriber-{at}",
            resource=resource,
            fields=[{n: {"partial": {"head": 1}}} if n == MASKED else n for n in names],
        )
        found.append(View(grant=grant, names=names))
    return found
