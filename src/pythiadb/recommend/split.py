"""Which ratings are trained on and which are held out: one split at random or by time, or k folds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import InvalidParameter
from pythiadb.recommend.ratings import Ratings


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of ratings, ascending; together they are all, and none is in both."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]


def split_ratings(
    ratings: Ratings, *, share: float = 0.1, by: Literal["random", "time"] = "random", seed: int = 0
) -> Split:
    """Hold out a share of the ratings, by chance or the latest ones.

    Every user and every item keeps a rating in training: its earliest by time, else one by chance. So users and items with one
    rating are never validated, and where most have few ratings less than `share` is held out. Ratings of the same time are
    ordered by chance. The same seed gives the same split.

    Raises InvalidParameter for a share outside [0, 1), another `by`, or when times are asked for and there are none.
    """
    if not 0 <= share < 1:
        raise InvalidParameter(f"share of validation {share} is not in [0, 1)")
    order = _shuffled(len(ratings), seed)
    if by == "time":
        if ratings.times is None:
            raise InvalidParameter(
                "ratings without times cannot be split by time", hint='Split them by "random".'
            )
        order = order[np.argsort(ratings.times[order], kind="stable")]
    elif by != "random":
        raise InvalidParameter(f'unrecognized split "{by}"', hint='Use "random" or "time".')
    free = np.ones(len(ratings), bool)
    free[_first(ratings.users, order)] = False
    free[_first(ratings.items, order)] = False
    validation = order[free[order]][::-1][: _wanted(share, len(ratings))]
    return _split(validation, len(ratings))


def shortfall(split: Split, share: float) -> str | None:
    """Say why split_ratings() held out fewer ratings than a share asks for, or none; None where it did as it was asked."""
    held_out = len(split.validation)
    wanted = _wanted(share, held_out + len(split.train))
    if share == 0 or 0 < wanted == held_out:
        return None
    if not wanted:
        return f"held out no ratings: a share of {share:g} of {len(split.train):,} is less than one"
    return f"held out {held_out:,} of the {wanted:,} ratings wanted: every user and item keeps a rating"


def folds(ratings: Ratings, count: int = 5, *, seed: int = 0) -> Iterator[Split]:
    """Yield `count` splits whose validations are parts of all ratings by chance, of equal size within one.

    These are plain folds, as those that results on MovieLens are published with: an item's only rating may be held out.

    Raises InvalidParameter for fewer than two folds, or more than there are ratings.
    """
    if not 2 <= count <= len(ratings):
        raise InvalidParameter(f"{len(ratings)} ratings cannot be split into {count} folds")
    parts = np.array_split(_shuffled(len(ratings), seed), count)
    return (_split(part, len(ratings)) for part in parts)


def fingerprint(ratings: Ratings, split: Split) -> str:
    """Return a hash of ratings and of which of them are held out, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in (ratings.users, ratings.items, ratings.values, split.train, split.validation):
        digest.update(np.ascontiguousarray(array).data)
        digest.update(b"|")
    return digest.hexdigest()


def _wanted(share: float, count: int) -> int:
    """Return how many of `count` ratings a share is."""
    return round(share * count)


def _shuffled(count: int, seed: int) -> NDArray[Any]:
    """Return the numbers below `count` in an order by chance, in four bytes each where they fit."""
    order = np.arange(count, dtype=np.int32 if count <= np.iinfo(np.int32).max else np.int64)
    np.random.default_rng(seed).shuffle(order)
    return order


def _first(places: NDArray[np.int32], order: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each user (or item) that occurs the first of its ratings in an order."""
    first = np.full(int(places.max(initial=-1)) + 1, -1)
    backwards = order[::-1]
    first[places[backwards]] = backwards  # the last assignment to a place stays
    return first[first >= 0]


def _split(validation: NDArray[Any], count: int) -> Split:
    held_out = np.zeros(count, bool)
    held_out[validation] = True
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out))
