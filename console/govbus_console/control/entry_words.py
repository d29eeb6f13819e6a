"""Read a resource's ``entry:`` in a catalogue file: the core metadata of :mod:`govbus.entry`.

An entry is optional, so that a file which only shares stays short. Who writes
one writes it whole: an abstract, the condition of a conditional resource, the
ground of a withheld one.
"""

from __future__ import annotations

from datetime import date

import yaml

from govbus.catalogue import Classification, ShareType
from govbus.contract import DataContract
from govbus.entry import (
    Entry,
    Format,
    Item,
    ItemType,
    Manner,
    SaidItem,
    UpdateCycle,
    check_entry,
    items_of,
)
from govbus_console.control.yaml_nodes import NodeReader

_TEXTS = frozenset(
    {"code", "provider", "provider_code", "condition", "open_condition", "legal_basis", "ground"}
)
_WORDS = _TEXTS | {
    *("abstract", "category", "format", "items", "manner", "open", "update_cycle", "published_on"),
    "related_codes",
}

_CYCLES = {
    "P1D": UpdateCycle.DAILY,
    "P7D": UpdateCycle.WEEKLY,
    "P1W": UpdateCycle.WEEKLY,
    "P1M": UpdateCycle.MONTHLY,
    "P3M": UpdateCycle.QUARTERLY,
    "P1Y": UpdateCycle.YEARLY,
}
"""The contract's update interval (ISO 8601) in the catalogue's words."""


class EntryReader(NodeReader):
    """Reads entries; the reader of the file derives from it."""

    def _entry(self, node: yaml.MappingNode, at: str, contract: DataContract, share_type: ShareType) -> Entry:
        words = self._words(node, at, set(_WORDS))
        texts = {word: self._text(node, words, at, word) for word in sorted(_TEXTS & words.keys())}
        items = self._information_items(words.get("items"), f"{at}.items", contract)
        cycle = _CYCLES.get(contract.update_interval, UpdateCycle.IRREGULAR)
        try:
            entry = Entry(
                abstract=self._text(node, words, at, "abstract"),
                category=self._texts(words.get("category"), f"{at}.category"),
                related_codes=self._texts(words.get("related_codes"), f"{at}.related_codes"),
                format=self._one_of(node, words, at, "format", Format)
                if "format" in words
                else Format.DATABASE,
                manner=self._one_of(node, words, at, "manner", Manner)
                if "manner" in words
                else Manner.PLATFORM,
                update_cycle=self._one_of(node, words, at, "update_cycle", UpdateCycle)
                if "update_cycle" in words
                else cycle,
                open=self._flag(words.get("open"), f"{at}.open"),
                published_on=self._day(words.get("published_on"), f"{at}.published_on"),
                items=items,
                **texts,
            )
            check_entry(entry, share_type)
        except ValueError as error:
            raise self._wrong(node, at, str(error), "correct the entry") from None
        return entry

    def _information_items(self, node: yaml.Node | None, at: str, contract: DataContract) -> tuple[Item, ...]:
        said: list[SaidItem] = []
        for number, item in enumerate(self._items(node, at)):
            here = f"{at}[{number}]"
            if self._is_mapping(item, here):
                read = self._said_item(item, here)
                if any(read.name == earlier.name for earlier in said):
                    raise self._wrong(item, here, f"{read.name!r} is described twice", "keep one of the two")
                said.append(read)
        try:
            return items_of(contract, said)
        except ValueError as error:
            assert node is not None  # noqa: S101  what is derived alone contradicts nothing
            raise self._wrong(node, at, str(error), "correct the item") from None

    def _said_item(self, node: yaml.MappingNode, at: str) -> SaidItem:
        words = self._words(node, at, {"name", "title", "type", "length", "classification", "share_type"})
        length = None
        if "length" in words:
            text = self._scalar(words["length"], f"{at}.length")
            if not text.isascii() or not text.isdigit() or int(text) < 1:
                raise self._wrong(
                    words["length"], f"{at}.length", "not a length", "write a whole number from 1"
                )
            length = int(text)
        return SaidItem(
            name=self._text(node, words, at, "name"),
            title=self._text(node, words, at, "title") if "title" in words else "",
            type=self._one_of(node, words, at, "type", ItemType) if "type" in words else None,
            length=length,
            classification=self._one_of(node, words, at, "classification", Classification)
            if "classification" in words
            else None,
            share_type=self._one_of(node, words, at, "share_type", ShareType)
            if "share_type" in words
            else None,
        )

    def _texts(self, node: yaml.Node | None, at: str) -> tuple[str, ...]:
        return tuple(
            self._scalar(item, f"{at}[{number}]") for number, item in enumerate(self._items(node, at))
        )

    def _day(self, node: yaml.Node | None, at: str) -> date | None:
        if node is None:
            return None
        try:
            return date.fromisoformat(self._scalar(node, at))
        except ValueError:
            raise self._wrong(node, at, "not a day", "write it as 2026-01-31") from None
