"""Splits: complete, disjoint, seeded, and nobody is validated whom training does not know."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythiadb.errors import InvalidParameter
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.split import folds, shortfall, split_ratings


def ratings(users: list[int], items: list[int], times: list[int] | None = None) -> Ratings:
    user_ids, user_places = np.unique(users, return_inverse=True)
    item_ids, item_places = np.unique(items, return_inverse=True)
    return Ratings(
        user_places.astype(np.int32),
        item_places.astype(np.int32),
        np.ones(len(users), np.float32),
        None if times is None else np.array(times, np.int64),
        pa.array(user_ids),
        pa.array(item_ids),
    )


def many(count: int = 2000, seed: int = 1) -> Ratings:
    rng = np.random.default_rng(seed)
    users, items = rng.integers(40, size=count), rng.integers(60, size=count)
    return ratings(users.tolist(), items.tolist(), rng.integers(1000, size=count).tolist())


small = st.integers(0, 6)


@settings(deadline=None)
@given(
    st.lists(st.tuples(small, small, small), min_size=1, max_size=40),
    st.sampled_from(["random", "time"]),
    st.floats(0, 0.99),
    st.integers(0, 2**32),
)
def test_everyone_keeps_a_rating(rows: list[tuple[int, int, int]], by: str, share: float, seed: int) -> None:
    users, items, times = (list(column) for column in zip(*rows, strict=True))
    given_ratings = ratings(users, items, times)
    split = split_ratings(given_ratings, share=share, by=by, seed=seed)  # type: ignore[arg-type]
    assert np.array_equal(np.sort(np.concatenate([split.train, split.validation])), np.arange(len(rows)))
    assert np.array_equal(split.train, np.sort(split.train))
    assert np.array_equal(split.validation, np.sort(split.validation))
    assert set(given_ratings.users[split.train].tolist()) == set(given_ratings.users.tolist())
    assert set(given_ratings.items[split.train].tolist()) == set(given_ratings.items.tolist())
    wanted = round(share * len(rows))
    assert len(split.validation) <= wanted
    assert len(split.validation) >= min(wanted, len(rows) - len(set(users)) - len(set(items)))


@pytest.mark.parametrize("by", ["random", "time"])
def test_the_seed_decides(by: str) -> None:
    first, again, other = (split_ratings(many(), by=by, seed=seed) for seed in (3, 3, 4))  # type: ignore[arg-type]
    assert np.array_equal(first.validation, again.validation)
    assert not np.array_equal(first.validation, other.validation)
    assert len(first.validation) == 200


def test_time_holds_out_the_latest() -> None:
    given_ratings = many()
    times = given_ratings.times
    assert times is not None
    split = split_ratings(given_ratings, share=0.2, by="time")
    late = split.train[times[split.train] > times[split.validation].min()]
    assert len(split.validation) == 400
    for rating in late:  # is somebody's first
        others = (
            given_ratings.users == given_ratings.users[rating],
            given_ratings.items == given_ratings.items[rating],
        )
        assert any(times[rating] == times[same].min() for same in others)


def test_what_could_not_be_held_out_is_told() -> None:
    pairs = ratings([1, 1, 1, 2, 2, 3], [1, 2, 3, 1, 2, 4])
    for share, told in (
        (0, None),
        (0.05, "held out no ratings: a share of 0.05 of 6 is less than one"),
        (0.2, None),
        (0.9, "held out {} of the 5 ratings wanted: every user and item keeps a rating"),
    ):
        split = split_ratings(pairs, share=share)
        assert shortfall(split, share) == (told and told.format(len(split.validation)))
    lonely = ratings(list(range(20)), list(range(20)))
    one_user = ratings([7] * 20, list(range(20)))
    for nothing in (lonely, one_user):
        told = "held out 0 of the 2 ratings wanted: every user and item keeps a rating"
        assert shortfall(split_ratings(nothing), 0.1) == told


def test_folds() -> None:
    given_ratings = many(1003)
    made = list(folds(given_ratings, 5, seed=2))
    assert sorted(len(split.validation) for split in made) == [200, 200, 201, 201, 201]
    assert np.array_equal(np.sort(np.concatenate([split.validation for split in made])), np.arange(1003))
    for split in made:
        assert np.array_equal(np.sort(np.concatenate([split.train, split.validation])), np.arange(1003))
    again = next(folds(given_ratings, 5, seed=2))
    assert np.array_equal(again.validation, made[0].validation)


def test_bad_arguments() -> None:
    untimed = ratings([1, 2], [1, 2])
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InvalidParameter, match="not in"):
            split_ratings(untimed, share=share)
    with pytest.raises(InvalidParameter, match="without times"):
        split_ratings(untimed, by="time")
    with pytest.raises(InvalidParameter, match='unrecognized split "user"'):
        split_ratings(untimed, by="user")  # type: ignore[arg-type]
    for count in (1, 3):
        with pytest.raises(InvalidParameter, match="2 ratings cannot be split"):
            folds(untimed, count)
