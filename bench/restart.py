"""How soon a killed worker's model answers again: `make bench-restart`. Its weights are mapped files, or its own.

A session embeds, the worker is killed with SIGKILL, and the same session embeds again at once: the time of that statement
counts, from the kill to the answer. Its backend connects anew and sends the call again by itself.
"""

from __future__ import annotations

import os
import signal
import statistics
import time

import psycopg

import pythiadb
from bench.common import database, machine, report
from bench.sessions import worker_pids

RUNS = 9
LIFE = 1.5  # seconds that a worker lives at least: those that die at once are started again with a delay
TARGET = 0.5  # seconds
QUERY = "SELECT pythia.vector_embedding('public.minilm', 'first words')"


def restart(db: pythiadb.Connection, plain: psycopg.Connection) -> float:
    """Kill the worker; return the seconds until the same session has its next answer."""
    expected = plain.execute(QUERY).fetchone()
    time.sleep(LIFE)
    (pid,) = worker_pids(db)
    started = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    found = plain.execute(QUERY).fetchone()
    seconds = time.perf_counter() - started
    assert found == expected
    assert worker_pids(db) != [pid]
    return seconds


def main() -> None:
    """Measure and report."""
    os.environ["PYTHIA_ENGINE_WORKERS"] = "1"
    facts = machine()
    raw: dict[str, list[float]] = {"own": [], "mapped": []}
    with database() as db:
        assert db.server is not None
        with psycopg.connect(db.server.conninfo(), autocommit=True) as plain:
            for name, enable in (("own", False), ("mapped", True)):
                db.execute("CALL dbms_vector.inmemory_onnx_model('minilm', %s)", (enable,))
                raw[name] = [restart(db, plain) for _ in range(RUNS)]
    rows = [
        [f"kill -9 of the worker to the next answer, {what}", "s", round(statistics.median(raw[name]), 3),
         round(max(raw[name]), 3), target]
        for name, what, target in (("mapped", "weights mapped", f"≤ {TARGET}"), ("own", "weights its own", ""))
    ]  # fmt: skip
    report("restart", ["measure", "unit", f"median of {RUNS}", "worst", "target"], rows, raw, facts)


if __name__ == "__main__":
    main()
