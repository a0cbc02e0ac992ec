"""Vector indexes follow their tables: dropped, renamed, moved, upgraded, dumped and restored."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from databases import connect, ours, run

import pythiadb
from pythiadb.postgres import install
from pythiadb.postgres.index_store import IndexStore, NewVersion
from tests.integration.background import wait_until
from tests.integration.vector_tables import DOCS, define, definition, fingerprint, journal, one, rows

# Following the table --------------------------------------------------------------------------------------------------------


def leftovers(db: psycopg.Connection[Any], index_id: int) -> int:
    return int(one(
        db,
        "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'vecsys'::regnamespace AND proname ~ %s) "
        "+ (SELECT count(*) FROM pg_class WHERE relnamespace = 'vecsys'::regnamespace AND relname = %s) "
        "+ (SELECT count(*) FROM pg_trigger WHERE tgname LIKE %s) + (SELECT count(*) FROM pythia.vector_index WHERE id = %s)",
        f"_{index_id}(_|$)", f"journal_{index_id}", f"vector\\_index\\_{index_id}\\_%", index_id,
    ))  # fmt: skip


@pytest.mark.parametrize(
    "drop",
    [
        "DROP TABLE docs",
        "DROP TABLE docs CASCADE",
        "ALTER TABLE docs DROP COLUMN v",
        "ALTER TABLE docs DROP COLUMN kind",
        "ALTER TABLE docs DROP COLUMN id",
        "CALL pythia.drop_vector_index('i')",
    ],
)
def test_index_goes_with_its_table_and_its_columns(docs: pythiadb.Connection, drop: str) -> None:
    index_id = define(docs, "i", "docs", include_columns=["kind"])
    assert leftovers(docs, index_id) > 5
    with docs.transaction(force_rollback=True):
        docs.execute(drop.encode())
        assert leftovers(docs, index_id) == 0
    assert leftovers(docs, index_id) > 5
    docs.execute(drop.encode())
    assert leftovers(docs, index_id) == 0


def test_index_goes_with_its_schema_and_its_owner(docs: pythiadb.Connection, role: str) -> None:
    place = f"place_{uuid.uuid4().hex[:8]}"
    docs.execute(f"CREATE SCHEMA {place}; CREATE TABLE {place}.t (id int PRIMARY KEY, v vector(2))".encode())
    first = define(docs, "i", f"{place}.t")
    docs.execute(f"DROP SCHEMA {place} CASCADE".encode())
    docs.execute("CREATE TABLE owned (id int PRIMARY KEY, v vector(2))")
    docs.execute(f"ALTER TABLE owned OWNER TO {role}".encode())
    second = define(docs, "i", "owned")
    docs.execute(f"DROP OWNED BY {role}".encode())
    assert leftovers(docs, first) == leftovers(docs, second) == 0


def test_definition_whose_table_went_unseen_is_in_nobodys_way(docs: pythiadb.Connection) -> None:
    index_id = define(docs, "i", "docs")
    with docs.transaction():
        docs.execute("SET LOCAL event_triggers = off")
        docs.execute("DROP TABLE docs")
    assert leftovers(docs, index_id) > 0
    docs.execute("CREATE TABLE other (id int PRIMARY KEY, v vector(2))")
    define(docs, "i", "other")
    assert leftovers(docs, index_id) == 0


def test_renamed_table_columns_and_schema(docs: pythiadb.Connection) -> None:
    index_id = define(docs, "i", "docs", include_columns=["kind", "n"])
    before = fingerprint(docs, index_id)
    for change in ("v TO vec", "id TO key", "kind TO sort"):
        docs.execute(f"ALTER TABLE docs RENAME {change}".encode())
    docs.execute("ALTER TABLE docs RENAME TO papers")
    docs.execute("ALTER TABLE papers DROP COLUMN j")
    assert definition(docs, index_id, "column_name, key_column, include_columns") == (
        "vec",
        "key",
        ["sort", "n"],
    )
    docs.execute("INSERT INTO papers (key, vec) VALUES (1, '[1,1]')")
    docs.execute("UPDATE papers SET sort = 'x'")
    docs.execute("UPDATE papers SET key = 2")
    assert journal(docs, index_id) == ["1", "1", "1", "2"]
    assert fingerprint(docs, index_id) == before
    place = f"place_{uuid.uuid4().hex[:8]}"
    docs.execute(f"CREATE SCHEMA {place}".encode())
    docs.execute(f"ALTER TABLE papers SET SCHEMA {place}".encode())
    docs.execute(f"ALTER SCHEMA {place} RENAME TO {place}_2".encode())
    assert definition(docs, index_id, "namespace::text") == (f"{place}_2",)
    docs.execute(f"CALL pythia.drop_vector_index('{place}_2.i')".encode())
    docs.execute(f"DROP SCHEMA {place}_2 CASCADE".encode())


def test_without_its_primary_key_it_is_not_used(docs: pythiadb.Connection) -> None:
    index_id = define(docs, "i", "docs")
    docs.execute("ALTER TABLE docs DROP CONSTRAINT docs_pkey")
    assert fingerprint(docs, index_id) is None
    assert definition(docs, index_id, "status, error") == (
        "UNUSABLE",
        'table "docs" has no primary key of column "id" any more',
    )
    docs.execute("ALTER TABLE docs ADD PRIMARY KEY (id)")
    assert definition(docs, index_id, "status, error") == ("BUILDING", None)
    docs.execute("ALTER TABLE docs SET UNLOGGED")
    assert fingerprint(docs, index_id) is None


def test_a_table_without_its_key_is_not_read_again_and_again(docs: pythiadb.Connection) -> None:
    docs.execute(
        "INSERT INTO docs (id, v) SELECT g, ARRAY[g, 1]::real[]::vector FROM generate_series(1, 50) g"
    )
    docs.execute("CALL pythia.create_vector_index('i', 'docs', 'v')")
    state = "SELECT status FROM pythia.vector_index WHERE relation = 'docs'::regclass"
    docs.execute("ALTER TABLE docs DROP CONSTRAINT docs_pkey")
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert one(docs, state) == "UNUSABLE"
        time.sleep(0.02)
    docs.execute("ALTER TABLE docs ADD PRIMARY KEY (id)")
    wait_until(lambda: one(docs, state) == "VALID")


def test_a_build_that_the_table_has_outrun_is_not_published(docs: pythiadb.Connection) -> None:
    assert docs.server is not None
    index_id = define(docs, "i", "docs")
    docs.execute("ALTER TABLE docs DROP CONSTRAINT docs_pkey")
    version = NewVersion(1, str(uuid.uuid4()), 0, 2, True, {})
    with contextlib.closing(IndexStore(docs.server.conninfo(), docs.info.dbname)) as store:
        (index,) = (index for index in store.indexes() if index.index_id == index_id)
        assert index.lacks_its_table
        with store.snapshot(index) as snapshot:
            assert not store.publish(index, version, snapshot, prune=True)
        docs.execute("ALTER TABLE docs ADD PRIMARY KEY (id)")
        docs.execute("UPDATE pythia.vector_index SET status = 'FAILED' WHERE id = %s", (index_id,))
        with store.snapshot(index) as snapshot:
            assert store.publish(index, version, snapshot, prune=True)
    assert definition(docs, index_id, "status") == ("VALID",)


def test_usable_again_when_the_child_of_its_table_is_dropped(docs: pythiadb.Connection) -> None:
    index_id = define(docs, "i", "docs")
    docs.execute("CREATE TABLE child () INHERITS (docs)")
    assert definition(docs, index_id, "status, error") == (
        "UNUSABLE",
        'table "docs" has inheritance children',
    )
    with docs.transaction():
        docs.execute("DROP TABLE child")
        assert definition(docs, index_id, "status, error") == ("BUILDING", None)


def test_renamed_include_columns_are_not_taken_for_each_other(db: pythiadb.Connection) -> None:
    db.execute("CREATE TABLE docs (id int PRIMARY KEY, v vector(2), low int, high int)")
    db.execute(
        "INSERT INTO docs SELECT g, ARRAY[g, 1]::real[]::vector, g % 2, g / 2 % 2 FROM generate_series(1, 6000) g"
    )
    db.execute(
        "CALL pythia.create_vector_index('i', 'docs', 'v', ARRAY['low', 'high'], 'NEIGHBOR PARTITIONS', 'EUCLIDEAN')"
    )
    db.execute(
        "BEGIN; ALTER TABLE docs RENAME low TO t; ALTER TABLE docs RENAME high TO low; ALTER TABLE docs RENAME t TO high; COMMIT"
    )
    search = (
        "SELECT /*+ VECTOR_INDEX_TRANSFORM(docs i IN_FILTER_WITH_JOIN_BACK) */ id FROM docs WHERE high = 1 "
        "ORDER BY v <-> '[1,1]' FETCH APPROX FIRST 3 ROWS ONLY"
    )
    assert rows(db, search) == [(1,), (3,), (5,)]
    state = "SELECT status = 'VALID' AND version IS NOT NULL FROM pythia.vector_index_status WHERE table_name = 'docs'::regclass"
    wait_until(lambda: one(db, state))
    assert rows(db, search) == [(1,), (3,), (5,)]
    db.execute("INSERT INTO docs VALUES (0, '[1,1]', 1, 1)")
    pending = "SELECT pending_rows, error FROM pythia.vector_index_status WHERE table_name = 'docs'::regclass"
    wait_until(lambda: rows(db, pending) == [(0, None)])


def test_types_of_indexed_columns_stay(docs: pythiadb.Connection) -> None:
    """PostgreSQL names the trigger that reads the column."""
    define(docs, "i", "docs")
    with pytest.raises(
        psycopg.errors.FeatureNotSupported, match="type of a column used in a trigger definition"
    ):
        docs.execute("ALTER TABLE docs ALTER v TYPE halfvec(2)")
    docs.execute("ALTER TABLE docs ALTER n TYPE bigint")


def test_other_tables_ddl_leaves_indexes_alone(docs: pythiadb.Connection) -> None:
    index_id = define(docs, "i", "docs")
    before = definition(docs, index_id, "xmin::text")
    docs.execute(
        "CREATE TABLE other (id int PRIMARY KEY, c int); ALTER TABLE other ADD d int; ALTER TABLE other DROP c; DROP TABLE other"
    )
    assert definition(docs, index_id, "xmin::text") == before


# Upgrades and copies ---------------------------------------------------------------------------------------------------------


def test_upgrade_keeps_triggers_and_renews_functions(docs: pythiadb.Connection) -> None:
    """A fingerprint that changed would mean building every index anew."""
    assert docs.server is not None
    index_id = define(docs, "i", "docs")
    before = fingerprint(docs, index_id)
    with (
        psycopg.connect(docs.server.conninfo(), autocommit=True) as connection,
        connection.transaction(force_rollback=True),
    ):
        connection.execute(
            f"CREATE OR REPLACE FUNCTION vecsys.journal_{index_id}_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'".encode()
        )
        connection.execute("UPDATE pythia.schema_version SET checksum = 'of another version'")
        assert install.install(connection)
        connection.execute("RESET search_path")
        source = connection.execute(
            "SELECT prosrc FROM pg_proc WHERE proname = %s", (f"journal_{index_id}_row",)
        ).fetchone()
        assert source is not None
        assert f"INSERT INTO vecsys.journal_{index_id}" in source[0]
        found = connection.execute("SELECT pythia.vector_fingerprint(%s)", (index_id,)).fetchone()
        assert found == (before,)


def test_dump_and_restore_carry_the_index(make_database: Callable[..., str], tmp_path: Path) -> None:
    """Definition, triggers, journal; the versions that were restored belong to another database's rows and are not used."""
    source, target = make_database(), make_database()
    install.ensure(source)
    with connect(source) as old:
        old.execute(DOCS)
        old.execute(
            "ALTER TABLE docs DROP COLUMN j, ADD extra int"
        )  # columns are numbered otherwise after a restore
        index_id = define(old, "i", "docs", include_columns=["extra"])
        old.execute("INSERT INTO docs (id, v) VALUES (1, '[1,1]')")
        seen = fingerprint(old, index_id)
    for done in (
        run("pg_dump", source, "-Fc", "-f", str(tmp_path / "dump")),
        run("pg_restore", target, "--exit-on-error", str(tmp_path / "dump")),
    ):
        assert done.returncode == 0, done.stderr
    with connect(target) as new:
        assert fingerprint(new, index_id) != seen
        assert journal(new, index_id) == ["1"]
        new.execute("ALTER TABLE docs RENAME extra TO more")
        new.execute("UPDATE docs SET more = 1")
        assert journal(new, index_id) == ["1", "1"]
        new.execute("ALTER TABLE docs DROP COLUMN more")
        assert leftovers(new, index_id) == 0


def test_uninstall_takes_triggers_and_journals_along(make_database: Callable[..., str]) -> None:
    conninfo = make_database()
    install.ensure(conninfo)
    with connect(conninfo) as connection:
        connection.execute(DOCS)
        define(connection, "i", "docs")
        assert install.dependents(connection) == []
        install.uninstall(connection)
    with connect(conninfo) as connection:
        connection.execute("INSERT INTO docs (id, v) VALUES (1, '[1,1]')")
        connection.execute("UPDATE docs SET v = '[2,2]'; ALTER TABLE docs DROP COLUMN v; DROP TABLE docs")
        assert rows(connection, "SELECT FROM pg_event_trigger") == []
        assert "vecsys" not in ours(connection)[0]
