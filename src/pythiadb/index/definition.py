"""What an index is over: the type of its vectors, the distance, the kind of keys, the columns that come along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pythiadb.errors import InvalidParameter

DENSE_DISTANCES = frozenset({"COSINE", "EUCLIDEAN", "EUCLIDEAN_SQUARED", "DOT", "MANHATTAN"})
BIT_DISTANCES = frozenset({"HAMMING", "JACCARD"})
DISTANCES = {
    "vector": DENSE_DISTANCES,
    "halfvec": DENSE_DISTANCES,
    "sparsevec": DENSE_DISTANCES,
    "bit": BIT_DISTANCES,
}
KEY_TYPES = frozenset({"int", "uuid", "text"})
ORGANIZATIONS = frozenset({"graph", "partitions"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is kept in the index for filters; `type` is PostgreSQL's name of its type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Definition:
    """One vector index. Raises InvalidParameter for values that do not go together.

    `parameters` are those of the index's organization: neighbors, efconstruction; partitions, samples_per_partition,
    min_vectors_per_partition. Missing ones are chosen by the rows at build.
    """

    index_id: int
    vector_type: str
    dimensions: int
    distance: str
    key_type: str
    organization: str
    target_accuracy: int = 95
    parameters: dict[str, int] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES.get(self.vector_type, ()):
            raise InvalidParameter(f"distance {self.distance} is not defined for type {self.vector_type}")
        if self.key_type not in KEY_TYPES:
            raise InvalidParameter(f'keys of type "{self.key_type}" cannot be indexed')
        if self.organization not in ORGANIZATIONS:
            raise InvalidParameter(f'organization "{self.organization}" is not known')
        if self.dimensions < 1:
            raise InvalidParameter(f"an index cannot have {self.dimensions} dimensions")

    @property
    def dense(self) -> bool:
        """Whether vectors are arrays of float32, the only ones for which there are graphs and partitions."""
        return self.vector_type in {"vector", "halfvec"}

    @property
    def column_types(self) -> dict[str, str]:
        """Return {name: PostgreSQL type} of the columns, in their order."""
        return {column.name: column.type for column in self.columns}

    def to_json(self) -> dict[str, Any]:
        """Return the definition as JSON values."""
        return {**asdict(self), "columns": [[column.name, column.type] for column in self.columns]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Definition:
        """Read what to_json() gave."""
        return cls(**{**data, "columns": tuple(Column(*column) for column in data["columns"])})
