"""Take apart the nodes of a YAML file, which unlike plain values know their lines.

Strict: an unknown word, a word given twice or a value of another kind is an
error that names file, line, field and what to write instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import yaml

from govbus.errors import BusError, CatalogueError
from govbus.topics import is_name

_DEEPEST = 6
"""Of a transform's own arguments; a file that refers to itself would nest without end."""

_NAME_RULE = "lower-case words joined by hyphens, at most 80 characters"

_Word = TypeVar("_Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a catalogue file something stands."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}"


def _scalar_value(node: yaml.Node) -> bool | int | float | str | None:
    """The value of a YAML scalar by its tag; what looks like a date stays text."""
    text = str(node.value)
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() in {"true", "yes", "on"}
        case "int" if text.lstrip("+-").isdigit():
            return int(text)
        case "float" if text.replace(".", "", 1).lstrip("+-").isdigit():
            return float(text)
        case _:
            return text


class NodeReader:
    """What every part of a catalogue file is read with; whoever reads a part derives from it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems: list[BusError] = []

    def _moment(self, node: yaml.Node | None, at: str) -> datetime | None:
        if node is None:
            return None
        fix = "write date, time and zone, e.g. 2027-01-01T00:00:00+08:00"
        try:
            moment = datetime.fromisoformat(self._scalar(node, at))
        except ValueError:
            raise self._wrong(node, at, "not a moment", fix) from None
        if moment.tzinfo is None:
            raise self._wrong(node, at, "no time zone", fix)
        return moment

    def _flag(self, node: yaml.Node | None, at: str) -> bool:
        if node is None:
            return False
        text = self._scalar(node, at)
        if text not in {"true", "false"}:
            raise self._wrong(node, at, f"{text!r} is neither", "write true or false")
        return text == "true"

    def _name(self, node: yaml.MappingNode, words: dict[str, yaml.Node], at: str, word: str) -> str:
        text = self._scalar(self._required(node, words, at, word), f"{at}.{word}")
        if not is_name(text):
            raise self._wrong(words[word], f"{at}.{word}", f"{text!r} is not a name", f"write {_NAME_RULE}")
        return text

    def _text(self, node: yaml.MappingNode, words: dict[str, yaml.Node], at: str, word: str) -> str:
        text = self._scalar(self._required(node, words, at, word), f"{at}.{word}").strip()
        if not text:
            raise self._wrong(words[word], f"{at}.{word}", "empty", "write a few words")
        return text

    def _one_of(
        self, node: yaml.MappingNode, words: dict[str, yaml.Node], at: str, word: str, kind: type[_Word]
    ) -> _Word:
        text = self._scalar(self._required(node, words, at, word), f"{at}.{word}")
        try:
            return kind(text)
        except ValueError:
            choices = ", ".join(member.value for member in kind)
            raise self._wrong(
                words[word], f"{at}.{word}", f"{text!r} is none of them", f"write one of {choices}"
            ) from None

    def _required(self, node: yaml.MappingNode, words: dict[str, yaml.Node], at: str, word: str) -> yaml.Node:
        if word not in words:
            raise self._wrong(node, f"{at}.{word}", "missing", f'add "{word}:"')
        return words[word]

    def _words(self, node: yaml.MappingNode, at: str, known: set[str]) -> dict[str, yaml.Node]:
        words: dict[str, yaml.Node] = {}
        for key, value in node.value:
            word = self._scalar(key, at)
            if word not in known:
                self._problems.append(
                    self._wrong(key, f"{at}.{word}", "unknown", f"write one of {', '.join(sorted(known))}")
                )
            elif word in words:
                self._problems.append(self._wrong(key, f"{at}.{word}", "given twice", "keep one of the two"))
            words[word] = value
        return words

    def _items(self, node: yaml.Node | None, at: str) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self._wrong(node, at, "not a list", "begin each entry with a hyphen, or write []")
        return list(node.value)

    def _is_mapping(self, node: yaml.Node, at: str) -> TypeGuard[yaml.MappingNode]:
        if isinstance(node, yaml.MappingNode):
            return True
        self._problems.append(self._wrong(node, at, "not a mapping", "write word: value lines"))
        return False

    def _scalar(self, node: yaml.Node, at: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
            raise self._wrong(node, at, "not a single value", "write one word or text")
        return str(node.value)

    def _plain(self, node: yaml.Node, at: str, depth: int = 0) -> Any:
        """Turn a transform's arguments into plain values: numbers stay numbers."""
        if depth > _DEEPEST:
            raise self._wrong(node, at, "nested too deeply", "write the transform's arguments flat")
        if isinstance(node, yaml.MappingNode):
            names = [self._scalar(key, at) for key, _ in node.value]
            if len(set(names)) < len(names):
                raise self._wrong(node, at, "a word is given twice", "keep one of the two")
            return {
                name: self._plain(value, at, depth + 1)
                for name, (_, value) in zip(names, node.value, strict=True)
            }
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, at, depth + 1) for item in node.value]
        return _scalar_value(node)

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._path, node.start_mark.line + 1)

    def _wrong(self, node: yaml.Node, at: str, detail: str, fix: str) -> CatalogueError:
        return CatalogueError(f"{self._place(node)}: {at}: {detail}; {fix}")
