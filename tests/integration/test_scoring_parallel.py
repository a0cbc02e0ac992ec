"""Scoring of large tables by parallel workers, each with an engine connection of its own."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
from shop_models import TASTE, recommender

import pythiadb

ROWS = 12_000
METADATA = '{"function": "regression", "input": {"user_input": ["U"], "movie_input": ["M"]}}'
SUMS = "SELECT count(*), sum(p), min(p), max(p) FROM (SELECT PREDICTION(taste USING u, m) AS p FROM pairs) s"


@pytest.fixture
def pairs(db: pythiadb.Connection) -> pythiadb.Connection:
    """A table with few rows a page, so that its pages are many, and the model of its two columns."""
    db.execute("CALL dbms_vector.load_onnx_model('taste', :graph, :metadata)", (recommender(), METADATA))
    db.execute("CREATE TABLE pairs (id int, u int, m smallint, filler text) WITH (fillfactor = 10)")
    db.execute("ALTER TABLE pairs ALTER filler SET STORAGE plain")
    db.execute(
        "INSERT INTO pairs SELECT n, n % :users, n % :movies, repeat('x', 700) FROM generate_series(1, :rows) n",
        {"users": TASTE.users, "movies": TASTE.items, "rows": ROWS},
    )
    db.execute("VACUUM ANALYZE pairs")
    return db


def schema_of(db: pythiadb.Connection) -> str:
    row = db.execute("SELECT current_schema()").fetchone()
    assert row is not None
    return str(row[0])


def expected() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    number = np.arange(1, ROWS + 1)
    return TASTE.predict(number % TASTE.users, number % TASTE.items)


def plan_of(db: pythiadb.Connection, statement: str) -> str:
    return "\n".join(row[0] for row in db.execute(f"EXPLAIN (COSTS OFF) {statement}"))


def test_workers_share_a_large_table(pairs: pythiadb.Connection) -> None:
    plan = plan_of(pairs, SUMS)
    assert "Workers Planned" in plan
    assert "Parallel Append" in plan
    row = pairs.execute(SUMS).fetchone()
    assert row is not None
    truth = expected()
    assert row[0] == ROWS
    assert row[1:] == pytest.approx((truth.sum(dtype=float), truth.min(), truth.max()), rel=1e-5)


def test_each_row_has_its_own_answer_with_workers_and_without(pairs: pythiadb.Connection) -> None:
    statement = "SELECT id, PREDICTION(taste USING u, m) AS p FROM pairs"
    truth = expected()
    for workers in (2, 0):
        pairs.execute(f"SET max_parallel_workers_per_gather = {workers}".encode())
        assert ("Workers Planned" in plan_of(pairs, statement)) == (workers > 0)
        rows = dict(pairs.execute(statement).fetchall())
        assert len(rows) == ROWS
        np.testing.assert_allclose([rows[n] for n in range(1, ROWS + 1)], truth, rtol=1e-5)


def test_workers_see_what_the_transaction_has_changed(pairs: pythiadb.Connection) -> None:
    with pairs.transaction():
        pairs.execute("DELETE FROM pairs WHERE id > 10")
        pairs.execute("INSERT INTO pairs VALUES (11, 1, 2, 'new')")
        assert "Workers Planned" in plan_of(pairs, SUMS)
        row = pairs.execute(SUMS).fetchone()
    assert row is not None
    truth = [*expected()[:10], *TASTE.predict(np.array([1]), np.array([2]))]
    assert row[0] == 11
    assert row[1] == pytest.approx(float(np.sum(truth)), rel=1e-5)


def test_an_error_in_a_worker_is_the_statements(pairs: pythiadb.Connection) -> None:
    pairs.execute("UPDATE pairs SET u = 32000 WHERE id = 11000")  # no such user
    with pytest.raises(psycopg.Error, match="model graph failed while running"):
        pairs.execute(SUMS)


def test_a_table_that_workers_must_not_read_is_refused_by_name(pairs: pythiadb.Connection) -> None:
    pairs.execute("CREATE TEMP TABLE own (u int, m int)")
    with pytest.raises(psycopg.errors.WrongObjectType, match="cannot be read by ranges of its pages"):
        pairs.execute(b"SELECT * FROM pythia.table_ranges('own'::regclass)")


def test_row_level_security_holds(pairs: pythiadb.Connection) -> None:
    """What a policy hides has no answer, and the policy's functions run where PostgreSQL lets them."""
    with pairs.transaction(force_rollback=True):
        pairs.execute("CREATE ROLE taster")
        pairs.execute(f"GRANT USAGE ON SCHEMA {schema_of(pairs)} TO taster".encode())
        pairs.execute("GRANT SELECT ON pairs, taste TO taster")
        pairs.execute("ALTER TABLE pairs ENABLE ROW LEVEL SECURITY")
        pairs.execute("CREATE POLICY few ON pairs USING (id <= 5)")
        pairs.execute("SET LOCAL ROLE taster")
        row = pairs.execute(SUMS).fetchone()
    assert row is not None
    assert row[0] == 5
    assert row[1] == pytest.approx(float(expected()[:5].sum()), rel=1e-5)
