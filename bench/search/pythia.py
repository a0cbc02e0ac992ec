"""Pythia's side: making an index and waiting for it, asking through it, and what its views say."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import pythiadb
from bench.search.clients import Way
from bench.sessions import worker_pids
from pythiadb.postgres import cluster

GRAPH, PARTITIONS = "INMEMORY NEIGHBOR GRAPH", "NEIGHBOR PARTITIONS"
EF_SEARCH = (20, 40, 80, 160, 320, 640)
PROBES = (4, 8, 16, 32, 64, 128, 256)
PATIENCE = 1800  # seconds until an index must be valid, or its journal taken over
POLL = 0.02  # seconds
REST = 0.4  # seconds without work that make the engine at rest
BUSY = 0.2  # share of a core that is work; looking for work takes less


@contextmanager
def database() -> Iterator[pythiadb.Connection]:
    """A new embedded database, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pythia-bench-"))
    folder.chmod(0o755)  # the server's own account must get in when root runs this
    try:
        with pythiadb.connect(folder / "shop", autocommit=True) as db:
            yield db
        cluster.stop(folder / "shop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def measuring(seconds: int = 1) -> Iterator[None]:
    """Let engines that are started meanwhile measure accuracy for so long: by default for a moment, where it is only waited for."""
    os.environ["PYTHIA_ENGINE_INDEX_MEASURE_SECONDS"] = str(seconds)
    try:
        yield
    finally:
        del os.environ["PYTHIA_ENGINE_INDEX_MEASURE_SECONDS"]


def conninfo(db: pythiadb.Connection) -> str:
    """Return how other processes reach the database."""
    assert db.server is not None
    return db.server.conninfo()


def build(
    db: pythiadb.Connection,
    table: str,
    organization: str,
    *,
    accuracy: int = 95,
    include: str = "",
    parallel: int = 2,
) -> float:
    """Make the index `TABLE_v` for cosine distance; return the seconds until it is valid."""
    started = time.perf_counter()
    db.execute(
        f"CREATE VECTOR INDEX {table}_v ON {table} (v) {f'INCLUDE ({include})' if include else ''} "
        f"ORGANIZATION {organization} DISTANCE COSINE WITH TARGET ACCURACY {accuracy} PARALLEL {parallel}"
    )
    wait(db, table)
    return time.perf_counter() - started


def wait(db: pythiadb.Connection, table: str) -> None:
    """Wait until the index of a table is valid. Raise RuntimeError when it failed, or takes too long."""
    _poll(db, "SELECT status = 'VALID', error FROM pythia.vector_index WHERE relation = %s::regclass", table)


def settle(db: pythiadb.Connection, table: str) -> float:
    """Wait until an index has taken over all changes; return the seconds."""
    started = time.perf_counter()
    _poll(db, _settled(db, table), table)
    return time.perf_counter() - started


def is_settled(db: pythiadb.Connection, table: str) -> bool:
    """Tell whether an index has taken over all changes."""
    row = db.execute(_settled(db, table), (table,)).fetchone()
    return row is not None and bool(row[0])


def _settled(db: pythiadb.Connection, table: str) -> str:
    row = db.execute("SELECT id FROM pythia.vector_index WHERE relation = %s::regclass", (table,)).fetchone()
    assert row is not None
    return (
        "SELECT NOT EXISTS (SELECT FROM vecsys.journal_{id} j WHERE NOT pg_visible_in_snapshot(j.xid, v.snapshot)), NULL "
        "FROM pythia.vector_index_version v JOIN pythia.vector_index i ON i.id = v.index_id "
        "WHERE i.relation = %s::regclass ORDER BY v.version DESC LIMIT 1".replace("{id}", str(row[0]))
    )


def rest(db: pythiadb.Connection) -> float:
    """Wait until the engine's processes do next to nothing, no merge and no measurement either; return the seconds."""
    template = psutil.Process(worker_pids(db)[0]).parent()
    assert template is not None
    started, used = time.perf_counter(), _cpu_seconds(template)
    while time.perf_counter() - started < PATIENCE:
        time.sleep(REST)
        before, used = used, _cpu_seconds(template)
        if used - before < BUSY * REST:
            return time.perf_counter() - started - REST
    raise RuntimeError(f"the engine was not at rest after {PATIENCE} s")


def _cpu_seconds(parent: psutil.Process) -> float:
    """Return what the children of a process have used."""
    return sum(times.user + times.system for times in (child.cpu_times() for child in parent.children()))


def _poll(db: pythiadb.Connection, question: str, table: str) -> None:
    """Ask until the first column of the answer is true; its second is an error."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        row = db.execute(question, (table,)).fetchone()
        if row is not None and row[1]:
            raise RuntimeError(f"the index of {table} failed: {row[1]}")
        if row is not None and row[0]:
            return
        time.sleep(POLL)
    raise RuntimeError(f"the index of {table} was not ready after {PATIENCE} s")


def nearest(table: str, how: str, k: int = 10) -> Way:
    """Ask through the index. `how`: what follows WITH TARGET ACCURACY; empty: the index's own accuracy."""
    clause = f" WITH TARGET ACCURACY {how}" if how else ""
    return Way(
        f"Pythia {how}",
        f"SELECT id FROM {table} ORDER BY v <=> %s FETCH APPROX FIRST {k} ROWS ONLY{clause}",
        ai_sql=True,
    )


def exact(table: str, k: int = 10) -> Way:
    """Ask for the exact answer."""
    return Way(
        "Pythia exact",
        f"SELECT id FROM {table} ORDER BY v <=> %s FETCH EXACT FIRST {k} ROWS ONLY",
        ai_sql=True,
    )


def sweep(organization: str) -> tuple[str, ...]:
    """Return the settings to try for a kind of index, the cheapest first."""
    if organization == GRAPH:
        return tuple(f"PARAMETERS (EFSEARCH {ef})" for ef in EF_SEARCH)
    return tuple(f"PARAMETERS (NEIGHBOR PARTITION PROBES {probes})" for probes in PROBES)
