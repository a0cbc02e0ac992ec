"""Facts about a running PostgreSQL instance that was not started by us."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg

from pythiadb.errors import EngineUnavailable


@dataclass(frozen=True, slots=True)
class Instance:
    """Where an instance listens on its machine."""

    socket_folder: Path
    port: int


def find_instance(conninfo: str) -> Instance:
    """Ask a server for its socket folder and port. Raises EngineUnavailable when it has no socket or cannot be reached."""
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            row = connection.execute(
                "SELECT current_setting('unix_socket_directories'), current_setting('port')"
            ).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise EngineUnavailable(
            "the role may not read the setting unix_socket_directories",
            hint="GRANT pg_read_all_settings TO the role that the engine connects as.",
        ) from error
    except psycopg.OperationalError as error:
        raise EngineUnavailable(
            "the PostgreSQL server cannot be reached", detail=str(error).strip()
        ) from error
    assert row is not None
    folder = row[0].split(",")[0].strip()
    if not folder.startswith("/"):
        raise EngineUnavailable(
            "the server has no unix socket in the file system",
            detail=f'unix_socket_directories is "{row[0]}".',
            hint="Set unix_socket_directories in postgresql.conf: the database reaches its engine through a socket beside it.",
        )
    return Instance(Path(folder), int(row[1]))
