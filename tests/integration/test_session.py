"""Connections for applications: binds, arrays, transactions, and what psycopg offers beside execute."""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

import pythiadb
from pythiadb.errors import InterfaceError, InvalidParameter, InvalidVector

QUESTION = "SELECT id FROM items ORDER BY VECTOR_DISTANCE(v, VECTOR_EMBEDDING(minilm USING {} AS data), COSINE) FETCH FIRST {} ROWS ONLY"
WORDS = ["a cat on the sofa", "interest rates rose", "a dog in the park"]


@pytest.fixture
def items(db: pythiadb.Connection) -> pythiadb.Connection:
    """Three texts with their vectors."""
    db.execute("CREATE TABLE items (id int PRIMARY KEY, body text, v vector(384))")
    db.cursor().executemany(
        "INSERT INTO items VALUES (%s, %s, VECTOR_EMBEDDING(minilm USING %s AS data))",
        [(n, word, word) for n, word in enumerate(WORDS)],
    )
    return db


@pytest.fixture
def other(db: pythiadb.Connection, shop: Path) -> Iterator[pythiadb.Connection]:
    """A second session with the same search_path."""
    path = db.execute("SHOW search_path").fetchone()
    assert path is not None
    with pythiadb.connect(shop, autocommit=True) as connection:
        connection.execute(f"SET search_path = {path[0]}".encode())
        yield connection


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def check_vectors(db: pythiadb.Connection, table: str = "items") -> None:
    """Assert that every row's vector is its own text's."""
    rows = db.execute(f"SELECT v, vector_embedding('minilm', body) FROM {table}".encode()).fetchall()
    assert rows
    assert all(stored is not None for stored, _ in rows)
    assert all(cosine(stored, fresh) > 0.9999 for stored, fresh in rows)


# The module ---------------------------------------------------------------------------------------------------------------


def test_module_globals_of_db_api() -> None:
    assert pythiadb.apilevel == "2.0"
    assert pythiadb.threadsafety == 2
    assert pythiadb.paramstyle == "pyformat"
    for name in (
        "Warning",
        "InterfaceError",
        "DataError",
        "OperationalError",
        "IntegrityError",
        "InternalError",
    ):
        assert issubclass(getattr(pythiadb, name), Exception)
    for name in ("DatabaseError", "ProgrammingError", "NotSupportedError"):
        assert issubclass(getattr(pythiadb, name), pythiadb.Error)
    for name in ("Date", "Time", "Timestamp", "Binary", "STRING", "NUMBER", "DATETIME", "ROWID", "connect"):
        assert getattr(pythiadb, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        pythiadb.nonsense  # noqa: B018
    assert set(pythiadb.__all__) <= set(dir(pythiadb))


def test_unknown_dialect_is_refused(shop: Path) -> None:
    with pytest.raises(InvalidParameter, match='unrecognized dialect "nope"'):
        pythiadb.connect(shop, dialect="nope")


# Parameters ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "count", "values"),
    [
        (":q", ":k", {"q": "kitten", "k": 1}),
        (":q", ":k", ["kitten", 1]),
        (":1", ":2", ["kitten", 1]),
        (":2", ":1", (1, "kitten")),
        ("%s", "%s", ["kitten", 1]),
        ("%(q)s", "%(k)s", {"q": "kitten", "k": 1, "unused": object()}),
        (":q", "1", {"q": "kitten", "unused": object()}),
        (":q || :q", "1", ["kitten"]),
    ],
)
def test_ways_to_bind(items: pythiadb.Connection, question: str, count: str, values: Any) -> None:
    assert items.execute(QUESTION.format(question, count).encode(), values).fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("statement", "values", "message"),
    [
        (QUESTION.format(":q", ":k"), {"q": "x"}, 'no value for bind variable ":k"'),
        (QUESTION.format(":q", ":k"), ["x"], "has 2 bind variables, 1 values"),
        (QUESTION.format(":q", "1"), ["x", "y"], "has 1 bind variables, 2 values"),
        (QUESTION.format(":1", ":2"), ["x"], 'no value for bind variable ":2"'),
        (QUESTION.format(":1", ":10"), ["x"] * 9, 'no value for bind variable ":10"'),
    ],
)
def test_missing_values_are_named(
    items: pythiadb.Connection, statement: str, values: Any, message: str
) -> None:
    with pytest.raises(InterfaceError, match=message):
        items.execute(statement.encode(), values)
    assert items.execute("SELECT count(*) FROM items").fetchone() == (3,)


def test_percent_signs_without_and_with_parameters(items: pythiadb.Connection) -> None:
    """As in psycopg: doubled only where there are parameters; a translated statement does it by itself for :name."""
    near = "VECTOR_DISTANCE(v, VECTOR_EMBEDDING(minilm USING {} AS data), COSINE) < 2"
    plain = f"SELECT id FROM items WHERE body LIKE '%cat%' AND 7 % 4 = 3 AND {near.format(chr(39) + 'x' + chr(39))}"
    assert items.execute(plain.encode()).fetchall() == [(0,)]
    named = f"SELECT id FROM items WHERE body LIKE '%cat%' AND {near.format(':q')}"
    assert items.execute(named.encode(), {"q": "100 %"}).fetchall() == [(0,)]
    doubled = f"SELECT id FROM items WHERE body LIKE '%%cat%%' AND {near.format('%s')}"
    assert items.execute(doubled.encode(), ["x"]).fetchall() == [(0,)]
    assert items.execute("SELECT '100%'").fetchone() == ("100%",)
    assert items.execute("SELECT '100%%', %s", ["x"]).fetchone() == ("100%", "x")


def test_composed_sql_is_translated(items: pythiadb.Connection) -> None:
    query = psycopg.sql.SQL(
        "SELECT VECTOR_EMBEDDING({} USING {} AS data) <=> v FROM items WHERE id = 0"
    ).format(psycopg.sql.Identifier("minilm"), psycopg.sql.Literal(WORDS[0]))
    row = items.execute(query).fetchone()
    assert row is not None
    assert row[0] < 1e-4


# Arrays -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, 2.5, -3], np.float32),
        np.array([1, 2.5, -3], np.float64),
        np.array([1, 9, 2.5, 9, -3, 9], np.float32)[::2],
        array("f", [1, 2.5, -3]),
        array("d", [1, 2.5, -3]),
    ],
    ids=["float32", "float64", "strided", "array f", "array d"],
)
@pytest.mark.parametrize("place", ["%s", "%t", "%b", "%s::vector"])
def test_arrays_go_in_and_come_back(db: pythiadb.Connection, value: Any, place: str) -> None:
    db.execute("CREATE TABLE t (v vector(3))")
    db.execute(f"INSERT INTO t VALUES ({place})".encode(), (value,))
    for binary in (False, True):
        row = db.execute("SELECT v FROM t", binary=binary).fetchone()
        assert row is not None
        assert row[0].dtype == np.float32
        assert row[0].tolist() == [1, 2.5, -3]
    row = db.execute(f"SELECT VECTOR_DISTANCE(v, {place}, EUCLIDEAN) FROM t".encode(), (value,)).fetchone()
    assert row == (0.0,)


def test_a_thousand_arrays_by_executemany(db: pythiadb.Connection) -> None:
    db.execute("CREATE TABLE t (id int, v vector(8))")
    vectors = np.random.default_rng(1).normal(size=(1000, 8)).astype(np.float32)
    db.cursor().executemany(
        "INSERT INTO t VALUES (:id, :v)", [{"id": n, "v": v} for n, v in enumerate(vectors)]
    )
    rows = db.execute("SELECT v FROM t ORDER BY id").fetchall()
    np.testing.assert_array_equal(np.array([row[0] for row in rows]), vectors)


def test_executemany_embeds_each_row(items: pythiadb.Connection) -> None:
    check_vectors(items)
    cursor = items.cursor()
    cursor.executemany(
        "UPDATE items SET v = VECTOR_EMBEDDING(minilm USING :text AS data), body = :text WHERE id = :id RETURNING id",
        [{"id": 0, "text": "one"}, {"id": 2, "text": "three"}],
        returning=True,
    )
    assert cursor.fetchone() == (0,)
    assert cursor.nextset()
    assert cursor.fetchone() == (2,)
    check_vectors(items)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(db: pythiadb.Connection, bad: float) -> None:
    db.execute("CREATE TABLE t (v vector(2))")
    with pytest.raises(InvalidVector) as caught:
        db.execute("INSERT INTO t VALUES (%s)", (np.array([1, bad], np.float32),))
    assert isinstance(caught.value, pythiadb.DataError)
    assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize("shape", [(0,), (2, 2)])
def test_arrays_of_other_shapes_are_refused(db: pythiadb.Connection, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidVector):
        db.execute("SELECT %s::vector", (np.ones(shape, np.float32),))


def test_wrong_number_of_dimensions_is_named(db: pythiadb.Connection) -> None:
    db.execute("CREATE TABLE t (v vector(3))")
    with pytest.raises(psycopg.errors.DataException, match="expected 3 dimensions, not 2"):
        db.execute("INSERT INTO t VALUES (%s)", (np.ones(2, np.float32),))


def test_sparse_vectors_go_in_and_come_back(db: pythiadb.Connection) -> None:
    db.execute("CREATE TABLE t (v sparsevec(5))")
    value = pythiadb.SparseVector.from_entries(5, [1, 3], [10.0, 20.0])
    db.execute("INSERT INTO t VALUES (%s)", (value,))
    row = db.execute("SELECT v FROM t").fetchone()
    assert row is not None
    assert row[0] == value


# Cursors ------------------------------------------------------------------------------------------------------------------


def test_cursor_iterates_fetches_and_describes(items: pythiadb.Connection) -> None:
    cursor = items.execute(
        "SELECT id, VECTOR_EMBEDDING(minilm USING body AS data) AS e FROM items ORDER BY id"
    )
    assert cursor.description is not None
    assert [column.name for column in cursor.description] == ["id", "e"]
    assert [row[0] for row in cursor.fetchmany(2)] == [0, 1]
    assert [row[0] for row in cursor] == [2]
    assert cursor.fetchone() is None
    cursor = items.execute("SELECT VECTOR_EMBEDDING(minilm USING body AS data) FROM items")
    assert cursor.rowcount == 3


def test_row_factories(items: pythiadb.Connection) -> None:
    cursor = items.cursor(row_factory=psycopg.rows.dict_row)
    row = cursor.execute(QUESTION.format(":q", 1).encode(), {"q": "kitten"}).fetchone()
    assert row == {"id": 0}


def test_server_side_cursor_reads_ai_sql(items: pythiadb.Connection) -> None:
    with items.transaction(), items.cursor("walk") as cursor:
        cursor.execute(
            "SELECT id, VECTOR_EMBEDDING(minilm USING body AS data) FROM items WHERE id < :n ORDER BY id",
            {"n": 2},
        )
        rows = cursor.fetchall()
    assert [row[0] for row in rows] == [0, 1]
    assert rows[0][1].shape == (384,)


def test_stream_reads_ai_sql(items: pythiadb.Connection) -> None:
    query = "SELECT id, VECTOR_EMBEDDING(minilm USING body AS data) FROM items WHERE id < :n ORDER BY id"
    rows = list(items.cursor().stream(query, {"n": 2}))
    assert [row[0] for row in rows] == [0, 1]
    assert rows[0][1].shape == (384,)


def test_pipeline(items: pythiadb.Connection) -> None:
    with items.pipeline():
        first = items.execute(QUESTION.format(":q", 1).encode(), {"q": "kitten"})
        second = items.execute(QUESTION.format(":q", 1).encode(), {"q": "central bank"})
    assert (first.fetchall(), second.fetchall()) == ([(0,)], [(1,)])


def test_copy_in_and_out(items: pythiadb.Connection) -> None:
    items.execute("CREATE TABLE copied (LIKE items)")
    cursor = items.cursor()
    with cursor.copy("COPY items TO STDOUT") as source:
        data = b"".join(bytes(block) for block in source)
    with cursor.copy("COPY copied FROM STDIN") as target:
        target.write(data)
    check_vectors(items, "copied")
    with cursor.copy(
        "COPY (SELECT VECTOR_EMBEDDING(minilm USING body AS data) FROM items) TO STDOUT"
    ) as source:
        assert len(b"".join(bytes(block) for block in source).splitlines()) == 3


def test_translate_shows_the_statements(db: pythiadb.Connection) -> None:
    translation = db.translate("SELECT VECTOR_EMBEDDING(minilm USING 'a' AS data)")
    assert len(translation.statements) == 1
    assert "vector_embedding(" in translation.statements[0]
    assert db.translate("SELECT 1").statements == ("SELECT 1",)
    assert db.translate(b"SELECT '\xc3\xa4'").statements == ("SELECT 'ä'",)


# Transactions -------------------------------------------------------------------------------------------------------------


def test_rollback_and_savepoint_take_embedded_rows_back(items: pythiadb.Connection) -> None:
    insert = (
        "INSERT INTO items VALUES (:id, 'a new text', VECTOR_EMBEDDING(minilm USING 'a new text' AS data))"
    )
    items.autocommit = False
    items.execute(insert, {"id": 10})
    items.rollback()
    items.execute(insert, {"id": 11})
    with pytest.raises(psycopg.errors.UniqueViolation), items.transaction():
        items.execute(insert, {"id": 12})
        items.execute(insert, {"id": 12})
    items.execute(insert, {"id": 13})
    items.commit()
    items.autocommit = True
    assert items.execute("SELECT id FROM items WHERE id >= 10 ORDER BY 1").fetchall() == [(11,), (13,)]
    check_vectors(items)


def test_error_in_a_transaction_is_not_repeated(items: pythiadb.Connection) -> None:
    with pytest.raises(ZeroDivisionError), items.transaction():
        items.execute("DELETE FROM items")
        raise ZeroDivisionError
    assert items.execute("SELECT count(*) FROM items").fetchone() == (3,)


def test_search_sees_own_uncommitted_rows(items: pythiadb.Connection) -> None:
    with items.transaction(force_rollback=True):
        items.execute(
            "INSERT INTO items VALUES (9, 'kitten', VECTOR_EMBEDDING(minilm USING 'kitten' AS data))"
        )
        assert items.execute(QUESTION.format("'kitten'", 1).encode()).fetchall() == [(9,)]
    assert items.execute(QUESTION.format("'kitten'", 1).encode()).fetchall() == [(0,)]


# Definitions that change --------------------------------------------------------------------------------------------------


def test_prepared_search_survives_a_new_table(items: pythiadb.Connection) -> None:
    """psycopg prepares after five runs; DROP and CREATE of the table in between change nothing."""
    query = QUESTION.format(":q", 1).encode()
    for _ in range(8):
        assert items.execute(query, {"q": "kitten"}).fetchall() == [(0,)]
    items.execute("DROP TABLE items")
    items.execute("CREATE TABLE items (id bigint, extra text, v vector)")
    items.execute("INSERT INTO items VALUES (77, NULL, VECTOR_EMBEDDING(minilm USING 'x' AS data))")
    for _ in range(8):
        assert items.execute(query, {"q": "kitten"}).fetchall() == [(77,)]


UPDATE = "UPDATE items SET v = VECTOR_EMBEDDING(minilm USING body AS data)"


def spoil(db: pythiadb.Connection) -> None:
    """Make ids ambiguous: each twice, with different texts and no vectors."""
    db.execute("INSERT INTO items SELECT id, body || ' again', NULL FROM items")


@pytest.mark.parametrize(
    "definition",
    [
        "ALTER TABLE items DROP CONSTRAINT items_pkey",
        "/* a note */ ALTER TABLE items DROP CONSTRAINT items_pkey",
        "-- a note\nALTER TABLE items DROP CONSTRAINT items_pkey",
        "SELECT 1; ALTER TABLE items DROP CONSTRAINT items_pkey",
        "DO $$ BEGIN ALTER TABLE items DROP CONSTRAINT items_pkey; END $$",
    ],
)
def test_update_after_the_session_dropped_the_primary_key(
    items: pythiadb.Connection, definition: str
) -> None:
    items.execute(UPDATE)
    items.execute(definition.encode())
    spoil(items)
    items.execute(UPDATE)
    check_vectors(items)


def test_update_after_another_session_dropped_the_primary_key(
    items: pythiadb.Connection, other: pythiadb.Connection
) -> None:
    """The key is not asked for again at every statement; the result is right all the same."""
    items.execute(UPDATE)
    other.execute("ALTER TABLE items DROP CONSTRAINT items_pkey")
    spoil(other)
    items.execute(UPDATE)
    check_vectors(items)


def test_update_after_another_session_renamed_the_key(
    items: pythiadb.Connection, other: pythiadb.Connection
) -> None:
    items.execute(UPDATE)
    other.execute("ALTER TABLE items RENAME COLUMN id TO number")
    items.execute(UPDATE)
    check_vectors(items)
    other.execute("ALTER TABLE items RENAME COLUMN number TO id")
    with (
        pytest.raises(psycopg.errors.UndefinedColumn),
        items.transaction(),
    ):  # not repeated inside a transaction
        items.execute(UPDATE)
    items.execute(UPDATE)


def test_rows_without_a_key_are_not_forgotten(items: pythiadb.Connection) -> None:
    items.execute(UPDATE)
    items.execute("ALTER TABLE items DROP CONSTRAINT items_pkey, ALTER COLUMN id DROP NOT NULL")
    items.execute("INSERT INTO items VALUES (NULL, 'no number')")
    items.execute(UPDATE)
    check_vectors(items)


def test_rolled_back_definition_is_forgotten(items: pythiadb.Connection) -> None:
    items.execute("ALTER TABLE items DROP CONSTRAINT items_pkey")
    with items.transaction(force_rollback=True):
        items.execute("ALTER TABLE items ADD PRIMARY KEY (id)")
        items.execute(UPDATE)
    spoil(items)
    items.execute(UPDATE)
    check_vectors(items)


def test_search_path_decides_which_table_is_meant(items: pythiadb.Connection) -> None:
    """The same text under another search_path is about another table, which has no such key."""
    path = items.execute("SHOW search_path").fetchone()
    assert path is not None
    name = f"elsewhere_{uuid.uuid4().hex[:8]}"
    items.execute(UPDATE)
    items.execute(f"CREATE SCHEMA {name}".encode())
    try:
        items.execute(f"CREATE TABLE {name}.items (code text PRIMARY KEY, body text, v vector(384))".encode())
        items.execute(f"INSERT INTO {name}.items VALUES ('a', 'one'), ('b', 'two'), ('c', 'three')".encode())
        items.execute(UPDATE)
        items.execute(f"SET search_path = {name}, public, pythia".encode())
        items.execute(UPDATE)
        check_vectors(items)
    finally:
        items.execute(f"SET search_path = {path[0]}".encode())
        items.execute(f"DROP SCHEMA {name} CASCADE".encode())


def test_sessions_do_not_mix_up_their_tables(items: pythiadb.Connection, shop: Path) -> None:
    """Two sessions send the same text, and their tables of that name have different keys."""
    items.execute(UPDATE)
    name = f"elsewhere_{uuid.uuid4().hex[:8]}"
    with pythiadb.connect(shop, autocommit=True) as second:
        second.execute(f"SET search_path = {name}, public, pythia".encode())
        plain = psycopg.connect(second.info.dsn, autocommit=True)
        plain.execute(f"CREATE SCHEMA {name}".encode())
        try:
            plain.execute(
                f"CREATE TABLE {name}.items (code text PRIMARY KEY, body text, v vector(384))".encode()
            )
            plain.execute(
                f"INSERT INTO {name}.items VALUES ('a', 'one'), ('b', 'two'), ('c', 'three')".encode()
            )
            items.execute(UPDATE)
            second.execute(UPDATE)
            check_vectors(second)
        finally:
            plain.execute(f"DROP SCHEMA {name} CASCADE".encode())
            plain.close()


# Not served ---------------------------------------------------------------------------------------------------------------


def test_asynchronous_connections_are_psycopgs_own(db: pythiadb.Connection) -> None:
    """There is no asynchronous form yet: the module offers none by accident."""
    assert not hasattr(pythiadb, "AsyncConnection")
    assert not issubclass(pythiadb.Connection, psycopg.AsyncConnection)


def test_closed_connection_says_so(shop: Path, make_directory: Callable[[], Path]) -> None:
    connection = pythiadb.connect(shop)
    connection.close()
    connection.close()
    with pytest.raises(pythiadb.OperationalError, match="closed"):
        connection.execute("SELECT 1")
