"""Sparse vectors, and the text and binary forms of pgvector's `sparsevec`."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import InvalidVector
from pythiadb.vectors.dense import Vector, VectorLike, as_str, as_vector, shown, vector_to_text

MAX_DIMENSIONS = 1_000_000_000  # SPARSEVEC_MAX_DIM of pgvector
MAX_ENTRIES = 16_000  # SPARSEVEC_MAX_NNZ

_HEADER = struct.Struct(">iii")  # dimensions, entries, unused
_TEXT = re.compile(r"\s*\{(.*)\}\s*/\s*(\d{1,12})\s*", re.ASCII | re.DOTALL)
_ENTRY = re.compile(r"\s*(\d{1,12})\s*:\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*", re.ASCII)

Indices = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """A vector by its stored entries: `indices` from 0, rising, int32; `values` float32. Stored zeros are kept.

    Making one checks it: raise InvalidVector for indices that repeat, fall or lie outside, for values that are not finite,
    and for sizes beyond pgvector's.
    """

    dimensions: int
    indices: Indices
    values: Vector

    def __post_init__(self) -> None:
        if not 1 <= self.dimensions <= MAX_DIMENSIONS:
            raise InvalidVector(
                f"sparse vector must have 1 to {MAX_DIMENSIONS} dimensions, not {self.dimensions}"
            )
        if self.indices.shape != self.values.shape or self.indices.ndim != 1:
            raise InvalidVector(
                f"sparse vector has {self.indices.size} indices and {self.values.size} values"
            )
        if self.indices.size > MAX_ENTRIES:
            raise InvalidVector(f"sparse vector cannot have more than {MAX_ENTRIES} entries")
        if self.indices.size:
            self._check_entries()

    @classmethod
    def from_entries(cls, dimensions: int, indices: VectorLike, values: VectorLike) -> SparseVector:
        """Make one from entries in any order."""
        given = np.asarray(indices)
        if given.size and given.dtype.kind not in "iu":
            raise InvalidVector("sparse vector indices must be integers")
        if given.size and not (given.min() >= 0 and given.max() < dimensions <= MAX_DIMENSIONS):
            raise InvalidVector(f"sparse vector index out of bounds for {dimensions} dimensions")
        floats = as_vector(values) if len(values) else np.empty(0, np.float32)
        if given.shape != floats.shape:
            raise InvalidVector(f"sparse vector has {given.size} indices and {floats.size} values")
        order = np.argsort(given, kind="stable")
        return cls(dimensions, given[order].astype(np.int32), floats[order])

    @classmethod
    def from_dense(cls, values: VectorLike) -> SparseVector:
        """Keep the entries of a dense vector that are not zero."""
        vector = as_vector(values)
        indices = np.flatnonzero(vector)
        return cls(vector.shape[0], indices.astype(np.int32), vector[indices])

    def to_dense(self) -> Vector:
        """Return all values, float32 [dimensions]."""
        dense = np.zeros(self.dimensions, dtype=np.float32)
        dense[self.indices] = self.values
        return dense

    def without_zeros(self) -> SparseVector:
        """Return the same vector without stored zeros, which pgvector does not keep."""
        kept = self.values != 0
        return self if kept.all() else SparseVector(self.dimensions, self.indices[kept], self.values[kept])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseVector):
            return NotImplemented
        return (
            self.dimensions == other.dimensions
            and np.array_equal(self.indices, other.indices)
            and np.array_equal(self.values, other.values)
        )

    def __hash__(self) -> int:
        # + 0.0 makes -0.0 and 0.0, which are equal, hash alike.
        return hash((self.dimensions, self.indices.tobytes(), (self.values + np.float32(0)).tobytes()))

    def _check_entries(self) -> None:
        if self.indices[0] < 0 or self.indices[-1] >= self.dimensions:
            raise InvalidVector(f"sparse vector index out of bounds for {self.dimensions} dimensions")
        if (np.diff(self.indices) <= 0).any():
            raise InvalidVector("sparse vector indices must rise and must not contain duplicates")
        as_vector(self.values)


def sparse_to_text(vector: SparseVector) -> bytes:
    """Write pgvector's text form, with indices from 1.

    >>> sparse_to_text(SparseVector.from_entries(5, [0, 2], [1.5, 2]))
    b'{1:1.5,3:2.0}/5'
    """
    kept = vector.without_zeros()
    if not kept.indices.size:
        return f"{{}}/{kept.dimensions}".encode()
    values = vector_to_text(kept.values)[1:-1].decode().split(",")
    entries = (f"{index + 1}:{value}" for index, value in zip(kept.indices, values, strict=True))
    return f"{{{','.join(entries)}}}/{kept.dimensions}".encode()


def sparse_from_text(text: str | bytes) -> SparseVector:
    """Read pgvector's text form; entries may come in any order, and zeros are dropped, as pgvector does."""
    text = as_str(text)
    match = _TEXT.fullmatch(text)
    entries = [_ENTRY.fullmatch(part) for part in match[1].split(",")] if match and match[1].strip() else []
    if match is None or None in entries:
        raise InvalidVector(f'invalid input syntax for type sparsevec: "{shown(text)}"')
    indices = [int(entry[1]) - 1 for entry in entries if entry]
    values = [float(entry[2]) for entry in entries if entry]
    return SparseVector.from_entries(int(match[2]), indices, values).without_zeros()


def sparse_to_binary(vector: SparseVector) -> bytes:
    """Write the form of pgvector's binary protocol."""
    kept = vector.without_zeros()
    header = _HEADER.pack(kept.dimensions, kept.indices.size, 0)
    return header + kept.indices.astype(">i4").tobytes() + kept.values.astype(">f4").tobytes()


def sparse_from_binary(data: bytes) -> SparseVector:
    """Read the form of pgvector's binary protocol."""
    if len(data) < _HEADER.size:
        raise InvalidVector("binary sparse vector is truncated")
    dimensions, entries, unused = _HEADER.unpack_from(data)
    if unused != 0:
        raise InvalidVector(f"expected unused field of binary sparse vector to be 0, not {unused}")
    if entries < 0 or len(data) != _HEADER.size + 8 * entries:
        raise InvalidVector(f"binary sparse vector of {entries} entries cannot have {len(data)} bytes")
    indices = np.frombuffer(data, ">i4", count=entries, offset=_HEADER.size).astype(np.int32)
    values = np.frombuffer(data, ">f4", count=entries, offset=_HEADER.size + 4 * entries).astype(np.float32)
    return SparseVector(dimensions, indices, values)
