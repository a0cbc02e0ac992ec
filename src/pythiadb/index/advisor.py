"""How many bytes an index will take: of files, all of them mapped, so of memory where none of it is to be read again from disk.

Building takes memory of its own beside the files that it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pythiadb.index.builder import FLAT_BELOW
from pythiadb.index.graph import NEIGHBORS
from pythiadb.index.library import code_step
from pythiadb.index.partitions import partitions_for, samples_for

KINDS = frozenset({"graph", "partitions", "flat"})
_KEY_BYTES = {
    "int": 8,
    "uuid": 16 + 12,
    "text": 16 + 8 + 12,
}  # uuid and text keys have a list of hashes beside them
_BLOCK_ROWS = 32  # codes of a partition are filled up to so many rows


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of a segment: the vectors, keys and included columns, and what finds the nearest vectors; and of its making."""

    vectors: int
    keys: int
    columns: int
    structure: int
    building: int  # beside the files, until they are whole

    @property
    def total(self) -> int:
        """All bytes of the files."""
        return self.vectors + self.keys + self.columns + self.structure

    @property
    def needed(self) -> int:
        """All bytes while the segment is built."""
        return self.total + self.building

    def to_json(self) -> dict[str, int]:
        """Return the parts and their sums."""
        return {**asdict(self), "total": self.total, "needed": self.needed}


@dataclass(frozen=True, slots=True)
class Contents:
    """What is indexed. `entries`: how many values of a sparsevec row are not zero, on average; `text_key`: bytes of a text key."""

    rows: int
    dimensions: int
    vector_type: str = "vector"
    key_type: str = "int"
    entries: int = 0
    text_key: int = 16
    column_bytes: int = 0  # of one row


def estimate(kind: str, contents: Contents, parameters: Mapping[str, int] | None = None) -> Estimate:
    """Return the bytes of `contents` as one segment of a kind: graph, partitions or flat.

    `parameters` are those of the index: neighbors; partitions, min_vectors_per_partition. Types without graphs and partitions are flat.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind of segment: {kind}")
    given = parameters or {}
    structure = building = 0
    if contents.vector_type in {"vector", "halfvec"} and contents.rows:
        if kind == "graph":
            structure = _graph(contents.rows, given.get("neighbors") or NEIGHBORS)
            building = structure + contents.rows * _vector_bytes(contents)  # a copy, see library.py
        elif kind == "partitions":
            partitions = partitions_for(contents.rows, given)
            structure = _partitions(contents.rows, contents.dimensions, partitions)
            samples = partitions * samples_for(partitions, contents.dimensions, given)
            building = structure + min(samples, contents.rows) * _vector_bytes(contents)
    key = _KEY_BYTES[contents.key_type] + (contents.text_key - 16 if contents.key_type == "text" else 0)
    return Estimate(
        contents.rows * _vector_bytes(contents),
        contents.rows * key,
        contents.rows * contents.column_bytes,
        structure,
        building,
    )


def advise(organization: str, contents: Contents, parameters: Mapping[str, int] | None = None) -> Estimate:
    """Return the bytes of what a build makes of `contents`: of an organization, or flat where they are few."""
    return estimate("flat" if contents.rows < FLAT_BELOW else organization, contents, parameters)


def _vector_bytes(contents: Contents) -> int:
    if contents.vector_type == "bit":
        return -(-contents.dimensions // 64) * 8
    if contents.vector_type == "sparsevec":
        return 8 * contents.entries + 16
    return 4 * contents.dimensions


def _graph(rows: int, neighbors: int) -> int:
    """Links of the lowest level, which has twice as many, and of those above, each with a share of 1 / neighbors of the one below."""
    links = 2 * neighbors + neighbors / max(neighbors - 1, 1)
    return round(rows * (4 * links + 8 + 4))


def _partitions(rows: int, dimensions: int, partitions: int) -> int:
    """Codes and row numbers, partitions not quite full; the partition of each row; centroids and the directory."""
    step = code_step(dimensions)
    width = -(-dimensions // step) * step
    code = -(-(width // step) // 2)
    lists = (rows + partitions * _BLOCK_ROWS // 2) * (code + 8)
    assigned = rows * (2 if partitions < 1 << 16 else 4)
    return lists + assigned + (partitions + 16) * 4 * width + 24 * partitions
