"""Embedding in SQL: the numbers are bare ONNX Runtime's, in every place of a statement, singly and in batches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psycopg
import pytest
from tokenizers import Tokenizer

import pythiadb
from pythiadb.models.loading import read_packages

TEXTS = [
    "The notebook restarts by itself a few minutes after the fan spins up",
    "Screen stays black when the machine is switched on",
    "Ein Drucker, der nicht druckt — naïve Größe 東京",
    "",
    "a " * 2000,
]


@pytest.fixture(scope="session")
def bare(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Embeddings by onnxruntime and tokenizers alone, one text at a time."""
    package = read_packages(minilm_folder, tmp_path_factory.mktemp("bare"))[""]
    session = ort.InferenceSession(package.files["model.onnx"])
    tokenizer = Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    found = {}
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        feed = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [[0] * len(ids)]}
        names = {i.name for i in session.get_inputs()}
        found[text] = session.run(None, {k: np.array(v, np.int64) for k, v in feed.items() if k in names})[0][
            0
        ]
    return found


@pytest.fixture
def texts(db: pythiadb.Connection) -> pythiadb.Connection:
    """A table of the texts with duplicates and a NULL."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, grp int, body text, v vector(384))")
    rows = [(n, n % 2, text) for n, text in enumerate([*TEXTS, TEXTS[0], None])]
    db.cursor().executemany("INSERT INTO t VALUES (%s, %s, %s)", rows)
    return db


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("text", TEXTS)
def test_single_call_equals_bare_onnxruntime(
    db: pythiadb.Connection, bare: dict[str, np.ndarray], text: str
) -> None:
    row = db.execute("SELECT vector_embedding('minilm', %s)", (text,)).fetchone()
    assert row is not None
    assert cosine(row[0], bare[text]) >= 0.99999


EMBED = "VECTOR_EMBEDDING(minilm USING body AS data)"

PLACES = {
    "select": f"SELECT id, {EMBED} FROM t",
    "subquery": f"SELECT * FROM (SELECT id, {EMBED} AS e FROM t WHERE id < 100) s",
    "cte": f"WITH s AS (SELECT id, {EMBED} AS e FROM t) SELECT id, e FROM s",
    "join": f"SELECT a.id, VECTOR_EMBEDDING(minilm USING b.body AS data) FROM t a JOIN t b USING (id)",  # noqa: F541
    "comma": f"SELECT a.id, VECTOR_EMBEDDING(minilm USING b.body AS data) FROM t a, t b WHERE a.id = b.id",  # noqa: F541
    "union": f"SELECT id, {EMBED} FROM t WHERE id < 3 UNION ALL SELECT id, {EMBED} FROM t WHERE id >= 3",
    "lateral": f"SELECT t.id, e.v FROM t, LATERAL (SELECT {EMBED} AS v) e",
    "scalar subquery": f"SELECT id, (SELECT {EMBED}) FROM t",
    "window": f"SELECT id, {EMBED}, row_number() OVER (PARTITION BY grp ORDER BY id) FROM t",
    "order by": f"SELECT id, {EMBED} AS e FROM t ORDER BY {EMBED} <=> '{[1.0] * 384}'",
    "limit": f"SELECT id, {EMBED} FROM t ORDER BY id FETCH FIRST 100 ROWS ONLY",
    "group": "SELECT min(id), AVG(VECTOR_EMBEDDING(minilm USING body AS data)) FROM t GROUP BY id",
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_gives_the_same_vectors(
    texts: pythiadb.Connection, bare: dict[str, np.ndarray], place: str
) -> None:
    """Row order, duplicates and NULLs stay as they are; each vector is its own text's."""
    rows = texts.execute(PLACES[place]).fetchall()
    body = dict(texts.execute("SELECT id, body FROM t").fetchall())
    assert sorted(row[0] for row in rows) == sorted(body)
    for row in rows:
        text = body[row[0]]
        assert row[1] is None if text is None else cosine(row[1], bare[text]) >= 0.99999


def check_column(db: pythiadb.Connection, table: str, bare: dict[str, np.ndarray], expected: int) -> None:
    rows = db.execute(f"SELECT body, v FROM {table}".encode()).fetchall()
    assert sum(v is not None for _, v in rows) == expected
    assert all(cosine(v, bare[body]) >= 0.99999 for body, v in rows if v is not None)


def test_update_insert_select_merge_and_create_table_as(
    texts: pythiadb.Connection, bare: dict[str, np.ndarray]
) -> None:
    texts.execute(f"UPDATE t SET v = {EMBED} WHERE id <> 1")
    check_column(texts, "t", bare, 5)
    texts.execute(f"CREATE TABLE copy AS SELECT id, body, {EMBED} AS v FROM t")
    check_column(texts, "copy", bare, 6)
    texts.execute("CREATE TABLE filled (LIKE t)")
    texts.execute(f"INSERT INTO filled (id, body, v) SELECT id, body, {EMBED} FROM t")
    check_column(texts, "filled", bare, 6)
    texts.execute(
        "MERGE INTO t USING copy c ON c.id = t.id "
        "WHEN MATCHED THEN UPDATE SET v = VECTOR_EMBEDDING(minilm USING c.body AS data)"
    )
    check_column(texts, "t", bare, 6)


def test_where_join_condition_and_views(texts: pythiadb.Connection) -> None:
    question = "VECTOR_EMBEDDING(minilm USING 'my laptop keeps rebooting' AS data)"
    near = f"VECTOR_DISTANCE({EMBED}, {question}, COSINE) < 0.6"
    assert texts.execute(f"SELECT id FROM t WHERE {near} ORDER BY id").fetchall() == [(0,), (5,)]
    texts.execute(f"CREATE VIEW near AS SELECT id FROM t WHERE {near}")
    assert texts.execute("SELECT count(*) FROM near").fetchone() == (2,)
    joined = texts.execute(
        f"SELECT a.id FROM t a JOIN t b ON a.id = b.id AND VECTOR_DISTANCE(VECTOR_EMBEDDING(minilm USING a.body AS data), {question}, COSINE) < 0.6"
    )
    assert sorted(joined.fetchall()) == [(0,), (5,)]
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        texts.execute("DROP VIEW public.minilm")


def test_generated_column_follows_its_text(db: pythiadb.Connection, bare: dict[str, np.ndarray]) -> None:
    db.execute(
        "CREATE TABLE g (id int, body text, v vector(384) GENERATED ALWAYS AS (VECTOR_EMBEDDING(minilm USING body AS data)) STORED)"
    )
    db.execute("INSERT INTO g VALUES (1, %s), (2, NULL)", (TEXTS[0],))
    db.execute("UPDATE g SET body = %s WHERE id = 1", (TEXTS[1],))
    check_column(db, "g", bare, 1)


def test_question_is_embedded_once_a_statement(texts: pythiadb.Connection) -> None:
    """A constant input is an InitPlan: one engine call however many rows are compared."""

    def calls() -> int:
        row = texts.execute("SELECT pythia.engine_status()").fetchone()
        assert row is not None
        return sum(m["rows"] for w in row[0]["workers"] for m in w["models"])

    texts.execute(f"UPDATE t SET v = {EMBED}")
    wait_for_status(texts)
    before = calls()
    texts.execute(
        "SELECT id FROM t ORDER BY VECTOR_DISTANCE(v, VECTOR_EMBEDDING(minilm USING :q AS data)) FETCH FIRST 2 ROWS ONLY",
        {"q": "x"},
    )
    wait_for_status(texts)
    assert calls() - before == 1


def wait_for_status(db: pythiadb.Connection) -> None:
    """The engine writes its status a few times a second."""
    db.execute("SELECT pg_sleep(0.6)")


def test_many_rows_travel_in_arrays(db: pythiadb.Connection) -> None:
    """600 rows are three engine calls, not 600."""
    db.execute(
        "CREATE TABLE many AS SELECT i AS id, 'text number ' || i AS body FROM generate_series(1, 600) AS i"
    )
    wait_for_status(db)
    before = engine_calls(db)
    db.execute(f"CREATE TABLE vectors AS SELECT id, {EMBED} AS v FROM many")
    wait_for_status(db)
    assert 3 <= engine_calls(db) - before <= 8
    assert db.execute("SELECT count(v), count(*) FROM vectors").fetchone() == (600, 600)


def engine_calls(db: pythiadb.Connection) -> int:
    row = db.execute("SELECT pythia.engine_status()").fetchone()
    assert row is not None
    return sum(w["calls"] for w in row[0]["workers"])


@pytest.mark.parametrize(
    ("statement", "error", "names"),
    [
        ("SELECT VECTOR_EMBEDDING(nosuch USING 'a' AS data)", psycopg.errors.UndefinedTable, "nosuch"),
        ("SELECT vector_embedding('pg_class', 'a')", psycopg.errors.UndefinedObject, "pg_class"),
        ("SELECT VECTOR_EMBEDDING(minilm USING 'a' AS picture)", psycopg.errors.UndefinedColumn, "picture"),
        ("SELECT vector_embedding('minilm', repeat('x', 5000000))", psycopg.errors.ProgramLimitExceeded, "5000000"),
        ("INSERT INTO t3 VALUES (VECTOR_EMBEDDING(minilm USING 'a' AS data))", psycopg.errors.DataException, "384"),
        ("SELECT VECTOR_DISTANCE(VECTOR_EMBEDDING(minilm USING 'a' AS data), '[1,2]', COSINE)", psycopg.errors.DataException, "different vector dimensions 384 and 2"),
        ("SELECT TO_VECTOR('[1, NaN]')", psycopg.errors.DataException, "NaN"),
        ("SELECT vector_embedding_batch('minilm', '{{a},{b}}')", psycopg.errors.DataError, "one-dimensional"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_the_session_goes_on(
    db: pythiadb.Connection, statement: str, error: type[psycopg.Error], names: str
) -> None:
    db.execute("CREATE TABLE t3 (v vector(3))")
    with pytest.raises(error, match=re.escape(names)):
        db.execute(statement)
    assert db.execute("SELECT vector_dims(vector_embedding('minilm', 'a'))").fetchone() == (384,)


def test_invalid_utf8_is_refused_by_the_server(db: pythiadb.Connection) -> None:
    with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
        db.execute(rb"SELECT vector_embedding('minilm', E'\xff')")
    assert db.execute("SELECT 1").fetchone() == (1,)


def test_long_texts_are_cut_at_the_models_length(db: pythiadb.Connection) -> None:
    """A text of 1 MB gives the embedding of its beginning."""
    row = db.execute(
        "SELECT vector_embedding('minilm', repeat('word ', 200000)), vector_embedding('minilm', repeat('word ', 254))"
    ).fetchone()
    assert row is not None
    np.testing.assert_allclose(row[0], row[1], atol=1e-5)


VALUES = ["42", "42.50::numeric", "date '2026-02-03'", "true", "'[1, 2]'::jsonb", "'abc'::varchar(10)", "'c'::char(3)",
          "'6f9619ff-8b86-d011-b42d-00c04fc964ff'::uuid", "ARRAY[1, 2]"]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_other_types_are_embedded_as_they_are_written(db: pythiadb.Connection, value: str) -> None:
    """By the call for one row, in a batch, and as a plain function; as Oracle converts by itself."""
    db.execute(f"CREATE TABLE typed AS SELECT n, {value} AS x FROM generate_series(1, 3) n".encode())
    row = db.execute("SELECT vector_embedding('minilm', x::text) FROM typed LIMIT 1").fetchone()
    assert row is not None
    for statement in (
        f"SELECT VECTOR_EMBEDDING(minilm USING {value} AS data)",
        "SELECT VECTOR_EMBEDDING(minilm USING x AS data) FROM typed",
        "SELECT VECTOR_EMBEDDING(minilm USING x AS data) FROM typed WHERE n = 1 OR random() > 2",
        "SELECT vector_embedding('minilm', x) FROM typed",
    ):
        for (found,) in db.execute(statement).fetchall():
            assert np.abs(found - row[0]).max() < 2e-6


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT VECTOR_EMBEDDING(minilm USING b AS data) FROM bytes",
        "SELECT VECTOR_EMBEDDING(minilm USING b || b AS data) FROM bytes ORDER BY n",
        "SELECT vector_embedding('minilm', b) FROM bytes",
    ],
)
def test_bytes_are_no_texts(db: pythiadb.Connection, statement: str) -> None:
    """Their hexadecimal digits would be embedded."""
    db.execute("CREATE TABLE bytes AS SELECT n, '\\x6869'::bytea AS b FROM generate_series(1, 3) n")
    with pytest.raises(psycopg.errors.WrongObjectType, match="embeds texts, not bytes") as caught:
        db.execute(statement).fetchall()
    assert caught.value.diag.message_hint == "Convert the bytes: convert_from(data, 'UTF8')."
