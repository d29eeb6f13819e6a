"""What the kernel refuses, and by what name; what it costs at worst; what a splicer will not do."""

from __future__ import annotations

import subprocess
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from govbus.avro import SchemaError
from support.avro_strategies import counted, varint
from support.kernels import KERNELS, STALE

LIST: dict[str, Any] = {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]}


def record(*types: Any) -> dict[str, Any]:
    fields = [{"name": f"f{i}", "type": one} for i, one in enumerate(types)]
    return {"type": "record", "name": "R", "fields": fields}


def refused(kernel: ModuleType, schema: dict[str, Any], body: bytes) -> str:
    """The reason why a body is refused."""
    walker = kernel.Walker(schema)
    with pytest.raises(kernel.MalformedAvroError) as caught:
        walker.walk(body)
    return str(caught.value.reason)


def test_the_compiled_kernel_is_that_of_this_source() -> None:
    """Otherwise every other test speaks of another program: run ``python hatch_build.py``."""
    assert not STALE


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("avro_type", "body", "reason"),
    [
        ("long", b"", "cut short"),
        ("long", b"\x80", "cut short"),
        ("long", b"\x80" * 9 + b"\x02", "a number that is too large for its type"),
        ("long", b"\xff" * 11, "a number that is too large for its type"),
        ("int", varint(2**31), "a number that is too large for its type"),
        ("int", varint(-(2**31) - 1), "a number that is too large for its type"),
        ("int", b"\x80\x80\x80\x80\x80\x00", "a number that is too large for its type"),
        ("boolean", b"\x02", "a boolean that is neither 0 nor 1"),
        ("float", b"\x00" * 3, "cut short"),
        ("double", b"\x00" * 7, "cut short"),
        ("bytes", varint(-1), "a negative length"),
        ("bytes", varint(2**62), "cut short"),
        ("string", varint(4) + b"abc", "cut short"),
        ("string", counted(b"\xc0\x80"), "text that is not UTF-8"),
        ("string", counted(b"\xed\xa0\x80"), "text that is not UTF-8"),
        ("string", counted(b"abcdefgh\xff"), "text that is not UTF-8"),
        (["null", "int"], varint(2), "a union branch that does not exist"),
        (["null", "int"], varint(-1), "a union branch that does not exist"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, varint(1), "an enum symbol that does not exist"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, varint(-1), "an enum symbol that does not exist"),
        ({"type": "fixed", "name": "F", "size": 4}, b"abc", "cut short"),
        ({"type": "array", "items": "int"}, varint(2**62), "cut short"),
        ({"type": "array", "items": "int"}, varint(-(2**63)), "too many items without content"),
        (
            {"type": "array", "items": "int"},
            varint(-1) + varint(2) + b"\x00\x00",
            "a block that is not as long as it says",
        ),
        (
            {"type": "array", "items": "int"},
            varint(-1) + varint(0) + b"\x00\x00",
            "a block that is not as long as it says",
        ),
        ({"type": "array", "items": "int"}, varint(-1) + varint(-1) + b"\x00\x00", "a negative length"),
        ({"type": "array", "items": "int"}, varint(1) + b"\x00", "cut short"),
        (
            {"type": "map", "values": "int"},
            varint(1) + counted(b"\xff") + b"\x00\x00",
            "text that is not UTF-8",
        ),
        ({"type": "map", "values": "null"}, varint(2) + counted(b"a"), "cut short"),
        ("null", b"\x00", "bytes left over after the last field"),
    ],
)
def test_what_avro_does_not_allow_is_refused_by_name(
    kernel: ModuleType, avro_type: Any, body: bytes, reason: str
) -> None:
    assert refused(kernel, record(avro_type), body) == reason


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_error_names_the_field_and_shows_no_value(kernel: ModuleType) -> None:
    walker = kernel.Walker(record("string", "string"))

    with pytest.raises(kernel.MalformedAvroError) as caught:
        walker.walk(counted(b"330802199901010018") + counted(b"secret\xff"))

    assert str(caught.value) == "field 'f1': text that is not UTF-8"
    assert caught.value.field == "f1"


@pytest.mark.parametrize("kernel", KERNELS)
def test_values_nest_to_the_limit_and_no_deeper(kernel: ModuleType) -> None:
    deepest = varint(1) * kernel.DEEPEST_VALUE + varint(0)
    kernel.Walker(LIST).walk(deepest)

    assert refused(kernel, LIST, varint(1) + deepest) == "values nested too deep"


@pytest.mark.parametrize("kernel", KERNELS)
def test_ten_megabytes_of_nesting_do_not_overflow_the_stack(kernel: ModuleType) -> None:
    assert refused(kernel, LIST, varint(1) * 10_000_000) == "values nested too deep"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_record_that_contains_itself_without_end_is_refused_not_followed(kernel: ModuleType) -> None:
    endless = {"type": "record", "name": "R", "fields": [{"name": "again", "type": "R"}]}

    assert refused(kernel, endless, b"") == "values nested too deep"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "item", ["null", {"type": "fixed", "name": "F", "size": 0}, record("null", "null") | {"name": "N"}]
)
def test_items_without_content_are_counted_not_made(kernel: ModuleType, item: Any) -> None:
    schema = record({"type": "array", "items": item}, {"type": "array", "items": "null"})
    limit = kernel.MOST_FREE_ITEMS
    walker = kernel.Walker(schema)
    started = time.perf_counter()

    walker.walk(varint(limit - 1) + varint(0) + varint(1) + varint(0))
    for first, second in ((limit, 1), (2**63 - 1, 0), (0, 2**62)):
        body = (varint(first) + varint(0) if first else varint(0)) + varint(second) + varint(0)
        assert refused(kernel, schema, body) == "too many items without content"

    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_record_whose_types_double_at_each_level_costs_no_more_than_its_bytes(kernel: ModuleType) -> None:
    """Forty levels of two fields are 2**40 nulls in a body of no bytes."""
    inner: Any = "null"
    for level in range(40):
        fields = [{"name": "a", "type": inner}, {"name": "b", "type": f"L{level - 1}" if level else "null"}]
        inner = {"type": "record", "name": f"L{level}", "fields": fields}
    walker = kernel.Walker(record(inner, "int"))

    walker.walk(varint(7))

    assert walker.value(1) == 7


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("start", [-1, 4, 2**40])
def test_a_start_outside_the_data_is_refused(kernel: ModuleType, start: int) -> None:
    walker = kernel.Walker(record("null"))

    with pytest.raises(kernel.MalformedAvroError):
        walker.walk(b"abc", start)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_is_left_of_the_record_before_one_that_is_refused(kernel: ModuleType) -> None:
    walker = kernel.Walker(record("int"))
    splicer = kernel.Splicer(walker, [kernel.Copy(0)])
    walker.walk(varint(7))
    assert walker.value(0) == 7

    with pytest.raises(kernel.MalformedAvroError):
        walker.walk(b"")

    with pytest.raises(ValueError, match="no record has been walked"):
        walker.value(0)
    with pytest.raises(ValueError, match="no record has been walked"):
        walker.field(0)
    with pytest.raises(ValueError, match="no record has been walked"):
        splicer.assemble(walker, b"")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("index", [-1, 1])
def test_a_field_that_does_not_exist_is_an_error_not_other_bytes(kernel: ModuleType, index: int) -> None:
    walker = kernel.Walker(record("int"))
    walker.walk(varint(7))

    for use in (walker.value, walker.field):
        with pytest.raises(IndexError):
            use(index)
    with pytest.raises(IndexError):
        kernel.Splicer(walker, [kernel.Copy(index)])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_splicer_takes_any_walker_of_its_schema_and_none_of_another(kernel: ModuleType) -> None:
    """With another schema, its field numbers would mean other fields: perhaps ones that nobody granted."""
    splicer = kernel.Splicer(kernel.Walker(record("string", "int")), [kernel.Copy(1)])
    same, other = kernel.Walker(record("string", "int")), kernel.Walker(record("int", "string"))
    same.walk(counted(b"name") + varint(5))
    other.walk(varint(5) + counted(b"name"))

    assert splicer.assemble(same, b"") == varint(5)
    with pytest.raises(ValueError, match="not of the schema"):
        splicer.assemble(other, b"")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("made", [None, "text", bytearray(b"x")])
def test_an_encoder_that_does_not_return_bytes_stops_the_splice(kernel: ModuleType, made: object) -> None:
    walker = kernel.Walker(record("int"))
    splicer = kernel.Splicer(walker, [kernel.Recode(0, lambda _: made)])
    walker.walk(varint(7))

    with pytest.raises(TypeError, match="must return bytes"):
        splicer.assemble(walker, b"")


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_an_encoder_raises_comes_through(kernel: ModuleType) -> None:
    def fail(value: object) -> bytes:
        raise ZeroDivisionError

    walker = kernel.Walker(record("int"))
    splicer = kernel.Splicer(walker, [kernel.Recode(0, fail)])
    walker.walk(varint(7))

    with pytest.raises(ZeroDivisionError):
        splicer.assemble(walker, b"")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "avro_type", ["bytes", ["null", "string"], {"type": "string", "logicalType": "uuid"}]
)
def test_only_a_plain_text_can_be_masked(kernel: ModuleType, avro_type: Any) -> None:
    with pytest.raises(TypeError, match="only a text"):
        kernel.Splicer(kernel.Walker(record(avro_type)), [kernel.Mask(0, 1, 0, "*")])


@pytest.mark.parametrize("kernel", KERNELS)
def test_only_bytes_can_be_walked(kernel: ModuleType) -> None:
    walker = kernel.Walker(record("int"))

    for data in (None, "text", bytearray(b"\x02"), memoryview(b"\x02")):
        with pytest.raises(TypeError):
            walker.walk(data)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "schema", ["int", {"type": "array", "items": "int"}, record("Unknown"), record([]), {}]
)
def test_a_schema_that_is_not_a_record_is_refused(kernel: ModuleType, schema: Any) -> None:
    with pytest.raises(SchemaError):
        kernel.Walker(schema)


def test_the_source_runs_where_cython_has_never_compiled_anything() -> None:
    """The interpreted kernel in a process of its own: nothing of it may lean on the compiled one."""
    script = (
        "import sys; sys.path_importer_cache.clear()\n"
        "from importlib.machinery import SourceFileLoader as Loader\n"
        "from importlib.util import spec_from_loader, module_from_spec\n"
        "import govbus, pathlib\n"
        "path = pathlib.Path(govbus.__file__).with_name('splice.py')\n"
        "spec = spec_from_loader('k', Loader('k', str(path)))\n"
        "k = module_from_spec(spec); sys.modules['k'] = k\n"
        "spec.loader.exec_module(k)\n"
        "w = k.Walker({'type': 'record', 'name': 'R', 'fields': [{'name': 'a', 'type': 'string'}]})\n"
        "w.walk(b'\\x06abc'); assert w.value(0) == 'abc' and not k.COMPILED\n"
        "assert 'govbus.splice' not in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
