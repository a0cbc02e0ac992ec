"""The fast way of scoring numbers: every value reaches the model as it is, from every type of column and in any plan."""

from __future__ import annotations

import contextlib

import numpy as np
import psycopg
import pytest
from scoring_models import Made
from scoring_tables import FAST, FIELDS

import pythiadb

# Types of columns ---------------------------------------------------------------------------------------------------------

EXACT = [
    0,
    1,
    -1,
    8,
    2**31 - 1,
    2**31,
    -(2**31) - 1,
    2**53 - 1,
    2**53,
    2**53 + 1,
    -(2**53) - 1,
    2**62 + 5,
    2**63 - 1,
    -(2**63),
    None,
]


def remainder(value: int | None) -> float | None:
    return None if value is None else float(value % 7)


@pytest.mark.parametrize("kind", ["bigint", "numeric", "numeric(30)", "text", "mine"])
def test_whole_numbers_beyond_floating_point(sdb: pythiadb.Connection, kind: str) -> None:
    """Every whole number of 64 bits reaches the model as it is, and NULL gives NULL."""
    sdb.execute("CREATE DOMAIN mine AS bigint")
    sdb.execute(f"CREATE TABLE t (id serial, n {kind})".encode())
    with sdb.cursor() as cursor:
        cursor.executemany(f"INSERT INTO t (n) VALUES (%s::{kind})", [(value,) for value in EXACT])
    for condition in ("", " WHERE id > 0"):
        statement = f"SELECT n, PREDICTION(sevens USING n) FROM t{condition}"
        assert (FAST in sdb.translate(statement).batched[0]) == (kind not in ("text", "mine"))
        rows = sdb.execute(statement.encode()).fetchall()
        assert sorted(map(str, rows)) == sorted(
            map(str, [(r[0], remainder(None if r[0] is None else int(r[0]))) for r in rows])
        )
        assert len(rows) == len(EXACT)


LARGE_INTEGERS = [
    1,
    -1,
    2**24 - 1,
    -(2**24) + 1,
    2**24,
    2**24 + 1,
    -(2**24) - 1,
    2**30 + 1,
    2**31 - 1,
    -(2**31),
    99,
]


@pytest.mark.parametrize("given", [LARGE_INTEGERS, [*LARGE_INTEGERS, None], LARGE_INTEGERS[:4]])
@pytest.mark.parametrize("expression", ["n", "n + 0", "x.n"])
def test_integers_beyond_single_precision(
    sdb: pythiadb.Connection, given: list[int | None], expression: str
) -> None:
    """Every integer of 32 bits reaches the model as it is, although small ones travel in single precision."""
    sdb.execute("CREATE TABLE x (id serial, n int)")
    with sdb.cursor() as cursor:
        cursor.executemany("INSERT INTO x (n) VALUES (%s)", [(value,) for value in given])
    for condition in ("", " WHERE id > 0"):
        statement = f"SELECT n, PREDICTION(sevens USING {expression} AS n) FROM x{condition}"
        assert FAST in sdb.translate(statement).batched[0]
        rows = sdb.execute(statement.encode()).fetchall()
        assert rows == [(value, remainder(value)) for value in given]


def test_more_numbers_than_a_vector_holds(sdb: pythiadb.Connection) -> None:
    """Where a table is not what its figures say, a matrix has more rows than it should; small integers and large ones."""
    sdb.execute("CREATE TABLE t (n int) WITH (autovacuum_enabled = off)")
    sdb.execute("INSERT INTO t SELECT n FROM generate_series(1, 70000) n")
    sdb.execute("DELETE FROM t WHERE n % 10 > 0")
    sdb.execute("ANALYZE t")
    for statement in ("DELETE FROM t", "VACUUM t", "INSERT INTO t SELECT n FROM generate_series(1, 70000) n"):
        sdb.execute(statement.encode())
    wrong = "SELECT count(*), count(*) FILTER (WHERE p <> n % 7) FROM (SELECT n, PREDICTION(sevens USING n) AS p FROM t) s"
    assert sdb.execute(wrong).fetchone() == (70000, 0)
    sdb.execute("UPDATE t SET n = n + 100000000")
    assert sdb.execute(wrong).fetchone() == (70000, 0)


SAME = {
    "smallint": (12, -7, 0, None),
    "int": (12, -7, 2**31 - 1, None),
    "bigint": (12, -7, 2**60, None),
    "numeric": ("12.25", "-0.1", "NaN", "Infinity", "1e30", None),
    "numeric(12,2)": ("12.25", "-0.1", None),
    "real": ("12.25", "-0.1", "NaN", "-Infinity", None),
    "double precision": ("12.25", "-0.1", "NaN", "Infinity", "1e30", None),
    "boolean": (True, False, None),
    "text": ("12", "-1e1", " 3 ", None),
    "varchar(9)": ("12", None),
}


@pytest.mark.parametrize("kind", SAME)
def test_types_of_columns(sdb: pythiadb.Connection, kind: str) -> None:
    """The answer for a table equals the one for a single row of the same value, with its type and value unchanged."""
    sdb.execute(f"CREATE TABLE t (id serial PRIMARY KEY, age {kind}, spent {kind})".encode())
    with sdb.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO t (age, spent) VALUES (%s::text::{kind}, %s::text::{kind})",
            [(v, v) for v in SAME[kind]],
        )
    one = "SELECT id, pythia.prediction('spend', to_jsonb(t.*)), age, spent FROM t ORDER BY id"
    expected = sdb.execute(one).fetchall()
    for columns in ("age, spent", "*"):
        statement = f"SELECT id, PREDICTION(spend USING {columns}), age, spent FROM t ORDER BY id"
        assert (FAST in sdb.translate(statement).batched[0]) == (
            kind not in ("boolean", "text", "varchar(9)")
        )
        cursor = sdb.execute(statement.encode())
        assert [c.type_code for c in cursor.description or ()] == [
            c.type_code for c in sdb.execute(one).description or ()
        ]
        for given, wanted in zip(cursor.fetchall(), expected, strict=True):
            assert str(given[2:]) == str(wanted[2:])
            assert given[1] == pytest.approx(wanted[1], rel=1e-6)


@pytest.mark.parametrize("value", ["1e300", "-1e300"])
def test_a_number_that_the_tensor_cannot_hold(sdb: pythiadb.Connection, value: str) -> None:
    """The error is the one of a single call."""
    sdb.execute("CREATE TABLE t (age float8)")
    sdb.execute("INSERT INTO t VALUES (%s::float8), (1)", (value,))
    for statement in (
        "SELECT PREDICTION(forest USING age) FROM t",
        "SELECT pythia.prediction('forest', to_jsonb(t), NULL::text) FROM t",
    ):
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match=r'of attribute "AGE" is out of range for type float32'
        ):
            sdb.execute(statement.encode())


@pytest.mark.parametrize("kind", ["smallint", "int", "bigint", "numeric", "real"])
@pytest.mark.parametrize("value", [-1, 256, 300])
def test_a_number_that_a_small_tensor_cannot_hold(sdb: pythiadb.Connection, kind: str, value: int) -> None:
    """It is an error, and no other number in its place; NULL is no error."""
    sdb.execute(f"CREATE TABLE t (id serial, n {kind})".encode())
    sdb.execute("INSERT INTO t (n) VALUES (255), (0), (NULL), (100)")
    for condition in ("", " WHERE id > 0"):
        statement = f"SELECT n, PREDICTION(bytes USING n) FROM t{condition}"
        assert FAST in sdb.translate(statement).batched[0]
        assert [row[1] for row in sdb.execute(statement.encode()).fetchall()] == [3.0, 0.0, None, 2.0]
    sdb.execute("INSERT INTO t (n) VALUES (%s)", (value,))
    for text in (
        "SELECT n, PREDICTION(bytes USING n) FROM t",
        "SELECT sum(PREDICTION(bytes USING n)) FROM t WHERE id > 0",
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match='of attribute "N" is out of range'):
            sdb.execute(text.encode())


# Large tables, which parallel workers may share ---------------------------------------------------------------------------

LARGE = {
    "rows": "SELECT id, PREDICTION(forest USING age, visits, spent, days) FROM t",
    "whole rows": "SELECT id, f FROM (SELECT *, PREDICTION(forest USING age, visits, spent, days) AS f FROM t) s",
    "created": "CREATE TABLE made AS SELECT id, PREDICTION(forest USING *) AS f FROM t; SELECT * FROM made",
    "selected into": "SELECT id, PREDICTION(forest USING *) AS f INTO made FROM t; SELECT * FROM made",
    "created by input": "CREATE TABLE made AS SELECT t.id, PREDICTION(forest USING t.*) AS f FROM t JOIN t u USING (id); SELECT * FROM made",
    "created row by row": "CREATE TABLE made AS SELECT id, CASE WHEN id < 60 THEN PREDICTION(forest USING *) END AS f FROM t; "
    "SELECT id, coalesce(m.f, (SELECT PREDICTION(forest USING t.*))) FROM made m JOIN t USING (id) WHERE id < 60 "
    "UNION ALL SELECT id, PREDICTION(forest USING *) FROM t WHERE id >= 60",
    "a stored view": "CREATE MATERIALIZED VIEW seen AS SELECT id, PREDICTION(forest USING *) AS f FROM t WITH NO DATA; "
    "REFRESH MATERIALIZED VIEW seen; SELECT * FROM seen",
    "inserted": "CREATE TABLE made (id int, f text); INSERT INTO made SELECT id, PREDICTION(forest USING *) FROM t; SELECT * FROM made",
    "a view": "CREATE VIEW seen AS SELECT id, PREDICTION(forest USING *) AS f FROM t; SELECT * FROM seen",
    "prepared": "PREPARE q AS SELECT id, PREDICTION(forest USING *) AS f FROM t; EXECUTE q",
    "held": "BEGIN; DECLARE k CURSOR WITH HOLD FOR SELECT id, PREDICTION(forest USING *) FROM t; COMMIT; FETCH ALL FROM k",
    "changed in the statement": "WITH u AS (UPDATE t SET age = 0 RETURNING id) SELECT id, PREDICTION(forest USING *) FROM t",
}


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (form, kind)
        for form in LARGE
        for kind in ("", "TEMPORARY")
        if (form, kind) != ("a stored view", "TEMPORARY")
    ],
)
def test_large_tables(sdb: pythiadb.Connection, made: dict[str, Made], kind: str, form: str) -> None:
    """Every row once, also where its change is not committed yet, whatever plan PostgreSQL makes."""
    for setting in (
        "parallel_setup_cost = 0",
        "parallel_tuple_cost = 0",
        "min_parallel_table_scan_size = 0",
        "max_parallel_workers_per_gather = 2",
    ):
        sdb.execute(f"SET {setting}".encode())
    sdb.execute(
        f"CREATE {kind} TABLE t (id int, {FIELDS}, note text) WITH (autovacuum_enabled = off)".encode()
    )
    sdb.execute(
        "INSERT INTO t SELECT n, 18 + n % 60, n % 29, (n * 7919 % 8000) / 2.0, (n * 104729 % 16000 - 8000) / 8.0, repeat('x', 1900) "
        "FROM generate_series(1, 5000) n"
    )
    sdb.execute("ANALYZE t")
    setup, _, query = LARGE[form].rpartition("; ")
    with sdb.transaction() if form != "held" else contextlib.nullcontext():
        sdb.execute("UPDATE t SET age = age + 1 WHERE id % 7 = 0")
        sdb.execute("DELETE FROM t WHERE id % 11 = 0")
        x = sdb.execute("SELECT id, age, visits, spent, days FROM t ORDER BY id").fetchall()
        for statement in setup.split("; ") if setup else []:
            sdb.execute(statement.encode())
        rows = sdb.execute(query.encode()).fetchall()
    probabilities = made["forest"].bare(np.array([row[1:] for row in x], np.float32), "probabilities")
    expected = made["forest"].model.classes_[probabilities.argmax(axis=1)]
    assert sorted(rows) == [(row[0], label) for row, label in zip(x, expected, strict=True)]


def test_carried_columns_keep_the_modifiers_of_their_types(sdb: pythiadb.Connection) -> None:
    sdb.execute(
        f"CREATE TABLE t (id int, {FIELDS}, price numeric(10, 2), code varchar(7), plain numeric)".encode()
    )
    sdb.execute("INSERT INTO t VALUES (1, 30, 5, 2.5, 3.5, 12.50, 'seven', 1.125)")
    statement = (
        'SELECT price, code, plain, PREDICTION(spend USING age, visits, spent, days AS "Days") AS p FROM t'
    )
    sdb.execute(f"CREATE TABLE copied AS {statement}".encode())
    types = sdb.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'copied'::regclass AND attnum > 0"
    ).fetchall()
    assert [row[0] for row in types] == [
        "numeric(10,2)",
        "character varying(7)",
        "numeric",
        "double precision",
    ]
    notes = str(sdb.execute(f"EXPLAIN {statement}".encode()).fetchall())
    assert "range_arrays" in notes
