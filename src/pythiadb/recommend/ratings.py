"""Ratings: who rated what, and how high. Read from files, Arrow tables, data frames and SQL queries, in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pythiadb.recommend.extra import train_extra

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

Duplicates = Literal["last", "mean", "error"]


@dataclass(frozen=True, slots=True)
class Ratings:
    """`n` ratings, with users and items by their positions in the tables of ids.

    Ids are sorted, integers by value and strings by their bytes, so that a position depends on the set of ids only, not on the
    order of the ratings. `notes` are the rules that were applied to what was read.
    """

    users: NDArray[np.int32]  # [n] positions in user_ids
    items: NDArray[np.int32]  # [n] positions in item_ids
    values: NDArray[np.float32]  # [n] finite
    times: NDArray[np.int64] | None  # [n] seconds since 1970
    user_ids: pa.Array  # int64 or string, distinct
    item_ids: pa.Array
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)


def read_ratings(
    source: str | PathLike[str] | Any,
    *,
    columns: Mapping[str, str | None] | None = None,
    query_connection: psycopg.Connection[Any] | None = None,
    duplicates: Duplicates = "last",
) -> Ratings:
    """Read ratings, and give users and items their positions.

    Args:
        source: a file (.csv, .tsv, both also .gz, .bz2, .zst; .parquet; .arrow, .feather), anything that gives an Arrow stream (tables
            of pyarrow, data frames of pandas and polars), or, with `query_connection`, the text of a query, which may be AI SQL.
        columns: which column is what, as in `{"user": "who", "item": "what", "rating": "stars", "timestamp": "at"}`; those that are
            not named are found by usual names in any case: userId, user_id, user; movieId, movie_id, itemId, item_id, item;
            rating, value, score; timestamp, time. Times may be missing; `"timestamp": None` does not read them.
        query_connection: where the query runs: a connection of pythiadb or psycopg. Its rows come by COPY.
        duplicates: what counts when a user has rated an item more than once: the "last" rating (by time, without times by row), the
            "mean", or "error".

    Ids are integers, strings or UUIDs; those of a text file are integers when all are, and strings as they are written when not. UUIDs
    of typed sources become lower-case strings. Times are seconds since 1970, or dates and timestamps (those without a zone are UTC).
    Users with one rating stay. Memory: 20 bytes a rating that stay, about as many again while a table is read.

    Raises:
        InvalidRatings: a column that is missing, a value that is no number or no id, no ratings at all; names the line or row.
        InvalidParameter: an argument that is none of these.
        UndefinedFile: no such file.
        FeatureNotSupported: pyarrow is not installed.
    """
    with train_extra("reading ratings"):
        from pythiadb.recommend.duplicates import check, resolve
        from pythiadb.recommend.gathering import gather
        from pythiadb.recommend.sources import open_table
    check(duplicates)
    ratings = resolve(gather(open_table(source, query_connection), columns or {}), duplicates)
    lonely = int(np.count_nonzero(np.bincount(ratings.users) == 1))
    note = f"users with one rating: {lonely}, they stay"
    return replace(ratings, notes=(*ratings.notes, note)) if lonely else ratings
