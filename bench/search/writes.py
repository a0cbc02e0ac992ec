"""What an index costs those who write: the same statements on a table without one, on one with Pythia's, on one with pgvector's.

The tables take turns, round after round; each is vacuumed after its turn (not pgvector's: that would take longer than all else),
and no turn begins before the engine is at rest. So what the engine does after a statement is not in its time: that, and what
searches are like meanwhile, stands in `fresh.py`. The triggers of partitions and graphs are the same. pgvector's statements change
fewer rows, as each takes it milliseconds: all times are those of one row. The processor time is that of the session's own server
process; where other guests of the machine disturb, its ratio says more.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

import pythiadb
from bench.search import pgvector, pythia
from bench.search.clients import Way, connect
from bench.search.data import Dataset
from bench.search.output import Section

TABLES = ("no_index", "pythia", "hnsw")
PLAIN, OURS, THEIRS = TABLES
COLUMNS = ["statement", "synchronous_commit", "table", "µs a row", "÷ without an index", "CPU µs", "÷ without", "target"]  # fmt: skip
COMMITS = ("on", "off")
TURN = 10  # rows inserted one by one before the next table's turn: pgvector's leave little in the caches
Act = Callable[[str, int], object]  # of a table and how many rows to change


@dataclass(frozen=True, slots=True)
class Cost:
    """What one row took: microseconds that passed, and those that the server's process worked."""

    passed: float
    worked: float


Costs = dict[str, list[Cost]]  # by table


@dataclass(frozen=True)
class Size:
    """Rows of the table that is updated; rows before the insertions, rows inserted singly and at once; rows a statement for pgvector.

    Rounds with bulk statements, and with quicker ones.
    """

    updated: int = 10_000
    before: int = 50_000
    single: int = 300
    bulk: int = 100_000
    theirs: int = 300
    rounds: int = 3
    quick_rounds: int = 10


def measure(updates: Dataset, inserts: Dataset, size: Size) -> None:
    """Print and keep two tables: rows that are there, and new ones."""
    section = Section(f"writes: {updates.name}", COLUMNS)
    with pythia.measuring(), pythia.database() as db, _writer(db) as writer:
        _tables(db, updates, size.updated)
        _updates(Turns(db, writer, section, size), updates.dimensions)
    section.finish()
    section = Section(f"writes: {inserts.name}", COLUMNS)
    with pythia.measuring(), pythia.database() as db, _writer(db) as writer:
        _tables(db, inserts, size.before)
        turns = Turns(db, writer, section, size)
        for commit in COMMITS:
            turns.singles(commit, inserts)
        _bulk(turns, inserts)
    section.finish()


def _writer(db: pythiadb.Connection) -> psycopg.Connection[Any]:
    """Open a session of a plain client: nothing of Pythia's stands between it and the server."""
    return connect(pythia.conninfo(db), Way("", ""))


def _tables(db: pythiadb.Connection, data: Dataset, rows: int) -> None:
    """Make the same table three times."""
    for table in TABLES:
        pgvector.fill(db, table, data.base[:rows], {"note": ("text", ["first words"] * rows)})
    pythia.build(db, OURS, pythia.PARTITIONS)
    pgvector.build(db, THEIRS)


@dataclass
class Turns:
    """The tables' turns at one statement after another."""

    db: pythiadb.Connection
    writer: psycopg.Connection[Any]
    section: Section
    size: Size
    inserted: int = field(default=0)

    def many(self, name: str, act: Act, rows: int, target: str = "", *, undo: Act) -> None:
        """Time a statement over many rows on each table in each round; `undo` is not timed."""
        self.writer.execute("SET synchronous_commit = on")
        costs: Costs = {table: [] for table in TABLES}
        for number in range(self.size.rounds):
            for table in _order(number):
                count = self.size.theirs if table == THEIRS else rows
                costs[table].append(self._cost(act, table, count))
                undo(table, count)
                self._settle(table)
        self._lines(name, "on", costs, target)

    def updates(self, name: str, act: Act, target: str = "", *, commit: str) -> None:
        """Time an UPDATE on each table in each round, the first of which does not count; pgvector's takes part in two."""
        self.writer.execute(f"SET synchronous_commit = {commit}".encode())
        costs: Costs = {table: [] for table in TABLES}
        for number in range(self.size.quick_rounds + 1):
            for table in _order(number):
                count = self.size.theirs if table == THEIRS else self.size.updated
                if table != THEIRS or number < 2:
                    costs[table].append(self._cost(act, table, count))
                    self._settle(table)
        self._lines(name, commit, {table: found[1:] for table, found in costs.items()}, target)

    def singles(self, commit: str, data: Dataset) -> None:
        """Time insertions of one row, each a transaction, the tables in turn."""
        self.writer.execute(f"SET synchronous_commit = {commit}".encode())
        costs: Costs = {table: [] for table in TABLES}

        def insert(table: str, number: int) -> None:
            statement = f"INSERT INTO {table} (id, note, v) VALUES (%s, 'new', %s)".encode()
            self.writer.execute(statement, (number, data.base[number]))

        for block in range(self.size.single // TURN):
            first = self.size.before + self.inserted
            self.inserted += TURN
            for table in _order(block):
                for number in range(first, first + TURN):
                    costs[table].append(self._cost(lambda t, _, n=number: insert(t, n), table, 1))  # type: ignore[misc]
        self._lines("INSERT of 1 row", commit, costs, "≤ 1.3")

    def _cost(self, act: Act, table: str, rows: int) -> Cost:
        process = self.writer.info.backend_pid
        started, worked = time.perf_counter(), _worked(process)
        act(table, rows)
        passed = time.perf_counter() - started
        return Cost(passed * 1e6 / rows, (_worked(process) - worked) * 1e6 / rows)

    def _settle(self, table: str) -> None:
        if table != THEIRS:
            self.writer.execute(f"VACUUM {table}".encode())
        if table == OURS:
            pythia.settle(self.db, table)
            pythia.rest(self.db)

    def _lines(self, name: str, commit: str, costs: Costs, target: str) -> None:
        self.section.raw[f"{name}, synchronous_commit {commit}"] = costs
        passed = {table: statistics.median(cost.passed for cost in found) for table, found in costs.items()}
        worked = {table: statistics.median(cost.worked for cost in found) for table, found in costs.items()}
        for table in TABLES:
            self.section.add(
                name, commit, table, passed[table], passed[table] / passed[PLAIN], worked[table], worked[table] / worked[PLAIN],
                target if table == OURS else "",
            )  # fmt: skip


def _updates(turns: Turns, dimensions: int) -> None:
    """Update another column, then the vectors: each gets that of the next row."""

    def other(table: str, rows: int) -> None:
        turns.writer.execute(f"UPDATE {table} SET note = note || '.' WHERE id < {rows}".encode())

    def vector(table: str, rows: int) -> None:
        turns.writer.execute(
            f"UPDATE {table} t SET v = o.v FROM {table} o WHERE t.id < {rows} AND o.id = (t.id + 1) % {rows}".encode()
        )

    for commit in COMMITS:
        turns.updates(f"UPDATE of another column, {dimensions}-d", other, "≤ 1.05", commit=commit)
    turns.updates(f"UPDATE of the vector, {dimensions}-d", vector, commit="on")


def _bulk(turns: Turns, data: Dataset) -> None:
    """Insert, copy and delete many rows at once."""
    first = turns.size.before + turns.inserted
    rows = min(turns.size.bulk, len(data.base) - first)
    writer = turns.writer
    writer.execute(f"CREATE TEMP TABLE source (id bigint, note text, v vector({data.dimensions}))".encode())
    with writer.cursor() as cursor, cursor.copy("COPY source FROM STDIN") as copy:
        for number in range(first, first + rows):
            copy.write_row((number, "", data.base[number]))
    writer.execute("ANALYZE source")

    def insert(table: str, count: int) -> None:
        writer.execute(
            f"INSERT INTO {table} (id, note, v) SELECT * FROM source WHERE id < {first + count}".encode()
        )

    def delete(table: str, count: int) -> None:
        writer.execute(f"DELETE FROM {table} WHERE id BETWEEN {first} AND {first + count - 1}".encode())

    for count in {rows, turns.size.theirs}:
        writer.execute(
            f"COPY (SELECT * FROM source WHERE id < {first + count}) TO '{_file(writer, count)}' WITH (FORMAT binary)".encode()
        )

    def copy_in(table: str, count: int) -> None:
        writer.execute(
            f"COPY {table} (id, note, v) FROM '{_file(writer, count)}' WITH (FORMAT binary)".encode()
        )

    turns.many(f"INSERT of {rows} rows, {data.dimensions}-d", insert, rows, "≤ 2", undo=delete)
    turns.many(f"COPY of {rows} rows, {data.dimensions}-d", copy_in, rows, undo=delete)
    for table in TABLES:
        insert(table, turns.size.theirs if table == THEIRS else rows)
    turns.many(f"DELETE of {rows} rows, {data.dimensions}-d", delete, rows, undo=insert)


def _file(writer: psycopg.Connection[Any], count: int) -> str:
    """Return where the server keeps rows to copy: in its own folder, which goes with the database."""
    row = writer.execute("SELECT current_setting('data_directory')").fetchone()
    assert row is not None
    return f"{row[0]}/rows-{count}"


def _order(round_number: int) -> tuple[str, ...]:
    """Return the tables in the order of their turns, which changes from round to round."""
    return TABLES if round_number % 2 else TABLES[::-1]


def _worked(process: int) -> float:
    """Return the seconds that a process has run, as Linux' scheduler counts them: to the nanosecond."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9
