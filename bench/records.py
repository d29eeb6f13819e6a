"""The input of the benchmarks, and what must come out of it.

Made from a seed, so that every run on every machine gets the same bytes:
registrations of made-up residents, thirteen fields, Chinese names and
addresses, about 120 bytes of Avro body. Half of the residents live in one
city, which is what the row filter asks for. Record n was updated n
milliseconds after the first, so order can be seen in the output.

The citizen numbers have a serial of 996 to 999, which nobody born in these
years was ever given, and a check character that is always ``?``: no such number
can exist.

What must come out is worked out here from the decoded rows, in plain Python,
by nobody who takes part.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import fastavro
import orjson

CITY = "3308"
"""Where half of the residents live."""

ROWS = f"city = '{CITY}'"
"""The row filter of the second output, as a grant states it."""

PROJECTED = ("id_number", "name", "city", "updated_at")
"""The fields of the first output."""

MASKED = "name"
"""The field of the first output of which only the first character is shown."""

_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭"
_GIVEN = "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超霞平刚桂红玉华建文志海国春梅兰飞鹏宇欣浩然思雨子轩梓涵一诺"
_CITIES = {
    CITY: (
        ("330802", "衢州市柯城区"),
        ("330803", "衢州市衢江区"),
        ("330881", "江山市"),
        ("330822", "常山县"),
    ),
    "3301": (("330106", "杭州市西湖区"), ("330108", "杭州市滨江区")),
    "3302": (("330203", "宁波市海曙区"),),
    "3307": (("330702", "金华市婺城区"), ("330782", "义乌市")),
}
_STREETS = (
    "荷花中路",
    "信安街道",
    "府山街",
    "新桥街",
    "上街",
    "双港东路",
    "九华北大道",
    "花园西大道",
    "白云中大道",
)
_MARITAL = ("single", "married", "married", "married", "divorced", "widowed")
_FIRST_BIRTH = date(1935, 1, 1)
_BIRTH_DAYS = 31_000
_FIRST_UPDATE = datetime(2024, 5, 1, tzinfo=UTC)


def contract_schema() -> dict[str, Any]:
    """Read the contract of the resource that is exchanged."""
    text = Path(__file__).with_name("residents.avsc").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def key_schema() -> dict[str, Any]:
    """Give the Avro record of the key field, as the contract derives it."""
    schema = contract_schema()
    return {
        "type": "record",
        "name": f"{schema['name']}Key",
        "namespace": schema["namespace"],
        "fields": [{"name": "id_number", "type": "string"}],
    }


def projected_schema() -> dict[str, Any]:
    """Give the schema of the first output for those peers that bring no views of their own."""
    schema = contract_schema()
    kept = [{"name": f["name"], "type": f["type"]} for f in schema["fields"] if f["name"] in PROJECTED]
    return {"type": "record", "name": "ResidentName", "namespace": "govbus.bench", "fields": kept}


def mask(name: str) -> str:
    """Show the first character, and as many stars as there are others."""
    return name[:1] + "*" * (len(name) - 1)


def rows(count: int, *, seed: int = 20240501) -> Iterator[dict[str, Any]]:
    """Make up ``count`` registrations, always the same ones for a seed, as fastavro reads and writes them."""
    chance = random.Random(seed)  # noqa: S311 - made-up people, not secrets
    cities = list(_CITIES)
    draw, below = chance.random, chance.randrange
    for number in range(count):
        city = CITY if draw() < 0.5 else cities[1 + below(3)]
        division, place = _CITIES[city][below(len(_CITIES[city]))]
        born = _FIRST_BIRTH + timedelta(days=below(_BIRTH_DAYS))
        size = 1 + below(6)
        yield {
            "id_number": f"{division}{born:%Y%m%d}{996 + below(4)}?",
            "name": _SURNAMES[below(len(_SURNAMES))]
            + _GIVEN[below(len(_GIVEN))]
            + (_GIVEN[below(len(_GIVEN))] if draw() < 0.75 else ""),
            "sex": "male" if draw() < 0.5 else "female",
            "birth_date": born,
            "phone": f"100{below(10**8):08}" if draw() < 0.8 else None,
            "division": division,
            "city": city,
            "address": f"{place}{_STREETS[below(len(_STREETS))]}{1 + below(400)}号{1 + below(30)}单元",
            "household_size": size,
            "floor_area": size * 28.5,
            "marital_state": _MARITAL[below(len(_MARITAL))],
            "insured": draw() < 0.9,
            "updated_at": _FIRST_UPDATE + timedelta(milliseconds=number),
        }


class Coder:
    """Reads and writes Avro bodies under one schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._parsed = fastavro.parse_schema(dict(schema), named_schemas={})

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """Write one body, without a header."""
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self._parsed, row)
        return buffer.getvalue()

    def decode(self, body: bytes) -> dict[str, Any]:
        """Read one body to its last byte; ValueError when bytes are left."""
        stream = io.BytesIO(body)
        row: dict[str, Any] = fastavro.schemaless_reader(stream, self._parsed, None)
        if stream.tell() != len(body):
            raise ValueError("bytes after the end of a record")
        return row


@dataclass(slots=True)
class Digest:
    """How many records there were and which ones, whatever their order.

    The sum of a 128-bit hash of each record: a missing, extra, repeated or
    altered record changes it.
    """

    count: int = 0
    total: int = 0

    def add(self, key: bytes, values: Sequence[Any]) -> None:
        """Take in one decoded record: its key's bytes and its values in the order of its schema."""
        mark = blake2b(key, digest_size=16)
        mark.update(orjson.dumps(values, option=orjson.OPT_NAIVE_UTC))
        self.total = (self.total + int.from_bytes(mark.digest(), "big")) % (1 << 128)
        self.count += 1

    def __str__(self) -> str:
        return f"{self.count} records, {self.total:032x}"


@dataclass(slots=True)
class Expected:
    """What the two outputs of the exchange must hold, by output."""

    projected: Digest = field(default_factory=Digest)
    full: Digest = field(default_factory=Digest)
    through: Digest = field(default_factory=Digest)
    """What a peer must deliver to each output that lets everything pass unchanged."""

    def add(self, key: bytes, row: Mapping[str, Any]) -> None:
        """Take in one row of the input, as fastavro has decoded it."""
        self.projected.add(key, [mask(row[n]) if n == MASKED else row[n] for n in PROJECTED])
        values = list(row.values())
        self.through.add(key, values)
        if row["city"] == CITY:
            self.full.add(key, values)
