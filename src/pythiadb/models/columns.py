"""SQL values to tensor columns: what PostgreSQL would convert is converted, anything else is an error that names the attribute.

Every function takes the values of one attribute for several rows, None for NULL, and returns an array with one entry a row
and a mask of the rows that the tensor cannot hold because they are NULL (None when there are none). NULL is NaN in a tensor
of floating-point numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pythiadb.errors import InvalidParameter, LimitExceeded
from pythiadb.models.tokenizing import clean_text

Mask = NDArray[np.bool_]
Column = tuple[NDArray[Any], Mask | None]

_PLAIN = {int, float, type(None)}
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})
_EXACT = float(2**53 - 1)  # above it neighbouring integers share one float64
_SHOWN = 60  # characters of a value in an error message


def number_column(values: Sequence[Any], name: str, dtype: np.dtype[Any]) -> Column:
    """Convert JSON values to numbers or booleans; a fraction for an integer tensor is rounded as PostgreSQL rounds numeric."""
    if dtype.kind == "b":
        return _fill([None if v is None else _boolean(v, name) for v in values], dtype)
    kinds = set(map(type, values))
    if dtype.kind == "f":
        floats = values if kinds <= _PLAIN else [None if v is None else _float(v, name) for v in values]
        return _narrow(floats, name, dtype), None
    whole = (
        values if kinds <= {int, type(None)} else [None if v is None else _integer(v, name) for v in values]
    )
    try:
        return _fill(whole, dtype)
    except OverflowError:
        bounds = np.iinfo(dtype)
        bad = next(v for v in whole if v is not None and not bounds.min <= v <= bounds.max)
        raise _out_of_range(bad, name, dtype) from None


def text_column(values: Sequence[Any], name: str, max_bytes: int) -> Column:
    """Convert JSON values to strings; raise LimitExceeded for one of more than `max_bytes` UTF-8 bytes."""
    texts = [None if v is None else clean_text(as_text(v, name), max_bytes) for v in values]
    missing = np.fromiter((text is None for text in texts), np.bool_, len(texts))
    return np.array(texts, dtype=object), _mask(missing)


def vector_column(values: Sequence[Any], name: str, dtype: np.dtype[Any], width: int) -> Column:
    """Convert arrays of `width` numbers, or pgvector texts of such, to rows. A NULL array is a missing row."""
    missing = np.fromiter((v is None for v in values), np.bool_, len(values))
    rows = [_vector(v, name, width) for v in values if v is not None]
    flat, holes = number_column(list(chain.from_iterable(rows)), name, dtype)
    result = np.zeros((len(values), width), dtype=dtype)
    result[~missing] = flat.reshape(-1, width)
    if holes is not None:
        missing[np.flatnonzero(~missing)] = holes.reshape(-1, width).any(axis=1)
    return result, _mask(missing)


def blob_column(values: Sequence[Any], name: str, width: int, max_bytes: int) -> Column:
    """Convert bytes, or their hexadecimal text, to rows of `width` unsigned bytes."""
    result = np.zeros((len(values), width), dtype=np.uint8)
    missing = np.zeros(len(values), dtype=np.bool_)
    for row, value in enumerate(values):
        if value is None:
            missing[row] = True
            continue
        content = as_bytes(value, name, max_bytes)
        if len(content) != width:
            raise InvalidParameter(f'attribute "{name}" has {len(content)} bytes, the model takes {width}')
        result[row] = np.frombuffer(content, dtype=np.uint8)
    return result, _mask(missing)


def float_columns(
    values: NDArray[Any], nulls: Mask | None, dtype: np.dtype[Any], names: Sequence[str]
) -> Column:
    """Convert a block of float64, float32 or int32 [rows, columns]; a row that the tensor cannot hold exactly enough is missing.

    NULL is what `nulls` says; for other tensors than floating-point ones NaN cannot be held either. Raise InvalidParameter
    for a whole number that is exact and out of the tensor's range.
    """
    if dtype.kind == "f":
        if nulls is not None and nulls.any():
            values = np.where(nulls, np.nan, values)
        with np.errstate(over="ignore"):
            narrow = values.astype(dtype)
        if dtype.itemsize >= values.itemsize:
            return narrow, None
        return narrow, _mask((np.isinf(narrow) & ~np.isinf(values)).any(axis=1))
    if values.dtype.kind == "i" and nulls is None:
        return _whole_columns(values, dtype, names), None
    bad = np.zeros(values.shape, dtype=np.bool_) if nulls is None else nulls
    if dtype.kind == "b":
        bad = bad | np.isnan(values)
        return values != 0, _mask(bad.any(axis=1))
    whole = _round(values.astype(np.float64, copy=False))
    bad = bad | ~(np.abs(whole) <= _EXACT)
    _check_range(whole, ~bad, dtype, names)
    return np.where(bad, 0, whole).astype(dtype), _mask(bad.any(axis=1))


def _whole_columns(values: NDArray[Any], dtype: np.dtype[Any], names: Sequence[str]) -> NDArray[Any]:
    """Convert a block of whole numbers to booleans or other whole numbers."""
    if dtype.kind != "b" and not np.can_cast(values.dtype, dtype):
        _check_range(values, True, dtype, names)
    return values.astype(dtype)


def _check_range(
    whole: NDArray[Any], held: NDArray[np.bool_] | bool, dtype: np.dtype[Any], names: Sequence[str]
) -> None:
    """Raise InvalidParameter when one of the numbers that are held is out of the tensor's range."""
    bounds = np.iinfo(dtype)
    outside = held & ((whole < bounds.min) | (whole > bounds.max))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise _out_of_range(int(whole[row, column]), names[column], dtype)


def as_text(value: Any, name: str) -> str:
    """Return a JSON value as PostgreSQL's text of it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return format(Decimal(value), "f")  # str() takes 4300 digits only
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f") if math.isfinite(value) else _special(value)
    raise _invalid(value, name, "text")


def as_bytes(value: Any, name: str, max_bytes: int) -> bytes:
    r"""Return bytes as they are, and text of the form `\x0a1b` decoded."""
    if isinstance(value, str) and value.startswith("\\x"):
        try:
            value = bytes.fromhex(value[2:])
        except ValueError:
            raise _invalid(value, name, "bytes in hexadecimal form") from None
    if not isinstance(value, bytes):
        raise _invalid(value, name, "bytes in hexadecimal form")
    if len(value) > max_bytes:
        raise LimitExceeded(f"input of {len(value)} bytes exceeds the limit of {max_bytes} bytes")
    return value


def _fill(values: Sequence[Any], dtype: np.dtype[Any]) -> Column:
    if None not in values:
        return np.array(values, dtype=dtype), None
    missing = np.fromiter((v is None for v in values), np.bool_, len(values))
    return np.array([0 if v is None else v for v in values], dtype=dtype), missing


def _narrow(values: Sequence[Any], name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        wide = np.array(values, dtype=np.float64)  # None becomes NaN
    except OverflowError:
        raise _out_of_range(max(filter(None, values), key=abs), name, np.dtype(np.float64)) from None
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    lost = np.isinf(narrow) & ~np.isinf(wide)
    if lost.any():
        raise _out_of_range(wide[lost][0], name, dtype)
    return narrow


def _float(value: Any, name: str) -> float:
    if isinstance(value, int | float):
        return value
    try:
        number = float(value) if isinstance(value, str) and "_" not in value else None
    except ValueError:
        number = None
    if number is None:
        raise _invalid(value, name, "a number")
    if math.isinf(number) and "n" not in value.lower():  # digits, not the word
        raise _out_of_range(value.strip(), name, np.dtype(np.float64))
    return number


def _integer(value: Any, name: str) -> int:
    if isinstance(value, int):
        return int(value)
    try:
        exact = Decimal(value) if isinstance(value, str) and "_" not in value else Decimal(repr(value))
        if isinstance(value, str | float) and exact.is_finite() and exact.adjusted() < 40:
            return int(exact.to_integral_value(ROUND_HALF_UP))
    except InvalidOperation:
        pass
    raise _invalid(value, name, "a whole number")


def _boolean(value: Any, name: str) -> bool:
    if isinstance(value, bool | int) or (isinstance(value, float) and not math.isnan(value)):
        return value != 0
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    raise _invalid(value, name, "a boolean")


def _vector(value: Any, name: str, width: int) -> Sequence[Any]:
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise _invalid(value, name, "an array of numbers") from None
    if not isinstance(value, list | tuple):
        raise _invalid(value, name, "an array of numbers")
    if len(value) != width:
        raise InvalidParameter(f'attribute "{name}" has {len(value)} values, the model takes {width}')
    return value


def _round(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round halves away from zero, as PostgreSQL rounds numeric."""
    whole = np.trunc(values)
    with np.errstate(invalid="ignore"):
        return whole + np.copysign(np.abs(values - whole) >= 0.5, values)


def _mask(missing: Any) -> Mask | None:
    return missing if missing.any() else None


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _invalid(value: Any, name: str, wanted: str) -> InvalidParameter:
    shown = _cut(value if isinstance(value, str) else orjson.dumps(value, default=repr).decode())
    return InvalidParameter(f'invalid value for attribute "{name}": "{shown}"', detail=f"It takes {wanted}.")


def _out_of_range(value: Any, name: str, dtype: np.dtype[Any]) -> InvalidParameter:
    shown = _cut(format(Decimal(value), "f") if isinstance(value, int) else str(value))
    return InvalidParameter(f'value {shown} of attribute "{name}" is out of range for type {dtype.name}')


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
