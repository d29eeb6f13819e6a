"""What may be done to one field on its way to a subscriber.

A transform is named in a grant and applied by the view that the grant compiles
to. It promises two things:

- It either fits the field's Avro type or is refused when the grant is made
  (:class:`~govbus.errors.TransformRefusedError`). It never lets a value through
  unchanged because it did not know what to do with it: a value that is not what
  its type says ends in :class:`~govbus.errors.ViewError`, and the record is not
  delivered.
- What comes out is always a value of :func:`result_type`.

============  ==============================================  ==========================================
transform     fits                                            gives
============  ==============================================  ==========================================
keep          every type                                      the value as it is
null          every type                                      null; the type becomes nullable
redact        string, enum, boolean, numbers, decimal, uuid,  always the constant, also for null: whether
              date, time and timestamp types                  there was a value is not told either
partial       string                                          as many characters; all but ``head`` and
                                                              ``tail`` masked. A value that those two
                                                              would show whole is masked whole
truncate      string                                          the first characters; shorter stays whole
generalise    date: year, month                               year: int; month: "2024-05"
              timestamps: year, month, date, hour             date: date; hour: the hour's start
              times of day: hour                              the hour's start
              string: prefix                                  the first characters; shorter stays whole
              int, long, float, double, decimal: band         the band's lower bound, as the same type
pseudonym     string, int, long, bytes, fixed, uuid, decimal, 32 hexadecimal characters (128 bits)
              date, time and timestamp types
============  ==============================================  ==========================================

Each also fits the nullable form of those types. Null stays null, except under
redact. A union of several types that are not null can be kept, nulled or
pseudonymised. Arrays, maps and records can be kept or nulled, nothing between.

Instants are generalised in UTC, which is what Avro stores; local timestamps by
their own clock. Bands count from zero downwards and upwards: width 10 puts -1
into the band of -10. A band that begins below the least value of the type is
given as that least value.

A pseudonym is an HMAC-SHA-256, or an HMAC-SM3 where the grant says so, under a
key derived (HKDF, RFC 5869) per subscriber, purpose and epoch, so joins work
inside an agreement and fail across agreements. It covers the kind of the value: 1 and "1" have different
pseudonyms, an int 1 and a long 1 the same. Booleans and enums are refused,
because counting would tell their few values apart, and floating point because
numbers that print alike need not be alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from govbus.errors import TransformRefusedError
from govbus.generalisation import band_of, date_of, hour_of, month_of, year_of
from govbus.pseudonym import HASHES, derive_key, encoder_of, hashed
from govbus.redaction import constant_of
from govbus.valuekind import branches_of, misfit, unfit, value_branches, value_kind

__all__ = [
    "Generalise",
    "Grain",
    "Keep",
    "Null",
    "Partial",
    "Pseudonym",
    "Redact",
    "Transform",
    "Truncate",
    "compile_transform",
    "derive_key",
    "parse_transform",
    "result_type",
]

_LONGEST = 10_000
"""Characters that partial, truncate and prefix may speak of; no field needs more."""


@dataclass(frozen=True, slots=True)
class Keep:
    """The value as it is."""

    def spec(self) -> str:
        """Return what :func:`parse_transform` reads this back from."""
        return "keep"


@dataclass(frozen=True, slots=True)
class Null:
    """No value, but the column stays."""

    def spec(self) -> str:
        """Return what :func:`parse_transform` reads this back from."""
        return "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redact:
    """The same constant for every record, null or not."""

    constant: str | int | float | bool
    """As JSON has it; dates, times, uuids and decimals are written as strings."""

    def __post_init__(self) -> None:
        if not isinstance(self.constant, str | int | float):
            _refuse(
                "redact", "needs a constant: a text, a number, true or false (for null write the word null)"
            )
        if isinstance(self.constant, float) and not math.isfinite(self.constant):
            _refuse("redact", "needs a finite number")

    def spec(self) -> dict[str, Any]:
        """Return what :func:`parse_transform` reads this back from."""
        return {"redact": self.constant}


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """Some characters at either end, a mask for each of the others."""

    head: int = 0
    tail: int = 0
    mask: str = "*"

    def __post_init__(self) -> None:
        _whole("partial", "head", self.head, least=0, largest=_LONGEST)
        _whole("partial", "tail", self.tail, least=0, largest=_LONGEST)
        if not isinstance(self.mask, str) or len(self.mask) != 1 or not self.mask.isprintable():
            _refuse("partial", '"mask" must be one printable character')

    def spec(self) -> dict[str, Any]:
        """Return what :func:`parse_transform` reads this back from."""
        options: dict[str, Any] = {"head": self.head, "tail": self.tail}
        if self.mask != "*":
            options["mask"] = self.mask
        return {"partial": options}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """The first characters of a text."""

    length: int

    def __post_init__(self) -> None:
        _whole("truncate", "its length", self.length, least=1, largest=_LONGEST)

    def spec(self) -> dict[str, Any]:
        """Return what :func:`parse_transform` reads this back from."""
        return {"truncate": self.length}


class Grain(StrEnum):
    """How coarse a generalised value is."""

    YEAR = "year"
    MONTH = "month"
    DATE = "date"
    HOUR = "hour"
    BAND = "band"
    PREFIX = "prefix"


_SIZED = {Grain.BAND: 2**63 - 1, Grain.PREFIX: _LONGEST}
"""Grains that need a size, and the largest that makes sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generalise:
    """Something true of the value and of many others."""

    to: Grain
    size: int | None = None
    """Width of a band or length of a prefix; None for the grains of time."""

    def __post_init__(self) -> None:
        if self.to in _SIZED:
            _whole("generalise", f'"{self.to}"', self.size, least=1, largest=_SIZED[self.to])
        elif self.size is not None:
            _refuse("generalise", f'"{self.to}" takes no number')

    def spec(self) -> dict[str, Any]:
        """Return what :func:`parse_transform` reads this back from."""
        return {"generalise": self.to.value if self.size is None else {self.to.value: self.size}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pseudonym:
    """A keyed hash: equal values stay equal, inside this agreement only."""

    epoch: int = 1
    """Raising it gives every value a new pseudonym and cuts the link to the old ones."""

    hash: str = HASHES[0]
    """What the HMAC is made with. Another hash gives other pseudonyms, as another epoch does."""

    def __post_init__(self) -> None:
        _whole("pseudonym", '"epoch"', self.epoch, least=1, largest=2**31 - 1)
        if self.hash not in HASHES:
            _refuse("pseudonym", f'"hash" must be one of {", ".join(HASHES)}')

    def spec(self) -> str | dict[str, Any]:
        """Return what :func:`parse_transform` reads this back from."""
        options: dict[str, Any] = {} if self.epoch == 1 else {"epoch": self.epoch}
        if self.hash != HASHES[0]:
            options["hash"] = self.hash
        return {"pseudonym": options} if options else "pseudonym"


Transform = Keep | Null | Redact | Partial | Truncate | Generalise | Pseudonym
"""One of the things that may be done to a field."""


# -- from a grant's text to a transform and back ---------------------------------------------------

_ALLOWED = (
    'allowed are "keep", "null", "pseudonym", {"redact": constant}, {"partial": {"head": 1, "tail": 0}}, '
    '{"truncate": 10}, {"generalise": "year" | "month" | "date" | "hour" | {"band": 10} | {"prefix": 4}} '
    'and {"pseudonym": {"epoch": 2, "hash": "sm3"}}'
)


def parse_transform(spec: object) -> Transform:
    """Read a transform from a word or a mapping with one key, as a grant's YAML or JSON has it.

    ``parse_transform(t.spec()) == t`` for every transform ``t``.

    Raises:
        TransformRefusedError: no such transform, or parameters that it does not take.
    """
    if spec is None:
        # In YAML both a bare `null` and a value that someone forgot arrive as None. One means to hide the
        # field and the other may mean to show it, so the reader must not guess.
        _refuse("the transform", f'is empty: for no value write "null" in quotes; {_ALLOWED}')
    if isinstance(spec, str):
        return _from_word(spec)
    if not isinstance(spec, Mapping) or len(spec) != 1:
        _refuse("the transform", f"must be a word or one key with its parameters; {_ALLOWED}")
    ((name, options),) = spec.items()
    match name:
        case "redact":
            return Redact(constant=options)
        case "partial":
            return Partial(**_options("partial", options, {"head", "tail", "mask"}))
        case "truncate":
            return Truncate(length=options)
        case "generalise":
            return _generalise(options)
        case "pseudonym":
            return Pseudonym(**_options("pseudonym", options, {"epoch", "hash"}))
    _refuse("the transform", f"is not known with parameters; {_ALLOWED}")


def _from_word(word: str) -> Transform:
    match word:
        case "keep":
            return Keep()
        case "null":
            return Null()
        case "pseudonym":
            return Pseudonym()
    _refuse("the transform", f"is not a known word; {_ALLOWED}")


def _generalise(options: object) -> Generalise:
    if isinstance(options, str) and options in Grain.__members__.values():
        return Generalise(to=Grain(options))
    if isinstance(options, Mapping) and len(options) == 1:
        ((grain, size),) = options.items()
        if grain in (Grain.BAND, Grain.PREFIX):
            return Generalise(to=Grain(grain), size=size)
    _refuse("generalise", 'needs "year", "month", "date", "hour", {"band": width} or {"prefix": length}')


def _options(name: str, options: object, known: set[str]) -> dict[str, Any]:
    listed = ", ".join(sorted(known))
    if not isinstance(options, Mapping):
        _refuse(name, f"takes a mapping of {listed}")
    if not set(options) <= known:
        _refuse(name, f"takes only {listed}")
    return dict(options)


# -- what comes out, and how it is made ------------------------------------------------------------


def result_type(transform: Transform, avro_type: Any) -> Any:
    """Return the Avro type of the field after the transform, as JSON has it.

    Raises:
        TransformRefusedError: the transform cannot apply to ``avro_type``.
    """
    return _plan(transform, avro_type, b"")[0]


def compile_transform(
    transform: Transform, avro_type: Any, *, pseudonym_key: bytes | None = None
) -> Callable[[Any], Any]:
    """Make the function that applies the transform to one decoded value.

    The function takes and gives values as fastavro has them in Python. It is
    pure, holds no state between calls and may be called from any thread. It
    raises :class:`~govbus.errors.ViewError` for a value that is not what
    ``avro_type`` says, and the error does not contain the value.

    Args:
        transform: what to do.
        avro_type: the field's type in the schema that the record was written under.
        pseudonym_key: from :func:`govbus.pseudonym.derive_key`; only a pseudonym needs it.

    Raises:
        TransformRefusedError: the transform cannot apply to ``avro_type``, or a pseudonym has no key.
    """
    if isinstance(transform, Pseudonym) and not pseudonym_key:
        _refuse("pseudonym", "needs a key; the exchange has no pseudonym secret")
    return _plan(transform, avro_type, pseudonym_key or b"")[1]


_Function = Callable[[Any], Any]
_Plan = tuple[Any, _Function]


def _plan(transform: Transform, avro_type: Any, key: bytes) -> _Plan:
    """Work out result type and function in one place, so that they cannot disagree."""
    if isinstance(transform, Keep):
        return avro_type, _same
    branches = branches_of(avro_type)
    values = value_branches(avro_type)
    if isinstance(transform, Null):
        return _nullable(branches, values), _nothing
    if not values:
        _refuse(_name(transform), "does not fit a field that is always null")
    if isinstance(transform, Pseudonym):
        encoders = [encoder_of(branch) for branch in values]
        result, function = "string", hashed(encoders, key, transform.hash)
    elif len(values) > 1:
        _refuse(_name(transform), "does not fit a union of several types; use keep, null or pseudonym")
    elif isinstance(transform, Redact):
        constant = constant_of(transform.constant, values[0])
        return values[0], lambda _value: constant
    else:
        result, function = _single(transform, values[0])
    if len(values) == len(branches):
        return result, function
    # The place of null in the union is kept: a field's default belongs to the first branch.
    null_first = value_kind(branches[0]) == "null"
    return (["null", result] if null_first else [result, "null"]), _or_null(function)


def _single(transform: Partial | Truncate | Generalise, branch: Any) -> _Plan:
    kind = value_kind(branch)
    plan: _Plan | None = None
    match transform, kind:
        case Partial(), "string":
            plan = "string", _partial(transform)
        case Truncate(length=length), "string":
            plan = "string", _prefix(length)
        case Generalise(to=Grain.PREFIX, size=int(length)), "string":
            plan = "string", _prefix(length)
        case Generalise(to=Grain.YEAR), "date" | "timestamp" | "local-timestamp":
            plan = "int", year_of(kind)
        case Generalise(to=Grain.MONTH), "date" | "timestamp" | "local-timestamp":
            plan = "string", month_of(kind)
        case Generalise(to=Grain.DATE), "timestamp" | "local-timestamp":
            plan = {"type": "int", "logicalType": "date"}, date_of(kind)
        case Generalise(to=Grain.HOUR), "timestamp" | "local-timestamp" | "time":
            plan = _bare(branch), hour_of(kind)
        case Generalise(to=Grain.BAND, size=int(width)), "int" | "long" | "float" | "double" | "decimal":
            plan = _bare(branch), band_of(width, kind, branch)
    if plan is not None:
        return plan
    if isinstance(transform, Generalise):
        misfit(f"generalise to {transform.to}", kind, _GRAIN_FITS[transform.to])
    misfit(_name(transform), kind, "string")


_GRAIN_FITS = {
    Grain.YEAR: "date, timestamp",
    Grain.MONTH: "date, timestamp",
    Grain.DATE: "timestamp",
    Grain.HOUR: "timestamp, time of day",
    Grain.BAND: "int, long, float, double, decimal",
    Grain.PREFIX: "string",
}


def _bare(branch: Any) -> Any:
    """Return the type without custom attributes that may promise more than the new values keep."""
    if not isinstance(branch, Mapping):
        return branch
    if value_kind(branch) == branch["type"]:
        return branch["type"]
    kept = ("type", "name", "namespace", "size", "logicalType", "precision", "scale")
    return {name: branch[name] for name in kept if name in branch}


def _nullable(branches: list[Any], values: list[Any]) -> Any:
    if not values:
        return "null"
    return branches if len(values) < len(branches) else ["null", *values]


# -- the functions ---------------------------------------------------------------------------------


def _same(value: Any) -> Any:
    return value


def _nothing(_value: Any) -> None:
    return None


def _or_null(function: _Function) -> _Function:
    return lambda value: None if value is None else function(value)


def _partial(transform: Partial) -> _Function:
    head, tail, mask = transform.head, transform.tail, transform.mask
    shown = head + tail

    def partial(value: Any) -> str:
        if type(value) is not str:
            unfit()
        length = len(value)
        if length <= shown:
            return mask * length
        return value[:head] + mask * (length - shown) + value[length - tail :]

    return partial


def _prefix(length: int) -> _Function:
    def prefix(value: Any) -> str:
        if type(value) is not str:
            unfit()
        return value[:length]

    return prefix


# -- refusals --------------------------------------------------------------------------------------


def _name(transform: Transform) -> str:
    return type(transform).__name__.lower()


def _refuse(what: str, why: str) -> NoReturn:
    raise TransformRefusedError(f"{what} {why}")


def _whole(what: str, name: str, number: object, *, least: int, largest: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= largest:
        _refuse(what, f"needs a whole number from {least} to {largest} as {name}")
