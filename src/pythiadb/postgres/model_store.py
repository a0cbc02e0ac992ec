"""What the engine reads from a database: the secret that signs commands, and model packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from pythiadb.errors import EngineUnavailable, UndefinedModel

CONNECT_TIMEOUT = 10  # seconds


@dataclass(frozen=True, slots=True)
class StoredPackage:
    """A package's row: the spec and the list of its files ({"name", "sha256", "size"})."""

    spec: dict[str, Any]
    files: list[dict[str, Any]]


class ModelStore:
    """Reads one PostgreSQL instance; every call opens a connection of its own, as these calls are rare."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    @contextmanager
    def _connect(self, dbname: str) -> Iterator[psycopg.Connection[Any]]:
        conninfo = make_conninfo(
            self._conninfo, dbname=dbname, connect_timeout=CONNECT_TIMEOUT, application_name="pythia engine"
        )
        try:
            connection = psycopg.connect(conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            raise EngineUnavailable(
                f'the engine cannot connect to database "{dbname}"', detail=str(error).strip()
            ) from error
        with connection:
            yield connection

    def secret(self, dbname: str) -> bytes:
        """Return the secret of a database's functions. Raises EngineUnavailable without a connection or schema."""
        try:
            with self._connect(dbname) as connection:
                row = connection.execute("SELECT secret FROM pythia.engine_secret").fetchone()
        except psycopg.errors.UndefinedTable as error:
            raise EngineUnavailable(
                f'database "{dbname}" has no pythia schema', hint="Run: pythia install"
            ) from error
        if row is None:
            raise EngineUnavailable(f'database "{dbname}" has no engine secret')
        return bytes(row[0])

    def package(self, dbname: str, key: str) -> StoredPackage:
        """Return a committed package's row. Raises UndefinedModel when there is none."""
        with self._connect(dbname) as connection:
            row = connection.execute(
                "SELECT m.spec, (SELECT jsonb_agg(to_jsonb(f) - 'model_id') FROM pythia.model_file f WHERE f.model_id = m.id) "
                "FROM pythia.model m WHERE m.package = %s LIMIT 1",
                (key,),
            ).fetchone()
        if row is None:
            raise UndefinedModel(
                "the engine does not find the model's files in the database",
                hint="Commit the transaction that loads the model, then call it again.",
            )
        return StoredPackage(row[0], row[1])

    def chunks(self, dbname: str, sha256: str) -> Iterator[bytes]:
        """Yield the pieces of a file in order, a few at a time."""
        with self._connect(dbname) as connection, connection.cursor(binary=True) as cursor:
            rows = cursor.stream(
                "SELECT data FROM pythia.model_chunk WHERE sha256 = %s ORDER BY no", (sha256,), size=4
            )
            for (data,) in rows:
                yield bytes(data)
