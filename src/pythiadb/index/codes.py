"""PostgreSQL values of ordered types as whole numbers of the same order, so that one comparison of integers serves every type.

A *code* is an int of at most 64 bits: a < b in PostgreSQL exactly when code(a) < code(b), and a = b exactly when the codes are
equal (so -0 and 0 have one code, and all NaN have the greatest one). A value of a predicate need not have a code of its own: 10.5
in a column of integers stands between two of them. That is what a `Point` says.

Values of columns come as psycopg loads them, or as PostgreSQL's text (DateStyle ISO); values of predicates as text. What a text
means must not depend on settings of a session or on the type that a literal had: where it would, ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.index.decimals import Codes, Point, point_between, read_decimal

_DATE = r"(?P<year>\d{4,7})-(?P<month>\d\d)-(?P<day>\d\d)"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d)(\.(?P<fraction>\d{1,6}))?)?"
_ZONE = r"(?P<zone>Z|[+-]\d\d(:?\d\d(:?\d\d)?)?)"
_ERA = r"(?P<era> BC)?"
_DATE_TEXT = re.compile(_DATE + _ERA, re.ASCII)
_TIMESTAMP_TEXT = re.compile(f"{_DATE}([ T]{_TIME})?{_ERA}", re.ASCII)
_TIMESTAMPTZ_TEXT = re.compile(f"{_DATE}[ T]{_TIME} ?{_ZONE}{_ERA}", re.ASCII)
_BOOLEANS = {"t": 1, "true": 1, "on": 1, "yes": 1, "1": 1, "f": 0, "false": 0, "off": 0, "no": 0, "0": 0}
_INFINITIES = {"infinity": 1, "-infinity": -1}

_DAY = 86_400_000_000  # microseconds
_EPOCH = datetime(2000, 1, 1)
_EPOCH_UTC = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = date(2000, 1, 1).toordinal()
_MICROSECOND = timedelta(microseconds=1)


def _float_codes(values: NDArray[np.floating[Any]]) -> Codes:
    """Codes of IEEE numbers: their bits, with those of negative numbers turned round."""
    values = values + values.dtype.type(0)  # -0 becomes 0
    values[np.isnan(values)] = np.nan  # one NaN, the positive one, which stands above infinity
    bits: Codes = values.view(np.int32 if values.dtype == np.float32 else np.int64)
    turned: Codes = np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)
    return turned


def _read_float8(text: str) -> float:
    exact = read_decimal(text)
    value = float(exact)
    if exact.is_finite() and (np.isinf(value) or (value == 0) != (exact == 0)):
        raise ValueError("out of range for double precision")
    return value


def _float8_point(text: str) -> Point:
    return Point(int(_float_codes(np.array([_read_float8(text)]))[0]), exact=True)


def _float4_point(text: str) -> Point:
    """Place a number among those of single precision; PostgreSQL compares both in double precision."""
    value = _read_float8(text)
    with np.errstate(over="ignore"):
        single = np.array([value], np.float64).astype(np.float32)
    code, near = int(_float_codes(single)[0]), float(single[0])
    if near == value or np.isnan(value):
        return Point(code, exact=True)
    return Point(code if near > value else code + 1, exact=False)


def _days(match: re.Match[str]) -> int:
    """Days since 2000-01-01 of year, month and day in the proleptic Gregorian calendar. Raises ValueError."""
    year, month, day = (int(match[part]) for part in ("year", "month", "day"))
    if year == 0:
        raise ValueError("there is no year 0")
    if match["era"]:
        year = 1 - year
    # The calendar repeats every 400 years, so a year that Python's date knows stands for every other.
    cycles, known = divmod(year, 400)
    return cycles * 146_097 + date(known + 400, month, day).toordinal() - 146_097 - _EPOCH_ORDINAL


def _date_code(text: str) -> int:
    if sign := _INFINITIES.get(text.strip().lower()):
        return 2**31 - 1 if sign > 0 else -(2**31)
    match = _DATE_TEXT.fullmatch(text.strip())
    if not match:
        raise ValueError("not a date in ISO form")
    days = _days(match)
    if not -2_451_545 <= days < 2_145_031_949:
        raise ValueError("date out of range")
    return days


def _microseconds(match: re.Match[str]) -> int:
    """Microseconds since midnight. Raises ValueError."""
    hour, minute, second = (int(match[part] or 0) for part in ("hour", "minute", "second"))
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("time out of range")
    return ((hour * 60 + minute) * 60 + second) * 1_000_000 + int((match["fraction"] or "0").ljust(6, "0"))


def _zone_microseconds(zone: str) -> int:
    if zone == "Z":
        return 0
    digits = zone[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > 15 or minutes > 59 or seconds > 59:
        raise ValueError("time zone out of range")
    offset = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000
    return -offset if zone[0] == "-" else offset


def _timestamp_code(text: str, pattern: re.Pattern[str]) -> int:
    """Microseconds since 2000-01-01 (UTC where the pattern has a zone). Raises ValueError."""
    if sign := _INFINITIES.get(text.strip().lower()):
        return 2**63 - 1 if sign > 0 else -(2**63)
    match = pattern.fullmatch(text.strip())
    if not match:
        raise ValueError("not a timestamp in ISO form")
    code = _days(match) * _DAY + _microseconds(match)
    if "zone" in pattern.groupindex:
        code -= _zone_microseconds(match["zone"])
    if not -2_451_545 * _DAY <= code < 9_223_371_331_200_000_000:  # 4714-11-24 BC to 294276-12-31
        raise ValueError("timestamp out of range")
    return code


def _timestamp_text_code(text: str) -> int:
    return _timestamp_code(text, _TIMESTAMP_TEXT)


def _timestamptz_text_code(text: str) -> int:
    return _timestamp_code(text, _TIMESTAMPTZ_TEXT)


def _date_point(text: str) -> Point:
    """Place a date; or a time of a day, which lies between that day and the next one."""
    match = _TIMESTAMP_TEXT.fullmatch(text.strip())
    if match is None or match["hour"] is None:
        return Point(_date_code(text), exact=True)
    later = _microseconds(match) > 0
    return Point(_days(match) + later, exact=not later)


def _boolean_code(text: str) -> int:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError("not a boolean") from None


@dataclass(frozen=True, slots=True)
class Coding:
    """How one type becomes codes: a column's values other than None, and a value of a predicate. Both raise ValueError."""

    encode: Callable[[Sequence[Any]], Codes]
    point: Callable[[str], Point]


def _one_by_one(from_value: Callable[[Any], int], from_text: Callable[[str], int]) -> Coding:
    """Make the coding of a type whose values all have codes."""

    def encode(values: Sequence[Any]) -> Codes:
        return np.array([from_text(v) if isinstance(v, str) else from_value(v) for v in values], np.int64)

    return Coding(encode, lambda text: Point(from_text(text), exact=True))


def _integers(values: Sequence[Any]) -> Codes:
    return np.array([int(v) for v in values], np.int64)


def _float4_codes(values: Sequence[Any]) -> Codes:
    return _float_codes(np.array([float(v) for v in values], np.float64).astype(np.float32))


def _float8_codes(values: Sequence[Any]) -> Codes:
    return _float_codes(np.array([float(v) for v in values], np.float64))


def _integer_point(text: str) -> Point:
    value = read_decimal(text)
    if not value.is_finite():
        raise ValueError("not a finite number")
    return point_between(value)


_INTEGER = Coding(_integers, _integer_point)

# Types with codes that need no knowledge of the column's other values.
CODINGS: dict[str, Coding] = {
    "int2": _INTEGER,
    "int4": _INTEGER,
    "int8": _INTEGER,
    "float4": Coding(_float4_codes, _float4_point),
    "float8": Coding(_float8_codes, _float8_point),
    "bool": _one_by_one(int, _boolean_code),
    "date": replace(_one_by_one(lambda day: day.toordinal() - _EPOCH_ORDINAL, _date_code), point=_date_point),
    "timestamp": _one_by_one(lambda time: (time - _EPOCH) // _MICROSECOND, _timestamp_text_code),
    "timestamptz": _one_by_one(lambda time: (time - _EPOCH_UTC) // _MICROSECOND, _timestamptz_text_code),
}
