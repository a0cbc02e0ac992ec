"""One shared model against one private copy a process: `make bench-sessions`.

1, 2, 4, 16, 32 and 64 sessions insert rows with embeddings of texts of 101 to 6,543 characters, a row a statement. (a) Every
session is a process with an ONNX Runtime session of its own; (b) the sessions call VECTOR_EMBEDDING of a model whose weights
are mapped. Before and after each of these runs the bare library embeds the same texts on the same cores, in the best batches: the
ratio is to the mean of the two, so that it does not follow what else the machine does. Memory is what the processes that hold the model
have for themselves, and the mapped weights once: the most while they run, which is the copies and the activations of batches, and
what stays two seconds later, which is the copies.

Latency under load is measured in several windows. Before each of them the same sessions find out how many rows a second they
can reach just then, and ask for 70 % of it at random times: a call that had to wait for its session counts from when it was due.
The last column but one is the median of the windows' ratios of p99 to p50. Much of it is chance: the last line is a calculation,
what a queue without any overhead does to calls that come at random, with a server a core that is first come, first served.
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

import pythiadb
from bench.common import database, machine, percentile, report
from bench.plain import PlainLoop
from examples.stdlib_corpus import collect

SESSIONS = (1, 2, 4, 16, 32, 64)
JUDGED = (16, 64)  # numbers of sessions whose throughput has a target
SECONDS = 10
SHORTEST, LONGEST = 101, 6543  # characters, as in Oracle's article
BATCH_SIZES = (1, 2, 4, 16)
SAMPLE = 48  # texts that the bare library embeds
IDEAL_SECONDS = 3
LOAD = 0.7  # of the throughput found, for the latency under load
LOAD_SESSIONS = 16
WINDOWS = 9
WINDOW_SECONDS = 25  # about 350 calls on two cores, so that p99 is not the slowest one
PROBE_SECONDS = 5
SAMPLE_SECONDS = 0.5  # between looks at memory
REST_SECONDS = 2  # after which an idle engine has given back what runs needed
MAPPED = "/cache/mapped/"
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


def copies_megabytes(pids: list[int]) -> float:
    """Return what the engine's workers hold for themselves, and of the mapped weights their shares of the one copy, in MB."""
    total = 0
    for pid in pids:
        mapped = False
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                mapped = MAPPED in line
            elif line.startswith("Pss:" if mapped else PRIVATE):
                total += int(words[1])
    return total / 1024


class Ideal:
    """The bare library with the best of a few batch sizes, in one session on all cores or in a session a core."""

    def __init__(self, corpus: list[str]) -> None:
        cores = len(os.sched_getaffinity(0))
        self._corpus = corpus[:SAMPLE]
        ways = [[PlainLoop()], [PlainLoop(1) for _ in range(cores)]]
        rates = {
            (len(loops), size): self._rate(loops, size, IDEAL_SECONDS)
            for loops in ways
            for size in BATCH_SIZES
        }
        self.sessions, self.size = max(rates, key=lambda way: rates[way])
        self._loops = next(loops for loops in ways if len(loops) == self.sessions)
        self.rates: list[float] = []

    def measure(self) -> float:
        """Return texts a second just now."""
        self.rates.append(self._rate(self._loops, self.size, IDEAL_SECONDS))
        return self.rates[-1]

    def lengths(self) -> list[int]:
        """Return the number of tokens of each text."""
        return self._loops[0].lengths(self._corpus)

    def _rate(self, loops: list[PlainLoop], size: int, seconds: float) -> float:
        done, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            threads = [
                threading.Thread(target=loop.embed, args=(self._corpus[n :: len(loops)], size))
                for n, loop in enumerate(loops)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            done += len(self._corpus)
        return done / passed


def insert_for(
    seconds: float, session: Any, corpus: list[str], first: int, pauses: Iterator[float] | None = None
) -> list[float]:
    """Insert one text after the other, or each so long after the one before, until the time is over; return the latencies in ms."""
    latencies, number = [], first
    due = time.perf_counter()
    end = due + seconds
    while (started := time.perf_counter()) < end:
        if pauses:
            due += next(pauses)
            time.sleep(max(0.0, due - started))
            started = max(due, started)  # a late start counts as waiting
        session(corpus[number % len(corpus)])
        latencies.append((time.perf_counter() - started) * 1000)
        number += 7
    return latencies


def _pauses(mean: float, window: int, number: int) -> Iterator[float]:
    """Yield the seconds between a session's calls, which come at random: others in each window, and the same ones in each run."""
    chance = random.Random(f"{window} {number}")
    while True:
        yield chance.expovariate(1 / mean)


@dataclass(frozen=True)
class Outcome:
    """What sessions did: the latency of each insert in ms, the seconds until the last had ended, MB while they ran."""

    latencies: list[float]
    seconds: float
    memory: float

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def tail(self) -> float:
        """How many times the median the slowest hundredth takes."""
        return percentile(self.latencies, 0.99) / percentile(self.latencies, 0.5)


def shared(
    conninfo: str,
    corpus: list[str],
    count: int,
    pids: list[int],
    *,
    seconds: float = SECONDS,
    pauses: Callable[[int], Iterator[float]] | None = None,
) -> Outcome:
    """Run `count` sessions that use the engine, whose workers are `pids`; `pauses`: those of each session, else it makes none."""
    found: list[list[float]] = [[] for _ in range(count)]

    def run(number: int) -> None:
        with psycopg.connect(conninfo, autocommit=True) as db:
            found[number] = insert_for(
                seconds,
                lambda text: db.execute("INSERT INTO sink SELECT vector_embedding('minilm', %s)", (text,)),
                corpus,
                number,
                pauses(number) if pauses else None,
            )

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    samples = []
    while alive := [thread for thread in threads if thread.is_alive()]:
        samples.append(copies_megabytes(pids))
        alive[0].join(SAMPLE_SECONDS)
    return Outcome([ms for part in found for ms in part], time.perf_counter() - started, max(samples))


def windows(conninfo: str, corpus: list[str], pids: list[int]) -> list[Outcome]:
    """Run sessions that ask for LOAD of what they reach, in several windows."""
    outcomes = []
    for window in range(WINDOWS):
        reached = shared(conninfo, corpus, LOAD_SESSIONS, pids, seconds=PROBE_SECONDS).rate
        mean = LOAD_SESSIONS / (LOAD * reached)
        outcomes.append(
            shared(
                conninfo, corpus, LOAD_SESSIONS, pids, seconds=WINDOW_SECONDS,
                pauses=partial(_pauses, mean, window),
            )
        )  # fmt: skip
    return outcomes


def queue_tail(lengths: list[int], servers: int, load: float = LOAD, calls: int = 200_000) -> float:
    """Return p99 ÷ p50 of calls that come at random to so many servers; a call's length is what it takes of one server."""
    chance = random.Random(0)
    free, now, latencies = [0.0] * servers, 0.0, []
    gap = statistics.mean(lengths) / servers / load
    for _ in range(calls):
        now += chance.expovariate(1 / gap)
        heapq.heapreplace(free, end := max(now, free[0]) + chance.choice(lengths))
        latencies.append(end - now)
    return percentile(latencies, 0.99) / percentile(latencies, 0.5)


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
        answers.put(insert_for(SECONDS, insert, corpus, number))
        go.wait()


def private(conninfo: str, corpus: list[str], count: int) -> Outcome:
    """Run `count` processes with a copy each; they keep the memory that they have reached."""
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
    started = time.perf_counter()
    latencies = [ms for _ in processes for ms in answers.get()]
    seconds = time.perf_counter() - started
    memory = private_megabytes([p.pid for p in processes if p.pid is not None])
    go.wait()
    for process in processes:
        process.join()
    return Outcome(latencies, seconds, memory)


def row_of(name: str, count: int, outcomes: list[Outcome], rest: float, ideal: float) -> list[Any]:
    """One line of the table: of what ran, the memory in MB that stays, and the rate of the bare library."""
    latencies = [ms for outcome in outcomes for ms in outcome.latencies]
    rate = len(latencies) / sum(outcome.seconds for outcome in outcomes)
    return [
        name, count, round(rate, 1), round(percentile(latencies, 0.5), 1), round(percentile(latencies, 0.99), 1),
        round(max(outcome.memory for outcome in outcomes), 1), round(rest, 1),
        round(statistics.median(outcome.tail for outcome in outcomes), 2), round(rate / ideal, 2),
    ]  # fmt: skip


def rest_megabytes(pids: list[int]) -> float:
    """Return what the engine's workers hold a while after their last run, in MB."""
    time.sleep(REST_SECONDS)
    return copies_megabytes(pids)


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
        db.execute("CALL dbms_vector.inmemory_onnx_model('minilm', true)")
        ideal = Ideal(corpus)
        db.execute("SELECT vector_embedding('minilm', %s)", (corpus[0],))
        pids = worker_pids(db)
        for count in SESSIONS:
            outcome = private(conninfo, corpus, count)
            before = ideal.measure()
            rows.append([*row_of("a copy a process", count, [outcome], outcome.memory, before), ""])
            outcome = shared(conninfo, corpus, count, pids)
            rest = rest_megabytes(pids)
            rows.append(row_of("Pythia", count, [outcome], rest, (before + ideal.measure()) / 2))
            rows[-1].append("÷ ideal ≥ 0.9" if count in JUDGED else "")
        few, many = (
            next(row for row in rows if row[:2] == ["Pythia", n]) for n in (SESSIONS[0], SESSIONS[-1])
        )
        growth = [round(more / less, 2) for more, less in zip(many[5:7], few[5:7], strict=True)]
        rows.append(
            [f"Pythia, {SESSIONS[-1]} ÷ {SESSIONS[0]}", "", "", "", "", *growth, "", "", "at rest ≤ 1.05"]
        )
        before = ideal.measure()
        loaded = windows(conninfo, corpus, pids)
        rest = rest_megabytes(pids)
        ideal_rate = (before + ideal.measure()) / 2
        rows.append(row_of(f"Pythia at {LOAD:.0%} load", LOAD_SESSIONS, loaded, rest, ideal_rate))
        rows[-1].append("p99 ÷ p50 ≤ 3")
        tail = queue_tail(ideal.lengths(), facts["cores"])
        rows.append(
            [f"queue without overhead at {LOAD:.0%} load", "", "", "", "", "", "", round(tail, 2), "", ""]
        )
    columns = [
        "way", "sessions", "rows/s", "p50 ms", "p99 ms", "MB running", "MB at rest", "p99 ÷ p50", "÷ ideal batches", "target",
    ]  # fmt: skip
    report(
        "sessions",
        columns,
        rows,
        {
            "ideal_rows_s": ideal.rates,
            "ideal_batch": ideal.size,
            "ideal_sessions": ideal.sessions,
            "tails": [outcome.tail for outcome in loaded],
        },
        facts,
    )


if __name__ == "__main__":
    main()
