"""How soon an index has what was written, and what searches are like until then.

Every inserted row must be found by the next statement. After many rows at once, searches run without a pause: while the rows
are in no version yet, and when the engine has come to rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

import pythiadb
from bench.common import percentile
from bench.search import pgvector, pythia
from bench.search.clients import connect
from bench.search.data import Dataset
from bench.search.output import Section
from bench.search.writes import Size

COLUMNS = ["index", "after", "until the index has it, s", "search before, p50 ms", "meanwhile", "slowest", "just after", "at rest", "at rest after, s"]  # fmt: skip
SINGLES = 20
ASKED = 40  # searches before, just after and at rest


def measure(data: Dataset, size: Size) -> None:
    """Print and keep the table."""
    section = Section("fresh", COLUMNS)
    for organization in (pythia.PARTITIONS, pythia.GRAPH):
        with pythia.measuring(), pythia.database() as db:
            pgvector.fill(db, "items", data.base[: size.before], {})
            pythia.build(db, "items", organization)
            pythia.rest(db)
            with connect(pythia.conninfo(db), pythia.nearest("items", "95")) as session:
                searches = Searches(session, data)
                _singly(db, section, organization.lower(), searches, size)
                _at_once(db, section, organization.lower(), searches, size)
    section.finish()


@dataclass
class Searches:
    """Searches for rows of the table, each with the vector of a row; it must be found."""

    session: psycopg.Connection[Any]
    data: Dataset
    times: list[float] = field(default_factory=list)

    def ask(self, number: int, *, exactly: bool) -> None:
        """Search; raise AssertionError where a row that changed is not found with its own vector (`exactly`)."""
        vector = self.data.base[number]
        started = time.perf_counter()
        rows = self.session.execute(pythia.nearest("items", "95").query, (vector,)).fetchall()
        self.times.append((time.perf_counter() - started) * 1000)
        near = [row[0] for row in rows]
        same = all(self.data.base[key] @ vector > 1 - 1e-6 for key in near)
        assert number in near or same or not exactly, f"row {number} was not found"

    def several(self, first: int, step: int) -> float:
        """Return the median milliseconds of searches for some rows."""
        for n in range(ASKED):
            self.ask(first + n * step, exactly=False)
        return percentile(self.taken(), 0.5)

    def taken(self) -> list[float]:
        """Return the milliseconds of the searches since this was asked last."""
        times, self.times = self.times, []
        return times


def _singly(db: pythiadb.Connection, section: Section, index: str, searches: Searches, size: Size) -> None:
    """Insert row after row, search at once, wait until the index has it."""
    before = searches.several(0, size.before // ASKED)
    settled = []
    for number in range(size.before, size.before + SINGLES):
        db.execute("INSERT INTO items VALUES (%s, %s)", (number, searches.data.base[number]))
        searches.ask(number, exactly=True)
        settled.append(pythia.settle(db, "items"))
    times = searches.taken()
    section.raw[f"{index}, 1 row"] = {"settled": settled, "searches": times}
    section.add(index, "INSERT of 1 row, p50", percentile(settled, 0.5), before, percentile(times, 0.5), max(times), "", "", "")  # fmt: skip


def _at_once(db: pythiadb.Connection, section: Section, index: str, searches: Searches, size: Size) -> None:
    """Insert many rows with one statement, and search until the index has them."""
    first = size.before + SINGLES
    last = min(first + size.bulk, len(searches.data.base))
    _stage(db, searches.data, range(first, last))
    pythia.rest(db)
    before = searches.several(0, size.before // ASKED)
    db.execute("INSERT INTO items SELECT * FROM source")
    settled = _until(lambda number: searches.ask(number, exactly=True), range(first, last), lambda: pythia.is_settled(db, "items"))  # fmt: skip
    meanwhile = searches.taken()
    after = searches.several(first, (last - first) // ASKED)
    rested = pythia.rest(db)
    rest = searches.several(first, (last - first) // ASKED)
    section.raw[f"{index}, many rows"] = {"settled": settled, "meanwhile": meanwhile, "rested": rested}
    section.add(index, f"INSERT of {last - first} rows", settled, before, percentile(meanwhile, 0.5), max(meanwhile), after, rest, rested)  # fmt: skip


def _stage(db: pythiadb.Connection, data: Dataset, numbers: range) -> None:
    db.execute(f"CREATE TEMP TABLE source (id bigint, v vector({data.dimensions}))")
    with db.cursor() as cursor, cursor.copy("COPY source FROM STDIN") as copy:
        for number in numbers:
            copy.write_row((number, data.base[number]))
    db.execute("ANALYZE source")


def _until(ask: Callable[[int], None], numbers: range, done: Callable[[], bool]) -> float:
    """Ask for rows far from each other until something is done; return the seconds."""
    started, asked = time.perf_counter(), 0
    while not done():
        ask(numbers[asked * 7919 % len(numbers)])
        asked += 1
    return time.perf_counter() - started
