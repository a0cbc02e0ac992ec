"""Installing, upgrading and removing the database objects.

The SQL lies in `schema/`: `migrations/NNNN_*.sql` change tables and run once, in order; the other files (functions, views,
procedures: `CREATE OR REPLACE`) run at every install and upgrade; `privileges.sql` is the last. A fresh install takes the
same way as an upgrade. The schema's version is the number of its last migration.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

from pythiadb.errors import SchemaVersionError

SCHEMAS = ("pythia", "vecsys", "dbms_vector", "dbms_data_mining", "dbms_output")
LOCK_KEY = 7_034_921_553  # any number: two installers meet at it
SEARCH_PATH = '"$user", public, pythia'
Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Script:
    """One SQL file of the package."""

    name: str
    text: str

    @property
    def number(self) -> int:
        """The number of a migration."""
        return int(self.name[:4])


def migrations() -> list[Script]:
    """Return the migrations in order."""
    folder = files("pythiadb") / "schema" / "migrations"
    found = [Script(f.name, f.read_text()) for f in folder.iterdir() if f.name.endswith(".sql")]
    return sorted(found, key=lambda script: script.name)


def definitions() -> list[Script]:
    """Return the repeatable files in the order in which they run."""
    root = files("pythiadb") / "schema"
    order = [
        "pythia/engine.sql", "pythia/scoring.sql", "pythia/matrix.sql", "pythia/embedding.sql", "pythia/vectors.sql", "pythia/models.sql",
        "pythia/export.sql", "pythia/fetching.sql", "pythia/views.sql", "pythia/switching.sql", "pythia/details.sql",
        "pythia/dictionary.sql",
        "pythia/vector_journal.sql", "pythia/vector_filters.sql", "pythia/vector_search.sql", "pythia/vector_many.sql", "pythia/vector_checks.sql", "pythia/vector_dimensions.sql", "pythia/vector_indexes.sql", "pythia/vector_commands.sql", "pythia/vector_explain.sql", "pythia/vector_following.sql",
        "pythia/vector_views.sql", "pythia/vector_options.sql", "pythia/vector_accuracy.sql", "pythia/vector_report.sql", "pythia/vector_memory.sql",
        "dbms_vector/models.sql", "dbms_vector/indexes.sql", "dbms_data_mining/models.sql", "dbms_output/output.sql", "privileges.sql",
    ]  # fmt: skip
    return [Script(name, root.joinpath(name).read_text()) for name in order]


def latest_version() -> int:
    """Return the schema version that this package installs."""
    return migrations()[-1].number


def checksum() -> str:
    """Return a hash over all SQL files: tells that definitions changed without a new migration (development)."""
    digest = hashlib.sha256()
    for script in [*migrations(), *definitions()]:
        digest.update(script.name.encode() + b"\0" + script.text.encode() + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Installed:
    """What a database says about the schema in it."""

    version: int
    checksum: str


def installed(connection: Connection) -> Installed | None:
    """Return the installed version, or None when the schema is not there."""
    if connection.execute("SELECT to_regclass('pythia.schema_version')").fetchone() == (None,):
        return None
    row = connection.execute(
        "SELECT version, checksum FROM pythia.schema_version ORDER BY version DESC LIMIT 1"
    ).fetchone()
    return Installed(row[0], row[1]) if row else None


def check(connection: Connection) -> None:
    """Raise SchemaVersionError unless the database fits this package."""
    present = installed(connection)
    database = connection.info.dbname
    if present is None:
        raise SchemaVersionError(
            f'database "{database}" has no pythia schema', hint=f"Run: pythia install {_example(connection)}"
        )
    _refuse_newer(present, database)
    if present.version < latest_version():
        raise SchemaVersionError(
            f'the pythia schema of database "{database}" has version {present.version}, this package needs {latest_version()}',
            hint=f"Run: pythia upgrade {_example(connection)}",
        )


def _example(connection: Connection) -> str:
    return f"postgresql:///{connection.info.dbname}?host={connection.info.host}&port={connection.info.port}"


def _refuse_newer(present: Installed, database: str) -> None:
    if present.version > latest_version():
        raise SchemaVersionError(
            f'the pythia schema of database "{database}" has version {present.version}, this package knows {latest_version()}',
            hint="Upgrade the package: pip install --upgrade pythiadb",
        )


def ensure(conninfo: str) -> bool:
    """Install or upgrade the schema if it is not the one of this package; return True when something was done.

    Raises SchemaVersionError when the database is newer than the package.
    """
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return install(connection)


def install(connection: Connection, *, up_to: int | None = None) -> bool:
    """Bring the schema up to date in one transaction, under a lock. `up_to` stops at an older version (for tests)."""
    target = latest_version() if up_to is None else up_to
    with connection.transaction():
        connection.execute("SET LOCAL client_min_messages = warning")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        present = installed(connection)
        if present is not None:
            _refuse_newer(present, connection.info.dbname)
        current = present == Installed(target, checksum())
        if not current:
            _bring(connection, present, target)
        _extend_search_path(
            connection
        )  # also where nothing was done: pg_dump does not carry a database's settings
    return not current


def _bring(connection: Connection, present: Installed | None, target: int) -> None:
    """Run the migrations that are missing, then all definitions."""
    _prepare(connection)
    schemas = _extension_schemas(connection)
    for script in migrations():
        if (present.version if present else 0) < script.number <= target:
            _run(connection, script, schemas)
    for script in definitions():
        _run(connection, script, schemas)
    connection.execute(
        "INSERT INTO pythia.schema_version AS v VALUES (%s, %s) "
        "ON CONFLICT (version) DO UPDATE SET checksum = excluded.checksum, installed_at = now()",
        (target, checksum()),
    )


def _prepare(connection: Connection) -> None:
    """Create what the scripts stand on: extensions, schemas, the version table."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SchemaVersionError(
            f'database "{connection.info.dbname}" has encoding {encoding}, pythia needs UTF8',
            hint="Create a database with ENCODING 'UTF8'.",
        )
    for schema in SCHEMAS:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    if connection.execute("SELECT current_schema()").fetchone() == (
        None,
    ):  # a search_path that names no schema yet
        connection.execute("SET LOCAL search_path = public")
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    # In our own schema, whose functions nobody else may call: see schema/privileges.sql.
    connection.execute("CREATE EXTENSION IF NOT EXISTS dblink SCHEMA pythia")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS pythia.schema_version "
        "(version integer PRIMARY KEY, checksum text NOT NULL, installed_at timestamptz NOT NULL DEFAULT now())"
    )


def _extension_schemas(connection: Connection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT extname, quote_ident(extnamespace::regnamespace::text) FROM pg_extension"
    ).fetchall()
    return dict(rows)


def _run(connection: Connection, script: Script, schemas: dict[str, str]) -> None:
    """Run one file; `@extschema:name@` stands for an extension's schema, as in PostgreSQL's own extension scripts."""
    text = re.sub(r"@extschema:(\w+)@", lambda match: schemas[match[1]], script.text)
    connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
    connection.execute(text.encode())


def _extend_search_path(connection: Connection) -> None:
    """Let unqualified names find schema pythia in new sessions, unless the database has a search_path of its own."""
    if _own_search_path(connection) is None:
        statement = sql.SQL("ALTER DATABASE {} SET search_path = " + SEARCH_PATH)
        connection.execute(statement.format(sql.Identifier(connection.info.dbname)))


def _own_search_path(connection: Connection) -> str | None:
    """Return the search_path that ALTER DATABASE has set for all roles, or None."""
    row = connection.execute(
        "SELECT substring(c FROM 13) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, "
        "unnest(s.setconfig) AS c WHERE d.datname = current_database() AND s.setrole = 0 AND c LIKE 'search_path=%'"
    ).fetchone()
    return row[0] if row else None


def dependents(connection: Connection) -> list[str]:
    """Return descriptions of the users' objects that need the schema: views, columns, constraints."""
    query = (files("pythiadb") / "schema" / "dependents.sql").read_text()
    return [row[0] for row in connection.execute(query.encode()).fetchall()]


def uninstall(connection: Connection, *, cascade: bool = False) -> None:
    """Remove the schema with all models. The extensions and all vector columns stay.

    Raises SchemaVersionError when objects of users depend on it, unless `cascade`.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        if installed(connection) is None:
            raise SchemaVersionError(f'database "{connection.info.dbname}" has no pythia schema')
        needed = dependents(connection)
        if needed and not cascade:
            raise SchemaVersionError(
                "other objects depend on schema pythia",
                detail="\n".join(needed),
                hint="Drop them first, or run: pythia uninstall --cascade",
            )
        connection.execute("SET LOCAL client_min_messages = warning")
        for schema in reversed(_own_schemas(connection)):
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
    if _own_search_path(connection) == SEARCH_PATH:
        statement = sql.SQL("ALTER DATABASE {} RESET search_path")
        connection.execute(statement.format(sql.Identifier(connection.info.dbname)))


def _own_schemas(connection: Connection) -> list[str]:
    """Return the schemas that no extension has made; orafce brings a dbms_output of its own."""
    query = (
        "SELECT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_namespace'::regclass AND objid = to_regnamespace(%s) "
        "AND deptype = 'e')"
    )
    return [schema for schema in SCHEMAS if connection.execute(query, (schema,)).fetchone() == (False,)]
