"""Rights: who may score, load and look; what a role of the database cannot get by any way round."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

import pythiadb
from tests.unit.models.small_models import string_graph

ANIMALS = string_graph().SerializeToString()
LOAD = "CALL dbms_vector.load_onnx_model(%s, %s::bytea)"


@pytest.fixture
def schema(db: pythiadb.Connection) -> str:
    row = db.execute("SELECT current_schema()").fetchone()
    assert row is not None
    return str(row[0])


@pytest.fixture
def private(db: pythiadb.Connection, schema: str) -> Iterator[str]:
    """A model of the superuser's that nobody else may use yet."""
    db.execute(LOAD, ("private", ANIMALS))
    yield f"{schema}.private"
    if not db.closed:
        db.execute("RESET ROLE; RESET SESSION AUTHORIZATION")
        db.execute(f"CALL dbms_vector.drop_onnx_model('{schema}.private', true)".encode())


@pytest.fixture
def make_role(db: pythiadb.Connection, schema: str) -> Iterator[Callable[[], str]]:
    """Make roles that may use the test's schema."""
    made: list[str] = []

    def make() -> str:
        role = f"role_{uuid.uuid4().hex[:8]}"
        db.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role}".encode())
        made.append(role)
        return role

    yield make
    if not db.closed:
        db.rollback()
        db.execute("RESET ROLE; RESET SESSION AUTHORIZATION")
        for role in made:
            db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())
        db.execute("SELECT pythia.remove_orphaned_models()")


@pytest.fixture
def login(db: pythiadb.Connection) -> Iterator[Callable[[str], psycopg.Connection[Any]]]:
    """Open sessions of other roles, as plain psycopg."""
    opened: list[psycopg.Connection[Any]] = []

    def connect(role: str) -> psycopg.Connection[Any]:
        assert db.server is not None
        conninfo = db.server.conninfo().replace("user=postgres", f"user={role}")
        connection = psycopg.connect(conninfo, autocommit=True)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


Login = Callable[[str], "psycopg.Connection[Any]"]


def score(connection: psycopg.Connection[Any], model: str) -> str:
    row = connection.execute("SELECT vector_embedding(%s::regclass, 'cat')::text", (model,)).fetchone()
    assert row is not None
    return str(row[0])


# Scoring ------------------------------------------------------------------------------------------------------------------


def test_grant_and_revoke_count_at_once_in_an_open_session(
    db: pythiadb.Connection, private: str, make_role: Callable[[], str], login: Login
) -> None:
    role = make_role()
    session = login(role)
    for _ in range(2):
        with pytest.raises(InsufficientPrivilege, match="permission denied for model") as caught:
            score(session, private)
        assert caught.value.diag.message_hint == f"GRANT SELECT ON {private} TO {role};"
        db.execute(caught.value.diag.message_hint.encode())
        assert score(session, private) == "[1,0,0]"
        db.execute(f"REVOKE SELECT ON {private} FROM {role}".encode())
    with pytest.raises(InsufficientPrivilege):
        session.execute("SELECT * FROM vector_embedding_batch(%s::regclass, '{cat}')", (private,))
    with pytest.raises(InsufficientPrivilege):
        session.execute("SELECT pythia.vector_embedding_immutable(%s::regclass, 'cat')", (private,))


@pytest.mark.parametrize("how", ["SET ROLE {}", "SET SESSION AUTHORIZATION {}"])
def test_the_role_that_is_set_counts(
    db: pythiadb.Connection, private: str, make_role: Callable[[], str], how: str
) -> None:
    allowed, other = make_role(), make_role()
    db.execute(f"GRANT SELECT ON {private} TO {allowed}".encode())
    db.execute(how.format(allowed).encode())
    assert score(db, private) == "[1,0,0]"
    db.execute("RESET ROLE; RESET SESSION AUTHORIZATION")
    db.execute(how.format(other).encode())
    with pytest.raises(InsufficientPrivilege, match="permission denied for model"):
        score(db, private)
    db.execute("RESET ROLE; RESET SESSION AUTHORIZATION")
    assert score(db, private) == "[1,0,0]"


def test_membership_of_a_group_gives_the_right(
    db: pythiadb.Connection, private: str, make_role: Callable[[], str], login: Login
) -> None:
    group, member = make_role(), make_role()
    db.execute(f"GRANT SELECT ON {private} TO {group}; GRANT {group} TO {member}".encode())
    assert score(login(member), private) == "[1,0,0]"


def test_dropped_model_cannot_be_used_by_its_number(
    db: pythiadb.Connection, schema: str, make_role: Callable[[], str], login: Login
) -> None:
    """DROP VIEW leaves the row until the next clean-up; nobody may score with it meanwhile."""
    db.execute(LOAD, ("gone", ANIMALS))
    oid = db.execute("SELECT 'gone'::regclass::oid").fetchone()
    db.execute("DROP VIEW gone")
    for session in (db, login(make_role())):
        with pytest.raises(psycopg.errors.UndefinedObject, match="is not a model"):
            session.execute("SELECT vector_embedding(%s::oid::regclass, 'cat')", oid)
    db.execute("SELECT pythia.remove_orphaned_models()")


# Looking ------------------------------------------------------------------------------------------------------------------


def test_catalog_shows_only_models_that_one_may_use(
    db: pythiadb.Connection, private: str, make_role: Callable[[], str], login: Login
) -> None:
    role = make_role()
    session = login(role)
    listed = "SELECT count(*) FROM {} WHERE {} = %s"
    for table, column in (("pythia.model", "relation::text"), ("pythia.model_details", "model_name")):
        query = listed.format(table, column).encode()
        assert session.execute(query, (private,)).fetchone() == (0,)
        db.execute(f"GRANT SELECT ON {private} TO {role}".encode())
        assert session.execute(query, (private,)).fetchone() == (1,)
        db.execute(f"REVOKE SELECT ON {private} FROM {role}".encode())
    assert session.execute("SELECT count(*) FROM pythia.user_mining_models").fetchone() == (0,)


def test_model_view_shows_nothing_of_other_models(
    db: pythiadb.Connection, private: str, make_role: Callable[[], str], login: Login
) -> None:
    """The right to one view is not a way to the rows of others, also with a leaky function in the condition."""
    role = make_role()
    db.execute(f"GRANT SELECT ON {private} TO {role}".encode())
    session = login(role)
    session.execute(
        "CREATE FUNCTION pg_temp.spy(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 "
        "AS $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$"
    )
    seen: list[str] = []
    session.add_notice_handler(lambda notice: seen.append(str(notice.message_primary)))
    session.execute(f"SELECT * FROM {private} WHERE pg_temp.spy(model_name)".encode())
    session.execute("SELECT * FROM pythia.model_details WHERE pg_temp.spy(model_name)")
    assert set(seen) == {f"saw {private}"}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM pythia.engine_secret",
        "SELECT * FROM pythia.model_chunk",
        "SELECT * FROM pythia.model_file",
        "SELECT * FROM pythia.directory",
        "INSERT INTO pythia.model_chunk VALUES (repeat('0', 64), 0, '')",
        "UPDATE pythia.model SET relation = NULL",
        "DELETE FROM pythia.model",
        "SELECT pythia.engine_call('ping', '')",
        "SELECT pythia.engine_conninfo()",
        "SELECT pythia.engine_status()",
        "SELECT pythia.scoring_package('minilm', 'embedding', 'DATA')",
        "SELECT pythia.put_model_chunk(repeat('0', 64), 0, 'x')",
        "SELECT pythia.put_model_file('model.onnx', 'x')",
        "SELECT pythia.stage_model_file(repeat('0', 64), 1)",
        "SELECT pythia.inspect_files('[]', '{}')",
        "SELECT pythia.score_one('minilm', 'vector_embedding', '[]', '{}')",
        "SELECT pythia.get_model_chunk('minilm', 'model.onnx', 0)",
        "CALL dbms_vector.drop_onnx_model('minilm')",
        "CALL dbms_data_mining.rename_model('minilm', 'mine')",
        "CALL dbms_vector.inmemory_onnx_model('minilm')",
        "SELECT pythia.fetch_files('file:///etc/passwd', NULL)",
        "SELECT pythia.fetch_server_file('file:///etc/passwd')",
        "SELECT pythia.fetch_any_directory_file('etc', 'passwd', NULL)",
        "SELECT pythia.fetch_network_file('https://localhost/x', NULL)",
        "SELECT pythia.fetch_uri('https://localhost/x', NULL)",
        "CALL dbms_vector.load_onnx_model_cloud('mine', NULL, 'https://localhost/x')",
        "CALL dbms_vector.create_credential('mine', '{\"access_token\": \"x\"}')",
        "CALL pythia.grant_cloud_access(current_user::regrole)",
        "SELECT * FROM pythia.credential",
        "DELETE FROM pythia.model_detail",
        "INSERT INTO pythia.model_detail VALUES ('minilm', 'dm$vm', 1)",
        "UPDATE pythia.owned_model SET relation = 'pg_class'",
        "SELECT * FROM pythia.dba_mining_models",
        "SELECT pythia.register_model('{}', '{}', '[]')",
        "SELECT pythia.name_model(1, 'pg_views')",
        "SELECT pythia.create_model('mine', '{}', '{}', '[]')",
        "CALL dbms_vector.load_onnx_model('mine', 'x'::bytea)",
        "SELECT pythia.dblink_connect('x', 'host=/tmp')",
        "SELECT pythia.dblink_connect_u('x', 'host=/tmp')",
        "SELECT pythia.dblink_send_query('pythia', 'ping')",
        "SELECT * FROM pythia.dblink('pythia', 'ping') AS t(line text)",
        "SELECT pythia.dblink_disconnect('pythia')",
        "CALL pythia.create_directory('etc', '/etc')",
        "CALL pythia.grant_create_model(current_user::regrole)",
        "CALL pythia.revoke_create_model(current_user::regrole)",
        "CREATE FUNCTION pythia.mine() RETURNS int LANGUAGE sql RETURN 1",
        "ALTER FUNCTION pythia.vector_embedding(regclass, text, text) SECURITY INVOKER",
        "CREATE OR REPLACE VIEW pythia.model_details AS SELECT 1",
    ],
)  # fmt: skip
def test_what_an_ordinary_role_cannot_do(
    db: pythiadb.Connection, make_role: Callable[[], str], login: Login, statement: str
) -> None:
    role = make_role()
    db.execute(f"GRANT SELECT ON public.minilm TO {role}".encode())
    session = login(role)
    session.execute("SELECT vector_embedding('minilm', 'opens the connection to the engine')")
    with pytest.raises(InsufficientPrivilege):
        session.execute(statement.encode())


# Loading ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def loader(db: pythiadb.Connection, schema: str, make_role: Callable[[], str]) -> str:
    """A role that may load models into a schema of its own."""
    role = make_role()
    db.execute(f"CALL pythia.grant_create_model('{role}')".encode())
    db.execute(f"CREATE SCHEMA {role} AUTHORIZATION {role}".encode())
    return role


def test_granted_role_loads_into_its_own_schema(
    db: pythiadb.Connection, schema: str, loader: str, login: Login
) -> None:
    session = login(loader)
    session.execute(LOAD, ("mine", ANIMALS))
    assert score(session, f"{loader}.mine") == "[1,0,0]"
    row = session.execute("SELECT model_name FROM pythia.user_mining_models").fetchone()
    assert row == ("MINE",)
    with pytest.raises(InsufficientPrivilege, match=f"permission denied for schema {schema}"):
        session.execute(LOAD, (f"{schema}.mine", ANIMALS))
    session.execute("CALL dbms_vector.drop_onnx_model('mine')")


def test_the_right_to_load_can_be_taken_back(db: pythiadb.Connection, loader: str, login: Login) -> None:
    session = login(loader)
    session.execute(LOAD, ("mine", ANIMALS))
    db.execute(f"CALL pythia.revoke_create_model('{loader}')".encode())
    with pytest.raises(InsufficientPrivilege, match="permission denied to load models") as caught:
        session.execute(LOAD, ("other", ANIMALS))
    assert caught.value.diag.message_hint == f"CALL pythia.grant_create_model('{loader}');"
    assert score(session, f"{loader}.mine") == "[1,0,0]"
    session.execute("CALL dbms_vector.drop_onnx_model('mine')")


def test_another_role_cannot_drop_or_replace_a_model(
    db: pythiadb.Connection, private: str, loader: str, login: Login
) -> None:
    db.execute(f"GRANT SELECT ON {private} TO {loader}".encode())
    session = login(loader)
    with pytest.raises(InsufficientPrivilege, match="must be owner"):
        session.execute("CALL dbms_vector.drop_onnx_model(%s)", (private,))
    with pytest.raises(InsufficientPrivilege):
        session.execute(f"CREATE OR REPLACE VIEW {private} AS SELECT 1".encode())
    assert score(session, private) == "[1,0,0]"


def test_model_cannot_be_hijacked_by_naming_it(
    db: pythiadb.Connection,
    schema: str,
    private: str,
    loader: str,
    make_role: Callable[[], str],
    login: Login,
) -> None:
    """name_model ties only an unnamed model of one's own, and only to a view of one's own."""
    session = login(loader)
    session.execute("CREATE VIEW mine AS SELECT 1")
    taken = db.execute("SELECT id FROM pythia.model WHERE relation = %s::regclass", (private,)).fetchone()
    assert taken is not None
    with pytest.raises(psycopg.errors.UndefinedObject, match="no unnamed model"):
        session.execute("SELECT pythia.name_model(%s, 'mine')", taken)
    with pytest.raises(InsufficientPrivilege, match="must be owner of view"):
        session.execute("SELECT pythia.name_model(%s, %s::regclass)", (*taken, "pg_catalog.pg_views"))
    db.execute("BEGIN")
    db.execute("UPDATE pythia.model SET relation = NULL WHERE id = %s", taken)
    db.execute(f"SET LOCAL ROLE {loader}".encode())
    with pytest.raises(psycopg.errors.UndefinedObject, match="no unnamed model"):
        db.execute(f"SELECT pythia.name_model({taken[0]}, '{loader}.mine')".encode())
    db.execute("ROLLBACK")


def test_chunks_of_a_model_cannot_be_spoilt(
    db: pythiadb.Connection, private: str, loader: str, login: Login
) -> None:
    """More or other bytes under a known hash: the stored file stays what it was."""
    query = (
        "SELECT sha256, no, data FROM pythia.model_chunk JOIN pythia.model_file USING (sha256) ORDER BY 1, 2"
    )
    before = db.execute(query).fetchall()
    sha256 = db.execute(
        "SELECT sha256 FROM pythia.model_file JOIN pythia.model ON id = model_id WHERE relation = %s::regclass",
        (private,),
    ).fetchone()
    assert sha256 is not None
    session = login(loader)
    for number in (0, 1, 7):
        session.execute("SELECT pythia.put_model_chunk(%s, %s, 'poison')", (*sha256, number))
    assert db.execute(query).fetchall() == before


def test_chunks_put_there_in_advance_do_no_harm(
    db: pythiadb.Connection, schema: str, loader: str, login: Login
) -> None:
    """Wrong bytes under the hash of a file that somebody is going to load."""
    data = string_graph(output="awaited").SerializeToString()
    hashed = db.execute("SELECT encode(sha256(%s::bytea), 'hex')", (data,)).fetchone()
    assert hashed is not None
    session = login(loader)
    session.execute("SELECT pythia.put_model_chunk(%s, 0, 'poison')", hashed)
    session.execute("SELECT pythia.put_model_chunk(%s, 3, 'poison')", hashed)
    db.execute(
        "CALL dbms_vector.load_onnx_model('awaited', %s::bytea, '{\"function\":\"embedding\"}')", (data,)
    )
    rows = db.execute("SELECT no, data FROM pythia.model_chunk WHERE sha256 = %s", hashed).fetchall()
    assert rows == [(0, data)]


def test_model_of_missing_chunks_is_refused(
    db: pythiadb.Connection, private: str, loader: str, login: Login
) -> None:
    """The engine knows the bytes from another model or database; the model here needs chunks of its own."""
    session = login(loader)
    row = db.execute("SELECT spec FROM pythia.model WHERE relation = %s::regclass", (private,)).fetchone()
    assert row is not None
    db.execute("CALL dbms_vector.drop_onnx_model(%s)", (private,))
    spec = psycopg.types.json.Jsonb(row[0])
    hashed = session.execute("SELECT encode(sha256(%s::bytea), 'hex')", (ANIMALS,)).fetchone()
    assert hashed is not None
    files = psycopg.types.json.Jsonb([{"name": "model.onnx", "sha256": hashed[0], "size": len(ANIMALS)}])
    with pytest.raises(psycopg.DataError, match="incomplete"):
        session.execute("SELECT pythia.create_model('hollow', %s, '{}', %s)", (spec, files))


# Directories --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(db: pythiadb.Connection, make_directory: Callable[[], Path]) -> Path:
    path = make_directory()
    (path / "animals.onnx").write_bytes(ANIMALS)
    return path


READ = "SELECT pythia.fetch_directory_file('shared', 'animals.onnx', NULL) -> 0 -> 'size'"


def test_directory_is_for_its_readers(
    db: pythiadb.Connection, folder: Path, make_role: Callable[[], str], login: Login
) -> None:
    group, member, other, reader = make_role(), make_role(), make_role(), make_role()
    db.execute(f"GRANT {group} TO {member}; GRANT pg_read_server_files TO {reader}".encode())
    db.execute(f"CALL pythia.create_directory('shared', '{folder}', ARRAY['{group}']::regrole[])".encode())
    for role in (group, reader):
        db.execute(f"CALL pythia.grant_create_model('{role}')".encode())
    size = (len(ANIMALS),)
    for allowed in (db, login(group), login(member), login(reader)):
        assert allowed.execute(READ).fetchone() == size
    with pytest.raises(InsufficientPrivilege, match='permission denied for directory "shared"'):
        login(other).execute(READ)
    login(reader).execute(f"CALL pythia.create_directory('shared', '{folder}')".encode())
    with pytest.raises(InsufficientPrivilege):
        login(member).execute(READ)


@pytest.mark.parametrize(
    "attack",
    [
        "CALL pythia.create_directory('root', '/')",
        "PERFORM pythia.fetch_directory_file('shared', 'animals.onnx', NULL)",
        "PERFORM pythia.fetch_shared_directory_file('shared', 'animals.onnx', NULL)",
        "PERFORM pythia.fetch_any_directory_file('shared', 'animals.onnx', NULL)",
        "PERFORM pythia.fetch_uri('file:///etc/passwd', NULL)",
        "CALL dbms_vector.load_onnx_model_cloud('mine', NULL, 'https://localhost/x')",
        "CALL dbms_vector.create_credential('mine', '{\"access_token\": \"x\"}')",
        "PERFORM pythia.get_model_chunk('public.minilm', 'model.onnx', 0)",
        "CALL dbms_vector.drop_onnx_model('public.minilm')",
        "CALL dbms_data_mining.rename_model('public.minilm', 'mine')",
        "PERFORM pythia.set_inmemory('public.minilm', true)",
    ],
)
def test_code_of_a_role_that_a_superuser_happens_to_run_has_no_more_rights(
    db: pythiadb.Connection, folder: Path, loader: str, login: Login, attack: str
) -> None:
    """ANALYZE by a superuser, or autovacuum, runs the functions of index expressions as the table's owner."""
    db.execute(f"CALL pythia.create_directory('shared', '{folder}')".encode())
    session = login(loader)
    session.execute(
        "CREATE TABLE caught (state text); CREATE TABLE bait (id int); INSERT INTO bait VALUES (1)"
    )
    session.execute(
        "CREATE FUNCTION attack() RETURNS int LANGUAGE plpgsql AS $$ BEGIN "
        f"BEGIN {attack}; INSERT INTO {loader}.caught VALUES ('done'); "
        f"EXCEPTION WHEN insufficient_privilege THEN INSERT INTO {loader}.caught VALUES ('refused'); END; "
        "RETURN 1; END $$;"
        "CREATE FUNCTION innocent(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;"
        "CREATE INDEX ON bait (innocent(id));".encode()
    )
    session.execute(
        "CREATE OR REPLACE FUNCTION innocent(int) RETURNS int LANGUAGE plpgsql IMMUTABLE "
        f"AS $$ BEGIN RETURN (SELECT {loader}.attack()); END $$".encode()
    )
    db.execute(f"ANALYZE {loader}.bait".encode())
    assert set(db.execute(f"SELECT state FROM {loader}.caught".encode()).fetchall()) == {("refused",)}


# Search path --------------------------------------------------------------------------------------------------------------

TRAPS = """
CREATE FUNCTION {s}.format(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap: format'; END $$;
CREATE FUNCTION {s}.format(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap: format2'; END $$;
CREATE FUNCTION {s}.upper(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap: upper'; END $$;
CREATE FUNCTION {s}.lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap: lower'; END $$;
CREATE FUNCTION {s}.sha256(bytea) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap: sha256'; END $$;
CREATE FUNCTION {s}.current_setting(text) RETURNS text LANGUAGE sql RETURN 'postgres';
CREATE FUNCTION {s}.has_table_privilege(name, oid, text) RETURNS boolean LANGUAGE sql RETURN true;
CREATE FUNCTION {s}.pg_has_role(name, name, text) RETURNS boolean LANGUAGE sql RETURN true;
CREATE FUNCTION {s}.calling_role() RETURNS name LANGUAGE sql RETURN 'postgres'::name;
CREATE FUNCTION {s}.engine_call(text, text) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap: engine'; END $$;
CREATE FUNCTION {s}.same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap: ='; END $$;
CREATE OPERATOR {s}.= (FUNCTION = {s}.same, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION {s}.different(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap: <>'; END $$;
CREATE OPERATOR {s}.<> (FUNCTION = {s}.different, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION {s}.joined(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap: ||'; END $$;
CREATE OPERATOR {s}.|| (FUNCTION = {s}.joined, LEFTARG = text, RIGHTARG = text);
"""


def test_search_path_cannot_change_what_definer_functions_do(
    db: pythiadb.Connection, private: str, loader: str, login: Login
) -> None:
    """A schema full of traps in front of pg_catalog: checks still check, and the allowed still works."""
    session = login(loader)
    session.execute(TRAPS.format(s=loader).encode())
    session.execute(f"SET search_path = {loader}, pg_catalog, public, pythia".encode())
    with pytest.raises(InsufficientPrivilege, match="permission denied for model"):
        score(session, private)
    db.execute(f"GRANT SELECT ON {private} TO {loader}".encode())
    assert score(session, private) == "[1,0,0]"
    row = session.execute("SELECT vector_distance('[1,0]'::vector, '[0,1]'::vector, 'COSINE')").fetchone()
    assert row == (1.0,)


def test_temporary_objects_cannot_stand_in(
    db: pythiadb.Connection, private: str, loader: str, login: Login
) -> None:
    """pg_temp is searched last: a temporary table named like a catalog changes nothing."""
    session = login(loader)
    session.execute(
        'CREATE TEMP TABLE pg_class (oid oid, relkind "char", relowner oid); CREATE TEMP TABLE pg_roles (oid oid, rolname name)'
    )
    session.execute("INSERT INTO pg_temp.pg_roles SELECT r.oid, r.rolname FROM pg_catalog.pg_roles r")
    with pytest.raises(InsufficientPrivilege, match="must be owner of view"):
        session.execute("SELECT pythia.name_model(1, 'pg_catalog.pg_views')")
