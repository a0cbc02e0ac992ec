"""Queries from one session or from many: every client is a process of its own, so that none waits for another's Python.

All clients run on the machine of the server and take a part of its time: the same part, whichever way they search.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import psycopg

import pythiadb
from bench.common import percentile
from bench.search.data import Vectors
from pythiadb.postgres import adapt

WARM = 30  # questions before any counts
TURN = 20  # questions that one way is asked before the next one's turn
PATIENCE = 120  # seconds that a client may take to start
Arguments = tuple[Any, ...]
Asked = Callable[[Vectors], list[int]]  # a vector to the numbers of the rows nearest to it


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask: statements that prepare a session, and the query with the vector as a parameter.

    With `ai_sql` the session is one of pythiadb.connect, else psycopg's. The first column of the answer is the row's key. Other
    parameters stand behind the vector, or before it with `vector_last`.
    """

    name: str
    query: str
    setup: tuple[str, ...] = ()
    ai_sql: bool = False
    vector_last: bool = False

    def ordered(self, arguments: Arguments) -> Arguments:
        """Return the parameters as the query has them."""
        return (*arguments[1:], arguments[0]) if self.vector_last else arguments


@dataclass(frozen=True)
class Pass:
    """What one session saw: the keys of each answer, and the milliseconds that each took."""

    answers: list[list[int]]
    times: list[float]

    @property
    def p50(self) -> float:
        """Return the median in ms."""
        return percentile(self.times, 0.5)

    @property
    def p95(self) -> float:
        """Return the 95th percentile in ms."""
        return percentile(self.times, 0.95)


@dataclass(frozen=True)
class Load:
    """What many sessions saw together, each asking again as soon as it has its answer."""

    clients: int
    qps: float
    p50: float
    p95: float


@dataclass(frozen=True)
class Questions:
    """Query vectors and, where a query has more parameters, those of each."""

    vectors: Vectors
    more: Sequence[Arguments] = field(default_factory=tuple)

    def of(self, number: int) -> Arguments:
        """Return the parameters of one query; numbers go round."""
        number %= len(self.vectors)
        return (self.vectors[number], *(self.more[number] if self.more else ()))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.vectors)


def connect(conninfo: str, way: Way) -> psycopg.Connection[Any]:
    """Open a session for this way."""
    if way.ai_sql:
        db: psycopg.Connection[Any] = pythiadb.connect(conninfo, autocommit=True)
    else:
        db = psycopg.connect(conninfo, autocommit=True)
        adapt.register(db)
    for statement in way.setup:
        db.execute(statement)
    return db


def ask(conninfo: str, ways: Sequence[Way], questions: Questions, others: Sequence[Asked] = ()) -> list[Pass]:
    """Ask all questions in one session of each way, and of the functions `others`; return what each saw, in order.

    The ways take turns of a few questions each, so that what else the machine does hits all alike.
    """
    with ExitStack() as open_sessions:
        sessions = [open_sessions.enter_context(connect(conninfo, way)) for way in ways]
        asked = [_asking(db, way) for db, way in zip(sessions, ways, strict=True)]
        asked += [_calling(function) for function in others]
        found: list[Pass] = [Pass([], []) for _ in asked]
        for function in asked:
            for n in range(min(WARM, len(questions))):
                function(questions.of(n))
        for start in range(0, len(questions), TURN):
            for function, result in zip(asked, found, strict=True):
                for n in range(start, min(start + TURN, len(questions))):
                    arguments = questions.of(n)
                    started = time.perf_counter()
                    keys = function(arguments)
                    result.times.append((time.perf_counter() - started) * 1000)
                    result.answers.append(keys)
    return found


def _asking(db: psycopg.Connection[Any], way: Way) -> Callable[[Arguments], list[int]]:
    return lambda arguments: [row[0] for row in db.execute(way.query, way.ordered(arguments))]


def _calling(function: Asked) -> Callable[[Arguments], list[int]]:
    return lambda arguments: function(arguments[0])


def load(conninfo: str, way: Way, questions: Questions, clients: int, seconds: float) -> Load:
    """Let so many processes ask for so many seconds."""
    context = multiprocessing.get_context("forkserver")  # imports once, not once a client
    go, results = context.Barrier(clients + 1, timeout=PATIENCE), context.Queue()
    processes = [
        context.Process(target=_client, args=(conninfo, way, questions, (n, seconds), (go, results)))
        for n in range(clients)
    ]
    for process in processes:
        process.start()
    go.wait()
    started = time.perf_counter()
    found = [results.get(timeout=PATIENCE + seconds) for _ in processes]
    passed = max(ended for ended, _ in found) - started
    for process in processes:
        process.join()
    times = [ms for _, part in found for ms in part]
    return Load(clients, len(times) / passed, percentile(times, 0.5), percentile(times, 0.95))


def _client(
    conninfo: str, way: Way, questions: Questions, share: tuple[int, float], signals: tuple[Any, Any]
) -> None:
    """Be one process: warm the session, wait for the others, ask, send the end and the times. The clock is the machine's.

    `share` is the client's number and how many seconds it asks; the signals are: all may go on, answers.
    """
    (client, seconds), (go, results) = share, signals
    times, number = [], client * 61
    with connect(conninfo, way) as db:
        for n in range(20):
            db.execute(way.query, way.ordered(questions.of(number + n))).fetchall()
        go.wait()
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            db.execute(way.query, way.ordered(questions.of(number))).fetchall()
            times.append((time.perf_counter() - started) * 1000)
            number += 1
        results.put((time.perf_counter(), times))
