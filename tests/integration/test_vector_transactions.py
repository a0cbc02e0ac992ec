"""Answers from vector indexes are exactly transactional: a model-based test, and many writers and readers at once."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from background import wait_until
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pythiadb
from pythiadb.postgres import cluster, install
from pythiadb.postgres.layout import Layout
from pythiadb.postgres.server import Server

DIMENSIONS = 4
QUERY = (
    "SELECT id FROM {table} ORDER BY VECTOR_DISTANCE(v, :q, EUCLIDEAN), id FETCH {how} FIRST {k} ROWS ONLY"
)
FILTERED = (
    "SELECT id FROM {table} WHERE part = 1 ORDER BY VECTOR_DISTANCE(v, :q, EUCLIDEAN), id "
    "FETCH {how} FIRST {k} ROWS ONLY"
)


def make_table(db: pythiadb.Connection, table: str) -> None:
    db.execute(f"DROP TABLE IF EXISTS {table}".encode())
    db.execute(
        f"CREATE TABLE {table} (id int PRIMARY KEY, part int NOT NULL, note text, v vector({DIMENSIONS}))".encode()
    )
    db.execute(
        f"INSERT INTO {table} SELECT i, i % 3, '', ARRAY[i % 7, i % 5, i % 3, i]::vector FROM generate_series(1, 50) AS i".encode()
    )
    db.execute(
        f"CREATE VECTOR INDEX {table}_v ON {table} (v) ORGANIZATION NEIGHBOR PARTITIONS DISTANCE EUCLIDEAN WITH TARGET ACCURACY 95"
    )


def check(db: pythiadb.Connection, table: str, query: list[float], k: int) -> None:
    """The index's answer is the exact one: small segments are searched whole."""
    for statement in (QUERY, FILTERED):
        found = db.execute(statement.format(table=table, how="APPROX", k=k), {"q": str(query)}).fetchall()
        truth = db.execute(statement.format(table=table, how="EXACT", k=k), {"q": str(query)}).fetchall()
        plain = db.execute(statement.format(table=table, how="", k=k), {"q": str(query)}).fetchall()
        assert found == plain
        assert truth == plain


IDS = st.integers(1, 60)
LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
NUMBERS = st.integers(-9, 9)
VECTORS = st.lists(NUMBERS, min_size=DIMENSIONS, max_size=DIMENSIONS)


class Sessions(RuleBasedStateMachine):
    """Two sessions change one table in transactions; each always sees the exact answer of its own snapshot."""

    shop: Path

    def __init__(self) -> None:
        super().__init__()
        self.dbs = [pythiadb.connect(self.shop, autocommit=True) for _ in range(2)]
        self.open = [False, False]
        self.savepoints = [0, 0]
        self.touched: list[set[int]] = [set(), set()]  # rows locked by the sessions' transactions

    @initialize()
    def start(self) -> None:
        make_table(self.dbs[0], "sessions")

    def teardown(self) -> None:
        for db in self.dbs:
            db.close()

    def _free(self, n: int, ids: set[int]) -> bool:
        """No other transaction holds these rows: nobody has to wait."""
        return not ids & self.touched[1 - n]

    def _touch(self, n: int, ids: set[int]) -> None:
        if self.open[n]:
            self.touched[n] |= ids

    @rule(n=st.sampled_from([0, 1]), level=st.sampled_from(LEVELS))
    def begin(self, n: int, level: str) -> None:
        if not self.open[n]:
            self.dbs[n].execute(f"BEGIN ISOLATION LEVEL {level}".encode())
            self.open[n], self.savepoints[n] = True, 0

    @rule(n=st.sampled_from([0, 1]), commit=st.booleans())
    def end(self, n: int, commit: bool) -> None:
        if self.open[n]:
            with self._serialized(n):
                self.dbs[n].execute(b"COMMIT" if commit else b"ROLLBACK")
            self.open[n], self.touched[n] = False, set()

    @rule(n=st.sampled_from([0, 1]))
    def savepoint(self, n: int) -> None:
        if self.open[n]:
            self.savepoints[n] += 1
            self.dbs[n].execute(f"SAVEPOINT s{self.savepoints[n]}".encode())

    @rule(n=st.sampled_from([0, 1]))
    def rollback_to_savepoint(self, n: int) -> None:
        if self.open[n] and self.savepoints[n]:
            self.dbs[n].execute(f"ROLLBACK TO s{self.savepoints[n]}".encode())

    def _change(self, n: int, ids: set[int], statement: str, values: Any) -> None:
        if self._free(n, ids):
            with self._serialized(n):
                self.dbs[n].execute(statement, values)
                self._touch(n, ids)

    @contextlib.contextmanager
    def _serialized(self, n: int) -> Iterator[None]:
        """What conflicts with the other session under a strict isolation level ends the transaction."""
        try:
            yield
        except psycopg.errors.SerializationFailure:
            assert self.open[n]
            self.dbs[n].execute("ROLLBACK")
            self.open[n], self.touched[n] = False, set()

    @rule(n=st.sampled_from([0, 1]), id=IDS, v=VECTORS)
    def upsert(self, n: int, id: int, v: list[int]) -> None:
        self._change(
            n, {id},
            "INSERT INTO sessions VALUES (:i, :p, '', :v) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v",
            {"i": id, "p": id % 3, "v": str(v)},
        )  # fmt: skip

    @rule(n=st.sampled_from([0, 1]), id=IDS, v=st.one_of(st.none(), VECTORS))
    def update(self, n: int, id: int, v: list[int] | None) -> None:
        self._change(
            n, {id}, "UPDATE sessions SET v = :v WHERE id = :i", {"i": id, "v": None if v is None else str(v)}
        )

    @rule(n=st.sampled_from([0, 1]), id=IDS, other=IDS)
    def move(self, n: int, id: int, other: int) -> None:
        """Change a row's key to one that is free."""
        self._change(
            n, {id, other},
            "UPDATE sessions SET id = :o WHERE id = :i AND NOT EXISTS (SELECT FROM sessions WHERE id = :o)",
            {"i": id, "o": other},
        )  # fmt: skip

    @rule(n=st.sampled_from([0, 1]), id=IDS)
    def delete(self, n: int, id: int) -> None:
        self._change(n, {id}, "DELETE FROM sessions WHERE id = :i", {"i": id})

    @rule(n=st.sampled_from([0, 1]), id=IDS)
    def annotate(self, n: int, id: int) -> None:
        self._change(n, {id}, "UPDATE sessions SET note = note || 'x', part = 1 WHERE id = :i", {"i": id})

    @rule(seconds=st.sampled_from([0.0, 0.3]))
    def wait(self, seconds: float) -> None:
        """Let the keeper refresh."""
        time.sleep(seconds)

    @precondition(lambda self: not any(self.open))
    @rule()
    def truncate(self) -> None:
        self.dbs[0].execute("TRUNCATE sessions")

    @rule(n=st.sampled_from([0, 1]), q=VECTORS, k=st.sampled_from([1, 3, 10, 100]))
    def search(self, n: int, q: list[int], k: int) -> None:
        with self._serialized(n):
            check(self.dbs[n], "sessions", [float(x) for x in q], k)

    @invariant()
    def both_are_exact(self) -> None:
        for n, db in enumerate(self.dbs):
            with self._serialized(n):
                if self._has_table(db):
                    check(db, "sessions", [1.0, 2.0, 3.0, 4.0], 5)

    def _has_table(self, db: pythiadb.Connection) -> bool:
        row = db.execute("SELECT to_regclass('sessions') IS NOT NULL").fetchone()
        return row is not None and bool(row[0])


def test_sessions(shop: Path) -> None:
    """Any sequence of changes, savepoints, commits and refreshes."""
    Sessions.shop = shop
    machine = Sessions.TestCase
    machine.settings = settings(
        max_examples=8, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    machine().runTest()


@pytest.fixture(scope="module")
def big(shop: Path) -> Iterator[str]:
    """A table whose index has partitions: 8,000 rows of 16 dimensions."""
    generator = np.random.default_rng(5)
    with pythiadb.connect(shop, autocommit=True) as db:
        db.execute("DROP TABLE IF EXISTS big_vectors")
        db.execute(
            "CREATE TABLE big_vectors (id bigint PRIMARY KEY, stamp int NOT NULL DEFAULT 0, v vector(16))"
        )
        with db.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO big_vectors (id, v) VALUES (%s, %s)",
                [(n, generator.normal(size=16).astype(np.float32)) for n in range(8000)],
            )
        db.execute("ANALYZE big_vectors")
        db.execute(
            "CREATE VECTOR INDEX big_v ON big_vectors (v) ORGANIZATION NEIGHBOR PARTITIONS DISTANCE EUCLIDEAN WITH TARGET ACCURACY 95"
        )
        yield "big_vectors"
        db.execute("DROP TABLE big_vectors")


ROUNDS = 60
APPROX = "SELECT id, v <-> %(q)s FROM big_vectors ORDER BY VECTOR_DISTANCE(v, %(q)s, EUCLIDEAN) FETCH APPROX FIRST 10 ROWS ONLY"
PLAIN = "SELECT id, v <-> %(q)s FROM big_vectors ORDER BY v <-> %(q)s LIMIT 10"
AMONG = "SELECT id, v <-> %(q)s FROM big_vectors WHERE id = ANY (%(ids)s)"


def test_writers_and_readers(shop: Path, big: str) -> None:
    """Every row of an answer is visible with exactly that distance; every row changed lately is judged exactly."""
    stop, faults = threading.Event(), []  # type: tuple[threading.Event, list[object]]
    with pythiadb.connect(shop, autocommit=True) as db:
        row = db.execute("SELECT id FROM pythia.vector_index WHERE name = 'big_v'").fetchone()
    assert row is not None
    # What the newest version that this snapshot sees does not hold; an older one, should the engine use it, holds even less.
    changed_rows = (
        f"SELECT key FROM vecsys.journal_{row[0]} WHERE NOT pg_visible_in_snapshot(xid, (SELECT snapshot "
        f"FROM pythia.vector_index_version WHERE index_id = {row[0]} ORDER BY version DESC LIMIT 1))"
    )

    def write(seed: int) -> None:
        chance, generator = random.Random(seed), np.random.default_rng(seed)
        with pythiadb.connect(shop, autocommit=True) as db:
            while not stop.is_set():
                ids = [chance.randrange(8000) for _ in range(chance.choice([1, 1, 5]))]
                try:
                    with db.transaction():
                        for id in sorted(ids):
                            vector = generator.normal(size=16).astype(np.float32)
                            action = chance.random()
                            if action < 0.2:
                                db.execute("DELETE FROM big_vectors WHERE id = %s", (id,))
                            else:
                                db.execute(
                                    "INSERT INTO big_vectors VALUES (%s, 1, %s) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v, stamp = big_vectors.stamp + 1",
                                    (id, vector),
                                )
                        if chance.random() < 0.1:
                            raise psycopg.Rollback
                except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                    continue

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        hits = 0
        with pythiadb.connect(shop, autocommit=True) as db:
            for _ in range(ROUNDS):
                q = generator.normal(size=16).astype(np.float32)
                with db.transaction():
                    db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    found = db.execute(APPROX, {"q": q}).fetchall()
                    truth = db.execute(PLAIN, {"q": q}).fetchall()
                    changed = {key for (key,) in db.execute(changed_rows.encode()).fetchall()}
                    keys = [key for key, _ in found]
                    visible = db.execute(AMONG, {"q": q, "ids": keys}).fetchall()
                if len(found) != 10 or sorted(found) != sorted(visible):
                    faults.append(("not visible as it is", found))
                if ({key for key, _ in truth} & changed) - set(keys):
                    faults.append(("a changed row is missing", found, truth))
                hits += len(set(keys) & {key for key, _ in truth})
        if hits < ROUNDS * 10 * 0.9:
            faults.append(("recall", hits / ROUNDS / 10))

    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    readers = [threading.Thread(target=read, args=(n,)) for n in range(10, 13)]
    for thread in writers + readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    for thread in writers:
        thread.join()
    assert not faults


def test_without_an_engine_the_search_is_exact_and_says_so(shop: Path, big: str) -> None:
    """The answer is right, a warning tells, and the engine comes back for the next statement."""
    query = np.ones(16, np.float32)
    warnings: list[str] = []
    with pythiadb.connect(shop, autocommit=True) as db:
        truth = db.execute(PLAIN, {"q": query}).fetchall()
        db.add_notice_handler(lambda diagnostic: warnings.append(str(diagnostic.message_primary)))
        cluster.stop_engine(Layout(shop))
        assert db.execute(APPROX, {"q": query}).fetchall() == truth
        assert warnings == ["the engine is not available, the search is exact"]
        found = db.execute("EXPLAIN " + APPROX, {"q": query}).fetchall()
        assert warnings == warnings[:1]
        assert found[0][0].startswith("VECTOR INDEX IVF SCAN on")


def test_deleted_cache_costs_a_rebuild_only(shop: Path, big: str) -> None:
    """Without its files an index answers exactly; it is built again by itself."""
    query = np.ones(16, np.float32)
    with pythiadb.connect(shop, autocommit=True) as db:
        truth = db.execute(PLAIN, {"q": query}).fetchall()
        cluster.stop_engine(Layout(shop))
        shutil.rmtree(Layout(shop).engine / "indexes")
        for _ in range(3):
            assert db.execute(APPROX, {"q": query}).fetchall() == truth
        wait_until(lambda: " on " in db.execute("EXPLAIN " + APPROX, {"q": query}).fetchall()[0][0]
                   and "EXACT" not in db.execute("EXPLAIN " + APPROX, {"q": query}).fetchall()[0][0])  # fmt: skip


def test_damaged_segments_are_noticed_and_built_again(shop: Path, big: str) -> None:
    """One flipped byte in each file of the index: never a wrong answer, and it mends itself."""
    query = np.ones(16, np.float32)
    with pythiadb.connect(shop, autocommit=True) as db:
        truth = db.execute(PLAIN, {"q": query}).fetchall()
        cluster.stop_engine(Layout(shop))
        for path in (Layout(shop).engine / "indexes" / "segments").glob("*/*"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
        assert db.execute(APPROX, {"q": query}).fetchall() == truth
        wait_until(lambda: "EXACT" not in db.execute("EXPLAIN " + APPROX, {"q": query}).fetchall()[0][0])


def test_a_dropped_database_keeps_no_other_waiting(shop: Path, db: pythiadb.Connection) -> None:
    """The keeper bears that a database which it looked after is gone."""
    db.execute("CREATE DATABASE passing")
    conninfo = Server.at(shop).conninfo("passing")
    install.ensure(conninfo)
    with pythiadb.connect(conninfo, autocommit=True) as other:
        make_table(other, "sessions")
    db.execute("DROP DATABASE passing WITH (FORCE)")
    make_table(db, "sessions_after")
    check(db, "sessions_after", [1.0, 2.0, 3.0, 4.0], 5)
