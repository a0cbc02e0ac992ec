"""DBMS_VECTOR.INMEMORY_ONNX_MODEL: all workers map one copy of the weights, which may be deleted or damaged at any moment."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from background import wait_until
from numpy.typing import NDArray

import pythiadb
from pythiadb.engine.models import KEEP_SECONDS
from pythiadb.postgres import cluster, install
from pythiadb.postgres.layout import Layout
from pythiadb.postgres.server import Server

WORKERS = 3
SENTENCES = ["a cat", "the quick brown fox jumps over the lazy dog", "rates " * 120]
KINDS = ("Rss", "Pss", "Private_Dirty", "Anonymous")
PARTS = ("METADATA", "INITIALIZER", "PREPACKED WEIGHTS")


@pytest.fixture(scope="module")
def house(minilm_folder: Path) -> Iterator[Path]:
    """The directory of a database whose engine has three workers, with the model `minilm`."""
    folder = Path(tempfile.mkdtemp(prefix="pythia-house-"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHIA_ENGINE_WORKERS", str(WORKERS))
        with pythiadb.connect(folder / "shop", autocommit=True) as db:
            pythiadb.load_model(db, minilm_folder, "public.minilm")
            yield folder / "shop"
        cluster.stop(folder / "shop")
    shutil.rmtree(folder)


@pytest.fixture
def sessions(house: Path) -> Iterator[list[pythiadb.Connection]]:
    """Sessions that are spread over all workers. The model is private before and after."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(pythiadb.connect(house, autocommit=True)) for _ in range(2 * WORKERS)]
        for session in made:
            session.execute("SET search_path = public, pythia")
        inmemory(made[0], False)
        embed_all(made)
        yield made
        inmemory(made[0], False)


@pytest.fixture
def again(sessions: list[pythiadb.Connection], minilm_folder: Path) -> Iterator[str]:
    """A second name of the same package, private before and after."""
    db = sessions[0]
    pythiadb.load_model(db, minilm_folder, "public.again")
    assert db.execute("SELECT count(*), count(DISTINCT package) FROM pythia.model").fetchone() == (2, 1)
    yield "again"
    db.execute("CALL dbms_vector.drop_onnx_model('again', true)")


@pytest.fixture
def other(sessions: list[pythiadb.Connection], minilm_folder: Path) -> Iterator[pythiadb.Connection]:
    """A session of another database of the same server, which has the same package as its model `minilm`."""
    db = sessions[0]
    assert db.server is not None
    conninfo = other_database(db.server)
    with pythiadb.connect(conninfo, autocommit=True) as made:
        made.execute("SET search_path = public, pythia")
        pythiadb.load_model(made, minilm_folder, "public.minilm")
        yield made
    db.execute("DROP DATABASE other WITH (FORCE)")


def other_database(server: Server) -> str:
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE other")
    conninfo = server.conninfo("other")
    install.ensure(conninfo)
    return conninfo


def inmemory(db: pythiadb.Connection, enable: bool, name: str = "minilm") -> None:
    db.execute("CALL dbms_vector.inmemory_onnx_model(%s, %s)", (name, enable))


def embed(db: pythiadb.Connection, name: str = "minilm") -> NDArray[np.float32]:
    rows = db.execute(
        "SELECT vector_embedding(%s::regclass, t) FROM unnest(%s::text[]) AS t", (name, SENTENCES)
    ).fetchall()
    return np.array([row[0] for row in rows], dtype=np.float32)


def embed_all(sessions: list[pythiadb.Connection], name: str = "minilm") -> list[NDArray[np.float32]]:
    """Embed in every session, so that every worker has the model open as it should be."""
    return [embed(session, name) for session in sessions]


def status(db: pythiadb.Connection) -> dict[str, Any]:
    row = db.execute("SELECT pythia.engine_status()").fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


def memory_row(db: pythiadb.Connection) -> dict[str, Any]:
    """What the status says about the one model."""
    found = status(db)["memory"]
    assert len(found) == 1
    row: dict[str, Any] = found[0]
    return row


def mapped_folder(house: Path) -> Path:
    (folder,) = (p for p in (Layout(house).engine / "cache" / "mapped").iterdir() if p.is_dir())
    return folder


def identity(house: Path) -> list[tuple[str, int, int]]:
    """What changes when the mapped files are made anew."""
    facts = ((path.name, path.stat()) for path in sorted(mapped_folder(house).iterdir()))
    return [(name, fact.st_ino, fact.st_mtime_ns) for name, fact in facts]


def is_given_back(db: pythiadb.Connection, house: Path) -> bool:
    """Tell whether the mapped files are gone, and no worker has them."""
    folders = (p for p in (Layout(house).engine / "cache" / "mapped").iterdir() if p.is_dir())
    return status(db)["memory"] == [] and not any(folders)


def segments(db: pythiadb.Connection) -> dict[str, set[str]]:
    """The status of the shared models' parts."""
    found: dict[str, set[str]] = {}
    for name, state in db.execute("SELECT name, populate_status FROM v$im_onnx_segment").fetchall():
        found.setdefault(name, set()).add(state)
    return found


def mapping(pid: int, file: Path) -> dict[str, int]:
    """What a process has of a mapped file, in bytes, out of /proc/PID/smaps; the address is that of the first piece."""
    found: dict[str, int] = dict.fromkeys(KINDS, 0)
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = line.endswith(str(file))  # and not "(deleted)"
            if inside:
                found.setdefault("address", int(words[0].partition("-")[0], 16))
        elif inside and words[0][:-1] in KINDS:
            found[words[0][:-1]] += int(words[1]) << 10
    return found


def private_bytes(pid: int) -> int:
    """What a process has allocated for itself; pages of files are not its own, even if nobody else reads them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_Dirty:"))


def pids(db: pythiadb.Connection) -> list[int]:
    return [worker["pid"] for worker in status(db)["workers"]]


def is_mapped_everywhere(db: pythiadb.Connection) -> bool:
    models = [worker["models"] for worker in status(db)["workers"]]
    return len(models) == WORKERS and all(any(m["mapped"] for m in each) for each in models)


def has_new_copy(db: pythiadb.Connection, house: Path) -> bool:
    """Tell whether all workers have mapped the files that lie there now."""
    return is_mapped_everywhere(db) and all(
        mapping(pid, mapped_folder(house) / "weights.bin")["Rss"] for pid in pids(db)
    )


def flip(path: Path) -> None:
    """Change one byte in the middle of a file, by way of a new file: processes that have mapped it are not concerned."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.unlink()
    path.write_bytes(content)


def test_workers_map_one_copy(sessions: list[pythiadb.Connection], house: Path) -> None:
    """By the kernel's own account: each worker has what it reads of the file, and counts for its share of one copy."""
    before = embed_all(sessions)
    own = {pid: private_bytes(pid) for pid in pids(sessions[0])}
    inmemory(sessions[0], True)
    after = embed_all(sessions)
    for vectors in after:
        np.testing.assert_allclose(vectors, before[0], atol=2e-6)
        assert (np.einsum("ij,ij->i", vectors, before[0]) > 0.999999).all()
    wait_until(lambda: is_mapped_everywhere(sessions[0]))
    weights = mapped_folder(house) / "weights.bin"
    size = weights.stat().st_size
    parts = [mapping(pid, weights) for pid in own]
    # prepacked weights are read from there; of the plain ones beside them little is: the words' table where words are looked up
    assert all(part["Rss"] > 0.35 * size for part in parts)
    assert sum(part["Pss"] for part in parts) <= size * 1.01
    assert all(part["Anonymous"] == part["Private_Dirty"] == 0 for part in parts)
    # no second copy hides elsewhere: what each worker had packed for itself is free again
    packed = memory_row(sessions[0])["prepacked_bytes"]
    wait_until(lambda: all(private_bytes(pid) < held - 0.5 * packed for pid, held in own.items()))


def test_switching_leaves_no_memory_behind(sessions: list[pythiadb.Connection]) -> None:
    own = {pid: private_bytes(pid) for pid in pids(sessions[0])}
    for _ in range(3):
        for enable in (True, False):
            inmemory(sessions[0], enable)
            embed_all(sessions)
    wait_until(lambda: all(private_bytes(pid) < held + (16 << 20) for pid, held in own.items()))


def test_idle_workers_give_back_what_runs_needed(sessions: list[pythiadb.Connection]) -> None:
    def held() -> int:
        return sum(private_bytes(pid) for pid in pids(sessions[0]))

    for session in sessions:
        session.execute("SELECT vector_embedding('minilm', %s)", ("many words " * 200,))
    busy = held()
    wait_until(lambda: held() < busy - (3 << 20))


def test_status_tells_the_truth(sessions: list[pythiadb.Connection], house: Path) -> None:
    """Sizes are those of the files, pins the workers that have it open, the address that of the mapping."""
    db = sessions[0]
    inmemory(db, True)
    embed_all(sessions)
    wait_until(lambda: is_mapped_everywhere(db))
    row = memory_row(db)
    folder = mapped_folder(house)
    assert row["status"] == "ENABLED"
    assert row["pins"] == WORKERS
    assert row["metadata_bytes"] == (folder / "graph.onnx").stat().st_size
    size = (folder / "weights.bin").stat().st_size
    assert size * 0.98 < row["initializer_bytes"] + row["prepacked_bytes"] <= size
    assert row["prepacked_bytes"] > 0
    addresses = [mapping(pid, folder / "weights.bin")["address"] for pid in pids(db)]
    assert int(row["address"], 16) in addresses
    segments = db.execute("SELECT * FROM v$im_onnx_segment").fetchall()
    text = str(segments)
    assert all(part in text for part in PARTS)
    inmemory(db, False)
    embed_all(sessions)
    wait_until(lambda: status(db)["memory"] == [])
    assert not any(mapping(pid, folder / "weights.bin")["Rss"] for pid in pids(db))


@pytest.mark.parametrize("what", ["mapped", "cache"])
def test_deleting_costs_a_rebuild_only(sessions: list[pythiadb.Connection], house: Path, what: str) -> None:
    """The files, or the whole cache, go away under the workers' feet."""
    db = sessions[0]
    inmemory(db, True)
    before = embed_all(sessions)[0]
    cache = Layout(house).engine / "cache"
    shutil.rmtree(cache / "mapped" if what == "mapped" else cache)
    for vectors in embed_all(sessions):
        np.testing.assert_array_equal(vectors, before)
    wait_until(
        lambda: all(np.array_equal(v, before) for v in embed_all(sessions)) and has_new_copy(db, house)
    )
    assert memory_row(db)["status"] == "ENABLED"


@pytest.mark.parametrize("name", ["weights.bin", "graph.onnx", "manifest.json"])
def test_damaged_file_is_found(sessions: list[pythiadb.Connection], house: Path, name: str) -> None:
    """One flipped byte: the next run of the engine makes the files anew, and the answers are right."""
    inmemory(sessions[0], True)
    before = embed_all(sessions)[0]
    cluster.stop_engine(Layout(house))
    path = mapped_folder(house) / name
    flip(path)
    damaged = path.read_bytes()
    for vectors in embed_all(sessions):
        np.testing.assert_array_equal(vectors, before)
    assert (mapped_folder(house) / name).read_bytes() != damaged


@pytest.mark.parametrize("size", [0, 1000])
def test_truncated_file_is_found_at_once(sessions: list[pythiadb.Connection], house: Path, size: int) -> None:
    """The same run of the engine that has checked the file opens it in another worker."""
    db = sessions[0]
    inmemory(db, True)
    before = embed(db)
    weights = mapped_folder(house) / "weights.bin"
    content = weights.read_bytes()[:size]
    weights.unlink()
    weights.write_bytes(content)
    for vectors in embed_all(sessions):
        np.testing.assert_array_equal(vectors, before)
    assert (mapped_folder(house) / "weights.bin").stat().st_size > 1000


def test_switching_in_use(sessions: list[pythiadb.Connection]) -> None:
    """All sessions embed while sharing is switched on and off; no call fails or gives something else."""
    expected = embed(sessions[0])
    over = threading.Event()
    wrong: list[Any] = []
    counts = [0] * len(sessions)

    def work(number: int) -> None:
        while not over.is_set():
            try:
                found = embed(sessions[number])
            except Exception as error:
                wrong.append(error)
                return
            if np.abs(found - expected).max() > 2e-6:
                wrong.append(found)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, len(sessions))]
    for thread in threads:
        thread.start()
    for enable in (True, False, True, False, True):
        inmemory(sessions[0], enable)
        time.sleep(0.8)
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(counts[1:]) >= 3


def test_other_name_of_a_shared_model(sessions: list[pythiadb.Connection], house: Path, again: str) -> None:
    """One of two names of a package is shared: both run out of the same files, which stay as they are."""
    inmemory(sessions[0], True)
    expected = embed(sessions[0])
    files = identity(house)
    for _ in range(3):
        for name in ("minilm", again):
            for found in embed_all(sessions, name):
                np.testing.assert_array_equal(found, expected)
            assert segments(sessions[0]) == {"MINILM": {"ENABLED"}}
            assert identity(house) == files
    wait_until(lambda: is_mapped_everywhere(sessions[0]))
    # nor does it matter that the shared name is not called for a while
    time.sleep(KEEP_SECONDS + 0.5)
    embed_all(sessions, again)
    time.sleep(0.5)
    assert identity(house) == files
    assert is_mapped_everywhere(sessions[0])


def test_a_load_leaves_shared_weights_alone(
    sessions: list[pythiadb.Connection], house: Path, minilm_folder: Path
) -> None:
    """The package gets a second name, which is called at once, while the first is in use."""
    inmemory(sessions[0], True)
    expected = embed_all(sessions)[0]
    files = identity(house)
    pythiadb.load_model(sessions[0], minilm_folder, "public.late")
    try:
        for name in ("late", "minilm", "late"):
            np.testing.assert_array_equal(embed(sessions[1], name), expected)
        assert identity(house) == files
    finally:
        sessions[0].execute("CALL dbms_vector.drop_onnx_model('late')")


@pytest.mark.parametrize("how", ["disable", "drop"])
def test_the_last_name_gives_the_memory_back(
    sessions: list[pythiadb.Connection], house: Path, again: str, how: str
) -> None:
    """As long as one name is shared the files stay; without any they go, also when calls of the others never end."""
    db = sessions[0]
    inmemory(db, True)
    embed_all(sessions)
    files = identity(house)
    inmemory(db, True, again)
    inmemory(db, False)
    embed_all(sessions)
    assert segments(db) == {"AGAIN": {"ENABLED"}}
    assert identity(house) == files
    if how == "disable":
        inmemory(db, False, again)
    else:
        db.execute("CALL dbms_vector.drop_onnx_model('again')")

    def is_private_in_use() -> bool:
        embed_all(sessions)
        return is_given_back(db, house)

    wait_until(is_private_in_use)


def test_old_statement_does_not_take_weights_away(sessions: list[pythiadb.Connection], house: Path) -> None:
    """A transaction that does not see that the model is shared now calls it in turn with others."""
    old, db = sessions[0], sessions[1]
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    private = embed(old)
    inmemory(db, True)
    expected = embed(db)
    files = identity(house)
    try:
        for _ in range(5):
            np.testing.assert_allclose(embed(old), private, atol=2e-6)
            np.testing.assert_array_equal(embed_all(sessions[1:])[0], expected)
            assert identity(house) == files
    finally:
        old.execute("ROLLBACK")


def test_taken_back_sharing_gives_the_memory_back(sessions: list[pythiadb.Connection], house: Path) -> None:
    db = sessions[0]
    db.execute("BEGIN")
    inmemory(db, True)
    assert mapped_folder(house)
    db.execute("ROLLBACK")

    def is_private_in_use() -> bool:
        embed_all(sessions)
        return is_given_back(db, house)

    wait_until(is_private_in_use)


def test_other_database_does_not_take_weights_away(
    sessions: list[pythiadb.Connection], house: Path, other: pythiadb.Connection
) -> None:
    """It has the same package, not shared: its calls use what is there, and leave it alone."""
    inmemory(sessions[0], True)
    expected = embed_all(sessions)[0]
    files = identity(house)
    deadline = time.monotonic() + KEEP_SECONDS + 1
    while time.monotonic() < deadline:  # the first database is silent
        np.testing.assert_array_equal(embed(other), expected)
    assert identity(house) == files
    assert segments(other) == {}
    for found in embed_all(sessions):
        np.testing.assert_array_equal(found, expected)
    assert identity(house) == files
    inmemory(sessions[0], False)
    assert not list((Layout(house).engine / "cache" / "mapped").iterdir())
    embed(other)
    embed_all(sessions)
    wait_until(lambda: is_given_back(sessions[0], house))


def test_databases_share_and_stop_by_themselves(
    sessions: list[pythiadb.Connection], house: Path, other: pythiadb.Connection
) -> None:
    """What one gives back the other gets again, and the last one's memory is free."""
    db = sessions[0]
    inmemory(db, True)
    inmemory(other, True)
    expected = embed(other)
    inmemory(db, False)
    deadline = time.monotonic() + KEEP_SECONDS + 1
    while time.monotonic() < deadline:  # workers that do not know the other's wish delete them once
        embed_all(sessions)
        np.testing.assert_array_equal(embed(other), expected)
    files = identity(house)
    for _ in range(3):
        embed_all(sessions)
        np.testing.assert_array_equal(embed(other), expected)
    assert identity(house) == files
    inmemory(other, False)
    embed(other)
    embed_all(sessions)
    wait_until(lambda: is_given_back(db, house))
