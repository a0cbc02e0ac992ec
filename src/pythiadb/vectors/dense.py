"""Text and binary forms of pgvector's `vector`, as numpy float32 arrays of one axis.

The binary form is that of pgvector's `vector_recv`, big-endian; texts are written as ASCII bytes, as the protocol carries them.
Functions are pure; every fault of a value raises InvalidVector.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from pythiadb.errors import InvalidVector

MAX_DIMENSIONS = 16_000  # VECTOR_MAX_DIM of pgvector

Vector = NDArray[np.float32]
VectorLike: TypeAlias = (
    "NDArray[np.generic] | array[float] | array[int] | Sequence[float]"  # array[…] needs Python 3.12
)

_VECTOR_HEADER = struct.Struct(">HH")  # dimensions, unused
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*", re.ASCII)
# pgvector writes -0.0 so; JSON takes it for the integer 0, which has no sign.
_NEGATIVE_ZERO = re.compile(r"-0\s*[,\]]")
_SHOWN = 80  # characters of a faulty text in a message


def as_vector(values: VectorLike) -> Vector:
    """Return the values as a new or shared float32 array; lists, `array.array` and numpy arrays of numbers are taken.

    Raise InvalidVector for NaN, infinity, a value beyond float32, no dimensions or more than 16000.
    """
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "fiu":
            raise InvalidVector(f"vector elements must be numbers, not {given.dtype}")
    except ValueError as error:  # lists of unequal length
        raise InvalidVector("vector elements must be numbers", detail=f"{error}.") from error
    if given.ndim != 1:
        raise InvalidVector(f"vector must have one axis, not {given.ndim}")
    check_dimensions(given.shape[0])
    with np.errstate(over="ignore"):
        vector = given.astype(np.float32, copy=False)
    if not np.isfinite(vector).all():
        _refuse_non_finite(given)
    return vector


def check_dimensions(count: int, limit: int = MAX_DIMENSIONS) -> None:
    """Raise InvalidVector unless `count` is between 1 and `limit`."""
    if count < 1:
        raise InvalidVector("vector cannot have zero dimensions")
    if count > limit:
        raise InvalidVector(f"vector cannot have more than {limit} dimensions", detail=f"It has {count}.")


def vector_to_text(values: VectorLike) -> bytes:
    """Write a vector as pgvector reads it, with the fewest digits that give the same float32 back.

    >>> vector_to_text([1, 0.1, 1e-7])
    b'[1.0,0.1,1e-7]'
    """
    vector = np.ascontiguousarray(as_vector(values))
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def vector_from_text(text: str | bytes) -> Vector:
    """Read pgvector's text form. Raise InvalidVector for malformed text and for what a vector cannot hold.

    >>> vector_from_text(" [1, 2.5,-3e-1] ").tolist()[:2]
    [1.0, 2.5]
    """
    return as_vector(parse_numbers(text, "vector"))


def vector_to_binary(values: VectorLike) -> bytes:
    """Write a vector in the form of pgvector's binary protocol."""
    vector = as_vector(values)
    return _VECTOR_HEADER.pack(vector.shape[0], 0) + vector.astype(">f4").tobytes()


def vector_from_binary(data: bytes) -> Vector:
    """Read the form of pgvector's binary protocol."""
    if len(data) < _VECTOR_HEADER.size:
        raise InvalidVector("binary vector is truncated")
    dimensions, unused = _VECTOR_HEADER.unpack_from(data)
    if unused != 0:
        raise InvalidVector(f"expected unused field of binary vector to be 0, not {unused}")
    if len(data) != _VECTOR_HEADER.size + 4 * dimensions:
        raise InvalidVector(f"binary vector of {dimensions} dimensions cannot have {len(data)} bytes")
    return as_vector(np.frombuffer(data, ">f4", offset=_VECTOR_HEADER.size).astype(np.float32))


def parse_numbers(text: str | bytes, kind: str) -> Sequence[float]:
    """Read `[number, …]`; numbers may have a sign, leading zeros, decimals and an exponent.

    Raise InvalidVector, naming the type `kind`, for anything else: NaN and infinity have no spelling here.
    """
    try:
        values = orjson.loads(text)  # quick, and right for every text that is JSON too
    except orjson.JSONDecodeError:
        return _parse_slowly(as_str(text), kind)
    types = set(map(type, values)) if isinstance(values, list) else {type(values)}
    if not isinstance(values, list) or not types <= {int, float}:
        raise _syntax(as_str(text), kind)
    if int in types and _NEGATIVE_ZERO.search(as_str(text)):
        return _parse_slowly(as_str(text), kind)
    return values


def as_str(text: str | bytes) -> str:
    """Return a text as str; bytes that are not UTF-8 become marks that no codec takes."""
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def _parse_slowly(text: str, kind: str) -> list[float]:
    body = text.strip()
    if not (body.startswith("[") and body.endswith("]")):
        raise _syntax(text, kind)
    matches = [_NUMBER.fullmatch(part) for part in body[1:-1].split(",")]
    if None in matches and body[1:-1].strip():
        raise _syntax(text, kind)
    return [float(match[1]) for match in matches if match]


def _refuse_non_finite(given: NDArray[np.generic]) -> None:
    values = given.astype(np.float64)
    if np.isnan(values).any():
        raise InvalidVector("NaN not allowed in vector")
    if np.isinf(values).any():
        raise InvalidVector("infinite value not allowed in vector")
    large = values[np.argmax(np.abs(values))]
    raise InvalidVector(f'"{large:g}" is out of range for type vector')


def _syntax(text: str, kind: str) -> InvalidVector:
    return InvalidVector(f'invalid input syntax for type {kind}: "{shown(text)}"')


def shown(text: str) -> str:
    """Return a faulty text short enough for a message, on one line."""
    short = " ".join(text.split())
    return short if len(short) <= _SHOWN else short[:_SHOWN] + "…"
