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
import pytest
from background import wait_until
from numpy.typing import NDArray

import pythiadb
from pythiadb.postgres import cluster
from pythiadb.postgres.layout import Layout

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


def inmemory(db: pythiadb.Connection, enable: bool) -> None:
    db.execute("CALL dbms_vector.inmemory_onnx_model('minilm', %s)", (enable,))


def embed(db: pythiadb.Connection) -> NDArray[np.float32]:
    rows = db.execute(
        "SELECT vector_embedding('minilm', t) FROM unnest(%s::text[]) AS t", (SENTENCES,)
    ).fetchall()
    return np.array([row[0] for row in rows], dtype=np.float32)


def embed_all(sessions: list[pythiadb.Connection]) -> list[NDArray[np.float32]]:
    """Embed in every session, so that every worker has the model open as it should be."""
    return [embed(session) for session in sessions]


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
