"""The rows, fields and transforms that grants are made of here, each with its meaning in plain Python."""

from __future__ import annotations

import random

from chaos.model import Field, Rows, View, keep

CITIES = ("3308", "3301", "1100", "3100", None)
NAMES = ("衢州市信安机械厂", "杭州云栖数据有限公司", "Beijing Lantern Co.", "浦东🚢航运", "")

EVERY_ROW = Rows(sql=None, true=lambda _row: True)


def _begins(text: str | None, prefix: str) -> bool:
    return text is not None and text.startswith(prefix)


FILTERS = (
    EVERY_ROW,
    Rows(sql="city = '3308'", true=lambda row: row["city"] == "3308"),
    Rows(sql="city IN ('1100', '3100')", true=lambda row: row["city"] in ("1100", "3100")),
    Rows(
        sql="city LIKE '33%' AND staff >= 20",
        true=lambda row: _begins(row["city"], "33") and row["staff"] >= 20,
    ),
    Rows(sql="NOT city = '3301'", true=lambda row: row["city"] is not None and row["city"] != "3301"),
    Rows(sql="city IS NULL OR staff < 30", true=lambda row: row["city"] is None or row["staff"] < 30),
    Rows(sql="staff BETWEEN 10 AND 80", true=lambda row: 10 <= row["staff"] <= 80),
)


def _some_characters(text: str) -> str:
    return "*" * len(text) if len(text) <= 2 else text[:1] + "*" * (len(text) - 2) + text[-1:]


_TREATMENTS: dict[str, tuple[Field | None, ...]] = {
    "name": (
        None,
        keep("name"),
        Field(name="name", transform={"partial": {"head": 1, "tail": 1}}, shown=_some_characters),
        Field(name="name", transform={"redact": "-"}, shown=lambda _text: "-"),
        Field(name="name", transform={"truncate": 3}, shown=lambda text: text[:3]),
        Field(name="name", transform="null", shown=lambda _text: None),
    ),
    "city": (
        None,
        keep("city"),
        Field(
            name="city",
            transform={"generalise": {"prefix": 2}},
            shown=lambda text: None if text is None else text[:2],
        ),
    ),
    "staff": (
        None,
        keep("staff"),
        Field(name="staff", transform={"generalise": {"band": 25}}, shown=lambda n: n // 25 * 25),
    ),
}


def some_view(dice: random.Random, key: Field, *, other_than: View | None = None) -> View:
    """Draw a view; the key is always shown, and always in the same way."""
    while True:
        drawn = [dice.choice(choices) for choices in _TREATMENTS.values()]
        fields = (key, *(field for field in drawn if field is not None))
        view = View(rows=dice.choice(FILTERS), fields=fields, key=key)
        if other_than is None or view.name != other_than.name:
            return view
