"""Something true of a value and of many others: its year, its month, its hour, its band.

Each function here makes the function for one kind of value; that one takes a
decoded value and gives the coarser one. Instants are taken in UTC, which is
what Avro stores; local timestamps by their own clock. Bands count from zero
downwards and upwards, so that -1 lies in the band from -10 to 0; a band that
begins below the least value of the type is told by that least value.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from govbus.errors import TransformRefusedError
from govbus.valuekind import LARGEST_FLOAT, LEAST, decimal_shape, unfit

Function = Callable[[Any], Any]


def _checked(kind: str) -> Function:
    """Make a check that a value is of the Python class that the kind of time decodes to."""
    if kind == "timestamp":
        return _instant
    wanted: type = {"date": date, "time": time, "local-timestamp": datetime}[kind]

    def checked(value: Any) -> Any:
        if type(value) is not wanted:
            unfit()
        return value

    return checked


def _instant(value: Any) -> datetime:
    if type(value) is not datetime or value.tzinfo is None:
        unfit()
    return value.astimezone(UTC)


def year_of(kind: str) -> Function:
    """The year of a date or timestamp, as an int."""
    checked = _checked(kind)
    return lambda value: checked(value).year


def month_of(kind: str) -> Function:
    """The month of a date or timestamp, as a text: a date would have to invent a day."""
    checked = _checked(kind)

    def month(value: Any) -> str:
        day = checked(value)
        return f"{day.year:04}-{day.month:02}"

    return month


def date_of(kind: str) -> Function:
    """The date of a timestamp."""
    checked = _checked(kind)
    return lambda value: checked(value).date()


def hour_of(kind: str) -> Function:
    """The start of the hour of a timestamp or time of day."""
    checked = _checked(kind)
    return lambda value: checked(value).replace(minute=0, second=0, microsecond=0)


def band_of(width: int, kind: str, branch: Any) -> Function:
    """The lower bound of the band that a number lies in, as the number's own type."""
    if kind == "decimal":
        return _decimal_band(width, branch)
    if kind in ("float", "double"):
        return _float_band(width, kind)
    if width == 1:
        raise TransformRefusedError("a band of width 1 would keep a whole number as it is")
    least = LEAST[kind]

    def band(value: Any) -> int:
        if type(value) is not int:
            unfit()
        return max(value // width * width, least)

    return band


def _float_band(width: int, kind: str) -> Function:
    least = -sys.float_info.max if kind == "double" else -LARGEST_FLOAT
    binary = struct.Struct("<d" if kind == "double" else "<f")

    def band(value: Any) -> float:
        if type(value) is not float:
            unfit()
        if not math.isfinite(value):
            # Infinity and NaN stand for no quantity, so there is nothing in them to make coarser.
            return value
        try:
            # Whole numbers of any size, because dividing large floats would round into the next band.
            lower = float(math.floor(value) // width * width)
            # Rounded as it will be on the wire, so that what comes out is what the subscriber reads.
            (rounded,) = binary.unpack(binary.pack(lower))
        except OverflowError:
            return least
        return max(float(rounded), least)

    return band


def _decimal_band(width: int, branch: Any) -> Function:
    precision, scale = decimal_shape(branch)
    if width == 1 and scale == 0:
        raise TransformRefusedError("a band of width 1 would keep a whole number as it is")
    step = width * 10**scale
    least = 1 - 10**precision

    def band(value: Any) -> Decimal:
        if type(value) is not Decimal or not value.is_finite():
            unfit()
        sign, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int) or exponent + scale < 0:
            unfit()
        unscaled = int("".join(map(str, digits))) * 10 ** (exponent + scale)
        lower = max((-unscaled if sign else unscaled) // step * step, least)
        # From a tuple, because arithmetic rounds to the context's 28 digits.
        return Decimal((int(lower < 0), tuple(map(int, str(abs(lower)))), -scale))

    return band
