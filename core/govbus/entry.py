"""What a catalogue says of a resource beside how it is shared: its entry.

The words are the core metadata of a government information resource catalogue
(政务信息资源目录编制指南), in English here with the Chinese term beside each.
An entry never widens what may be shared. Two of its words narrow it:

1. An item's own share type. A withheld item may be part of no grant; an item with conditions stays
   out of unconditional sharing unless the owner says otherwise (:mod:`govbus.policy` refuses).
2. An entry is checked against the share type: one with conditions states them, and one that
   withholds states its ground.

The information items (信息项) are the contract's fields, no more and no fewer:
what is not said of one is derived from the contract, and what is said must fit it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Any

from govbus.avro import Definitions
from govbus.catalogue import Classification, ShareType, check_credit_code
from govbus.contract import DataContract
from govbus.valuekind import value_branches, value_kind

_CODE = re.compile(r"\d{6}[0-9A-Za-z]*/\d+", re.ASCII)
_LONGEST_CODE = 80
_DEEPEST_CATEGORY = 4
_LONGEST_CATEGORY = 200
_LONGEST_ITEM = 2_147_483_647


class ItemType(StrEnum):
    """Data type of an information item (数据类型), by its letter in the guide."""

    CHARACTER = "C"
    """字符型"""

    NUMERIC = "N"
    """数值型"""

    DATE = "D"
    """日期型"""

    DATETIME = "T"
    """日期时间型"""

    LOGICAL = "L"
    """逻辑型"""

    INTEGER = "I"
    """整型"""

    FLOAT = "F"
    """浮点型"""


_TYPES: Mapping[str, tuple[ItemType, ...]] = {
    "boolean": (ItemType.LOGICAL,),
    "int": (ItemType.INTEGER, ItemType.NUMERIC),
    "long": (ItemType.INTEGER, ItemType.NUMERIC),
    "float": (ItemType.FLOAT, ItemType.NUMERIC),
    "double": (ItemType.FLOAT, ItemType.NUMERIC),
    "decimal": (ItemType.NUMERIC,),
    "date": (ItemType.DATE,),
    "timestamp": (ItemType.DATETIME,),
    "local-timestamp": (ItemType.DATETIME,),
}
"""What an Avro type (:func:`govbus.valuekind.value_kind`) can be called, the derived one first."""

_AS_TEXT = (ItemType.CHARACTER,)
"""Everything else, nested types included, has no letter of its own in the guide."""


class Format(StrEnum):
    """Form in which a resource is kept (信息资源格式)."""

    DATABASE = "database"
    """数据库"""

    SPREADSHEET = "spreadsheet"
    """电子表格"""

    DOCUMENT = "document"
    """电子文件"""

    IMAGE = "image"
    """图形图像"""

    STREAM = "stream"
    """流媒体"""

    SELF_DESCRIBED = "self-described"
    """自描述格式"""


class Manner(StrEnum):
    """Way in which a resource is shared (共享方式)."""

    PLATFORM = "platform"
    """共享平台: over this bus."""

    MAIL = "mail"
    """邮件"""

    MEDIUM = "medium"
    """介质交换: a disk or another medium handed over."""


class UpdateCycle(StrEnum):
    """How often a resource is brought up to date (更新周期)."""

    REAL_TIME = "real-time"
    """实时"""

    DAILY = "daily"
    """每日"""

    WEEKLY = "weekly"
    """每周"""

    MONTHLY = "monthly"
    """每月"""

    QUARTERLY = "quarterly"
    """每季度"""

    YEARLY = "yearly"
    """每年"""

    IRREGULAR = "irregular"
    """不定期"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidItem:
    """What an entry says of one information item; None where it leaves the word to the contract."""

    name: str
    title: str = ""
    type: ItemType | None = None
    length: int | None = None
    classification: Classification | None = None
    share_type: ShareType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One information item (信息项): a field of the contract as the catalogue describes it."""

    name: str
    """The contract's name of the field."""

    title: str
    """信息项名称; empty where nobody has said."""

    type: ItemType
    """数据类型"""

    length: int | None
    """数据长度, in characters or digits."""

    classification: Classification
    share_type: ShareType | None
    """The item's own (信息项共享类型); None: as the resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The catalogue entry of one resource."""

    code: str = ""
    """信息资源代码, opaque; empty where none has been given out."""

    category: tuple[str, ...] = ()
    """信息资源分类, from 类 over 项 and 目 to 细目: up to four names."""

    provider: str = ""
    """信息资源提供方; empty: the owning department."""

    provider_code: str = ""
    """提供方代码, a unified social credit code; empty: the owning department's."""

    abstract: str
    """信息资源摘要"""

    format: Format = Format.DATABASE
    items: tuple[Item, ...]
    condition: str = ""
    """共享条件: what a subscriber must meet; never empty for a conditional resource."""

    manner: Manner = Manner.PLATFORM
    open: bool = False
    """是否向社会开放: whether it may be opened to the public, too."""

    open_condition: str = ""
    """开放条件"""

    update_cycle: UpdateCycle = UpdateCycle.IRREGULAR
    published_on: date | None = None
    """发布日期"""

    related_codes: tuple[str, ...] = ()
    """关联资源代码"""

    legal_basis: str = ""
    """Law or rule under which the data are held and shared (法律依据)."""

    ground: str = ""
    """不予共享依据: the law, order or policy for not sharing; never empty for a withheld resource."""

    def __post_init__(self) -> None:
        if not self.abstract:
            raise ValueError("Entry.abstract must say what the resource is")
        if len(self.category) > _DEEPEST_CATEGORY or any(
            not 0 < len(name) <= _LONGEST_CATEGORY or name != name.strip() or "/" in name
            for name in self.category
        ):
            raise ValueError("Entry.category: one to four names (类/项/目/细目), not empty, without slashes")
        for code in (self.code, *self.related_codes):
            if code and not is_code(code):
                raise ValueError("Entry.code: printable characters without spaces, at most 80")
        if any(not code for code in self.related_codes):
            raise ValueError("Entry.related_codes: an empty code names nothing")
        if self.provider_code:
            check_credit_code(self.provider_code)
        if self.open_condition and not self.open:
            raise ValueError("Entry.open_condition says on what condition it is open, and it is not")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is accepted, and unusual enough to be said."""
        odd = [code for code in (self.code, *self.related_codes) if code and not is_regular_code(code)]
        return tuple(
            f"code {code!r} is not six digits, letters or digits, a slash and a number; taken as it is"
            for code in odd
        )


def is_code(text: str) -> bool:
    """Say whether ``text`` may stand for a resource code: platforms give out codes of many forms."""
    return 0 < len(text) <= _LONGEST_CODE and text.isprintable() and not any(c.isspace() for c in text)


def is_regular_code(text: str) -> bool:
    """Say whether a resource code has the form that the guide gives it."""
    return _CODE.fullmatch(text) is not None


def check_entry(entry: Entry, share_type: ShareType) -> None:
    """Hold an entry against the way in which its resource is shared.

    Raises:
        ValueError: a conditional resource without condition, a withheld one without ground or open to
            the public, or an item that is shared more freely than a withheld resource.
    """
    if share_type is ShareType.CONDITIONAL and not entry.condition:
        raise ValueError('a conditional resource states its condition; add "condition:"')
    if share_type is ShareType.WITHHELD:
        if not entry.ground:
            raise ValueError('a withheld resource states the ground for it; add "ground:"')
        if entry.open:
            raise ValueError("a withheld resource cannot be open to the public; remove one of the two")


def items_of(contract: DataContract, said: Iterable[SaidItem] = ()) -> tuple[Item, ...]:
    """Describe every field of a contract, from what is said and from the contract where nothing is.

    Raises:
        ValueError: what is said names no field, or does not fit the contract.
    """
    by_name = {item.name: item for item in said}
    unknown = [name for name in by_name if name not in contract.names]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is not a field of {contract.owner}.{contract.resource}; "
            f"write one of {', '.join(contract.names)}"
        )
    definitions = Definitions(contract.schema)
    types = {field["name"]: definitions.spell(field["type"]) for field in definitions.record["fields"]}
    return tuple(_item(contract, name, types[name], by_name.get(name)) for name in contract.names)


def _item(contract: DataContract, name: str, avro_type: Any, said: SaidItem | None) -> Item:
    grade = contract.field(name).classification
    allowed = _item_types(avro_type)
    said = said or SaidItem(name=name)
    if said.type is not None and said.type not in allowed:
        raise ValueError(f"item {name!r}: the contract's type is {' or '.join(allowed)}, not {said.type}")
    if said.classification not in (None, grade):
        raise ValueError(
            f"item {name!r}: the contract classifies it as {grade}, not {said.classification}; correct either"
        )
    if said.length is not None and not 1 <= said.length <= _LONGEST_ITEM:
        raise ValueError(f"item {name!r}: a length is a whole number from 1")
    if said.share_type is ShareType.WITHHELD and name in contract.key:
        raise ValueError(
            f"item {name!r} is part of the key, which every grant names; withhold the resource instead"
        )
    return Item(
        name=name,
        title=said.title,
        type=said.type or allowed[0],
        length=said.length,
        classification=grade,
        share_type=said.share_type,
    )


def _item_types(avro_type: Any) -> tuple[ItemType, ...]:
    found = [_TYPES.get(value_kind(branch), _AS_TEXT) for branch in value_branches(avro_type)]
    # A union of several types has no one type but text.
    return found[0] if found and all(types == found[0] for types in found) else _AS_TEXT


def with_items(contract: DataContract, entry: Entry | None) -> DataContract:
    """Give each field of a contract its item's own share type, where the policy looks for it."""
    own = {} if entry is None else {item.name: item.share_type for item in entry.items}
    fields = tuple(replace(field, share_type=own.get(field.name)) for field in contract.fields)
    return replace(contract, fields=fields)


def entry_to_facts(entry: Entry) -> dict[str, Any]:
    """An entry as plain values, for the store and for whoever reads JSON."""
    return {
        "code": entry.code,
        "category": list(entry.category),
        "provider": entry.provider,
        "provider_code": entry.provider_code,
        "abstract": entry.abstract,
        "format": entry.format.value,
        "items": [
            {
                "name": item.name,
                "title": item.title,
                "type": item.type.value,
                "length": item.length,
                "classification": item.classification.value,
                "share_type": None if item.share_type is None else item.share_type.value,
            }
            for item in entry.items
        ],
        "condition": entry.condition,
        "manner": entry.manner.value,
        "open": entry.open,
        "open_condition": entry.open_condition,
        "update_cycle": entry.update_cycle.value,
        "published_on": None if entry.published_on is None else entry.published_on.isoformat(),
        "related_codes": list(entry.related_codes),
        "legal_basis": entry.legal_basis,
        "ground": entry.ground,
    }


def entry_from_facts(facts: Mapping[str, Any]) -> Entry:
    """Read back what :func:`entry_to_facts` wrote."""
    return Entry(
        code=facts["code"],
        category=tuple(facts["category"]),
        provider=facts["provider"],
        provider_code=facts["provider_code"],
        abstract=facts["abstract"],
        format=Format(facts["format"]),
        items=tuple(
            Item(
                name=item["name"],
                title=item["title"],
                type=ItemType(item["type"]),
                length=item["length"],
                classification=Classification(item["classification"]),
                share_type=None if item["share_type"] is None else ShareType(item["share_type"]),
            )
            for item in facts["items"]
        ),
        condition=facts["condition"],
        manner=Manner(facts["manner"]),
        open=facts["open"],
        open_condition=facts["open_condition"],
        update_cycle=UpdateCycle(facts["update_cycle"]),
        published_on=None if facts["published_on"] is None else date.fromisoformat(facts["published_on"]),
        related_codes=tuple(facts["related_codes"]),
        legal_basis=facts["legal_basis"],
        ground=facts["ground"],
    )
