"""Text and binary forms of PostgreSQL's `bit`, and Oracle's BINARY bytes, as numpy bool arrays of one axis."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import InvalidVector
from pythiadb.vectors.dense import as_str, shown

Bits = NDArray[np.bool_]

_BIT_HEADER = struct.Struct(">i")  # number of bits


def bits_to_text(bits: Bits) -> bytes:
    """Write bits as PostgreSQL does, first dimension first.

    >>> bits_to_text(bits_from_bytes([201]))
    b'11001001'
    """
    flat = _check_bits(bits)
    return (flat.astype(np.uint8) + ord("0")).tobytes()


def bits_from_text(text: str | bytes) -> Bits:
    """Read the text form of `bit`: zeros and ones."""
    text = as_str(text)
    digits = np.frombuffer(text.strip().encode("utf-8", "replace"), np.uint8) - np.uint8(ord("0"))
    if (digits > 1).any():
        raise InvalidVector(f'invalid input syntax for type bit: "{shown(text)}"')
    return _check_bits(digits.astype(np.bool_))


def bits_to_binary(bits: Bits) -> bytes:
    """Write bits in the form of PostgreSQL's binary protocol: the count, then bytes, most significant bit first."""
    flat = _check_bits(bits)
    return _BIT_HEADER.pack(flat.shape[0]) + np.packbits(flat).tobytes()


def bits_from_binary(data: bytes) -> Bits:
    """Read the form of PostgreSQL's binary protocol."""
    if len(data) < _BIT_HEADER.size:
        raise InvalidVector("binary bit string is truncated")
    (count,) = _BIT_HEADER.unpack_from(data)
    if count < 0 or len(data) != _BIT_HEADER.size + (count + 7) // 8:
        raise InvalidVector(f"binary bit string of {count} bits cannot have {len(data)} bytes")
    packed = np.frombuffer(data, np.uint8, offset=_BIT_HEADER.size)
    return _check_bits(np.unpackbits(packed, count=count).astype(np.bool_))


def bits_from_bytes(values: Sequence[int]) -> Bits:
    """Read Oracle's BINARY elements: bytes of eight dimensions, the first in the most significant bit."""
    if not all(0 <= value <= 255 for value in values):
        raise InvalidVector("value of a binary vector must be between 0 and 255")
    return _check_bits(np.unpackbits(np.array(values, dtype=np.uint8)).astype(np.bool_))


def bits_to_bytes(bits: Bits) -> list[int]:
    """Write Oracle's BINARY elements; raise InvalidVector unless the number of dimensions is a multiple of 8."""
    flat = _check_bits(bits)
    if flat.shape[0] % 8:
        raise InvalidVector(f"binary vector must have a multiple of 8 dimensions, not {flat.shape[0]}")
    return [int(value) for value in np.packbits(flat)]


def _check_bits(bits: Bits) -> Bits:
    if bits.ndim != 1 or bits.dtype != np.bool_:
        raise InvalidVector("a bit vector must be an array of booleans with one axis")
    if bits.shape[0] == 0:
        raise InvalidVector("vector cannot have zero dimensions")
    return bits
