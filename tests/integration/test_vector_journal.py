"""The journal of a vector index holds the key of every row that changed, whichever way it changed, and nothing of what did not."""

from __future__ import annotations

import psycopg
import pytest

import pythiadb
from tests.integration.vector_tables import clear, define, journal, one, rows

# Every statement ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("INSERT INTO docs VALUES (10, '[1,1]')", ["10"]),
        ("INSERT INTO docs SELECT g, '[1,1]' FROM generate_series(10, 12) g", ["10", "11", "12"]),
        ("INSERT INTO docs VALUES (10, NULL)", []),
        ("INSERT INTO docs SELECT * FROM docs WHERE false", []),
        ("UPDATE docs SET v = '[9,9]' WHERE id < 3", ["1", "2"]),
        ("UPDATE docs SET v = v", []),
        ("UPDATE docs SET n = n + 1", []),
        ("UPDATE docs SET kind = 'c' WHERE id = 3", ["3"]),
        ("UPDATE docs SET kind = NULL WHERE id = 3", ["3"]),
        ("UPDATE docs SET v = NULL WHERE id = 1", ["1"]),
        ("UPDATE docs SET v = '[1,1]' WHERE id = 4", ["4"]),
        ("UPDATE docs SET id = id + 100 WHERE id = 2", ["2", "102"]),
        ("DELETE FROM docs WHERE id IN (1, 2)", ["1", "2"]),
        ("DELETE FROM docs WHERE id = 4", []),
        ("INSERT INTO docs VALUES (1, '[7,7]') ON CONFLICT DO NOTHING", []),
        ("INSERT INTO docs VALUES (1, '[7,7]') ON CONFLICT (id) DO UPDATE SET n = 5", []),
        ("INSERT INTO docs VALUES (1, '[7,7]'), (9, '[1,1]') ON CONFLICT (id) DO UPDATE SET v = excluded.v", ["1", "9"]),
        (
            "MERGE INTO docs d USING (VALUES (1), (2), (4), (20)) AS s(id) ON d.id = s.id "
            "WHEN MATCHED AND s.id = 1 THEN DELETE WHEN MATCHED AND s.id = 4 THEN UPDATE SET n = 1 "
            "WHEN MATCHED THEN UPDATE SET v = '[5,5]' WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, '[0,1]')",
            ["1", "2", "20"],
        ),
        ("WITH gone AS (DELETE FROM docs WHERE id = 1 RETURNING *) INSERT INTO docs SELECT 30, v FROM gone", ["1", "30"]),
    ],
)  # fmt: skip
def test_statement_writes_the_keys_of_what_it_changed(
    db: pythiadb.Connection, journaled: int, statement: str, changed: list[str]
) -> None:
    db.execute(statement.encode())
    assert journal(db, journaled) == changed


def test_copy_writes_the_keys_of_rows_with_a_vector(db: pythiadb.Connection, journaled: int) -> None:
    with db.cursor().copy("COPY docs (id, v) FROM STDIN") as copy:
        for key, vector in ((50, "[1,2]"), (51, None), (52, "[3,4]")):
            copy.write_row((key, vector))
    assert journal(db, journaled) == ["50", "52"]


def test_generated_column_follows_its_source(db: pythiadb.Connection) -> None:
    db.execute(
        "CREATE TABLE made (id int PRIMARY KEY, parts real[], n int, "
        "v vector(2) GENERATED ALWAYS AS (parts::vector(2)) STORED)"
    )
    index_id = define(db, "made_v", "made")
    db.execute("INSERT INTO made (id, parts) VALUES (1, '{1,2}'), (2, '{3,4}'), (3, NULL)")
    assert journal(db, index_id) == ["1", "2"]
    clear(db, index_id)
    db.execute("UPDATE made SET n = 1")
    assert journal(db, index_id) == []
    db.execute("UPDATE made SET parts = '{5,6}' WHERE id = 2")
    assert journal(db, index_id) == ["2"]


def test_generated_column_after_a_trigger_before_the_row(db: pythiadb.Connection) -> None:
    """Neither is named: the trigger changes the source of the vector."""
    db.execute(
        "CREATE TABLE made (id int PRIMARY KEY, parts real[], n int, v vector(2) GENERATED ALWAYS AS (parts::vector(2)) STORED);"
        "INSERT INTO made VALUES (1, '{1,2}'), (2, '{3,4}')"
    )
    index_id = define(db, "made_v", "made")
    db.execute(
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.parts := ARRAY[0, NEW.n]; RETURN NEW; END $$;"
        "CREATE TRIGGER fill BEFORE UPDATE ON made FOR EACH ROW EXECUTE FUNCTION fill()"
    )
    db.execute("UPDATE made SET n = 7 WHERE id = 2")
    assert journal(db, index_id) == ["2"]


def test_cascades_of_foreign_keys_are_noticed(db: pythiadb.Connection) -> None:
    db.execute(
        "CREATE TABLE parent (id int PRIMARY KEY, other int UNIQUE);"
        "CREATE TABLE child (id int PRIMARY KEY REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE, v vector(2));"
        "INSERT INTO parent SELECT g, g FROM generate_series(1, 5) g;"
        "INSERT INTO child SELECT g, '[1,1]' FROM generate_series(1, 5) g"
    )
    index_id = define(db, "child_v", "child")
    db.execute("DELETE FROM parent WHERE id IN (1, 2)")
    assert journal(db, index_id) == ["1", "2"]
    clear(db, index_id)
    db.execute("UPDATE parent SET id = 30 WHERE id = 3")
    assert journal(db, index_id) == ["3", "30"]


def test_long_vectors_outside_the_row_are_compared_by_their_place(db: pythiadb.Connection) -> None:
    db.execute("CREATE TABLE long (id int PRIMARY KEY, v vector(2000), n int)")
    db.execute(
        "INSERT INTO long SELECT g, (SELECT array_agg(g * i) FROM generate_series(1, 2000) i)::real[]::vector, 0 "
        "FROM generate_series(1, 3) g"
    )
    index_id = define(db, "long_v", "long")
    assert one(db, "SELECT bool_and(pg_column_toast_chunk_id(v) IS NOT NULL) FROM long")
    db.execute("UPDATE long SET n = 1")
    assert journal(db, index_id) == []
    db.execute("UPDATE long SET v = (SELECT v FROM long WHERE id = 1) WHERE id = 2")
    assert journal(db, index_id) == ["2"]
    clear(db, index_id)
    db.execute("UPDATE long SET v = v::text::vector")  # the same values, stored anew
    assert journal(db, index_id) == []


# Types --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "first", "second"),
    [
        ("smallint", "1", "2"),
        ("integer", "1", "2"),
        ("bigint", "1", "9223372036854775807"),
        ("uuid", "6f0d6b5e-0000-4000-8000-000000000001", "6f0d6b5e-0000-4000-8000-000000000002"),
        ("text", "a", 'it\'s, {"odd"}'),
        ("varchar(20)", "a", "b"),
        ("numeric", "1", "2.50"),
    ],
)
def test_keys_of_every_type(db: pythiadb.Connection, type_: str, first: str, second: str) -> None:
    db.execute(f"CREATE TABLE keyed (id {type_} PRIMARY KEY, v vector(2))".encode())
    index_id = define(db, "keyed_v", "keyed")
    db.execute(f"INSERT INTO keyed SELECT %s::text::{type_}, '[1,2]'".encode(), (first,))
    db.execute(f"UPDATE keyed SET id = %s::text::{type_}".encode(), (second,))
    assert sorted(journal(db, index_id)) == sorted([first, first, second])


def test_key_that_is_written_differently_is_another_key(db: pythiadb.Connection) -> None:
    """The engine keeps keys as they are written; to PostgreSQL 1 and 1.0 are equal."""
    db.execute(
        "CREATE TABLE numbers (id numeric PRIMARY KEY, v vector(2)); INSERT INTO numbers VALUES (1, '[1,1]')"
    )
    index_id = define(db, "numbers_v", "numbers")
    db.execute("UPDATE numbers SET id = 1.0")
    assert journal(db, index_id) == ["1", "1.0"]


@pytest.mark.parametrize(
    ("type_", "first", "second"),
    [
        ("vector", "[1,2]", "[1,2,3]"),
        ("halfvec(2)", "[1,2]", "[1,3]"),
        ("sparsevec(5)", "{1:1}/5", "{2:1}/5"),
        ("bit(8)", "10000000", "11000000"),
        ("bit varying", "1", "11"),
    ],
)
def test_vectors_of_every_type(db: pythiadb.Connection, type_: str, first: str, second: str) -> None:
    db.execute(f"CREATE TABLE typed (id int PRIMARY KEY, v {type_}, n int)".encode())
    index_id = define(db, "typed_v", "typed")
    db.execute(f"INSERT INTO typed VALUES (1, '{first}'), (2, '{first}')".encode())
    clear(db, index_id)
    db.execute("UPDATE typed SET n = 1")
    assert journal(db, index_id) == []
    db.execute(f"UPDATE typed SET v = '{second}' WHERE id = 2".encode())
    assert journal(db, index_id) == ["2"]


def test_names_that_need_quotes(db: pythiadb.Connection) -> None:
    db.execute('CREATE TABLE "A table" ("The id" int PRIMARY KEY, "V""v" vector(2), "a b" text)')
    index_id = define(db, '"An index"', '"A table"', 'V"v', include_columns=["a b"])
    db.execute("INSERT INTO \"A table\" VALUES (1, '[1,1]', 'x')")
    db.execute('UPDATE "A table" SET "a b" = \'y\'')
    assert journal(db, index_id) == ["1", "1"]


# Transactions -------------------------------------------------------------------------------------------------------------


def test_rollback_and_savepoints_take_their_keys_back(db: pythiadb.Connection, journaled: int) -> None:
    with db.transaction(force_rollback=True):
        db.execute("UPDATE docs SET v = '[8,8]' WHERE id = 1")
        with db.transaction(force_rollback=True):
            db.execute("DELETE FROM docs WHERE id = 2")
            assert journal(db, journaled) == ["1", "2"]
        assert journal(db, journaled) == ["1"]
    assert journal(db, journaled) == []


def test_key_names_its_transaction(db: pythiadb.Connection, journaled: int) -> None:
    """What a snapshot does not contain is told by the transaction's number, also below a savepoint."""
    with db.transaction():
        before = one(db, "SELECT pg_current_snapshot()::text")
        with db.transaction():
            db.execute("UPDATE docs SET v = '[8,8]' WHERE id = 1")
        question = f"SELECT xid = pg_current_xact_id(), pg_visible_in_snapshot(xid, %s::pg_snapshot) FROM vecsys.journal_{journaled}"
        assert rows(db, question, before) == [(True, False)]
    after = one(db, "SELECT pg_current_snapshot()::text")
    question = f"SELECT pg_visible_in_snapshot(xid, %s::pg_snapshot) FROM vecsys.journal_{journaled}"
    assert rows(db, question, before) == [(False,)]
    assert rows(db, question, after) == [(True,)]


def test_sessions_with_replication_role_replica_write_it_too(db: pythiadb.Connection, journaled: int) -> None:
    with db.transaction():
        db.execute("SET LOCAL session_replication_role = replica")
        db.execute("INSERT INTO docs VALUES (10, '[1,1]'), (11, NULL)")
        db.execute("UPDATE docs SET v = '[1,1]' WHERE id = 1")
        db.execute("UPDATE docs SET n = 1")
        db.execute("DELETE FROM docs WHERE id IN (2, 4)")
    assert journal(db, journaled) == ["1", "2", "10"]


def test_writers_need_no_right_on_the_journal(db: pythiadb.Connection, journaled: int) -> None:
    schema = one(db, "SELECT current_schema()")
    role = f"writer_{schema}"
    db.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON docs TO {role}".encode()
    )
    try:
        db.execute(f"SET ROLE {role}".encode())
        db.execute("INSERT INTO docs VALUES (10, '[1,1]')")
        db.execute("UPDATE docs SET v = '[1,1]' WHERE id = 1")
        for forbidden in (
            f"SELECT * FROM vecsys.journal_{journaled}",
            f"INSERT INTO vecsys.journal_{journaled} VALUES (1)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(forbidden.encode())
        with pytest.raises(
            psycopg.errors.InsufficientPrivilege
        ):  # on a table of one's own it would fill the journal
            db.execute(
                "CREATE TEMP TABLE own (id bigint, v vector(2));"
                f"CREATE TRIGGER t AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION vecsys.journal_{journaled}_row()".encode()
            )
    finally:
        db.execute("RESET ROLE")
        db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert journal(db, journaled) == ["1", "10"]
