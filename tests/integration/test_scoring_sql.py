"""Scoring in every place of a statement: each row has the label that scikit-learn gives it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scoring_models import Made
from scoring_tables import ALL, FP, F

import pythiadb

# Places -------------------------------------------------------------------------------------------------------------------

# Each gives (id, label) of every row.
PLACES = {
    "select": f"SELECT id, {F} FROM people",
    "qualified": f"SELECT p.id, {FP} FROM people p",
    "star": "SELECT id, PREDICTION(forest USING *) FROM people",
    "star of a table": "SELECT p.id, PREDICTION(forest USING p.*) FROM people p",
    "star and more": "SELECT id, PREDICTION(forest USING p.*, 1 AS nonsense) FROM people p",
    "star of joined tables": "SELECT a.id, PREDICTION(forest USING *) FROM (SELECT id, age, visits FROM people) a "
    "JOIN (SELECT id AS same, spent, days FROM people) b ON a.id = b.same",
    "beside all columns": f"SELECT x.id, x.answer FROM (SELECT *, {F} AS answer FROM people) x",
    "subquery": f"SELECT * FROM (SELECT id, {F} AS f FROM people) s",
    "filtered subquery": f"SELECT * FROM (SELECT id, {F} AS f FROM people) s WHERE id >= 0",
    "scalar subquery": f"SELECT id, (SELECT {F}) FROM people",
    "cte": f"WITH s AS (SELECT id, {F} AS f FROM people) SELECT id, f FROM s",
    "over a cte": f"WITH people AS (SELECT * FROM people) SELECT id, {F} FROM people",
    "lateral": f"SELECT people.id, e.f FROM people, LATERAL (SELECT {F} AS f) e",
    "union": f"SELECT id, {F} FROM people WHERE id < 9 UNION ALL SELECT id, {F} FROM people WHERE id >= 9",
    "join": f"SELECT p.id, {FP} FROM people p JOIN people q USING (id)",
    "left join": f"SELECT q.id, {FP} FROM people q LEFT JOIN people p ON p.id = q.id",
    "comma": f"SELECT q.id, {FP} FROM people q, people p WHERE p.id = q.id",
    "case": f"SELECT id, CASE WHEN id < 9 THEN {F} WHEN id >= 9 THEN {F} END FROM people",
    "coalesce": f"SELECT id, COALESCE({F}, 'none') FROM people",
    "expression": f"SELECT id, substr('x' || {F}, 2) FROM people",
    "order": f"SELECT id, label_ FROM (SELECT id, {F} AS label_ FROM people ORDER BY {F} DESC, id) s",
    "limit": f"SELECT id, {F} FROM people ORDER BY id FETCH FIRST 1000 ROWS ONLY",
    "window": f"SELECT id, max({F}) OVER (PARTITION BY id) FROM people",
    "partition": f"SELECT id, first_value({F}) OVER (PARTITION BY {F} ORDER BY id) FROM people",
    "distinct": f"SELECT DISTINCT id, {F} FROM people",
    "aggregate": f"SELECT id, max({F}) FROM people GROUP BY id",
    "group by": f"SELECT unnest(array_agg(id)), {F} FROM people GROUP BY {F}",
    "grouping twice": f"SELECT id, {F} FROM people GROUP BY id, {F}",
    "having": f"SELECT unnest(array_agg(id)), {F} FROM people GROUP BY {F} HAVING {F} IS NOT NULL",
    "where": "SELECT id, l FROM people, (VALUES ('bronze'), ('it''s gold'), ('sil\"ver\\')) AS v (l) "
    f"WHERE {F} = v.l",
    "where in a subquery": "SELECT v.l_id, v.l FROM (SELECT id AS l_id, l FROM people, "
    "unnest(ARRAY['bronze', 'it''s gold', 'sil\"ver\\']) l) v WHERE EXISTS "
    f"(SELECT 1 FROM people p WHERE p.id = v.l_id AND {FP} = v.l)",
    "join condition": "SELECT p.id, v.l FROM people p JOIN "
    f"(VALUES ('bronze'), ('it''s gold'), ('sil\"ver\\')) AS v (l) ON v.l = {FP}",
    "two answers": f"SELECT id, CASE PREDICTION_PROBABILITY(forest, 'bronze' USING {ALL}) WHEN 2 THEN NULL ELSE {F} END "
    "FROM people",
    "json": f"SELECT (r ->> 'id')::int, r ->> 'f' FROM (SELECT to_jsonb(s) AS r FROM (SELECT id, {F} AS f FROM people) s) t",
    "values around": f"SELECT id, (SELECT max(v) FROM (VALUES ({F})) AS x (v)) FROM people",
}  # fmt: skip


# Written with what only PostgreSQL has.
POSTGRES_ONLY = {
    "where in a subquery",
    "json",
    "values around",
    "group by",
    "having",
    "where",
    "join condition",
    "order",
}


@pytest.mark.parametrize("place", PLACES)
def test_places(place: str, people: pythiadb.Connection, labels: list[str]) -> None:
    rows = people.execute(PLACES[place].encode()).fetchall()
    assert sorted(rows) == list(enumerate(labels))


@pytest.mark.parametrize("place", sorted(PLACES.keys() - POSTGRES_ONLY))
def test_places_in_oracle_sql(place: str, oracle_people: pythiadb.Connection, labels: list[str]) -> None:
    rows = oracle_people.execute(PLACES[place].encode()).fetchall()
    assert sorted(rows) == list(enumerate(labels))


# Statements with several scores, joined in ways of their own: (id, label) of every row again.
TOGETHER = {
    "matrix and batch": "SELECT p.id, PREDICTION(forest USING p.*), PREDICTION(towns USING p.city, p.age) FROM people p",
    "matrix and embedding": "SELECT id, PREDICTION(forest USING *), VECTOR_EMBEDDING(minilm USING city AS data) FROM people",
    "batch and matrix in a union": "SELECT p.id, PREDICTION(forest USING p.*) FROM people p JOIN people q USING (id) WHERE p.id < 9 "
    "UNION ALL SELECT id, PREDICTION(forest USING *) FROM people WHERE id >= 9",
    "set and matrix in a union": "SELECT p.id, s.prediction FROM people p, TABLE(PREDICTION_SET(forest, 1 USING p.*)) s WHERE p.id < 9 "
    "UNION ALL SELECT id, PREDICTION(forest USING *) FROM people WHERE id >= 9",
    "several answers": "SELECT id, PREDICTION(forest USING *), PREDICTION_PROBABILITY(forest USING *), PREDICTION(spend USING *), "
    "CLUSTER_ID(segments USING *), CLUSTER_DISTANCE(segments, 2 USING *) FROM people",
    "own with clause": "WITH q AS (SELECT max(id) AS last_id FROM people) SELECT id, PREDICTION(forest USING *) FROM people "
    "WHERE id <= (SELECT last_id FROM q)",
    "set of a set": "SELECT y.id, y.prediction FROM (SELECT p.*, s.prediction FROM people p, "
    "TABLE(PREDICTION_SET(forest, 1 USING p.*)) s) y, TABLE(CLUSTER_SET(mixture, 1 USING y.*)) z",
    "set of a score": "SELECT y.id, y.f FROM (SELECT p.*, PREDICTION(forest USING p.*) AS f FROM people p) y, "
    "TABLE(PREDICTION_SET(numbers, 1 USING y.*)) z",
    "score of a score": "SELECT id, f FROM (SELECT id, PREDICTION(forest USING *) AS f, age FROM people) x "
    "WHERE PREDICTION(towns USING f AS city, age) IS NOT NULL OR age IS NULL OR f IS NOT NULL",
    "nested calls": "SELECT id, PREDICTION(forest USING age, CAST(PREDICTION(spend USING *) * 0 AS int) + visits AS visits, spent, days) FROM people WHERE id < 51",
}  # fmt: skip


@pytest.mark.parametrize("place", TOGETHER)
@pytest.mark.parametrize("dialect", ["postgres", "oracle"])
def test_scores_together(place: str, dialect: str, labels: list[str], request: pytest.FixtureRequest) -> None:
    db = request.getfixturevalue("people" if dialect == "postgres" else "oracle_people")
    rows = [row[:2] for row in db.execute(TOGETHER[place].encode()).fetchall()]
    assert sorted(rows) == list(enumerate(labels))[: len(rows)]
    assert len(rows) >= len(labels) - 2


# Names --------------------------------------------------------------------------------------------------------------------


def test_names_of_models(
    people: pythiadb.Connection, labels: list[str], made: dict[str, Made], models: str
) -> None:
    """With a schema, in any case, in quotes."""
    odd = 'Odd "Model"\'s'
    people.execute(
        "CALL dbms_vector.load_onnx_model(%s, %s, %s)",
        ('"Odd ""Model""\'s"', made["forest"].graph, made["forest"].metadata_text),
    )
    assert (
        people.execute("SELECT relation::text FROM pythia.model WHERE relation::text ~ 'Odd'")
        .fetchall()[0][0]
        .replace('""', '"')[1:-1]
        == odd
    )
    for name in (
        f"{models}.forest",
        f"{models.upper()}.FOREST",
        f'"{models}" . "forest"',
        '"Odd ""Model""\'s"',
    ):
        rows = people.execute(f"SELECT id, PREDICTION({name} USING *) FROM people".encode()).fetchall()
        assert sorted(rows) == list(enumerate(labels))
        row = people.execute(f"SELECT PREDICTION({name} USING 20 AS age)".encode()).fetchone()
        assert row is not None
        assert row[0] in labels


def test_embedding_by_column_name(people: pythiadb.Connection) -> None:
    """The star picks the column called like the attribute."""
    people.execute('CREATE TABLE notes (id int, data text, "other" text)')
    people.execute("INSERT INTO notes VALUES (1, 'a cat', 'x'), (2, 'a dog', 'y'), (3, NULL, 'z')")
    expected = people.execute("SELECT id, vector_embedding('minilm', data)::text FROM notes").fetchall()
    for call in (
        "USING *",
        "USING n.*",
        "USING data",
        "USING n.data",
        "USING data AS data",
        'USING data AS "DATA"',
    ):
        rows = people.execute(
            f"SELECT id, VECTOR_EMBEDDING(minilm {call})::text FROM notes n".encode()
        ).fetchall()
        assert [row[0] for row in sorted(rows)] == [1, 2, 3]
        for found, wanted in zip(sorted(rows), expected, strict=True):
            assert (found[1] is None) == (wanted[1] is None)
            if found[1]:
                np.testing.assert_allclose(json.loads(found[1]), json.loads(wanted[1]), atol=1e-6)
