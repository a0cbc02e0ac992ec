"""Ratings that a query gives. They come as text, which pyarrow reads in blocks."""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import closing
from typing import Any

import psycopg
import pyarrow as pa
from pyarrow import csv

from pythiadb.errors import InvalidRatings
from pythiadb.postgres.copied_query import CopiedQuery
from pythiadb.recommend.choosing import Chosen
from pythiadb.recommend.table import Table, readable

_BLOCK_BYTES = 1 << 22
_WHOLE = ("int2", "int4", "int8")
_NUMBERS = (*_WHOLE, "numeric", "float4", "float8")
_TEXTS = ("text", "varchar", "bpchar", "name", "uuid")
_TIMES = ("date", "timestamp", "timestamptz")
_ID = pa.dictionary(pa.int32(), pa.string())
_Read = tuple[str, pa.DataType]  # an expression of a column, and what pyarrow reads its text as


class QueryTable(Table):
    """The result of a SELECT."""

    name = "the query"
    encodes_ids = True

    def __init__(self, query: object, connection: psycopg.Connection[Any]) -> None:
        self._query = CopiedQuery(connection, query)

    @property
    def columns(self) -> list[str]:
        return [name for name, _ in self._query.columns]

    def blocks(self, chosen: Chosen) -> Generator[pa.RecordBatch, None, None]:
        reads = [self._id(chosen.user), self._id(chosen.item), self._number(chosen.rating)]
        if chosen.timestamp is not None:
            reads.append(self._time(chosen.timestamp))
        read = csv.ReadOptions(use_threads=False, column_names=chosen.names)
        parse = csv.ParseOptions(newlines_in_values=True)
        convert = csv.ConvertOptions(
            column_types={name: kind for name, (_, kind) in zip(chosen.names, reads, strict=True)}
        )
        expressions = [(text, name) for name, (text, _) in zip(chosen.names, reads, strict=True)]
        with closing(self._query.blocks(expressions, _BLOCK_BYTES)) as blocks:
            for block in blocks:
                with readable(f"{self.name} has an id that is no integer of 64 bits"):
                    batches = csv.read_csv(pa.BufferReader(block), read, parse, convert).to_batches()
                yield from batches

    def _id(self, name: str) -> _Read:
        kind = self._kind(name, "ids", (*_NUMBERS, *_TEXTS))
        if kind in _TEXTS:
            return "{}::text", _ID
        return "{}", pa.int64() if kind in _WHOLE else pa.decimal128(38, 9)

    def _number(self, name: str) -> _Read:
        self._kind(name, "ratings", _NUMBERS)
        return "{}", pa.float32()

    def _time(self, name: str) -> _Read:
        kind = self._kind(name, "times", (*_NUMBERS, *_TIMES))
        return "floor(extract(epoch FROM {}))::int8" if kind in _TIMES else "floor({})::int8", pa.int64()

    def _kind(self, name: str, what: str, allowed: Collection[str]) -> str:
        kind = dict(self._query.columns)[name]
        if kind not in allowed:
            raise InvalidRatings(
                f"column {name} of {self.name} is of a type that {what} cannot have",
                detail=f"Types of {what} are {', '.join(allowed)}.",
            )
        return kind
