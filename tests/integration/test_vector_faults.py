"""Faults around vector indexes: killed processes, a full disk, damaged files, a clock that jumps. Answers stay exact, it mends itself."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from background import in_background, wait_until

import pythiadb
from pythiadb.postgres import cluster
from pythiadb.postgres.layout import Layout
from pythiadb.postgres.server import Server
from tests.integration.databases import own_database
from tests.integration.faults import (
    Load,
    change_rows,
    check_answers,
    create_index,
    engine_processes,
    is_used,
    kill,
    kill_server,
    make_items,
    send,
    state,
    wait_until_well,
)
from tests.integration.vector_tables import one

SETTINGS = {"index_poll_ms": 50, "index_measure_seconds": 1, "workers": 1, "threads": 1}
EVERYBODY = ("supervisor", "template", "worker", "keeper")


@pytest.fixture(scope="module")
def ruin() -> Iterator[Path]:
    """The directory of a database to be harmed."""
    with own_database(**SETTINGS) as (shop, db):
        make_items(db)
        db.close()
        yield shop


@pytest.fixture
def chance() -> random.Random:
    return random.Random(int.from_bytes(os.urandom(4)))


@pytest.fixture
def db(ruin: Path) -> Iterator[pythiadb.Connection]:
    """A session; the index is well before. Afterwards the server is the same process, unless the session was lost with it."""
    with pythiadb.connect(ruin, autocommit=True) as connection:
        wait_until_well(connection)
        started = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
        yield connection
        if not connection.broken:
            assert connection.execute("SELECT pg_postmaster_start_time()").fetchone() == started


# Killed processes ---------------------------------------------------------------------------------------------------------


def test_engine_killed_under_load(db: pythiadb.Connection, ruin: Path, chance: random.Random) -> None:
    """Refreshes, merges and rebuilds are cut off at any point; PostgreSQL goes on, and so does the index."""
    log = (ruin / "log" / "postgresql.log").read_text()
    with Load(ruin) as load:
        for victims in [
            ("keeper",),
            ("worker",),
            ("keeper", "worker"),
            ("template",),
            ("supervisor",),
            EVERYBODY,
        ]:
            rebuild, _ = in_background(lambda: _rebuild(ruin))
            time.sleep(chance.uniform(0, 0.8))
            kill(ruin, *victims)
            rebuild.join()
        load.wait(10)
    assert load.failed == []
    wait_until_well(db)
    check_answers(db, chance)
    assert "server process" not in (ruin / "log" / "postgresql.log").read_text().removeprefix(log)


def _rebuild(shop: Path) -> None:
    with contextlib.suppress(psycopg.OperationalError), pythiadb.connect(shop, autocommit=True) as db:
        db.execute("ALTER INDEX items_v REBUILD")


@pytest.mark.parametrize("victims", [("keeper",), ("worker",), EVERYBODY])
def test_engine_killed_while_an_index_is_created(
    db: pythiadb.Connection, ruin: Path, chance: random.Random, victims: tuple[str, ...]
) -> None:
    """The statement that waits for the build ends well, with one index."""
    db.execute("DROP INDEX items_v")
    with pythiadb.connect(ruin, autocommit=True) as other:
        thread, outcome = in_background(lambda: create_index(other))
        time.sleep(chance.uniform(0, 0.4))
        kill(ruin, *victims)
        thread.join()
    assert outcome == [None]
    wait_until_well(db)
    check_answers(db, chance)


def test_killed_processes_leave_nothing(db: pythiadb.Connection, ruin: Path) -> None:
    """What they were writing goes when the engine starts; the index that is whole is not built again."""
    engine, built = Layout(ruin).engine, built_seconds(db)
    kill(ruin, *EVERYBODY)
    cache, indexes = engine / "cache", engine / "indexes"
    left = [
        cache / "stage" / "tmpold", cache / "stage" / "99999999-12-abc", cache / "mapped" / ".draft.99999999-12-abc",
        indexes / "segments" / ".0123.part", indexes / "segments" / "0123", indexes / "versions" / ".4567.part",
    ]  # fmt: skip
    for folder in left:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"half")
        Server.at(ruin).account.own(*missing, folder / "data")
    check_answers(db, random.Random(2), times=1)  # which starts the engine
    wait_until(lambda: not any(folder.exists() for folder in left))
    wait_until_well(db)
    assert built_seconds(db) == built


def built_seconds(db: pythiadb.Connection) -> object:
    """How long the last build of the index took: another one takes another time."""
    return one(db, "SELECT facts -> 'built_seconds' FROM pythia.vector_index_version ORDER BY version DESC")


def test_server_killed_under_load(ruin: Path, chance: random.Random) -> None:
    """Commits that were not on disk yet are lost with their journal rows; no version knows more than the table."""
    for _ in range(2):
        with Load(ruin) as load:
            load.wait()
            rebuild, _ = in_background(lambda: _rebuild(ruin))
            time.sleep(chance.uniform(0, 0.5))
            kill_server(ruin)
            rebuild.join()
            load.wait()
        with pythiadb.connect(ruin, autocommit=True) as db:
            check_answers(db, chance)
            assert db.execute(
                "SELECT count(*) FROM pythia.vector_index_version "
                "WHERE pg_snapshot_xmax(snapshot) > pg_snapshot_xmax(pg_current_snapshot())"
            ).fetchone() == (0,)
            wait_until_well(db)
            check_answers(db, chance)


def test_killed_backend_makes_the_server_recover(ruin: Path, chance: random.Random) -> None:
    """kill -9 for one backend: PostgreSQL ends all sessions and recovers by itself; the keeper connects again."""
    with Load(ruin) as load:
        load.wait()
        with pythiadb.connect(ruin, autocommit=True) as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
        load.wait()
    with pythiadb.connect(ruin, autocommit=True) as db:
        wait_until_well(db)
        check_answers(db, chance)


def test_stopped_engine_holds_nobody_forever(
    db: pythiadb.Connection, ruin: Path, chance: random.Random
) -> None:
    """As on a machine that sleeps: a search can be cancelled, and all is well when time goes on."""
    processes = engine_processes(ruin)
    for process in processes.values():
        send(process, signal.SIGSTOP)
    try:
        change_rows(db, "id < 20")
        db.execute("SET statement_timeout = 700")
        with pytest.raises(psycopg.errors.QueryCanceled):
            check_answers(db, chance, times=1)
    finally:
        for process in processes.values():
            send(process, signal.SIGCONT)
    db.execute("RESET statement_timeout")
    check_answers(db, chance)
    wait_until_well(db)


# Locks --------------------------------------------------------------------------------------------------------------------


def test_locked_table_keeps_no_other_index_waiting(db: pythiadb.Connection, ruin: Path) -> None:
    db.execute("DROP TABLE IF EXISTS locked; CREATE TABLE locked (id int PRIMARY KEY, v vector(2))")
    db.execute("CREATE VECTOR INDEX locked_v ON locked (v)")
    keeper = engine_processes(ruin)["keeper"]
    with pythiadb.connect(ruin) as other:
        send(keeper, signal.SIGSTOP)  # until there is something to refresh behind the lock
        try:
            db.execute("INSERT INTO locked VALUES (1, '[1,1]')")
            other.execute("LOCK TABLE locked")
        finally:
            send(keeper, signal.SIGCONT)
        change_rows(db, "id < 50")
        wait_until_well(db)
        other.rollback()
    db.execute("DROP TABLE locked")


def test_tables_are_dropped_while_the_keeper_reads_them(
    db: pythiadb.Connection, chance: random.Random
) -> None:
    """It takes its locks in the order of who drops: nobody is the victim of a deadlock."""
    for _ in range(12):
        db.execute("CREATE TABLE passing (id int PRIMARY KEY, v vector(2))")
        db.execute("INSERT INTO passing SELECT n, ARRAY[n, 1]::vector FROM generate_series(1, 500) n")
        db.execute("CREATE VECTOR INDEX passing_v ON passing (v)")
        for _ in range(chance.randrange(3)):
            db.execute("UPDATE passing SET v = ARRAY[id, 2]::vector WHERE id % 2 = 0")
            time.sleep(chance.uniform(0, 0.1))
        db.execute(chance.choice(["DROP TABLE passing", "TRUNCATE passing; DROP TABLE passing"]))


# A full disk --------------------------------------------------------------------------------------------------------------


class Disk:
    """The disk of the engine's indexes, which can be full."""

    def __init__(self, shop: Path) -> None:
        self._shop = shop

    def fill(self, room: int) -> None:
        """Let no file of the keeper become larger than so many bytes."""
        self._limit(str(room))

    def free(self) -> None:
        self._limit("unlimited")

    def _limit(self, size: str) -> None:
        """As the keeper's own account: root may not, in a container."""
        keeper = engine_processes(self._shop)["keeper"].pid
        user, group, extra_groups = Server.at(self._shop).account.child_identity
        subprocess.run(
            ["prlimit", f"--pid={keeper}", f"--fsize={size}:unlimited"],
            check=True, user=user, group=group, extra_groups=extra_groups,
        )  # fmt: skip


@pytest.fixture
def disk(ruin: Path, db: pythiadb.Connection) -> Iterator[Disk]:
    made = Disk(ruin)
    yield made
    made.free()


def test_full_disk_stops_refreshing_only(db: pythiadb.Connection, disk: Disk, chance: random.Random) -> None:
    """Changed rows are judged one by one, the view says why, and when there is space again it goes on by itself."""
    disk.fill(2000)
    change_rows(db, "id % 5 = 0")
    wait_until(lambda: state(db)["error"] is not None)
    now = state(db)
    assert db.execute("SELECT count(*) FROM items WHERE id % 5 = 0").fetchone() == (now["pending_rows"],)
    assert now["status"] == "VALID"
    job, _, reason = now["error"].partition(": ")
    assert job in ("refresh", "merge")  # whichever has failed last
    assert reason == "the files of the index could not be written: File too large"
    assert is_used(db)
    check_answers(db, chance)
    disk.free()
    wait_until_well(db)


@pytest.mark.parametrize(("kind", "room"), [("PARTITIONS", 2000), ("GRAPH", 300_000)])
def test_full_disk_fails_who_creates_an_index(
    db: pythiadb.Connection, disk: Disk, kind: str, room: int
) -> None:
    """The vectors of a graph fit, its links do not."""
    db.execute("DROP TABLE IF EXISTS more; CREATE TABLE more (id int PRIMARY KEY, v vector(8))")
    db.execute(
        "INSERT INTO more SELECT n, ARRAY(SELECT sin(n * m) FROM generate_series(1, 8) m)::vector FROM generate_series(1, 6000) n"
    )
    disk.fill(room)
    organization = {"PARTITIONS": "NEIGHBOR PARTITIONS", "GRAPH": "INMEMORY NEIGHBOR GRAPH"}[kind]
    create = f"CREATE VECTOR INDEX more_v ON more (v) ORGANIZATION {organization} DISTANCE COSINE"
    with pytest.raises(
        psycopg.errors.ObjectNotInPrerequisiteState, match="could not create vector index"
    ) as caught:
        db.execute(create)
    assert "the files of the index could not be written: " in str(caught.value.diag.message_detail)
    assert "File too large" in str(caught.value.diag.message_detail)
    disk.free()
    db.execute(create)
    db.execute("DROP TABLE more")


def test_rebuild_that_found_no_space_is_tried_again(
    db: pythiadb.Connection, disk: Disk, chance: random.Random
) -> None:
    """Who waits is told; the old version answers; when there is space, the index that was asked for comes."""
    disk.fill(2000)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        db.execute("ALTER INDEX items_v REBUILD PARAMETERS (TYPE IVF, NEIGHBOR PARTITIONS 3)")
    assert "File too large" in str(caught.value.diag.message_detail)
    assert state(db)["status"] == "FAILED"
    assert is_used(db)
    check_answers(db, chance)
    disk.free()
    wait_until_well(db)


def test_really_full_file_system(ruin: Path, chance: random.Random) -> None:
    """A file system of a megabyte under the indexes: ENOSPC in whatever is written, until another file goes."""
    indexes = Layout(ruin).engine / "indexes"
    with pythiadb.connect(ruin, autocommit=True) as db:
        wait_until_well(db)
        if shutil.which("mount") is None:
            pytest.skip("there is no program that mounts")
        info = indexes.stat()
        cluster.stop_engine(Layout(ruin))
        options = f"size=1m,mode=700,uid={info.st_uid},gid={info.st_gid}"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(indexes)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode:
            pytest.skip(f"mounting is not allowed: {mounted.stderr.strip()}")
        try:
            wait_until_well_again(db, chance)
            with (
                (indexes / "filler").open("wb", buffering=0) as filler,
                pytest.raises(OSError, match="No space"),
            ):
                while True:
                    filler.write(bytes(4096))
            change_rows(db, "id % 3 = 0")
            wait_until(lambda: "No space left on device" in str(state(db)["error"]))
            check_answers(db, chance)
            (indexes / "filler").unlink()
            wait_until_well(db)
            check_answers(db, chance)
        finally:
            cluster.stop_engine(Layout(ruin))
            subprocess.run(["umount", "-l", str(indexes)], check=True)
        wait_until_well_again(db, chance)


def wait_until_well_again(db: pythiadb.Connection, chance: random.Random) -> None:
    """As wait_until_well, for an engine that was stopped: a search starts it."""
    check_answers(db, chance, times=1)
    wait_until_well(db)


# Damaged files ------------------------------------------------------------------------------------------------------------


def _files(shop: Path, kind: str) -> list[Path]:
    return [path for path in (Layout(shop).engine / "indexes" / kind).glob("*/*") if path.stat().st_size]


def _replace(path: Path, data: bytes) -> None:
    """Put another file in a file's place; who has it open keeps the old one."""
    info, new = path.stat(), path.with_name("new")
    new.write_bytes(data)
    os.chown(new, info.st_uid, info.st_gid)
    new.rename(path)


@pytest.mark.parametrize("kind", ["segments", "versions"])
@pytest.mark.parametrize("damage", ["other bytes", "half", "no file"])
def test_damage_found_by_a_new_worker(
    db: pythiadb.Connection, ruin: Path, chance: random.Random, kind: str, damage: str
) -> None:
    """The keeper, which has the index open since before, builds it anew when a worker finds what has happened to its files."""
    version = state(db)["version"]
    for path in _files(ruin, kind):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        match damage:
            case "other bytes":
                _replace(path, data)
            case "half":
                _replace(path, data[: len(data) // 2])
            case "no file":
                path.unlink()
    kill(ruin, "worker")
    check_answers(db, chance, times=5)
    wait_until_well(db)
    check_answers(db, chance, times=5)
    assert state(db)["version"] > version


def test_file_cut_off_under_those_who_map_it(
    db: pythiadb.Connection, ruin: Path, chance: random.Random
) -> None:
    """Whoever touches the lost pages is killed by the kernel; the engine comes back and finds the damage."""
    for path in _files(ruin, "segments"):
        os.truncate(path, 0)
    check_answers(db, chance, times=5)
    change_rows(db, "id < 50")
    wait_until_well(db)
    check_answers(db, chance, times=5)


def test_cache_deleted_under_a_running_engine(
    db: pythiadb.Connection, ruin: Path, chance: random.Random
) -> None:
    indexes = Layout(ruin).engine / "indexes"
    shutil.rmtree(indexes, ignore_errors=True)
    check_answers(db, chance, times=5)
    wait_until(lambda: any(indexes.glob("versions/*/*")))
    wait_until_well(db)
    check_answers(db, chance, times=5)
