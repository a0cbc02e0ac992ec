"""The engine under faults: killed, cancelled, overloaded, spoken to by strangers. The database session always goes on."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from background import in_background, wait_until

import pythiadb
from pythiadb.engine import protocol
from pythiadb.engine.limits import MOST_FILES
from pythiadb.postgres import cluster
from pythiadb.postgres.layout import Layout
from tests.integration.databases import own_database

LONG = "SELECT count(*) FROM vector_embedding_batch('minilm', ARRAY(SELECT repeat('text ' || i || ' ', 60) FROM generate_series(1, 400) i))"
EMBED = "SELECT vector_dims(vector_embedding('minilm', 'a'))"


def status(db: pythiadb.Connection) -> dict[str, Any]:
    row = db.execute("SELECT pythia.engine_status()").fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


def worker_pid(db: pythiadb.Connection) -> int:
    return int(status(db)["workers"][0]["pid"])


@pytest.fixture
def other(shop: Path) -> Iterator[pythiadb.Connection]:
    """A second session."""
    with pythiadb.connect(shop, autocommit=True) as connection:
        yield connection


def test_worker_killed_between_calls_is_not_noticed(db: pythiadb.Connection) -> None:
    """The backend reconnects once and retries; the supervisor starts a new worker."""
    db.execute(EMBED)
    before = worker_pid(db)
    os.kill(before, signal.SIGKILL)
    assert db.execute(EMBED).fetchone() == (384,)
    assert worker_pid(db) != before


def test_worker_killed_in_a_call_is_not_noticed(db: pythiadb.Connection, other: pythiadb.Connection) -> None:
    pid = worker_pid(db)
    thread, outcome = in_background(lambda: db.execute(LONG).fetchone())
    wait_until(lambda: any(w["running"] for w in status(other)["workers"]))
    os.kill(pid, signal.SIGKILL)
    thread.join()
    assert outcome == [(400,)]


def test_kills_in_a_row_are_not_noticed(db: pythiadb.Connection, shop: Path) -> None:
    """Sessions that connect while a worker is dying are served by its successor."""
    over = threading.Event()

    def embed_all_the_time() -> int:
        calls = 0
        with pythiadb.connect(shop, autocommit=True) as session:
            session.execute("SET search_path = public, pythia")
            while not over.is_set():
                assert session.execute(EMBED).fetchone() == (384,)
                calls += 1
        return calls

    sessions = [in_background(embed_all_the_time) for _ in range(4)]
    for _ in range(4):
        time.sleep(1.2)
        os.kill(worker_pid(db), signal.SIGKILL)
    over.set()
    for thread, _ in sessions:
        thread.join()
    assert all(isinstance(outcome[0], int) and outcome[0] > 10 for _, outcome in sessions), [
        o for _, o in sessions
    ]


def test_whole_engine_killed_is_started_again_by_the_session(db: pythiadb.Connection, shop: Path) -> None:
    """kill -9 of supervisor and worker: the next statement of a Python session brings them back."""
    worker = worker_pid(db)
    supervisor = cluster.engine_pid(Layout(shop))
    assert supervisor is not None
    for pid in (supervisor, worker):
        os.kill(pid, signal.SIGKILL)
    assert db.execute(EMBED).fetchone() == (384,)


def test_plain_client_gets_a_clear_error_without_engine(make_directory: Callable[[], Path]) -> None:
    """psql and the like cannot start the engine: they are told."""
    shop = make_directory() / "shop"
    with pythiadb.connect(shop, autocommit=True) as db:
        assert db.server is not None
        cluster.stop_engine(db.server.layout)
        with psycopg.connect(db.server.conninfo()) as plain:
            with pytest.raises(psycopg.OperationalError, match="the engine is not available") as caught:
                plain.execute("SELECT pythia.engine_ping()")
            assert caught.value.sqlstate == "58X01"
            assert caught.value.diag.message_hint == "Run: pythia engine status"
            plain.rollback()
            assert plain.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("how", ["statement_timeout", "cancel"])
def test_cancelled_call_ends_at_once_and_leaves_the_session_usable(
    db: pythiadb.Connection, other: pythiadb.Connection, how: str
) -> None:
    """The backend does not wait for the engine, and the engine stops working for it."""
    db.execute(EMBED)
    if how == "statement_timeout":
        db.execute("SET statement_timeout = 400")
    thread, outcome = in_background(lambda: db.execute(LONG))
    wait_until(lambda: any(w["running"] for w in status(other)["workers"]))
    if how == "cancel":
        db.cancel_safe()
    thread.join()
    assert isinstance(outcome[0], psycopg.errors.QueryCanceled)
    wait_until(lambda: not any(w["running"] for w in status(other)["workers"]), 10)
    db.execute("RESET statement_timeout")
    assert db.execute(EMBED).fetchone() == (384,)


def test_engine_opens_as_many_files_as_the_system_lets_it() -> None:
    """Each file of an index takes a descriptor; what a shell hands on is often 1,024."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(least, 1024), most))
    try:
        with own_database() as (_, db):
            limits = Path(f"/proc/{worker_pid(db)}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert int(line.split()[3]) == min(most, MOST_FILES)


def test_restart_in_order(db: pythiadb.Connection, shop: Path) -> None:
    """SIGTERM: running calls end well, then a new engine takes over."""
    layout = Layout(shop)
    before = cluster.engine_pid(layout)
    thread, outcome = in_background(lambda: db.execute(EMBED).fetchone())
    thread.join()
    cluster.stop_engine(layout)
    assert cluster.engine_pid(layout) is None
    assert outcome == [(384,)]
    assert db.execute(EMBED).fetchone() == (384,)
    assert cluster.engine_pid(layout) not in (None, before)


def test_deleted_cache_is_rebuilt_from_the_database(db: pythiadb.Connection, shop: Path) -> None:
    layout = Layout(shop)
    cluster.stop_engine(layout)
    shutil.rmtree(layout.engine / "cache")
    assert db.execute(EMBED).fetchone() == (384,)
    assert list((layout.engine / "cache" / "packages").iterdir())


def test_damaged_cache_is_noticed_and_rebuilt(db: pythiadb.Connection, shop: Path) -> None:
    """One flipped byte in a cached model file: the checksum fails, the file comes from the database again."""
    layout = Layout(shop)
    row = db.execute("SELECT vector_embedding('minilm', 'a')").fetchone()
    assert row is not None
    cluster.stop_engine(layout)
    files = (layout.engine / "cache" / "files").iterdir()
    for path in [p for p in files if p.stat().st_size]:  # other tests leave an empty one
        with path.open("r+b") as stream:
            stream.seek(path.stat().st_size // 2)
            byte = stream.read(1)
            stream.seek(-1, 1)
            stream.write(bytes([byte[0] ^ 0xFF]))
    again = db.execute("SELECT vector_embedding('minilm', 'a')").fetchone()
    assert again is not None
    assert (row[0] == again[0]).all()


def test_log_has_one_event_a_call(db: pythiadb.Connection, shop: Path) -> None:
    db.execute(EMBED)
    backend = db.info.backend_pid

    def events() -> list[dict[str, Any]]:
        lines = (shop / "log" / "engine.jsonl").read_bytes().splitlines()
        return [
            e for e in map(orjson.loads, lines) if e.get("backend") == backend and e.get("verb") == "embed"
        ]

    wait_until(lambda: len(events()) == 1)
    event = events()[0]
    assert event["action"] == "call"
    assert event["db"] == "postgres"
    assert event["sqlstate"] is None
    assert event["ms"] > 0


def test_a_batch_is_one_call(shop: Path) -> None:
    """Also in a new session, whose first statements are planned with the values of their parameters."""
    with pythiadb.connect(shop, autocommit=True) as db:
        for _ in range(3):
            db.execute("SELECT count(*) FROM pythia.vector_embedding_batch('minilm', ARRAY['a', 'b'])")
        backend = db.info.backend_pid

        def calls() -> int:
            lines = map(orjson.loads, (shop / "log" / "engine.jsonl").read_bytes().splitlines())
            return sum(e.get("backend") == backend and e.get("verb") == "embed" for e in lines)

        wait_until(lambda: calls() >= 3)
        db.execute(EMBED)  # its line comes after all others
        wait_until(lambda: calls() >= 4)
        assert calls() == 4


# Strangers ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(shop: Path) -> Iterator[socket.socket]:
    """A raw connection to the engine's socket (made as root or as the owner, whom the socket lets in)."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(Layout(shop).engine_run / ".s.PGSQL.5432"))
    yield connection
    connection.close()


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


STARTUP = b"\0\0\0\x22\0\3\0\0user\0x\0database\0postgres\0\0"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x08\0\2\0\0",  # protocol 2
        b"\xff\xff\xff\xff\0\3\0\0",
        STARTUP + b"Q\xff\xff\xff\xff",
        STARTUP + protocol.message(b"P", b"\0SELECT 1\0\0\0"),
    ],
)
def test_protocol_violations_end_the_connection_only(
    stranger: socket.socket, db: pythiadb.Connection, sent: bytes
) -> None:
    stranger.sendall(sent)
    assert b"C08P01\0" in read_all(stranger)
    assert db.execute(EMBED).fetchone() == (384,)


@pytest.mark.parametrize("text", [b"SELECT 1\0", b"\xff\xfe\0", b"a b c d\0", b"0" * 64 + b" 1 ping \0"])
def test_unsigned_commands_are_refused(stranger: socket.socket, text: bytes) -> None:
    stranger.sendall(STARTUP + protocol.message(b"Q", text))
    data = b""
    while data.count(protocol.READY) < 2:  # one after the start-up, one after the answer
        data += stranger.recv(65536)
    assert b"C28000\0" in data


def test_a_session_cannot_use_the_open_connection_for_itself(db: pythiadb.Connection) -> None:
    """Even the superuser's own text through dblink is not a command without a signature."""
    db.execute(EMBED)
    with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification):
        db.execute("SELECT * FROM pythia.dblink('pythia', 'embed') AS t(line text)")
    assert db.execute(EMBED).fetchone() == (384,)
