"""Vectors between Python and PostgreSQL: numpy arrays and array.array in, numpy arrays out."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import psycopg
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo

from pythiadb.vectors import codec


class VectorTextDumper(Dumper):
    """Sends an array as text of unknown type, so that it fits vector, text and the functions' arguments alike."""

    format = Format.TEXT

    def dump(self, obj: Any) -> Buffer:
        return codec.vector_to_text(obj)


class VectorBinaryDumper(Dumper):
    """Sends an array in the binary form of type vector."""

    format = Format.BINARY

    def dump(self, obj: Any) -> Buffer:
        return codec.vector_to_binary(obj)


class VectorTextLoader(Loader):
    format = Format.TEXT

    def load(self, data: Buffer) -> Any:
        return codec.vector_from_text(bytes(data))


class VectorBinaryLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> Any:
        return codec.vector_from_binary(bytes(data))


class SparseTextLoader(Loader):
    format = Format.TEXT

    def load(self, data: Buffer) -> Any:
        return codec.sparse_from_text(bytes(data))


class SparseTextDumper(Dumper):
    format = Format.TEXT

    def dump(self, obj: codec.SparseVector) -> Buffer:
        return codec.sparse_to_text(obj)


def register(connection: psycopg.Connection[Any]) -> None:
    """Teach a connection pgvector's types; does nothing where the extension is not installed."""
    vector = TypeInfo.fetch(connection, "vector")
    sparse = TypeInfo.fetch(connection, "sparsevec")
    if vector is None or sparse is None:
        return
    vector.register(connection)
    adapters = connection.adapters
    for cls in (np.ndarray, array):
        text = type("VectorTextDumper", (VectorTextDumper,), {"oid": vector.oid})
        binary = type("VectorBinaryDumper", (VectorBinaryDumper,), {"oid": vector.oid})
        adapters.register_dumper(cls, text)
        adapters.register_dumper(cls, binary)
    adapters.register_loader(vector.oid, VectorTextLoader)
    adapters.register_loader(vector.oid, VectorBinaryLoader)
    adapters.register_loader(sparse.oid, SparseTextLoader)
    adapters.register_dumper(
        codec.SparseVector, type("SparseDumper", (SparseTextDumper,), {"oid": sparse.oid})
    )
