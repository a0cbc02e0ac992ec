"""Exact distances between stored rows and one query, as pgvector's operators give them.

Cosine works on rows that were normalised when they were stored; a vector of zeros has no direction, its cosine distance is NaN
and sorts last, as in PostgreSQL. Results are float32 [rows] (float64 inside where terms could cancel out).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Words = NDArray[np.uint64]

_BLOCK_BYTES = 1 << 20  # temporary arrays stay in the processor's cache
_SAMPLED = 16  # one distance of so many tells which are near enough to be sorted


def normalised(vectors: Floats) -> Floats:
    """Return rows of length 1; rows of zeros stay as they are."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    norms[norms == 0] = 1
    return np.asarray(vectors / norms[:, None], np.float32)


def normalised_one(query: Floats) -> Floats:
    """Return the query with length 1; one of zeros as it is."""
    square = float(query.dot(query))
    if 1e-20 < square < 1e30:  # else float32 has lost digits
        return np.asarray(query / np.float32(square**0.5), np.float32)
    wide = query.astype(np.float64)
    norm = float(wide @ wide) ** 0.5
    return (wide / norm).astype(np.float32) if norm else query


def dense_distances(distance: str, rows: Floats, query: Floats) -> Floats:
    """Return the distances of [n, d] rows to a query [d]; for COSINE both are normalised."""
    if distance in {"COSINE", "DOT"}:
        return from_products(distance, rows @ query)
    found = np.empty(len(rows), np.float32)
    step = max(1, _BLOCK_BYTES // (4 * max(rows.shape[1], 1)))
    for start in range(0, len(rows), step):
        difference = rows[start : start + step] - query
        if distance == "MANHATTAN":
            np.abs(difference, out=difference)
            difference.sum(axis=1, out=found[start : start + step])
        else:
            np.einsum("ij,ij->i", difference, difference, out=found[start : start + step])
    return np.sqrt(found, out=found) if distance == "EUCLIDEAN" else found


def from_products(distance: str, products: Floats) -> Floats:
    """Return the distances that inner products stand for, in their place; for COSINE both sides were normalised."""
    return (
        np.negative(products, out=products) if distance == "DOT" else np.subtract(1, products, out=products)
    )


def bit_distances(distance: str, rows: Words, query: Words) -> Floats:
    """Return the distances of bit vectors in [n, w] words to a query [w]."""
    found = np.empty(len(rows), np.float32)
    step = max(1, _BLOCK_BYTES // (8 * max(rows.shape[1], 1)))
    measure = _hamming if distance == "HAMMING" else _jaccard
    for start in range(0, len(rows), step):
        found[start : start + step] = measure(rows[start : start + step], query)
    return found


def _ones(words: Words) -> NDArray[Any]:
    return np.asarray(np.bitwise_count(words).sum(axis=-1, dtype=np.int64))


def _hamming(rows: Words, query: Words) -> NDArray[Any]:
    return _ones(rows ^ query)


def _jaccard(rows: Words, query: Words) -> NDArray[Any]:
    common = _ones(rows & query)
    either = _ones(rows) + _ones(query) - common
    # pgvector: two vectors without a common bit are 1 apart, also when both are empty.
    shares: NDArray[np.float64] = np.divide(common, either, out=np.zeros(len(rows)), where=common > 0)
    return 1 - shares


def sparse_distances(
    distance: str,
    dots: NDArray[np.float64],
    sizes: NDArray[np.float64],
    query_size: float,
) -> Floats:
    """Return distances of sparse rows from what they have in common with the query.

    `sizes` are squared lengths, or sums of absolute values for MANHATTAN; `dots` the dot products, or for MANHATTAN the sums of
    |x| + |q| - |x - q| over common places.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if distance == "COSINE":
            found = 1 - np.clip(dots / np.sqrt(sizes * query_size), -1, 1)
        elif distance == "DOT":
            found = -dots
        elif distance == "MANHATTAN":
            found = sizes + query_size - dots
        else:
            found = np.maximum(sizes + query_size - 2 * dots, 0)
    return (np.sqrt(found) if distance == "EUCLIDEAN" else found).astype(np.float32)


def nearest(distances: Floats, k: int) -> NDArray[np.int64]:
    """Return the places of the k smallest distances, nearest first; NaN last."""
    if len(distances) <= max(2 * k, 256):
        return distances.argsort()[:k]
    if len(distances) > _SAMPLED * (k + 1):
        limit = np.partition(distances[::_SAMPLED], k)[k]  # more than k are that near
        close = np.flatnonzero(distances <= limit)  # none where that is NaN
        if len(close):
            return close[distances[close].argsort()[:k]]
    part = np.argpartition(distances, k)[:k]
    return part[distances[part].argsort()]
