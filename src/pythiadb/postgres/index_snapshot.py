"""One look at the table of a vector index: its rows as the index library takes them, and which of them have changed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from pythiadb.errors import InvalidVector

if TYPE_CHECKING:
    from pythiadb.postgres.index_store import StoredIndex

BATCH_ROWS = 10_000
_NOTHING = sql.SQL("")
_SPARSE_HEAD = struct.Struct("!iii")  # of sparsevec_send: dimensions, entries, unused


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a table: keys, vectors as the index library takes them, INCLUDE columns by name."""

    dimensions: int
    keys: Any
    vectors: Any
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: list[int]) -> Batch:
        """Return some of the rows."""
        return Batch(
            self.dimensions,
            _some(self.keys, rows),
            _some(self.vectors, rows),
            {name: _some(column, rows) for name, column in self.columns.items()},
        )


def _some(values: Any, rows: list[int]) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


class Snapshot:
    """One look at an index's table. `text` is PostgreSQL's pg_snapshot."""

    def __init__(self, connection: psycopg.Connection[Any], index: StoredIndex) -> None:
        self._connection = connection
        self._index = index
        row = connection.execute(
            "SELECT pg_current_snapshot()::text, pythia.vector_fingerprint(%s)", (index.index_id,)
        ).fetchone()
        assert row is not None
        self.text, self.fingerprint = row

    def count(self) -> int:
        """Return how many rows have a vector."""
        row = self._connection.execute(
            sql.SQL("SELECT count({}) FROM {}.{}").format(
                *map(sql.Identifier, (self._index.column, self._index.schema, self._index.table))
            )
        ).fetchone()
        return int(row[0]) if row else 0

    def batches(self) -> Iterator[Batch]:
        """Yield all rows that have a vector. Raises InvalidVector when they differ in dimensions."""
        yield from self._stream(self._has_vector)

    def sample(self, wanted: int, of: int) -> list[Batch]:
        """Return about `wanted` of the `of` rows that have a vector, chosen by chance and the same each time. Raises InvalidVector."""
        percent = sql.Literal(min(100.0, 105.0 * wanted / max(of, 1)))
        clause = sql.SQL(" TABLESAMPLE BERNOULLI ({}) REPEATABLE (1)").format(percent)
        return list(self._stream(self._has_vector, sampled=clause))

    @property
    def _has_vector(self) -> sql.Composable:
        return sql.SQL("{} IS NOT NULL").format(_name(self._index.column))

    def changed_keys(self, version: int) -> list[Any]:
        """Return the keys that the journal holds beyond a version."""
        rows = self._connection.execute(
            sql.SQL(
                "SELECT DISTINCT key{} FROM {} WHERE NOT pg_visible_in_snapshot(xid, "
                "(SELECT snapshot FROM pythia.vector_index_version WHERE index_id = %s AND version = %s))"
            ).format(_key_cast(self._index), journal(self._index)),
            (self._index.index_id, version),
        ).fetchall()
        return [key for (key,) in rows]

    def rows_of(self, keys: list[Any]) -> Iterator[Batch]:
        """Yield the rows of these keys that are there and have a vector."""
        condition = sql.SQL("{} = ANY (%s::{}[]) AND {} IS NOT NULL").format(
            _name(self._index.key),
            sql.SQL({"int": "bigint"}.get(self._index.key_type, self._index.key_type)),
            _name(self._index.column),
        )
        yield from self._stream(condition, (keys,), dimensions=self._index.dimensions)

    def _stream(
        self,
        condition: sql.Composable,
        parameters: tuple[Any, ...] = (),
        *,
        sampled: sql.Composable = _NOTHING,
        dimensions: int | None = None,
    ) -> Iterator[Batch]:
        index = self._index
        decode = _Decoder(index, dimensions)
        query = sql.SQL(
            "SELECT {key}{cast}, {vector}{columns} FROM {schema}.{table}{sampled} WHERE {condition}"
        ).format(
            key=_name(index.key),
            cast=_key_cast(index),
            vector=_vector_bytes(self._connection, index),
            columns=sql.SQL("").join(
                sql.SQL(", {}{}").format(_name(name), _column_cast(kind)) for name, kind in index.columns
            ),
            schema=_name(index.schema),
            table=_name(index.table),
            sampled=sampled,
            condition=condition,
        )
        with self._connection.cursor(f"pythia_{index.index_id}", binary=True) as cursor:
            cursor.itersize = BATCH_ROWS
            cursor.execute(query, parameters)
            while rows := cursor.fetchmany(BATCH_ROWS):
                yield decode(rows)


class _Decoder:
    """From rows with a vector's binary form to a batch; holds the dimensions that all rows must have (None: those of the first)."""

    def __init__(self, index: StoredIndex, dimensions: int | None) -> None:
        self._index = index
        self._dimensions = dimensions

    def __call__(self, rows: list[tuple[Any, ...]]) -> Batch:
        keys, values, *columns = zip(*rows, strict=True)
        vectors = {"bit": self._bits, "sparsevec": self._sparse}.get(self._index.vector_type, self._dense)(
            keys, values
        )
        assert self._dimensions is not None
        return Batch(
            self._dimensions,
            np.array(keys, np.int64) if self._index.key_type == "int" else list(keys),
            vectors,
            {name: list(column) for (name, _), column in zip(self._index.columns, columns, strict=True)},
        )

    def _dense(self, keys: Sequence[Any], values: Sequence[bytes]) -> NDArray[np.float32]:
        # vector_send: int16 dimensions, int16 unused, then float4 in network order
        self._check(keys, [(len(value) - 4) // 4 for value in values])
        table = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)
        return table[:, 4:].copy().view(">f4").astype(np.float32)

    def _bits(self, keys: Sequence[Any], values: Sequence[bytes]) -> NDArray[np.uint8]:
        # bit_send: int32 length in bits, then the bits, the first one the most significant
        self._check(keys, [int.from_bytes(value[:4], "big") for value in values])
        return np.frombuffer(b"".join(value[4:] for value in values), np.uint8).reshape(len(values), -1)

    def _sparse(
        self, keys: Sequence[Any], values: Sequence[bytes]
    ) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        heads = [_SPARSE_HEAD.unpack_from(value) for value in values]
        self._check(keys, [dimensions for dimensions, _, _ in heads])
        return [
            (
                np.frombuffer(value, ">i4", entries, _SPARSE_HEAD.size).astype(np.int32),
                np.frombuffer(value, ">f4", entries, _SPARSE_HEAD.size + 4 * entries).astype(np.float32),
            )
            for value, (_, entries, _) in zip(values, heads, strict=True)
        ]

    def _check(self, keys: Sequence[Any], dimensions: list[int]) -> None:
        if self._dimensions is None:
            self._dimensions = dimensions[0]
        if dimensions.count(self._dimensions) == len(dimensions):
            return
        position = next(n for n, found in enumerate(dimensions) if found != self._dimensions)
        raise InvalidVector(
            f"expected {self._dimensions} dimensions, not {dimensions[position]}",
            detail=f'The row of "{self._index.table}" with {self._index.key} = {keys[position]} differs from the others.',
            hint="A vector index needs vectors of the same dimensions: give the column a type like VECTOR(384, FLOAT32).",
        )


def journal(index: StoredIndex) -> sql.Identifier:
    """Return the name of an index's journal."""
    return sql.Identifier("vecsys", f"journal_{index.index_id}")


def _name(identifier: str) -> sql.Identifier:
    """Return a name for a query with parameters, in which psycopg reads percent signs."""
    return sql.Identifier(identifier.replace("%", "%%"))


def _key_cast(index: StoredIndex) -> sql.SQL:
    return sql.SQL("::bigint" if index.key_type == "int" else "::text")


def _column_cast(kind: str) -> sql.SQL:
    """Times are read as text: Python's types know neither infinity nor years before Christ."""
    return sql.SQL("::text" if kind == "date" or kind.startswith("timestamp") else "")


def _vector_bytes(connection: psycopg.Connection[Any], index: StoredIndex) -> sql.Composable:
    """Return the expression of a vector's binary form."""
    column = _name(index.column)
    if index.vector_type == "bit":
        return sql.SQL("bit_send({})").format(column)
    row = connection.execute(
        "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector'"
    ).fetchone()
    assert row is not None
    schema = sql.SQL(row[0].replace("%", "%%"))
    if index.vector_type == "sparsevec":
        return sql.SQL("{}.sparsevec_send({})").format(schema, column)
    return sql.SQL("{}.vector_send({}::{}.vector)").format(schema, column, schema)
