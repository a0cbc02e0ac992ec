"""Metrics against plain loops over single users, and against scikit-learn's."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from low_rank import low_rank
from numpy.typing import NDArray
from sklearn.metrics import mean_absolute_error, ndcg_score, root_mean_squared_error

from pythiadb.errors import InvalidParameter
from pythiadb.recommend.baselines import item_mean, popularity
from pythiadb.recommend.metrics import best, mae, ranking, rmse
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.split import Split


def halves(ratings: Ratings, seed: int = 0) -> Split:
    order = np.random.default_rng(seed).permutation(len(ratings.values))
    return Split(np.sort(order[len(order) // 2 :]), np.sort(order[: len(order) // 2]))


def one_by_one(
    scores: NDArray[Any], ratings: Ratings, split: Split, k: int, relevant: float
) -> tuple[float, float, int]:
    """recall@k and nDCG@k as the textbook writes them, user by user, from all users' scores."""
    seen, wanted = ({n: set() for n in range(len(scores))} for _ in range(2))
    for position in split.train.tolist():
        seen[int(ratings.users[position])].add(int(ratings.items[position]))
    for position in split.validation.tolist():
        if ratings.values[position] >= relevant:
            wanted[int(ratings.users[position])].add(int(ratings.items[position]))
    recalls, ndcgs = [], []
    for user, items in wanted.items():
        if not items:
            continue
        order = np.argsort(-scores[user], kind="stable").tolist()
        listed = [item for item in order if item not in seen[user]][:k]
        gain = sum(1 / math.log2(rank + 2) for rank, item in enumerate(listed) if item in items)
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(items))))
        recalls.append(len(items & set(listed)) / len(items))
        ndcgs.append(gain / ideal)
    return sum(recalls) / len(recalls), sum(ndcgs) / len(ndcgs), len(recalls)


@pytest.mark.parametrize("different", [3, 1_000_000])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_lists_are_judged_as_one_by_one(k: int, different: int) -> None:
    """With three different scores nearly all are equal; with k = 500 a list has more places than there are items."""
    ratings = low_rank(users=120, items=90, count=4000)
    split = halves(ratings)
    scores = np.random.default_rng(k).integers(0, different, (120, 90)).astype(np.float32)
    found = ranking(lambda users: scores[users], ratings, split, k=k, relevant=4.0)
    recall, ndcg, users = one_by_one(scores, ratings, split, k, 4.0)
    assert (found.users, found.k) == (users, k)
    assert found.recall == pytest.approx(recall, abs=1e-12)
    assert found.ndcg == pytest.approx(ndcg, abs=1e-12)


def test_many_users_are_judged_in_blocks() -> None:
    ratings = low_rank(users=1500, items=6000, count=30_000)
    split = halves(ratings)
    asked = []

    def scores(users: NDArray[Any]) -> NDArray[np.float64]:
        asked.append(len(users))
        return np.sin(users[:, None] * 7.0 + np.arange(6000) * 3.0)

    found = ranking(scores, ratings, split, k=20, relevant=3.0)
    assert len(asked) > 1
    assert sum(asked) == found.users
    expected = one_by_one(scores(np.arange(1500)), ratings, split, 20, 3.0)
    assert (found.recall, found.ndcg, found.users) == pytest.approx(expected, abs=1e-12)


def test_of_many_users_some_are_drawn() -> None:
    ratings = low_rank(users=120, items=90, count=4000)
    split = halves(ratings)
    scores = np.random.default_rng(8).normal(size=(120, 90))
    drawn: list[int] = []

    def remembered(users: NDArray[Any]) -> NDArray[np.float64]:
        drawn.extend(users.tolist())
        return scores[users]

    found = ranking(remembered, ratings, split, most_users=40)
    assert len(set(drawn)) == found.users == 40
    own = np.isin(ratings.users[split.validation], drawn)
    expected = one_by_one(scores, ratings, Split(split.train, split.validation[own]), 10, 4.0)
    assert (found.recall, found.ndcg, found.users) == pytest.approx(expected, abs=1e-12)
    assert found == ranking(lambda users: scores[users], ratings, split, most_users=40)


def test_ndcg_is_that_of_scikit_learn() -> None:
    ratings = low_rank(users=200, items=150, count=9000)
    split = halves(ratings)
    scores = np.random.default_rng(5).normal(size=(200, 150))
    truth = np.zeros((200, 150))
    wanted = split.validation[ratings.values[split.validation] >= 4]
    truth[ratings.users[wanted], ratings.items[wanted]] = 1
    judged = truth.any(axis=1)
    open_scores = scores.copy()
    open_scores[ratings.users[split.train], ratings.items[split.train]] = -1e9
    expected = ndcg_score(truth[judged], open_scores[judged], k=10, ignore_ties=True)
    assert ranking(lambda users: scores[users], ratings, split).ndcg == pytest.approx(expected, abs=1e-12)


def test_perfect_and_useless_lists() -> None:
    ratings = low_rank(users=50, items=40, count=800)
    split = halves(ratings)
    truth = np.zeros((50, 40), np.float32)
    truth[ratings.users[split.validation], ratings.items[split.validation]] = ratings.values[split.validation]
    perfect = ranking(lambda users: truth[users], ratings, split, k=40)
    assert (perfect.recall, perfect.ndcg) == pytest.approx((1, 1))
    assert ranking(lambda users: truth[users], ratings, split, k=1).ndcg == pytest.approx(1)
    assert ranking(lambda users: -truth[users], ratings, split, k=1).recall == 0


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 9)),
        elements=st.sampled_from([-math.inf, -1.0, 0.0, 2.5]),
    ),
    st.integers(1, 12),
)
def test_among_equal_scores_the_lower_column_comes_first(scores: NDArray[np.float32], k: int) -> None:
    expected = [sorted(range(len(row)), key=lambda column: (-row[column], column))[:k] for row in scores]
    assert best(scores, k).tolist() == expected


def test_the_scores_that_were_given_are_left_as_they_are() -> None:
    ratings = low_rank(users=30, items=20, count=200)
    scores = np.zeros((30, 20), np.float32)
    ranking(lambda users: scores[: len(users)], ratings, halves(ratings), relevant=3.0)
    assert not scores.any()


def test_movielens_in_size_takes_well_under_a_second() -> None:
    ratings = low_rank(users=943, items=1682, count=100_000)
    split = halves(ratings)
    scores = np.random.default_rng(0).normal(size=(943, 1682)).astype(np.float32)
    started = time.process_time()
    ranking(lambda users: scores[users], ratings, split)
    assert time.process_time() - started < 0.7


def test_errors_are_those_of_scikit_learn() -> None:
    ratings = low_rank()
    split = halves(ratings)
    means = item_mean(ratings, split.train)
    predicted = means.predict(ratings.users[split.validation], ratings.items[split.validation])
    truth = ratings.values[split.validation]
    expected = root_mean_squared_error(truth.astype(float), predicted.astype(float))
    assert rmse(means, ratings, split.validation) == pytest.approx(expected, abs=1e-9)
    expected = mean_absolute_error(truth.astype(float), predicted.astype(float))
    assert mae(means, ratings, split.validation) == pytest.approx(expected, abs=1e-9)


def test_item_means_and_popularity() -> None:
    ratings = low_rank(users=40, items=30, count=300)
    train = np.flatnonzero((ratings.items != 7) & (ratings.users < 35))
    means, counts = item_mean(ratings, train), popularity(ratings, train)
    for item in range(30):
        values = ratings.values[train][ratings.items[train] == item]
        assert counts.counts[item] == len(values)
        expected = values.mean() if len(values) else ratings.values[train].mean()
        assert means.means[item] == pytest.approx(expected, abs=1e-5)
    pairs = np.zeros(3, np.int32), np.array([-1, 7, 3], np.int32)
    overall = float(ratings.values[train].mean())
    assert means.predict(*pairs) == pytest.approx([overall, overall, means.means[3]], abs=1e-5)
    assert (means.scores(np.arange(4)) == means.means).all()
    assert (counts.scores(np.arange(4)) == counts.counts).all()


def test_lists_that_cannot_be_judged() -> None:
    ratings = low_rank(users=30, items=20, count=200)
    split = halves(ratings)
    scores = popularity(ratings, split.train).scores
    with pytest.raises(InvalidParameter, match=r"none of 100 held-out ratings reaches 50"):
        ranking(scores, ratings, split, relevant=50)
    with pytest.raises(InvalidParameter, match="at least one item, not 0"):
        ranking(scores, ratings, split, k=0)
    with pytest.raises(InvalidParameter, match="not a finite number"):
        ranking(lambda users: np.full((len(users), 20), np.nan), ratings, split, relevant=3.0)
    with pytest.raises(InvalidParameter, match="no ratings to measure"):
        rmse(item_mean(ratings, split.train), ratings, np.empty(0, np.int64))
