"""Segments with a navigable graph over their vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pythiadb.index.definition import Definition
from pythiadb.index.dense_store import DenseStore
from pythiadb.index.effort import Effort
from pythiadb.index.library import ALL_ROWS, GraphIndex, Progress, build_graph
from pythiadb.index.segment import Hits, Segment
from pythiadb.index.selection import NEARLY_ALL, Selection
from pythiadb.index.store import Query

LEAST_ROWS = 1
NEIGHBORS = 16
LEAST_NEIGHBORS = 2  # with one the upper levels would have no end
_EF_CONSTRUCTION = 64
_STEP = 12  # distances that are computed for each place of the list


class GraphSegment(Segment):
    """Vectors and a graph."""

    kind = "graph"

    def __init__(self, folder: Path, definition: Definition, manifest: dict[str, Any]) -> None:
        super().__init__(folder, definition, manifest)
        assert isinstance(self.store, DenseStore)
        self.index = GraphIndex(folder, self.store.data, definition.distance)

    def search(self, query: Query, k: int, effort: Effort, selection: Selection | None) -> Hits:
        """Return up to k rows that a walk through the graph met."""
        if selection is not None and selection.share < NEARLY_ALL:
            return self._among_others(query, k, effort, selection)
        selector = ALL_ROWS if selection is None else selection.selector
        count = min(k, self.rows)
        found = self.index.find(query.reshape(1, -1), self._places(effort, count), count, selector)[0]
        return self.at(query, found if found[-1] >= 0 else found[found >= 0], k)

    def search_many(
        self, queries: list[Query], k: int, effort: Effort, selection: Selection | None
    ) -> list[Hits]:
        """Search for several prepared queries."""
        if not queries:
            return []
        if selection is not None and selection.share < NEARLY_ALL:
            return [self.search(query, k, effort, selection) for query in queries]
        selector = ALL_ROWS if selection is None else selection.selector
        count = min(k, self.rows)
        found = self.index.find(np.stack(queries), self._places(effort, count), count, selector)
        return [self.at(query, rows[rows >= 0], k) for query, rows in zip(queries, found, strict=True)]

    def cost(self, effort: Effort, selection: Selection) -> float:
        """Return what a search in a part of the rows costs."""
        return _STEP * effort.ef / max(selection.share, 1e-6)

    def _places(self, effort: Effort, count: int) -> int:
        """Return the length of the list of a walk; memory for all its places is taken at once."""
        return min(max(effort.ef, count), self.rows)

    def _among_others(self, query: Query, k: int, effort: Effort, selection: Selection) -> Hits:
        """Search in a part of the rows: until as many of them are met as usually of all, or looking at each is cheaper."""
        wanted = min(max(effort.ef // 2, k), selection.count)
        ef = int(max(effort.ef, k) / max(selection.share, 1e-6))
        while _STEP * ef < self.exact_cost(selection):
            found = self.index.find(query.reshape(1, -1), ef, wanted, selection.selector)[0]
            if found[-1] >= 0:
                return self.at(query, found, k)
            ef *= 4
        return self.exact(query, k, selection)


def build(folder: Path, definition: Definition, *, threads: int, progress: Progress) -> dict[str, int]:
    """Write the graph of a segment whose vectors are written; return facts for its manifest."""
    vectors = DenseStore(folder, definition).data
    neighbors = max(definition.parameters.get("neighbors") or NEIGHBORS, LEAST_NEIGHBORS)
    ef = definition.parameters.get("efconstruction") or _EF_CONSTRUCTION
    found = build_graph(
        folder, vectors, definition.distance, neighbors=neighbors, ef=ef, threads=threads, progress=progress
    )
    return {"neighbors": neighbors, "efconstruction": ef, **found}
