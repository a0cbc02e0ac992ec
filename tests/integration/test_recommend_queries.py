"""Ratings out of queries: types of PostgreSQL, AI SQL, both kinds of connections, errors that leave the connection usable."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pythiadb
from pythiadb.errors import InvalidParameter, InvalidRatings
from pythiadb.recommend.ratings import Ratings, read_ratings


def read(db: psycopg.Connection[Any], query: str, **options: Any) -> Ratings:
    return read_ratings(query, query_connection=db, **options)


@pytest.fixture
def rated(db: pythiadb.Connection) -> pythiadb.Connection:
    """A connection with a table of ratings whose ids are of several types."""
    db.execute("""
        CREATE TABLE rated (user_id int, movie_id bigint, account uuid, title text, number numeric, rating real, at timestamptz);
        INSERT INTO rated VALUES
          (7, 1, '0A000000-0000-0000-0000-000000000007', 'A, "quoted"', 7.0, 4.5, '1970-01-01 00:00:01.9+00'),
          (3, 2, '0a000000-0000-0000-0000-000000000003', E'two\\nlines', 3, 3, '1969-12-31 23:59:59+00'),
          (3, 1, '0a000000-0000-0000-0000-000000000003', 'NULL', 3, 1, '1970-01-02 00:00:00+00')""")
    return db


def test_types(rated: pythiadb.Connection) -> None:
    ratings = read(rated, "SELECT user_id, movie_id, rating, at AS time FROM rated;")
    assert ratings.user_ids.to_pylist() == [3, 7]
    assert ratings.users.tolist() == [1, 0, 0]
    assert ratings.items.tolist() == [0, 1, 0]
    assert ratings.values.tolist() == [4.5, 3.0, 1.0]
    assert ratings.times is not None
    assert ratings.times.tolist() == [1, -1, 86400]
    ratings = read(
        rated,
        "SELECT account, title, rating::numeric FROM rated",
        columns={"user": "account", "item": "title"},
    )
    assert ratings.user_ids.to_pylist() == [f"0a000000-0000-0000-0000-00000000000{i}" for i in (3, 7)]
    assert ratings.item_ids.to_pylist() == ['A, "quoted"', "NULL", "two\nlines"]
    ratings = read(rated, "SELECT number AS user, movie_id, 5 AS rating, at::date AS time FROM rated")
    assert ratings.user_ids.to_pylist() == [3, 7]
    assert ratings.times is not None
    assert ratings.times.tolist() == [0, -86400, 86400]
    ratings = read(rated, "SELECT user_id, movie_id, rating, extract(epoch FROM at) AS time FROM rated")
    assert ratings.times is not None
    assert ratings.times.tolist() == [1, -1, 86400]


def test_any_query(rated: pythiadb.Connection, shop: Any) -> None:
    query = """
        WITH few AS (SELECT user_id, movie_id AS "Item", rating FROM rated WHERE title LIKE '%' AND 10 % 3 = 1)
        SELECT * FROM few ORDER BY rating FETCH FIRST 2 ROWS ONLY -- the lowest"""
    assert read(rated, query).values.tolist() == [1.0, 3.0]
    near = (
        "SELECT user_id, movie_id, round(VECTOR_DISTANCE('[1,0]'::vector, '[0,1]'::vector, COSINE)::numeric, 2) AS rating "
        "FROM rated WHERE user_id = 7"
    )
    assert read(rated, near).values.tolist() == [1.0]
    schema = rated.execute("SELECT current_schema()").fetchone()
    assert schema is not None
    with pythiadb.connect(shop, dialect="oracle") as oracle:
        oracle.execute(f"SET search_path = {schema[0]}, public, pythia".encode())
        ratings = read(
            oracle, "SELECT user_id, movie_id, NVL(rating, 0) AS rating FROM rated WHERE ROWNUM <= 3"
        )
        assert len(ratings) == 3
    with psycopg.connect(rated.info.dsn) as plain:
        plain.execute(f"SET search_path = {schema[0]}".encode())
        assert len(read(plain, "TABLE rated", columns={"timestamp": "at"})) == 3
        assert len(read(plain, "SELECT user_id, movie_id, rating FROM rated")) == 3


def test_many_rows_within_a_transaction(rated: pythiadb.Connection) -> None:
    with rated.transaction():
        rated.execute(
            "CREATE TABLE many AS SELECT u, i, u % 5 + 0.5 AS r FROM generate_series(1, 500) u, generate_series(1, 900) i"
        )
        ratings = read(rated, "TABLE many", columns={"user": "u", "item": "i", "rating": "r"})
    assert (len(ratings), len(ratings.user_ids), len(ratings.item_ids)) == (450_000, 500, 900)
    assert (ratings.values == (ratings.users + 1) % 5 + 0.5).all()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT user_id, movie_id FROM rated", "the query has no column rating or value or score"),
        ("SELECT user_id, movie_id, rating FROM rated WHERE false", "the query has no ratings"),
        ("SELECT user_id, movie_id, title AS rating FROM rated", "column rating of the query is of a type that ratings cannot have"),
        ("SELECT at AS user, movie_id, rating FROM rated", "column user of the query is of a type that ids cannot have"),
        ("SELECT user_id, movie_id, rating, title AS time FROM rated", "column time of the query is of a type that times cannot have"),
        ("SELECT user_id, movie_id, nullif(rating, 3) AS rating FROM rated", "column rating has no value in row 2 of the query"),
        ("SELECT user_id, movie_id, rating / 0::float8 AS rating FROM rated", "division by zero"),
        ("SELECT user_id, movie_id, 'NaN'::float8 AS rating FROM rated", "column rating has no value in row 1 of the query"),
        ("SELECT user_id, movie_id, '-Infinity'::real AS rating FROM rated", "column rating has -inf in row 1 of the query"),
        ("SELECT nullif(user_id, 3) AS user, movie_id, rating FROM rated", "column user has no value in row 2 of the query"),
        ("SELECT nullif(title, 'NULL') AS user, movie_id, rating FROM rated", "column user has no value in row 3 of the query"),
        ("SELECT number + 0.5 AS user, movie_id, rating FROM rated", "column user of the query has a value that is no integer of 64 bits"),
        ("SELECT user_id + 0.12345678901 AS user, movie_id, rating FROM rated", "the query has an id that is no integer of 64 bits"),
        ("SELECT user_id, movie_id, rating FROM nowhere", 'relation "nowhere" does not exist'),
        ("DELETE FROM rated", "syntax error"),
    ],
)  # fmt: skip
def test_bad_input(rated: pythiadb.Connection, query: str, message: str) -> None:
    with pytest.raises(pythiadb.DatabaseError) as caught:
        read(rated, query)
    assert str(caught.value).startswith(message)
    assert len(read(rated, "SELECT user_id, movie_id, rating FROM rated")) == 3


def test_an_error_in_the_middle_ends_the_transfer(rated: pythiadb.Connection) -> None:
    query = "SELECT i AS user, i AS item, CASE WHEN i < 5 THEN NULL ELSE 1 END AS rating FROM generate_series(1, 500000) i"
    with pytest.raises(InvalidRatings, match="column rating has no value in row 1 of the query"):
        read(rated, query)
    assert len(read(rated, "SELECT user_id, movie_id, rating FROM rated")) == 3


def test_a_connection_without_a_query(db: pythiadb.Connection) -> None:
    with pytest.raises(InvalidParameter, match="a query is text, not int"):
        read_ratings(7, query_connection=db)
