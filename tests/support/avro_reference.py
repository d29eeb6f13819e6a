# ruff: noqa: ARG002 (one signature for the readers of all types)
"""A slow and plain reader of Avro bodies, to hold the kernel against.

It says yes or no: a body is good when every Avro reader can read all of it.
Written from the Avro 1.12 specification, without the kernel's tricks and
without its code.
"""

from __future__ import annotations

from typing import Any

from govbus.avro import Definitions, shape_of

_WIDTHS = {"null": 0, "float": 4, "double": 8}


class Refused(Exception):  # noqa: N818 an answer, not an error
    """The body is not a record of the schema."""


def accepts(schema: Any, body: bytes, *, deepest: int, most_free_items: int) -> bool:
    """Whether ``body`` is exactly one record of ``schema``, within the two limits."""
    reader = _Reader(Definitions(schema), body, deepest, most_free_items)
    try:
        reader.record()
    except Refused:
        return False
    return reader.rest == b""


class _Reader:
    def __init__(self, definitions: Definitions, body: bytes, deepest: int, free_items: int) -> None:
        self.definitions = definitions
        self.rest = body
        self.deepest = deepest
        self.free_items = free_items

    def record(self) -> None:
        for field in self.definitions.record["fields"]:
            self.read(field["type"], 0)

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.rest):
            raise Refused
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def number(self, bits: int) -> int:
        groups: list[int] = []
        while not groups or groups[-1] & 0x80:
            groups.append(self.take(1)[0])
            if len(groups) > (bits + 6) // 7:
                raise Refused
        coded = sum((group & 0x7F) << 7 * place for place, group in enumerate(groups))
        if coded >= 2**bits:
            raise Refused
        return -(coded // 2) - 1 if coded % 2 else coded // 2

    def text(self) -> None:
        try:
            self.take(self.number(64)).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused from None

    def read(self, node: Any, depth: int) -> None:
        definition = self.definitions.definition(node)
        kind = shape_of(definition)
        if kind in ("record", "array", "map"):
            if kind == "record" and takes_no_bytes(self.definitions, node):
                return
            depth += 1
            if depth > self.deepest:
                raise Refused
        getattr(self, f"_{kind}")(definition, depth)

    def _null(self, definition: Any, depth: int) -> None:
        pass

    def _float(self, definition: Any, depth: int) -> None:
        self.take(4)

    def _double(self, definition: Any, depth: int) -> None:
        self.take(8)

    def _boolean(self, definition: Any, depth: int) -> None:
        if self.take(1)[0] > 1:
            raise Refused

    def _int(self, definition: Any, depth: int) -> None:
        self.number(32)

    def _long(self, definition: Any, depth: int) -> None:
        self.number(64)

    def _bytes(self, definition: Any, depth: int) -> None:
        self.take(self.number(64))

    def _string(self, definition: Any, depth: int) -> None:
        self.text()

    def _fixed(self, definition: Any, depth: int) -> None:
        self.take(definition["size"])

    def _enum(self, definition: Any, depth: int) -> None:
        if not 0 <= self.number(32) < len(definition["symbols"]):
            raise Refused

    def _union(self, definition: Any, depth: int) -> None:
        branch = self.number(32)
        if not 0 <= branch < len(definition):
            raise Refused
        self.read(definition[branch], depth)

    def _record(self, definition: Any, depth: int) -> None:
        for field in definition["fields"]:
            self.read(field["type"], depth)

    def _array(self, definition: Any, depth: int) -> None:
        self._blocks(definition["items"], depth, keyed=False)

    def _map(self, definition: Any, depth: int) -> None:
        self._blocks(definition["values"], depth, keyed=True)

    def _blocks(self, item: Any, depth: int, *, keyed: bool) -> None:
        free = not keyed and takes_no_bytes(self.definitions, item)
        while (count := self.number(64)) != 0:
            after = None
            if count < 0:
                count = -count
                size = self.number(64)
                after = len(self.rest) - size
                if size < 0 or after < 0:
                    raise Refused
            if free:
                self.free_items -= count
                if self.free_items < 0:
                    raise Refused
            elif count > len(self.rest):
                raise Refused
            for _ in range(count):
                if keyed:
                    self.text()
                self.read(item, depth)
            if after is not None and len(self.rest) != after:
                raise Refused


def takes_no_bytes(definitions: Definitions, node: Any, inside: tuple[Any, ...] = ()) -> bool:
    """Whether every value of a type is encoded as nothing."""
    definition = definitions.definition(node)
    kind = shape_of(definition)
    if kind == "record":
        return node not in inside and all(
            takes_no_bytes(definitions, field["type"], (*inside, node)) for field in definition["fields"]
        )
    return kind == "null" or (kind == "fixed" and definition["size"] == 0)
