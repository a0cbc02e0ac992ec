"""Many sessions at once, by pgbench, PostgreSQL's own load generator: prepared statements, each client asks again as soon as it has its answer.

pgbench takes a thirtieth of the processor time of a Python client, so that what is compared is what the ways cost. It shares the
machine with the server. Query vectors lie in a table; every question reads one of them by a number drawn at random.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pythiadb
from bench.common import percentile
from bench.search import pgvector, pythia
from bench.search.clients import Way
from bench.search.data import Vectors
from pythiadb.postgres.binaries import bin_dir

TABLE = "question"
VECTOR = f"(SELECT q.v FROM {TABLE} q WHERE q.id = :number)"
PARAMETER = re.compile(r"%(\(1\))?s")
QPS = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """What many sessions saw together: questions a second, and milliseconds of one."""

    clients: int
    qps: float
    p50: float
    p95: float


def fill(db: pythiadb.Connection, queries: Vectors) -> None:
    """Make the table of query vectors."""
    pgvector.fill(db, TABLE, queries, {})


def load(db: pythiadb.Connection, way: Way, clients: int, seconds: int) -> Load:
    """Let so many sessions ask for so many seconds. Raises CalledProcessError with what pgbench says."""
    with tempfile.TemporaryDirectory(prefix="pythia-bench-") as folder:
        script = Path(folder) / "script.sql"
        script.write_text(_script(db, way))
        command = [
            str(bin_dir() / "pgbench"), "--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--time={seconds}",
            f"--file={script}", "--log", f"--log-prefix={folder}/log", pythia.conninfo(db),
        ]  # fmt: skip
        settings = " ".join(f"-c {name}={value}" for name, value in way.settings)
        done = subprocess.run(
            command, env=os.environ | {"PGOPTIONS": settings}, check=True, capture_output=True, text=True
        )
        (log,) = Path(folder).glob("log.*")
        times = np.loadtxt(log, usecols=2) / 1000  # microseconds
    found = QPS.search(done.stdout)
    assert found is not None, done.stdout
    return Load(clients, float(found[1]), percentile(times.tolist(), 0.5), percentile(times.tolist(), 0.95))


def _script(db: pythiadb.Connection, way: Way) -> str:
    """Return what pgbench runs: AI SQL as the translated statement, which a client keeps after the first time."""
    query = db.translate(way.query, with_parameters=True).statements[0] if way.ai_sql else way.query
    statement = PARAMETER.sub(lambda _: VECTOR, query).replace("%%", "%")
    ((last,),) = db.execute(f"SELECT max(id) FROM {TABLE}").fetchall()
    return f"\\set number random(0, {last})\n{statement};\n"
