"""Scoring in every place of a statement: each row has the label that scikit-learn gives it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scoring_models import Made
from scoring_tables import ALL, CLOSE, FP, F

import pythiadb
from pythiadb.errors import FeatureNotSupported

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
    "star of a nameless subquery": "SELECT id, PREDICTION(forest USING *) FROM (SELECT * FROM people)",
    "star of nameless subqueries": "SELECT id, PREDICTION(forest USING *) FROM (SELECT id, age, visits FROM people) "
    "JOIN (SELECT id AS same, spent, days FROM people) ON id = same",
    "star of a set": "SELECT p.id, s.prediction FROM people p, TABLE(PREDICTION_SET(forest, 1 USING *)) s",
    "star of a nameless subquery's set": "SELECT id, s.prediction FROM (SELECT * FROM people), TABLE(PREDICTION_SET(forest, 1 USING *)) s",
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


# Sets that another query computed -----------------------------------------------------------------------------------------

# The rows of sets in a column, each beside the same rows of a set in FROM.
SET = "PREDICTION_SET(forest, 2 USING p.*)"
INLINE = f"SELECT p.id, s.prediction, s.probability FROM people p, TABLE({SET}) s"
OF_COLUMN = f"(SELECT p.id, p.age, {SET} AS pset FROM people p) t"
SETS = {
    "derived table": (f"SELECT t.id, s.prediction, s.probability FROM {OF_COLUMN}, TABLE(t.pset) s", INLINE),
    "as Oracle writes it": (
        "SELECT t.id, s.prediction, s.probability FROM (SELECT id, PREDICTION_SET(forest, 2 USING *) pset FROM people) t, "
        "TABLE(t.pset) s",
        INLINE,
    ),
    "cross join": (f"SELECT t.id, s.* FROM {OF_COLUMN} CROSS JOIN TABLE(t.pset) s", INLINE),
    "left join": (f"SELECT t.id, s.prediction, s.probability FROM {OF_COLUMN} LEFT JOIN TABLE(t.pset) s ON 1 = 1", INLINE),
    "with query": (f"WITH w AS (SELECT t.* FROM {OF_COLUMN}) SELECT w.id, s.* FROM w, TABLE(pset) s", INLINE),
    "other names": (
        f"WITH w (i, k) AS (SELECT t.id, t.pset FROM {OF_COLUMN}) SELECT x.i, s.a, s.b FROM (SELECT * FROM w) x, TABLE(x.k) s (a, b)",
        INLINE,
    ),
    "filtered": (
        f"SELECT t.id, s.* FROM {OF_COLUMN}, TABLE(t.pset) s WHERE s.probability > 0.5 AND t.id < 20",
        f"{INLINE} WHERE s.probability > 0.5 AND p.id < 20",
    ),
    "best of all": (
        f"SELECT t.id, s.* FROM {OF_COLUMN}, TABLE(t.pset) s ORDER BY s.probability DESC, t.id FETCH FIRST 9 ROWS ONLY",
        f"{INLINE} ORDER BY s.probability DESC, p.id FETCH FIRST 9 ROWS ONLY",
    ),
    "subquery of an expression": (
        f"SELECT t.id, (SELECT MAX(s.probability) FROM TABLE(t.pset) s) FROM {OF_COLUMN}",
        f"SELECT id, MAX(probability) FROM ({INLINE}) x GROUP BY id",
    ),
    "union": (
        f"SELECT t.id, s.* FROM (SELECT p.id, {SET} AS pset FROM people p WHERE p.id < 9 UNION ALL "
        f"SELECT p.id, {SET} FROM people p WHERE p.id >= 9) t, TABLE(t.pset) s",
        INLINE,
    ),
    "numeric classes": (
        "SELECT t.id, s.* FROM (SELECT p.id, PREDICTION_SET(numbers USING p.*) AS c FROM people p) t, TABLE(t.c) s",
        "SELECT p.id, s.* FROM people p, TABLE(PREDICTION_SET(numbers USING p.*)) s",
    ),
    "clusters": (
        "SELECT t.id, s.cluster_id, s.probability FROM (SELECT p.id, CLUSTER_SET(mixture, NULL, 0.01 USING p.*) AS c FROM people p) t, "
        "TABLE(t.c) s",
        "SELECT p.id, s.cluster_id, s.probability FROM people p, TABLE(CLUSTER_SET(mixture, NULL, 0.01 USING p.*)) s",
    ),
    "score of a set": (
        f"SELECT t.id, PREDICTION(towns USING s.prediction AS city, t.age AS age) FROM {OF_COLUMN}, TABLE(t.pset) s",
        "SELECT x.id, PREDICTION(towns USING x.prediction AS city, x.age AS age) FROM "
        f"(SELECT p.id, p.age, s.prediction FROM people p, TABLE({SET}) s) x",
    ),
    "set of a set": (
        f"SELECT t.id, s.prediction, z.* FROM {OF_COLUMN}, TABLE(t.pset) s, TABLE(PREDICTION_SET(towns, 1 USING s.prediction AS city)) z",
        f"SELECT x.id, x.prediction, z.* FROM ({INLINE}) x, TABLE(PREDICTION_SET(towns, 1 USING x.prediction AS city)) z",
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", SETS)
@pytest.mark.parametrize("dialect", ["postgres", "oracle"])
def test_rows_of_a_set_in_a_column(place: str, dialect: str, request: pytest.FixtureRequest) -> None:
    """TABLE(t.pset) gives the rows, with the types, that TABLE(PREDICTION_SET(...)) gives."""
    db = request.getfixturevalue("people" if dialect == "postgres" else "oracle_people")
    found, expected = (db.execute(statement.encode()) for statement in SETS[place])
    assert [c.type_code for c in found.description] == [c.type_code for c in expected.description]
    rows, wanted = sorted(found.fetchall()), sorted(expected.fetchall())
    assert len(rows) == len(wanted) > 0
    for row, want in zip(rows, wanted, strict=True):
        assert [type(value) for value in row] == [type(value) for value in want]
        close = [pytest.approx(value, abs=CLOSE) if isinstance(value, float) else value for value in want]
        assert list(row) == close


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


# Oracle's USER and its grants --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "shown"), [("scorer", "SCORER"), ('"Scorer"', "Scorer")])
def test_user_is_the_owner_that_the_dictionary_shows(
    oracle: pythiadb.Connection, role: str, shown: str
) -> None:
    with oracle.transaction(force_rollback=True):
        oracle.execute(f"CREATE ROLE {role}".encode())
        oracle.execute(f"SET ROLE {role}".encode())
        cursor = oracle.execute("SELECT USER FROM dual")
        assert cursor.description is not None
        assert cursor.description[0].name == "user"
        assert cursor.fetchall() == [(shown,)]


def test_models_of_the_user(oracle_people: pythiadb.Connection, made: dict[str, Made]) -> None:
    """The query that scripts for Oracle ask gives the models that the role owns."""
    rows = oracle_people.execute(
        "SELECT model_name FROM all_mining_models WHERE owner = USER AND model_name IN ('FOREST', 'MIXTURE')"
    ).fetchall()
    assert sorted(set(rows)) == [("FOREST",), ("MIXTURE",)]


def test_rights_in_oracle_sql(oracle: pythiadb.Connection) -> None:
    """A right beside a role, and the use of a package, are given and taken back."""
    held = (
        "SELECT has_function_privilege('loader', 'pythia.name_model(bigint, regclass)', 'EXECUTE'), "
        "pg_has_role('loader', 'analyst', 'MEMBER'), "
        "(SELECT count(*) FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'dbms_vector' AND a.grantee = to_regrole('loader'))"
    )
    with oracle.transaction(force_rollback=True):
        for role in ("analyst", "loader"):
            oracle.execute(f"CREATE ROLE {role} NOT IDENTIFIED".encode())
        assert oracle.execute(held).fetchone() == (False, False, 0)
        oracle.execute("GRANT analyst, CREATE MINING MODEL TO loader")
        oracle.execute("GRANT EXECUTE ON DBMS_VECTOR TO loader")
        assert oracle.execute(held).fetchone() == (True, True, 1)
        oracle.execute("REVOKE EXECUTE ON DBMS_VECTOR FROM loader")
        oracle.execute("REVOKE CREATE MINING MODEL, analyst FROM loader")
        assert oracle.execute(held).fetchone() == (False, False, 0)


@pytest.mark.parametrize(
    ("statement", "hint"),
    [
        ("GRANT CREATE MINING MODEL TO PUBLIC", "grant it to a role"),
        ("GRANT READ ON DIRECTORY models TO loader", "CALL pythia.create_directory('models', '/the/path', "),
        ("DROP DIRECTORY models", "DELETE FROM pythia.directory WHERE name = lower('models')"),
    ],
)
def test_rights_that_are_given_otherwise(oracle: pythiadb.Connection, statement: str, hint: str) -> None:
    with pytest.raises(FeatureNotSupported) as caught:
        oracle.execute(statement.encode())
    assert hint in (caught.value.hint or "")


def test_what_the_hints_name_works(oracle: pythiadb.Connection) -> None:
    with oracle.transaction(force_rollback=True):
        oracle.execute("CREATE ROLE loader")
        oracle.execute("CALL pythia.create_directory('hinted', '/srv/models', '{loader}')")
        row = oracle.execute(
            "SELECT path, readers::text[] FROM pythia.directory WHERE name = 'hinted'"
        ).fetchone()
        assert row == ("/srv/models", ["loader"])
        assert oracle.execute("DELETE FROM pythia.directory WHERE name = lower('HINTED')").rowcount == 1
