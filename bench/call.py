"""What a call of the engine costs without any model: `make bench-call`.

One session: round trip of an empty call, beside a bare `SELECT 1`, and calls a second within one statement. Sixteen sessions:
empty calls a second, by pgbench on the same machine.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from pathlib import Path

import psycopg

from bench.common import database, machine, milliseconds, percentile, report
from bench.stub_engine import stub
from pythiadb.postgres.binaries import program
from pythiadb.postgres.server import Server

RUNS = 5
CALLS = 2000
SESSIONS = 16
SECONDS = 4


def one_session(conninfo: str) -> dict[str, list[float]]:
    """Return p50 and p99 in ms of each run, for the bare statement and the engine call in turn."""
    found: dict[str, list[float]] = {"bare_p50": [], "call_p50": [], "call_p99": [], "inside_us": []}
    with psycopg.connect(conninfo, autocommit=True) as db:
        for _ in range(RUNS):
            bare = milliseconds(lambda: db.execute("SELECT 1", prepare=True).fetchone(), CALLS)
            call = milliseconds(
                lambda: db.execute("SELECT pythia.engine_ping()", prepare=True).fetchone(), CALLS
            )
            inside = milliseconds(
                lambda: db.execute(
                    f"SELECT count(pythia.engine_ping()) FROM generate_series(1, {CALLS}) AS i WHERE i > 0"
                ),
                1,
            )
            found["bare_p50"].append(statistics.median(bare))
            found["call_p50"].append(statistics.median(call))
            found["call_p99"].append(percentile(call, 0.99))
            found["inside_us"].append(inside[0] / CALLS * 1000)
    return found


def many_sessions(server: Server, statement: str) -> float:
    """Return the transactions a second of one run, as pgbench counts them."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement)
        script.flush()
        command = [
            program("pgbench"), "-h", str(server.layout.run), "-p", "5432", "-U", "postgres", "-n", "-M", "prepared",
            "-c", str(SESSIONS), "-j", "2", "-T", str(SECONDS), "-f", script.name, "postgres",
        ]  # fmt: skip
        output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path("/")).stdout
    match = re.search(r"tps = ([0-9.]+)", output)
    assert match is not None, output
    return float(match[1])


def main() -> None:
    """Measure and report."""
    facts = machine()
    with database() as db:
        assert db.server is not None
        raw = one_session(db.server.conninfo())
        raw["bare_tps"] = [many_sessions(db.server, "SELECT 1;") for _ in range(RUNS)]
        raw["call_tps"], raw["stub_tps"] = [], []
        with stub(db):
            for _ in range(RUNS):  # in turn: the machine's speed drifts
                raw["call_tps"].append(many_sessions(db.server, "SELECT pythia.engine_ping();"))
                raw["stub_tps"].append(many_sessions(db.server, "SELECT stub_call('ping');"))
    median = {name: statistics.median(values) for name, values in raw.items()}
    rows = [
        ["bare SELECT 1, 1 session, p50", "ms", round(median["bare_p50"], 3), ""],
        ["engine call, 1 session, p50", "ms", round(median["call_p50"], 3), "≤ 0.3"],
        ["engine call, 1 session, p99", "ms", round(median["call_p99"], 3), ""],
        ["engine call within one statement", "µs", round(median["inside_us"], 1), ""],
        [f"bare SELECT 1, {SESSIONS} sessions", "1/s", round(median["bare_tps"]), ""],
        [f"engine calls, {SESSIONS} sessions", "1/s", round(median["call_tps"]), "≥ 8000"],
        [f"a bare stub instead of the engine, {SESSIONS} sessions", "1/s", round(median["stub_tps"]), ""],
        [
            "engine calls ÷ stub calls",
            "",
            round(statistics.median(c / s for c, s in zip(raw["call_tps"], raw["stub_tps"], strict=True)), 2),
            "",
        ],
    ]
    report("call", ["measure", "unit", f"median of {RUNS}", "target"], rows, raw, facts)


if __name__ == "__main__":
    main()
