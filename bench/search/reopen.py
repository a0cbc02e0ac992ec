"""How soon an index answers again: after the engine's workers were killed, and after the whole database was stopped."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path

import pythiadb
from bench.search import pgvector, pythia
from bench.search.data import Dataset, Vectors
from bench.search.output import Section
from bench.sessions import worker_pids
from pythiadb.postgres import cluster

RUNS = 5
TARGET = 1.0  # seconds
LIFE = 2.0  # seconds that a worker lives at least: those that die at once are started again with a delay
PATIENCE = 60  # seconds


def measure(data: Dataset) -> None:
    """Print and keep the table."""
    section = Section(
        f"{data.name}: restart", ["index", "from", "to the first indexed answer, s", "worst", "target"]
    )
    for organization in (pythia.PARTITIONS, pythia.GRAPH):
        folder = Path(tempfile.mkdtemp(prefix="pythia-bench-"))
        folder.chmod(0o755)
        try:
            with pythiadb.connect(folder / "shop", autocommit=True) as db:
                pgvector.fill(db, "items", data.base, {})
                pythia.build(db, "items", organization)
                killed = [_killed(db, data.queries[n]) for n in range(RUNS)]
            stopped = [_stopped(folder / "shop", data.queries[n]) for n in range(RUNS)]
            cluster.stop(folder / "shop")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        kind = organization.lower()
        rows = f"{len(data.base)} rows"
        section.add(
            kind, f"kill -9 of the workers, {rows}", statistics.median(killed), max(killed), f"≤ {TARGET}"
        )
        section.add(
            kind, f"connect() to a stopped database, {rows}", statistics.median(stopped), max(stopped), ""
        )
        section.raw[organization] = {"killed": killed, "stopped": stopped}
    section.finish()


def _killed(db: pythiadb.Connection, query: Vectors) -> float:
    """Kill the engine's workers; return the seconds until the same session has an answer of the index again."""
    _first_indexed(db, query)
    time.sleep(LIFE)
    victims = worker_pids(db)
    started = time.perf_counter()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    _first_indexed(db, query)
    seconds = time.perf_counter() - started
    assert not set(victims) & set(worker_pids(db))
    return seconds


def _stopped(folder: Path, query: Vectors) -> float:
    """Stop the database; return the seconds from connect() until an answer of the index."""
    cluster.stop(folder)
    started = time.perf_counter()
    with pythiadb.connect(folder, autocommit=True) as db:
        _first_indexed(db, query)
        return time.perf_counter() - started


def _first_indexed(db: pythiadb.Connection, query: Vectors) -> None:
    """Ask until the index answers: a search that had to be exact says so in its plan."""
    statement = pythia.nearest("items", "95").query
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        db.execute(statement, (query,)).fetchall()
        plan = db.execute(f"EXPLAIN {statement}", (query,)).fetchone()
        if plan is not None and plan[0].startswith("VECTOR INDEX") and "not used" not in plan[0]:
            return
        time.sleep(0.01)
    raise RuntimeError("the index never answered")
