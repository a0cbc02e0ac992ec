"""What a segment's vectors are to the rest: written as they come, read as exact distances to a query."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

from pythiadb.errors import InvalidVector
from pythiadb.index.definition import Definition
from pythiadb.index.distances import Floats
from pythiadb.index.keys import Positions

VECTORS = "vectors"  # the file, and the kind of all files of a store
ROUNDING = 2e-7  # relative error of one float32 operation, with room

Query: TypeAlias = Any  # what prepare() of the store returned


class StoreWriter(ABC):
    """Writer of the vectors of one segment."""

    @abstractmethod
    def add(self, vectors: Any) -> int:
        """Append vectors and return how many they are. Raises InvalidVector for wrong dimensions."""

    @abstractmethod
    def finish(self) -> None:
        """Write the files."""

    @abstractmethod
    def close(self) -> None:
        """Close the files of a segment that is given up."""


class Store(ABC):
    """The vectors of one open segment."""

    rows: int
    error: float  # relative error of a distance that sums float32 over all dimensions

    @abstractmethod
    def distances(self, query: Query) -> Floats:
        """Return the distances of all rows to a prepared query."""

    @abstractmethod
    def distances_at(self, query: Query, positions: Positions) -> Floats:
        """Return the distances of some rows."""

    @abstractmethod
    def take(self, positions: Positions) -> Any:
        """Return some rows as a StoreWriter takes them."""

    def rounding(self, query: Query, limit: float) -> float:  # noqa: ARG002
        """Return by how much a distance near `limit` may differ from PostgreSQL's own result."""
        return self.error * max(1.0, abs(limit))


def check_width(shape: tuple[int, ...], width: int, definition: Definition) -> None:
    """Raise InvalidVector unless a row has the form that the definition's vectors have."""
    if shape != (width,):
        found = shape[0] if len(shape) == 1 else shape
        unit = "bytes" if definition.vector_type == "bit" else "dimensions"
        raise InvalidVector(f"the index is over vectors of {width} {unit}, not {found}")
