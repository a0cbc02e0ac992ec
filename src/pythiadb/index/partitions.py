"""Segments of coarse clusters: the rows of the nearest clusters are ranked by 4-bit codes, the best of them by their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.index.definition import Definition
from pythiadb.index.dense_store import DenseStore
from pythiadb.index.effort import Effort
from pythiadb.index.keys import Positions
from pythiadb.index.library import ALL_ROWS, PartitionIndex, Progress, build_partitions
from pythiadb.index.segment import Hits, Segment
from pythiadb.index.selection import NEARLY_ALL, Selection
from pythiadb.index.store import Query

LEAST_ROWS = 64  # below, clusters and codes have nothing to learn from
_ROWS_EACH = 39  # fewer rows than this train a centroid badly
_SAMPLES_EACH = 128
_SAMPLE_BYTES = 512 << 20
_MANY = 64  # queries in one call
_CODE = 1 / 20  # cost of a row's code, over that of fetching a row
_CALL = 300
_COUNTED = 16  # rows a partition, of a selection, that tell how many are in each
_WITNESSES = 4  # times k: the rows whose partitions tell whether enough were scanned
_LATE = 0.08  # share of them that the farther half of the partitions may hold
_UNSURE = 0.15  # share of the k nearest that the worse half of the candidates may hold


class PartitionsSegment(Segment):
    """Vectors, their clusters and codes."""

    kind = "partitions"

    def __init__(self, folder: Path, definition: Definition, manifest: dict[str, Any]) -> None:
        super().__init__(folder, definition, manifest)
        self.index = PartitionIndex(folder)

    def search(self, query: Query, k: int, effort: Effort, selection: Selection | None) -> Hits:
        """Return up to k rows of the nearest clusters."""
        if selection is not None and selection.share < NEARLY_ALL:
            return self._among_others(query, k, effort, selection)
        selector = ALL_ROWS if selection is None else selection.selector
        count = min(max(effort.candidates, k), self.rows)
        found = self.index.find(query.reshape(1, -1), effort.probes, count, selector)[0]
        return self._rescored(query, found, k)

    def search_many(
        self, queries: list[Query], k: int, effort: Effort, selection: Selection | None
    ) -> list[Hits]:
        """Search for several prepared queries."""
        if selection is not None and selection.share < NEARLY_ALL:
            return [self.search(query, k, effort, selection) for query in queries]
        selector = ALL_ROWS if selection is None else selection.selector
        count = min(max(effort.candidates, k), self.rows)
        hits: list[Hits] = []
        for start in range(0, len(queries), _MANY):
            part = queries[start : start + _MANY]
            found = self.index.find(np.stack(part), effort.probes, count, selector)
            hits += [self._rescored(query, rows, k) for query, rows in zip(part, found, strict=True)]
        return hits

    def cost(self, effort: Effort, selection: Selection) -> float:
        """Return what a search in a part of the rows costs."""
        return self._scan_cost(
            effort.probes / max(selection.share, 1e-6) ** 0.5, effort.candidates, selection
        )

    def _scan_cost(self, probes: float, candidates: int, selection: Selection) -> float:
        probed = min(probes / self.index.partitions, 1.0)
        return _CALL + _CODE * probed * self.rows + min(candidates, selection.count)

    def _among_others(self, query: Query, k: int, effort: Effort, selection: Selection) -> Hits:
        """Search in a part of the rows: with more partitions, and more candidates, as long as the last of them still hold near rows.

        What the second half gave tells what the rest would give. It is much where the rows are far from the query: then all are about
        equally far, and neither a partition's center nor a code says which are nearer. Over vectors of WordNet's glosses that lifts
        the recall among the farthest third of the rows from 0.88 to 0.96, and costs a filter that has nothing to do with the
        query a tenth more.
        """
        order = self.index.order(query.reshape(1, -1))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        probes, count = self._probes(order, effort, selection), min(max(effort.candidates, k), self.rows)
        while True:
            found = self.index.find(query.reshape(1, -1), probes, count, selection.selector)[0]
            hits = self._rescored(query, found, _WITNESSES * k)
            ranks = rank[self.index.partitions_of(hits.positions)]
            late = _share(ranks >= probes / 2) if probes < self.index.partitions else 0.0
            unsure = (
                _share(np.isin(hits.positions[:k], found[count // 2 :])) if count < selection.count else 0.0
            )
            if late <= _LATE and unsure <= _UNSURE:
                return Hits(hits.positions[:k], hits.distances[:k])
            probes = min(probes * _growth(late / _LATE), self.index.partitions)
            count = min(count * _growth(unsure / _UNSURE), self.rows)
            if self._scan_cost(probes, count, selection) >= self.exact_cost(selection):
                return self.exact(query, k, selection)

    def _probes(self, order: Positions, effort: Effort, selection: Selection) -> int:
        """Return how many partitions to scan first so that a part of the rows is found as well as all are.

        As many of those rows are met as would be, were they everywhere alike, in the partitions that hold k rows of them where
        k / share are asked of all: what is wanted grows with the root of k. Where they are rare near the query, it takes more.
        Fewer than what costs as much as the call itself are not worth a neighbor that is missed.
        """
        counts = selection.partition_counts
        if counts is None:
            counts = selection.partition_counts = self._counts(selection)
        met = effort.probes / self.index.partitions * self.rows * selection.share**0.5
        enough = int(np.searchsorted(np.cumsum(counts[order]), met)) + 1
        free = round(_CALL * self.index.partitions / (_CODE * self.rows))
        return min(max(effort.probes, enough, free), self.index.partitions)

    def _counts(self, selection: Selection) -> NDArray[np.float64]:
        """Return about how many of the rows are in each partition."""
        sample = selection.sample(_COUNTED * self.index.partitions)
        return np.asarray(self.index.counts(sample) * (selection.count / max(len(sample), 1)), np.float64)

    def _rescored(self, query: Query, found: Positions, k: int) -> Hits:
        if found[-1] < 0:  # fewer rows than asked for, which come first
            found = found[found >= 0]
        return self.at(query, found, k)


def _share(chosen: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(chosen)) / max(len(chosen), 1)


def _growth(excess: float) -> int:
    """Return how many times as much to look at; `excess`: what was found late, over what may be."""
    return 1 if excess <= 1 else 2 if excess <= 3 else 4


def partitions_for(rows: int, parameters: Mapping[str, int]) -> int:
    """Return how many partitions a segment of so many rows gets."""
    each = max(parameters.get("min_vectors_per_partition", 0), _ROWS_EACH)
    wanted = parameters.get("partitions") or round(rows**0.5)
    return max(1, min(wanted, rows // each))


def samples_for(partitions: int, dimensions: int, parameters: Mapping[str, int]) -> int:
    """Return how many rows train each centroid, at most."""
    affordable = _SAMPLE_BYTES // (4 * dimensions * partitions)
    return max(min(parameters.get("samples_per_partition") or _SAMPLES_EACH, affordable), _ROWS_EACH)


def build(folder: Path, definition: Definition, *, threads: int, progress: Progress) -> dict[str, int]:
    """Write the clusters of a segment whose vectors are written; return facts for its manifest."""
    vectors = DenseStore(folder, definition).data
    parameters = definition.parameters
    partitions = partitions_for(len(vectors), parameters)
    samples = samples_for(partitions, definition.dimensions, parameters)
    found = build_partitions(
        folder,
        vectors,
        definition.distance,
        partitions=partitions,
        samples=samples,
        threads=threads,
        progress=progress,
    )
    return {"partitions": partitions, "samples_per_partition": samples, **found}
