from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pythiadb.errors import InvalidParameter
from pythiadb.recommend.factors import Factors

NUMBERS = st.floats(-8, 8, width=32)


@st.composite
def some_factors(draw: st.DrawFn) -> Factors:
    users, items, dimensions = (draw(st.integers(1, high)) for high in (5, 4, 3))
    lowest = draw(st.floats(-5, 5))
    return Factors(
        mean=draw(st.floats(-5, 5)),
        lowest=lowest,
        highest=lowest + draw(st.floats(0, 5)),
        user_bias=draw(arrays(np.float32, users, elements=NUMBERS)),
        item_bias=draw(arrays(np.float32, items, elements=NUMBERS)),
        user_vectors=draw(arrays(np.float32, (users, dimensions), elements=NUMBERS)),
        item_vectors=draw(arrays(np.float32, (items, dimensions), elements=NUMBERS)),
    )


def one_rating(factors: Factors, user: int, item: int) -> float:
    rating = factors.mean
    if user >= 0:
        rating += float(factors.user_bias[user])
    if item >= 0:
        rating += float(factors.item_bias[item])
    if user >= 0 and item >= 0:
        rating += sum(
            float(p) * float(q)
            for p, q in zip(factors.user_vectors[user], factors.item_vectors[item], strict=True)
        )
    return rating


@given(factors=some_factors(), data=st.data())
def test_predictions_are_what_the_formula_says(factors: Factors, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 6))
    users = data.draw(arrays(np.int32, count, elements=st.integers(-1, factors.users - 1)))
    items = data.draw(arrays(np.int64, count, elements=st.integers(-1, factors.items - 1)))
    expected = [one_rating(factors, u, i) for u, i in zip(users, items, strict=True)]
    found = factors.predict(users, items)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.clip(expected, factors.lowest, factors.highest), atol=1e-3)


@given(factors=some_factors())
def test_scores_of_all_items_are_predictions_before_clipping(factors: Factors) -> None:
    users = np.arange(-1, factors.users)
    expected = [[one_rating(factors, user, item) for item in range(factors.items)] for user in users]
    np.testing.assert_allclose(factors.scores(users), expected, atol=1e-3)


def test_one_user_stands_for_all_items_and_long_inputs_are_cut_into_blocks() -> None:
    draw = np.random.default_rng(0)
    factors = Factors(
        mean=3.0,
        lowest=-100.0,
        highest=100.0,
        user_bias=draw.normal(size=3).astype(np.float32),
        item_bias=draw.normal(size=200_000).astype(np.float32),
        user_vectors=draw.normal(size=(3, 4)).astype(np.float32),
        item_vectors=draw.normal(size=(200_000, 4)).astype(np.float32),
    )
    found = factors.predict(np.array([2]), np.arange(200_000))
    np.testing.assert_allclose(found, factors.scores(np.array([2]))[0], atol=1e-4)


@pytest.mark.parametrize(("users", "items", "kind"), [([0, 2], [0, 0], "user"), ([0], [-2], "item")])
def test_a_position_outside_is_an_error(users: list[int], items: list[int], kind: str) -> None:
    factors = Factors(3.0, 1.0, 5.0, *(np.zeros(2, np.float32),) * 2, *(np.zeros((2, 3), np.float32),) * 2)
    with pytest.raises(InvalidParameter, match=f"there is no {kind} at position"):
        factors.predict(np.array(users), np.array(items))
