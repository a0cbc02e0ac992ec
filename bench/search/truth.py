"""Exact answers by brute force, and how much of them an answer holds; rows at the same distance count alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.common import percentile
from bench.search.data import Vectors

K = 10
BLOCK = 50  # queries that are compared with all rows at a time
SPARE = 20  # more candidates than k from float32, before float64 decides
TIE = 1e-6  # distances of unit vectors that float32 cannot tell apart
Chosen = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """Of each query: how far its k-th nearest row is (float64 cosine distance), and how many rows there are to find."""

    base: Vectors
    queries: Vectors
    radius: NDArray[np.float64]
    count: NDArray[np.int64]

    def recall(self, number: int, rows: Sequence[int]) -> float:
        """Return the share of the nearest rows that an answer to query `number` holds; 1 where there is nothing to find."""
        found = np.unique(np.asarray(rows[: int(self.count[number])], np.int64))
        if not self.count[number]:
            return 1.0
        near = distances(self.base[found], self.queries[number]) <= self.radius[number] + TIE
        return float(near.sum() / self.count[number])


@dataclass(frozen=True, slots=True)
class Recall:
    """The recall of many queries, and how many rows they returned."""

    mean: float
    p5: float
    fewest: int


def distances(rows: Vectors, query: Vectors) -> NDArray[np.float64]:
    """Return the cosine distances of unit vectors in float64."""
    return 1.0 - rows.astype(np.float64) @ query.astype(np.float64)


def exact(
    base: Vectors, queries: Vectors, k: int = K, passing: Chosen | Sequence[Chosen] | None = None
) -> Truth:
    """Search all rows, or those that `passing` chooses: one choice for all queries or one for each."""
    radius, count = np.zeros(len(queries)), np.zeros(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK):
        near = queries[start : start + BLOCK] @ base.T
        for n, row in enumerate(near, start):
            chosen = passing if passing is None or isinstance(passing, np.ndarray) else passing[n]
            numbers = np.arange(len(base)) if chosen is None else np.flatnonzero(chosen)
            count[n] = min(k, len(numbers))
            if len(numbers):
                best = numbers[_largest(row[numbers], k + SPARE)]
                radius[n] = np.sort(distances(base[best], queries[n]))[count[n] - 1]
    return Truth(base, queries, radius, count)


def _largest(values: Vectors, count: int) -> NDArray[np.intp]:
    if len(values) <= count:
        return np.arange(len(values))
    return np.argpartition(values, len(values) - count)[-count:]


def judge(truth: Truth, answers: Sequence[Sequence[int]]) -> Recall:
    """Return the recall of the answers to all queries of `truth`, in order."""
    shares = [truth.recall(n, rows) for n, rows in enumerate(answers)]
    return Recall(float(np.mean(shares)), percentile(shares, 0.05), min(map(len, answers)))
