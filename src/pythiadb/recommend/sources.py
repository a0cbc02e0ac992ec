"""Where ratings come from: which reader serves what a caller gives, and the readers of Parquet and Arrow."""

from __future__ import annotations

import os
from collections.abc import Generator
from os import PathLike
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
from pyarrow import ipc, parquet

from pythiadb.errors import InvalidParameter, UndefinedFile
from pythiadb.recommend.choosing import Chosen
from pythiadb.recommend.queries import QueryTable
from pythiadb.recommend.table import Table, readable
from pythiadb.recommend.text_file import TextFile

_ROWS = 1 << 20  # of a block
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_COMPRESSED = (".gz", ".bz2", ".zst")
_ARROW = (".arrow", ".feather")


def open_table(source: str | PathLike[str] | Any, connection: psycopg.Connection[Any] | None) -> Table:
    """Return the table that a caller means; with a connection `source` is a query.

    Raises InvalidParameter for what is no table, UndefinedFile where there is no file, InvalidRatings for a file that is damaged.
    """
    if connection is not None:
        return QueryTable(source, connection)
    if isinstance(source, (str, PathLike)):
        return _open_file(Path(source))
    if hasattr(source, "__arrow_c_stream__"):
        with readable("the table cannot be read"):
            return StreamTable("the table", pa.RecordBatchReader.from_stream(source))
    raise InvalidParameter(
        f"ratings cannot be read from an object of type {type(source).__name__}",
        hint="Give a file, a table of pyarrow, a data frame of pandas or polars, or a query with query_connection.",
    )


def _open_file(path: Path) -> Table:
    if os.path.isdir(path):  # noqa: PTH112 - Path's own raises for what is too long for a name, like a query
        raise InvalidParameter(f'"{path}" is a directory', hint="Name the file with the ratings in it.")
    if not os.path.isfile(path):  # noqa: PTH113
        raise UndefinedFile(
            f'file "{path}" does not exist',
            hint="A query needs query_connection beside it: read_ratings(query, query_connection=…); on the command line, --query.",
        )
    *_, before, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    kind = before if last in _COMPRESSED else last
    if kind in _DELIMITERS:
        return TextFile(path, _DELIMITERS[kind])
    with readable(f'"{path.name}" is no {kind[1:]} file'):
        if kind == ".parquet":
            return ParquetTable(path)
        if kind in _ARROW:
            return StreamTable(f'"{path.name}"', _open_arrow(path))
    raise InvalidParameter(
        f'file "{path.name}" is of an unknown kind',
        hint=f"Known are {', '.join((*_DELIMITERS, '.parquet', *_ARROW))}; the first two also with {', '.join(_COMPRESSED)}.",
    )


def _open_arrow(path: Path) -> Any:
    """Open a file of either Arrow format: the one with a footer, mapped, or a stream."""
    mapped = pa.memory_map(str(path))
    try:
        file = ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        return ipc.open_stream(mapped)
    batches = (file.get_batch(i) for i in range(file.num_record_batches))
    return pa.RecordBatchReader.from_batches(file.schema, batches)


class StreamTable(Table):
    """A stream of Arrow record batches."""

    def __init__(self, name: str, reader: Any) -> None:
        self.name = name
        self._reader = reader

    @property
    def columns(self) -> list[str]:
        return list(self._reader.schema.names)

    def blocks(self, chosen: Chosen) -> Generator[pa.RecordBatch, None, None]:
        with readable(f"{self.name} cannot be read"):
            for batch in self._reader:
                block = batch.select(chosen.names)
                for start in range(0, block.num_rows, _ROWS):
                    yield block.slice(start, _ROWS)


class ParquetTable(Table):
    """A Parquet file, of which only the chosen columns are read."""

    def __init__(self, path: Path) -> None:
        self.name = f'"{path.name}"'
        self._file = parquet.ParquetFile(path)

    @property
    def columns(self) -> list[str]:
        return list(self._file.schema_arrow.names)

    def blocks(self, chosen: Chosen) -> Generator[pa.RecordBatch, None, None]:
        with readable(f"{self.name} cannot be read"):
            yield from self._file.iter_batches(_ROWS, columns=chosen.names)
