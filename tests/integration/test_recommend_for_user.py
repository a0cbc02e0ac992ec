"""Lists for users: trained, folded in and unknown ones, without what was seen, with filters, by vectors and by the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from recommenders import MOVIES, make_movies, predicted, recommender

import pythiadb
from pythiadb.errors import InvalidParameter
from pythiadb.recommend import Ratings, Settings, deploy, fold_in, for_user, recommending, train
from pythiadb.recommend.baselines import item_mean
from pythiadb.recommend.metrics import rmse
from pythiadb.recommend.split import split_ratings
from tests.integration.vector_tables import one, rows
from tests.unit.recommend.low_rank import low_rank

SEEN = [(101, 2, 4.0), (101, 5, 1.0), (102, 1, 3.0), (7, 9, 5.0)]


@pytest.fixture
def taste(db: pythiadb.Connection) -> pythiadb.Connection:
    """A recommender with its movies and a table of ratings."""
    make_movies(db)
    deploy(db, recommender(), "taste", table="movies")
    db.execute("CREATE TABLE ratings (userId bigint, movieId integer, rating real)")
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO ratings VALUES (:1, :2, :3)", SEEN)
    return db


def best(scores: Any, without: set[int] = frozenset(), only: Any = None) -> list[int]:  # type: ignore[assignment]
    """Return the ids of items in the order of their scores."""
    order = [int(n) + 1 for n in np.argsort(-np.asarray(scores), kind="stable")]
    return [n for n in order if n not in without and (only is None or only(*MOVIES[n - 1]))]


def ids(found: list[recommending.Recommendation]) -> list[Any]:
    return [row.id for row in found]


# Lists ---------------------------------------------------------------------------------------------------------------------


def test_the_list_of_a_trained_user(taste: pythiadb.Connection) -> None:
    trained = recommender()
    for place, user in enumerate(range(101, 107)):
        found = for_user(taste, "taste", user, count=99)
        scores = predicted(trained)[place]
        assert ids(found) == best(scores)
        np.testing.assert_allclose(
            [row.rating for row in found], np.clip(scores, 1, 5)[np.array(ids(found)) - 1], atol=1e-5
        )
    assert len(for_user(taste, "taste", 101)) == 10
    assert len(for_user(taste, "taste", 101, count=3)) == 3


def test_an_unknown_user_gets_what_is_liked_in_general(taste: pythiadb.Connection) -> None:
    factors = recommender().factors
    found = for_user(taste, "taste", 999, count=99)
    assert ids(found) == best(factors.item_bias)
    expected = factors.predict(np.full(len(MOVIES), -1), np.array(ids(found)) - 1)
    np.testing.assert_allclose([row.rating for row in found], expected, atol=1e-5)


def test_what_was_seen_is_left_out(taste: pythiadb.Connection) -> None:
    scores = predicted(recommender())[0]
    assert ids(for_user(taste, "taste", 101, seen="ratings", count=99)) == best(scores, {2, 5})
    assert ids(for_user(taste, "taste", 101, seen="ratings", exclude=[1, 2, 3], count=99)) == best(
        scores, {1, 2, 3, 5}
    )
    taste.execute('ALTER TABLE ratings RENAME userid TO "Who\'s"')
    taste.execute("ALTER TABLE ratings RENAME movieid TO what")
    with pytest.raises(InvalidParameter, match="has no column that is known to hold users"):
        for_user(taste, "taste", 101, seen="ratings")
    named = {"user": '"Who\'s"', "item": "what"}
    assert ids(for_user(taste, "taste", 101, seen="ratings", seen_columns=named, count=99)) == best(
        scores, {2, 5}
    )


def test_filters_by_genre_and_year(taste: pythiadb.Connection) -> None:
    scores = predicted(recommender())[1]
    found = for_user(
        taste, "taste", 102, table="movies", columns=["title", "YEAR"], seen="ratings",
        where="item.genres LIKE '%Comedy%' AND item.year BETWEEN :low AND :high -- of the nineties",
        params={"low": 1990, "high": 1999},
    )  # fmt: skip
    assert ids(found) == best(
        scores, {1}, lambda _, year, genres: "Comedy" in genres and 1990 <= year <= 1999
    )
    assert [row.values for row in found] == [
        {"title": MOVIES[n - 1][0], "year": MOVIES[n - 1][1]} for n in ids(found)
    ]
    either = for_user(
        taste, "taste", 102, table="movies", where="item.year < 1950 OR item.year = 1985", count=99
    )
    assert ids(either) == best(scores, only=lambda _, year, __: year in (1942, 1985))


def test_a_filter_may_use_the_models_of_the_database(taste: pythiadb.Connection) -> None:
    near = (
        "VECTOR_DISTANCE(item.cf_embedding, (SELECT embedding FROM taste_items WHERE id = 2), COSINE) < 0.7"
    )
    found = for_user(taste, "taste", 103, table="movies", where=near, count=99)
    vectors = recommender().factors.item_vectors.astype(float)
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    assert sorted(ids(found)) == [n + 1 for n in range(len(MOVIES)) if 1 - vectors[n] @ vectors[1] < 0.7]


def test_only_items_of_the_table_are_listed(taste: pythiadb.Connection) -> None:
    taste.execute("DELETE FROM movies WHERE movieid > 4")
    assert sorted(ids(for_user(taste, "taste", 101, table="movies"))) == [1, 2, 3, 4]


def test_the_statements_of_the_documentation_find_the_same(taste: pythiadb.Connection) -> None:
    assert recommending.__doc__ is not None
    blocks = [block for block in recommending.__doc__.split("\n\n") if block.startswith("    SELECT")]
    joined, by_number = (block.replace("cf_recommender", "taste") for block in blocks)
    comedies = "item.genres LIKE '%Comedy%' AND item.year BETWEEN 1990 AND 1999"
    found = for_user(taste, "taste", 101, table="movies", columns=["title"], seen="ratings", where=comedies)
    listed = taste.execute(joined, {"user": 101}).fetchall()
    assert [row[1] for row in listed] == pytest.approx([row.rating for row in found], abs=1e-5)
    assert {row[0] for row in listed} == {row.values["title"] for row in found}
    general = for_user(taste, "taste", 999, table="movies", columns=["title"], where=comedies)
    assert taste.execute(joined, {"user": 999}).fetchall()[0][0] == general[0].values["title"]
    listed = taste.execute(by_number.replace("USING 17", "USING 2")).fetchall()
    assert [row[1] for row in listed] == pytest.approx(
        [row.rating for row in for_user(taste, "taste", 103)], abs=1e-5
    )


def test_what_is_refused(taste: pythiadb.Connection) -> None:
    for arguments, message in (
        ({"count": 0}, "count must be at least 1"),
        ({"where": "true"}, "need the table of the items"),
        ({"columns": ["title"]}, "need the table of the items"),
        ({"table": "movies", "columns": ["nosuch"]}, 'table "movies" has no column "nosuch"'),
        ({"seen": "ratings", "seen_columns": {"who": "x"}}, 'unrecognized kind of column "who"'),
        ({"seen": "ratings", "seen_columns": {"user": "x"}}, 'table "ratings" has no column "x"'),
        ({"params": {"recommend_user": 1}}, 'a bind cannot be called "recommend_user"'),
        ({"exclude": "12"}, "exclude is a list, not the text '12'"),
        ({"table": "movies", "columns": "title"}, "columns is a list, not the text 'title'"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            for_user(taste, "taste", 101, **arguments)  # type: ignore[arg-type]
    for error, arguments in (
        (psycopg.errors.UndefinedTable, {"seen": "nosuch"}),
        (psycopg.errors.UndefinedColumn, {"table": "movies", "where": "item.nosuch = 1"}),
        (psycopg.errors.SyntaxError, {"table": "movies", "where": "item.year >"}),
    ):
        with pytest.raises(error):
            for_user(taste, "taste", 101, **arguments)  # type: ignore[arg-type]
    with pytest.raises(psycopg.errors.UndefinedObject, match='model "nosuch" does not exist'):
        for_user(taste, "nosuch", 101)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        for_user(taste, "taste", "ann")


def test_no_id_is_no_user(db: pythiadb.Connection) -> None:
    """Not even the one whose id is the text None."""
    deploy(db, recommender(user_ids=["None", "ann"]), "taste")
    assert len(for_user(db, "taste", "None")) == 10
    with pytest.raises(InvalidParameter, match="a user's id cannot be None"):
        for_user(db, "taste", None)


def test_who_is_known(taste: pythiadb.Connection) -> None:
    fold_in(taste, "taste", 7, {1: 5.0})
    assert [recommending.knows(taste, "taste", user) for user in (101, "101", 7, 8)] == [
        True,
        True,
        True,
        False,
    ]


# Users who came later ------------------------------------------------------------------------------------------------------


def test_a_new_user_is_served_like_the_others(taste: pythiadb.Connection) -> None:
    first = fold_in(taste, "taste", 7, {9: 5.0, 4: 1, 999: 3.0, 3: np.float32(2)})
    assert (first.used, first.ignored) == (3, (999,))
    row = rows(taste, "SELECT idx, bias, embedding FROM taste_users WHERE id = 7")[0]
    assert row[0] is None
    factors = recommender().factors
    scores = factors.mean + row[1] + factors.item_bias + factors.item_vectors @ row[2]
    found = for_user(taste, "taste", 7, seen="ratings", count=99)
    assert ids(found) == best(scores, {9})
    second = fold_in(taste, "taste", 7, {9: 1.0, 4: 5.0})
    assert second.used == 2
    assert one(taste, "SELECT bias FROM taste_users WHERE id = 7") == pytest.approx(second.bias)
    assert one(taste, "SELECT count(*) FROM taste_users") == 7
    weak, strong = (fold_in(taste, "taste", 7, {9: 5.0, 4: 5.0}, regularization=r).bias for r in (0.01, 10.0))
    assert abs(strong) < abs(weak)


def test_ratings_that_say_nothing_are_refused(taste: pythiadb.Connection) -> None:
    before = rows(taste, "SELECT id, bias FROM taste_users ORDER BY id")
    for user, ratings, message in (
        (7, {}, "without ratings"),
        (7, {999: 5.0}, "none of the 1 rated items is known"),
        (7, {1: 5.5}, "rating 5.5 of item 1 is none of the recommender's"),
        (7, {1: float("nan")}, "rating nan of item 1"),
        (7, {1: None}, "rating None of item 1"),
        (7, {1: "good"}, "rating 'good' of item 1"),
        (101, {1: 5.0}, "user 101 is one of the training"),
        (None, {1: 5.0}, "cannot be None"),
        (7, {1: 5.0, "1": 1.0}, "item 1 is rated twice"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            fold_in(taste, "taste", user, ratings)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="regularization must be 0 or more"):
        fold_in(taste, "taste", 7, {1: 5.0}, regularization=-1)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        fold_in(taste, "taste", 7, {"film": 5.0})
    assert rows(taste, "SELECT id, bias FROM taste_users ORDER BY id") == before


def without_users(ratings: Ratings, first: int) -> Ratings:
    """Return the ratings of users before `first`, as if there were no others."""
    kept = ratings.users < first
    return Ratings(
        ratings.users[kept],
        ratings.items[kept],
        ratings.values[kept],
        None,
        ratings.user_ids[:first],
        ratings.item_ids,
    )


def test_folded_in_users_are_predicted_about_as_well_as_trained_ones(db: pythiadb.Connection) -> None:
    """Fifty users whom the training has not seen, from nine tenths of their ratings, which the database holds."""
    ratings = low_rank()
    old, split = without_users(ratings, 250), split_ratings(ratings)
    trained = train(old, Settings(dimensions=4, threads=1), split=split_ratings(old))
    deploy(db, trained, "taste")
    factors, films = trained.factors, ratings.item_ids.to_pylist()
    new_training = split.train[ratings.users[split.train] >= 250]
    for user in range(250, 300):
        his = new_training[ratings.users[new_training] == user]
        given = {films[i]: float(np.clip(v, factors.lowest, factors.highest))
                 for i, v in zip(ratings.items[his], ratings.values[his], strict=True)}  # fmt: skip
        fold_in(db, "taste", user + 1, given)
    held_out = split.validation[ratings.users[split.validation] >= 250]
    errors = []
    for place in held_out:
        row = for_user(db, "taste", int(ratings.users[place]) + 1, count=len(films))
        rating = {r.id: r.rating for r in row}[films[ratings.items[place]]]
        errors.append(rating - float(ratings.values[place]))
    folded = float(np.sqrt(np.mean(np.square(errors))))
    by_mean = rmse(item_mean(ratings, split.train), ratings, held_out)
    of_trained = rmse(factors, old, split_ratings(old).validation)
    assert folded < 1.15 * of_trained
    assert folded < 0.7 * by_mean
