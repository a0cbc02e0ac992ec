"""Recall of partitions for many efforts at once.

Rows of the probed clusters are ranked by their codes, and the first `candidates` of them get their exact distances. So one search
with the most candidates tells for each true neighbour from how many candidates on it would have been found; many queries are
searched together, at a fraction of what single searches cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.index.library import ALL_ROWS
from pythiadb.index.partitions import PartitionsSegment
from pythiadb.index.selection import Selection
from pythiadb.index.stores import prepare
from pythiadb.index.version import IndexVersion, Part

NEVER = np.iinfo(np.int32).max
_TOGETHER = 64  # queries in one search


class Ranks:
    """Where the true neighbours of queries stand among the candidates of a version's partitions.

    `neighbours` are keys, nearest first, `most` the number of candidates up to which their places are told.
    """

    def __init__(
        self, version: IndexVersion, queries: Sequence[Any], neighbours: Sequence[Sequence[str]], most: int
    ) -> None:
        self._parts = version.parts
        self._most = most
        self._queries = [prepare(version.definition, query) for query in queries]
        self._neighbours = neighbours
        self._is_int = version.definition.key_type == "int"
        self._places = [self._located(part) for part in version.parts]

    def _located(self, part: Part) -> NDArray[np.int64]:
        """Return the rows [m, k] of the neighbours in a part, -1 for those of other parts."""
        texts = [key for keys in self._neighbours for key in keys]
        found = part.segment.keys.find(np.array(texts, np.int64) if self._is_int else texts)
        if part.alive is not None:
            found[(found >= 0) & ~part.alive.mask[found]] = -1
        return found.reshape(len(self._neighbours), -1)

    def at(self, probes: int) -> NDArray[np.int32]:
        """Return for each neighbour [m, k] the number of candidates from which on it is found, NEVER if at none."""
        ranks = np.full(self._places[0].shape, NEVER, np.int32)
        for part, places in zip(self._parts, self._places, strict=True):
            here = places >= 0
            if isinstance(part.segment, PartitionsSegment):
                ranks[here] = self._ranked(part.segment, part.alive, places, probes)[here]
            else:
                ranks[here] = 0
        return ranks

    def _ranked(
        self, segment: PartitionsSegment, selection: Selection | None, places: NDArray[np.int64], probes: int
    ) -> NDArray[np.int32]:
        selector = ALL_ROWS if selection is None else selection.selector
        most = min(self._most, segment.rows)
        ranks = np.full(places.shape, NEVER, np.int32)
        for start in range(0, len(places), _TOGETHER):
            queries = np.stack(self._queries[start : start + _TOGETHER])
            found = segment.index.find(queries, probes, most, selector)
            for row, candidates in enumerate(found, start):
                order = np.argsort(candidates, kind="stable")
                spot = np.searchsorted(candidates[order], places[row]).clip(max=most - 1)
                hit = candidates[order[spot]] == places[row]
                ranks[row, hit] = order[spot[hit]] + 1
        return ranks
