"""Read a catalogue file: departments, resources and grants as people write them. Reads files.

The file is YAML, one document or several, each a mapping with ``departments``,
``resources``, ``grants`` and ``remove`` in any order. Reading is strict, because what is
misread here is later enforced as it stands:

1. An unknown word, a word given twice, a missing word or a value of another
   kind is an error; nothing is guessed and nothing is skipped.
2. Nothing means "all". A grant names its fields, and says ``rows: all`` when it
   lets every row through.
3. A point in time carries its zone, and a grant has an end.
4. What is to go is named under ``remove``; what is just not there stays.
5. Every problem is reported with file, line, field and what to write instead,
   all of them at once.

What a grant means against its resource (does the field exist, does the
transform fit) is judged in :mod:`govbus_console.control.plan`, which also knows
what is already in the store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import yaml
from fastavro.schema import SchemaParseException

from govbus.avro import Definitions, SchemaError
from govbus.catalogue import Department, DepartmentLevel, ShareType, check_credit_code
from govbus.codec import parse_schema
from govbus.contract import DataContract, parse_contract
from govbus.entry import Entry, with_items
from govbus.errors import BusError, CatalogueError, TransformRefusedError
from govbus.grant import LARGEST_QUOTA, DataDuty, FieldRule
from govbus.topics import is_name
from govbus.transform import Keep, parse_transform
from govbus_console.control.contract_source import ContractsBeside, ContractSource, NoContractError
from govbus_console.control.entry_words import EntryReader
from govbus_console.control.yaml_nodes import Place

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LEVELS = ", ".join(DepartmentLevel)
_BROKER_USERS = frozenset({"admin", "exchange"})
"""Users of the bus itself; a department of that name would share their password and rights."""


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
    """Fields that the owner opens to unconditional sharing though they would stay out of it."""

    entry: Entry | None
    """What the catalogue says of it beside this; None where the file says no more."""

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
    quota_records_per_day: int | None
    quota_keys_per_day: int | None
    place: Place
    field_places: tuple[Place, ...]

    @property
    def ref(self) -> str:
        """``owner.resource``."""
        return f"{self.owner}.{self.resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One thing that the file says is to go."""

    kind: str
    """grant, resource or department"""

    name: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueFile:
    """All that one file states."""

    path: Path
    departments: tuple[DepartmentEntry, ...]
    resources: tuple[ResourceEntry, ...]
    grants: tuple[GrantEntry, ...]
    removals: tuple[Removal, ...]
    digest: str
    """SHA-256 of the file and of the contracts that it names, in hexadecimal: what was read."""


def read_catalogue(path: Path) -> CatalogueFile:
    """Read and check one catalogue file and the contracts that it names.

    Raises:
        CatalogueError: with one line for each problem: file, line, field, and the fix.
        TransformRefusedError: every problem is a transform that does not exist or lacks an argument.
    """
    return read_catalogue_text(text_of(path), path, ContractsBeside(path.parent))


def text_of(path: Path) -> str:
    """The text of a catalogue file. CatalogueError when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CatalogueError(f"{path}: not UTF-8; save the file as UTF-8") from None


def read_catalogue_text(text: str, path: Path, contracts: ContractSource) -> CatalogueFile:
    """The same of a text that is at hand; ``path`` is what messages call it."""
    try:
        return _Reader(path, contracts).read(text)
    except RecursionError:
        raise CatalogueError(f"{path}: it, or one of its contracts, is nested too deeply") from None


def raise_all(problems: list[BusError]) -> None:
    """Raise everything that is wrong as one error, of the kind that asks most of the reader.

    A mistake in the file outranks a refusal, since correcting it may change what is refused.
    """
    if not problems:
        return
    first = next((problem for problem in problems if isinstance(problem, CatalogueError)), problems[0])
    raise type(first)("\n".join(str(problem) for problem in problems))


def _digest(text: str, resources: Iterable[ResourceEntry]) -> str:
    """What was read, in one number: the same text with another contract is another plan."""
    digest = hashlib.sha256(text.encode())
    for resource in sorted(resources, key=lambda entry: entry.ref):
        schema = json.dumps(resource.contract.schema, ensure_ascii=True)
        digest.update(f"\0{resource.ref}\0{schema}".encode())
    return digest.hexdigest()


_EntryT = TypeVar("_EntryT")


class _Reader(EntryReader):
    """Goes once through the YAML nodes, which unlike plain values know their lines."""

    def __init__(self, path: Path, contracts: ContractSource) -> None:
        super().__init__(path)
        self._contracts = contracts

    def read(self, text: str) -> CatalogueFile:
        departments: list[DepartmentEntry] = []
        resources: list[ResourceEntry] = []
        grants: list[GrantEntry] = []
        removals: list[Removal] = []
        for document in self._documents(text):
            words = self._words(document, "the document", {"departments", "resources", "grants", "remove"})
            departments += self._entries(words.get("departments"), "departments", self._department)
            resources += self._entries(words.get("resources"), "resources", self._resource)
            grants += self._entries(words.get("grants"), "grants", self._grant)
            if "remove" in words and self._is_mapping(words["remove"], "remove"):
                removals += self._removals(words["remove"])
        self._no_two("departments", ((entry.department.name, entry.place) for entry in departments))
        self._no_two("resources", ((entry.ref, entry.place) for entry in resources))
        self._no_two("grants", ((entry.id, entry.place) for entry in grants))
        stated = {("department", entry.department.name) for entry in departments}
        stated |= {("resource", entry.ref) for entry in resources}
        stated |= {("grant", entry.id) for entry in grants}
        for kind in ("department", "resource", "grant"):
            named = [(removal.name, removal.place) for removal in removals if removal.kind == kind]
            self._no_two(f"remove.{kind}s", named)
            for name, place in named:
                if (kind, name) in stated:
                    self._problems.append(
                        CatalogueError(f"{place}: {kind} {name!r} is stated and to be removed; keep one")
                    )
        raise_all(self._problems)
        return CatalogueFile(
            path=self._path,
            departments=tuple(departments),
            resources=tuple(resources),
            grants=tuple(grants),
            removals=tuple(removals),
            digest=_digest(text, resources),
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
        self, node: yaml.Node | None, name: str, read: Callable[[yaml.MappingNode, str], _EntryT]
    ) -> list[_EntryT]:
        entries: list[_EntryT] = []
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
        words = self._words(node, at, {"name", "title", "level", "parent", "credit_code", "contact"})
        name = self._name(node, words, at, "name")
        if name in _BROKER_USERS:
            raise self._wrong(
                words["name"], f"{at}.name", f"{name!r} is a user of the bus itself", "rename it"
            )
        level = self._one_of(node, words, at, "level", DepartmentLevel) if "level" in words else None
        parent = self._name(node, words, at, "parent") if "parent" in words else None
        if parent is not None and level is None:
            raise self._wrong(
                words["parent"], f"{at}.level", "missing beside parent", f"write one of {_LEVELS}"
            )
        code = self._text(node, words, at, "credit_code") if "credit_code" in words else None
        if code is not None:
            try:
                check_credit_code(code)
            except ValueError as error:
                raise self._wrong(
                    words["credit_code"], f"{at}.credit_code", str(error), "correct it, or leave it out"
                ) from None
        return DepartmentEntry(
            department=Department(
                name=name,
                title=self._text(node, words, at, "title"),
                level=level,
                parent=parent,
                credit_code=code,
                contact=self._text(node, words, at, "contact") if "contact" in words else "",
            ),
            place=self._place(node),
        )

    def _removals(self, node: yaml.MappingNode) -> list[Removal]:
        words = self._words(node, "remove", {"departments", "resources", "grants"})
        found = []
        for word, kind in (("grants", "grant"), ("resources", "resource"), ("departments", "department")):
            for number, item in enumerate(self._items(words.get(word), f"remove.{word}")):
                name = self._scalar(item, f"remove.{word}[{number}]")
                found.append(Removal(kind=kind, name=name, place=self._place(item)))
        return found

    def _resource(self, node: yaml.MappingNode, at: str) -> ResourceEntry:
        words = self._words(
            node, at, {"ref", "title", "share_type", "contract", "synthetic", "owner_allows", "entry"}
        )
        owner, resource = self._ref(node, words, at, "ref")
        share_type = self._one_of(node, words, at, "share_type", ShareType)
        contract = self._contract(words.get("contract"), node, at, owner, resource)
        entry = None
        if "entry" in words and self._is_mapping(words["entry"], f"{at}.entry"):
            entry = self._entry(words["entry"], f"{at}.entry", contract, share_type)
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
            contract=with_items(contract, entry),
            synthetic=self._flag(words.get("synthetic"), f"{at}.synthetic"),
            owner_allows=tuple(allows),
            entry=entry,
            place=self._place(node),
        )

    def _contract(
        self, given: yaml.Node | None, node: yaml.Node, at: str, owner: str, resource: str
    ) -> DataContract:
        named = None if given is None else self._scalar(given, f"{at}.contract")
        try:
            found = self._contracts.find(named, owner, resource)
        except NoContractError as error:
            raise self._wrong(given or node, f"{at}.contract", str(error), error.fix) from None
        try:
            contract = parse_contract(found.text, owner=owner, resource=resource)
            Definitions(contract.schema)
            parse_schema(0, contract.schema)
        except (SchemaError, SchemaParseException) as error:
            raise CatalogueError(
                f"{found.where}: not an Avro schema: {error} (named in {self._place(given or node)})"
            ) from None
        except CatalogueError as error:
            raise CatalogueError(f"{found.where}: {error} (named in {self._place(given or node)})") from None
        return contract

    def _grant(self, node: yaml.MappingNode, at: str) -> GrantEntry:
        words = self._words(
            node,
            at,
            {"id", "subscriber", "resource", "fields", "rows", "purpose"}
            | {"starts_at", "expires_at", "term_days", "data_on_end"}
            | {"quota_records_per_day", "quota_keys_per_day"},
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
            quota_records_per_day=self._quota(words, at, "quota_records_per_day"),
            quota_keys_per_day=self._quota(words, at, "quota_keys_per_day"),
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

    def _quota(self, words: dict[str, yaml.Node], at: str, word: str) -> int | None:
        if word not in words:
            return None
        text = self._scalar(words[word], f"{at}.{word}")
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= LARGEST_QUOTA:
            raise self._wrong(
                words[word],
                f"{at}.{word}",
                "not a quota",
                f"write a whole number, 1 to {LARGEST_QUOTA}, or leave the line out",
            )
        return int(text)

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
