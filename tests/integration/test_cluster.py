"""Embedded databases: shared between processes, stopped by the last one, never wedged by a killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from background import wait_until

import pythiadb
from pythiadb.errors import ClusterError
from pythiadb.postgres import cluster
from pythiadb.postgres.layout import SOCKET_PATH_BYTES, Layout
from pythiadb.postgres.server import Server, memory_settings

MakeDirectory = Callable[[], Path]


def run_python(code: str, *arguments: str, user: int | None = None) -> subprocess.Popen[str]:
    """Start another process that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.PIPE, text=True, user=user, cwd="/",
    )  # fmt: skip


HOLD = """
    import sys, pythiadb
    db = pythiadb.connect(sys.argv[1], autocommit=True)
    print(db.execute("SELECT pg_postmaster_start_time()::text").fetchone()[0], flush=True)
    sys.stdin.readline()
"""


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline().strip()
    assert line, process.stderr.read()
    return line


def end(process: subprocess.Popen[str]) -> None:
    assert process.communicate("\n", timeout=30)[1] == ""


def test_two_processes_starting_at_once_share_one_server(make_directory: MakeDirectory) -> None:
    """Both start in a new directory at the same time; the last one out stops server and engine."""
    shop = make_directory() / "shop"
    processes = [run_python(HOLD, str(shop)) for _ in range(2)]
    started = [first_line(p) for p in processes]
    assert started[0] == started[1]
    server = Server.at(shop)
    end(processes[0])
    assert server.pid() is not None
    end(processes[1])
    wait_until(lambda: server.pid() is None and cluster.engine_pid(server.layout) is None)


def test_killed_process_neither_corrupts_nor_wedges(make_directory: MakeDirectory) -> None:
    shop = make_directory() / "shop"
    holder = run_python(HOLD, str(shop))
    first_line(holder)
    holder.kill()
    holder.communicate()
    server = Server.at(shop)
    wait_until(lambda: server.pid() is None)
    with pythiadb.connect(shop) as db:
        assert db.execute("SELECT 1").fetchone() == (1,)


def test_keep_running_stays_until_stop(make_directory: MakeDirectory) -> None:
    shop = make_directory() / "shop"
    pythiadb.connect(shop, keep_running=True).close()
    time.sleep(4)  # longer than the guardian's patience
    assert Server.at(shop).pid() is not None
    assert cluster.stop(shop)
    assert Server.at(shop).pid() is None
    assert not cluster.stop(shop)


def test_server_killed_during_a_bulk_insert_keeps_all_or_nothing(
    shop: Path, make_directory: MakeDirectory, minilm_folder: Path
) -> None:
    """kill -9 of the postmaster and its children in the middle of INSERT … SELECT VECTOR_EMBEDDING: no row is left."""
    own = make_directory() / "shop"
    with pythiadb.connect(own, autocommit=True) as db:
        pythiadb.load_model(db, minilm_folder, "minilm")
        db.execute("CREATE TABLE t (id int, v vector(384))")
        db.execute("INSERT INTO t SELECT 0, VECTOR_EMBEDDING(minilm USING 'before' AS data)")
        insert = run_python(
            """
            import sys, pythiadb
            db = pythiadb.connect(sys.argv[1], autocommit=True)
            print("ready", flush=True)
            db.execute("INSERT INTO t SELECT i, VECTOR_EMBEDDING(minilm USING repeat('text ' || i, 20) AS data) FROM generate_series(1, 5000) i")
            """,
            str(own),
        )
        first_line(insert)
        time.sleep(1.5)
        server = Server.at(own)
        kill_server(server)
        insert.communicate(timeout=60)
        assert insert.returncode != 0
    with pythiadb.connect(own, autocommit=True) as db:
        assert db.execute("SELECT count(*), min(id) FROM t").fetchone() == (1, 0)
        assert db.execute("SELECT vector_dims(vector_embedding('minilm', 'after'))").fetchone() == (384,)


def kill_server(server: Server) -> None:
    import psutil

    pid = server.pid()
    assert pid is not None
    for process in [psutil.Process(pid), *psutil.Process(pid).children()]:
        process.kill()
    wait_until(lambda: server.pid() is None)


def test_killed_server_that_nobody_buries_is_started_again(make_directory: MakeDirectory) -> None:
    """As in a container whose first process does not: the number stands for ever, and PostgreSQL takes it for alive."""
    script = run_python(
        """
        import ctypes, sys, psutil, pythiadb
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans become children of this process, which does not wait for them
        with pythiadb.connect(sys.argv[1]) as db:
            pid = db.server.pid()
            for process in [psutil.Process(pid), *psutil.Process(pid).children()]:
                process.kill()
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                pass
            with pythiadb.connect(sys.argv[1]) as other:  # while this process still holds the database
                print(other.execute("SELECT 1").fetchone()[0], psutil.Process(pid).status(), flush=True)
        """,
        str(make_directory() / "shop"),
    )
    assert first_line(script) == "1 zombie"
    script.communicate(timeout=60)
    assert script.returncode == 0


def test_directory_of_another_major_version_is_refused(make_directory: MakeDirectory) -> None:
    shop = make_directory() / "shop"
    pythiadb.connect(shop).close()
    cluster.stop(shop)
    version = shop / "pgdata" / "PG_VERSION"
    real = version.read_text()
    version.write_text("9\n")
    with pytest.raises(ClusterError, match=r"belongs to PostgreSQL 9, the installed programs are 18"):
        pythiadb.connect(shop)
    version.write_text(real)


def test_interrupted_creation_is_made_anew(make_directory: MakeDirectory) -> None:
    """A data directory without PG_VERSION is what a killed initdb leaves."""
    shop = make_directory() / "shop"
    server = Server.at(shop)
    server.layout.create(server.account)
    (shop / "pgdata" / "postgresql.conf").write_text("half")
    with pythiadb.connect(shop) as db:
        assert db.execute("SHOW data_checksums").fetchone() == ("on",)


def test_path_that_is_a_file_is_refused(make_directory: MakeDirectory) -> None:
    path = make_directory() / "file"
    path.write_text("")
    with pytest.raises(ClusterError, match="is not a directory"):
        pythiadb.connect(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try another user's rights")
def test_directory_that_the_servers_account_cannot_reach_is_refused(make_directory: MakeDirectory) -> None:
    closed = make_directory() / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ClusterError, match="cannot be reached by the system user") as caught:
        pythiadb.connect(closed / "shop")
    assert caught.value.hint is not None


ORDINARY = """
    import sys, pythiadb
    try:
        db = pythiadb.connect(sys.argv[1], autocommit=True)
        print(db.execute("SELECT pythia.engine_ping()").fetchone()[0])
    except pythiadb.Error as error:
        print(str(error).splitlines()[0])
"""


NOBODY = 65534


def interpreter_for_others() -> str | None:
    """Return an interpreter of our version that an ordinary user can run: root's own may lie in a closed folder."""
    for path in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            done = subprocess.run(
                [path, "-c", "import pythiadb.engine.worker"],
                user=NOBODY,
                cwd="/",
                env=ENVIRONMENT,
                check=False,
                capture_output=True,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return path
    return None


ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_ordinary_user(make_directory: MakeDirectory) -> None:
    """An ordinary user's database runs under that user's own account; a folder of somebody else is refused."""
    python = interpreter_for_others()
    if python is None:
        pytest.skip("no interpreter of this version can be run by an ordinary user")
    folder = make_directory()
    os.chown(folder, NOBODY, NOBODY)

    def outcome(directory: Path) -> str:
        command = [python, "-c", textwrap.dedent(ORDINARY), str(directory)]
        return subprocess.run(
            command, user=NOBODY, cwd="/", env=ENVIRONMENT, capture_output=True, text=True, check=True
        ).stdout

    assert outcome(folder / "shop") == "pong\n"
    assert (folder / "shop" / "pgdata").stat().st_uid == NOBODY
    assert "no permission to create the database directory" in outcome(make_directory() / "shop")
    wait_until(lambda: not (folder / "shop" / "pgdata" / "postmaster.pid").exists())


def test_long_paths_put_the_sockets_elsewhere(tmp_path: Path) -> None:
    short, long = Layout(Path("/tmp/shop")), Layout(Path("/tmp") / ("x" * 100))
    assert short.run == Path("/tmp/shop/run")
    assert long.run.parent == Path(os.environ.get("TMPDIR", "/tmp"))
    assert len(str(long.engine_run / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES


def test_database_with_a_long_path_works(make_directory: MakeDirectory) -> None:
    shop = make_directory() / ("x" * 100) / "shop"
    with pythiadb.connect(shop, autocommit=True) as db:
        assert db.execute("SELECT pythia.engine_ping()").fetchone() == ("pong",)
    cluster.stop(shop)


def test_socket_folders_and_sockets_are_private(shop: Path) -> None:
    layout = Layout(shop)
    for path in (layout.run, layout.engine_run, layout.engine):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (layout.engine_run / ".s.PGSQL.5432").stat().st_mode & 0o777 == 0o600
    assert not list(layout.pgdata.glob(".s.PGSQL*"))


@pytest.mark.parametrize("gigabytes", [1, 8, 64, 1024])
def test_memory_settings_fit_the_machine(gigabytes: int) -> None:
    settings = memory_settings(gigabytes << 30, 4)
    shared = int(settings["shared_buffers"].removesuffix("MB")) << 20
    assert 128 << 20 <= shared <= min(8 << 30, (gigabytes << 30) // 4)


def test_end_of_one_process_leaves_the_others_server(make_directory: MakeDirectory) -> None:

    shop = make_directory() / "shop"
    with pythiadb.connect(shop, autocommit=True) as db:
        process = run_python(HOLD, str(shop))
        first_line(process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        time.sleep(3.5)
        assert db.execute("SELECT 1").fetchone() == (1,)


def test_closing_twice_and_using_after_close(shop: Path) -> None:
    db = pythiadb.connect(shop)
    db.close()
    db.close()
    with pytest.raises(psycopg.OperationalError):
        db.execute("SELECT 1")
