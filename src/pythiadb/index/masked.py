"""An index version of which some rows may not come back, as under a filter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pythiadb.index.effort import Effort
from pythiadb.index.segment import Hits
from pythiadb.index.selection import Selection
from pythiadb.index.stores import prepare
from pythiadb.index.version import Found, IndexVersion, Part


class Masked:
    """A version of which a random share of the rows may come back, as under a filter that has nothing to do with the vectors."""

    def __init__(self, version: IndexVersion, share: float, seed: int = 0) -> None:
        self.definition = version.definition
        self.parts = version.parts
        draw = np.random.default_rng(seed)
        self._selections = []
        for part in version.parts:
            mask = draw.random(part.segment.rows) < share
            self._selections.append(Selection(mask) if part.alive is None else part.alive.narrowed(mask))

    def search(self, query: Any, k: int, effort: Effort) -> Found:
        """Return up to k of the rows, probably the nearest."""
        prepared, wider = prepare(self.definition, query), effort.at_least(k)
        return self._found(
            [part.segment.search(prepared, k, wider, rows) for part, rows in self._chosen()], k
        )

    def exact(self, query: Any, k: int) -> Found:
        """Return the k nearest of the rows."""
        prepared = prepare(self.definition, query)
        return self._found([part.segment.exact(prepared, k, rows) for part, rows in self._chosen()], k)

    def exact_many(self, queries: Sequence[Any], k: int) -> list[Found]:
        """Return the k nearest of the rows for several queries."""
        return [self.exact(query, k) for query in queries]

    def _chosen(self) -> Iterable[tuple[Part, Selection]]:
        return zip(self.parts, self._selections, strict=True)

    def _found(self, hits: Sequence[Hits], k: int) -> Found:
        distances = np.concatenate([hit.distances for hit in hits])
        keys = [
            key
            for part, hit in zip(self.parts, hits, strict=True)
            for key in part.segment.keys.texts(hit.positions)
        ]
        order = np.argsort(distances, kind="stable")[:k]
        return Found([keys[place] for place in order.tolist()], distances[order], {})
