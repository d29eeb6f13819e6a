"""Deliveries that no one would send on purpose, and what every sink must make of them.

Each case is a story: what is delivered, in order, and what stands in the store afterwards. A case
says what *both* stores do; where one of them cannot keep a value, it says which and what then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from govbus.codec import encode, frame, header
from support.landing_doubles import PaperLanding

CODE: Mapping[str, Any] = {"name": "code", "type": "string"}


def optional(name: str, avro_type: Any) -> dict[str, Any]:
    """A field that may be null."""
    return {"name": name, "type": ["null", avro_type], "default": None}


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One case."""

    name: str
    deliver: Callable[[PaperLanding], None]
    fields: Sequence[Mapping[str, Any]] = (CODE, optional("value", "string"))
    key: Sequence[str] = ("code",)
    rows: Sequence[tuple[Any, ...]] = ()
    """What a reader of SQLite sees."""

    postgresql_rows: Sequence[tuple[Any, ...]] | None = None
    """What a reader of PostgreSQL sees, where that differs."""

    dead_letters: Sequence[tuple[int, str]] = ()
    postgresql_dead_letters: Sequence[tuple[int, str]] | None = None

    def expected(self, store: str) -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
        """Rows and dead letters in a store, ``sqlite`` or ``postgresql``."""
        rows, letters = self.rows, self.dead_letters
        if store == "postgresql":
            rows = self.rows if self.postgresql_rows is None else self.postgresql_rows
            if self.postgresql_dead_letters is not None:
                letters = self.postgresql_dead_letters
        return sorted(rows, key=repr), list(letters)


def _rows(*rows: Mapping[str, Any]) -> Callable[[PaperLanding], None]:
    def deliver(landing: PaperLanding) -> None:
        for row in rows:
            landing.put(row)

    return deliver


def _values(*values: Any) -> Callable[[PaperLanding], None]:
    return _rows(*({"code": f"{place}", "value": value} for place, value in enumerate(values)))


def _many_changes_of_one_row(landing: PaperLanding) -> None:
    for number in range(50):
        landing.put({"code": "a", "value": f"{number}"})
        if number % 3 == 0:
            landing.remove(code="a")


def _born_and_gone(landing: PaperLanding) -> None:
    landing.put({"code": "a", "value": "x"})
    landing.remove(code="a")
    landing.remove(code="never there")
    landing.remove(code="a")


def _back_again(landing: PaperLanding) -> None:
    landing.put({"code": "a", "value": "first"})
    landing.remove(code="a")
    landing.put({"code": "a", "value": "second"})


def _value_of_another_row(landing: PaperLanding) -> None:
    landing.put({"code": "a", "value": "good"})
    landing.deliver(
        landing.key_of({"code": "b"}), encode(landing.value_schema, {"code": "a", "value": "bad"})
    )
    landing.put({"code": "c", "value": "good"})


def _broken(landing: PaperLanding) -> None:
    key = landing.key_of({"code": "a"})
    good = encode(landing.value_schema, {"code": "a", "value": "good"})
    landing.deliver(key, good)
    landing.deliver(key, b"")
    landing.deliver(key, b"\x00\x00")
    landing.deliver(key, b"\x01" + good[1:])
    landing.deliver(key, good[:-2])
    landing.deliver(key, good + b"\x00")
    landing.deliver(key, header(landing.value_schema.id))
    landing.deliver(key, frame(landing.value_schema.id, b"\x02a\x08"))
    landing.deliver(None, good)
    landing.deliver(b"", good)
    landing.deliver(key[:-1], good)
    landing.deliver(key + b"x", None)
    landing.deliver(b"code", None)
    landing.put({"code": "z", "value": "still going"})


def _not_utf8(landing: PaperLanding) -> None:
    landing.deliver(landing.key_of({"code": "a"}), frame(landing.value_schema.id, b"\x02a\x02\x04\xff\xfe"))
    landing.deliver(frame(landing.key_schema.id, b"\x02\xff"), None)
    landing.put({"code": "z", "value": "still going"})


def _someone_elses(landing: PaperLanding) -> None:
    foreign = landing.registry.add(landing.view([CODE, optional("value", "string")], grant="another"))
    bare = landing.registry.add(
        {"type": "record", "name": "RowView", "fields": [CODE, optional("value", "string")]}
    )
    landing.put({"code": "a", "value": "of another grant"}, foreign)
    landing.put({"code": "b", "value": "of no grant"}, bare)
    landing.deliver(landing.key_of({"code": "c"}), header(999) + b"\x02c\x00")
    landing.deliver(header(999) + b"\x02c", None)
    landing.deliver(header(landing.value_schema.id) + b"\x02c\x00", None)
    landing.put({"code": "z", "value": "ours"})


def _gaps(landing: PaperLanding) -> None:
    for number in range(5):
        key = landing.key_of({"code": f"{number}"})
        landing.deliver(
            key, encode(landing.value_schema, {"code": f"{number}", "value": "x"}), gap=1 + number * 7
        )


_NASTY_NAMES = [
    CODE,
    optional("select", "string"),
    optional("Value", "string"),
    optional("value", "string"),
    optional("_govbus_offset", "string"),
    optional("a" * 90, "string"),
    optional("a" * 89 + "b", "string"),
]

HOSTILE: tuple[Hostile, ...] = (
    Hostile(
        name="many changes of one row in one batch",
        deliver=_many_changes_of_one_row,
        rows=[("a", "49")],
    ),
    Hostile(name="a row is born and gone in one batch", deliver=_born_and_gone),
    Hostile(
        name="a row comes back in the batch that removed it", deliver=_back_again, rows=[("a", "second")]
    ),
    Hostile(
        name="the value names another row than the key",
        deliver=_value_of_another_row,
        rows=[("a", "good"), ("c", "good")],
        dead_letters=[(1, "contract-violation")],
    ),
    Hostile(
        name="broken bytes between good records",
        deliver=_broken,
        rows=[("a", "good"), ("z", "still going")],
        dead_letters=[(offset, "undecodable") for offset in range(1, 13)],
    ),
    Hostile(
        name="text that is not UTF-8",
        deliver=_not_utf8,
        rows=[("z", "still going")],
        dead_letters=[(0, "undecodable"), (1, "undecodable")],
    ),
    Hostile(
        name="schemas of someone else, of no one, and unknown",
        deliver=_someone_elses,
        rows=[("z", "ours")],
        dead_letters=[
            (0, "contract-violation"),
            (1, "contract-violation"),
            (2, "unknown-schema"),
            (3, "unknown-schema"),
            (4, "contract-violation"),
        ],
    ),
    Hostile(
        name="offsets with gaps",
        deliver=_gaps,
        rows=[(f"{number}", "x") for number in range(5)],
    ),
    Hostile(
        name="quotes, tabs, backslashes and letters of every plane",
        deliver=_values(
            "'; DROP TABLE rows; --", '"', "\\N", "\\", "a\tb\r\nc", "衢州市 🏛 ǅ ﷽", "", " ", "%s %% {}"
        ),
        rows=[
            (f"{place}", value)
            for place, value in enumerate(
                ["'; DROP TABLE rows; --", '"', "\\N", "\\", "a\tb\r\nc", "衢州市 🏛 ǅ ﷽", "", " ", "%s %% {}"]
            )
        ],
    ),
    Hostile(
        name="the character that PostgreSQL has no place for",
        deliver=_values("before", "a\x00b", "after"),
        rows=[("0", "before"), ("1", "a\x00b"), ("2", "after")],
        postgresql_rows=[("0", "before"), ("2", "after")],
        postgresql_dead_letters=[(1, "contract-violation")],
    ),
    Hostile(
        name="the same character in keys",
        deliver=lambda landing: (
            landing.put({"code": "a\x00", "value": "x"}),
            landing.remove(code="b\x00"),
            landing.put({"code": "c", "value": "y"}),
        )[-1],
        rows=[("a\x00", "x"), ("c", "y")],
        postgresql_rows=[("c", "y")],
        postgresql_dead_letters=[(0, "contract-violation"), (1, "contract-violation")],
    ),
    Hostile(
        name="the largest and smallest numbers",
        fields=[CODE, optional("small", "int"), optional("large", "long"), optional("real", "double")],
        deliver=_rows(
            {"code": "a", "small": 2**31 - 1, "large": 2**63 - 1, "real": 1.7976931348623157e308},
            {"code": "b", "small": -(2**31), "large": -(2**63), "real": 5e-324},
            {"code": "c", "small": None, "large": None, "real": None},
            {"code": "d", "small": 0, "large": 0, "real": float("inf")},
        ),
        rows=[
            ("a", 2**31 - 1, 2**63 - 1, 1.7976931348623157e308),
            ("b", -(2**31), -(2**63), 5e-324),
            ("c", None, None, None),
            ("d", 0, 0, float("inf")),
        ],
    ),
    Hostile(
        name="a number with more bits than its type",
        fields=[CODE, optional("large", "long"), optional("small", "int")],
        deliver=lambda landing: (
            landing.deliver(
                landing.key_of({"code": "a"}),
                frame(landing.value_schema.id, b"\x02a\x02" + b"\xfe" * 9 + b"\x7f" + b"\x00"),
            ),
            # A value that needs 64 bits where the schema says int.
            landing.deliver(
                landing.key_of({"code": "b"}),
                frame(landing.value_schema.id, b"\x02b\x00\x02" + b"\xfe" * 8 + b"\x7f"),
            ),
            landing.put({"code": "z", "large": 1, "small": 1}),
        )[-1],
        rows=[("z", 1, 1)],
        dead_letters=[(0, "undecodable"), (1, "undecodable")],
    ),
    Hostile(
        name="booleans, bytes and fixed",
        fields=[
            CODE,
            optional("yes", "boolean"),
            optional("raw", "bytes"),
            optional("four", {"type": "fixed", "name": "Four", "size": 4}),
        ],
        deliver=_rows(
            {"code": "a", "yes": True, "raw": b"\x00\xff\\x", "four": b"\x00\x00\x00\x01"},
            {"code": "b", "yes": False, "raw": b"", "four": None},
        ),
        rows=[("a", 1, b"\x00\xff\\x", b"\x00\x00\x00\x01"), ("b", 0, b"", None)],
        postgresql_rows=[("a", True, b"\x00\xff\\x", b"\x00\x00\x00\x01"), ("b", False, b"", None)],
    ),
    Hostile(
        name="records, arrays, maps and unions of several types",
        fields=[
            CODE,
            {
                "name": "home",
                "type": {"type": "record", "name": "Home", "fields": [{"name": "street", "type": "string"}]},
            },
            {"name": "tags", "type": {"type": "array", "items": "string"}},
            {"name": "more", "type": {"type": "map", "values": ["null", "bytes", "double"]}},
            {"name": "either", "type": ["null", "int", "string"]},
        ],
        deliver=_rows(
            {
                "code": "a",
                "home": {"street": '上街 "1"'},
                "tags": ["x", ""],
                "more": {"b": b"\xff"},
                "either": 7,
            },
            {"code": "b", "home": {"street": ""}, "tags": [], "more": {}, "either": "7"},
            {"code": "c", "home": {"street": ""}, "tags": [], "more": {"n": None, "d": 0.5}, "either": None},
        ),
        rows=[
            ("a", '{"street":"上街 \\"1\\""}', '["x",""]', '{"b":"/w=="}', "7"),
            ("b", '{"street":""}', "[]", "{}", '"7"'),
            ("c", '{"street":""}', "[]", '{"n":null,"d":0.5}', None),
        ],
    ),
    Hostile(
        name="a key of several fields of several types",
        fields=[
            {"name": "city", "type": "string"},
            {"name": "number", "type": "long"},
            {"name": "open", "type": "boolean"},
            optional("value", "string"),
        ],
        key=("city", "number", "open"),
        deliver=lambda landing: (
            landing.put({"city": "a", "number": 1, "open": True, "value": "x"}),
            landing.put({"city": "a", "number": 1, "open": False, "value": "y"}),
            landing.put({"city": "a", "number": 2, "open": True, "value": "z"}),
            landing.remove(city="a", number=1, open=True),
        )[-1],
        rows=[("a", 1, 0, "y"), ("a", 2, 1, "z")],
        postgresql_rows=[("a", 1, False, "y"), ("a", 2, True, "z")],
    ),
    Hostile(
        name="a row that is nothing but its key",
        fields=[CODE],
        deliver=lambda landing: (landing.put({"code": "a"}), landing.put({"code": "a"}))[-1],
        rows=[("a",)],
    ),
    Hostile(
        name="names that are words of SQL, differ in case only, are ours, or too long",
        fields=_NASTY_NAMES,
        deliver=_rows({each["name"]: f"{place}" for place, each in enumerate(_NASTY_NAMES)}),
        rows=[("0", "1", "2", "3", "4", "5", "6")],
    ),
)
