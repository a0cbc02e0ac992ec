"""Vectors as float32 rows in a mapped file, normalised for COSINE."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pythiadb.index import container
from pythiadb.index.definition import Definition
from pythiadb.index.distances import Floats, dense_distances, from_products, normalised
from pythiadb.index.keys import Positions
from pythiadb.index.parallel import THREADS
from pythiadb.index.store import ROUNDING, VECTORS, Query, Store, StoreWriter, check_width


class DenseWriter(StoreWriter):
    """Writer of float32 rows."""

    def __init__(self, folder: Path, definition: Definition) -> None:
        self.definition = definition
        self.folder = folder
        self._zeros: list[Positions] = []
        self._longest = 0.0
        self._data = container.StreamWriter(folder / VECTORS, VECTORS, "<f4", (definition.dimensions,))

    def add(self, vectors: Any) -> int:
        """Append rows [n, d]."""
        rows = np.asarray(vectors, np.float32)
        if not len(rows):
            return 0
        check_width(rows.shape[1:], self.definition.dimensions, self.definition)
        if self.definition.distance == "COSINE":
            self._zeros.append(np.flatnonzero(~rows.any(axis=1)) + self._data.rows)
            rows = normalised(rows)
        elif self.definition.distance == "DOT":
            squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
            self._longest = max(self._longest, float(squares.max()) ** 0.5)
        self._data.add(rows)
        return len(rows)

    def finish(self) -> None:
        """Write the files."""
        self._data.close()
        zeros = np.concatenate([np.zeros(0, np.int64), *self._zeros])
        container.write(self.folder / "lengths", VECTORS, {"longest": self._longest}, {"zeros": zeros})

    def close(self) -> None:
        """Close the files of a segment that is given up."""
        self._data.discard()


class DenseStore(Store):
    """Mapped float32 rows."""

    def __init__(self, folder: Path, definition: Definition) -> None:
        self.distance = definition.distance
        self.data: Floats = container.read_array(folder / VECTORS, VECTORS)
        self.rows = len(self.data)
        self.error = ROUNDING * max(5.0, definition.dimensions**0.5)
        header, arrays = container.read(folder / "lengths", VECTORS, verify=False)
        self.longest: float = header["longest"]
        self.zeros: Positions = arrays["zeros"]
        self._multiplies = self.distance in {"COSINE", "DOT"}

    def distances(self, query: Query) -> Floats:
        """Return the distances of all rows to a query [d]."""
        found = THREADS.over_rows(
            lambda part: self._distances_of(self.data[part], query), self.rows, 4 * self.data.shape[1]
        )
        if self.distance == "COSINE":
            found[slice(None) if _is_zero(query) else self.zeros] = np.nan
        return found

    def _distances_of(self, rows: Floats, query: Query) -> Floats:
        if self.distance == "MANHATTAN" or not len(rows):
            return dense_distances(self.distance, rows, query)
        if self._multiplies:
            return from_products(self.distance, _library().inner_products(rows, query))
        return self._rooted(_library().squared_distances(rows, query))

    def distances_at(self, query: Query, positions: Positions) -> Floats:
        """Return the distances of some rows to a query [d]."""
        if self.distance == "MANHATTAN" or not len(positions):
            return dense_distances(self.distance, self.take(positions), query)
        if not self._multiplies:
            return self._rooted(_library().squared_distances_at(self.data, positions, query))
        found = from_products(self.distance, _library().inner_products_at(self.data, positions, query))
        if self.distance == "COSINE" and (len(self.zeros) or _is_zero(query)):
            found[np.isin(positions, self.zeros) | _is_zero(query)] = np.nan
        return found

    def _rooted(self, squares: Floats) -> Floats:
        return np.sqrt(squares, out=squares) if self.distance == "EUCLIDEAN" else squares

    def take(self, positions: Positions) -> Floats:
        """Return rows as they are stored."""
        return self.data.take(positions, axis=0)  # a fifth faster than indexing by an array

    def rounding(self, query: Query, limit: float) -> float:
        """Return by how much a distance near `limit` may differ from PostgreSQL's own result."""
        if self.distance == "DOT":
            return self.error * self.longest * float(np.linalg.norm(query))
        return super().rounding(query, limit)


def _library() -> ModuleType:
    """Return the library's door: processes that search in no index do without it."""
    from pythiadb.index import library

    return library


def _is_zero(query: Floats) -> bool:
    return not query[0] and not query.any()
