"""The journal of a vector index under prepared transactions and logical replication, which need a server of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pythiadb
from pythiadb.postgres import cluster, install
from tests.integration.vector_tables import JOURNALED, clear, define, fingerprint, journal, one, rows


@pytest.fixture
def own_server(make_directory: Callable[[], Path]) -> Iterator[pythiadb.Connection]:
    """A database on a server with prepared transactions and logical decoding."""
    folder = make_directory() / "shop"
    with pythiadb.connect(folder, autocommit=True) as db:
        db.execute("ALTER SYSTEM SET max_prepared_transactions = 4")
        db.execute("ALTER SYSTEM SET wal_level = logical")
    cluster.stop(folder)
    with pythiadb.connect(folder, autocommit=True) as db:
        yield db


def test_prepared_transactions_and_logical_replication(own_server: pythiadb.Connection) -> None:
    db = own_server
    assert db.server is not None
    db.execute(JOURNALED.encode())
    index_id = define(db, "docs_v", "docs")
    check_prepared_transactions(db, index_id)
    db.execute("CREATE DATABASE copy")
    source, target = db.server.conninfo(), db.server.conninfo("copy")
    install.ensure(target)
    with psycopg.connect(target, autocommit=True) as copy:
        copy.execute("CREATE TABLE docs (id bigint PRIMARY KEY, v vector(2), kind text, n int)")
        index_id = define(copy, "docs_v", "docs")
        db.execute("CREATE PUBLICATION p FOR TABLE docs")
        db.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        copy.execute(
            f"CREATE SUBSCRIPTION s CONNECTION '{source}' PUBLICATION p WITH (create_slot = false, slot_name = 's')".encode()
        )
        check_replication(db, copy, index_id)
        copy.execute("ALTER SUBSCRIPTION s DISABLE")
        copy.execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
        copy.execute("DROP SUBSCRIPTION s")
    db.execute("SELECT pg_drop_replication_slot('s')")
    db.execute("DROP DATABASE copy WITH (FORCE)")


def check_prepared_transactions(db: psycopg.Connection[Any], index_id: int) -> None:
    """Its keys appear with COMMIT PREPARED, and a snapshot taken in between does not contain them."""
    db.execute("BEGIN")
    db.execute("UPDATE docs SET v = '[4,4]' WHERE id = 1")
    db.execute("PREPARE TRANSACTION 'one'")
    between = one(db, "SELECT pg_current_snapshot()::text")
    assert journal(db, index_id) == []
    db.execute("COMMIT PREPARED 'one'")
    assert journal(db, index_id) == ["1"]
    question = f"SELECT pg_visible_in_snapshot(xid, %s::pg_snapshot) FROM vecsys.journal_{index_id}"
    assert rows(db, question, between) == [(False,)]


def check_replication(db: psycopg.Connection[Any], copy: psycopg.Connection[Any], index_id: int) -> None:
    """Rows of the first copy, and every kind of change after it."""
    wait_for(lambda: one(copy, "SELECT count(*) FROM docs") == 4)
    assert journal(copy, index_id) == ["1", "2", "3"]
    clear(copy, index_id)
    db.execute("INSERT INTO docs VALUES (10, '[1,1]'), (11, NULL)")
    db.execute("UPDATE docs SET v = '[1,1]' WHERE id = 2")
    db.execute("UPDATE docs SET n = 8 WHERE id = 3")
    db.execute("DELETE FROM docs WHERE id = 1")
    db.execute("UPDATE docs SET n = 9 WHERE id = 11")
    wait_for(lambda: one(copy, "SELECT count(*) FROM docs WHERE n = 9") == 1)
    assert journal(copy, index_id) == ["1", "2", "10"]
    before = fingerprint(copy, index_id)
    db.execute("TRUNCATE docs")
    wait_for(lambda: one(copy, "SELECT count(*) FROM docs") == 0)
    assert fingerprint(copy, index_id) not in (before, None)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the change does not arrive"
        time.sleep(0.05)
