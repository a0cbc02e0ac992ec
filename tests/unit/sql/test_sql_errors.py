"""Errors name what is wrong, in PostgreSQL's words, and where."""

from __future__ import annotations

import pytest
from sql_fixtures import Facts

from pythiadb.errors import FeatureNotSupported, InvalidParameter, PythiaError, SQLSyntaxError
from pythiadb.sql import Dialect, translate

CASES: list[tuple[str, type[PythiaError], str, str]] = [
    ("SELECT 1;\nSELECT VECTOR_DISTANCE(a, b, NEAR) FROM t", InvalidParameter, 'unrecognized distance metric "NEAR"', "line 2, column 30"),
    ("SELECT VECTOR_DISTANCE(a, b, CUSTOM)", FeatureNotSupported, "distance metric CUSTOM is not supported", "line 1, column 30"),
    ("SELECT VECTOR_DISTANCE(a)", SQLSyntaxError, "vector_distance takes two or three arguments", "line 1, column 8"),
    ("SELECT VECTOR_DISTANCE(a, (b", SQLSyntaxError, "unterminated argument list of vector_distance", "line 1, column 8"),
    ("CREATE TABLE t (v VECTOR(9, BINARY))", InvalidParameter, "dimensions of a binary vector must be a multiple of 8, not 9", "line 1, column 26"),
    ("CREATE TABLE t (v VECTOR(0, FLOAT32))", InvalidParameter, "vector dimensions must be between 1 and 65535, not 0", "line 1, column 26"),
    ("CREATE TABLE t (v VECTOR(65536, FLOAT32))", InvalidParameter, "vector dimensions must be between 1 and 65535, not 65536", "line 1, column 26"),
    ("CREATE TABLE t (v VECTOR(3.5, FLOAT32))", InvalidParameter, "vector dimensions must be between 1 and 65535, not 3.5", "line 1, column 26"),
    ("CREATE TABLE t (v VECTOR(3, INT8))", FeatureNotSupported, "vector format INT8 is not supported", "line 1, column 29"),
    ("CREATE TABLE t (v VECTOR(3, FLOAT64))", FeatureNotSupported, "vector format FLOAT64 is not supported", "line 1, column 29"),
    ("CREATE TABLE t (v VECTOR(3, FLOAT16))", InvalidParameter, 'invalid vector format "float16"', "line 1, column 29"),
    ("CREATE TABLE t (v VECTOR(8, BINARY, SPARSE))", InvalidParameter, "a binary vector cannot be sparse", "line 1, column 37"),
    ("CREATE TABLE t (v VECTOR(8, *, HUGE))", InvalidParameter, 'invalid vector storage "huge"', "line 1, column 32"),
    ("CREATE TABLE t (v VECTOR(8, *, *, *))", SQLSyntaxError, "too many arguments of type vector", "line 1, column 35"),
    ("SELECT TO_VECTOR()", SQLSyntaxError, "to_vector takes one to four arguments", "line 1, column 8"),
    ("SELECT TO_VECTOR(a, 3, INT8)", FeatureNotSupported, "vector format INT8 is not supported", "line 1, column 24"),
    ("SELECT FROM_VECTOR(v RETURNING BLOB)", FeatureNotSupported, "from_vector returning blob is not supported", "line 1, column 22"),
    ("SELECT FROM_VECTOR(v RETURNING int)", SQLSyntaxError, 'syntax error at or near "int"', "line 1, column 32"),
    ("SELECT VECTOR_EMBEDDING(m USING a AS x, b AS y)", SQLSyntaxError, "an embedding model takes one attribute", "line 1, column"),
    ("SELECT VECTOR_EMBEDDING(m USING a, b)", SQLSyntaxError, "an embedding model takes one attribute", "line 1, column 36"),
    ("SELECT VECTOR_EMBEDDING(m USING)", SQLSyntaxError, 'syntax error at or near ")"', "line 1, column 32"),
    ("SELECT VECTOR_EMBEDDING(USING a)", SQLSyntaxError, 'syntax error at or near "USING"', "line 1, column 25"),
    ("SELECT VECTOR_EMBEDDING('m' USING a)", SQLSyntaxError, "syntax error at or near \"'m'\"", "line 1, column 25"),
    ("SELECT VECTOR_EMBEDDING(a b USING c)", SQLSyntaxError, 'syntax error at or near "b"', "line 1, column 27"),
    ("SELECT VECTOR_EMBEDDING(m USING a AS b c)", SQLSyntaxError, 'syntax error at or near "c"', "line 1, column 40"),
    ("SELECT id FROM t FETCH APPROX FIRST 5 ROWS", SQLSyntaxError, "fetch clause without ONLY or WITH TIES", "line 1, column 31"),
    ("SELECT id FROM t FETCH APPROX FIRST 5 ROWS ONLY WITH TARGET ACCURACY 101", InvalidParameter, "target accuracy must be between 1 and 100, not 101", "line 1, column 70"),
    ("SELECT id FROM t ORDER BY d FETCH APPROX FIRST 5 ROWS ONLY WITH TARGET ACCURACY", SQLSyntaxError, "syntax error at end of input", "line 1, column 80"),
    ("SELECT id FROM t ORDER BY d FETCH APPROX FIRST 5 ROWS ONLY WITH TARGET ACCURACY high", SQLSyntaxError, 'syntax error at or near "high"', "line 1, column 81"),
    ("SELECT (SELECT id FROM t FETCH EXACT FIRST 5 ROWS ONLY ACCURACY)", SQLSyntaxError, 'syntax error at or near ")"', "line 1, column 64"),
    ("SELECT id FROM t ORDER BY d FETCH APPROX FIRST 5 PERCENT ROWS ONLY", FeatureNotSupported, "FETCH with PERCENT is not supported yet", "line 1, column 50"),
    ("SELECT id FROM t ORDER BY d FETCH APPROX FIRST 2 PARTITIONS BY a, 5 ROWS ONLY", FeatureNotSupported, "FETCH with PARTITIONS BY is not supported yet", "line 1, column 50"),
    ("SELECT id FROM t ORDER BY d FETCH APPROX FIRST 5 ROWS ONLY WITH TARGET ACCURACY PARAMETERS ()", SQLSyntaxError, 'syntax error at or near ")"', "line 1, column 93"),
    ("SELECT id FROM t ORDER BY d FETCH APPROX FIRST 5 ROWS ONLY WITH TARGET ACCURACY PARAMETERS (EFSEARCH 0)", InvalidParameter, "efsearch must be a whole number between 1 and 4294967295, not 0", "line 1, column 102"),
    ("SELECT id FROM t ORDER BY d FETCH APPROX FIRST 5 ROWS ONLY WITH TARGET ACCURACY PARAMETERS (PROBES 3)", SQLSyntaxError, 'syntax error at or near "PROBES"', "line 1, column 93"),
    ("CREATE VECTOR INDEX ON t (v)", SQLSyntaxError, 'syntax error at or near "t"', "line 1, column 24"),
    ("CREATE VECTOR INDEX i ON t", SQLSyntaxError, "syntax error at end of input", "line 1, column 27"),
    ("CREATE VECTOR INDEX i ON t ()", SQLSyntaxError, 'syntax error at or near ")"', "line 1, column 29"),
    ("CREATE VECTOR INDEX i ON t (v", SQLSyntaxError, "syntax error at end of input", "line 1, column 30"),
    ("CREATE VECTOR INDEX i ON t (v, w)", FeatureNotSupported, "a vector index on several columns is not supported", "line 1, column 32"),
    ("CREATE VECTOR INDEX i ON t (l2_normalize(v))", FeatureNotSupported, "a vector index on an expression is not supported", "line 1, column 29"),
    ("CREATE VECTOR INDEX i ON t (v vector_cosine_ops)", SQLSyntaxError, 'syntax error at or near "vector_cosine_ops"', "line 1, column 31"),
    ("CREATE VECTOR INDEX i ON t (v) INCLUDE (a, b c)", SQLSyntaxError, 'syntax error at or near "c"', "line 1, column 46"),
    ("CREATE VECTOR INDEX i ON t (v) ORGANIZATION NEIGHBOR GRAPH", SQLSyntaxError, 'syntax error at or near "GRAPH"', "line 1, column 54"),
    ("CREATE VECTOR INDEX i ON t (v) ORGANIZATION INMEMORY NEIGHBOR GRAPH DISTANCE NEAR", InvalidParameter, 'unrecognized distance metric "NEAR"', "line 1, column 78"),
    ("CREATE VECTOR INDEX i ON t (v) DISTANCE CUSTOM f", FeatureNotSupported, "distance metric CUSTOM is not supported", "line 1, column 41"),
    ("CREATE VECTOR INDEX i ON t (v) WITH TARGET ACCURACY 0", InvalidParameter, "target accuracy must be a whole number between 1 and 100, not 0", "line 1, column 53"),
    ("CREATE VECTOR INDEX i ON t (v) WITH TARGET ACCURACY 1 + 2", SQLSyntaxError, 'syntax error at or near "+"', "line 1, column 55"),
    ("CREATE VECTOR INDEX i ON t (v) PARAMETERS (TYPE IVF, NEIGHBORS 3)", InvalidParameter, "neighbors does not belong to ORGANIZATION NEIGHBOR PARTITIONS", "line 1, column 54"),
    ("CREATE VECTOR INDEX i ON t (v) ORGANIZATION INMEMORY GRAPH PARAMETERS (TYPE IVF)", InvalidParameter, "type IVF does not belong to ORGANIZATION INMEMORY NEIGHBOR GRAPH", "line 1, column 77"),
    ("CREATE VECTOR INDEX i ON t (v) PARAMETERS (NEIGHBORS 2049)", InvalidParameter, "neighbors must be a whole number between 1 and 2048, not 2049", "line 1, column 54"),
    ("CREATE VECTOR INDEX i ON t (v) PARAMETERS (LISTS 3)", SQLSyntaxError, 'syntax error at or near "LISTS"', "line 1, column 44"),
    ("CREATE VECTOR INDEX i ON t (v) QUANTIZATION SCALAR COMPRESSION RATIO 4", FeatureNotSupported, "QUANTIZATION is not supported", "line 1, column 32"),
    ("CREATE VECTOR INDEX i ON t (v) DISTRIBUTE BY ROWID RANGE", FeatureNotSupported, "DISTRIBUTE is not supported", "line 1, column 32"),
    ("CREATE VECTOR INDEX i ON t (v) ONLINE LOCAL", FeatureNotSupported, "LOCAL vector indexes are not supported", "line 1, column 39"),
    ("CREATE VECTOR INDEX i ON t (v) PARALLEL 0", InvalidParameter, "parallel must be a whole number between 1 and 1024, not 0", "line 1, column 41"),
    ("CREATE VECTOR INDEX i ON t (v) TABLESPACE x", SQLSyntaxError, 'syntax error at or near "TABLESPACE"', "line 1, column 32"),
    ("CREATE UNIQUE VECTOR INDEX i ON t (v)", FeatureNotSupported, "CREATE UNIQUE VECTOR INDEX is not supported yet", "line 1, column 1"),
    ("CREATE BITMAP VECTOR INDEX i ON t (v)", FeatureNotSupported, "CREATE BITMAP VECTOR INDEX is not supported yet", "line 1, column 1"),
    ("CREATE HYBRID VECTOR INDEX i ON t (d)", FeatureNotSupported, "CREATE HYBRID VECTOR INDEX is not supported yet", "line 1, column 1"),
    ("EXPLAIN PLAN FOR SELECT 1", FeatureNotSupported, "EXPLAIN PLAN FOR is not supported yet", "line 1, column 1"),
    ("SELECT PREDICTION_DETAILS(m USING a AS x) FROM t", FeatureNotSupported, "PREDICTION_DETAILS with USING is not supported yet", "line 1, column 8"),
    ("SELECT FEATURE_ID(m USING *) FROM t", FeatureNotSupported, "FEATURE_ID with USING is not supported yet", "line 1, column 8"),
    ("SELECT PREDICTION(m COST MODEL USING a) FROM t", FeatureNotSupported, "PREDICTION with a cost matrix is not supported", "line 1, column 21"),
    ("SELECT PREDICTION(ORDERED m USING a) FROM t", FeatureNotSupported, "PREDICTION with ORDERED is not supported", "line 1, column 19"),
    ("SELECT PREDICTION(OF ANOMALY USING a) OVER () FROM t", FeatureNotSupported, "PREDICTION as an analytic function is not supported", "line 1, column 8"),
    ("SELECT CLUSTER_ID(INTO 4 USING a) OVER () FROM t", FeatureNotSupported, "CLUSTER_ID as an analytic function is not supported", "line 1, column 8"),
    ("SELECT PREDICTION(m, 1 USING a) FROM t", SQLSyntaxError, "too many arguments of prediction", "line 1, column 22"),
    ("SELECT CLUSTER_SET(m, 1, 2, 3 USING a) FROM t", SQLSyntaxError, "too many arguments of cluster_set", "line 1, column 29"),
    ("SELECT PREDICTION_SET(m, USING a) FROM t", SQLSyntaxError, 'syntax error at or near "USING"', "line 1, column 26"),
    ("SELECT PREDICTION(m USING a,) FROM t", SQLSyntaxError, 'syntax error at or near ")"', "line 1, column 29"),
    ("SELECT PREDICTION(m USING a + 1) FROM t", SQLSyntaxError, "attribute without a name", "line 1, column 27"),
    ("SELECT PREDICTION(m USING 'x') FROM t", SQLSyntaxError, "attribute without a name", "line 1, column 27"),
    ("SELECT PREDICTION(m USING *) FROM (t JOIN u ON t.a = u.a)", FeatureNotSupported, "USING * of prediction needs tables with names", "line 1, column 27"),
    ("SELECT s.* FROM TABLE(PREDICTION_SET(m USING *)) s", FeatureNotSupported, "USING * of prediction_set needs tables with names", "line 1, column"),
    ("SELECT * FROM v, TABLE(v.p) s", FeatureNotSupported, "TABLE(v.p) is not a set that this statement computes", "line 1, column 18"),
    ('SELECT s.* FROM (SELECT a, CLUSTER_SET(m USING a AS "a") AS c FROM t) AS q, TABLE(q.a) AS s', FeatureNotSupported, "TABLE(q.a) is not a set that this statement computes", "line 1, column 77"),
    ('SELECT s.* FROM (SELECT CLUSTER_SET(m USING 1 AS "a") AS c) AS q, TABLE(r.c) AS s', FeatureNotSupported, "TABLE(r.c) is not a set that this statement computes", "line 1, column 67"),
    ('SELECT s.* FROM TABLE(q.c) AS s, (SELECT CLUSTER_SET(m USING 1 AS "a") AS c) AS q', FeatureNotSupported, "TABLE(q.c) is not a set that this statement computes", "line 1, column 17"),
    ("WITH RECURSIVE t (c) AS (SELECT c FROM t) SELECT * FROM t, TABLE(t.c) AS s", FeatureNotSupported, "TABLE(t.c) is not a set that this statement computes", "line 1, column"),
    ("SELECT * FROM TABLE(f(1)) AS s", FeatureNotSupported, "TABLE(f(1)) is not a set that this statement computes", "line 1, column 15"),
    ("SELECT s.cost FROM t, TABLE(PREDICTION_SET(m USING t.a)) s", FeatureNotSupported, "column cost of prediction_set is not supported", "line 1, column 8"),
    ('SELECT s.a FROM (SELECT CLUSTER_SET(m USING 1 AS "a") AS c) AS q, TABLE(q.c) AS s WHERE s.cost > 1', FeatureNotSupported, "column cost of cluster_set is not supported", "line 1, column 89"),
    ("CREATE TABLE t (a int, p float8 GENERATED ALWAYS AS (PREDICTION(m USING a)) STORED)", FeatureNotSupported, "prediction in a generated column is not supported", "line 1, column"),
    ("SELECT * FROM t, VECTOR_CHUNKS(t.d BY words MAX 200) c", FeatureNotSupported, "VECTOR_CHUNKS is not supported yet", "line 1, column 18"),
    ("ALTER TABLE t INMEMORY", FeatureNotSupported, "INMEMORY is not supported yet", "line 1, column 15"),
    ("CREATE TABLE t (a int) INMEMORY", FeatureNotSupported, "INMEMORY is not supported yet", "line 1, column 24"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "message", "place"), CASES, ids=[case[0][:60] for case in CASES])
@pytest.mark.parametrize("dialect", ["postgres", "oracle"])
def test_error(text: str, kind: type[PythiaError], message: str, place: str, dialect: Dialect) -> None:
    with pytest.raises(kind) as caught:
        translate(text, dialect=dialect)
    assert caught.value.message == message
    assert place in (caught.value.detail or "")


HINTED = "SELECT /*+ VECTOR_INDEX_{} */ id FROM t WHERE t.a = 1 ORDER BY v <=> '[1]' FETCH APPROX FIRST 5 ROWS ONLY"
INDEXED: list[tuple[str, type[PythiaError], str, str]] = [
    ("DROP INDEX other, i", FeatureNotSupported, "dropping a vector index together with others is not supported", "line 1, column 19"),
    ("DROP INDEX i WHERE true", SQLSyntaxError, 'syntax error at or near "WHERE"', "line 1, column 14"),
    ("ALTER INDEX i REBUILD PARTITION p", FeatureNotSupported, "REBUILD PARTITION is not supported", "line 1, column 23"),
    ("ALTER INDEX i REBUILD WITH TARGET ACCURACY 90", SQLSyntaxError, 'syntax error at or near "TARGET"', "line 1, column 28"),
    ("ALTER INDEX i RENAME TO", SQLSyntaxError, "syntax error at end of input", "line 1, column 24"),
    ("ALTER INDEX i UNUSABLE", FeatureNotSupported, "ALTER INDEX with UNUSABLE is not supported for a vector index", "line 1, column 15"),
    (HINTED.format("TRANSFORM(t i MID_FILTER)"), InvalidParameter, 'unrecognized filter type "MID_FILTER"', "line 1, column 12"),
    (HINTED.format("SCAN()"), SQLSyntaxError, "hint VECTOR_INDEX_SCAN takes 1 to 2 names, not 0", "line 1, column 12"),
    (HINTED.format("SCAN(t i PRE_FILTER_WITH_JOIN_BACK)"), SQLSyntaxError, "hint VECTOR_INDEX_SCAN takes 1 to 2 names, not 3", "line 1, column 12"),
    (HINTED.format("SCAN(t.i)"), SQLSyntaxError, 'hint VECTOR_INDEX_SCAN: syntax error at or near "."', "line 1, column 12"),
    (HINTED.format("SCAN(u)"), InvalidParameter, 'hint VECTOR_INDEX_SCAN names "u", which the query block does not read', "line 1, column 12"),
    (HINTED.format("SCAN(t j)"), InvalidParameter, 'hint VECTOR_INDEX_SCAN names vector index "j", but t has "i"', "line 1, column 12"),
    (HINTED.format("TRANSFORM(t i IN_FILTER_WITH_JOIN_BACK)"), FeatureNotSupported, "vector index i cannot judge anything of the filter", "line 1, column 12"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "message", "place"), INDEXED, ids=[case[0] for case in INDEXED])
@pytest.mark.parametrize("dialect", ["postgres", "oracle"])
def test_error_about_a_vector_index(
    text: str, kind: type[PythiaError], message: str, place: str, dialect: Dialect
) -> None:
    catalog = Facts(("index i(t: 1 v vector COSINE VALID id bigint)",))
    with pytest.raises(kind) as caught:
        translate(text, dialect=dialect, catalog=catalog)
    assert caught.value.message == message
    assert place in (caught.value.detail or "")


HINTS: list[tuple[str, str]] = [
    ("CREATE VECTOR INDEX i ON t (v) WITH TARGET ACCURACY 0", "percentage"),
    ("CREATE VECTOR INDEX i ON t (v) WITH TARGET ACCURACY 101", "percentage"),
    ("CREATE VECTOR INDEX i ON t (v) WITH TARGET ACCURACY -1", "percentage"),
    ("CREATE VECTOR INDEX i ON t (v) WITH TARGET ACCURACY 90.5", "percentage"),
    ("CREATE VECTOR INDEX i ON t (v) ORGANIZATION GRAPH", "ORGANIZATION INMEMORY NEIGHBOR GRAPH or ORGANIZATION NEIGHBOR PARTITIONS"),
    ("CREATE VECTOR INDEX i ON t (v) ORGANIZATION", "ORGANIZATION NEIGHBOR PARTITIONS"),
    ("CREATE VECTOR INDEX i ON t (v) TABLESPACE x", "The clauses are INCLUDE"),
    ("CREATE VECTOR INDEX i ON t (v) PARAMETERS (LISTS 3)", "Partitions have TYPE IVF"),
    ("CREATE VECTOR INDEX i ON t (v) PARAMETERS (TYPE FLAT)", "HNSW and IVF"),
    ("CREATE VECTOR INDEX i ON t (v) PARAMETERS (NEIGHBORS 0)", "Leave it out"),
    ("CREATE VECTOR INDEX i ON t (v) PARAMETERS (NEIGHBOR PARTITION GROUPING ON)", "leave it out"),
    ("CREATE VECTOR INDEX i ON t (v) PARAMETERS (ALGORITHM UNIFORM_QUANTIZATION)", "leave it out"),
    ("CREATE VECTOR INDEX i ON t (v) COMPRESSION RATIO 4", "leave it out"),
    ("CREATE VECTOR INDEX i ON t (v) PARALLEL 0", "threads"),
    ("CREATE VECTOR INDEX i ON t (v, w)", "for each column"),
    ("CREATE VECTOR INDEX i ON t (v) DISTANCE NEAR", "COSINE"),
    ("CREATE UNIQUE VECTOR INDEX i ON t (v)", "CREATE VECTOR INDEX"),
    ("CREATE BITMAP VECTOR INDEX i ON t (v)", "CREATE VECTOR INDEX"),
    ("CREATE HYBRID VECTOR INDEX i ON t (d)", "Create a vector index"),
    ("ALTER INDEX i REBUILD WITH TARGET ACCURACY 90", "pythia.rebuild_vector_index"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "hint"), HINTS, ids=[case[0] for case in HINTS])
def test_bad_definition_of_an_index_says_what_helps(text: str, hint: str) -> None:
    with pytest.raises(PythiaError) as caught:
        translate(text)
    assert hint in (caught.value.hint or "")


ORACLE: list[tuple[str, type[PythiaError], str, str]] = [
    ("BEGIN x; y;", SQLSyntaxError, "anonymous block without END", "line 1, column 12"),
    ("BEGIN\n  p(1);\n  x = 2;\nEND;", SQLSyntaxError, 'syntax error at or near "x"', "line 3, column 3"),
    ("BEGIN SELECT 1 FROM dual; END;", SQLSyntaxError, "SELECT without INTO in a block", "line 1, column 7"),
    ("BEGIN :x := 1; END;", FeatureNotSupported, "assigning the bind variable :x is not supported", "line 1, column 7"),
    ("BEGIN GOTO x; END;", FeatureNotSupported, "GOTO in a block is not supported", "line 1, column 7"),
    ("DECLARE PRAGMA AUTONOMOUS_TRANSACTION; BEGIN NULL; END;", FeatureNotSupported, "PRAGMA AUTONOMOUS_TRANSACTION in a block is not supported", "line 1, column 9"),
    ("DECLARE e EXCEPTION; BEGIN NULL; END;", FeatureNotSupported, "E EXCEPTION in a block is not supported", "line 1, column 9"),
    ("DECLARE CURSOR k (n NUMBER) IS SELECT 1 FROM t; BEGIN NULL; END;", FeatureNotSupported, "a cursor with parameters is not supported", "line 1, column 9"),
    ("BEGIN NULL; EXCEPTION WHEN mine THEN NULL; END;", FeatureNotSupported, "exception mine is not supported", "line 1, column 28"),
    ("BEGIN SELECT id BULK COLLECT INTO x FROM t; END;", FeatureNotSupported, "BULK COLLECT is not supported", "line 1, column 7"),
    ("BEGIN DBMS_OUTPUT.PUT('x'); END;", FeatureNotSupported, "DBMS_OUTPUT.PUT is not supported", "line 1, column"),
    ("SELECT ROWNUM FROM t", FeatureNotSupported, "ROWNUM is supported as WHERE ROWNUM <= n only", ""),
    ("SELECT COUNT(*) FROM t WHERE ROWNUM < 9", FeatureNotSupported, "ROWNUM is supported as WHERE ROWNUM <= n only", ""),
    ("GRANT ALTER ON MINING MODEL m TO r", FeatureNotSupported, "privilege ALTER on a mining model is not supported", "line 1, column 7"),
    ("GRANT CREATE MINING MODEL TO bob WITH ADMIN OPTION", FeatureNotSupported, "CREATE MINING MODEL WITH ADMIN OPTION is not supported", "line 1, column 34"),
    ("GRANT CREATE MINING MODEL TO bob, PUBLIC", FeatureNotSupported, "CREATE MINING MODEL for PUBLIC is not supported", "line 1, column 35"),
    ("REVOKE CREATE ANY MINING MODEL FROM bob", FeatureNotSupported, "privilege CREATE ANY MINING MODEL is not supported", "line 1, column 8"),
    ("GRANT SELECT ANY MINING MODEL TO bob", FeatureNotSupported, "privilege SELECT ANY MINING MODEL is not supported", "line 1, column 7"),
    ("GRANT r, DROP ANY MINING MODEL TO bob", FeatureNotSupported, "privilege DROP ANY MINING MODEL is not supported", "line 1, column 10"),
    ("GRANT CREATE SESSION, CREATE MINING MODEL TO bob", FeatureNotSupported, "privilege CREATE SESSION is not supported", "line 1, column 7"),
    ("GRANT UNLIMITED TABLESPACE TO bob", FeatureNotSupported, "privilege UNLIMITED TABLESPACE is not supported", "line 1, column 7"),
    ("GRANT READ, WRITE ON DIRECTORY d TO bob", FeatureNotSupported, "GRANT on a directory is not supported", "line 1, column 22"),
    ("REVOKE READ ON DIRECTORY d FROM bob", FeatureNotSupported, "REVOKE on a directory is not supported", "line 1, column 16"),
    ("DROP DIRECTORY d", FeatureNotSupported, "DROP DIRECTORY is not supported", "line 1, column 1"),
    ("GRANT EXECUTE ON CTXSYS.DBMS_VECTOR_CHAIN TO bob", FeatureNotSupported, "package DBMS_VECTOR_CHAIN is not supported", "line 1, column 25"),
    ("CREATE DIRECTORY d IS 'x'", SQLSyntaxError, 'syntax error at or near "IS"', "line 1, column 20"),
    ("SELECT a FROM t WHERE (b", SQLSyntaxError, "", "line 1"),
    ("SELECT a FROM\n  t WHERE b = = 1", SQLSyntaxError, 'syntax error at or near "="', "line 2, column 15"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "message", "place"), ORACLE, ids=[case[0] for case in ORACLE])
def test_error_in_oracle_sql(text: str, kind: type[PythiaError], message: str, place: str) -> None:
    with pytest.raises(kind) as caught:
        translate(text, dialect="oracle")
    assert message in caught.value.message
    assert caught.value.hint or not text.startswith(("GRANT", "REVOKE", "DROP"))
    assert place in (caught.value.detail or "")


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="unrecognized dialect"):
        translate("SELECT 1", dialect="mysql")  # type: ignore[arg-type]
