"""Sparse vectors in mapped files: the places and values of all rows one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pythiadb.index import container
from pythiadb.index.definition import Definition
from pythiadb.index.distances import Floats, sparse_distances
from pythiadb.index.keys import Positions
from pythiadb.index.store import ROUNDING, VECTORS, Query, Store, StoreWriter

Sparse: TypeAlias = "tuple[NDArray[np.int32], Floats]"


class SparseWriter(StoreWriter):
    """Writer of sparse rows: (places from 0, ascending, int32; values float32) each."""

    def __init__(self, folder: Path, definition: Definition) -> None:
        self.distance = definition.distance
        self.folder = folder
        self._places = container.StreamWriter(folder / "places", VECTORS, "<i4")
        self._values = container.StreamWriter(folder / VECTORS, VECTORS, "<f4")
        self._lengths: list[int] = []
        self._sizes: list[float] = []

    def add(self, vectors: Any) -> int:
        """Append rows."""
        values = [np.asarray(row[1], np.float32) for row in vectors]
        if values:
            self._places.add(np.concatenate([np.asarray(row[0], np.int32) for row in vectors]))
            self._values.add(np.concatenate(values))
        self._lengths.extend(map(len, values))
        self._sizes.extend(_sparse_size(self.distance, row) for row in values)
        return len(values)

    def finish(self) -> None:
        """Write the files."""
        self._places.close()
        self._values.close()
        arrays = {
            "ends": np.cumsum([0, *self._lengths], dtype=np.int64),
            "sizes": np.array(self._sizes, np.float64),
        }
        container.write(self.folder / "lengths", VECTORS, {}, arrays)

    def close(self) -> None:
        """Close the files of a segment that is given up."""
        self._places.discard()
        self._values.discard()


class SparseStore(Store):
    """Mapped sparse rows."""

    def __init__(self, folder: Path, definition: Definition) -> None:
        self.distance = definition.distance
        self.places = container.read_array(folder / "places", VECTORS)
        self.values = container.read_array(folder / VECTORS, VECTORS)
        _, arrays = container.read(folder / "lengths", VECTORS, verify=False)
        self.ends: Positions = arrays["ends"]
        self.sizes: NDArray[np.float64] = arrays["sizes"]
        self.rows = len(self.sizes)
        self.error = 100 * ROUNDING

    def distances(self, query: Query) -> Floats:
        """Return the distances of all rows to a prepared query."""
        common = _common(self.distance, self.places, self.values, self.ends, query)
        return sparse_distances(self.distance, common, self.sizes, query[2])

    def distances_at(self, query: Query, positions: Positions) -> Floats:
        """Return the distances of some rows."""
        starts, lengths = self.ends[positions], self.ends[positions + 1] - self.ends[positions]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        elements = np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)
        common = _common(self.distance, self.places[elements], self.values[elements], ends, query)
        return sparse_distances(self.distance, common, self.sizes[positions], query[2])

    def take(self, positions: Positions) -> list[Sparse]:
        """Return rows as (places, values)."""
        spans = [slice(self.ends[row], self.ends[row + 1]) for row in positions.tolist()]
        return [(self.places[span], self.values[span]) for span in spans]


def prepare_sparse(distance: str, query: tuple[Any, Any]) -> Query:
    """Return a query as places, values and what sparse_distances() takes as its size."""
    places, values = np.asarray(query[0], np.int32), np.asarray(query[1], np.float32)
    order = np.argsort(places)
    return places[order], values[order].astype(np.float64), _sparse_size(distance, values)


def _common(
    distance: str, places: NDArray[np.int32], values: Floats, ends: Positions, query: Query
) -> NDArray[np.float64]:
    """Sum over the places that a row shares with the query; see sparse_distances."""
    wanted, weights, _ = query
    if not len(wanted):
        return np.zeros(len(ends) - 1)
    where = np.minimum(np.searchsorted(wanted, places), len(wanted) - 1)
    elements = np.flatnonzero(wanted[where] == places)
    mine = values[elements].astype(np.float64)
    theirs = weights[where[elements]]
    terms = mine * theirs
    if distance == "MANHATTAN":
        terms = np.abs(mine) + np.abs(theirs) - np.abs(mine - theirs)
    rows = np.searchsorted(ends, elements, side="right") - 1
    return np.asarray(np.bincount(rows, terms, minlength=len(ends) - 1), np.float64)


def _sparse_size(distance: str, values: Floats) -> float:
    wide = values.astype(np.float64)
    return float(np.abs(wide).sum() if distance == "MANHATTAN" else wide @ wide)
