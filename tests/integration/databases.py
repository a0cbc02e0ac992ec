"""Databases beside the test's own, and PostgreSQL's programs on them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pythiadb
from pythiadb.postgres import cluster
from pythiadb.postgres.binaries import program


def connect(conninfo: str) -> psycopg.Connection[Any]:
    return psycopg.connect(conninfo, autocommit=True)


@contextmanager
def own_database(**settings: object) -> Iterator[tuple[Path, pythiadb.Connection]]:
    """Make a directory with a database whose engine has these settings, and a connection; afterwards both go, and so does the server.

    The settings hold for engines that are started in the meantime, too.
    """
    folder = Path(tempfile.mkdtemp(prefix="pythia-own-"))
    folder.chmod(0o755)  # the server's own account reads it
    shop = folder / "shop"
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(f"PYTHIA_ENGINE_{name.upper()}", str(value))
        try:
            with pythiadb.connect(shop, autocommit=True) as db:
                yield shop, db
        finally:
            cluster.stop(shop)
            shutil.rmtree(folder)


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
