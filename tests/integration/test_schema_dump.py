"""Schema and models in a dump, restored, copied and removed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import connect, dumped, ours, run, url

import pythiadb
from pythiadb.errors import SchemaVersionError
from pythiadb.postgres import install
from pythiadb.postgres.server import Server
from tests.unit.models.small_models import string_graph

# Dump and restore ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(make_database: Callable[..., str]) -> str:
    """A database with a model, vectors and a view that uses the model."""
    conninfo = make_database()
    install.ensure(conninfo)
    with pythiadb.connect(url(conninfo), autocommit=True) as db:
        db.execute(
            "CALL dbms_vector.load_onnx_model('animals', %s::bytea)", (string_graph().SerializeToString(),)
        )
        db.execute("COMMENT ON VIEW animals IS 'three of them'")
        db.execute("CREATE TABLE pets (id int PRIMARY KEY, kind text, v vector(3))")
        db.execute("INSERT INTO pets VALUES (1, 'cat'), (2, 'dog')")
        db.execute("UPDATE pets SET v = VECTOR_EMBEDDING(animals USING kind AS data)")
        db.execute(
            "CREATE VIEW dogs AS SELECT id FROM pets "
            "WHERE VECTOR_DISTANCE(v, VECTOR_EMBEDDING(animals USING 'dog' AS data), COSINE) < 0.1"
        )
    return conninfo


def restore(source: str, target: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    archive = folder / "dump"
    done = run("pg_dump", source, "-Fc", "-f", str(archive))
    assert done.returncode == 0, done.stderr
    return run("pg_restore", target, *arguments, str(archive))


def test_restored_database_works(filled: str, make_database: Callable[..., str], tmp_path: Path) -> None:
    """pg_dump -Fc and a plain pg_restore carry the models too: same bytes, same views, same list."""
    target = make_database()
    done = restore(filled, target, tmp_path, "--exit-on-error")
    assert done.returncode == 0, done.stderr
    with connect(target) as new:
        assert not install.install(
            new
        )  # everything is there; only the database's search_path is not in a dump
    question = (
        "SELECT vector_embedding('public.animals', 'dog')::text, (SELECT array_agg(id) FROM public.dogs)"
    )
    with connect(filled) as old, connect(target) as new:
        assert new.execute(question).fetchone() == old.execute(question).fetchone()
        assert new.execute("SELECT model_name, comments FROM pythia.user_mining_models").fetchall() == [
            ("ANIMALS", "three of them")
        ]
        assert new.execute("SELECT v::text FROM public.pets ORDER BY id").fetchall() == [
            ("[1,0,0]",),
            ("[0,1,0]",),
        ]
        assert new.execute("SELECT function FROM public.animals").fetchone() == ("embedding",)
        assert new.execute("SELECT view_name FROM pythia.user_mining_model_views ORDER BY 1").fetchall() == [
            ("DM$VJANIMALS",),
            ("DM$VMANIMALS",),
            ("DM$VPANIMALS",),
        ]
        shown = new.execute("SELECT value FROM public.\"dm$vmanimals\" WHERE name = 'Producer Name'")
        assert shown.fetchall() == [("test",)]
        # The next model gets an id of its own.
        new.execute(
            "CALL dbms_vector.load_onnx_model('public.more', %s::bytea)",
            (string_graph().SerializeToString(),),
        )
        new.execute("CALL dbms_vector.drop_onnx_model('public.more')")
    assert dumped(target) == dumped(filled)


def test_generated_column_is_restored(filled: str, make_database: Callable[..., str], tmp_path: Path) -> None:
    """Generated values are computed again while data are loaded, so the models must be there first.

    A plain pg_restore takes schema public before schema pythia. What works: definitions, the data of schema pythia, the
    other data, the rest.
    """
    with pythiadb.connect(url(filled), autocommit=True) as db:
        db.execute(
            "CREATE TABLE generated (id int PRIMARY KEY, kind text, "
            "v vector(3) GENERATED ALWAYS AS (VECTOR_EMBEDDING(animals USING kind AS data)) STORED)"
        )
        db.execute("INSERT INTO generated VALUES (1, 'fish'), (2, NULL)")
    plain = restore(filled, make_database(), tmp_path)
    assert "is not a model" in plain.stderr
    target = make_database()
    done = restore(filled, target, tmp_path, "--exit-on-error", "--section=pre-data")
    assert done.returncode == 0, done.stderr
    for arguments in (
        ("--section=data", "--schema=pythia"),
        ("--section=data", "--exclude-schema=pythia"),
        ("--section=post-data",),
    ):
        done = restore(filled, target, tmp_path, "--exit-on-error", *arguments)
        assert done.returncode == 0, done.stderr
    with connect(target) as connection:
        rows = connection.execute("SELECT id, v::text FROM public.generated ORDER BY id").fetchall()
        assert rows == [(1, "[0,0,1]"), (2, None)]


def test_physical_copy_of_the_template_works(
    filled: str, server: Server, make_database: Callable[..., str]
) -> None:
    """CREATE DATABASE … TEMPLATE copies the secret and the models; the engine serves the copy too."""
    name = dict(pair.split("=", 1) for pair in filled.split())["dbname"]
    copy = f"{name}_copy"
    with connect(server.conninfo()) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        connection.execute(f"CREATE DATABASE {copy} TEMPLATE {name}".encode())
        try:
            with connect(server.conninfo(copy)) as new:
                question = "SELECT pythia.vector_embedding('public.animals', 'cat')::text"
                assert new.execute(question).fetchone() == ("[1,0,0]",)
        finally:
            connection.execute(f"DROP DATABASE {copy} WITH (FORCE)".encode())


# Removal ------------------------------------------------------------------------------------------------------------------


def test_uninstall_names_the_dependents_and_cascades_on_request(filled: str) -> None:
    with pythiadb.connect(url(filled), autocommit=True) as db:
        db.execute(
            "CREATE TABLE generated (kind text, "
            "v vector(3) GENERATED ALWAYS AS (VECTOR_EMBEDDING(animals USING kind AS data)) STORED)"
        )
    with connect(filled) as connection:
        with pytest.raises(SchemaVersionError, match="other objects depend on schema pythia") as caught:
            install.uninstall(connection)
        assert "view dogs" in str(caught.value.detail)
        assert "column v of table generated" in str(caught.value.detail)
        assert "animals" not in str(caught.value.detail)
        assert connection.execute("SELECT count(*) FROM dogs").fetchone() == (1,)
        install.uninstall(connection, cascade=True)
    with connect(filled) as connection:
        assert set(ours(connection)[0]) == {"information_schema", "public"}
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)
        assert connection.execute("SELECT to_regclass('dogs'), to_regclass('animals')").fetchone() == (
            None,
            None,
        )
        assert connection.execute("SELECT v::text FROM pets ORDER BY id").fetchall() == [
            ("[1,0,0]",),
            ("[0,1,0]",),
        ]
        assert connection.execute("SELECT count(*) FROM generated").fetchone() == (0,)
        with pytest.raises(SchemaVersionError, match="has no pythia schema"):
            install.uninstall(connection)
        assert install.install(connection)
        assert connection.execute("SELECT pythia.engine_ping()").fetchone() == ("pong",)


def test_uninstall_without_dependents_needs_no_cascade(make_database: Callable[..., str]) -> None:
    """A model alone does not count: uninstalling removes models."""
    conninfo = make_database()
    install.ensure(conninfo)
    with connect(conninfo) as connection:
        connection.execute(
            "CALL dbms_vector.load_onnx_model('public.animals', %s::bytea)",
            (string_graph().SerializeToString(),),
        )
        assert install.dependents(connection) == []
        install.uninstall(connection)
        assert install.installed(connection) is None


def test_another_extensions_dbms_output_stays_as_it_is(make_database: Callable[..., str]) -> None:
    """As orafce makes it: a function, not a procedure, in a schema that belongs to the extension."""
    conninfo = make_database()
    question = "SELECT prokind::text, prosrc FROM pg_proc WHERE pronamespace = 'dbms_output'::regnamespace"
    with connect(conninfo) as connection:
        connection.execute(
            "CREATE EXTENSION citext; CREATE SCHEMA dbms_output; "
            "CREATE FUNCTION dbms_output.put_line(a text) RETURNS void LANGUAGE sql AS 'SELECT'; "
            "ALTER EXTENSION citext ADD SCHEMA dbms_output; ALTER EXTENSION citext ADD FUNCTION dbms_output.put_line"
        )
        before = connection.execute(question).fetchall()
        install.install(connection)
        assert connection.execute(question).fetchall() == before
        install.uninstall(connection)
        assert connection.execute(question).fetchall() == before
        assert install.installed(connection) is None
