# mypy: disable-error-code="untyped-decorator"
# ruff: noqa: PLR0911, PLR0912
# (Cython's decorators have no types, what they decorate has. And a walk has one branch for each Avro type:
# split into functions it would be slower and no clearer.)
"""Find each field of an Avro record without decoding it, and put chosen ones together again.

A :class:`Walker` knows one writer schema. It walks a record body once, checks
every byte of it, and remembers where each top-level field begins and ends. A
:class:`Splicer` then builds another body from those ranges: fields that are
kept go over as they are, neighbours in one piece, and only what has to change
is decoded.

What is promised:

1. A body is accepted only if every Avro reader can read all of it: nothing cut short, nothing left over, text
   in UTF-8, numbers that fit, branches and symbols that exist, booleans that are 0 or 1, block sizes that are
   true. Anything else is a :class:`MalformedAvroError`, whose text names the field and never shows its value.
2. Nothing outside the body is read, however wrong its lengths are.
3. The work is bounded by the length of the body: values nest at most ``DEEPEST_VALUE`` deep, and items that
   take no bytes (an array of nulls) are counted against ``MOST_FREE_ITEMS`` a record.
4. ``Walker.value`` gives what fastavro gives for the same bytes.

This file is Python, and Cython compiles it as it stands (hatch_build.py). Where
no compiler was at hand it runs interpreted: the same answers, slower. The tests
hold both against fastavro.

Neither class may be used by two threads at once: they remember the last record.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cython
from fastavro import parse_schema, schemaless_reader
from fastavro.read import LOGICAL_READERS

from govbus.avro import Definitions, shape_of

if cython.compiled:
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
    from cython.cimports.libc.string import memcmp, memcpy

COMPILED: bool = bool(cython.compiled)
"""Whether this is the compiled kernel."""

DEEPEST_VALUE = 128
"""Records, arrays and maps inside one another. A linked list of this length is no longer a row of a table."""

MOST_FREE_ITEMS = 65_536
"""Array items without bytes in one record. Ten bytes can claim 2**63 nulls, and a decoder would make them."""

_DEEPEST = cython.declare(cython.int, DEEPEST_VALUE)
_FREE = cython.declare(cython.longlong, MOST_FREE_ITEMS)
# In C, a literal of this size would be a Python object.
_HIGH_BITS = cython.declare(cython.ulonglong, 0x8080808080808080)

# Steps of a walk return where they stopped, or one of these. Positions are never negative.
_CUT_SHORT = cython.declare(cython.Py_ssize_t, -1)
_LONG_NUMBER = cython.declare(cython.Py_ssize_t, -2)
_NEGATIVE_LENGTH = cython.declare(cython.Py_ssize_t, -3)
_NOT_UTF8 = cython.declare(cython.Py_ssize_t, -4)
_NOT_BOOLEAN = cython.declare(cython.Py_ssize_t, -5)
_NO_BRANCH = cython.declare(cython.Py_ssize_t, -6)
_NO_SYMBOL = cython.declare(cython.Py_ssize_t, -7)
_FALSE_BLOCK = cython.declare(cython.Py_ssize_t, -8)
_TOO_DEEP = cython.declare(cython.Py_ssize_t, -9)
_TOO_MANY = cython.declare(cython.Py_ssize_t, -10)

_REASONS = {
    -1: "cut short",
    -2: "a number that is too large for its type",
    -3: "a negative length",
    -4: "text that is not UTF-8",
    -5: "a boolean that is neither 0 nor 1",
    -6: "a union branch that does not exist",
    -7: "an enum symbol that does not exist",
    -8: "a block that is not as long as it says",
    -9: "values nested too deep",
    -10: "too many items without content",
}

# A node of the program is an opcode and its arguments, in a flat array of C ints. `aux` is an index into
# the walker's Python objects (symbols, logical types) or -1. The opcodes stand as numbers where they are
# used, because a compiler makes a jump table only of literals.
#
#   0 null, 1 boolean, 2 int, 3 long, 4 float, 5 double, 6 bytes, 7 string: [op, aux]
#   8 fixed: [op, aux, size]      9 enum: [op, aux, symbols, logical aux]
#   10 union: [op, branches, node...]
#   11 array: [op, item node, whether items take no bytes]     12 map: [op, value node, 0]
#   13 record: [op, fields, node...]     14 a record that takes no bytes: [op]
_OPCODES = {
    "null": 0,
    "boolean": 1,
    "int": 2,
    "long": 3,
    "float": 4,
    "double": 5,
    "bytes": 6,
    "string": 7,
    "fixed": 8,
    "enum": 9,
    "union": 10,
    "array": 11,
    "map": 12,
    "record": 13,
    "empty": 14,
}


class MalformedAvroError(ValueError):
    """The bytes are not a record of the schema. Says what is wrong and in which field, and shows no value."""

    def __init__(self, reason: str, field: str | None) -> None:
        super().__init__(f"field {field!r}: {reason}" if field is not None else reason)
        self.reason = reason
        self.field = field


class _Program:
    """The flat form of a record schema while it is being put together."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.definitions = Definitions(schema)
        self.code: list[int] = []
        self.objects: list[Any] = []
        self._nodes: dict[str, int] = {}
        self._free: dict[str, bool] = {}
        record = self.definitions.record
        self.fields: list[dict[str, Any]] = record["fields"]
        # The root is laid out even when none of its fields takes a byte: its nodes are the top-level fields.
        self._record(self.definitions.root.name, self.fields)

    def decodable(self, node: int) -> bool:
        """Whether the kernel itself can turn such a value into Python: a scalar, or a union of scalars."""
        op = self.code[node]
        if op == _OPCODES["union"]:
            branches = self.code[node + 2 : node + 2 + self.code[node + 1]]
            return all(self.code[branch] < _OPCODES["union"] for branch in branches)
        return op < _OPCODES["union"]

    def _node(self, node: Any) -> int:
        definition = self.definitions.definition(node)
        kind = shape_of(definition)
        if kind == "record":
            if self._takes_no_bytes(node):
                # As cheap to walk as a null, however many fields it has.
                return self._emit([_OPCODES["empty"]])
            known = self._nodes.get(node.name)
            return self._record(node.name, definition["fields"]) if known is None else known
        if kind == "union":
            return self._emit([_OPCODES["union"], len(definition), *map(self._node, definition)])
        if kind == "array":
            item = self._node(definition["items"])
            return self._emit([_OPCODES["array"], item, int(self._takes_no_bytes(definition["items"]))])
        if kind == "map":
            return self._emit([_OPCODES["map"], self._node(definition["values"]), 0])
        logical = self._logical(kind, definition)
        if kind == "fixed":
            return self._emit([_OPCODES["fixed"], logical, definition["size"]])
        if kind == "enum":
            self.objects.append(tuple(definition["symbols"]))
            return self._emit([_OPCODES["enum"], len(self.objects) - 1, len(definition["symbols"]), logical])
        return self._emit([_OPCODES[kind], logical])

    def _emit(self, code: list[int]) -> int:
        self.code.extend(code)
        return len(self.code) - len(code)

    def _record(self, name: str, fields: list[dict[str, Any]]) -> int:
        start = self._emit([_OPCODES["record"], len(fields), *([0] * len(fields))])
        self._nodes[name] = start
        for index, field in enumerate(fields):
            self.code[start + 2 + index] = self._node(field["type"])
        return start

    def _logical(self, kind: str, definition: Any) -> int:
        if not isinstance(definition, dict):
            return -1
        reader = LOGICAL_READERS.get(f"{kind}-{definition.get('logicalType')}")
        if reader is None:
            return -1
        self.objects.append((reader, definition))
        return len(self.objects) - 1

    def _takes_no_bytes(self, node: Any) -> bool:
        definition = self.definitions.definition(node)
        kind = shape_of(definition)
        if kind == "fixed":
            return bool(definition["size"] == 0)
        if kind != "record":
            return kind == "null"
        if node.name not in self._free:
            # A record inside itself can never be written down, so it does not count as free.
            self._free[node.name] = False
            self._free[node.name] = all(self._takes_no_bytes(field["type"]) for field in definition["fields"])
        return self._free[node.name]


@cython.final
@cython.cclass
class Walker:
    """Walks record bodies of one writer schema.

    Raises:
        SchemaError: the schema is not an Avro record schema.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        program = _Program(schema)
        self._schema = dict(schema)
        self._fingerprint = json.dumps(schema, sort_keys=True)
        self._names = tuple([field["name"] for field in program.fields])
        self._objects = program.objects
        self._width = len(self._names)
        self._fast = [program.decodable(program.code[2 + i]) for i in range(len(self._names))]
        self._parsed: dict[int, Any] = {}
        self._data = b""
        self._walked = False
        if cython.compiled:
            # The arrays live in Python objects, so that nothing here has to be freed by hand.
            self._keep = (
                struct.pack(f"={len(program.code)}i", *program.code),
                bytearray((self._width + 1) * cython.sizeof(cython.Py_ssize_t)),
            )
            self._program = cython.cast(cython.p_int, cython.cast(cython.p_char, self._keep[0]))
            self._bounds = cython.cast(cython.p_Py_ssize_t, cython.cast(cython.p_char, self._keep[1]))
        else:
            self._program = program.code
            self._bounds = [0] * (self._width + 1)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the top-level fields, in the writer's order."""
        return self._names

    @property
    def schema(self) -> dict[str, Any]:
        """The writer schema as it was given."""
        return self._schema

    @property
    def fingerprint(self) -> str:
        """Equal for walkers of equal schemas, and only for them."""
        return self._fingerprint

    def walk(self, data: bytes, start: cython.Py_ssize_t = 0) -> None:
        """Check the body that fills ``data`` from ``start`` on, and remember where its fields are.

        Raises:
            MalformedAvroError: the body is not exactly one record of the schema; no record is
                remembered then.
        """
        index: cython.Py_ssize_t
        pos: cython.Py_ssize_t = start
        self._walked = False
        if not isinstance(data, bytes):
            raise TypeError("a record is bytes")
        self._data = data
        self._p = data
        self._end = len(data)
        self._free = _FREE
        if pos < 0 or pos > self._end:
            raise MalformedAvroError(_REASONS[-1], None)
        for index in range(self._width):
            self._bounds[index] = pos
            pos = self._skip(self._program[2 + index], pos, 0)
            if pos < 0:
                raise MalformedAvroError(_REASONS[pos], self._names[index])
        if pos != self._end:
            raise MalformedAvroError("bytes left over after the last field", None)
        self._bounds[self._width] = pos
        self._walked = True

    def field(self, index: cython.Py_ssize_t) -> bytes:
        """Return the encoded bytes of one top-level field of the record walked last."""
        self._check(index)
        return self._data[self._bounds[index] : self._bounds[index + 1]]

    def value(self, index: cython.Py_ssize_t) -> Any:
        """Return one top-level field of the record walked last as fastavro would decode it.

        Logical types are applied; a value that they cannot hold (a date in the
        year 20000) raises what fastavro raises, and that may show the value.
        """
        self._check(index)
        if self._fast[index]:
            return self._decode(self._program[2 + index], self._bounds[index])
        parsed = self._parsed.get(index)
        if parsed is None:
            parsed = self._parsed[index] = _alone(self._schema, self._names[index])
        return schemaless_reader(BytesIO(self.field(index)), parsed)["value"]

    def same(self, index: cython.Py_ssize_t, data: bytes, start: cython.Py_ssize_t) -> bool:
        """Whether a top-level field of the record walked last has the bytes of ``data`` from ``start`` on."""
        self._check(index)
        begin: cython.Py_ssize_t = self._bounds[index]
        size: cython.Py_ssize_t = self._bounds[index + 1] - begin
        if start < 0 or len(data) - start != size:
            return False
        if not cython.compiled:
            return self.field(index) == data[start:]
        difference: cython.int = memcmp(self._p + begin, PyBytes_AS_STRING(data) + start, size)
        return bool(difference == 0)

    def is_text(self, index: int) -> bool:
        """Whether a top-level field is a plain string."""
        node: cython.int = self._program[2 + index]
        return bool(self._program[node] == _OPCODES["string"] and self._program[node + 1] < 0)

    @cython.cfunc
    def _masked(
        self, index: cython.Py_ssize_t, head: cython.Py_ssize_t, tail: cython.Py_ssize_t, mask: bytes
    ) -> bytes:
        """Encode the text of a field with its inner characters masked (see :class:`Mask`)."""
        pos: cython.Py_ssize_t = self._long(self._bounds[index])
        stop: cython.Py_ssize_t = self._bounds[index + 1]
        if not cython.compiled:
            text = self._data[pos:stop].decode()
            hidden = len(text) - head - tail
            kept = (text[:head], text[len(text) - tail :]) if hidden > 0 else ("", "")
            shown = kept[0].encode() + mask * (hidden if hidden > 0 else len(text)) + kept[1].encode()
            return _length_bytes(len(shown)) + shown
        # A character is a byte that continues none; the walk has made sure that the text is UTF-8.
        p: cython.p_const_uchar = self._p
        characters: cython.Py_ssize_t = 0
        at: cython.Py_ssize_t
        for at in range(pos, stop):
            characters += (p[at] & 0xC0) != 0x80
        masks: cython.Py_ssize_t = characters - head - tail
        first: cython.Py_ssize_t = pos
        last: cython.Py_ssize_t = stop
        if masks <= 0:
            masks = characters
            head = tail = 0
        while head > 0:
            head -= 1
            first += 1
            while (p[first] & 0xC0) == 0x80:  # ends before ``stop``: more characters follow
                first += 1
        while tail > 0:
            last -= 1
            tail -= (p[last] & 0xC0) != 0x80
        width: cython.Py_ssize_t = len(mask)
        size: cython.Py_ssize_t = (first - pos) + masks * width + (stop - last)
        count: cython.Py_ssize_t = _length_of_length(size)
        out: bytes = PyBytes_FromStringAndSize(cython.NULL, size + count)
        target: cython.p_char = _put_length(PyBytes_AS_STRING(out), size, count)
        memcpy(target, p + pos, first - pos)
        target += first - pos
        for _at in range(masks):
            memcpy(target, PyBytes_AS_STRING(mask), width)
            target += width
        memcpy(target, p + last, stop - last)
        return out

    @cython.cfunc
    def _check(self, index: cython.Py_ssize_t) -> object:
        if not self._walked:
            raise ValueError("no record has been walked")
        if index < 0 or index >= self._width:
            raise IndexError("the record has no such field")
        return None

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _long(self, pos: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Read a zig-zag varint into ``_number``: at most ten bytes and 64 bits."""
        byte: cython.ulonglong
        number: cython.ulonglong
        shift: cython.int = 7
        if pos >= self._end:
            return _CUT_SHORT
        byte = self._p[pos]
        pos += 1
        number = byte & 0x7F
        while byte & 0x80:
            if shift > 63:
                return _LONG_NUMBER
            if pos >= self._end:
                return _CUT_SHORT
            byte = self._p[pos]
            pos += 1
            if shift == 63 and byte > 1:
                return _LONG_NUMBER
            number |= (byte & 0x7F) << shift
            shift += 7
        self._number = (number >> 1) ^ -(number & 1)
        return pos

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _int(self, pos: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Read a zig-zag varint of at most five bytes and 32 bits into ``_number``."""
        stop: cython.Py_ssize_t = self._long(pos)
        if stop < 0:
            return stop
        if stop - pos > 5 or self._number < -2147483648 or self._number > 2147483647:
            return _LONG_NUMBER
        return stop

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _counted(self, pos: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Read a length into ``_number`` and make sure that so many bytes follow."""
        pos = self._long(pos)
        if pos < 0:
            return pos
        if self._number < 0:
            return _NEGATIVE_LENGTH
        if self._number > self._end - pos:
            return _CUT_SHORT
        return pos

    @cython.cfunc
    @cython.exceptval(check=False)
    def _skip(self, node: cython.int, pos: cython.Py_ssize_t, depth: cython.int) -> cython.Py_ssize_t:
        """Walk over one value; return where it ends, or a negative reason."""
        op: cython.int = self._program[node]
        if op == 10:  # union: go on with the branch, which is not a union itself
            pos = self._int(pos)
            if pos < 0:
                return pos
            if self._number < 0 or self._number >= self._program[node + 1]:
                return _NO_BRANCH
            node = self._program[node + 2 + self._number]
            op = self._program[node]
        if op == 7:  # string
            pos = self._counted(pos)
            if pos < 0:
                return pos
            return self._text(pos, pos + self._number)
        elif op == 6:  # bytes
            pos = self._counted(pos)
            return pos if pos < 0 else pos + self._number
        elif op == 3:  # long
            return self._long(pos)
        elif op == 2:  # int
            return self._int(pos)
        elif op in (0, 14):  # null, empty record
            return pos
        elif op == 1:  # boolean
            if pos >= self._end:
                return _CUT_SHORT
            return pos + 1 if self._p[pos] <= 1 else _NOT_BOOLEAN
        elif op == 4:  # float
            return pos + 4 if self._end - pos >= 4 else _CUT_SHORT
        elif op == 5:  # double
            return pos + 8 if self._end - pos >= 8 else _CUT_SHORT
        elif op == 8:  # fixed
            if self._program[node + 2] > self._end - pos:
                return _CUT_SHORT
            return pos + self._program[node + 2]
        elif op == 9:  # enum
            pos = self._int(pos)
            if pos >= 0 and (self._number < 0 or self._number >= self._program[node + 2]):
                return _NO_SYMBOL
            return pos
        return self._nested(node, pos, depth + 1)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _nested(self, node: cython.int, pos: cython.Py_ssize_t, depth: cython.int) -> cython.Py_ssize_t:
        index: cython.int
        if depth > _DEEPEST:
            return _TOO_DEEP
        if self._program[node] != 13:
            return self._blocks(node, pos, depth)
        for index in range(self._program[node + 1]):
            pos = self._skip(self._program[node + 2 + index], pos, depth)
            if pos < 0:
                return pos
        return pos

    @cython.cfunc
    @cython.exceptval(check=False)
    def _blocks(self, node: cython.int, pos: cython.Py_ssize_t, depth: cython.int) -> cython.Py_ssize_t:
        """Walk over an array or a map: blocks of a count (negative: with a size in bytes) and its items."""
        keyed: cython.bint = self._program[node] == 12
        item: cython.int = self._program[node + 1]
        empty: cython.bint = self._program[node + 2] != 0
        count: cython.longlong
        stop: cython.Py_ssize_t
        while True:
            pos = self._long(pos)
            if pos < 0:
                return pos
            count = self._number
            if count == 0:
                return pos
            stop = -1
            if count < 0:
                # Before it is negated: the smallest number has no counterpart.
                if count < -_FREE - self._end:
                    return _TOO_MANY
                count = -count
                pos = self._counted(pos)
                if pos < 0:
                    return pos
                stop = pos + self._number
            if empty:
                if count > self._free:
                    return _TOO_MANY
                self._free -= count
            else:
                if count > self._end - pos:
                    return _CUT_SHORT
                while count > 0:
                    if keyed:
                        pos = self._counted(pos)
                        if pos >= 0:
                            pos = self._text(pos, pos + self._number)
                        if pos < 0:
                            return pos
                    pos = self._skip(item, pos, depth)
                    if pos < 0:
                        return pos
                    count -= 1
            if stop >= 0 and pos != stop:
                return _FALSE_BLOCK

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _text(self, pos: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Check that a text is UTF-8; return ``stop``."""
        here: cython.Py_ssize_t = pos
        word: cython.ulonglong = 0
        half: cython.uint = 0
        other: cython.uint = 0
        if not cython.compiled:
            try:
                self._data[pos:stop].decode()
            except UnicodeDecodeError:
                return _NOT_UTF8
            return stop
        # Mostly ASCII: eight bytes at a time, the last eight once more where the length is no multiple.
        if stop - pos >= 8:
            while here <= stop - 8:
                memcpy(cython.address(word), self._p + here, 8)
                if word & _HIGH_BITS:
                    return self._characters(here, stop)
                here += 8
            memcpy(cython.address(word), self._p + stop - 8, 8)
            return stop if not word & _HIGH_BITS else self._characters(here, stop)
        if stop - pos >= 4:
            memcpy(cython.address(half), self._p + pos, 4)
            memcpy(cython.address(other), self._p + stop - 4, 4)
            return stop if not (half | other) & _HIGH_BITS else self._characters(pos, stop)
        while here < stop:
            if self._p[here] & 0x80:
                return self._characters(here, stop)
            here += 1
        return stop

    @cython.cfunc
    @cython.exceptval(check=False)
    def _characters(self, pos: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Check UTF-8 character by character (Unicode 15, table 3-7: nothing overlong, no surrogates)."""
        p: cython.p_const_uchar = self._p
        lead: cython.int
        second: cython.int
        while pos < stop:
            lead = p[pos]
            if lead < 0x80:
                pos += 1
            elif 0xE0 <= lead <= 0xEF:
                if stop - pos < 3:
                    return _NOT_UTF8
                second = p[pos + 1]
                if second & 0xC0 != 0x80 or p[pos + 2] & 0xC0 != 0x80:
                    return _NOT_UTF8
                if (lead == 0xE0 and second < 0xA0) or (lead == 0xED and second > 0x9F):
                    return _NOT_UTF8
                pos += 3
            elif 0xC2 <= lead <= 0xDF:
                if stop - pos < 2 or p[pos + 1] & 0xC0 != 0x80:
                    return _NOT_UTF8
                pos += 2
            elif 0xF0 <= lead <= 0xF4:
                if stop - pos < 4:
                    return _NOT_UTF8
                second = p[pos + 1]
                if second & 0xC0 != 0x80 or p[pos + 2] & 0xC0 != 0x80 or p[pos + 3] & 0xC0 != 0x80:
                    return _NOT_UTF8
                if (lead == 0xF0 and second < 0x90) or (lead == 0xF4 and second > 0x8F):
                    return _NOT_UTF8
                pos += 4
            else:
                return _NOT_UTF8
        return stop

    @cython.cfunc
    def _decode(self, node: cython.int, pos: cython.Py_ssize_t) -> object:
        """Decode a scalar, or a union of scalars, that has been walked."""
        value: object
        op: cython.int = self._program[node]
        aux: cython.int
        if op == 10:
            pos = self._long(pos)
            return self._decode(self._program[node + 2 + self._number], pos)
        aux = self._program[node + 1]
        if op == 7:
            pos = self._long(pos)
            value = self._data[pos : pos + self._number].decode()
        elif op in (2, 3):
            self._long(pos)
            value = self._number
        elif op == 0:
            return None
        elif op == 1:
            value = self._p[pos] == 1
        elif op == 6:
            pos = self._long(pos)
            value = self._data[pos : pos + self._number]
        elif op == 4:
            value = struct.unpack_from("<f", self._data, pos)[0]
        elif op == 5:
            value = struct.unpack_from("<d", self._data, pos)[0]
        elif op == 8:
            value = self._data[pos : pos + self._program[node + 2]]
        else:  # 9, an enum
            self._long(pos)
            value = self._objects[aux][self._number]
            aux = self._program[node + 3]
        if aux < 0:
            return value
        reader, definition = self._objects[aux]
        return reader(value, definition, None)


def _alone(schema: Mapping[str, Any], name: str) -> Any:
    """Parse, for fastavro, a record that has one field, ``value``, of the type of the field ``name``.

    A record of one field is encoded as that field is. Names do not matter for
    decoding, so types without namespace get one: each can be named anywhere then.
    """
    definitions = Definitions(schema)
    types = {field["name"]: field["type"] for field in definitions.record["fields"]}
    spelt = definitions.spell(types[name], home="govbus_alone")
    return parse_schema(
        {"type": "record", "name": "govbus_alone", "fields": [{"name": "value", "type": spelt}]}
    )


@dataclass(frozen=True)
class Copy:
    """A field of the writer's record, byte for byte."""

    field: int


@dataclass(frozen=True)
class Recode:
    """A field of the writer's record, decoded, changed and encoded again by ``encode``."""

    field: int
    encode: Callable[[Any], bytes]


@dataclass(frozen=True)
class Retext:
    """A field of the writer's record, decoded and changed into a text, which the kernel encodes."""

    field: int
    change: Callable[[Any], str]


@dataclass(frozen=True)
class Mask:
    """A text of the writer's record: ``head`` and ``tail`` characters stay, each other one becomes ``mask``.

    A text that is not longer than both together is masked whole. The kernel does
    it on the encoded bytes; the field must be a plain string.
    """

    field: int
    head: int
    tail: int
    mask: str


@dataclass(frozen=True)
class Rewrite:
    """A field of the writer's record whose encoded bytes ``encode`` turns into others."""

    field: int
    encode: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Constant:
    """Bytes that are the same in every record."""

    data: bytes


Piece = Copy | Recode | Retext | Mask | Rewrite | Constant
"""What can stand in a plan."""

# The kinds of steps that pieces become.
_KINDS: dict[type, int] = {Copy: 0, Recode: 1, Constant: 2, Rewrite: 3, Retext: 4, Mask: 5}


@cython.final
@cython.cclass
class Splicer:
    """Puts bodies together from the fields of walked records, after one plan.

    Args:
        schema: the writer schema that the plan was made for.
        plan: what stands in the output, in its order.
    """

    def __init__(self, walker: Walker, plan: Sequence[Piece]) -> None:
        steps: list[int] = []
        self._walker = walker
        self._fingerprint = walker.fingerprint
        self._encoders: list[Any] = []
        self._chunks: list[Any] = []
        width = len(walker.names)
        for piece in plan:
            if not isinstance(piece, Constant) and not 0 <= piece.field < width:
                raise IndexError("the plan names a field that the record does not have")
            if isinstance(piece, Copy):
                if steps and steps[-1] == piece.field and steps[-3] == 0:
                    steps[-1] = piece.field + 1  # a neighbour of the range before: one range
                    continue
                steps += (0, piece.field, piece.field + 1)
                self._encoders.append(None)
                self._chunks.append(None)
                continue
            steps += (_KINDS[type(piece)], 0 if isinstance(piece, Constant) else piece.field, 0)
            self._chunks.append(piece.data if isinstance(piece, Constant) else None)
            if isinstance(piece, Retext):
                self._encoders.append(piece.change)
            elif isinstance(piece, Mask):
                if not walker.is_text(piece.field):
                    raise TypeError("only a text can be masked")
                self._encoders.append((piece.head, piece.tail, piece.mask.encode()))
            else:
                self._encoders.append(None if isinstance(piece, Constant) else piece.encode)
        self._count = len(steps) // 3
        if cython.compiled:
            self._keep = struct.pack(f"={len(steps)}i", *steps)
            self._steps = cython.cast(cython.p_int, cython.cast(cython.p_char, self._keep))
        else:
            self._steps = steps

    def assemble(self, walker: Walker, prefix: bytes) -> bytes:
        """Return ``prefix`` and the new body of the record that ``walker`` walked last.

        Whatever an encoder raises comes through; nothing is returned then.

        Raises:
            ValueError: the walker has no record, or is of another schema: its ranges would be
                other fields than those that the plan means.
        """
        if walker is not self._walker:
            if walker.fingerprint != self._fingerprint:
                raise ValueError("the walker is not of the schema that the plan was made for")
            self._walker = walker
        if not walker._walked:
            raise ValueError("no record has been walked")
        body: bytes = self._assemble(walker, prefix)
        return body

    @cython.cfunc
    def _assemble(self, walker: Walker, prefix: bytes) -> bytes:
        step: cython.Py_ssize_t
        kind: cython.int
        first: cython.int
        total: cython.Py_ssize_t = len(prefix)
        size: cython.Py_ssize_t
        chunk: Any
        for step in range(self._count):
            kind = self._steps[3 * step]
            first = self._steps[3 * step + 1]
            if kind == 0:
                total += walker._bounds[self._steps[3 * step + 2]] - walker._bounds[first]
                continue
            if kind == 5:
                head, tail, mask = self._encoders[step]
                self._chunks[step] = walker._masked(first, head, tail, mask)
            elif kind != 2:
                chunk = walker.field(first) if kind == 3 else walker.value(first)
                chunk = self._encoders[step](chunk)
                if kind == 4:
                    chunk = _text_bytes(chunk)
                elif not isinstance(chunk, bytes):
                    raise TypeError("an encoder must return bytes")
                self._chunks[step] = chunk
            total += len(self._chunks[step])
        if not cython.compiled:
            parts = [prefix]
            for step in range(self._count):
                if self._steps[3 * step] == 0:
                    first = self._steps[3 * step + 1]
                    stop = self._steps[3 * step + 2]
                    parts.append(walker._data[walker._bounds[first] : walker._bounds[stop]])
                else:
                    parts.append(self._chunks[step])
            return b"".join(parts)
        body: bytes = PyBytes_FromStringAndSize(cython.NULL, total)
        target: cython.p_char = PyBytes_AS_STRING(body)
        size = len(prefix)
        memcpy(target, PyBytes_AS_STRING(prefix), size)
        target += size
        for step in range(self._count):
            if self._steps[3 * step] == 0:
                first = self._steps[3 * step + 1]
                size = walker._bounds[self._steps[3 * step + 2]] - walker._bounds[first]
                memcpy(target, walker._p + walker._bounds[first], size)
            else:
                chunk = self._chunks[step]
                size = len(chunk)
                memcpy(target, PyBytes_AS_STRING(chunk), size)
            target += size
        return body


@cython.cfunc
def _text_bytes(text: Any) -> bytes:
    """Encode a text as Avro does: its length in bytes as a zigzag number, then UTF-8."""
    if type(text) is not str:
        raise TypeError("a text was expected")
    data: bytes = text.encode("utf-8")
    if not cython.compiled:
        return _length_bytes(len(data)) + data
    size: cython.Py_ssize_t = len(data)
    count: cython.Py_ssize_t = _length_of_length(size)
    out: bytes = PyBytes_FromStringAndSize(cython.NULL, size + count)
    memcpy(_put_length(PyBytes_AS_STRING(out), size, count), PyBytes_AS_STRING(data), size)
    return out


def _length_bytes(size: int) -> bytes:
    """The length of a text or of bytes, as a zigzag number: what :func:`_put_length` writes in C."""
    length = size * 2
    head = bytearray()
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _length_of_length(size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    length: cython.ulonglong = size * 2
    count: cython.Py_ssize_t = 1
    while (length >> (7 * count)) != 0:
        count += 1
    return count


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _put_length(target: cython.p_char, size: cython.Py_ssize_t, count: cython.Py_ssize_t) -> cython.p_char:
    """Write a length in ``count`` bytes and return the place after it."""
    length: cython.ulonglong = size * 2
    at: cython.Py_ssize_t
    for at in range(count):
        target[at] = cython.cast(cython.char, (length & 0x7F) | (0x80 if at + 1 < count else 0))
        length >>= 7
    return target + count
