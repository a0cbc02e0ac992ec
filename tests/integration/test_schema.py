"""The installed schema: upgrades equal fresh installs, installs are all or nothing, dumps restore, removal is careful."""

from __future__ import annotations

import hashlib
import re
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pythiadb
from pythiadb.errors import SchemaVersionError
from pythiadb.postgres import install
from pythiadb.postgres.binaries import program
from pythiadb.postgres.server import Server
from tests.unit.models.small_models import string_graph

FROZEN = Path(__file__).with_name("frozen_migrations.txt")
SCHEMA_FOLDER = Path(install.__file__).parents[1] / "schema"


@pytest.fixture
def server(db: pythiadb.Connection) -> Server:
    assert db.server is not None
    return db.server


@pytest.fixture
def make_database(server: Server) -> Iterator[Callable[..., str]]:
    """Make empty databases on the test server; returns their connection strings."""
    made: list[str] = []

    def make(options: str = "") -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}".encode())
        made.append(name)
        return server.conninfo(name)

    yield make
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def connect(conninfo: str) -> psycopg.Connection[Any]:
    return psycopg.connect(conninfo, autocommit=True)


def url(conninfo: str) -> str:
    """Return a connection string as the URL that pythiadb.connect takes."""
    parts = dict(pair.split("=", 1) for pair in conninfo.split())
    return f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}&port={parts['port']}"


def run(name: str, conninfo: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pg_dump or pg_restore."""
    return subprocess.run(
        [program(name), "-d", conninfo, *arguments], capture_output=True, text=True, check=False
    )


def dumped(conninfo: str) -> str:
    """Return the whole schema as pg_dump writes it, without the dump's own random key."""
    done = run("pg_dump", conninfo, "--schema-only")
    assert done.returncode == 0, done.stderr
    return re.sub(r"^\\(un)?restrict .*\n", "", done.stdout, flags=re.MULTILINE)


def ours(connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """Return what an install leaves: schemas, extensions, settings of the database."""
    return tuple(
        connection.execute(
            "SELECT (SELECT array_agg(nspname::text ORDER BY 1) FROM pg_namespace WHERE nspname !~ '^pg_'), "
            "(SELECT array_agg(extname::text ORDER BY 1) FROM pg_extension), "
            "(SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase "
            "WHERE datname = current_database())"
        ).fetchone()
        or ()
    )


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
    assert {row[0] for row in rows} <= {
        "vector_embedding", "vector_embedding_batch", "engine_ping", "is_model", "remove_orphaned_models",
        "read_directory_file", "read_shared_directory_file",
    }  # fmt: skip
    row = db.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'pythia'::regnamespace AND relkind = 'r' "
        "AND relname NOT IN ('model', 'schema_version') AND has_table_privilege('public', oid, 'SELECT')"
    ).fetchone()
    assert row == (0,)


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
