"""How soon an answer comes: `make bench-start`. A new session's first call, and a cold engine's first answer."""

from __future__ import annotations

import statistics
import time

import psycopg

from bench.common import database, machine, report
from pythiadb.postgres import cluster
from pythiadb.postgres.server import Server

RUNS = 9
QUERY = "SELECT pythia.vector_embedding('public.minilm', 'first words')"


def new_session(conninfo: str) -> tuple[float, float]:
    """Return ms for connecting, and ms for the first embedding of a new session."""
    started = time.perf_counter()
    with psycopg.connect(conninfo, autocommit=True) as db:
        connected = time.perf_counter()
        db.execute(QUERY).fetchone()
        return (connected - started) * 1000, (time.perf_counter() - connected) * 1000


def cold_engine(server: Server) -> float:
    """Return seconds from starting the engine's process to the first embedding; the model is in the engine's cache."""
    cluster.stop_engine(server.layout)
    with psycopg.connect(server.conninfo(), autocommit=True) as db:
        started = time.perf_counter()
        cluster.start_engine(server)
        db.execute(QUERY).fetchone()
        return time.perf_counter() - started


def main() -> None:
    """Measure and report."""
    facts = machine()
    with database() as db:
        assert db.server is not None
        sessions = [new_session(db.server.conninfo()) for _ in range(RUNS)]
        cold = [cold_engine(db.server) for _ in range(RUNS)]
    raw = {
        "connect_ms": [s[0] for s in sessions],
        "first_call_ms": [s[1] for s in sessions],
        "cold_seconds": cold,
    }
    rows = [
        ["connecting", "ms", round(statistics.median(raw["connect_ms"]), 1), ""],
        [
            "first embedding of a new session, model loaded",
            "ms",
            round(statistics.median(raw["first_call_ms"]), 1),
            "≤ 30",
        ],
        ["engine cold start to first embedding", "s", round(statistics.median(cold), 2), "≤ 2"],
    ]
    report("start", ["measure", "unit", f"median of {RUNS}", "target"], rows, raw, facts)


if __name__ == "__main__":
    main()
