"""Attributes that are parameters or subqueries, or come from several tables: by arrays of numbers, and as bare calls answer."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
from scoring_tables import CLOSE, FAST, FIELDS
from shop_models import TASTE, recommender

import pythiadb

METADATA = '{"function": "regression", "input": {"user_input": ["USER_IDX"], "movie_input": ["MOVIE_IDX"]}}'


@pytest.fixture
def shop_db(sdb: pythiadb.Connection) -> pythiadb.Connection:
    """Two tables of numbers that share some ids, with NULLs and what a matrix cannot hold; and a recommender with its users."""
    sdb.execute("CALL dbms_vector.load_onnx_model('taste', :graph, :metadata)", (recommender(), METADATA))
    sdb.execute(f"CREATE TABLE t (id int, {FIELDS})".encode())
    sdb.execute(f"CREATE TABLE u (id int, {FIELDS})".encode())
    sdb.execute("INSERT INTO t SELECT n, 18 + n % 60, n % 29, n / 2.0, n / 8.0 FROM generate_series(1, 40) n")
    sdb.execute("INSERT INTO u SELECT n, 70 - n, n % 5, n * 1.5, n - 30 FROM generate_series(21, 60) n")
    sdb.execute(
        "INSERT INTO u VALUES (1, NULL, 3, 4.5, 1), (2, 5, 9007199254740993, 'NaN', NULL), (3, NULL, NULL, NULL, NULL), "
        "(3, 3, 3, 3, 'Infinity')"
    )
    sdb.execute("CREATE TABLE users (id int PRIMARY KEY, idx int, name text)")
    sdb.execute("CREATE TABLE items (id int PRIMARY KEY, idx smallint, title text)")
    sdb.execute("INSERT INTO users VALUES (1, 0, 'ana'), (2, 8, 'ben'), (3, NULL, 'eve')")
    sdb.execute("INSERT INTO items SELECT n, n - 1, 'item ' || n FROM generate_series(1, 11) n")
    sdb.execute("INSERT INTO items VALUES (12, NULL, 'unknown')")
    return sdb


def check(
    db: pythiadb.Connection, statement: str, bare: str, params: Any = None, *, fast: bool = True
) -> list[tuple[Any, ...]]:
    """Assert that a statement takes the way of arrays, or not, and gives the rows of one without AI SQL."""
    how = db.translate(statement, with_parameters=params is not None).batched[0]
    assert (FAST in how) == fast, how
    found = sorted(db.execute(statement.encode(), params).fetchall(), key=str)
    wanted = sorted(db.execute(bare.encode(), params).fetchall(), key=str)
    assert len(found) == len(wanted)
    for one, two in zip(found, wanted, strict=True):
        assert one[:-1] == two[:-1]
        assert one[-1] == two[-1] or one[-1] == pytest.approx(two[-1], rel=CLOSE, nan_ok=True)
    return found


# Parameters ---------------------------------------------------------------------------------------------------------------

SPEND = "SELECT id, PREDICTION(spend USING age, visits, {} AS spent, days) FROM {}"
SPEND_BARE = (
    "SELECT id, pythia.prediction('spend', jsonb_build_object('AGE', age, 'VISITS', visits, 'SPENT', {}, 'DAYS', days)) "
    "FROM {}"
)
VALUES = [12, 12.25, Decimal("0.1"), None, "12", " 3 ", "-1e1", 1e-7, 2**60, float("nan"), float("inf")]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("rows", ["u", "u WHERE id > 1"])
def test_a_parameter(shop_db: pythiadb.Connection, value: Any, rows: str) -> None:
    """Numbers, texts of numbers and NULL, in every style of parameters."""
    check(shop_db, SPEND.format("%s", rows), SPEND_BARE.format("%s::text", rows), (value,))
    check(shop_db, SPEND.format(":v", rows), SPEND_BARE.format("%(v)s::text", rows), {"v": value})
    check(shop_db, SPEND.format("%(v)s", rows), SPEND_BARE.format("%(v)s::text", rows), {"v": value})
    number = SPEND.format("coalesce(%s::numeric, -1)", rows)
    check(shop_db, number, SPEND_BARE.format("coalesce(%s::numeric, -1)", rows), (value,))


RATING = 'SELECT id, PREDICTION(taste USING {} AS "USER_IDX", {}idx AS "MOVIE_IDX") AS rating FROM items {}'
RATING_BARE = "SELECT id, pythia.prediction('taste', jsonb_build_object('USER_IDX', {}, 'MOVIE_IDX', {}idx)) FROM items {}"


@pytest.mark.parametrize("value", [5, 5.4, 5.5, Decimal("4.50"), "7", "7.0", -1, None])
def test_a_parameter_of_a_whole_number(shop_db: pythiadb.Connection, value: Any) -> None:
    """Fractions are rounded as those of a single call; NULL has no answer."""
    rows = check(shop_db, RATING.format("%s", "", ""), RATING_BARE.format("%s::text", "", ""), (value,))
    assert sum(row[1] is None for row in rows) == (12 if value is None else 1)
    if value == 5:
        expected = TASTE.predict(np.full(11, 5), np.arange(11))
        np.testing.assert_allclose([row[1] for row in sorted(rows)[:11]], expected, rtol=1e-5)


@pytest.mark.parametrize("value", ["abc", "", "0x10", True, "NaN", datetime.date(2026, 1, 1), 99, 2**70])
def test_a_parameter_that_the_model_does_not_take(shop_db: pythiadb.Connection, value: Any) -> None:
    """The error is that of a single call, and there is none where there are no rows."""
    errors = []
    for statement in (RATING.format("%s", "", ""), RATING_BARE.format("%s::text", "", "")):
        with pytest.raises(psycopg.Error) as caught:
            shop_db.execute(statement.encode(), (value,))
        errors.append((caught.value.sqlstate, str(caught.value).splitlines()[0]))
    if value != 99:  # what the graph itself says names its batch
        assert errors[0] == errors[1]
    assert shop_db.execute(RATING.format("%s", "", "WHERE id > 99").encode(), (value,)).fetchall() == []


def test_one_translation_for_values_of_all_types(shop_db: pythiadb.Connection) -> None:
    """psycopg and PostgreSQL keep statements that come often; a text after many numbers is read all the same."""
    expected = {u: TASTE.predict(np.full(11, u), np.arange(11)) for u in range(9)}
    statement = RATING.format("%s", "", "ORDER BY id")
    for value in [0, 1, 2, 3, 4, 5, 6, 7, "8", 7.0, Decimal(6), "5", 4, None, 3]:
        rows = shop_db.execute(statement.encode(), (value,)).fetchall()
        if value is not None:
            np.testing.assert_allclose([row[1] for row in rows[:11]], expected[int(value)], rtol=1e-5)
        assert rows[11] == (12, None)
    shop_db.execute("CREATE TABLE kept (u int, i int, rating float8)")
    with shop_db.cursor() as cursor:
        cursor.executemany(
            'INSERT INTO kept SELECT :u::int, id, PREDICTION(taste USING :u::int AS "USER_IDX", idx AS "MOVIE_IDX") FROM items',
            [{"u": u} for u in (1, 8, None)],
        )
        cursor.executemany(
            'INSERT INTO kept SELECT 100, id, PREDICTION(taste USING %s AS "USER_IDX", idx AS "MOVIE_IDX") FROM items',
            [(2,), ("3",)],
        )
    rows = shop_db.execute("SELECT u, count(*), sum(rating) FROM kept GROUP BY u ORDER BY u").fetchall()
    assert [row[:2] for row in rows] == [(1, 12), (8, 12), (100, 24), (None, 12)]
    sums = [expected[1].sum(), expected[8].sum(), expected[2].sum() + expected[3].sum()]
    np.testing.assert_allclose([row[2] for row in rows[:3]], sums, rtol=1e-5)
    assert rows[3][2] is None
    for head in ("PREPARE q", "PREPARE r (int)"):
        shop_db.execute(f"{head} AS {RATING.format('$1', '', 'ORDER BY id')}".encode())
        rows = shop_db.execute(f"EXECUTE {head.split()[1]}(4)".encode()).fetchall()
        np.testing.assert_allclose([row[1] for row in rows[:11]], expected[4], rtol=1e-5)


def test_parameters_alone(shop_db: pythiadb.Connection) -> None:
    """What no row changes is computed once, or from one input."""
    row = shop_db.execute(
        'SELECT PREDICTION(taste USING %s AS "USER_IDX", 3 AS "MOVIE_IDX") FROM items', (2,)
    )
    expected = TASTE.predict(np.array([2]), np.array([3]))[0]
    assert [value for (value,) in row.fetchall()] == [pytest.approx(expected, rel=1e-5)] * 12


# Subqueries ---------------------------------------------------------------------------------------------------------------

SUBQUERIES = {
    "(SELECT u.idx FROM users u WHERE u.name = 'ben')": True,
    "(SELECT u.idx FROM users u WHERE u.name = 'nobody')": True,
    "coalesce((SELECT idx FROM users WHERE name = 'eve'), -1)": True,
    "(SELECT idx FROM users ORDER BY id LIMIT 1)": True,
    "(SELECT u.idx FROM users u WHERE u.id IN (SELECT id FROM users WHERE name = 'ana'))": True,
    "(SELECT u.idx FROM users u WHERE lower(u.name) = 'ben')": False,
    "(SELECT u.idx FROM users u WHERE u.id = items.id)": False,
    "(SELECT u.idx FROM users u WHERE u.id = 1 + items.id % 3)": False,
}


@pytest.mark.parametrize("subquery", SUBQUERIES)
@pytest.mark.parametrize("rows", ["", "WHERE items.id < 9 ORDER BY 2 DESC"])
def test_a_subquery(shop_db: pythiadb.Connection, subquery: str, rows: str) -> None:
    """One that names the row is part of the row's input; any other travels once."""
    statement = RATING.format(subquery, "items.", rows)
    check(shop_db, statement, RATING_BARE.format(subquery, "items.", rows), fast=SUBQUERIES[subquery])
    assert "row by row" not in shop_db.translate(statement).batched[0]


def test_a_subquery_of_several_rows(shop_db: pythiadb.Connection) -> None:
    for statement in (RATING, RATING_BARE):
        with pytest.raises(psycopg.errors.CardinalityViolation):
            shop_db.execute(statement.format("(SELECT idx FROM users)", "", "").encode())


# Several tables -----------------------------------------------------------------------------------------------------------

JOINS = [
    "t, u WHERE t.id = u.id",
    "t JOIN u USING (id)",
    "t NATURAL JOIN u JOIN users ON true",
    "t LEFT JOIN u ON t.id = u.id",
    "t RIGHT JOIN u ON t.id = u.id",
    "t FULL JOIN u ON t.id = u.id",
    "t CROSS JOIN u WHERE t.id + u.id < 40 AND t.id > 3",
    "(t JOIN u ON t.id = u.id) JOIN users x ON x.id = t.id",
    "t JOIN u ON t.id = u.id, LATERAL (SELECT t.id AS same) s",
    "t JOIN u ON t.id = u.id JOIN (SELECT id AS other FROM users) s ON s.other < t.id",
    "u AS t, u WHERE t.id < u.id AND u.id < 30",
    "t, u WHERE t.id = u.id AND EXISTS (SELECT FROM users x WHERE x.id = u.id)",
]


@pytest.mark.parametrize("tables", JOINS)
def test_joined_tables(shop_db: pythiadb.Connection, tables: str) -> None:
    """NULL, NaN and integers beyond 53 bits among the numbers; rows that an outer join leaves out; equal rows."""
    bare = "SELECT t.id, u.id, pythia.prediction('spend', jsonb_build_object({})) FROM " + tables
    for values in (
        ("t.age", "u.visits", "t.spent + u.spent", "u.days"),
        ("coalesce(u.age, t.age, -1)", "u.visits", "7", "t.days * 2"),
        ("u.age", "t.age", "u.age - t.age", "3"),
    ):
        named = dict(zip(("AGE", "VISITS", "SPENT", "DAYS"), values, strict=True))
        using = ", ".join(f'{value} AS "{name}"' for name, value in named.items())
        pairs = ", ".join(f"'{name}', {value}" for name, value in named.items())
        check(
            shop_db, f"SELECT t.id, u.id, PREDICTION(spend USING {using}) FROM {tables}", bare.format(pairs)
        )


@pytest.mark.parametrize("kind", ["int", "smallint", "bigint", "real", "double precision", "numeric"])
def test_whole_numbers_of_joined_tables(shop_db: pythiadb.Connection, kind: str) -> None:
    """A tensor of whole numbers gets each as it is."""
    given = [0, 7, -3, 30_000] + [2**24 + 1, 2**31 - 1] * (kind not in ("smallint", "real"))
    given += [2**53 + 1, -(2**62) - 5] * (kind in ("bigint", "numeric"))
    shop_db.execute(
        f"CREATE TABLE a (n {kind}); CREATE TABLE b (k int); INSERT INTO b VALUES (0), (1)".encode()
    )
    with shop_db.cursor() as cursor:
        cursor.executemany(f"INSERT INTO a VALUES (%s::{kind})", [(n,) for n in [*given, *given, None]])
    rows = check(
        shop_db,
        "SELECT a.n, k, PREDICTION(sevens USING a.n) FROM a, b",
        "SELECT a.n, k, pythia.prediction('sevens', jsonb_build_object('N', a.n)) FROM a, b",
    )
    assert {(row[0], row[2]) for row in rows} == {(None, None), *((n, float(n % 7)) for n in given)}


STARS = {
    "t JOIN u USING (id)": True,
    "t, u WHERE t.id = u.id": True,
    "t LEFT JOIN u ON t.id = u.id": True,
    "u LEFT JOIN t ON t.id = u.id": False,
    "t FULL JOIN u ON t.id = u.id": False,
    "t JOIN (SELECT id FROM u) u ON t.id = u.id": True,
    "u JOIN (SELECT * FROM t) t ON t.id = u.id": False,
}


@pytest.mark.parametrize("tables", STARS)
def test_a_star_of_one_of_them(shop_db: pythiadb.Connection, tables: str) -> None:
    """A row that an outer join leaves out is NULL as a whole and has no answer, other than one of NULLs."""
    check(
        shop_db,
        f"SELECT t.id, u.id, PREDICTION(spend USING t.*) FROM {tables}",
        f"SELECT t.id, u.id, pythia.prediction('spend', to_jsonb(t.*)) FROM {tables}",
        fast=STARS[tables],
    )


def test_names_without_a_table(shop_db: pythiadb.Connection) -> None:
    """A bare name is known where one table has it and nothing else is read."""
    bare = "SELECT items.id, pythia.prediction('taste', jsonb_build_object('USER_IDX', age, 'MOVIE_IDX', idx)) FROM "
    call = 'SELECT items.id, PREDICTION(taste USING age AS "USER_IDX", idx AS "MOVIE_IDX") FROM '
    for tables, fast in (
        ("items JOIN (SELECT id, 5 AS age FROM t) s USING (id)", False),
        ("items JOIN (SELECT id, age % 9 AS age FROM t) s ON s.id = items.id", False),
        ("items JOIN small ON small.key = items.id", True),
    ):
        shop_db.execute("CREATE TABLE IF NOT EXISTS small AS SELECT id AS key, age % 9 AS age FROM t")
        check(shop_db, call + tables, bare + tables, fast=fast)
    renamed = "items AS i (id, x, y) JOIN small AS items (id, age) ON true"
    check(
        shop_db,
        f'SELECT i.id, PREDICTION(taste USING age AS "USER_IDX", x AS "MOVIE_IDX") FROM {renamed}',
        f"SELECT i.id, pythia.prediction('taste', jsonb_build_object('USER_IDX', age, 'MOVIE_IDX', x)) FROM {renamed}",
        fast=False,
    )


CALL = 'PREDICTION(taste USING u.idx AS "USER_IDX", i.idx AS "MOVIE_IDX")'
SINGLE = "pythia.prediction('taste', jsonb_build_object('USER_IDX', u.idx, 'MOVIE_IDX', i.idx))"
# Statements over the ratings of users and items; {} is the call.
PLACES = [
    "SELECT i.title, {} AS rating FROM users u, items i WHERE u.name = 'ana' ORDER BY rating DESC NULLS LAST FETCH FIRST 3 ROWS ONLY",
    "SELECT u.name, max({}) FROM users u, items i GROUP BY u.name",
    "SELECT u.name, {} FROM users u, items i GROUP BY u.name, {}",
    "SELECT u.id, i.id, 1.0::float8 FROM users u JOIN items i ON {} > 3",
    "SELECT u.id, i.id, {} FROM users u, items i WHERE {} > 3",
    "SELECT x.id, x.r FROM (SELECT i.id, {} AS r FROM users u, items i WHERE u.id = 2) x",
    "SELECT m.title, x.r FROM items m JOIN (SELECT i.id, {} AS r FROM users u, items i WHERE u.id = 2) x USING (id)",
    "WITH i AS (SELECT idx FROM items WHERE id < 5) SELECT u.id, {} FROM users u, i",
    "WITH few AS (SELECT 2 AS n) SELECT u.id, i.id, {} FROM users u, items i WHERE u.id = (SELECT n FROM few)",
    "SELECT 0, sum({}) FROM users u, items i",
    "SELECT u.id, {} FROM users u, items i WHERE i.id = 3 UNION ALL SELECT u.id, {} FROM users u, items i WHERE i.id < 3",
    "SELECT DISTINCT u.id, {} FROM users u, items i, items j",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_places(shop_db: pythiadb.Connection, place: str) -> None:
    how = shop_db.translate(place.replace("{}", CALL)).batched
    alone = " ON {}" in place or "WITH i AS" in place
    assert all((FAST in one) == (not alone) for one in how)
    check(shop_db, place.replace("{}", CALL), place.replace("{}", SINGLE), fast=not alone)


def test_stored_queries_and_parameters(shop_db: pythiadb.Connection) -> None:
    """Views, tables that are filled, and a parameter beside joined tables."""
    query = f"SELECT u.id AS u, i.id AS i, {CALL} AS r FROM users u, items i"
    bare = f"SELECT u.id, i.id, {SINGLE} FROM users u, items i"
    shop_db.execute(f"CREATE VIEW seen AS {query}".encode())
    shop_db.execute(f"CREATE MATERIALIZED VIEW kept AS {query}".encode())
    shop_db.execute(f"CREATE TABLE made AS {query}".encode())
    expected = sorted(shop_db.execute(bare.encode()).fetchall(), key=str)
    for name in ("seen", "kept", "made"):
        found = sorted(shop_db.execute(f"SELECT * FROM {name}".encode()).fetchall(), key=str)
        assert [row[:2] for row in found] == [row[:2] for row in expected]
        assert [row[2] is None for row in found] == [row[2] is None for row in expected]
    check(
        shop_db,
        'SELECT i.id, u.id, PREDICTION(taste USING %s AS "USER_IDX", i.idx AS "MOVIE_IDX") FROM users u, items i WHERE u.id < %s',
        "SELECT i.id, u.id, pythia.prediction('taste', jsonb_build_object('USER_IDX', %s::text, 'MOVIE_IDX', i.idx)) "
        "FROM users u, items i WHERE u.id < %s",
        (3, 3),
    )


def test_more_pairs_than_a_matrix_has_rows(shop_db: pythiadb.Connection) -> None:
    """Each pair has its own answer, NULLs among them."""
    shop_db.execute("CREATE TABLE a AS SELECT n, n % 9 AS idx FROM generate_series(1, 60) n")
    shop_db.execute("CREATE TABLE b AS SELECT n, nullif(n, 7) AS x FROM generate_series(1, 500) n")
    statement = "SELECT a.n, b.n, PREDICTION(sevens USING a.n * 1000 + b.x AS n) FROM a, b"
    assert FAST in shop_db.translate(statement).batched[0]
    rows = shop_db.execute(statement.encode()).fetchall()
    assert len(rows) == 30_000
    assert all(r == (None if b == 7 else float((a * 1000 + b) % 7)) for a, b, r in rows)
