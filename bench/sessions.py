"""One shared model against one private copy a process: `make bench-sessions`.

1, 2, 4, 16, 32 and 64 sessions insert rows with embeddings of texts of 101 to 6,543 characters, a row a statement. (a) Every
session is a process with an ONNX Runtime session of its own; (b) the sessions call VECTOR_EMBEDDING. Beside them the bare
library on the same threads with ideal batches. Memory is what the processes that hold the model have for themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

import pythiadb
from bench.common import database, machine, percentile, report
from bench.plain import PlainLoop
from examples.stdlib_corpus import collect

SESSIONS = (1, 2, 4, 16, 32, 64)
SECONDS = 8
SHORTEST, LONGEST = 101, 6543  # characters, as in Oracle's article
LOAD = 0.7  # of the throughput found, for the latency under load
PRIVATE = ("Private_Clean:", "Private_Dirty:")
Connection = psycopg.Connection[Any]


def texts(count: int = 400) -> list[str]:
    """Real documentation, cut or joined to lengths spread evenly over the range; in an order that is always the same."""
    chance = random.Random(0)
    source = " ".join(item.doc for item in collect()[1] if item.doc)
    found = []
    for _ in range(count):
        start = chance.randrange(len(source) - LONGEST)
        found.append(source[start : start + chance.randint(SHORTEST, LONGEST)])
    return found


def private_megabytes(pids: list[int]) -> float:
    """Return what the processes hold for themselves alone, in MB."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(PRIVATE)) / 1024


def ideal_rate(corpus: list[str]) -> float:
    """Return texts a second of the bare library, with the best of a few batch sizes."""
    loop, rates = PlainLoop(), []
    for size in (4, 8, 16, 32):
        started = time.perf_counter()
        loop.embed(corpus, size)
        rates.append(len(corpus) / (time.perf_counter() - started))
    return max(rates)


def insert_for(seconds: float, session: Any, corpus: list[str], first: int, pause: float) -> list[float]:
    """Insert one text after the other until the time is over; return the latencies in ms."""
    latencies, number = [], first
    due = time.perf_counter()
    end = due + seconds
    while (started := time.perf_counter()) < end:
        if pause:
            due += random.expovariate(1 / pause)
            time.sleep(max(0.0, due - started))
            started = max(due, started)  # a late start counts as waiting
        session(corpus[number % len(corpus)])
        latencies.append((time.perf_counter() - started) * 1000)
        number += 7
    return latencies


def shared(conninfo: str, corpus: list[str], count: int, pause: float = 0.0) -> list[float]:
    """Run `count` sessions that use the engine."""
    found: list[list[float]] = [[] for _ in range(count)]

    def run(number: int) -> None:
        with psycopg.connect(conninfo, autocommit=True) as db:
            found[number] = insert_for(
                SECONDS,
                lambda text: db.execute("INSERT INTO sink SELECT vector_embedding('minilm', %s)", (text,)),
                corpus,
                number,
                pause,
            )

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [ms for part in found for ms in part]


def private_session(conninfo: str, corpus: list[str], number: int, signals: tuple[Any, Any, Any]) -> None:
    """One process with a model of its own; the signals are: loaded, all may go on, answers."""
    ready, go, answers = signals
    loop = PlainLoop()
    with psycopg.connect(conninfo, autocommit=True) as db:

        def insert(text: str) -> None:
            vector = loop.embed([text], 1)[0]
            db.execute("INSERT INTO sink VALUES (%s)", ("[" + ",".join(map(str, vector.tolist())) + "]",))

        insert(corpus[number])
        ready.release()
        go.wait()
        answers.put(insert_for(SECONDS, insert, corpus, number, 0.0))
        go.wait()


def private(conninfo: str, corpus: list[str], count: int) -> tuple[list[float], float]:
    """Run `count` processes with a copy each; return latencies and their private memory in MB."""
    context = multiprocessing.get_context("spawn")
    ready, go, answers = context.Semaphore(0), context.Barrier(count + 1), context.Queue()
    processes = [
        context.Process(target=private_session, args=(conninfo, corpus, n, (ready, go, answers)))
        for n in range(count)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    go.wait()
    latencies = [ms for _ in processes for ms in answers.get()]
    memory = private_megabytes([p.pid for p in processes if p.pid is not None])
    go.wait()
    for process in processes:
        process.join()
    return latencies, memory


def row_of(name: str, count: int, latencies: list[float], memory: float, ideal: float) -> list[Any]:
    """One line of the table."""
    rate = len(latencies) / SECONDS
    return [
        name, count, round(rate, 1), round(percentile(latencies, 0.5), 1), round(percentile(latencies, 0.99), 1),
        round(memory), round(rate / ideal, 2),
    ]  # fmt: skip


def worker_pids(db: pythiadb.Connection) -> list[int]:
    """Return the processes that hold the engine's models."""
    row = db.execute(
        "SELECT array_agg((w ->> 'pid')::int) FROM jsonb_array_elements(pythia.engine_status() -> 'workers') AS w"
    ).fetchone()
    assert row is not None
    return list(row[0])


def main() -> None:
    """Measure and report."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    facts = machine()
    corpus = texts()
    rows: list[list[Any]] = []
    with database() as db:
        assert db.server is not None
        conninfo = db.server.conninfo()
        db.execute("CREATE UNLOGGED TABLE sink (v vector(384))")
        ideal = ideal_rate(corpus)
        for count in SESSIONS:
            latencies, memory = private(conninfo, corpus, count)
            rows.append(row_of("a copy a process", count, latencies, memory, ideal))
            latencies = shared(conninfo, corpus, count)
            rows.append(row_of("Pythia", count, latencies, private_megabytes(worker_pids(db)), ideal))
        pause = 16 / (LOAD * rows[-1][2])  # 16 sessions that together ask for 70 % of what was reached
        latencies = shared(conninfo, corpus, 16, pause)
        rows.append(
            row_of(f"Pythia at {LOAD:.0%} load", 16, latencies, private_megabytes(worker_pids(db)), ideal)
        )
    columns = ["way", "sessions", "rows/s", "p50 ms", "p99 ms", "private MB", "÷ ideal batches"]
    report("sessions", columns, rows, {"ideal_rows_s": ideal}, facts)


if __name__ == "__main__":
    main()
