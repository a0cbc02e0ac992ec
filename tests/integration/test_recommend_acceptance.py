"""The statements about a recommender's vectors, as they stand in Oracle's dialect; and the one command beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recommenders import MOVIES, make_movies, recommender

import pythiadb
from pythiadb.recommend import deploy
from pythiadb.sql import split_statements

ADD, UPDATE, LISTS = split_statements(
    (Path(__file__).parent / "acceptance_recommender.sql").read_text(), dialect="oracle"
)
SOURCES = ("Apocalypse Now (1979)", "Fargo (1996)", "Toy Story (1995)")


def expected() -> list[tuple[str, str, float]]:
    """The five nearest movies of each source by numpy."""
    vectors = recommender(dimensions=64).factors.item_vectors.astype(float)
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    titles = [movie[0] for movie in MOVIES]
    found = []
    for source in SOURCES:
        distances = 1 - vectors @ vectors[titles.index(source)]
        near = [n for n in np.argsort(distances) if titles[n] != source][:5]
        found += [(source, titles[n], distances[n]) for n in near]
    return found


def check(rows: list[tuple[str, str, float]]) -> None:
    assert [row[:2] for row in rows] == [row[:2] for row in expected()]
    np.testing.assert_allclose([row[2] for row in rows], [row[2] for row in expected()], atol=1e-6)


def test_statements_run_as_they_stand(oracle: pythiadb.Connection) -> None:
    """Vectors go in by executemany, matched by id."""
    make_movies(oracle, key="NUMBER")
    trained = recommender(dimensions=64)
    oracle.execute(ADD)
    with oracle.cursor() as cursor:
        vectors = zip(trained.factors.item_vectors, trained.item_ids.to_pylist(), strict=True)
        cursor.executemany(UPDATE, list(vectors))
    check(oracle.execute(LISTS).fetchall())


@pytest.mark.parametrize("added", [True, False])
def test_one_command_does_the_same(oracle: pythiadb.Connection, added: bool) -> None:
    """Whether the column is there already or not."""
    make_movies(oracle, key="NUMBER")
    if added:
        oracle.execute(ADD)
    assert deploy(oracle, recommender(dimensions=64), table="movies").updated == len(MOVIES)
    check(oracle.execute(LISTS).fetchall())


def test_the_query_runs_in_postgres_own_dialect_too(db: pythiadb.Connection) -> None:
    make_movies(db)
    deploy(db, recommender(dimensions=64), table="movies")
    check(db.execute(LISTS).fetchall())
    assert db.execute("EXPLAIN " + LISTS).fetchall()


def test_the_model_and_the_maps_answer_in_oracles_dialect(oracle: pythiadb.Connection) -> None:
    trained = recommender()
    deploy(oracle, trained, "cf_recommender")
    first = oracle.execute(
        'SELECT PREDICTION(cf_recommender USING 0 AS "USER_IDX", 0 AS "MOVIE_IDX") AS predicted_rating FROM dual'
    ).fetchone()
    assert first == (pytest.approx(float(trained.factors.predict(np.array([0]), np.array([0]))[0])),)
    rows = oracle.execute(
        'SELECT u.id, i.id, PREDICTION(cf_recommender USING NVL(u.idx, -1) AS "USER_IDX", i.idx AS "MOVIE_IDX") AS rating '
        "FROM cf_recommender_users u CROSS JOIN cf_recommender_items i ORDER BY u.id, i.id"
    ).fetchall()
    u, i = np.indices((trained.factors.users, trained.factors.items)).reshape(2, -1)
    np.testing.assert_allclose([row[2] for row in rows], trained.factors.predict(u, i), atol=1e-5)
