"""Statements without an AI construct come back as they are, to the byte; AI constructs leave their surroundings alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_fixtures import FIXTURES, read

from pythiadb.sql import translate
from pythiadb.sql.scan import Kind, scan

# Each holds a word that makes the translator look closer.
NASTY = [
    "",
    ";",
    " ; ; -- vector\n",
    "SELECT 'VECTOR_EMBEDDING(m USING d)'",
    "SELECT E'it\\'s VECTOR_NORM(v)', U&'\\0041 vector', N'vector_norm(v)', B'1', X'1F' FROM vector",
    "SELECT $$ TO_VECTOR('[1]') $$, $vector$ VECTOR_NORM(v) $$ $vector$",
    "/* VECTOR_NORM(v) /* nested */ VECTOR_NORM(v) */ SELECT 1",
    "SELECT 1 -- VECTOR_NORM(v)",
    'SELECT "VECTOR_NORM"(v), "vector_embedding"(m, d) FROM "TO_VECTOR"',
    "SELECT v::vector(3), CAST(v AS vector), '[1]'::vector <-> v FROM t",
    "CREATE TABLE t (vector vector(3) NOT NULL, approx int, exact boolean, prediction text)",
    "CREATE TABLE vector (a int, b int)",
    "CREATE TABLE IF NOT EXISTS vector (a int)",
    "INSERT INTO vector (a, b) VALUES (1, 2)",
    "SELECT vector.a FROM vector AS v (a), LATERAL vector(3) x",
    "SELECT vector(1, 2), vector(3, x) FROM vector(1, 2)",
    "SELECT a.accuracy FROM t JOIN u ON conflict = vector FETCH FIRST 3 ROWS WITH TIES",
    "FETCH FIRST FROM accuracy; FETCH NEXT FROM vector",
    "CREATE INDEX ON vector (embedding)",
    "CREATE INDEX i ON t USING hnsw (embedding vector_cosine_ops) WITH (m = 16)",
    "COPY vector (a, b) FROM STDIN",
    "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES vector (a)",
    "WITH vector (a) AS (SELECT 1) SELECT * FROM vector",
    "DROP FUNCTION to_vector(text), vector_norm(vector)",
    "CREATE OR REPLACE FUNCTION vector_distance(a vector, b vector) RETURNS float8 LANGUAGE sql RETURN a <-> b",
    "SELECT app.vector_norm(v), app . to_vector ( v ) FROM t",
    "SELECT pythia.vector_embedding('m'::regclass, d) FROM t",
    "SELECT vector_embedding('m', d), vector_embedding(model => 'm', input => d) FROM t",
    "SELECT prediction(a, b), cluster_id(c), prediction, cluster_set FROM clusters",
    "SELECT vector_chunks(d), vector_chunks(d, max, language) FROM t",
    "SELECT t.exact, approx FROM t FETCH FIRST 3 ROWS ONLY",
    "FETCH NEXT FROM approx; FETCH FORWARD 3 FROM exact; MOVE exact",
    "EXPLAIN (ANALYZE, FORMAT JSON) SELECT v FROM vector",
    "EXPLAIN plan",
    "EXPLAIN SELECT 1 AS plan",
    "ALTER TABLE inmemory RENAME TO vector",
    "ALTER TABLE t RENAME COLUMN inmemory TO vector",
    "CREATE TABLE inmemory (inmemory int)",
    "SELECT v[1:3], ARRAY[1, 2] @> a, b ->> 'vector', c #> '{a}', d ?| e, f @@ g, h <% i, j %>> k FROM vector",
    "SELECT 1e5, 0x1F, 1_000, .5, 1., $1, a$b, ñandú, vector FROM t",
    "SELECT 'a'\n'b', vector FROM t WHERE a IS DISTINCT FROM b",
    "SELECT 'unterminated vector",
    "SELECT vector /* unterminated",
    'SELECT vector "unterminated',
    "SELECT vector $$ unterminated",
    "SELECT ((vector",
    "SELECT vector))",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN vector THEN 1 END FROM t; SELECT 2; END",
    "DO $$ BEGIN EXECUTE 'SELECT VECTOR_NORM(v)'; END $$",
    "CALL dbms_vector.load_onnx_model('dir', 'f.onnx', 'm', JSON '{}')",
    "UPDATE vector SET (a, b) = (SELECT 1, 2) WHERE CURRENT OF c",
    "CREATE FUNCTION f() RETURNS TABLE (a int) LANGUAGE sql BEGIN ATOMIC SELECT 1; END",
    'SELECT * FROM "table"(1), a."table" (2)',
    "SELECT * FROM q, TABLE (v.p",
    "GRANT SELECT ON vector TO u",
    "SELECT\t*\r\nFROM\fvector\v;\r\n",
]


@pytest.mark.parametrize("text", NASTY)
def test_a_statement_without_ai_is_untouched(text: str) -> None:
    done = translate(text)
    assert done.statements == (text,)
    assert done.binds == ()
    assert done.batched == ()


@pytest.mark.parametrize("text", NASTY)
def test_binds_are_left_to_postgresql_without_parameters(text: str) -> None:
    text += " :name :1 %s %(x)s"
    assert translate(text) == translate(text, with_parameters=False)
    assert translate(text).statements == (text,)


AI = [
    case
    for path in FIXTURES.glob("*.sql")
    for case in read(path)
    if not case.options and path.stem != "types"
]
JUNK = st.sampled_from([" ", "\n", "\t", "/* x */", "/* a /* b */ */", "-- y\n", " -- 'z\n "])


def bare(text: str) -> list[str]:
    """The tokens of a text without case and white space."""
    return [token.key.lower() for token in scan(text) if token.kind not in (Kind.SPACE, Kind.COMMENT)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_comments_and_case_change_nothing(data: st.DataObject) -> None:
    """Junk between the tokens, and another case of unquoted words, give the same translation up to these."""
    case = data.draw(st.sampled_from(AI))
    text = "".join(junk_after(token.text, token.kind, data) for token in scan(case.text))
    done = translate(text)
    assert bare(done.statements[0]) == bare(case.statements[0])
    assert [re.sub(r"\(.*?\)", "", note) for note in done.batched] == [
        re.sub(r"\(.*?\)", "", note) for note in case.notes
    ]


def junk_after(text: str, kind: Kind, data: st.DataObject) -> str:
    """A token in some case, with white space and comments behind it if that does not change the next token."""
    if kind is Kind.WORD and data.draw(st.booleans()):
        text = text.swapcase()
    if kind is Kind.STRING or kind is Kind.SPACE:
        return text
    return text + " " + data.draw(JUNK)


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text())
def test_text_around_statements_stays(before: str, behind: str) -> None:
    """What stands in other statements of the text is kept."""
    left = "/*" + re.sub(r"[*/]", "", before) + "*/ SELECT 1;"
    right = "; SELECT 2 /*" + re.sub(r"[*/]", "", behind) + "*/"
    done = translate(left + "SELECT VECTOR_NORM(v) FROM t" + right).statements[0]
    assert done == left + "SELECT pythia.vector_norm(v) FROM t" + right
