"""Which store holds the vectors of a definition, and queries in the form that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pythiadb.index.bit_store import BitStore, BitWriter, bit_bytes, words
from pythiadb.index.definition import Definition
from pythiadb.index.dense_store import DenseStore, DenseWriter
from pythiadb.index.distances import normalised_one
from pythiadb.index.sparse_store import SparseStore, SparseWriter, prepare_sparse
from pythiadb.index.store import Query, Store, StoreWriter, check_width


def store_writer(folder: Path, definition: Definition) -> StoreWriter:
    """Return the writer for the definition's type of vectors."""
    if definition.dense:
        return DenseWriter(folder, definition)
    return (BitWriter if definition.vector_type == "bit" else SparseWriter)(folder, definition)


def open_store(folder: Path, definition: Definition) -> Store:
    """Map the vectors of a segment. Raises CorruptedIndex."""
    if definition.dense:
        return DenseStore(folder, definition)
    return (BitStore if definition.vector_type == "bit" else SparseStore)(folder, definition)


def prepare(definition: Definition, query: Any) -> Query:
    """Return a query in the form in which all segments take it: float32 [d], words, or places, values and size.

    Raises InvalidVector when its dimensions are not the index's.
    """
    if definition.vector_type == "sparsevec":
        return prepare_sparse(definition.distance, query)
    given = np.asarray(query)
    if definition.vector_type == "bit":
        check_width(given.shape, bit_bytes(definition), definition)
        return words(given.reshape(1, -1))[0]
    check_width(given.shape, definition.dimensions, definition)
    floats = np.ascontiguousarray(given, np.float32)
    return normalised_one(floats) if definition.distance == "COSINE" else floats
