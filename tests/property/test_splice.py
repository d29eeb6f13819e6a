"""The kernel, interpreted and compiled, agrees with fastavro and with a plain reader on every body."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from govbus.avro import Definitions
from support.avro_reference import accepts
from support.avro_strategies import Sample, counted, decoded, samples, schemas
from support.kernels import KERNELS

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def alone(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """A record schema with one of the fields of ``schema``."""
    definitions = Definitions(schema)
    types = {field["name"]: field["type"] for field in definitions.record["fields"]}
    return {
        "type": "record",
        "name": "Alone",
        "fields": [{"name": name, "type": definitions.spell(types[name], home="elsewhere")}],
    }


@pytest.mark.parametrize("kernel", KERNELS)
@SLOW
@given(sample=samples())
def test_a_walk_finds_each_field_and_reads_it_as_fastavro_does(kernel: ModuleType, sample: Sample) -> None:
    record = decoded(sample.schema, sample.body)
    walker = kernel.Walker(sample.schema)

    walker.walk(sample.body)

    assert b"".join(walker.field(i) for i in range(len(walker.names))) == sample.body
    assert walker.names == tuple(record)
    for index, name in enumerate(walker.names):
        # repr, because NaN is not equal to itself and 1 is equal to True.
        assert repr(walker.value(index)) == repr(record[name])
        assert repr(decoded(alone(sample.schema, name), walker.field(index))) == repr({name: record[name]})


@pytest.mark.parametrize("kernel", KERNELS)
@SLOW
@given(sample=samples(), prefix=st.binary(max_size=8))
def test_a_body_may_stand_behind_anything(kernel: ModuleType, sample: Sample, prefix: bytes) -> None:
    plain = kernel.Walker(sample.schema)
    framed = kernel.Walker(sample.schema)

    plain.walk(sample.body)
    framed.walk(prefix + sample.body, len(prefix))

    for index in range(len(plain.names)):
        assert plain.field(index) == framed.field(index)


@pytest.mark.parametrize("kernel", KERNELS)
@SLOW
@given(sample=samples(), data=st.data())
def test_a_damaged_body_is_accepted_only_if_a_plain_reader_accepts_it(
    kernel: ModuleType, sample: Sample, data: st.DataObject
) -> None:
    """Cut, flipped, grown and swapped bytes: the two readers, written apart, must say the same."""
    body = bytearray(sample.body)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body)))
        damage = data.draw(st.sampled_from(["cut", "flip", "insert", "replace"]))
        if damage == "cut":
            del body[position:]
        elif damage == "insert":
            body[position:position] = data.draw(st.binary(min_size=1, max_size=10))
        elif position < len(body):
            body[position] = body[position] ^ 1 << data.draw(st.integers(0, 7)) if damage == "flip" else 0x80

    check(kernel, sample.schema, bytes(body))


@pytest.mark.parametrize("kernel", KERNELS)
@SLOW
@given(schema=schemas(), body=st.binary(max_size=60))
def test_random_bytes_are_accepted_only_if_a_plain_reader_accepts_them(
    kernel: ModuleType, schema: dict[str, Any], body: bytes
) -> None:
    check(kernel, schema, body)


def check(kernel: ModuleType, schema: dict[str, Any], body: bytes) -> None:
    limits = {"deepest": kernel.DEEPEST_VALUE, "most_free_items": kernel.MOST_FREE_ITEMS}
    expected = accepts(schema, body, **limits)
    event("accepted" if expected else "refused")
    walker = kernel.Walker(schema)

    if expected:
        walker.walk(body)
        assert b"".join(walker.field(i) for i in range(len(walker.names))) == body
    else:
        with pytest.raises(kernel.MalformedAvroError):
            walker.walk(body)
        with pytest.raises(ValueError, match="no record"):
            walker.field(0)


@pytest.mark.parametrize("kernel", KERNELS)
@SLOW
@given(sample=samples(), prefix=st.binary(max_size=8), data=st.data())
def test_a_splice_is_the_fields_of_its_plan_in_its_order(
    kernel: ModuleType, sample: Sample, prefix: bytes, data: st.DataObject
) -> None:
    walker = kernel.Walker(sample.schema)
    walker.walk(sample.body)
    numbers = st.integers(0, len(walker.names) - 1)
    plan = data.draw(
        st.lists(
            st.one_of(
                numbers.map(kernel.Copy),
                st.binary(max_size=9).map(kernel.Constant),
                st.tuples(numbers, st.binary(max_size=9)).map(
                    lambda pair: kernel.Recode(pair[0], lambda value: repr(value).encode() + pair[1])
                ),
            ),
            max_size=8,
        )
    )

    spliced = kernel.Splicer(walker, plan).assemble(walker, prefix)

    expected = prefix
    for piece in plan:
        if isinstance(piece, kernel.Copy):
            expected += walker.field(piece.field)
        elif isinstance(piece, kernel.Constant):
            expected += piece.data
        else:
            expected += piece.encode(walker.value(piece.field))
    assert spliced == expected


@pytest.mark.parametrize("kernel", KERNELS)
@SLOW
@given(text=st.binary(max_size=40) | st.text(max_size=40).map(str.encode), data=st.data())
def test_text_is_accepted_exactly_when_python_can_decode_it(
    kernel: ModuleType, text: bytes, data: st.DataObject
) -> None:
    if text and data.draw(st.booleans()):
        position = data.draw(st.integers(0, len(text) - 1))
        text = text[:position] + bytes([data.draw(st.integers(0x7F, 0xFF))]) + text[position + 1 :]
    assume(len(text) < 64)
    walker = kernel.Walker({"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]})
    body = bytes([2 * len(text)]) + text

    try:
        expected = text.decode()
    except UnicodeDecodeError:
        with pytest.raises(kernel.MalformedAvroError, match="UTF-8"):
            walker.walk(body)
    else:
        walker.walk(body)
        assert walker.value(0) == expected


LENGTHS = st.integers(min_value=0, max_value=12) | st.sampled_from([63, 64, 70, 10_000])


@pytest.mark.parametrize("kernel", KERNELS)
@SLOW
@given(text=st.text(max_size=80), head=LENGTHS, tail=LENGTHS, mask=st.sampled_from("*x·隐😀"))
def test_a_masked_text_keeps_its_ends_and_its_number_of_characters(
    kernel: ModuleType, text: str, head: int, tail: int, mask: str
) -> None:
    fields = [{"name": "a", "type": "string"}, {"name": "b", "type": {"type": "string"}}]
    schema = {"type": "record", "name": "R", "fields": fields}
    walker = kernel.Walker(schema)
    hidden = len(text) - head - tail
    shown = text[:head] + mask * hidden + text[len(text) - tail :] if hidden > 0 else mask * len(text)

    walker.walk(counted(b"before") + counted(text.encode()))
    made = kernel.Splicer(walker, [kernel.Mask(1, head, tail, mask), kernel.Copy(0)]).assemble(walker, b"p")

    assert made == b"p" + counted(shown.encode()) + counted(b"before")


@pytest.mark.parametrize("kernel", KERNELS)
@SLOW
@given(sample=samples(), data=st.data())
def test_a_field_is_the_same_as_its_own_bytes_and_as_no_others(
    kernel: ModuleType, sample: Sample, data: st.DataObject
) -> None:
    walker = kernel.Walker(sample.schema)
    walker.walk(sample.body)
    assume(walker.names)
    index = data.draw(st.integers(min_value=0, max_value=len(walker.names) - 1))
    other = data.draw(st.binary(max_size=12))
    field = walker.field(index)

    assert walker.same(index, b"head!" + field, 5)
    assert walker.same(index, b"head!" + other, 5) == (other == field)
    assert not walker.same(index, field, len(field) + 1)
