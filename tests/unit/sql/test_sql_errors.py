"""Errors name what is wrong, in PostgreSQL's words, and where."""

from __future__ import annotations

import pytest

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
    ("SELECT VECTOR_EMBEDDING(m USING a, b)", SQLSyntaxError, "an embedding model takes one attribute", "line 1, column 8"),
    ("SELECT VECTOR_EMBEDDING(m USING)", SQLSyntaxError, 'syntax error at or near ")"', "line 1, column 32"),
    ("SELECT VECTOR_EMBEDDING(USING a)", SQLSyntaxError, 'syntax error at or near "USING"', "line 1, column 25"),
    ("SELECT VECTOR_EMBEDDING('m' USING a)", SQLSyntaxError, "syntax error at or near \"'m'\"", "line 1, column 25"),
    ("SELECT VECTOR_EMBEDDING(a b USING c)", SQLSyntaxError, 'syntax error at or near "b"', "line 1, column 27"),
    ("SELECT VECTOR_EMBEDDING(m USING a AS b c)", SQLSyntaxError, 'syntax error at or near "c"', "line 1, column 40"),
    ("SELECT id FROM t FETCH APPROX FIRST 5 ROWS", SQLSyntaxError, "fetch clause without ONLY or WITH TIES", "line 1, column 31"),
    ("SELECT id FROM t FETCH APPROX FIRST 5 ROWS ONLY WITH TARGET ACCURACY 101", InvalidParameter, "target accuracy must be between 1 and 100, not 101", "line 1, column 70"),
    ("CREATE VECTOR INDEX i ON t (v) ORGANIZATION INMEMORY NEIGHBOR GRAPH", FeatureNotSupported, "CREATE VECTOR INDEX is not supported yet", "line 1, column 1"),
    ("CREATE HYBRID VECTOR INDEX i ON t (d)", FeatureNotSupported, "CREATE HYBRID VECTOR INDEX is not supported yet", "line 1, column 1"),
    ("EXPLAIN PLAN FOR SELECT 1", FeatureNotSupported, "EXPLAIN PLAN FOR is not supported yet", "line 1, column 1"),
    ("SELECT PREDICTION(m USING a AS x) FROM t", FeatureNotSupported, "PREDICTION with USING is not supported yet", "line 1, column 8"),
    ("SELECT CLUSTER_ID(m USING *) FROM t", FeatureNotSupported, "CLUSTER_ID with USING is not supported yet", "line 1, column 8"),
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


ORACLE: list[tuple[str, type[PythiaError], str, str]] = [
    ("DECLARE x NUMBER; BEGIN p(x); END;", FeatureNotSupported, "an anonymous block may only call procedures", "line 1, column 1"),
    ("BEGIN\n  p(1);\n  x := 2;\nEND;", FeatureNotSupported, "an anonymous block may only call procedures", "line 3, column 3"),
    ("BEGIN IF a THEN p; END IF; END;", FeatureNotSupported, "an anonymous block may only call procedures", "line 1, column 7"),
    ("BEGIN NULL; END;", FeatureNotSupported, "an anonymous block may only call procedures", "line 1, column 7"),
    ("BEGIN EXECUTE IMMEDIATE 'x'; END;", FeatureNotSupported, "an anonymous block may only call procedures", "line 1, column 7"),
    ("BEGIN END;", FeatureNotSupported, "an anonymous block may only call procedures", "line 1, column 1"),
    ("SELECT a FROM t WHERE (b", SQLSyntaxError, "", "line 1"),
    ("SELECT a FROM\n  t WHERE b = = 1", SQLSyntaxError, 'syntax error at or near "="', "line 2, column 15"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "message", "place"), ORACLE, ids=[case[0] for case in ORACLE])
def test_error_in_oracle_sql(text: str, kind: type[PythiaError], message: str, place: str) -> None:
    with pytest.raises(kind) as caught:
        translate(text, dialect="oracle")
    assert message in caught.value.message
    assert place in (caught.value.detail or "")


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="unrecognized dialect"):
        translate("SELECT 1", dialect="mysql")  # type: ignore[arg-type]
