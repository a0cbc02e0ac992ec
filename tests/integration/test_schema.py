"""The installed schema: upgrades equal fresh installs, installs are all or nothing, dumps restore, removal is careful."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psycopg
import pytest
from databases import connect, dumped, ours, url
from psycopg.types.json import Jsonb

import pythiadb
from pythiadb.errors import SchemaVersionError
from pythiadb.postgres import install
from pythiadb.postgres.server import Server
from tests.unit.models.small_models import HIDDEN, VOCABULARY, string_graph, token_graph, write_tokenizer

FROZEN = Path(__file__).with_name("frozen_migrations.txt")
SCHEMA_FOLDER = Path(install.__file__).parents[1] / "schema"


# Versions -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [m.number for m in install.migrations()[:-1]])
def test_upgrade_from_every_version_equals_a_fresh_install(
    make_database: Callable[..., str], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older version is its migrations alone: today's functions may need tables that it lacks."""
    old, fresh = make_database(), make_database()
    with connect(old) as connection:
        with monkeypatch.context() as patch:
            patch.setattr(install, "definitions", lambda: [])
            install.install(connection, up_to=version)
        assert install.installed(connection) is not None
        assert install.install(connection)
    with connect(fresh) as connection:
        assert install.install(connection)
    assert dumped(old) == dumped(fresh)


# What version 2 had: the view that every model's own view reads, and what a load wrote for an embedding of texts.
VERSION_2 = """
CREATE VIEW pythia.model_details WITH (security_invoker = true) AS
SELECT m.id, m.relation::text AS model_name, m.function, (m.spec ->> 'dimensions')::integer AS dimensions,
       (m.spec ->> 'max_tokens')::integer AS max_tokens, m.spec -> 'attributes' AS attributes, m.size AS model_size,
       m.created_at, m.metadata, m.facts
FROM pythia.model m;
GRANT USAGE ON SCHEMA pythia TO PUBLIC;
GRANT SELECT ON pythia.model, pythia.model_details TO PUBLIC;
"""
OLD_MODEL = """
WITH made AS (
    INSERT INTO pythia.model (loaded_by, function, package, spec, metadata, facts, size)
    VALUES ('postgres', 'embedding', %(package)s, %(spec)s, '{{"function": "embedding"}}', '{{"graph_name": "old", "inputs": [], "outputs": []}}', %(size)s)
    RETURNING id)
INSERT INTO pythia.model_file SELECT id, f.name, f.sha256, f.size FROM made, jsonb_to_recordset(%(files)s::jsonb) AS f(name text, sha256 text, size bigint);
CREATE VIEW public.{name} AS SELECT * FROM pythia.model_details WHERE id = {id};
UPDATE pythia.model SET relation = 'public.{name}' WHERE id = {id};
"""
FORMAT_1 = {"format": 1, "function": "embedding", "graph": "model.onnx"}


def write_old_model(
    connection: psycopg.Connection[Any], name: str, number: int, spec: dict[str, Any], files: dict[str, bytes]
) -> None:
    """Write a model of format 1 into a schema of version 2, as that version's load did."""
    entries = []
    for file, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        entries.append({"name": file, "sha256": digest, "size": len(data)})
        connection.execute("INSERT INTO pythia.model_chunk VALUES (%s, 0, %s)", (digest, data))
    package = hashlib.sha256(json.dumps([spec, entries]).encode()).hexdigest()
    size = sum(map(len, files.values()))
    values = {"spec": Jsonb(spec), "files": Jsonb(entries), "package": package, "size": size}
    psycopg.ClientCursor(connection).execute(OLD_MODEL.format(name=name, id=number).encode(), values)


def test_models_of_version_2_score_after_the_upgrade(
    make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One model that takes strings and one with a tokenizer; grants and numbers stay, detail views come."""
    conninfo = make_database()
    tokenizer = write_tokenizer(tmp_path).read_bytes()
    lookup = token_graph(pooled=True)
    role = f"reader_{uuid.uuid4().hex[:8]}"
    with connect(conninfo) as connection:
        with monkeypatch.context() as patch:
            patch.setattr(install, "definitions", lambda: [])
            install.install(connection, up_to=2)
        connection.execute(VERSION_2)
        strings = {**FORMAT_1, "inputs": ["input"], "output": "embedding", "attributes": ["DATA"]}
        tokens = {
            **FORMAT_1,
            "inputs": ["input_ids", "attention_mask", "token_type_ids"],
            "output": "sentence_embedding",
        }
        write_old_model(
            connection, "animals", 1,
            {**strings, "dimensions": 3, "tokenizer": None, "max_tokens": None},
            {"model.onnx": string_graph().SerializeToString()},
        )  # fmt: skip
        write_old_model(
            connection, "words", 2,
            {**tokens, "attributes": ["TEXT"], "dimensions": HIDDEN, "tokenizer": "tokenizer.json", "max_tokens": 8},
            {"model.onnx": lookup.SerializeToString(), "tokenizer.json": tokenizer},
        )  # fmt: skip
        connection.execute(f"CREATE ROLE {role}; GRANT SELECT ON public.animals TO {role}".encode())
        connection.execute("COMMENT ON VIEW public.animals IS 'old'")
        assert install.install(connection)
        try:
            assert install.dependents(connection) == []
            connection.execute(f"SET ROLE {role}".encode())
            row = connection.execute(
                "SELECT pythia.vector_embedding('public.animals', 'dog')::text"
            ).fetchone()
            assert row == ("[0,1,0]",)
            connection.execute("RESET ROLE")
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
        found = connection.execute(
            "SELECT pythia.vector_embedding('public.words', 'dog', 'text')::real[]"
        ).fetchone()
        names = [entry.name for entry in lookup.graph.input]
        first = VOCABULARY["[CLS]"]  # whose row of the table is the pooled output
        bare = ort.InferenceSession(lookup.SerializeToString()).run(
            ["sentence_embedding"], {name: np.array([[first]], np.int64) for name in names}
        )
        np.testing.assert_allclose(found[0], np.asarray(bare[0])[0], atol=1e-6)  # type: ignore[index]
        assert connection.execute(
            "SELECT model_name, comments, external_data FROM pythia.user_mining_models ORDER BY 1"
        ).fetchall() == [("ANIMALS", "old", "NO"), ("WORDS", None, "NO")]
        rows = connection.execute('SELECT value FROM public."dm$vmanimals" WHERE name = %s', ("Graph Name",))
        assert rows.fetchall() == [("old",)]
        connection.execute("CALL dbms_vector.drop_onnx_model('public.words')")


def test_older_schema_is_named_with_the_command_that_upgrades_it(
    make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    conninfo = make_database()
    with connect(conninfo) as connection, monkeypatch.context() as patch:
        patch.setattr(install, "definitions", lambda: [])
        install.install(connection, up_to=1)
    with pytest.raises(SchemaVersionError, match="has version 1, this package needs") as caught:
        pythiadb.connect(url(conninfo))
    assert str(caught.value.hint).startswith("Run: pythia upgrade postgresql://")
    hinted = str(caught.value.hint).removeprefix("Run: pythia upgrade ")
    assert install.ensure(f"{hinted}&user=postgres")
    pythiadb.connect(url(conninfo)).close()


def test_second_install_does_nothing(make_database: Callable[..., str]) -> None:
    conninfo = make_database()
    assert install.ensure(conninfo)
    before = dumped(conninfo)
    assert not install.ensure(conninfo)
    assert dumped(conninfo) == before


def test_newer_schema_is_refused(make_database: Callable[..., str]) -> None:
    conninfo = make_database()
    install.ensure(conninfo)
    with connect(conninfo) as connection:
        connection.execute("INSERT INTO pythia.schema_version VALUES (999, 'of the future')")
    with pytest.raises(SchemaVersionError, match="has version 999") as caught:
        install.ensure(conninfo)
    assert "Upgrade the package" in str(caught.value.hint)
    with pytest.raises(SchemaVersionError, match="has version 999"):
        pythiadb.connect(url(conninfo))


def test_database_without_the_schema_is_named_with_the_command(make_database: Callable[..., str]) -> None:
    with pytest.raises(SchemaVersionError, match="has no pythia schema") as caught:
        pythiadb.connect(url(make_database()))
    assert str(caught.value.hint).startswith("Run: pythia install postgresql://")


def test_two_installers_at_once_both_succeed(make_database: Callable[..., str]) -> None:
    conninfo = make_database()
    gate = threading.Barrier(2)
    outcomes: list[object] = []

    def work() -> None:
        gate.wait()
        try:
            outcomes.append(install.ensure(conninfo))
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["False", "True"]


def test_migrations_are_frozen() -> None:
    """A released migration never changes: databases that ran it would differ from new ones.

    To add a migration: write `schema/migrations/NNNN_what.sql` with the next number and append the line that this test
    prints to frozen_migrations.txt. To change a table that a released migration made, add a migration.
    """
    found = [f"{hashlib.sha256(m.text.encode()).hexdigest()}  {m.name}" for m in install.migrations()]
    assert found == FROZEN.read_text().splitlines()
    assert [m.number for m in install.migrations()] == list(range(1, len(found) + 1))


def test_every_sql_file_is_installed() -> None:
    """A new file that is not listed in install.definitions() would silently do nothing."""
    named = {d.name for d in install.definitions()} | {"dependents.sql"}
    on_disk = {p.relative_to(SCHEMA_FOLDER).as_posix() for p in SCHEMA_FOLDER.rglob("*.sql")}
    assert {name for name in on_disk if not name.startswith("migrations/")} == named


# All or nothing -----------------------------------------------------------------------------------------------------------


def test_wrong_encoding_is_refused_before_anything_is_made(make_database: Callable[..., str]) -> None:
    conninfo = make_database("ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'")
    with connect(conninfo) as connection:
        before = ours(connection)
        with pytest.raises(SchemaVersionError, match="has encoding SQL_ASCII, pythia needs UTF8"):
            install.install(connection)
        assert ours(connection) == before


def test_install_that_fails_half_way_leaves_nothing(
    make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    conninfo = make_database()
    broken = [*install.definitions(), install.Script("broken.sql", "SELECT 1/0")]
    with connect(conninfo) as connection:
        before = ours(connection)
        with monkeypatch.context() as patch:
            patch.setattr(install, "definitions", lambda: broken)
            with pytest.raises(psycopg.errors.DivisionByZero):
                install.install(connection)
        assert ours(connection) == before
        assert install.install(connection)


def test_role_without_rights_gets_postgresqls_error(
    make_database: Callable[..., str], server: Server
) -> None:
    conninfo = make_database()
    role = f"nobody_{uuid.uuid4().hex[:8]}"
    with connect(conninfo) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            install.ensure(conninfo.replace("user=postgres", f"user={role}"))
        assert install.installed(connection) is None
        connection.execute(f"DROP ROLE {role}".encode())


def test_own_search_path_of_a_database_is_kept(make_database: Callable[..., str]) -> None:
    conninfo = make_database()
    with connect(conninfo) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET search_path = sales".encode())
    install.ensure(conninfo)
    with connect(conninfo) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("sales",)
    with connect(conninfo) as connection:
        install.uninstall(connection)
    with connect(conninfo) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("sales",)


# What is installed --------------------------------------------------------------------------------------------------------


def test_every_security_definer_function_pins_its_search_path(db: pythiadb.Connection) -> None:
    rows = db.execute(
        "SELECT p.oid::regprocedure::text, p.proconfig FROM pg_proc p "
        "WHERE p.pronamespace IN ('pythia'::regnamespace, 'dbms_vector'::regnamespace) AND p.prosecdef "
        "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"  # dblink's, in C
    ).fetchall()
    assert len(rows) > 10
    assert [name for name, config in rows if config != ["search_path=pg_catalog, pg_temp"]] == []


def test_public_may_call_only_what_is_listed(db: pythiadb.Connection) -> None:
    """Whoever adds a function to schema pythia decides whether PUBLIC may call it, here and in privileges.sql."""
    rows = db.execute(
        "SELECT DISTINCT p.proname FROM pg_proc p WHERE p.pronamespace = 'pythia'::regnamespace "
        "AND p.prosecdef AND has_function_privilege('public', p.oid, 'EXECUTE')"
    ).fetchall()
    assert {row[0] for row in rows} == {
        "vector_embedding", "vector_embedding_batch", "prediction", "prediction_probability", "prediction_set",
        "cluster_id", "cluster_probability", "cluster_distance", "cluster_set", "scoring_batch", "scoring_columns",
        "shared_models", "populate_model", "reclaim_model", "engine_ping", "is_model", "remove_orphaned_models",
        "exchange_models", "record_detail_view", "fetch_shared_directory_file",
        "check_no_transaction", "find_owned_index", "find_vector_index", "is_taken", "remove_orphaned_vector_indexes",
        "vector_index_journal", "watch_vector_indexes", "vector_index_names", "vector_index_rows", "may_lack_vectors", "report_accuracy",
        "vector_memory", "vector_memory_advice", "vector_column_facts",
    }  # fmt: skip
    row = db.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'pythia'::regnamespace AND relkind = 'r' "
        "AND relname NOT IN ('model', 'schema_version', 'vector_index', 'vector_index_version', 'vector_index_accuracy', "
        "'vector_index_use', 'vector_accuracy_report') "
        "AND has_table_privilege('public', oid, 'SELECT')"
    ).fetchone()
    assert row == (0,)
