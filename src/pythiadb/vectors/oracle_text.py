"""Oracle's text forms of vectors: `[1, 3.4, -05.60, 3e+4]` dense, `[5,[2,4],[10,20]]` sparse with indices from 0.

Output follows Oracle's TO_CHAR form: nine significant digits and an exponent of three digits, trailing zeros trimmed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from pythiadb.errors import InvalidVector
from pythiadb.vectors.dense import Vector, VectorLike, as_vector, parse_numbers
from pythiadb.vectors.sparse import SparseVector

_SPARSE = re.compile(r"\s*\[\s*(?:(\d{1,12})\s*,)?\s*(\[[^\[\]]*\])\s*,\s*(\[[^\[\]]*\])\s*\]\s*", re.ASCII)


def vector_from_oracle_text(text: str, dimensions: int | None = None) -> Vector | SparseVector:
    """Read a dense or sparse literal; `dimensions` is what the target declares, needed where a sparse text leaves it out.

    Raise InvalidVector for malformed text, for values that cannot be stored, and when the dimensions differ.

    >>> vector_from_oracle_text("[1, -05.60, 3e+4]").tolist()[2]
    30000.0
    """
    match = _SPARSE.fullmatch(text)
    if match is None:
        vector = as_vector(parse_numbers(text, "vector"))
        _check_count(vector.shape[0], dimensions)
        return vector
    stated = int(match[1]) if match[1] else dimensions
    if stated is None:
        raise InvalidVector("sparse vector text without a dimension count needs a declared one")
    _check_count(stated, dimensions)
    indices = parse_numbers(match[2], "vector")
    if not all(isinstance(index, int) for index in indices):
        raise InvalidVector("sparse vector indices must be integers")
    return SparseVector.from_entries(stated, indices, parse_numbers(match[3], "vector"))


def vector_to_oracle_text(vector: VectorLike | SparseVector) -> str:
    """Write a vector as Oracle shows FLOAT32.

    >>> vector_to_oracle_text([34.6, 2])
    '[3.45999985E+001,2.0E+000]'
    """
    if isinstance(vector, SparseVector):
        indices = ",".join(map(str, vector.indices))
        return f"[{vector.dimensions},[{indices}],[{_join(vector.values)}]]"
    return f"[{_join(as_vector(vector))}]"


def _join(values: Iterable[np.float32]) -> str:
    return ",".join(_number(float(value)) for value in values)


def _number(value: float) -> str:
    mantissa, _, exponent = f"{value:.8E}".partition("E")
    whole, _, decimals = mantissa.partition(".")
    return f"{whole}.{decimals.rstrip('0') or '0'}E{int(exponent):+04d}"


def _check_count(count: int, declared: int | None) -> None:
    if declared is not None and count != declared:
        raise InvalidVector(f"vector has {count} dimensions, {declared} were expected")
