"""Every transform on every Avro type: refused, or what comes out is of the result type and tells no more."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from govbus.avro import Definitions
from govbus.errors import TransformRefusedError
from govbus.pseudonym import derive_key
from govbus.transform import (
    Generalise,
    Grain,
    Keep,
    Null,
    Partial,
    Pseudonym,
    Redact,
    Transform,
    Truncate,
    compile_transform,
    parse_transform,
    result_type,
)
from support.avro_strategies import Sample, samples
from support.permission_strategies import transforms

KEY = b"k" * 32


def first_field(sample: Sample) -> tuple[Any, Any]:
    """The type of a sample's only field as it stands alone, and the field's decoded value."""
    definitions = Definitions(sample.schema)
    field = definitions.record["fields"][0]
    record = fastavro.schemaless_reader(BytesIO(sample.body), fastavro.parse_schema(sample.schema))
    return definitions.spell(field["type"], home="govbus.test"), record[field["name"]]


@given(transform=transforms())
def test_reading_back_what_a_transform_writes_gives_the_same_transform(transform: Transform) -> None:
    assert parse_transform(transform.spec()) == transform
    assert parse_transform(transform.spec()).spec() == transform.spec()


@given(
    spec=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from([*Grain])),
        lambda inner: st.one_of(
            st.lists(inner, max_size=2),
            st.dictionaries(
                st.sampled_from(
                    ["partial", "truncate", "generalise", "redact", "pseudonym", "head", "tail", "band", "x"]
                ),
                inner,
                max_size=2,
            ),
        ),
        max_leaves=4,
    )
)
def test_whatever_stands_in_a_grant_is_read_or_refused_and_nothing_else_happens(spec: object) -> None:
    try:
        transform = parse_transform(spec)
    except TransformRefusedError:
        return

    assert parse_transform(transform.spec()) == transform


@given(transform=transforms(), sample=samples(max_fields=1))
def test_a_transform_is_refused_or_gives_a_value_of_the_result_type(
    transform: Transform, sample: Sample
) -> None:
    """For every Avro type: written under the result type, the result is valid and comes back as it was."""
    avro_type, value = first_field(sample)
    try:
        given_type = result_type(transform, avro_type)
    except TransformRefusedError:
        with pytest.raises(TransformRefusedError):
            compile_transform(transform, avro_type, pseudonym_key=KEY)
        return

    result = compile_transform(transform, avro_type, pseudonym_key=KEY)(value)

    schema = fastavro.parse_schema(
        {"type": "record", "name": "Out", "fields": [{"name": "out", "type": given_type}]}
    )
    assert fastavro.validate({"out": result}, schema, raise_errors=False)
    if not isinstance(transform, Keep):
        stream = BytesIO()
        fastavro.schemaless_writer(stream, schema, {"out": result})
        stream.seek(0)
        back = fastavro.schemaless_reader(stream, schema)["out"]  # type: ignore[index, call-overload]
        assert back == result or (isinstance(back, float) and math.isnan(back))
        assert type(back) is type(result)


@given(transform=transforms(), sample=samples(max_fields=1))
def test_every_type_can_be_kept_and_nulled(transform: Transform, sample: Sample) -> None:
    """So an owner is never forced to show a field because nothing fits it."""
    avro_type, value = first_field(sample)

    assert compile_transform(Null(), avro_type)(value) is None
    kept = compile_transform(Keep(), avro_type)(value)
    assert kept is value
    assert result_type(Keep(), avro_type) == avro_type


@given(transform=transforms(), one=samples(max_fields=1), data=st.data())
def test_what_a_transform_shows_depends_on_nothing_but_what_it_may_show(
    transform: Transform, one: Sample, data: st.DataObject
) -> None:
    """Null and redact give the same for any two values; so nothing of a value is left in the result."""
    assume(isinstance(transform, Null | Redact))
    avro_type, value = first_field(one)
    try:
        function = compile_transform(transform, avro_type)
    except TransformRefusedError:
        return

    other = data.draw(st.one_of(st.none(), st.text(), st.integers()))
    assert function(value) == function(other)


@given(
    text=st.text(max_size=30),
    head=st.integers(0, 6),
    tail=st.integers(0, 6),
)
def test_partial_keeps_the_length_and_shows_only_head_and_tail(text: str, head: int, tail: int) -> None:
    masked = compile_transform(Partial(head=head, tail=tail, mask="▒"), "string")(text)

    assert len(masked) == len(text)
    shown = [index for index, character in enumerate(masked) if character != "▒"]
    assert all(masked[index] == text[index] for index in shown)
    assert all(index < head or index >= len(text) - tail for index in shown)
    if text and "▒" not in text:
        assert masked != text
        assert len(shown) == (head + tail if len(text) > head + tail else 0)


@given(one=st.text(max_size=12), other=st.text(max_size=12), length=st.integers(1, 6))
def test_truncated_texts_differ_only_if_their_beginnings_do(one: str, other: str, length: int) -> None:
    for transform in (Truncate(length=length), Generalise(to=Grain.PREFIX, size=length)):
        function = compile_transform(transform, "string")

        assert (function(one) == function(other)) == (one[:length] == other[:length])


@given(number=st.integers(-(2**63), 2**63 - 1), width=st.integers(2, 2**63 - 1))
def test_a_number_lies_in_its_band(number: int, width: int) -> None:
    lower = compile_transform(Generalise(to=Grain.BAND, size=width), "long")(number)

    assert lower <= number < lower + width
    assert lower % width == 0 or lower == -(2**63)


@given(
    unscaled=st.integers(-(10**20) + 1, 10**20 - 1),
    scale=st.integers(0, 20),
    width=st.integers(2, 2**63 - 1),
)
def test_a_decimal_lies_in_its_band_exactly(unscaled: int, scale: int, width: int) -> None:
    avro_type = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": scale}
    value = Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))
    lower = Fraction(compile_transform(Generalise(to=Grain.BAND, size=width), avro_type)(value))

    assert lower <= Fraction(value) < lower + width
    assert lower % width == 0 or lower == -Fraction(10**20 - 1, 10**scale)


@given(number=st.floats(allow_nan=False, allow_infinity=False), width=st.integers(1, 2**63 - 1))
def test_a_band_of_floating_point_never_rises_with_a_smaller_number(number: float, width: int) -> None:
    band = compile_transform(Generalise(to=Grain.BAND, size=width), "double")

    # Beyond 2**53 a band's bound may not be a float; the nearest float is then given.
    assert band(number) <= number or band(number) == pytest.approx(number)
    assert band(math.nextafter(number, -math.inf)) <= band(number)


@given(
    one=st.one_of(st.text(max_size=4), st.integers(-9, 9), st.binary(max_size=4)),
    other=st.one_of(st.text(max_size=4), st.integers(-9, 9), st.binary(max_size=4)),
)
def test_pseudonyms_are_equal_exactly_when_the_values_are(one: object, other: object) -> None:
    pseudonym = compile_transform(Pseudonym(), ["string", "long", "bytes"], pseudonym_key=KEY)

    assert (pseudonym(one) == pseudonym(other)) == (type(one) is type(other) and one == other)


@given(
    one=st.tuples(st.text(max_size=6), st.text(max_size=6), st.integers(1, 3)),
    other=st.tuples(st.text(max_size=6), st.text(max_size=6), st.integers(1, 3)),
    value=st.text(max_size=10),
)
def test_pseudonyms_join_inside_an_agreement_and_nowhere_else(
    one: tuple[str, str, int], other: tuple[str, str, int], value: str
) -> None:
    results = {
        agreement: compile_transform(
            Pseudonym(epoch=agreement[2]),
            "string",
            pseudonym_key=derive_key(
                b"m" * 32, subscriber=agreement[0], purpose=agreement[1], epoch=agreement[2]
            ),
        )(value)
        for agreement in (one, other)
    }

    assert len(set(results.values())) == len(results)
