"""Vector functions in SQL against the codecs and numpy; distances stay visible to pgvector's indexes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import pythiadb
from pythiadb.vectors import codec

FEW = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
FLOATS = st.floats(-1e6, 1e6, width=32)
VECTORS = st.integers(1, 40).flatmap(lambda n: npst.arrays(np.float32, n, elements=FLOATS))


def one(db: pythiadb.Connection, statement: str, *values: Any) -> Any:
    row = db.execute(statement.encode(), values or None).fetchone()
    assert row is not None
    return row[0]


# Forms --------------------------------------------------------------------------------------------------------------------


@FEW
@given(vectors=st.lists(VECTORS, min_size=1, max_size=30))
def test_dense_texts_go_there_and_back(db: pythiadb.Connection, vectors: list[np.ndarray]) -> None:
    """Many vectors in one query: to_vector of our text, from_vector, and numpy again."""
    texts = [codec.vector_to_text(v).decode() for v in vectors]
    rows = db.execute(
        "SELECT to_vector(t), from_vector(to_vector(t)), vector_dims(to_vector(t)), to_vector(t::jsonb) "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS u(t, n) ORDER BY n",
        (texts,),
    ).fetchall()
    for vector, (dense, text, dims, from_json) in zip(vectors, rows, strict=True):
        np.testing.assert_array_equal(dense, vector)
        np.testing.assert_array_equal(codec.vector_from_text(text), vector)
        np.testing.assert_array_equal(from_json, vector)
        assert dims == len(vector)


@FEW
@given(rows=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=16), min_size=1, max_size=30))
def test_binary_texts_go_there_and_back(db: pythiadb.Connection, rows: list[list[int]]) -> None:
    """Oracle's bytes, most significant bit first."""
    found = db.execute(
        "SELECT to_binary_vector(t)::text, from_vector(to_binary_vector(t)), vector_dims(to_binary_vector(t)) "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS u(t, n) ORDER BY n",
        ([json.dumps(row) for row in rows],),
    ).fetchall()
    for numbers, (bits, text, dims) in zip(rows, found, strict=True):
        assert bits == codec.bits_to_text(codec.bits_from_bytes(numbers)).decode()
        assert json.loads(text) == numbers
        assert dims == 8 * len(numbers)


@FEW
@given(vectors=st.lists(VECTORS, min_size=1, max_size=20))
def test_sparse_texts_go_there_and_back(db: pythiadb.Connection, vectors: list[np.ndarray]) -> None:
    """[dimensions, [indices from 0], [values]], as the codecs write and read it; zeros are not stored."""
    thinned = [np.where(np.abs(v) > 5e5, v, 0).astype(np.float32) for v in vectors]
    entries = [(len(v), np.flatnonzero(v).tolist()) for v in thinned]
    texts = [json.dumps([n, i, [float(v[k]) for k in i]]) for (n, i), v in zip(entries, thinned, strict=True)]
    rows = db.execute(
        "SELECT to_sparse_vector(t), from_vector(to_sparse_vector(t)), to_sparse_vector(t)::vector "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS u(t, n) ORDER BY n",
        (texts,),
    ).fetchall()
    for vector, (sparse, text, dense) in zip(thinned, rows, strict=True):
        np.testing.assert_array_equal(dense, vector)
        assert codec.vector_from_oracle_text(text) == sparse


def test_sparse_vector_without_entries(db: pythiadb.Connection) -> None:
    assert one(db, "SELECT to_sparse_vector('[5, [], []]')::text") == "{}/5"
    assert one(db, "SELECT from_vector('{}/5'::sparsevec)") == "[5,[],[]]"
    assert one(db, "SELECT from_vector(to_sparse_vector(from_vector('{}/5'::sparsevec)))") == "[5,[],[]]"


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("SELECT to_vector('[1,2]', 3)", "22000"),
        ("SELECT to_vector('[]')", "22000"),
        ("SELECT to_vector('[1,\"2\"]'::jsonb)", "22P02"),
        ("SELECT to_vector('{\"a\":1}'::jsonb)", "22P02"),
        ("SELECT to_binary_vector('[256]')", "22003"),
        ("SELECT to_binary_vector('[-1]')", "22003"),
        ("SELECT to_binary_vector('[1,null]')", "22003"),
        ("SELECT to_binary_vector('[1.5]')", "22P02"),
        ("SELECT to_binary_vector('[201,15]', 8)", "22000"),
        ("SELECT to_binary_vector('[]')", "22"),
        ("SELECT to_sparse_vector('[5, [1], [1, 2]]')", "22P02"),
        ("SELECT to_sparse_vector('[5, [7], [1]]')", "22"),
        ("SELECT to_sparse_vector('[5, [-1], [1]]')", "22"),
        ("SELECT to_sparse_vector('[5, [1, 1], [1, 2]]')", "22"),
        ("SELECT to_sparse_vector('[5, [1.5], [1]]')", "22"),
        ("SELECT to_sparse_vector('[5, [1], [1]]', 6)", "22000"),
        ("SELECT to_sparse_vector('[[1], [1]]')", "22P02"),
        ("SELECT to_sparse_vector('{}')", "22"),
        ("SELECT to_sparse_vector('7')", "22"),
        ("SELECT to_sparse_vector('nonsense')", "22P02"),
    ],
)
def test_texts_that_are_no_vectors(db: pythiadb.Connection, statement: str, state: str) -> None:
    """Each is a data error with a SQLSTATE of class 22, never an internal one."""
    with pytest.raises(psycopg.DataError) as caught:
        db.execute(statement.encode())
    assert str(caught.value.sqlstate).startswith(state)


def test_nulls_give_nulls(db: pythiadb.Connection) -> None:
    row = db.execute(
        "SELECT to_vector(NULL::text), to_vector(NULL::vector), to_binary_vector(NULL), to_sparse_vector(NULL::text), "
        "from_vector(NULL::vector), from_vector(NULL::bit), from_vector(NULL::sparsevec), vector_dims(NULL::vector), "
        "vector_norm(NULL), vector_dimension_format(NULL::vector), "
        "vector_distance(NULL::vector, '[1]', 'DOT'), vector_distance('[1]', NULL::vector, 'HAMMING'), "
        "vector_distance(NULL::bit, B'1', 'JACCARD')"
    ).fetchone()
    assert row is not None
    assert set(row) == {None}


def test_facts_about_vectors(db: pythiadb.Connection) -> None:
    row = db.execute(
        "SELECT vector_norm('[3,4]'), vector_dimension_format('[3,4]'::vector), vector_dimension_format(B'1'), "
        "vector_dimension_format('{1:1}/2'::sparsevec), vector_dims('{1:1}/2'::sparsevec)"
    ).fetchone()
    assert row == (5.0, "FLOAT32", "BINARY", "FLOAT32", 2)


# Distances ----------------------------------------------------------------------------------------------------------------

METRICS = {
    "COSINE": lambda a, b: 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)),
    "DOT": lambda a, b: -(a @ b),
    "EUCLIDEAN": lambda a, b: np.linalg.norm(a - b),
    "EUCLIDEAN_SQUARED": lambda a, b: ((a - b) ** 2).sum(),
    "L2_SQUARED": lambda a, b: ((a - b) ** 2).sum(),
    "MANHATTAN": lambda a, b: np.abs(a - b).sum(),
    "HAMMING": lambda a, b: (a != b).sum(),
}
PAIRS = np.round(np.random.default_rng(3).normal(size=(50, 2, 12)), 1).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["vector", "sparsevec"])
def test_distances_are_numpys(db: pythiadb.Connection, metric: str, kind: str) -> None:
    expected = [METRICS[metric](a.astype(np.float64), b.astype(np.float64)) for a, b in PAIRS]
    texts = [[codec.vector_to_text(v).decode() for v in pair] for pair in PAIRS]
    rows = db.execute(
        f"SELECT vector_distance(a::vector::{kind}, b::vector::{kind}, %s) "
        "FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS u(a, b, n) ORDER BY n".encode(),
        (metric.lower(), [t[0] for t in texts], [t[1] for t in texts]),
    ).fetchall()
    np.testing.assert_allclose([row[0] for row in rows], expected, rtol=1e-5, atol=1e-5)


def test_binary_distances_are_numpys(db: pythiadb.Connection) -> None:
    bits = np.random.default_rng(4).random((40, 2, 24)) < 0.5
    texts = [[codec.bits_to_text(v).decode() for v in pair] for pair in bits]
    rows = db.execute(
        "SELECT vector_distance(a::bit(24), b::bit(24), 'HAMMING'), vector_distance(a::bit(24), b::bit(24), 'JACCARD'), "
        "vector_distance(a::bit(24), b::bit(24)) "
        "FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS u(a, b, n) ORDER BY n",
        ([t[0] for t in texts], [t[1] for t in texts]),
    ).fetchall()
    for (a, b), (hamming, jaccard, default) in zip(bits, rows, strict=True):
        assert hamming == default == (a != b).sum()
        assert jaccard == pytest.approx(1 - (a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("'[1]'::vector, '[1]'::vector, 'JACCARD'", 'distance metric "JACCARD" is not available for vector'),
        ("'[1]'::vector, '[1]'::vector, 'nonsense'", "distance metric nonsense is not available for vector"),
        ("B'1', B'1', 'COSINE'", 'distance metric "COSINE" is not available for bit'),
        ("'{1:1}/1'::sparsevec, '{1:1}/1'::sparsevec, 'JACCARD'", "is not available for sparsevec"),
        ("'[1]'::vector, '[1]'::vector, NULL", "distance metric NULL is not available"),
    ],
)
def test_metric_that_does_not_fit_is_named(db: pythiadb.Connection, arguments: str, named: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=named) as caught:
        psycopg.Cursor(db).execute(f"SELECT vector_distance({arguments})".encode())  # not translated
    assert caught.value.diag.message_hint


@pytest.mark.parametrize("metric", METRICS)
def test_different_dimensions_are_refused(db: pythiadb.Connection, metric: str) -> None:
    with pytest.raises(psycopg.DataError, match="different vector dimensions 1 and 2"):
        db.execute("SELECT vector_distance('[1]'::vector, '[1,2]'::vector, %s)", (metric,))


# Plans --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operators", "metric"),
    [("vector_cosine_ops", "COSINE"), ("vector_l2_ops", "EUCLIDEAN"), ("vector_ip_ops", "DOT"), ("vector_l1_ops", "MANHATTAN")],
)  # fmt: skip
def test_pgvectors_index_serves_vector_distance(db: pythiadb.Connection, operators: str, metric: str) -> None:
    """The functions are inlined, so ORDER BY with LIMIT is a scan of the hnsw index, in both spellings."""
    db.execute(
        "CREATE TABLE t AS SELECT i AS id, ARRAY[sin(i), cos(i), i]::vector(3) AS v FROM generate_series(1, 500) i"
    )
    db.execute(f"CREATE INDEX nearest ON t USING hnsw (v {operators})".encode())
    db.execute("SET enable_seqscan = off")
    for statement in (
        f"SELECT id FROM t ORDER BY vector_distance(v, '[1,2,3]'::vector, '{metric}') LIMIT 5",
        f"SELECT id FROM t ORDER BY VECTOR_DISTANCE(v, '[1,2,3]', {metric}) FETCH FIRST 5 ROWS ONLY",
        f"SELECT id FROM t ORDER BY VECTOR_DISTANCE(v, VECTOR('[1,2,3]'), {metric}) FETCH APPROX FIRST 5 ROWS ONLY",
    ):
        plan = "\n".join(row[0] for row in db.execute(f"EXPLAIN {statement}".encode()).fetchall())
        assert "Index Scan using nearest" in plan, plan


def test_aggregates(db: pythiadb.Connection) -> None:
    db.execute("CREATE TABLE t (v vector(2))")
    db.execute("INSERT INTO t VALUES ('[1,2]'), ('[3,4]'), (NULL)")
    row = db.execute("SELECT SUM(v), AVG(v), count(v) FROM t").fetchone()
    assert row is not None
    assert (row[0].tolist(), row[1].tolist(), row[2]) == ([4, 6], [2, 3], 2)
    assert db.execute("SELECT SUM(v), AVG(v) FROM t WHERE v IS NULL").fetchone() == (None, None)
