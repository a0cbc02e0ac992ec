"""Defining vector indexes: what is refused and how, the procedures that wait, whose indexes they are."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pythiadb
from pythiadb.errors import DroppedIndex
from pythiadb.postgres.index_store import IndexStore, NewVersion
from tests.integration.background import in_background, wait_until
from tests.integration.vector_tables import define, definition, fingerprint, one, rows


def names(db: pythiadb.Connection) -> list[str]:
    schema = one(db, "SELECT current_schema()")
    found = rows(
        db, "SELECT name FROM pythia.vector_index WHERE namespace = %s::regnamespace ORDER BY 1", schema
    )
    return [name for (name,) in found]


# What a definition holds --------------------------------------------------------------------------------------------------


def test_defaults_and_what_follows_from_the_table(docs: pythiadb.Connection) -> None:
    index_id = define(docs, "i", "docs")
    columns = "column_name, key_column, key_type, vector_type, dimensions, include_columns, organization, distance, target_accuracy, parameters, parallel"
    assert definition(docs, index_id, columns) == (
        "v",
        "id",
        "int",
        "vector",
        2,
        [],
        None,
        "COSINE",
        90,
        {},
        1,
    )


def test_spellings_of_oracle_are_read(docs: pythiadb.Connection) -> None:
    graph = define(
        docs, "g", "docs", "V", include_columns=["KIND", "n"], organization="inmemory  graph", distance="l2_squared",
        parameters='{"type": "hnsw", "M": 16, "EFCONSTRUCTION": "200"}',
    )  # fmt: skip
    assert definition(docs, graph, "include_columns, organization, distance, parameters") == (
        ["kind", "n"], "INMEMORY NEIGHBOR GRAPH", "EUCLIDEAN_SQUARED", {"neighbors": 16, "efconstruction": 200},
    )  # fmt: skip
    parts = define(
        docs, "p", "docs", "b", organization="PARTITIONS",
        parameters='{"TYPE": "IVF", "neighbor partitions": 10, "samples_per_partition": 5, "MIN_VECTORS_PER_PARTITION": 0}',
    )  # fmt: skip
    assert definition(docs, parts, "organization, distance, dimensions, parameters") == (
        "NEIGHBOR PARTITIONS", "HAMMING", 16,
        {"partitions": 10, "samples_per_partition": 5, "min_vectors_per_partition": 0},
    )  # fmt: skip


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"vector_column": "nothing"}, "42703", 'column "nothing" of relation "docs" does not exist'),
    ({"vector_column": "kind"}, "42804", 'column "kind" has type text, which is not a vector type'),
    ({"table_name": "nowhere"}, "42P01", 'relation "nowhere" does not exist'),
    ({"table_name": "pg_class", "vector_column": "relname"}, "42501", 'permission denied: "pg_class" is a system catalog'),
    ({"index_name": "docs"}, "42P07", 'relation "docs" already exists'),
    ({"index_name": "public.i"}, "0A000", 'cannot create a vector index in schema "public"'),
    ({"index_name": "a.b.c"}, "42602", 'invalid name of a vector index: "a.b.c"'),
    ({"index_name": "x" * 64}, "42622", f'name "{"x" * 64}" of a vector index is too long'),
    ({"organization": "TREE"}, "22023", 'unknown organization "TREE" of a vector index'),
    ({"distance": "HAMMING"}, "22023", 'distance metric "HAMMING" is not available for an index on vector'),
    ({"distance": "NEAR"}, "22023", 'distance metric "NEAR" is not available for an index on vector'),
    ({"vector_column": "b", "distance": "COSINE"}, "22023", 'distance metric "COSINE" is not available for an index on bit'),
    ({"vector_column": "s", "distance": "JACCARD"}, "22023", 'distance metric "JACCARD" is not available for an index on sparsevec'),
    ({"target_accuracy": 0}, "22023", "target accuracy must be between 1 and 100, not 0"),
    ({"target_accuracy": 101}, "22023", "target accuracy must be between 1 and 100, not 101"),
    ({"parallel": 0}, "22023", "parallel must be between 1 and 1024, not 0"),
    ({"parameters": "[]"}, "22023", "parameters of a vector index must be a JSON object"),
    ({"parameters": '{"size": 1}'}, "22023", 'unknown parameter "size" of a vector index'),
    ({"parameters": '{"neighbors": 0}'}, "22023", 'parameter "neighbors" must be a whole number from 1 to 2048, not 0'),
    ({"parameters": '{"M": 2.5}'}, "22023", 'parameter "M" must be a whole number from 1 to 2048, not 2.5'),
    ({"parameters": '{"M": null}'}, "22023", 'parameter "M" must be a whole number from 1 to 2048, not <NULL>'),
    ({"parameters": '{"type": "IVF"}', "organization": "INMEMORY GRAPH"}, "22023", "type IVF does not fit ORGANIZATION INMEMORY NEIGHBOR GRAPH"),
    ({"parameters": '{"type": "FLAT"}'}, "22023", 'unknown type "FLAT" of a vector index'),
    ({"parameters": '{"M": 4}', "organization": "PARTITIONS"}, "22023", 'parameter "M" does not fit an index with ORGANIZATION NEIGHBOR PARTITIONS'),
    ({"include_columns": ["nothing"]}, "42703", 'column "nothing" of relation "docs" does not exist'),
    ({"include_columns": ["id"]}, "42701", 'column "id" is in the vector index already'),
    ({"include_columns": ["v"]}, "42701", 'column "v" is in the vector index already'),
    ({"include_columns": ["n", "n"]}, "42701", 'column "n" is included more than once'),
    ({"include_columns": ["j"]}, "0A000", 'column "j" of type jsonb cannot be included in a vector index'),
    ({"include_columns": [f"c{n}" for n in range(32)]}, "54011", "cannot include more than 31 columns in a vector index"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "sqlstate", "message"), REFUSED)
def test_refused_definition(
    docs: pythiadb.Connection, arguments: dict[str, Any], sqlstate: str, message: str
) -> None:
    given = {"index_name": "i", "table_name": "docs", "vector_column": "v"} | arguments
    written = ", ".join(f"{name} => %s" for name in given)
    with pytest.raises(psycopg.Error) as caught:
        docs.execute(f"SELECT pythia.define_vector_index({written})".encode(), tuple(given.values()))
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == (sqlstate, message)
    assert names(docs) == []


@pytest.mark.parametrize(
    "arguments",
    [arguments for arguments, state, _ in REFUSED if state not in ("42P01", "42501", "42602", "42622")],
)
def test_refused_definition_says_what_helps(docs: pythiadb.Connection, arguments: dict[str, Any]) -> None:
    given = {"index_name": "i", "table_name": "docs", "vector_column": "v"} | arguments
    written = ", ".join(f"{name} => %s" for name in given)
    with pytest.raises(psycopg.Error) as caught:
        docs.execute(f"SELECT pythia.define_vector_index({written})".encode(), tuple(given.values()))
    assert str(caught.value.diag.message_hint).endswith((".", ";"))


@pytest.mark.parametrize(
    ("made", "sqlstate", "message", "hint"),
    [
        ("TABLE x (v vector(2))", "55000", 'table "x" has no primary key', "ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"),
        ("TABLE x (id int, b int, v vector(2), PRIMARY KEY (id, b))", "0A000", 'primary key of table "x" has 2 columns',
         "DROP CONSTRAINT x_pkey, ADD UNIQUE (id, b), ADD COLUMN row_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"),
        ("TABLE x (id date PRIMARY KEY, v vector(2))", "0A000", 'primary key of table "x" has type date', "ADD UNIQUE (id), ADD COLUMN row_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"),
        ("UNLOGGED TABLE x (id int PRIMARY KEY, v vector(2))", "0A000", 'cannot create a vector index on relation "x"', "SET LOGGED;"),
        ("TEMP TABLE x (id int PRIMARY KEY, v vector(2))", "0A000", 'cannot create a vector index on relation "x"', "put the rows into a permanent table for an index."),
        ("VIEW x AS SELECT id, v FROM docs", "42809", 'cannot create a vector index on relation "x"', "can have one."),
        ("MATERIALIZED VIEW x AS SELECT id, v FROM docs", "42809", 'cannot create a vector index on relation "x"', "can have one."),
        ("TABLE x (id int PRIMARY KEY, v vector(2)); CREATE TABLE y () INHERITS (x)", "0A000", 'cannot create a vector index on relation "x"', "each of the children one of its own."),
        ("TABLE x (id int PRIMARY KEY, v bit(8) GENERATED ALWAYS AS (id::bit(8)) VIRTUAL)", "0A000", 'column "v" is a virtual generated column', "Generate it as STORED."),
    ],
)  # fmt: skip
def test_refused_table(docs: pythiadb.Connection, made: str, sqlstate: str, message: str, hint: str) -> None:
    docs.execute(f"CREATE {made}".encode())
    with pytest.raises(psycopg.Error) as caught:
        docs.execute("SELECT pythia.define_vector_index('i', 'x', 'v')")
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == (sqlstate, message)
    assert str(caught.value.diag.message_hint).endswith(hint)
    if "IDENTITY" in hint:  # the hint is the statement that helps
        docs.execute(str(caught.value.diag.message_hint).encode())
        define(docs, "i", "x")


def test_one_vector_index_a_column_and_one_name(docs: pythiadb.Connection) -> None:
    define(docs, "i", "docs")
    with pytest.raises(psycopg.errors.DuplicateTable, match='relation "i" already exists'):
        define(docs, "i", "docs", "b")
    with pytest.raises(
        psycopg.errors.DuplicateObject, match='column "v" has a vector index already'
    ) as caught:
        define(docs, "another", "docs")
    assert "CALL pythia.drop_vector_index(" in str(caught.value.diag.message_hint)
    define(docs, "another", "docs", "b")
    assert names(docs) == ["another", "i"]


def test_rebuild_of_what_is_no_vector_index_is_no_syntax_error(docs: pythiadb.Connection) -> None:
    for name in ("docs_pkey", "nowhere.i"):
        with pytest.raises(
            psycopg.errors.UndefinedObject, match=f'vector index "{name}" does not exist'
        ) as caught:
            docs.execute(f"ALTER INDEX {name} REBUILD")
        assert "v$vector_index" in str(caught.value.diag.message_hint)


# Procedures that wait ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", ["pythia.create_vector_index('i', 'docs', 'v')", "pythia.rebuild_vector_index('known')", "dbms_vector.create_index('i', 'docs', 'v')"]
)  # fmt: skip
def test_waiting_in_a_transaction_block_is_refused_with_a_hint(docs: pythiadb.Connection, call: str) -> None:
    define(docs, "known", "docs", "b")
    with (
        docs.transaction(),
        pytest.raises(
            psycopg.errors.ActiveSqlTransaction, match="cannot run inside a transaction block"
        ) as caught,
        docs.transaction(),
    ):
        docs.execute(f"CALL {call}".encode())
    assert "autocommit=True" in str(caught.value.diag.message_hint)
    assert names(docs) == ["known"]


def test_if_not_exists_skips_any_relation_of_the_name(docs: pythiadb.Connection) -> None:
    define(docs, "i", "docs")
    notices: list[str] = []
    docs.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    for name in ("i", "docs"):
        docs.execute("CALL pythia.create_vector_index(%s, 'docs', 'b', if_not_exists => true)", (name,))
    assert notices == ['relation "i" already exists, skipping', 'relation "docs" already exists, skipping']
    assert names(docs) == ["i"]


def test_create_rebuild_and_drop(docs: pythiadb.Connection) -> None:
    """The engine builds what was defined, and the calls return when it has."""
    docs.execute(
        "INSERT INTO docs (id, v) SELECT g, ARRAY[g, 1]::real[]::vector FROM generate_series(1, 100) g"
    )
    docs.execute("CALL pythia.create_vector_index('i', 'docs', 'v', ARRAY['n'], target_accuracy => 95)")
    assert rows(
        docs,
        "SELECT status, rows, version FROM pythia.vector_index_status WHERE table_name = 'docs'::regclass",
    ) == [("VALID", 100, 1)]
    docs.execute("CALL pythia.rebuild_vector_index('i', distance => 'EUCLIDEAN', target_accuracy => 80)")
    status = "SELECT i.status, i.distance, i.target_accuracy, v.rows FROM pythia.vector_index i JOIN pythia.vector_index_version v ON v.index_id = i.id"
    assert rows(docs, status + " WHERE name = 'i' AND relation = 'docs'::regclass") == [
        ("VALID", "EUCLIDEAN", 80, 100)
    ]
    docs.execute("CALL pythia.drop_vector_index('i')")
    assert names(docs) == []


def test_names_may_hold_any_characters(docs: pythiadb.Connection) -> None:
    docs.execute("""CREATE TABLE "t%s'" ("i%d" text PRIMARY KEY, "v%b" vector(2), "100%, x" int)""")
    docs.execute(
        """INSERT INTO "t%s'" SELECT 'k%' || g, ARRAY[g, 1]::real[]::vector, g FROM generate_series(1, 50) g"""
    )
    docs.execute("""CREATE VECTOR INDEX "i%s" ON "t%s'" ("v%b") INCLUDE ("100%, x")""")
    docs.execute("""INSERT INTO "t%s'" VALUES ('%s', '[1,2]', 3)""")
    state = "SELECT status, error, pending_rows FROM pythia.vector_index_status WHERE index_name = 'i%s'"
    wait_until(lambda: rows(docs, state) == [("VALID", None, 0)])
    docs.execute("""ALTER INDEX "i%s" REBUILD""")
    found = rows(
        docs,
        """SELECT "i%d" FROM "t%s'" WHERE "100%, x" < 9 ORDER BY "v%b" <=> '[1,2]' FETCH APPROX FIRST 1 ROWS ONLY""",
    )
    assert found == [("%s",)]


def test_failed_build_leaves_nothing_and_says_why(docs: pythiadb.Connection) -> None:
    docs.execute(
        "CREATE TABLE mixed (id int PRIMARY KEY, v vector); INSERT INTO mixed VALUES (1, '[1,2]'), (2, '[1,2,3]')"
    )
    with pytest.raises(
        psycopg.errors.ObjectNotInPrerequisiteState, match='could not create vector index "m"'
    ) as caught:
        docs.execute("CALL pythia.create_vector_index('m', 'mixed', 'v')")
    assert str(caught.value.diag.message_detail) == (
        'expected 2 dimensions, not 3. The row of "mixed" with id = 2 differs from the others.'
    )
    assert "same dimensions" in str(caught.value.diag.message_hint)
    assert names(docs) == []
    docs.execute("INSERT INTO mixed VALUES (3, '[1]')")  # no trigger is left either


def test_rebuild_while_a_build_runs_is_done_as_it_was_asked(docs: pythiadb.Connection, shop: Path) -> None:
    """What is under way was asked for before; it answers for nothing that came later."""
    docs.execute("CREATE TABLE many (id int PRIMARY KEY, v vector(16))")
    docs.execute(
        "INSERT INTO many SELECT g, (SELECT array_agg(sin(g * i)) FROM generate_series(1, 16) i)::vector FROM generate_series(1, 9000) g"
    )
    docs.execute(
        "CALL pythia.create_vector_index('m', 'many', 'v', parameters => '{\"type\": \"HNSW\", \"M\": 16}')"
    )
    schema = one(docs, "SELECT current_schema()")
    building = "SELECT count(*) FROM pythia.vector_index WHERE name = 'm' AND status = 'BUILDING' AND progress IS NOT NULL"
    with pythiadb.connect(shop, autocommit=True) as other:
        other.execute(f"SET search_path = {schema}, public".encode())
        first, outcome = in_background(lambda: other.execute("CALL pythia.rebuild_vector_index('m')"))
        wait_until(lambda: one(docs, building) > 0)
        docs.execute("CALL pythia.rebuild_vector_index('m', distance => 'DOT', parameters => '{\"M\": 5}')")
        first.join()
    assert not any(isinstance(result, Exception) for result in outcome)
    question = (
        "SELECT num_neighbors FROM pythia.v$vector_graph_index WHERE index_objn = (SELECT id FROM pythia.vector_index "
        "WHERE relation = 'many'::regclass)"
    )
    assert one(docs, question) == 5


def test_version_of_another_distance_is_not_published(docs: pythiadb.Connection) -> None:
    assert docs.server is not None
    index_id = define(docs, "i", "docs")
    version = NewVersion(1, str(uuid.uuid4()), 0, 2, True, {})
    with contextlib.closing(IndexStore(docs.server.conninfo(), docs.info.dbname)) as store:
        (before,) = (index for index in store.indexes() if index.index_id == index_id)
        docs.execute("UPDATE pythia.vector_index SET distance = 'DOT' WHERE id = %s", (index_id,))
        (now,) = (index for index in store.indexes() if index.index_id == index_id)
        with store.snapshot(before) as snapshot:
            assert not store.publish(before, version, snapshot, prune=True)
            assert store.publish(now, version, snapshot, prune=True)


def test_statement_that_was_prepared_for_a_dropped_index_says_so(docs: pythiadb.Connection) -> None:
    docs.execute("INSERT INTO docs (id, v) VALUES (1, '[1,1]')")
    docs.execute("CALL pythia.create_vector_index('i', 'docs', 'v')")
    search = "SELECT id FROM docs ORDER BY v <=> '[1,1]' FETCH APPROX FIRST 1 ROWS ONLY"
    docs.execute(f"PREPARE near AS {search}".encode())
    assert rows(docs, "EXECUTE near") == [(1,)]
    docs.execute("DROP INDEX i")
    with pytest.raises(DroppedIndex) as caught:
        docs.execute("EXECUTE near")
    assert (caught.value.sqlstate, "DEALLOCATE" in str(caught.value.hint)) == ("42883", True)
    docs.execute("DEALLOCATE near")
    docs.execute(f"PREPARE near AS {search}".encode())
    assert rows(docs, "EXECUTE near") == [(1,)]


def test_rebuild_with_another_distance_retires_the_versions(docs: pythiadb.Connection) -> None:
    index_id = define(docs, "i", "docs")
    docs.execute(
        "INSERT INTO pythia.vector_index_version VALUES (%s, 1, gen_random_uuid(), pg_current_snapshot(), %s, 0)",
        (index_id, fingerprint(docs, index_id)),
    )
    count = f"SELECT count(*) FROM pythia.vector_index_version WHERE index_id = {index_id}"
    with docs.transaction(force_rollback=True):
        docs.execute(
            "SELECT pythia.request_vector_rebuild(%s, 70, 'INMEMORY GRAPH', NULL, '{\"M\": 8}', NULL)",
            (index_id,),
        )
        assert definition(docs, index_id, "status, target_accuracy, parameters") == (
            "BUILDING",
            70,
            {"neighbors": 8},
        )
        docs.execute(
            "SELECT pythia.request_vector_rebuild(%s, NULL, 'PARTITIONS', NULL, NULL, NULL)", (index_id,)
        )
        assert definition(docs, index_id, "target_accuracy, organization, parameters") == (
            70,
            "NEIGHBOR PARTITIONS",
            {},
        )
        assert one(docs, count) == 1
        docs.execute("SELECT pythia.request_vector_rebuild(%s, NULL, NULL, 'DOT', NULL, NULL)", (index_id,))
        assert one(docs, count) == 0


def test_rename_and_drop(docs: pythiadb.Connection) -> None:
    define(docs, "i", "docs")
    with pytest.raises(psycopg.errors.DuplicateTable):
        docs.execute("CALL pythia.rename_vector_index('i', 'docs')")
    docs.execute("CALL pythia.rename_vector_index('I', 'An index')")
    assert names(docs) == ["An index"]
    with pytest.raises(psycopg.errors.UndefinedObject, match='vector index "i" does not exist'):
        docs.execute("CALL pythia.drop_vector_index('i')")
    docs.execute("CALL pythia.drop_vector_index('i', if_exists => true)")
    docs.execute("CALL pythia.drop_vector_index('\"An index\"')")
    assert names(docs) == []


def test_drop_takes_the_table_before_the_definition(shop: Path, docs: pythiadb.Connection) -> None:
    """As the keeper and ALTER TABLE do: a transaction with the table can go on while a drop waits for it."""
    index_id = define(docs, "i", "docs")
    schema = one(docs, "SELECT current_schema()")
    with pythiadb.connect(shop, autocommit=True) as other:
        other.execute(f"SET search_path = {schema}, public".encode())
        with docs.transaction():
            docs.execute("LOCK TABLE docs IN ACCESS SHARE MODE")
            dropping, outcome = in_background(lambda: other.execute("CALL pythia.drop_vector_index('i')"))
            pid = other.info.backend_pid
            wait_until(lambda: one(docs, "SELECT cardinality(pg_blocking_pids(%s))", pid) > 0)
            docs.execute("UPDATE pythia.vector_index SET progress = NULL WHERE id = %s", (index_id,))
        dropping.join()
    assert not any(isinstance(result, Exception) for result in outcome)
    assert names(docs) == []


# Whose indexes -------------------------------------------------------------------------------------------------------------


def test_only_a_tables_owner_may_define_change_and_drop(docs: pythiadb.Connection, role: str) -> None:
    index_id = define(docs, "i", "docs")
    docs.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON docs TO {role}".encode())
    docs.execute(f"SET ROLE {role}".encode())
    for call in (
        "SELECT pythia.define_vector_index('j', 'docs', 'b')",
        "CALL pythia.drop_vector_index('i')",
        "CALL pythia.rename_vector_index('i', 'j')",
        "CALL pythia.rebuild_vector_index('i')",
        f"SELECT pythia.request_vector_rebuild({index_id}, 1, NULL, NULL, NULL, NULL)",
        f"SELECT pythia.define_vector_journal({index_id})",
        f"SELECT pythia.remove_vector_journal({index_id}, 'docs')",
        f"UPDATE pythia.vector_index SET status = 'VALID' WHERE id = {index_id}",
        "INSERT INTO pythia.vector_index_version VALUES (1, 1, gen_random_uuid(), pg_current_snapshot(), '', 0)",
        "SELECT * FROM pythia.vector_query",
        f"SELECT * FROM vecsys.journal_{index_id}",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            docs.execute(call.encode())
    with pytest.raises(psycopg.Error, match="check option"):
        docs.execute(
            "INSERT INTO pythia.owned_vector_index (name, relation, column_name) VALUES ('j', 'docs', 'b')"
        )
    assert rows(docs, "SELECT * FROM pythia.owned_vector_index") == []
    assert [row[0] for row in rows(docs, "DELETE FROM pythia.owned_vector_index RETURNING name")] == []
    docs.execute("RESET ROLE")
    assert names(docs) == ["i"]


def test_owner_that_is_no_superuser(docs: pythiadb.Connection, role: str) -> None:
    docs.execute(f"ALTER TABLE docs OWNER TO {role}; SET ROLE {role}".encode())
    index_id = one(docs, "SELECT pythia.define_vector_index('i', 'docs', 'v')")
    docs.execute("INSERT INTO docs (id, v) VALUES (1, '[1,1]')")
    assert rows(docs, "SELECT name FROM pythia.vector_index") == [("i",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        docs.execute("UPDATE pythia.owned_vector_index SET status = 'VALID'")
    docs.execute("CALL pythia.rename_vector_index('i', 'j')")
    docs.execute("ALTER TABLE docs RENAME v TO w")
    docs.execute("UPDATE docs SET w = '[2,2]'")
    docs.execute("CALL pythia.drop_vector_index('j')")
    docs.execute("RESET ROLE")
    assert one(docs, "SELECT to_regclass(%s)", f"vecsys.journal_{index_id}") is None


def test_definitions_are_seen_by_those_who_may_select(docs: pythiadb.Connection, role: str) -> None:
    define(docs, "i", "docs")
    question = "SELECT name FROM pythia.vector_index WHERE relation = %s::regclass"
    table = one(docs, "SELECT 'docs'::regclass::oid")
    seen = []
    for grant in (
        "",
        f"GRANT SELECT (id) ON docs TO {role}",
        f"REVOKE ALL (id) ON docs FROM {role}; GRANT pg_monitor TO {role}",
    ):
        docs.execute(grant.encode())
        docs.execute(f"SET ROLE {role}".encode())
        seen.append(len(rows(docs, question, table)))
        docs.execute("RESET ROLE")
    assert seen == [0, 1, 1]


def test_a_superusers_session_lends_no_rights(docs: pythiadb.Connection, role: str) -> None:
    """Code of another role that a superuser's session runs, as ANALYZE does, defines nothing on the superuser's tables."""
    schema = one(docs, "SELECT current_schema()")
    docs.execute(f"SET ROLE {role}".encode())
    docs.execute(
        f"CREATE FUNCTION trap() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS "
        f"$$ BEGIN PERFORM pythia.define_vector_index('j', '{schema}.docs', 'v'); RETURN 1; END $$".encode()
    )
    docs.execute("RESET ROLE")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of table docs"):
        docs.execute("SELECT trap()")
