"""What counts when a user has rated an item more than once."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import InvalidParameter, InvalidRatings
from pythiadb.recommend.ratings import Duplicates, Ratings


def check(rule: str) -> None:
    """Raise InvalidParameter for a rule that there is not."""
    if rule not in get_args(Duplicates):
        raise InvalidParameter(
            f'unrecognized rule for duplicates "{rule}"',
            hint=f"Use one of {', '.join(get_args(Duplicates))}.",
        )


def resolve(ratings: Ratings, rule: Duplicates) -> Ratings:
    """Return one rating for each pair of a user and an item, in the order in which those that count stand.

    Those without duplicates are compared and no more: they may be many millions.

    Raises InvalidRatings when there are duplicates and the rule is "error".
    """
    repeated = _repeated(_pairs(ratings))
    if len(repeated) == 0:
        return ratings
    pairs = _pairs(ratings)
    rows = _rows_of(repeated, pairs)
    pairs = pairs[rows]
    order = (
        np.argsort(pairs, kind="stable")
        if ratings.times is None
        else np.lexsort((ratings.times[rows], pairs))
    )
    rows = rows[order]
    starts = np.flatnonzero(np.diff(pairs[order], prepend=-1))
    counts = np.diff(starts, append=len(rows))
    surplus = len(rows) - len(starts)
    if rule == "error":
        raise _error(ratings, int(rows[0]), surplus)
    last = rows[starts + counts - 1]
    values = ratings.values
    if rule == "mean":
        values = values.copy()
        values[last] = np.add.reduceat(ratings.values[rows].astype(np.float64), starts) / counts
    kept = np.ones(len(ratings), bool)
    kept[rows] = False
    kept[last] = True
    return replace(
        ratings,
        users=ratings.users[kept],
        items=ratings.items[kept],
        values=values[kept],
        times=None if ratings.times is None else ratings.times[kept],
        notes=(*ratings.notes, f"duplicates: {surplus}, the {rule} rating counts"),
    )


def _pairs(ratings: Ratings) -> NDArray[np.int64]:
    """Return one number for each pair of a user and an item."""
    pairs = ratings.users.astype(np.int64)
    pairs *= len(ratings.item_ids)
    pairs += ratings.items
    return pairs


def _repeated(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those that stand more than once, ascending. Sorts in place what is not sorted, as files of MovieLens are."""
    if np.all(pairs[1:] > pairs[:-1]):
        return pairs[:0]
    pairs.sort()
    again: NDArray[np.int64] = pairs[1:][pairs[1:] == pairs[:-1]]
    firsts: NDArray[np.bool_] = np.diff(again, prepend=-1) > 0
    return again[firsts]


def _rows_of(repeated: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where pairs stand that are among the repeated ones."""
    places = np.searchsorted(repeated, pairs)
    np.minimum(places, len(repeated) - 1, out=places)
    return np.flatnonzero(repeated[places] == pairs)


def _error(ratings: Ratings, rating: int, surplus: int) -> InvalidRatings:
    user, item = ratings.user_ids[int(ratings.users[rating])], ratings.item_ids[int(ratings.items[rating])]
    return InvalidRatings(
        f"user {user} has rated item {item} more than once",
        detail=f"Duplicates: {surplus}.",
        hint='Let the "last" or the "mean" count.',
    )
