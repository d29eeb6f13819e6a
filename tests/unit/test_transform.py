"""What each transform does, what it refuses, and that pseudonyms keep agreements apart."""

from __future__ import annotations

import hashlib
import hmac
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from govbus.errors import TransformRefusedError, ViewError
from govbus.pseudonym import derive_key
from govbus.transform import (
    Generalise,
    Grain,
    Keep,
    Null,
    Partial,
    Pseudonym,
    Redact,
    Truncate,
    compile_transform,
    parse_transform,
    result_type,
)

KEY = b"k" * 32
DATE = {"type": "int", "logicalType": "date"}
TIME = {"type": "int", "logicalType": "time-millis"}
INSTANT = {"type": "long", "logicalType": "timestamp-millis"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-micros"}
UUID_TEXT = {"type": "string", "logicalType": "uuid"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
LEVEL = {"type": "enum", "name": "Level", "symbols": ["CITY", "COUNTY"]}
HASH = {"type": "fixed", "name": "Hash", "size": 4}
NESTED: list[Any] = [
    {"type": "array", "items": "string"},
    {"type": "map", "values": "string"},
    {"type": "record", "name": "Place", "fields": [{"name": "street", "type": "string"}]},
]


def applied(spec: object, avro_type: Any, value: object) -> object:
    return compile_transform(parse_transform(spec), avro_type, pseudonym_key=KEY)(value)


@pytest.mark.parametrize(
    ("spec", "transform"),
    [
        ("keep", Keep()),
        ("null", Null()),
        ("pseudonym", Pseudonym()),
        ({"pseudonym": {"epoch": 3}}, Pseudonym(epoch=3)),
        ({"pseudonym": {}}, Pseudonym()),
        ({"pseudonym": {"hash": "sm3"}}, Pseudonym(hash="sm3")),
        ({"pseudonym": {"hash": "sha256", "epoch": 2}}, Pseudonym(epoch=2)),
        ({"partial": {"head": 1, "tail": 0}}, Partial(head=1)),
        ({"partial": {"tail": 4, "mask": "#"}}, Partial(tail=4, mask="#")),
        ({"truncate": 10}, Truncate(length=10)),
        ({"generalise": "year"}, Generalise(to=Grain.YEAR)),
        ({"generalise": {"band": 10}}, Generalise(to=Grain.BAND, size=10)),
        ({"generalise": {"prefix": 4}}, Generalise(to=Grain.PREFIX, size=4)),
        ({"redact": "***"}, Redact(constant="***")),
        ({"redact": 0}, Redact(constant=0)),
        ({"redact": False}, Redact(constant=False)),
    ],
)
def test_a_transform_is_read_from_a_word_or_from_one_key_with_parameters(
    spec: object, transform: object
) -> None:
    assert parse_transform(spec) == transform


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "mask",
        "KEEP",
        "redact",
        "partial",
        [],
        7,
        True,
        {},
        {"keep": {}},
        {"mask": 1},
        {"partial": {"head": 1}, "truncate": 3},
        {"pseudonym": {"hash": "md5"}},
        {"pseudonym": {"hash": None}},
        {"pseudonym": {"hash": ["sm3"]}},
        {"partial": 3},
        {"partial": {"head": -1}},
        {"partial": {"head": True}},
        {"partial": {"head": 1.0}},
        {"partial": {"head": 1, "middle": 2}},
        {"partial": {"head": 1, 2: 3}},
        {"partial": {"mask": ""}},
        {"partial": {"mask": "**"}},
        {"partial": {"mask": "\n"}},
        {"partial": {"mask": 0}},
        {"truncate": 0},
        {"truncate": "10"},
        {"truncate": None},
        {"generalise": "decade"},
        {"generalise": "band"},
        {"generalise": "prefix"},
        {"generalise": {"band": 0}},
        {"generalise": {"band": 2**63}},
        {"generalise": {"year": 1}},
        {"generalise": {"prefix": True}},
        {"generalise": {"band": 10, "prefix": 2}},
        {"generalise": ["year"]},
        {"pseudonym": 3},
        {"pseudonym": {"epoch": 0}},
        {"pseudonym": {"key": "x"}},
        {"redact": None},
        {"redact": ["x"]},
        {"redact": math.nan},
        {"redact": math.inf},
        {None: 1},
    ],
)
def test_anything_else_is_refused(spec: object) -> None:
    with pytest.raises(TransformRefusedError):
        parse_transform(spec)


def test_a_refusal_says_what_is_allowed() -> None:
    with pytest.raises(TransformRefusedError, match=r'"keep", "null", "pseudonym"') as caught:
        parse_transform("hide")

    assert '{"partial": {"head": 1, "tail": 0}}' in str(caught.value)


def test_an_empty_value_is_not_taken_for_the_word_null() -> None:
    """YAML reads a bare ``null`` and a forgotten value alike, and only one of them means to hide a field."""
    with pytest.raises(TransformRefusedError, match='write "null" in quotes'):
        parse_transform(None)


@pytest.mark.parametrize(
    ("value", "head", "tail", "masked"),
    [
        ("张三丰", 1, 0, "张**"),
        ("13812345678", 3, 4, "138****5678"),
        ("330802199001011234", 0, 4, "**************1234"),
        ("abcd", 2, 1, "ab*d"),
        ("abc", 2, 1, "***"),
        ("ab", 2, 1, "**"),
        ("张", 1, 0, "*"),
        ("", 1, 0, ""),
        ("abc", 0, 0, "***"),
    ],
)
def test_partial_keeps_both_ends_and_never_shows_a_short_value_whole(
    value: str, head: int, tail: int, masked: str
) -> None:
    assert applied({"partial": {"head": head, "tail": tail}}, "string", value) == masked


def test_partial_masks_with_the_character_that_it_is_given() -> None:
    assert applied({"partial": {"head": 1, "mask": "某"}}, "string", "张三丰") == "张某某"


@pytest.mark.parametrize(
    ("spec", "avro_type", "value", "expected"),
    [
        ({"truncate": 3}, "string", "衢州市柯城区", "衢州市"),
        ({"truncate": 3}, "string", "衢", "衢"),
        ({"generalise": {"prefix": 4}}, "string", "330802001", "3308"),
        ({"generalise": "year"}, DATE, date(1990, 12, 31), 1990),
        ({"generalise": "month"}, DATE, date(990, 2, 1), "0990-02"),
        ({"generalise": "year"}, LOCAL, datetime(2024, 5, 6, 7, 8, 9), 2024),  # noqa: DTZ001
        ({"generalise": "month"}, INSTANT, datetime(2024, 5, 6, tzinfo=UTC), "2024-05"),
        ({"generalise": "date"}, INSTANT, datetime(2024, 5, 6, 7, tzinfo=UTC), date(2024, 5, 6)),
        (
            {"generalise": "hour"},
            INSTANT,
            datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC),
            datetime(2024, 5, 6, 7, tzinfo=UTC),
        ),
        ({"generalise": "hour"}, TIME, time(23, 59, 59, 999_000), time(23)),
        ({"generalise": {"band": 10}}, "int", 37, 30),
        ({"generalise": {"band": 10}}, "int", 30, 30),
        ({"generalise": {"band": 10}}, "long", -1, -10),
        ({"generalise": {"band": 10}}, "int", -(2**31), -(2**31)),
        ({"generalise": {"band": 1000}}, "double", 1999.99, 1000.0),
        ({"generalise": {"band": 1000}}, "double", -0.5, -1000.0),
        ({"generalise": {"band": 10}}, "float", -3.4028234663852886e38, -3.4028234663852886e38),
        ({"generalise": {"band": 7}}, "double", math.inf, math.inf),
        ({"generalise": {"band": 1000}}, MONEY, Decimal("1999.99"), Decimal("1000.00")),
        ({"generalise": {"band": 1}}, MONEY, Decimal("-0.01"), Decimal("-1.00")),
        ({"generalise": {"band": 1000}}, MONEY, Decimal("-9999.99"), Decimal("-9999.99")),
    ],
)
def test_truncate_and_generalise_give_something_coarser(
    spec: object, avro_type: Any, value: object, expected: object
) -> None:
    result = applied(spec, avro_type, value)

    assert result == expected
    assert type(result) is type(expected)


def test_an_instant_is_generalised_in_utc_whatever_zone_it_arrives_in() -> None:
    midnight_in_hangzhou = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=8)))

    assert applied({"generalise": "year"}, INSTANT, midnight_in_hangzhou) == 2023


@pytest.mark.parametrize(
    ("spec", "avro_type", "result"),
    [
        ("keep", ["null", LEVEL], ["null", LEVEL]),
        ("null", "string", ["null", "string"]),
        ("null", ["string", "null"], ["string", "null"]),
        ("null", "null", "null"),
        ("null", ["int", "string"], ["null", "int", "string"]),
        ("null", NESTED[2], ["null", NESTED[2]]),
        ({"redact": "x"}, ["null", "string"], "string"),
        ({"redact": "CITY"}, LEVEL, LEVEL),
        ({"truncate": 2}, ["null", "string"], ["null", "string"]),
        ({"truncate": 2}, ["string", "null"], ["string", "null"]),
        ({"truncate": 2}, [{"type": "null"}, "string"], ["null", "string"]),
        ({"truncate": 2}, {"type": "string", "logicalType": "iban", "x": 1}, "string"),
        ({"truncate": 2}, ["string"], "string"),
        ({"generalise": "year"}, ["null", DATE], ["null", "int"]),
        ({"generalise": "month"}, DATE, "string"),
        ({"generalise": "date"}, INSTANT, DATE),
        ({"generalise": "hour"}, INSTANT | {"unit": "exact"}, INSTANT),
        ({"generalise": {"band": 5}}, {"type": "long", "logicalType": "timestamp-nanos"}, "long"),
        ({"generalise": {"band": 5}}, MONEY, MONEY),
        ("pseudonym", "long", "string"),
        ("pseudonym", ["long", "null", "string"], ["string", "null"]),
    ],
)
def test_the_result_type_says_what_comes_out(spec: object, avro_type: Any, result: Any) -> None:
    assert result_type(parse_transform(spec), avro_type) == result


@pytest.mark.parametrize("spec", [{"partial": {"head": 1}}, {"truncate": 1}, {"generalise": {"prefix": 1}}])
@pytest.mark.parametrize(
    "avro_type",
    [
        "int",
        "bytes",
        "boolean",
        DATE,
        UUID_TEXT,
        MONEY,
        LEVEL,
        HASH,
        "null",
        ["string", "int"],
        "Place",
        *NESTED,
    ],
)
def test_what_works_on_texts_is_refused_for_every_other_type(spec: object, avro_type: Any) -> None:
    with pytest.raises(TransformRefusedError):
        result_type(parse_transform(spec), avro_type)


@pytest.mark.parametrize(
    ("spec", "avro_type"),
    [
        ({"generalise": "year"}, "string"),
        ({"generalise": "date"}, DATE),
        ({"generalise": "hour"}, DATE),
        ({"generalise": "year"}, TIME),
        ({"generalise": {"band": 10}}, "string"),
        ({"generalise": {"band": 10}}, DATE),
        ({"generalise": {"band": 1}}, "int"),
        ({"generalise": {"band": 1}}, MONEY | {"scale": 0}),
        ({"generalise": {"band": 10}}, MONEY | {"scale": 9}),
        ("pseudonym", "double"),
        ("pseudonym", "boolean"),
        ("pseudonym", LEVEL),
        ("pseudonym", ["string", "boolean"]),
        ("pseudonym", [INSTANT, LOCAL]),
        ("pseudonym", "Place"),
        ("pseudonym", {"type": {"type": "string"}}),
        ("pseudonym", 7),
        *[("pseudonym", nested) for nested in NESTED],
        *[({"redact": "x"}, nested) for nested in NESTED],
        ({"redact": "x"}, "bytes"),
        ({"redact": "x"}, HASH),
        ({"redact": "x"}, ["string", "int"]),
        ({"redact": "x"}, "null"),
        ({"redact": 1}, "string"),
        ({"redact": "1"}, "int"),
        ({"redact": True}, "int"),
        ({"redact": 1}, "boolean"),
        ({"redact": 1.5}, "long"),
        ({"redact": 2**31}, "int"),
        ({"redact": 1e39}, "float"),
        ({"redact": 10**400}, "double"),
        ({"redact": "VILLAGE"}, LEVEL),
        ({"redact": "2024-13-01"}, DATE),
        ({"redact": "24:00"}, TIME),
        ({"redact": "00:00:00Z"}, TIME),
        ({"redact": "2024-01-01T00:00:00"}, INSTANT),
        ({"redact": "0001-01-01T00:00:00+14:00"}, INSTANT),
        ({"redact": "2024-01-01T00:00:00Z"}, LOCAL),
        ({"redact": "2024-01-01T00:00:00.0001Z"}, INSTANT),
        ({"redact": "00:00:00.0001"}, TIME),
        ({"redact": "not-a-uuid"}, UUID_TEXT),
        ({"redact": "0.001"}, MONEY),
        ({"redact": "10000"}, MONEY),
        ({"redact": "NaN"}, MONEY),
        ({"redact": "zero"}, MONEY),
        ({"redact": "\ud800"}, "string"),
    ],
)
def test_a_transform_that_cannot_apply_to_a_type_is_refused(spec: object, avro_type: Any) -> None:
    with pytest.raises(TransformRefusedError):
        result_type(parse_transform(spec), avro_type)


@pytest.mark.parametrize(
    ("constant", "avro_type", "expected"),
    [
        ("***", "string", "***"),
        ("CITY", LEVEL, "CITY"),
        (False, "boolean", False),
        (-1, "int", -1),
        (0, "double", 0.0),
        (0.1, "float", 0.10000000149011612),
        ("0.00", MONEY, Decimal("0.00")),
        (7, MONEY, Decimal(7)),
        ("1900-01-01", DATE, date(1900, 1, 1)),
        ("00:00:00", TIME, time(0)),
        ("1900-01-01T08:00:00+08:00", INSTANT, datetime(1900, 1, 1, tzinfo=UTC)),
        ("1900-01-01T00:00:00", LOCAL, datetime(1900, 1, 1)),  # noqa: DTZ001
        ("00000000-0000-0000-0000-000000000000", UUID_TEXT, UUID(int=0)),
    ],
)
def test_redact_gives_its_constant_for_every_value_and_for_null(
    constant: object, avro_type: Any, expected: object
) -> None:
    function = compile_transform(Redact(constant=constant), ["null", avro_type])  # type: ignore[arg-type]

    assert function("whatever") == function(None) == expected
    assert type(function(None)) is type(expected)


@pytest.mark.parametrize(
    ("spec", "avro_type"),
    [
        ({"partial": {"head": 1}}, "string"),
        ({"truncate": 1}, "string"),
        ({"generalise": "year"}, DATE),
        ({"generalise": {"band": 10}}, "int"),
        ("pseudonym", "string"),
    ],
)
def test_null_stays_null(spec: object, avro_type: Any) -> None:
    assert applied(spec, ["null", avro_type], None) is None


@pytest.mark.parametrize(
    ("spec", "avro_type", "value"),
    [
        ({"partial": {"head": 1}}, "string", 7),
        ({"partial": {"head": 1}}, "string", None),
        ({"truncate": 3}, "string", b"secret"),
        ({"generalise": "year"}, DATE, datetime(2024, 1, 1, tzinfo=UTC)),
        ({"generalise": "year"}, DATE, "1990-01-01"),
        ({"generalise": "hour"}, INSTANT, datetime(2024, 1, 1)),  # noqa: DTZ001
        ({"generalise": {"band": 10}}, "int", "37"),
        ({"generalise": {"band": 10}}, "int", True),
        ({"generalise": {"band": 10}}, "double", 3),
        ({"generalise": {"band": 10}}, MONEY, 3.5),
        ({"generalise": {"band": 10}}, MONEY, Decimal("NaN")),
        ({"generalise": {"band": 10}}, MONEY, Decimal("0.001")),
        ("pseudonym", "string", 7),
        ("pseudonym", "long", True),
        ("pseudonym", "string", "\ud800secret"),
        ("pseudonym", MONEY, Decimal("Infinity")),
    ],
)
def test_a_value_that_is_not_of_its_type_ends_the_record_and_is_not_told(
    spec: object, avro_type: Any, value: object
) -> None:
    with pytest.raises(ViewError) as caught:
        applied(spec, avro_type, value)

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# -- pseudonyms ------------------------------------------------------------------------------------


def test_a_pseudonym_is_32_hexadecimal_characters_and_the_same_every_time() -> None:
    first = applied("pseudonym", "string", "330802199001011234")

    assert first == applied("pseudonym", ["null", "string"], "330802199001011234")
    assert isinstance(first, str)
    assert len(first) == 32
    assert set(first) <= set("0123456789abcdef")


def test_a_pseudonym_never_changes_between_releases() -> None:
    """A subscriber's landed rows join on it: another result for the same input would break them all."""
    key = derive_key(b"m" * 32, subscriber="health", purpose="epidemiology", epoch=1)

    assert key.hex() == "7624994630fb47f181fd88594d68d4163d9e6717ccb27a91d9e3d25de3bd8806"
    pseudonym = compile_transform(Pseudonym(), "string", pseudonym_key=key)
    assert pseudonym("330802199001011234") == "092bcc49f4c6f580b1f38cb645c7a5dd"


def test_the_key_derivation_is_hkdf_as_rfc_5869_has_it() -> None:
    """Compared with an implementation that shares no code with this one."""
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    hkdf = pytest.importorskip("cryptography.hazmat.primitives.kdf.hkdf")
    master = bytes(range(48))
    other = hkdf.HKDF(
        algorithm=hashes.SHA256(), length=32, salt=b"govbus pseudonym 1", info=b'["health", "care", 2]'
    ).derive(master)

    assert derive_key(master, subscriber="health", purpose="care", epoch=2) == other


@pytest.mark.parametrize("length", [1, 32, 63, 64, 65, 200])
def test_a_pseudonym_is_the_hmac_that_the_standard_library_computes(length: int) -> None:
    key = bytes(range(length))
    pseudonym = compile_transform(Pseudonym(), "bytes", pseudonym_key=key)

    assert pseudonym(b"value") == hmac.digest(key, b"bvalue", "sha256").hex()[:32]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("health", "care", 1), ("tax", "care", 1)),
        (("health", "care", 1), ("health", "research", 1)),
        (("health", "care", 1), ("health", "care", 2)),
        (("health", "care", 1), ("healt", "hcare", 1)),
        (("health", 'care", "1', 1), ("health", "care", 1)),
    ],
)
def test_another_subscriber_purpose_or_epoch_has_another_key(
    one: tuple[str, str, int], other: tuple[str, str, int]
) -> None:
    keys = {
        derive_key(b"m" * 32, subscriber=subscriber, purpose=purpose, epoch=epoch)
        for subscriber, purpose, epoch in (one, other)
    }

    assert len(keys) == 2


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        derive_key(b"short", subscriber="health", purpose="care", epoch=1)


@pytest.mark.parametrize("key", [None, b""])
def test_a_pseudonym_without_a_key_is_refused(key: bytes | None) -> None:
    with pytest.raises(TransformRefusedError, match="no pseudonym secret"):
        compile_transform(Pseudonym(), "string", pseudonym_key=key)


def test_values_of_different_kinds_have_different_pseudonyms() -> None:
    day = date(1970, 1, 2)
    values: list[tuple[Any, Any]] = [
        ("string", "1"),
        ("int", 1),
        ("bytes", b"1"),
        (MONEY, Decimal(1)),
        (DATE, day),
        (INSTANT, datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        (LOCAL, datetime(1970, 1, 1, 0, 0, 0, 1)),  # noqa: DTZ001
        (TIME, time(0, 0, 0, 1)),
        ("string", day.isoformat()),
        ("string", "s1"),
        ("string", "i1"),
    ]

    assert len({applied("pseudonym", avro_type, value) for avro_type, value in values}) == len(values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("int", 7), ("long", 7)),
        ((HASH, b"abcd"), ("bytes", b"abcd")),
        ((UUID_TEXT, UUID(int=5)), ("string", str(UUID(int=5)))),
        ((MONEY, Decimal("1.50")), (MONEY | {"scale": 1}, Decimal("1.5"))),
        ((MONEY, Decimal("100")), (MONEY, Decimal("1E+2"))),
        ((MONEY, Decimal("0.00")), (MONEY, Decimal("-0"))),
        (
            (INSTANT, datetime(2024, 1, 1, tzinfo=UTC)),
            (INSTANT, datetime(2024, 1, 1, 8, tzinfo=timezone(timedelta(hours=8)))),
        ),
    ],
)
def test_the_same_value_under_two_contracts_has_one_pseudonym_so_that_joins_work(
    one: tuple[Any, Any], other: tuple[Any, Any]
) -> None:
    assert applied("pseudonym", *one) == applied("pseudonym", *other)


def test_decimals_of_any_length_keep_different_pseudonyms() -> None:
    """Arithmetic on decimals rounds to 28 digits; pseudonyms must not."""
    wide = MONEY | {"precision": 40, "scale": 0}

    assert applied("pseudonym", wide, Decimal(10**39 + 1)) != applied("pseudonym", wide, Decimal(10**39 + 2))


def test_a_pseudonym_with_sm3_is_the_hmac_over_the_hash_of_gb_t_32905() -> None:
    """The hash is held against the standard's own example, the HMAC against RFC 2104 written out."""
    assert hashlib.new("sm3", b"abc").hexdigest() == (
        "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
    )
    outer, inner = (bytes(byte ^ pad for byte in KEY.ljust(64, b"\0")) for pad in (0x5C, 0x36))
    inside = hashlib.new("sm3", inner + b"s330802199001011234").digest()

    shown = applied({"pseudonym": {"hash": "sm3"}}, "string", "330802199001011234")

    assert shown == hashlib.new("sm3", outer + inside).hexdigest()[:32]
    assert shown != applied("pseudonym", "string", "330802199001011234")


def test_sm3_is_refused_where_openssl_does_not_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the grant is made and when it is compiled: never another hash in its place."""
    without_sm3(monkeypatch)
    sm3 = Pseudonym(hash="sm3")

    with pytest.raises(TransformRefusedError, match="no sm3"):
        result_type(sm3, "string")
    with pytest.raises(TransformRefusedError, match="no sm3"):
        compile_transform(sm3, "string", pseudonym_key=KEY)
    assert result_type(Pseudonym(), "string") == "string"


def without_sm3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave hashlib as an OpenSSL without SM3 would."""
    full = hashlib.new

    def new(name: str, *data: bytes) -> Any:
        if name == "sm3":
            raise ValueError("unsupported hash type sm3")
        return full(name, *data)

    monkeypatch.setattr(hashlib, "new", new)
