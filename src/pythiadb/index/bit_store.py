"""Bit vectors as rows of 64-bit words in a mapped file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.index import container
from pythiadb.index.definition import Definition
from pythiadb.index.distances import Floats, Words, bit_distances
from pythiadb.index.keys import Positions
from pythiadb.index.parallel import THREADS
from pythiadb.index.store import ROUNDING, VECTORS, Query, Store, StoreWriter, check_width


class BitWriter(StoreWriter):
    """Writer of bits: rows [n, ceil(d / 8)] of bytes as PostgreSQL sends them, kept as words."""

    def __init__(self, folder: Path, definition: Definition) -> None:
        self.definition = definition
        self.width = bit_bytes(definition)
        self._data = container.StreamWriter(folder / VECTORS, VECTORS, "<u8", (-(-self.width // 8),))

    def add(self, vectors: Any) -> int:
        """Append rows of bytes."""
        rows = np.asarray(vectors, np.uint8)
        if len(rows):
            check_width(rows.shape[1:], self.width, self.definition)
            self._data.add(words(rows))
        return len(rows)

    def finish(self) -> None:
        """Write the files."""
        self._data.close()

    def close(self) -> None:
        """Close the files of a segment that is given up."""
        self._data.discard()


class BitStore(Store):
    """Mapped bits."""

    def __init__(self, folder: Path, definition: Definition) -> None:
        self.distance = definition.distance
        self.width = bit_bytes(definition)
        self.data: Words = container.read_array(folder / VECTORS, VECTORS)
        self.rows = len(self.data)
        self.error = ROUNDING

    def distances(self, query: Query) -> Floats:
        """Return the distances of all rows to a query in words."""
        return THREADS.over_rows(
            lambda part: bit_distances(self.distance, self.data[part], query),
            self.rows,
            8 * self.data.shape[1],
        )

    def distances_at(self, query: Query, positions: Positions) -> Floats:
        """Return the distances of some rows."""
        return bit_distances(self.distance, self.data[positions], query)

    def take(self, positions: Positions) -> NDArray[np.uint8]:
        """Return rows of bytes."""
        return self.data[positions].view(np.uint8)[:, : self.width]


def bit_bytes(definition: Definition) -> int:
    """Return the bytes of a row as PostgreSQL sends it."""
    return -(-definition.dimensions // 8)


def words(rows: NDArray[np.uint8]) -> Words:
    """Return rows of bytes as rows of words, the last one filled up with zeros."""
    padded = np.zeros((len(rows), -(-rows.shape[1] // 8) * 8), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return padded.view(np.uint64)
