"""From a table's blocks to ratings: ids are encoded block by block, so that no more than a block of them is ever spelled out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pythiadb.errors import InvalidRatings
from pythiadb.recommend.choosing import choose
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.table import Table

_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
_UUID = "^" + "-".join(f"[0-9a-fA-F]{{{digits}}}" for digits in (8, 4, 4, 4, 12)) + "$"
_UUID_BYTES = pa.binary(16)
_A_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_T = TypeVar("_T", np.float32, np.int64)


def gather(table: Table, given: Mapping[str, str | None]) -> Ratings:
    """Read all ratings of a table, duplicates included, with users and items in the order of their ids.

    `given` says which column is what, where names do not. Raises InvalidRatings.
    """
    chosen = choose(table.columns, given, table.name)
    users: list[pa.DictionaryArray] = []
    items: list[pa.DictionaryArray] = []
    values: list[NDArray[np.float32]] = []
    times: list[NDArray[np.int64]] = []
    rows = 0
    with closing(table.blocks(chosen)) as blocks:
        for batch in blocks:
            block = _Block(batch, table, rows)
            users.append(block.ids(chosen.user))
            items.append(block.ids(chosen.item))
            values.append(block.numbers(chosen.rating))
            if chosen.timestamp is not None:
                times.append(block.seconds(chosen.timestamp))
            rows += batch.num_rows
    if rows == 0:
        raise InvalidRatings(f"{table.name} has no ratings")
    user_positions, user_ids = _positions(users, table.ids_as_text)
    item_positions, item_ids = _positions(items, table.ids_as_text)
    return Ratings(
        user_positions,
        item_positions,
        _joined(values),
        _joined(times) if chosen.timestamp is not None else None,
        user_ids,
        item_ids,
    )


class _Block:
    """A block of rows, which begins at row `first` of its table."""

    def __init__(self, batch: pa.RecordBatch, table: Table, first: int) -> None:
        self._batch = batch
        self._table = table
        self._first = first

    def ids(self, name: str) -> pa.DictionaryArray:
        """Return a column of ids as positions among those of this block: integers, strings, or the bytes of UUIDs."""
        column = self._complete(name)
        is_encoded = pa.types.is_dictionary(column.type)
        encoded = column if is_encoded else self._plain_ids(name, column).dictionary_encode()
        if encoded.type.value_type == pa.string():
            self._check_texts(name, encoded)
        return encoded

    def numbers(self, name: str) -> NDArray[np.float32]:
        """Return a column of finite numbers."""
        column = self._complete(name)
        if not _is_number(column.type):
            raise self._wrong_type(name, column.type, "Ratings are numbers.")
        return self._finite(name, column.cast(pa.float32(), safe=False))

    def seconds(self, name: str) -> NDArray[np.int64]:
        """Return a column of times as seconds since 1970, rounded down."""
        column = self._complete(name)
        if pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(column.type):
            return np.asarray(column.cast(pa.int64())) // _A_SECOND[column.type.unit]
        if not _is_number(column.type):
            raise self._wrong_type(name, column.type, "Times are seconds since 1970, dates or timestamps.")
        if pa.types.is_floating(column.type):
            self._finite(name, column)
        whole = column if pa.types.is_integer(column.type) else pc.floor(column)
        return np.asarray(self._whole(name, whole))

    def _complete(self, name: str) -> pa.Array:
        """Return a column, without an extension's meaning; raise when a value is missing."""
        column = self._batch.column(name)
        if isinstance(column.type, pa.BaseExtensionType):
            column = column.storage
        if pa.types.is_dictionary(column.type) and not self._table.encodes_ids:
            column = column.dictionary_decode()  # categories may be such as no row has, or no value
        if column.null_count:
            raise self._missing(name, pc.index(column.is_null(), True).as_py())
        return column

    def _check_texts(self, name: str, ids: pa.DictionaryArray) -> None:
        """Raise for an id that is empty, or has a zero byte, which no text in PostgreSQL can have."""
        if (empty := pc.index(ids.dictionary, "").as_py()) >= 0:
            raise self._missing(name, pc.index(ids.indices, empty).as_py())
        if (zero := pc.index(pc.match_substring(ids.dictionary, "\0"), True).as_py()) >= 0:
            row = pc.index(ids.indices, zero).as_py()
            raise InvalidRatings(
                f"column {name} has an id with a zero byte in {self._place(row)}",
                detail="A text in the database cannot hold it.",
            )

    def _plain_ids(self, name: str, column: pa.Array) -> pa.Array:
        if _is_text(column.type):
            return column.cast(pa.string())
        if column.type == _UUID_BYTES:
            return column
        if not _is_number(column.type):
            raise self._wrong_type(name, column.type, "Ids are integers, strings or UUIDs.")
        return self._whole(name, column)

    def _whole(self, name: str, column: pa.Array) -> pa.Array:
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InvalidRatings(
                f"column {name} of {self._table.name} has a value that is no integer of 64 bits",
                detail=f"{error}.",
            ) from error

    def _finite(self, name: str, column: pa.Array) -> NDArray[np.float32]:
        numbers = np.asarray(column)
        finite = np.isfinite(numbers)
        if not finite.all():
            row = int(finite.argmin())
            raise InvalidRatings(
                f"column {name} has {numbers[row]} in {self._place(row)}", detail="Numbers must be finite."
            )
        return numbers

    def _missing(self, name: str, row: int) -> InvalidRatings:
        return InvalidRatings(f"column {name} has no value in {self._place(row)}")

    def _wrong_type(self, name: str, kind: pa.DataType, detail: str) -> InvalidRatings:
        return InvalidRatings(f"column {name} of {self._table.name} is of type {kind}", detail=detail)

    def _place(self, row: int) -> str:
        return self._table.place(self._first + row)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _joined(blocks: list[NDArray[_T]]) -> NDArray[_T]:
    """Return blocks as one array; they are let go."""
    whole = np.concatenate(blocks)
    _let_go(blocks)
    return whole


def _let_go(blocks: list[Any]) -> None:
    """Give the blocks' memory back to the system: pyarrow keeps what it frees, as much as the ratings again."""
    blocks.clear()
    pa.default_memory_pool().release_unused()


def _positions(blocks: list[pa.DictionaryArray], as_text: bool) -> tuple[NDArray[np.int32], pa.Array]:
    """Return positions in the sorted ids of all blocks, and these ids; the blocks are let go."""
    encoded = pa.chunked_array(blocks).unify_dictionaries()
    _let_go(blocks)
    ids = _as_integers(encoded.chunk(0).dictionary) if as_text else encoded.chunk(0).dictionary
    if ids.type == _UUID_BYTES:
        ids = pa.array([str(UUID(bytes=value)) for value in ids.to_pylist()], pa.string())
    written = _one_way(ids).dictionary_encode()
    ids = written.dictionary
    order = pc.sort_indices(ids)
    ranks = np.empty(len(ids), np.int32)
    ranks[order] = np.arange(len(ids), dtype=np.int32)
    ranks = ranks[np.asarray(written.indices)]
    positions = np.empty(len(encoded), np.int32)
    start = 0
    for block in encoded.chunks:
        stop = start + len(block)
        np.take(ranks, np.asarray(block.indices), out=positions[start:stop])
        start = stop
    return positions, ids.take(order)


def _one_way(ids: pa.Array) -> pa.Array:
    """Return ids with UUIDs, where all are, in lower-case letters: written in two ways they are the same."""
    is_uuids = ids.type == pa.string() and pc.all(pc.match_substring_regex(ids, _UUID)).as_py()
    return pc.utf8_lower(ids) if is_uuids else ids


def _as_integers(ids: pa.Array) -> pa.Array:
    """Return ids of a text file as integers when all are written as such, else as they are."""
    if pc.all(pc.match_substring_regex(ids, _INTEGER)).as_py():
        with suppress(pa.ArrowInvalid):  # more than 64 bits
            return ids.cast(pa.int64())
    return ids
