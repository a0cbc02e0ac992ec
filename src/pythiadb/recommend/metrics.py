"""How good a recommender is: the error of its predicted ratings, and what its lists find of the ratings that were held out.

A list is judged by the held-out ratings of its user that reach a threshold, the relevant items. Every item can be listed, except
those that the user rated in training; users without a relevant item are left out. Among equal scores the item of the lower position
comes first.

- recall@k: the share of a user's relevant items that are among the first k.
- nDCG@k: each relevant item at rank r counts 1 / log2(r + 1), divided by what the best possible list would count.

Both are means over users. Pairs of a user and an item must be distinct, as `read_ratings` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import InvalidParameter

if TYPE_CHECKING:
    from pythiadb.recommend.ratings import Ratings
    from pythiadb.recommend.split import Split

RELEVANT = 4.0  # the rating from which a held-out item should have been recommended
LIST_LENGTH = 10
MOST_USERS = 10_000  # users whose lists are judged: enough for three digits, and all of MovieLens 32M would take many minutes
_ROWS = 1 << 20  # errors that are held at once: 8 MB
_CELLS = 1 << 22  # scores that are held at once: 16 MB

Positions = NDArray[np.integer[Any]]
ScoreRows = Callable[
    [Positions], NDArray[Any]
]  # users [b] to scores [b, items], the higher the better: Factors.scores


class Predictor(Protocol):
    """What predicts ratings: `Factors`, or a baseline."""

    def predict(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the rating of each pair; position -1 is unknown."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Lists of `k` items, judged over `users` users: the means of recall@k and nDCG@k, both from 0 to 1."""

    recall: float
    ndcg: float
    users: int
    k: int


def rmse(predictor: Predictor, ratings: Ratings, positions: Positions) -> float:
    """Return the root of the mean squared error over the ratings at `positions`, in units of the ratings."""
    return math.sqrt(_mean(np.square(errors) for errors in _errors(predictor, ratings, positions)))


def mae(predictor: Predictor, ratings: Ratings, positions: Positions) -> float:
    """Return the mean absolute error over the ratings at `positions`, in units of the ratings."""
    return _mean(np.abs(errors) for errors in _errors(predictor, ratings, positions))


def ranking(
    score_rows: ScoreRows,
    ratings: Ratings,
    split: Split,
    *,
    k: int = LIST_LENGTH,
    relevant: float = RELEVANT,
    most_users: int = MOST_USERS,
) -> Ranking:
    """Judge the lists that `score_rows` makes by the held-out ratings of at least `relevant`.

    Of more than `most_users` users who have such ratings so many are drawn, always the same.

    Raise InvalidParameter when no held-out rating reaches `relevant`, when k is below 1, or when a score is not finite.
    """
    if k < 1:
        raise InvalidParameter(f"a list must have at least one item, not {k}")
    wanted = split.validation[ratings.values[split.validation] >= relevant]
    if not len(wanted):
        raise InvalidParameter(
            f"none of {len(split.validation)} held-out ratings reaches {relevant:g}",
            hint="Name a lower rating from which an item counts as relevant.",
        )
    users = np.unique(ratings.users[wanted])
    if len(users) > most_users:
        users = np.sort(np.random.default_rng(0).choice(users, most_users, replace=False))
    number = np.full(len(ratings.user_ids), -1, np.int32)
    number[users] = np.arange(len(users))
    pairs, seen = _pairs(ratings, wanted, number), _pairs(ratings, split.train, number)
    items = len(ratings.item_ids)
    recall = ndcg = 0.0
    rows = max(1, _CELLS // items)
    for first in range(0, len(users), rows):
        asked = users[first : first + rows]
        scores = _floats(score_rows(asked))
        scores[_block(seen, first, len(asked))] = -np.inf
        is_relevant = np.zeros((len(asked), items), np.bool_)
        is_relevant[_block(pairs, first, len(asked))] = True
        recalls, ndcgs = judge(best(scores, k), is_relevant)
        recall += float(recalls.sum())
        ndcg += float(ndcgs.sum())
    return Ranking(recall / len(users), ndcg / len(users), len(users), k)


def best(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Return the columns of the k highest scores of each row [b, min(k, columns)], the highest first, then the lower column."""
    k = min(k, scores.shape[1])
    least = np.partition(scores, -k, axis=1)[:, -k, np.newaxis]
    rows, columns = np.nonzero(scores >= least)  # at least k of a row, more where the last score has equals
    order = np.lexsort((columns, -scores[rows, columns], rows))
    starts = np.searchsorted(rows, np.arange(len(scores)))
    found: NDArray[np.intp] = columns[order[starts[:, np.newaxis] + np.arange(k)]]
    return found


def judge(
    lists: NDArray[np.intp], relevant: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return recall [b] and nDCG [b] of lists [b, k]; every row of `relevant` [b, items] has at least one item."""
    hits = np.take_along_axis(relevant, lists, axis=1)
    counts = relevant.sum(axis=1)
    worth = 1 / np.log2(np.arange(2, lists.shape[1] + 2))
    ideal = np.cumsum(worth)[np.minimum(counts, lists.shape[1]) - 1]
    return hits.sum(axis=1) / counts, (hits @ worth) / ideal


def _floats(scores: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Return a copy that can hold infinity. Raises InvalidParameter where the scores do so already."""
    if not np.isfinite(scores).all():
        raise InvalidParameter("a score is not a finite number")
    return scores.astype(np.result_type(scores, np.float32), copy=True)


def _errors(predictor: Predictor, ratings: Ratings, positions: Positions) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(positions), _ROWS):
        part = positions[start : start + _ROWS]
        predicted = predictor.predict(ratings.users[part], ratings.items[part])
        yield predicted.astype(np.float64) - ratings.values[part]


def _mean(parts: Iterator[NDArray[np.float64]]) -> float:
    total, count = 0.0, 0
    for part in parts:
        total += float(part.sum())
        count += len(part)
    if not count:
        raise InvalidParameter("there are no ratings to measure an error with")
    return total / count


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of a user's number and an item, in order of the numbers."""

    numbers: NDArray[np.int32]
    items: NDArray[np.int32]


def _pairs(ratings: Ratings, positions: Positions, number: NDArray[np.int32]) -> _Pairs:
    """Return the pairs at `positions` whose user has a number, -1 being none."""
    numbers = number[ratings.users[positions]]
    numbered = numbers >= 0
    order = np.argsort(numbers[numbered], kind="stable")
    return _Pairs(numbers[numbered][order], ratings.items[positions[numbered]][order])


def _block(pairs: _Pairs, first: int, count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return rows and columns of the pairs of `count` users from number `first` on."""
    start, end = np.searchsorted(pairs.numbers, [first, first + count])
    return pairs.numbers[start:end] - np.int32(first), pairs.items[start:end]
