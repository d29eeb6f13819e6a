"""Read a catalogue file: departments, resources and grants as people write them. Reads files.

The file is YAML, one document or several, each a mapping with ``departments``,
``resources`` and ``grants`` in any order. Reading is strict, because what is
misread here is later enforced as it stands:

1. An unknown word, a word given twice, a missing word or a value of another
   kind is an error; nothing is guessed and nothing is skipped.
2. Nothing means "all". A grant names its fields, and says ``rows: all`` when it
   lets every row through.
3. A point in time carries its zone, and a grant has an end.
4. Every problem is reported with file, line, field and what to write instead,
   all of them at once.

What a grant means against its resource (does the field exist, does the
transform fit) is judged in :mod:`govbus_console.control.plan`, which also knows
what is already in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import yaml
from fastavro.schema import SchemaParseException

from govbus.avro import Definitions, SchemaError
from govbus.catalogue import Department, ShareType
from govbus.codec import parse_schema, schemas_folder
from govbus.contract import DataContract, parse_contract
from govbus.errors import BusError, CatalogueError, TransformRefusedError
from govbus.grant import DataDuty, FieldRule
from govbus.topics import is_name
from govbus.transform import Keep, parse_transform

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 6
"""Of a transform's own arguments; a file that refers to itself would nest without end."""

_NAME_RULE = "lower-case words joined by hyphens, at most 80 characters"
_BROKER_USERS = frozenset({"admin", "exchange"})
"""Users of the bus itself; a department of that name would share their password and rights."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a catalogue file something stands."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartmentEntry:
    """One department as the file states it."""

    department: Department
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceEntry:
    """One resource as the file states it, with its contract read."""

    title: str
    share_type: ShareType
    contract: DataContract
    synthetic: bool
    """The owner says that the data are made up."""

    owner_allows: tuple[str, ...]
    """Sensitive or core fields that the owner opens to unconditional sharing."""

    place: Place

    @property
    def ref(self) -> str:
        """``owner.resource``."""
        return f"{self.contract.owner}.{self.contract.resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantEntry:
    """One grant as the file states it; the term may still be relative."""

    id: str
    subscriber: str
    owner: str
    resource: str
    fields: tuple[FieldRule, ...]
    """In the order of the file; :func:`govbus_console.control.plan.plan` puts them in contract order."""

    rows: str | None
    purpose: str
    starts_at: datetime | None
    """None: from the moment it is first applied."""

    expires_at: datetime | None
    term: timedelta | None
    """From ``starts_at``. Exactly one of ``expires_at`` and ``term`` is given."""

    data_on_end: DataDuty
    place: Place
    field_places: tuple[Place, ...]

    @property
    def ref(self) -> str:
        """``owner.resource``."""
        return f"{self.owner}.{self.resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueFile:
    """All that one file states."""

    path: Path
    departments: tuple[DepartmentEntry, ...]
    resources: tuple[ResourceEntry, ...]
    grants: tuple[GrantEntry, ...]


def read_catalogue(path: Path) -> CatalogueFile:
    """Read and check one catalogue file and the contracts that it names.

    Raises:
        CatalogueError: with one line for each problem: file, line, field, and the fix.
        TransformRefusedError: every problem is a transform that does not exist or lacks an argument.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CatalogueError(f"{path}: not UTF-8; save the file as UTF-8") from None
    return _Reader(path).read(text)


def raise_all(problems: list[BusError]) -> None:
    """Raise everything that is wrong as one error, of the kind that asks most of the reader.

    A mistake in the file outranks a refusal, since correcting it may change what is refused.
    """
    if not problems:
        return
    first = next((problem for problem in problems if isinstance(problem, CatalogueError)), problems[0])
    raise type(first)("\n".join(str(problem) for problem in problems))


_Entry = TypeVar("_Entry")
_Word = TypeVar("_Word", bound=StrEnum)


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


class _Reader:
    """Goes once through the YAML nodes, which unlike plain values know their lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems: list[BusError] = []

    def read(self, text: str) -> CatalogueFile:
        departments: list[DepartmentEntry] = []
        resources: list[ResourceEntry] = []
        grants: list[GrantEntry] = []
        for document in self._documents(text):
            words = self._words(document, "the document", {"departments", "resources", "grants"})
            departments += self._entries(words.get("departments"), "departments", self._department)
            resources += self._entries(words.get("resources"), "resources", self._resource)
            grants += self._entries(words.get("grants"), "grants", self._grant)
        self._no_two("departments", ((entry.department.name, entry.place) for entry in departments))
        self._no_two("resources", ((entry.ref, entry.place) for entry in resources))
        self._no_two("grants", ((entry.id, entry.place) for entry in grants))
        raise_all(self._problems)
        return CatalogueFile(
            path=self._path,
            departments=tuple(departments),
            resources=tuple(resources),
            grants=tuple(grants),
        )

    def _documents(self, text: str) -> list[yaml.MappingNode]:
        try:
            nodes = [node for node in yaml.compose_all(text, Loader=_Loader) if node is not None]
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise CatalogueError(f"{self._path}, line {line}: not YAML: {error.problem}") from None
        except yaml.YAMLError:
            raise CatalogueError(f"{self._path}: not YAML: it holds characters that YAML forbids") from None
        if not nodes:
            raise CatalogueError(f"{self._path}: empty; write departments, resources and grants")
        return [node for node in nodes if self._is_mapping(node, "the document")]

    def _entries(
        self, node: yaml.Node | None, name: str, read: Callable[[yaml.MappingNode, str], _Entry]
    ) -> list[_Entry]:
        entries: list[_Entry] = []
        try:
            items = self._items(node, name)
        except CatalogueError as error:
            self._problems.append(error)
            return entries
        for number, item in enumerate(items):
            if self._is_mapping(item, f"{name}[{number}]"):
                try:
                    entries.append(read(item, f"{name}[{number}]"))
                except BusError as error:
                    self._problems.append(error)
        return entries

    def _department(self, node: yaml.MappingNode, at: str) -> DepartmentEntry:
        words = self._words(node, at, {"name", "title"})
        name = self._name(node, words, at, "name")
        if name in _BROKER_USERS:
            raise self._wrong(
                words["name"], f"{at}.name", f"{name!r} is a user of the bus itself", "rename it"
            )
        return DepartmentEntry(
            department=Department(name=name, title=self._text(node, words, at, "title")),
            place=self._place(node),
        )

    def _resource(self, node: yaml.MappingNode, at: str) -> ResourceEntry:
        words = self._words(node, at, {"ref", "title", "share_type", "contract", "synthetic", "owner_allows"})
        owner, resource = self._ref(node, words, at, "ref")
        share_type = self._one_of(node, words, at, "share_type", ShareType)
        contract = self._contract(words.get("contract"), node, at, owner, resource)
        allows = []
        for number, item in enumerate(self._items(words.get("owner_allows"), f"{at}.owner_allows")):
            name = self._scalar(item, f"{at}.owner_allows[{number}]")
            if name not in contract.names:
                raise self._wrong(
                    item,
                    f"{at}.owner_allows[{number}]",
                    f"{name!r} is not a field of {owner}.{resource}",
                    f"write one of {', '.join(contract.names)}",
                )
            allows.append(name)
        if allows and share_type is not ShareType.UNCONDITIONAL:
            raise self._wrong(
                words["owner_allows"],
                f"{at}.owner_allows",
                "only an unconditional resource needs it",
                "remove it; a conditional grant names its fields",
            )
        return ResourceEntry(
            title=self._text(node, words, at, "title"),
            share_type=share_type,
            contract=contract,
            synthetic=self._flag(words.get("synthetic"), f"{at}.synthetic"),
            owner_allows=tuple(allows),
            place=self._place(node),
        )

    def _contract(
        self, given: yaml.Node | None, node: yaml.Node, at: str, owner: str, resource: str
    ) -> DataContract:
        if given is not None:
            places = [self._path.parent / self._scalar(given, f"{at}.contract")]
        else:
            usual = Path(owner) / f"{resource}.avsc"
            places = [
                self._path.parent / "avro_schemas" / usual,
                Path("avro_schemas") / usual,
                schemas_folder() / usual,
            ]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise self._wrong(
                given or node,
                f"{at}.contract",
                f"{owner}.{resource} has no contract at {places[0]}",
                'write the Avro schema there, or its path after "contract:"',
            )
        try:
            text = found.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self._wrong(
                given or node, f"{at}.contract", f"{found}: {type(error).__name__}", "make it readable UTF-8"
            ) from None
        try:
            contract = parse_contract(text, owner=owner, resource=resource)
            Definitions(contract.schema)
            parse_schema(0, contract.schema)
        except (SchemaError, SchemaParseException) as error:
            raise CatalogueError(
                f"{found}: not an Avro schema: {error} (named in {self._place(given or node)})"
            ) from None
        except CatalogueError as error:
            raise CatalogueError(f"{found}: {error} (named in {self._place(given or node)})") from None
        return contract

    def _grant(self, node: yaml.MappingNode, at: str) -> GrantEntry:
        words = self._words(
            node,
            at,
            {"id", "subscriber", "resource", "fields", "rows", "purpose"}
            | {"starts_at", "expires_at", "term_days", "data_on_end"},
        )
        owner, resource = self._ref(node, words, at, "resource")
        fields, field_places = self._fields(node, words, at)
        starts_at = self._moment(words.get("starts_at"), f"{at}.starts_at")
        expires_at, term = self._end(node, words, at)
        if starts_at is not None and expires_at is not None and expires_at <= starts_at:
            raise self._wrong(
                words["expires_at"],
                f"{at}.expires_at",
                "the end is not after the start",
                "write a later moment",
            )
        duty = DataDuty.DELETE
        if "data_on_end" in words:
            duty = self._one_of(node, words, at, "data_on_end", DataDuty)
        return GrantEntry(
            id=self._name(node, words, at, "id"),
            subscriber=self._name(node, words, at, "subscriber"),
            owner=owner,
            resource=resource,
            fields=fields,
            rows=self._rows(node, words, at),
            purpose=self._text(node, words, at, "purpose"),
            starts_at=starts_at,
            expires_at=expires_at,
            term=term,
            data_on_end=duty,
            place=self._place(node),
            field_places=field_places,
        )

    def _fields(
        self, node: yaml.MappingNode, words: dict[str, yaml.Node], at: str
    ) -> tuple[tuple[FieldRule, ...], tuple[Place, ...]]:
        given = self._required(node, words, at, "fields")
        rules: list[FieldRule] = []
        places: list[Place] = []
        for number, item in enumerate(self._items(given, f"{at}.fields")):
            here = f"{at}.fields[{number}]"
            rule = self._field(item, here)
            if any(rule.name == earlier.name for earlier in rules):
                raise self._wrong(item, here, f"{rule.name!r} is named twice", "keep one of the two")
            rules.append(rule)
            places.append(self._place(item))
        return tuple(rules), tuple(places)

    def _field(self, item: yaml.Node, here: str) -> FieldRule:
        if isinstance(item, yaml.ScalarNode):
            return FieldRule(name=self._scalar(item, here), transform=Keep())
        fix = "write a field name, or one name with its transform, e.g. birth_date: {generalise: year}"
        if not isinstance(item, yaml.MappingNode) or len(item.value) != 1:
            raise self._wrong(item, here, "not one field", fix)
        name_node, spec_node = item.value[0]
        name = self._scalar(name_node, here)
        spec = self._plain(spec_node, f"{here}.{name}")
        try:
            return FieldRule(name=name, transform=parse_transform(spec))
        except TransformRefusedError as error:
            raise TransformRefusedError(f"{self._place(spec_node)}: {here}.{name}: {error}") from None

    def _rows(self, node: yaml.MappingNode, words: dict[str, yaml.Node], at: str) -> str | None:
        fix = "write the condition as SQL, or the word all"
        if "rows" not in words:
            raise self._wrong(node, f"{at}.rows", "missing", fix)
        text = self._scalar(words["rows"], f"{at}.rows").strip()
        if not text:
            raise self._wrong(words["rows"], f"{at}.rows", "empty", fix)
        return None if text == "all" else text

    def _end(
        self, node: yaml.MappingNode, words: dict[str, yaml.Node], at: str
    ) -> tuple[datetime | None, timedelta | None]:
        if ("expires_at" in words) == ("term_days" in words):
            raise self._wrong(
                node,
                f"{at}.expires_at",
                "a grant needs one end",
                "write either expires_at: 2027-01-01T00:00:00+08:00 or term_days: 365",
            )
        if "expires_at" in words:
            return self._moment(words["expires_at"], f"{at}.expires_at"), None
        text = self._scalar(words["term_days"], f"{at}.term_days")
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 36_500:
            raise self._wrong(
                words["term_days"],
                f"{at}.term_days",
                "not a term",
                "write a whole number of days, 1 to 36500",
            )
        return None, timedelta(days=int(text))

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

    def _ref(
        self, node: yaml.MappingNode, words: dict[str, yaml.Node], at: str, word: str
    ) -> tuple[str, str]:
        text = self._scalar(self._required(node, words, at, word), f"{at}.{word}")
        owner, _, resource = text.partition(".")
        if not (is_name(owner) and is_name(resource)):
            raise self._wrong(
                words[word], f"{at}.{word}", f"{text!r} is not owner.resource", "write e.g. stats.divisions"
            )
        return owner, resource

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

    def _no_two(self, kind: str, named: Iterable[tuple[str, Place]]) -> None:
        seen: dict[str, Place] = {}
        for name, place in named:
            if name in seen:
                self._problems.append(
                    CatalogueError(
                        f"{place}: {kind}: {name!r} is also at line {seen[name].line}; keep one of the two"
                    )
                )
            seen.setdefault(name, place)

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._path, node.start_mark.line + 1)

    def _wrong(self, node: yaml.Node, at: str, detail: str, fix: str) -> CatalogueError:
        return CatalogueError(f"{self._place(node)}: {at}: {detail}; {fix}")
