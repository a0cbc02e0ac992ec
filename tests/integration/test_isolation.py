"""A model that loops, crashes or eats memory costs its caller an error, and nobody else anything; every limit has its error."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from background import UntilOver, in_background, wait_until

import pythiadb
from pythiadb.errors import EngineFault
from pythiadb.postgres import cluster
from pythiadb.postgres.layout import Layout
from tests.integration import hostile_models as hostile
from tests.integration.databases import own_database
from tests.unit.models.small_models import string_graph

RUN_SECONDS = 4
QUARANTINE_SECONDS = 6
LIMITS = {
    "max_run_seconds": RUN_SECONDS,
    "worker_memory_bytes": 256 << 20,
    "quarantine_seconds": QUARANTINE_SECONDS,
    "probe_seconds": 4,
    "max_input_bytes": 2_000,
    "max_message_bytes": 4 << 20,
    "max_queued_rows": 3_000,
    "max_model_bytes": 64 << 20,
    "threads": 1,
}
SCORE = "SELECT prediction(%s::regclass, jsonb_build_object('N', %s::float8))"


@pytest.fixture(scope="module")
def fortress() -> Iterator[Path]:
    """The directory of a database whose engine has narrow limits, with the model `calm`."""
    with own_database(**LIMITS) as (shop, db):
        load(db, "calm", hostile.calm())
        assert score(db, "calm", 1) == 1
        yield shop


@pytest.fixture
def db(fortress: Path) -> Iterator[pythiadb.Connection]:
    """A session. The server must be the same process afterwards, and must not have recovered from a crash."""
    with pythiadb.connect(fortress, autocommit=True) as connection:
        connection.execute("SET search_path = public, pythia; SET statement_timeout = '20s'")
        started = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
        log = (fortress / "log" / "postgresql.log").read_text()
        yield connection
        assert connection.execute("SELECT pg_postmaster_start_time()").fetchone() == started
        assert "server process" not in (fortress / "log" / "postgresql.log").read_text().removeprefix(log)


class Bystanders(UntilOver):
    """Two sessions that call the model `calm` all the time."""

    def __init__(self, shop: Path) -> None:
        self._shop = shop
        super().__init__(self._call, self._call)
        self.latencies: list[float] = []
        self.errors: list[Exception] = []

    def _call(self) -> None:
        with pythiadb.connect(self._shop, autocommit=True) as db:
            db.execute("SET search_path = public, pythia; SET statement_timeout = '20s'")
            while not self.over.is_set():
                started = time.monotonic()
                try:
                    assert score(db, "calm", 3) == 3
                except Exception as error:
                    self.errors.append(error)
                    return
                self.latencies.append(time.monotonic() - started)

    def check(self, longest: float) -> None:
        """Assert that all their calls went well, none in more than `longest` seconds; wait until there were many."""
        wait_until(lambda: bool(self.errors) or len(self.latencies) > 50)
        assert self.errors == []
        assert max(self.latencies) <= longest


@pytest.fixture
def bystanders(fortress: Path, db: pythiadb.Connection) -> Iterator[Bystanders]:
    with Bystanders(fortress) as others:
        yield others


def load(db: pythiadb.Connection, name: str, graph: bytes) -> None:
    db.execute("CALL dbms_vector.load_onnx_model(%s, %s::bytea, %s::jsonb)", (name, graph, hostile.METADATA))


def score(db: psycopg.Connection[Any], name: str, n: float) -> float:
    row = db.execute(SCORE, (name, n)).fetchone()
    assert row is not None
    return float(row[0])


def status(db: pythiadb.Connection) -> dict[str, Any]:
    row = db.execute("SELECT pythia.engine_status()").fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


def worker_pid(db: pythiadb.Connection) -> int:
    return int(status(db)["workers"][0]["pid"])


def resident(process: int) -> int:
    """Return the bytes of memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def runs(db: pythiadb.Connection, backend: int) -> bool:
    """Tell whether the engine works for a backend."""
    return any(call["backend"] == backend for worker in status(db)["workers"] for call in worker["running"])


# Time ---------------------------------------------------------------------------------------------------------------------


def test_loop_is_stopped_and_the_worker_stays(db: pythiadb.Connection, bystanders: Bystanders) -> None:
    """A Loop of 10^9 turns ends at its next operator; the model goes on answering what it can."""
    load(db, "looping", hostile.looping("looping"))
    worker = worker_pid(db)
    assert score(db, "looping", 1000) == 1000
    started = time.monotonic()
    with pytest.raises(
        psycopg.errors.ProgramLimitExceeded, match="the model ran for too long and was stopped"
    ) as caught:
        score(db, "looping", 1e9)
    assert RUN_SECONDS <= time.monotonic() - started < RUN_SECONDS + 1.5
    assert caught.value.diag.message_detail == f"A run may take max_run_seconds ({RUN_SECONDS} s)."
    assert (
        caught.value.diag.message_hint == "Raise the engine setting max_run_seconds, or score smaller inputs."
    )
    assert score(db, "looping", 1000) == 1000
    bystanders.check(longest=1.0)
    assert worker_pid(db) == worker


def test_operator_that_cannot_be_stopped_ends_the_worker(
    db: pythiadb.Connection, bystanders: Bystanders
) -> None:
    """The package is in quarantine afterwards; the sessions of other models do not see an error."""
    load(db, "stuck", hostile.stuck("stuck"))
    assert score(db, "stuck", 100) == 100
    worker = worker_pid(db)
    with pytest.raises(psycopg.OperationalError, match='model "[0-9a-f]{12}" crashed the engine') as caught:
        score(db, "stuck", 300_000)
    assert "quarantine_seconds" in str(caught.value.diag.message_detail)
    assert worker_pid(db) != worker
    bystanders.check(longest=3.0)


def test_endless_loop_is_refused_at_loading(db: pythiadb.Connection, bystanders: Bystanders) -> None:
    """It ends in its throw-away process; nothing is left in the database."""
    worker = worker_pid(db)
    with pytest.raises(psycopg.DataError, match="the check of the model took too long") as caught:
        load(db, "endless", hostile.endless("endless"))
    assert caught.value.diag.message_detail == "It may take probe_seconds (4 s)."
    assert caught.value.diag.message_hint == "Raise the engine setting probe_seconds."
    assert db.execute("SELECT to_regclass('endless')").fetchone() == (None,)
    bystanders.check(longest=1.0)
    assert worker_pid(db) == worker


@pytest.mark.parametrize("how", ["pg_cancel_backend", "statement_timeout"])
def test_cancelled_run_is_stopped_in_the_engine_too(
    db: pythiadb.Connection, fortress: Path, how: str
) -> None:
    """The backend comes back at once, the engine's thread soon after, long before max_run_seconds."""
    load(db, f"cancelled_{how}", hostile.looping(how))
    backend = db.info.backend_pid
    score(db, f"cancelled_{how}", 1)
    if how == "statement_timeout":
        db.execute("SET statement_timeout = 1500")
    started = time.monotonic()
    thread, outcome = in_background(lambda: score(db, f"cancelled_{how}", 1e9))
    with pythiadb.connect(fortress, autocommit=True) as other:
        wait_until(lambda: runs(other, backend))
        if how == "pg_cancel_backend":
            other.execute("SELECT pg_cancel_backend(%s)", (backend,))
        thread.join()
        assert isinstance(outcome[0], psycopg.errors.QueryCanceled)
        wait_until(lambda: not runs(other, backend))
        assert time.monotonic() - started < RUN_SECONDS - 0.3
    db.execute("RESET statement_timeout")
    assert score(db, f"cancelled_{how}", 5) == 5


# Memory -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "amount"), [("hungry", 4e9), ("hungry", 1e15), ("growing", 1e5)])
def test_memory_is_bounded(db: pythiadb.Connection, bystanders: Bystanders, kind: str, amount: float) -> None:
    """In one piece or in many: the caller is told, the worker lives on and gives the memory back."""
    name = f"{kind}_{amount:.0f}"
    load(db, name, getattr(hostile, kind)(name))
    worker = worker_pid(db)
    assert score(db, name, 10) == 10
    before = resident(worker)
    with pytest.raises(psycopg.errors.OutOfMemory, match="out of memory") as caught:
        score(db, name, amount)
    assert "worker_memory_bytes" in str(caught.value.diag.message_detail)
    assert "worker_memory_bytes" in str(caught.value.diag.message_hint)
    assert score(db, name, 20) == 20
    bystanders.check(longest=1.0)
    assert worker_pid(db) == worker
    assert resident(worker) - before < LIMITS["worker_memory_bytes"] / 2


# Crashes ------------------------------------------------------------------------------------------------------------------


def test_crash_is_blamed_on_the_model(db: pythiadb.Connection, bystanders: Bystanders) -> None:
    """SIGFPE in the worker: the caller gets a named error, all others their answers; the model waits in quarantine."""
    load(db, "crashing", hostile.crashing("crashing"))
    package = str(
        db.execute("SELECT package FROM pythia.model WHERE relation = 'crashing'::regclass").fetchone()[0]
    )  # type: ignore[index]
    assert score(db, "crashing", 5) == 5
    worker = worker_pid(db)
    with pytest.raises(psycopg.OperationalError) as caught:
        score(db, "crashing", 6)
    assert caught.value.sqlstate == EngineFault.sqlstate
    assert str(caught.value.diag.message_primary) == f'model "{package[:12]}" crashed the engine'
    assert "quarantine_seconds" in str(caught.value.diag.message_detail)
    assert f"package LIKE '{package[:12]}%'" in str(caught.value.diag.message_hint)
    assert worker_pid(db) != worker
    with pytest.raises(psycopg.OperationalError, match="crashed the engine"):
        score(db, "crashing", 5)  # what would be harmless is refused too
    bystanders.check(longest=3.0)
    time.sleep(QUARANTINE_SECONDS)
    assert score(db, "crashing", 5) == 5


def test_crash_beside_another_run_hits_the_guilty_only(
    db: pythiadb.Connection, fortress: Path, bystanders: Bystanders
) -> None:
    """Two models run when the worker dies: each is tried in a throw-away process, one survives and answers."""
    load(db, "beside", hostile.crashing("beside"))
    load(db, "innocent", hostile.looping("innocent"))
    score(db, "beside", 5)
    with pythiadb.connect(fortress, autocommit=True) as other:
        other.execute("SET search_path = public, pythia; SET statement_timeout = '20s'")
        score(other, "innocent", 1)
        thread, outcome = in_background(lambda: score(other, "innocent", 2e5))
        wait_until(lambda: runs(db, other.info.backend_pid))
        with pytest.raises(psycopg.OperationalError, match="crashed the engine"):
            score(db, "beside", 6)
        thread.join()
        assert outcome == [2e5]
        assert score(other, "innocent", 3) == 3
    bystanders.check(longest=3.0)


def test_restart_ends_the_quarantine(db: pythiadb.Connection, fortress: Path) -> None:
    """What the user may do instead of waiting, when the reason is gone."""
    load(db, "restarted", hostile.crashing("restarted"))
    with pytest.raises(psycopg.OperationalError, match="crashed the engine"):
        score(db, "restarted", 6)
    cluster.stop_engine(Layout(fortress))
    assert score(db, "restarted", 5) == 5


def test_model_that_crashes_its_probe_is_refused(db: pythiadb.Connection, bystanders: Bystanders) -> None:
    worker = worker_pid(db)
    with pytest.raises(psycopg.DataError, match="the check of the model crashed"):
        load(db, "deadly", hostile.deadly("deadly"))
    assert db.execute("SELECT to_regclass('deadly')").fetchone() == (None,)
    bystanders.check(longest=1.0)
    assert worker_pid(db) == worker


def test_kill_in_the_middle_of_a_run_blames_nobody(db: pythiadb.Connection, bystanders: Bystanders) -> None:
    """kill -9 by a person: the call is run again, and its model is not in quarantine."""
    load(db, "killed", hostile.looping("killed"))
    backend = db.info.backend_pid
    worker = worker_pid(db)
    thread, outcome = in_background(lambda: score(db, "killed", 1e5))  # a third of a second
    time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    thread.join()
    assert outcome == [1e5]
    assert db.info.backend_pid == backend
    assert score(db, "killed", 7) == 7
    bystanders.check(longest=3.0)


# Bad files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (hostile.escaping("a", "../../../etc/passwd"), "external data"),
        (hostile.escaping("b", "/etc/passwd"), "external data"),
        (hostile.escaping("c", "absent.bin"), "external data"),
        (hostile.custom("d"), 'custom operator "Backdoor" of domain "evil.example"'),
        (hostile.huge("e"), "tensor"),
    ],
    ids=["parent", "absolute", "absent", "custom", "huge"],
)
def test_bad_file_is_refused(
    db: pythiadb.Connection, bystanders: Bystanders, graph: bytes, message: str
) -> None:
    worker = worker_pid(db)
    with pytest.raises(psycopg.DataError, match=message):
        load(db, "bad", graph)
    assert db.execute("SELECT to_regclass('bad')").fetchone() == (None,)
    bystanders.check(longest=1.0)
    assert worker_pid(db) == worker


# Limits -------------------------------------------------------------------------------------------------------------------


def test_too_large_model_is_refused(db: pythiadb.Connection) -> None:
    graph = hostile.calm("large") + b"\x2a" + b"\xff\xff\xff\x7f"
    size = LIMITS["max_model_bytes"] + 1
    with pytest.raises(psycopg.DataError, match=f"has .* bytes, the engine's limit is {size - 1}") as caught:
        load(db, "large", graph + b"\0" * (size - len(graph)))
    assert caught.value.diag.message_hint == "Raise the engine setting max_model_bytes."


def test_too_long_input_is_refused(db: pythiadb.Connection) -> None:
    limit = LIMITS["max_input_bytes"]
    metadata = '{"function":"embedding","input":{"input":["DATA"]}}'
    db.execute(
        "CALL dbms_vector.load_onnx_model('texts', %s::bytea, %s::jsonb)",
        (string_graph().SerializeToString(), metadata),
    )
    assert db.execute(
        "SELECT vector_dims(vector_embedding('texts', repeat('x', %s)))", (limit,)
    ).fetchone() == (3,)
    with pytest.raises(
        psycopg.errors.ProgramLimitExceeded, match=f"exceeds the limit of {limit} bytes"
    ) as caught:
        db.execute("SELECT vector_embedding('texts', repeat('x', %s))", (limit + 1,))
    assert caught.value.diag.message_hint == "Split the text into chunks and embed each of them."


def test_too_many_waiting_rows_are_refused(db: pythiadb.Connection, bystanders: Bystanders) -> None:
    count = LIMITS["max_queued_rows"] + 1
    with pytest.raises(
        psycopg.errors.ProgramLimitExceeded, match="too many rows wait for the engine"
    ) as caught:
        db.execute(
            "SELECT count(*) FROM pythia.scoring_batch('calm'::regclass, 'prediction', '[]', "
            "ARRAY(SELECT jsonb_build_object('N', i)::text FROM generate_series(1, %s) i))",
            (count,),
        )
    assert f"max_queued_rows ({count - 1})" in str(caught.value.diag.message_detail)
    assert caught.value.diag.message_hint == "Try again later, or send smaller batches."
    bystanders.check(longest=1.0)


def test_too_long_a_command_is_refused(db: pythiadb.Connection, bystanders: Bystanders) -> None:
    """All of it is read and nothing kept; the session goes on."""
    limit = LIMITS["max_message_bytes"]
    with pytest.raises(
        psycopg.errors.ProgramLimitExceeded, match=f"a command of .* bytes exceeds the limit of {limit} bytes"
    ) as caught:
        db.execute(
            "SELECT count(*) FROM pythia.scoring_batch('calm'::regclass, 'prediction', '[]', "
            "array_fill(jsonb_build_object('N', 1, 'other', repeat('x', 4000))::text, ARRAY[1100]))"
        )
    assert "max_message_bytes" in str(caught.value.diag.message_hint)
    assert score(db, "calm", 2) == 2
    bystanders.check(longest=1.0)


def test_run_uses_the_threads_that_it_may(db: pythiadb.Connection) -> None:
    """One thread a run: the processor time of the worker does not pass the clock's."""
    load(db, "busy", hostile.stuck("busy"))
    score(db, "busy", 10)
    worker = worker_pid(db)

    def processor_seconds() -> float:
        fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, started = processor_seconds(), time.monotonic()
    score(db, "busy", 15_000)
    assert processor_seconds() - before <= (time.monotonic() - started) * 1.2
