"""One immutable segment of an index: a folder of mapped files behind one interface, whatever finds its candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pythiadb.errors import CorruptedIndex
from pythiadb.index import container
from pythiadb.index.columns import open_columns
from pythiadb.index.definition import Definition
from pythiadb.index.dense_store import DenseStore
from pythiadb.index.distances import Floats, nearest
from pythiadb.index.effort import Effort
from pythiadb.index.filters import Filters
from pythiadb.index.keys import Positions, open_keys
from pythiadb.index.selection import Selection
from pythiadb.index.store import Query, Store
from pythiadb.index.stores import open_store

_MOST_TIES = 1024
_FEW = 256  # rows that are dead, or masked, and only looked at in vain
_IN_ORDER = 0.2  # cost of a row when all are looked at in order, over that of one fetched alone
_GATHERED = 8192  # rows that are copied together for their distances


class Hits(NamedTuple):
    """Rows of one segment, nearest first."""

    positions: Positions
    distances: Floats


class Segment(ABC):
    """An open segment. `rows` counts all its rows, deleted ones too: a version knows which are alive."""

    kind: str

    def __init__(self, folder: Path, definition: Definition, manifest: dict[str, Any]) -> None:
        self.name = folder.name
        self.definition = definition
        self.rows: int = manifest["rows"]
        self.facts: dict[str, int] = manifest.get("facts", {})  # of its structure, for views
        self.bytes = container.folder_bytes(manifest)
        self.keys = open_keys(folder, definition.key_type)
        self.store: Store = open_store(folder, definition)
        if self.store.rows != self.rows:
            raise CorruptedIndex(f"a segment of a vector index has {self.store.rows} rows, not {self.rows}")
        self.filters = Filters(open_columns(folder, definition.column_types, self.rows, verify=False))

    @abstractmethod
    def search(self, query: Query, k: int, effort: Effort, selection: Selection | None) -> Hits:
        """Return up to k rows, probably the nearest, with their exact distances."""

    @abstractmethod
    def search_many(
        self, queries: list[Query], k: int, effort: Effort, selection: Selection | None
    ) -> list[Hits]:
        """Search for several prepared queries."""

    @abstractmethod
    def cost(self, effort: Effort, selection: Selection) -> float:
        """Return what a search in a part of the rows costs; 1 is to fetch one row and compute its distance."""

    def exact_cost(self, selection: Selection) -> float:
        """Return what an exact search in a part of the rows costs."""
        return min(selection.count, _IN_ORDER * self.rows)

    def exact(self, query: Query, k: int, selection: Selection | None, *, ties: bool = False) -> Hits:
        """Return the k nearest rows, looking at all.

        With `ties`, also up to 1,024 more whose distance is so close to the k-th that PostgreSQL's rounding may rank them before it.
        """
        if selection is None:
            return self._ranked(None, self.store.distances(query), query, k, ties=ties)
        positions = selection.positions
        if selection.count < _IN_ORDER * self.rows:
            return self.at(query, positions, k, ties=ties)
        return self._ranked(positions, self.store.distances(query)[positions], query, k, ties=ties)

    def exact_many(self, queries: list[Query], k: int, selection: Selection | None) -> list[Hits]:
        """Return the k nearest rows for several prepared queries; together they take a fraction of the time."""
        alone = self.rows if selection is None else selection.count
        count = min(k + self.rows - alone, self.rows)
        if not isinstance(self.store, DenseStore) or count > max(4 * k, _FEW) or not count:
            return [self.exact(query, k, selection) for query in queries]
        from pythiadb.index.library import nearest_rows

        found = nearest_rows(self.store.data, np.stack(queries), count, self.definition.distance)
        hits = []
        for query, rows in zip(queries, found, strict=True):
            alive = rows if selection is None else rows[selection.mask[rows]]
            hits.append(self.at(query, np.sort(alive), k))
        return hits

    def at(self, query: Query, positions: Positions, k: int, *, ties: bool = False) -> Hits:
        """Return the k nearest among some rows."""
        return self._ranked(positions, self.distances_at(query, positions), query, k, ties=ties)

    def distances_at(self, query: Query, positions: Positions) -> Floats:
        """Return the distances of some rows to a prepared query."""
        if len(positions) <= _GATHERED:
            return self.store.distances_at(query, positions)
        parts = [positions[start : start + _GATHERED] for start in range(0, len(positions), _GATHERED)]
        return np.concatenate([self.store.distances_at(query, part) for part in parts])

    def _ranked(
        self, positions: Positions | None, distances: Floats, query: Query, k: int, *, ties: bool
    ) -> Hits:
        places = nearest(distances, k)
        if ties and len(places) < len(distances):
            places = self._with_ties(places, distances, query)
        return Hits(places if positions is None else positions[places], distances[places])

    def _with_ties(self, places: Positions, distances: Floats, query: Query) -> Positions:
        limit = float(distances[places[-1]]) if len(places) else np.nan
        if not np.isfinite(limit):
            return places
        close = np.flatnonzero(distances <= limit + self.store.rounding(query, limit))
        return close[nearest(distances[close], len(places) + _MOST_TIES)]


def open_segment(folder: Path, definition: Definition, *, verify: bool) -> Segment:
    """Map a segment. Raises CorruptedIndex for a folder that is not a whole segment of this definition.

    `verify` reads every byte; else headers and sizes are checked.
    """
    from pythiadb.index.flat import FlatSegment
    from pythiadb.index.graph import GraphSegment
    from pythiadb.index.partitions import PartitionsSegment

    kinds: dict[str, type[Segment]] = {
        kind.kind: kind for kind in (FlatSegment, GraphSegment, PartitionsSegment)
    }
    manifest = container.read_manifest(folder, verify=verify)
    check_same_contents(definition, Definition.from_json(manifest["definition"]))
    try:
        return kinds[manifest["kind"]](folder, definition, manifest)
    except (KeyError, ValueError, RuntimeError) as error:
        raise CorruptedIndex(
            f'a segment of a vector index cannot be read: "{folder}"', detail=f"{error}."
        ) from error


def check_same_contents(expected: Definition, stored: Definition) -> None:
    """Raise CorruptedIndex unless files of one definition serve another: parameters may differ, what is stored may not."""
    for name in ("vector_type", "dimensions", "distance", "key_type", "columns"):
        if getattr(expected, name) != getattr(stored, name):
            raise CorruptedIndex(
                f"a segment of a vector index was built for another {name.replace('_', ' ')}"
            )
