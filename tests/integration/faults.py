"""A table with a vector index, writers and searchers that bear faults, and the engine's processes, for tests that kill them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
from background import UntilOver, wait_until

import pythiadb
from pythiadb.postgres import cluster
from pythiadb.postgres.layout import Layout
from pythiadb.postgres.server import Server

ROWS = 1500  # fewer than an index looks at one by one: its answers must be the exact ones
TOUCHED = 400  # rows that writers change
BACK_SECONDS = 25.0  # in which everything must be well again
QUERY = "SELECT id, v <-> %(q)s FROM items ORDER BY VECTOR_DISTANCE(v, %(q)s, EUCLIDEAN), id FETCH {how} FIRST 8 ROWS ONLY"
STATUS = "SELECT status, error, pending_rows, version, rows FROM pythia.vector_index_status WHERE index_name = 'items_v'"


def vector(chance: random.Random) -> str:
    return str([chance.randrange(-50, 50) for _ in range(6)])


def make_items(db: pythiadb.Connection) -> None:
    """Make the table with its index."""
    chance = random.Random(1)
    db.execute("DROP TABLE IF EXISTS items")
    db.execute("CREATE TABLE items (id int PRIMARY KEY, v vector(6) NOT NULL)")
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO items (id, v) VALUES (%s, %s)", [(n, vector(chance)) for n in range(ROWS)]
        )
    create_index(db)


def create_index(db: pythiadb.Connection) -> None:
    db.execute("CREATE VECTOR INDEX items_v ON items (v) ORGANIZATION NEIGHBOR PARTITIONS DISTANCE EUCLIDEAN")


def state(db: pythiadb.Connection) -> dict[str, Any]:
    """What the view says of the index."""
    cursor = db.execute(STATUS)
    row = cursor.fetchone()
    return {} if row is None else dict(zip((c.name for c in cursor.description or ()), row, strict=True))


def is_used(db: pythiadb.Connection) -> bool:
    """Tell whether a search goes through the index's newest version, and not over all rows."""
    plan = db.execute("EXPLAIN " + QUERY.format(how="APPROX"), {"q": "[1,2,3,4,5,6]"}).fetchall()
    return "EXACT" not in plan[0][0]


def check_answers(db: pythiadb.Connection, chance: random.Random, times: int = 20) -> None:
    """Assert that searches find rows as near as exact ones do, in one snapshot each. Which of equally near ones is anybody's."""
    for _ in range(times):
        values = {"q": vector(chance)}
        with db.transaction():
            db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            found = db.execute(QUERY.format(how="APPROX"), values).fetchall()
            truth = db.execute(QUERY.format(how="EXACT"), values).fetchall()
        assert [distance for _, distance in found] == [distance for _, distance in truth]
        assert len({id for id, _ in found}) == len(found)


def change_rows(db: pythiadb.Connection, condition: str) -> None:
    numbers = ", ".join(["(random() * 100)::int - 50"] * 6)
    db.execute(f"UPDATE items SET v = ARRAY[{numbers}]::vector WHERE {condition}")


def wait_until_well(db: pythiadb.Connection, seconds: float = BACK_SECONDS) -> None:
    """Assert that the index is back by itself: used, without an error, the journal taken into it."""

    def is_well() -> bool:
        now = state(db)
        return (now["status"], now["error"], now["pending_rows"]) == ("VALID", None, 0) and is_used(db)

    try:
        wait_until(is_well, seconds)
    except AssertionError:
        raise AssertionError(f"not back by itself: {state(db)}") from None
    rows = db.execute("SELECT count(*) FROM items").fetchone()
    assert rows == (state(db)["rows"],)


class Load(UntilOver):
    """Two writers and two searchers. Their answers are always right; `failed` are the statements that got none."""

    def __init__(self, shop: Path) -> None:
        self._shop = shop
        works = [partial(self._go_on, work, seed) for seed in (1, 2) for work in (self._write, self._search)]
        super().__init__(*works)
        self.searches = 0
        self.wrong: list[Exception] = []
        self.failed: list[Exception] = []

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self.wrong:
            raise self.wrong[0]

    def wait(self, searches: int = 5) -> None:
        """Wait until so many more searches were answered."""
        wanted = self.searches + searches
        wait_until(lambda: self.searches >= wanted or bool(self.wrong))

    def _go_on(self, work: Callable[[pythiadb.Connection, random.Random], None], seed: int) -> None:
        """Work until it is over; connect again after a connection was lost."""
        chance = random.Random(seed)
        while not self.over.is_set():
            try:
                with pythiadb.connect(self._shop, autocommit=True) as db:
                    db.execute("SET synchronous_commit = off; SET statement_timeout = '20s'")
                    while not self.over.is_set():
                        work(db, chance)
            except (psycopg.OperationalError, psycopg.Rollback) as error:  # a rollback on a lost connection
                self.failed.append(error)
                time.sleep(0.1)
            except Exception as error:
                self.wrong.append(error)
                return

    def _write(self, db: pythiadb.Connection, chance: random.Random) -> None:
        """Change, add and delete a few rows in one transaction, which may be rolled back."""
        with db.transaction():
            for id in sorted(chance.sample(range(TOUCHED), chance.choice([1, 1, 4]))):
                if chance.random() < 0.2:
                    db.execute("DELETE FROM items WHERE id = %s", (id,))
                else:
                    db.execute(
                        "INSERT INTO items (id, v) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v",
                        (id, vector(chance)),
                    )
            if chance.random() < 0.1:
                raise psycopg.Rollback

    def _search(self, db: pythiadb.Connection, chance: random.Random) -> None:
        check_answers(db, chance, times=1)
        self.searches += 1


# Processes ----------------------------------------------------------------------------------------------------------------


def engine_processes(shop: Path) -> dict[str, psutil.Process]:
    """The engine's processes by name: supervisor, template, worker, keeper. Empty when none listens."""
    pid = cluster.engine_pid(Layout(shop))
    if pid is None:
        return {}
    found = {"supervisor": psutil.Process(pid)}
    for process in found["supervisor"].children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            name = process.name()
            found[next((role for role in ("keeper", "worker") if role in name), "template")] = process
    return found


def kill(shop: Path, *names: str) -> None:
    """kill -9, all at once; what is not there is dead already."""
    for name, process in engine_processes(shop).items():
        if name in names:
            send(process, signal.SIGKILL)


def send(process: psutil.Process, number: int) -> None:
    """Send a signal; who is dead already gets none."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def kill_server(shop: Path) -> None:
    """kill -9 for PostgreSQL: the postmaster and all its children."""
    pid = Server.at(shop).pid()
    assert pid is not None
    postmaster = psutil.Process(pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        send(process, signal.SIGKILL)
