"""Vector indexes over columns that leave dimensions open: the index has those of its rows, and rows of others are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

import pythiadb
from tests.integration.background import in_background, wait_until
from tests.integration.vector_tables import one, rows

SEARCH = "SELECT id FROM docs ORDER BY v <-> '[1, 2, 3]' FETCH APPROX FIRST 2 ROWS ONLY"
FILL = "INSERT INTO docs SELECT i, ARRAY[i, 1, 1]::vector FROM generate_series(1, 20) i"
STATUS = "SELECT error, dimensions, rows, pending_rows FROM pythia.vector_index_status WHERE table_name = 'docs'::regclass"


def make(db: pythiadb.Connection, type_: str = "vector", options: str = "") -> None:
    db.execute(f"CREATE TABLE docs (id int PRIMARY KEY, v {type_}, n int){options}".encode())


def index(db: pythiadb.Connection) -> None:
    db.execute("CREATE VECTOR INDEX docs_v ON docs (v) DISTANCE EUCLIDEAN")


def settles(db: pythiadb.Connection, dimensions: int | None, count: int) -> None:
    wait_until(lambda: rows(db, STATUS) == [(None, dimensions, count, 0)])


def refuses(db: pythiadb.Connection, statement: str, expected: int, found: int) -> psycopg.errors.Diagnostic:
    with pytest.raises(psycopg.DataError, match=f"expected {expected} dimensions, not {found}") as caught:
        db.execute(statement.encode())
    assert caught.value.sqlstate == "22000"
    return caught.value.diag


# Rows that come ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def indexed(db: pythiadb.Connection) -> pythiadb.Connection:
    """Rows 1 to 20 of three dimensions, row 21 without a vector."""
    make(db)
    db.execute(FILL)
    db.execute("INSERT INTO docs VALUES (21, NULL)")
    index(db)
    return db


def test_the_error_names_row_index_and_what_to_do(indexed: pythiadb.Connection) -> None:
    diag = refuses(indexed, "INSERT INTO docs VALUES (30, '[1, 2, 3]'), (31, '[1, 2]')", 3, 2)
    schema = one(indexed, "SELECT current_schema()")
    assert diag.message_detail == (
        'The row with id = 31 has 2 dimensions in column "v", whose vector index "docs_v" has 3.'
    )
    assert diag.message_hint == (
        f"For vectors of other dimensions, drop the index first: CALL pythia.drop_vector_index('{schema}.docs_v');"
    )
    assert (diag.schema_name, diag.table_name, diag.column_name) == (schema, "docs", "v")
    indexed.execute(f"CALL pythia.drop_vector_index('{schema}.docs_v')".encode())
    indexed.execute("INSERT INTO docs VALUES (31, '[1, 2]')")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO docs VALUES (30, '[1, 2]')",
        "INSERT INTO docs SELECT i, CASE i WHEN 39 THEN '[1, 2]' ELSE '[1, 2, 3]' END::vector FROM generate_series(30, 40) i",
        "UPDATE docs SET v = '[1, 2]' WHERE id = 1",
        "UPDATE docs SET v = '[1, 2]' WHERE id = 21",
        "UPDATE docs SET v = '[1, 2]'",
        "INSERT INTO docs VALUES (1, '[1, 2]') ON CONFLICT (id) DO UPDATE SET v = excluded.v",
        "MERGE INTO docs d USING (VALUES (1)) s(id) ON d.id = s.id WHEN MATCHED THEN UPDATE SET v = '[1, 2]'",
        "SET LOCAL session_replication_role = replica; INSERT INTO docs VALUES (30, '[1, 2]')",
        "SET LOCAL session_replication_role = replica; UPDATE docs SET v = '[1, 2]' WHERE id = 1",
    ],
)
def test_other_dimensions_are_refused(indexed: pythiadb.Connection, statement: str) -> None:
    refuses(indexed, statement, 3, 2)
    assert len(indexed.execute(SEARCH).fetchall()) == 2
    assert one(indexed, "SELECT count(*) FROM docs WHERE vector_dims(v) = 3") == 20


def test_copy_of_other_dimensions_is_refused(indexed: pythiadb.Connection) -> None:
    with (
        pytest.raises(psycopg.DataError, match="expected 3 dimensions, not 2") as caught,
        indexed.cursor().copy("COPY docs (id, v) FROM STDIN") as copy,
    ):
        copy.write("30\t[1,2,3]\n31\t\\N\n32\t[1,2]\n")
    assert "id = 32" in str(caught.value.diag.message_detail)


def test_the_indexs_own_dimensions_and_rows_without_a_vector_pass(indexed: pythiadb.Connection) -> None:
    indexed.execute("INSERT INTO docs VALUES (30, '[1, 2, 3]'), (31, NULL)")
    indexed.execute("UPDATE docs SET v = '[1, 2, 3]' WHERE id IN (1, 31)")
    indexed.execute("UPDATE docs SET v = NULL WHERE id = 2")
    indexed.execute("DELETE FROM docs WHERE id = 3")
    assert {key for (key,) in indexed.execute(SEARCH.replace("2 ROWS", "3 ROWS"))} == {1, 30, 31}


@pytest.mark.parametrize(
    ("type_", "right", "wrong", "found"),
    [
        ("halfvec", "[1,2,3]", "[1,2]", 2),
        ("sparsevec", "{1:1}/3", "{1:1}/5", 5),
        ("bit varying", "101", "1010", 4),
        ("bit varying(9)", "101", "1010", 4),
    ],
)
def test_vectors_of_every_type(
    db: pythiadb.Connection, type_: str, right: str, wrong: str, found: int
) -> None:
    make(db, type_)
    db.execute(f"INSERT INTO docs VALUES (1, '{right}'), (2, NULL)".encode())
    db.execute("CREATE VECTOR INDEX docs_v ON docs (v)")
    db.execute(f"INSERT INTO docs VALUES (3, '{right}')".encode())
    refuses(db, f"INSERT INTO docs VALUES (4, '{wrong}')", 3, found)
    refuses(db, f"UPDATE docs SET v = '{wrong}'", 3, found)


@pytest.mark.parametrize("type_", ["vector(3)", "halfvec(3)", "sparsevec(3)", "bit(3)"])
def test_columns_with_dimensions_have_no_check(db: pythiadb.Connection, type_: str) -> None:
    make(db, type_)
    number = one(db, "SELECT pythia.define_vector_index('docs_v', 'docs', 'v')")
    found = rows(
        db,
        "SELECT proname FROM pg_proc WHERE pronamespace = 'vecsys'::regnamespace AND prosrc ~ 'dimensions' AND proname ~ %s",
        f"_{number}(_|$)",
    )
    assert found == []


def test_partitions(db: pythiadb.Connection) -> None:
    make(db, options=" PARTITION BY RANGE (id)")
    db.execute(
        "CREATE TABLE low PARTITION OF docs FOR VALUES FROM (0) TO (100); CREATE TABLE high PARTITION OF docs DEFAULT"
    )
    db.execute(FILL)
    index(db)
    for table, key in (("docs", 200), ("low", 50), ("high", 200)):
        refuses(db, f"INSERT INTO {table} VALUES ({key}, '[1, 2]')", 3, 2)
    refuses(db, "UPDATE docs SET v = '[1, 2]', id = id + 200 WHERE id = 1", 3, 2)
    db.execute("INSERT INTO docs VALUES (200, '[1, 2, 3]')")
    assert one(db, "SELECT count(*) FROM docs") == 21


def test_writers_need_no_right_on_what_checks_them(indexed: pythiadb.Connection, role: str) -> None:
    indexed.execute(f"GRANT INSERT ON docs TO {role}; SET ROLE {role}".encode())
    refuses(indexed, "INSERT INTO docs VALUES (30, '[1, 2]')", 3, 2)
    indexed.execute("INSERT INTO docs VALUES (30, '[1, 2, 3]'); RESET ROLE")


def test_names_with_every_mark(db: pythiadb.Connection) -> None:
    db.execute(
        """CREATE TABLE "My ""Docs%" ("expected %s" int PRIMARY KEY, "V 'v$body$" vector, changed int, "dimensions" int)"""
    )
    db.execute("""INSERT INTO "My ""Docs%" VALUES (1, '[1, 2, 3]')""")
    db.execute("""CREATE VECTOR INDEX "The ""index%" ON "My ""Docs%" ("V 'v$body$")""")
    diag = refuses(db, """INSERT INTO "My ""Docs%" VALUES (2, '[1, 2]')""", 3, 2)
    assert 'vector index "The "index%"' in str(diag.message_detail)
    db.execute("""ALTER TABLE "My ""Docs%" RENAME TO docs""")
    db.execute("""ALTER TABLE docs RENAME "V 'v$body$" TO v""")
    refuses(db, "INSERT INTO docs VALUES (2, '[1, 2]')", 3, 2)
    db.execute("INSERT INTO docs VALUES (2, '[1, 2, 4]')")


def test_each_of_two_columns_has_its_own(db: pythiadb.Connection) -> None:
    make(db)
    db.execute("ALTER TABLE docs ADD w vector")
    db.execute("INSERT INTO docs VALUES (1, '[1, 2, 3]', 0, '[1, 2]')")
    index(db)
    db.execute("CREATE VECTOR INDEX docs_w ON docs (w)")
    db.execute("INSERT INTO docs VALUES (2, '[1, 2, 3]', 0, '[1, 2]')")
    assert '"docs_w"' in str(refuses(db, "UPDATE docs SET w = v", 2, 3).message_detail)
    assert '"docs_v"' in str(refuses(db, "UPDATE docs SET v = w", 3, 2).message_detail)


# How an index learns ------------------------------------------------------------------------------------------------------


def test_the_first_row_of_an_empty_table_tells(db: pythiadb.Connection) -> None:
    make(db)
    db.execute("INSERT INTO docs VALUES (21, NULL)")
    index(db)
    refuses(db, "INSERT INTO docs VALUES (1, '[1, 2, 3]'), (2, '[1, 2]')", 3, 2)
    with db.transaction():
        db.execute("INSERT INTO docs VALUES (1, '[1, 2]')")
        db.execute("DELETE FROM docs WHERE id = 1")
    db.execute(FILL)
    refuses(db, "INSERT INTO docs VALUES (30, '[1, 2]')", 3, 2)
    settles(db, 3, 20)
    refuses(db, "INSERT INTO docs VALUES (30, '[1, 2]')", 3, 2)


def test_rows_that_get_their_first_vectors_all_at_once(db: pythiadb.Connection) -> None:
    make(db)
    db.execute("INSERT INTO docs SELECT i FROM generate_series(1, 20) i")
    index(db)
    refuses(db, "UPDATE docs SET v = CASE id WHEN 9 THEN '[1, 2]' ELSE '[1, 2, 3]' END::vector", 3, 2)
    db.execute("UPDATE docs SET v = '[1, 2]'")
    refuses(db, "UPDATE docs SET v = '[1, 2, 3]' WHERE id = 20", 2, 3)


def test_while_it_is_built_for_the_first_time(db: pythiadb.Connection) -> None:
    """The definition has learned from a row, in the transaction that made it."""
    make(db)
    db.execute(FILL)
    with db.transaction():
        db.execute("SELECT pythia.define_vector_index('docs_v', 'docs', 'v')")
        with pytest.raises(psycopg.DataError, match="expected 3 dimensions, not 2"), db.transaction():
            db.execute("INSERT INTO docs VALUES (30, '[1, 2]')")
    refuses(db, "INSERT INTO docs VALUES (30, '[1, 2]')", 3, 2)
    db.execute("SELECT pythia.watch_vector_indexes()")
    settles(db, 3, 20)


def test_truncated_table_may_have_others(indexed: pythiadb.Connection) -> None:
    with indexed.transaction():
        indexed.execute("TRUNCATE docs")
        indexed.execute("INSERT INTO docs VALUES (1, '[1, 2]'), (2, '[2, 2]')")
        refuses(indexed, "SAVEPOINT s; INSERT INTO docs VALUES (30, '[1, 2, 3, 4]')", 2, 4)
        indexed.execute("ROLLBACK TO s")
    settles(indexed, 2, 2)
    refuses(indexed, "INSERT INTO docs VALUES (30, '[1, 2, 3]')", 2, 3)
    found = indexed.execute(SEARCH.replace("[1, 2, 3]", "[2, 2]")).fetchall()
    assert found == [(2,), (1,)]


def test_rewritten_table_keeps_its_own(indexed: pythiadb.Connection) -> None:
    with indexed.transaction(force_rollback=True):
        indexed.execute("ALTER TABLE docs ALTER n TYPE bigint")
        refuses(indexed, "INSERT INTO docs VALUES (30, '[1, 2]')", 3, 2)
    indexed.execute("VACUUM FULL docs")
    refuses(indexed, "INSERT INTO docs VALUES (30, '[1, 2]')", 3, 2)


def test_rebuild_keeps_them_and_that_of_an_empty_table_forgets_them(indexed: pythiadb.Connection) -> None:
    indexed.execute("ALTER INDEX docs_v REBUILD")
    refuses(indexed, "INSERT INTO docs VALUES (30, '[1, 2]')", 3, 2)
    indexed.execute("DELETE FROM docs")
    refuses(indexed, "INSERT INTO docs VALUES (30, '[1, 2]')", 3, 2)
    indexed.execute("ALTER INDEX docs_v REBUILD")
    indexed.execute("INSERT INTO docs VALUES (30, '[1, 2]')")
    settles(indexed, 2, 1)


def test_writer_that_began_before_the_index(shop: Path, db: pythiadb.Connection) -> None:
    """Defining waits for those who write the table, so that their rows count, and others wait for the definition."""
    make(db)
    db.execute(FILL)
    schema = one(db, "SELECT current_schema()")
    with pythiadb.connect(shop, autocommit=True) as other:
        other.execute(f"SET search_path = {schema}, public, pythia".encode())
        with other.transaction():
            other.execute("INSERT INTO docs VALUES (30, '[1, 2]')")
            thread, outcome = in_background(lambda: index(db))
        thread.join()
    assert isinstance(outcome[0], psycopg.Error)
    assert "expected 3 dimensions, not 2" in str(outcome[0].diag.message_detail)
    assert "id = 30" in str(outcome[0].diag.message_detail)


# Rows that are there all the same -----------------------------------------------------------------------------------------


def test_row_that_came_unseen(indexed: pythiadb.Connection) -> None:
    """Searches fail as PostgreSQL fails without an index, and the index says which row it is; without that row it is built again."""
    indexed.execute("ALTER TABLE docs DISABLE TRIGGER USER")
    indexed.execute("INSERT INTO docs VALUES (30, '[1, 2]', 0)")
    with pytest.raises(psycopg.DataError, match="different vector dimensions"):
        indexed.execute(SEARCH)
    indexed.execute("ALTER TABLE docs ENABLE TRIGGER USER")
    wait_until(lambda: "expected 3 dimensions, not 2" in str(rows(indexed, STATUS)[0][0]))
    assert "id = 30" in rows(indexed, STATUS)[0][0]
    with pytest.raises(psycopg.DataError, match="different vector dimensions"):
        indexed.execute(SEARCH)
    with pytest.raises(psycopg.Error, match="could not rebuild") as caught:
        indexed.execute("ALTER INDEX docs_v REBUILD")
    assert "id = 30" in str(caught.value.diag.message_detail)
    indexed.execute("UPDATE docs SET v = '[1, 2, 3]' WHERE id = 30")
    indexed.execute("ALTER INDEX docs_v REBUILD")
    refuses(indexed, "INSERT INTO docs VALUES (31, '[1, 2]')", 3, 2)
    assert (30,) in indexed.execute(SEARCH).fetchall()


def test_what_the_version_before_has_made_gets_the_check(
    indexed: pythiadb.Connection, unchecked: Callable[[], None]
) -> None:
    """An upgrade renews functions and leaves triggers; a row that came before may be changed, but for its vector, and removed."""
    unchecked()
    indexed.execute("INSERT INTO docs VALUES (30, '[1, 2]', 0)")
    number = one(indexed, "SELECT id FROM pythia.vector_index WHERE relation = 'docs'::regclass")
    before = one(indexed, "SELECT pythia.vector_fingerprint(%s)", number)
    rows(indexed, "SELECT pythia.follow_table(%s)", number)  # what an upgrade runs
    assert one(indexed, "SELECT pythia.vector_fingerprint(%s)", number) == before
    refuses(indexed, "INSERT INTO docs VALUES (31, '[1, 2]')", 3, 2)
    wait_until(lambda: "id = 30" in str(rows(indexed, STATUS)[0][0]))
    with pytest.raises(psycopg.DataError, match="different vector dimensions"):
        indexed.execute(SEARCH)
    indexed.execute("UPDATE docs SET id = 32, n = 1 WHERE id = 30")
    indexed.execute("DELETE FROM docs WHERE id = 32")
    settles(indexed, 3, 20)
    assert len(indexed.execute(SEARCH).fetchall()) == 2


@pytest.fixture
def unchecked(indexed: pythiadb.Connection) -> Callable[[], None]:
    """Gives the journal's functions the form that they had before they checked dimensions."""

    def take_away() -> None:
        number = one(indexed, "SELECT id FROM pythia.vector_index WHERE relation = 'docs'::regclass")
        head = "RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN"
        indexed.execute(
            f"CREATE OR REPLACE FUNCTION vecsys.journal_{number}_many() {head} "
            f"INSERT INTO vecsys.journal_{number} (key) SELECT c.id FROM changed AS c; RETURN NULL; END';"
            f"DROP FUNCTION vecsys.dimensions_{number}()".encode()
        )

    return take_away
