"""Queries from one session of each way, in turns, as a Python application asks them; load.py has those of many sessions."""

from __future__ import annotations

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
Arguments = tuple[Any, ...]
Asked = Callable[[Vectors], list[int]]  # a vector to the numbers of the rows nearest to it


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask: settings of the session, and the query with the vector as a parameter.

    With `ai_sql` the session is one of pythiadb.connect, else psycopg's. The first column of the answer is the row's key. Other
    parameters stand behind the vector, or before it with `vector_last`.
    """

    name: str
    query: str
    settings: tuple[tuple[str, str], ...] = ()
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
    for setting in way.settings:
        db.execute("SELECT set_config(%s, %s, false)", setting)
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
