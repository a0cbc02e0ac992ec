from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from low_rank import low_rank
from numpy.typing import NDArray

from pythiadb.recommend.folding import solve
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.training import Settings, Trained, train

Numbers = NDArray[np.float64]


def objective(
    weights: Numbers, vectors: NDArray[Any], residuals: Numbers, penalty: float, dropout: float
) -> float:
    """What solve() minimises, in the words of its docstring: the mean over what dropout may leave out, and the penalty."""
    vector, bias = weights[:-1], weights[-1]
    kept = (1 - dropout) ** 2
    errors = np.square(residuals - bias - vectors @ vector)
    spread = (1 - kept) / kept * np.square(vectors * vector).sum(axis=1)
    return float((errors + spread).sum() + penalty * (vector @ vector + 0.3 * bias**2))


@settings(deadline=None)
@given(
    st.integers(1, 30), st.integers(1, 10), st.sampled_from([0.01, 0.5, 10.0]), st.sampled_from([0.0, 0.15, 0.6]),
    st.integers(0, 99),
)  # fmt: skip
def test_no_other_solution_is_better(
    count: int, dimensions: int, penalty: float, dropout: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors, residuals = rng.normal(size=(count, dimensions)).astype(np.float32), rng.normal(size=count)
    bias, vector = solve(vectors, residuals, penalty, dropout)
    found = np.append(vector, bias).astype(np.float64)
    least = objective(found, vectors, residuals, penalty, dropout)
    for _ in range(20):
        other = found + rng.normal(0, 0.02, dimensions + 1)
        assert least < objective(other, vectors, residuals, penalty, dropout) + 1e-6


def test_dropout_is_what_leaving_components_out_costs_on_average() -> None:
    rng = np.random.default_rng(0)
    vectors, residuals = rng.normal(size=(6, 3)), rng.normal(size=6)
    weights, kept = rng.normal(size=4), 0.85**2
    masks = rng.random((200_000, 6, 3)) < kept
    products = np.where(masks, vectors * weights[:3], 0) / kept
    errors = np.square(residuals - weights[3] - products.sum(axis=2)).sum(axis=1)
    assert objective(weights, vectors, residuals, 0, 0.15) == pytest.approx(errors.mean(), rel=0.01)


def test_without_regularization_the_smallest_of_the_best_is_taken() -> None:
    vectors = np.array([[1, 0], [1, 0]], np.float32)
    bias, vector = solve(vectors, np.array([2.0, 2.0]), 0.0, 0.0)
    np.testing.assert_allclose([*vector, bias], [1, 0, 1], atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.1, 20.0])
def test_a_trained_user_is_found_again(scale: float) -> None:
    """From his training ratings and the items' vectors comes about what training made of him, whatever the ratings' scale."""
    ratings = low_rank()
    ratings = replace(ratings, values=ratings.values * np.float32(scale))
    trained = train(ratings, Settings(dimensions=4, validation_share=0, max_epochs=25, threads=1))
    learned = trained.factors
    folded = np.array([fold(trained, ratings, user) for user in range(50)])
    known = np.column_stack([learned.user_vectors[:50], learned.user_bias[:50]])
    assert np.corrcoef(folded.ravel(), known.ravel())[0, 1] > 0.98
    assert np.linalg.norm(folded) == pytest.approx(np.linalg.norm(known), rel=0.05)


def fold(trained: Trained, ratings: Ratings, user: int) -> Numbers:
    learned, used = trained.factors, trained.settings
    his = ratings.users == user
    items = ratings.items[his]
    residuals = ratings.values[his].astype(np.float64) - learned.mean - learned.item_bias[items]
    penalty = used.regularization * trained.user_weight * len(items) ** 0.5
    bias, vector = solve(learned.item_vectors[items], residuals, penalty, used.dropout)
    return np.append(vector, bias).astype(np.float64)
