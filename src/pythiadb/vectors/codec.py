"""All codecs under one name: see `dense`, `bits`, `sparse` and `oracle_text`."""

from __future__ import annotations

from pythiadb.vectors.bits import (
    Bits,
    bits_from_binary,
    bits_from_bytes,
    bits_from_text,
    bits_to_binary,
    bits_to_bytes,
    bits_to_text,
)
from pythiadb.vectors.dense import (
    MAX_DIMENSIONS,
    Vector,
    VectorLike,
    as_vector,
    vector_from_binary,
    vector_from_text,
    vector_to_binary,
    vector_to_text,
)
from pythiadb.vectors.oracle_text import vector_from_oracle_text, vector_to_oracle_text
from pythiadb.vectors.sparse import (
    SparseVector,
    sparse_from_binary,
    sparse_from_text,
    sparse_to_binary,
    sparse_to_text,
)

__all__ = [
    "MAX_DIMENSIONS",
    "Bits",
    "SparseVector",
    "Vector",
    "VectorLike",
    "as_vector",
    "bits_from_binary",
    "bits_from_bytes",
    "bits_from_text",
    "bits_to_binary",
    "bits_to_bytes",
    "bits_to_text",
    "sparse_from_binary",
    "sparse_from_text",
    "sparse_to_binary",
    "sparse_to_text",
    "vector_from_binary",
    "vector_from_oracle_text",
    "vector_from_text",
    "vector_to_binary",
    "vector_to_oracle_text",
    "vector_to_text",
]
