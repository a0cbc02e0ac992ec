"""PostgreSQL's numeric, exactly: whole numbers at a common scale while 64 bits hold them, else an ordered dictionary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[Any]  # signed integers

# Codes of finite numbers stay within ±LIMIT; the others stand outside, in PostgreSQL's order: NaN is the greatest.
LIMIT = 2**62
_NAN, _INFINITY, _MINUS_INFINITY = 2**63 - 1, 2**63 - 2, -(2**63)
_SPECIAL = {"NaN": _NAN, "Infinity": _INFINITY, "-Infinity": _MINUS_INFINITY}
_SPECIAL_TEXTS = {name.lower(): name for name in _SPECIAL}

_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
_LONGEST = 400  # characters of a number, in a predicate or to be held by 64 bits
# PostgreSQL's numbers have up to 131,072 digits before the point and 16,383 behind it.
_WIDE = Context(prec=200_000, Emax=MAX_EMAX, Emin=MIN_EMIN)


@dataclass(frozen=True, slots=True)
class Point:
    """Where a value stands among codes: at `code`, or, when not `exact`, between it and the code below."""

    code: int
    exact: bool


def read_decimal(text: str) -> Decimal:
    """Return the exact value of a predicate's number: digits, NaN or an infinity. Raises ValueError."""
    text = text.strip()
    if text.lower() in _SPECIAL_TEXTS:
        return Decimal(text)
    if len(text) > _LONGEST or not _DECIMAL.fullmatch(text):
        raise ValueError(f"not a number: {text[:40]!r}")
    return Decimal(text)


def point_between(value: Decimal) -> Point:
    """Place a finite number among the integers."""
    below = int(value.to_integral_value("ROUND_FLOOR"))
    return Point(below, exact=True) if below == value else Point(below + 1, exact=False)


def scaled_point(value: Decimal, scale: int) -> Point:
    """Place a number among the codes of a scale."""
    if not value.is_finite():
        return Point(_SPECIAL[_name(value)], exact=True)
    point = point_between(value.scaleb(scale, _WIDE))
    # What lies beyond every finite code stands between the last of them and the infinity.
    if abs(point.code) > LIMIT:
        return Point(LIMIT + 1 if point.code > 0 else -LIMIT, exact=False)
    return point


def plain_decimal(value: Decimal | str) -> Decimal:
    """Return a column's number without trailing zeros, so that equal numbers have equal texts."""
    number = Decimal(value)
    return number.normalize(_WIDE) if number.is_finite() else number


def scaled_codes(values: Sequence[Decimal]) -> tuple[Codes, int] | None:
    """Return numbers as integers at the scale of that with most digits behind the point, or None when 64 bits do not do."""
    parts = [_parts(value) for value in values]
    scale = max((own for _, own in parts if own is not None), default=0)
    codes = [whole if own is None else whole * 10 ** (scale - own) for whole, own in parts]
    if any(abs(code) > LIMIT for code, (_, own) in zip(codes, parts, strict=True) if own is not None):
        return None
    return np.array(codes, np.int64), scale


def _parts(value: Decimal) -> tuple[int, int | None]:
    """Return all digits as a whole number, and how many stand behind the point; for NaN and infinities their code and None.

    For what is far too long, a number that 64 bits do not hold.
    """
    text = str(value)
    if text in _SPECIAL:
        return _SPECIAL[text], None
    if "E" in text:
        text = format(value, "f")
    whole, _, behind = text.partition(".")
    if len(text) > _LONGEST:
        return LIMIT + 1, 0
    return int(whole + behind), len(behind)


def rescaled(codes: Codes, scale: int, wanted: int) -> Codes | None:
    """Return codes at a greater scale, or None when 64 bits do not hold them."""
    finite = (codes <= LIMIT) & (codes >= -LIMIT)
    largest = int(np.abs(codes[finite]).max(initial=0))
    if largest * 10 ** (wanted - scale) > LIMIT:
        return None
    factor = 10 ** (wanted - scale) if largest else 1
    return np.where(finite, codes * np.where(finite, factor, 1), codes)


def unscaled(codes: Codes, scale: int) -> list[Decimal]:
    """Return the numbers that codes stand for."""
    names = {code: Decimal(name) for name, code in _SPECIAL.items()}
    return [
        names[code] if code in names else plain_decimal(Decimal(code).scaleb(-scale, _WIDE))
        for code in codes.tolist()
    ]


def order_key(value: Decimal) -> tuple[int, Decimal]:
    """Return what sorts numbers as PostgreSQL does, NaN last."""
    return (1, Decimal(0)) if value.is_nan() else (0, value)


def _name(value: Decimal) -> str:
    return "NaN" if value.is_nan() else "Infinity" if value > 0 else "-Infinity"
