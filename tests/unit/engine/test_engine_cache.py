"""The engine's cache: half-made, damaged and too many files are noticed; nothing wrong is ever handed out."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import orjson
import pytest

from pythiadb.engine.cache import Cache
from pythiadb.engine.cached import CachedPackage, FileEntry
from pythiadb.errors import InvalidModel
from pythiadb.postgres import owners

SPEC = {"format": 1}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, 1 << 30)


def entry(data: bytes, name: str = "model.onnx") -> FileEntry:
    return FileEntry(name, hashlib.sha256(data).hexdigest(), len(data))


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def add(cache: Cache, name: str, data: bytes) -> CachedPackage:
    """Store a package of one file."""
    cache.add_file(entry(data), [data])
    return cache.add_package(key(name), SPEC, [entry(data)])


def test_package_comes_back_as_it_was(cache: Cache) -> None:
    data = os.urandom(3000)
    cache.add_file(entry(data), [data[:1000], data[1000:]])
    made = cache.add_package(key("a"), SPEC, [entry(data)])
    assert cache.package(key("a")) == made
    assert (made.folder / "model.onnx").read_bytes() == data
    assert made.spec == SPEC
    assert cache.package(key("b")) is None


def test_folder_may_be_deleted_at_any_moment(cache: Cache, tmp_path: Path) -> None:
    add(cache, "a", b"bytes")
    shutil.rmtree(tmp_path)
    assert cache.package(key("a")) is None
    assert not cache.has_file(entry(b"bytes").sha256)
    assert add(cache, "a", b"bytes").files == (entry(b"bytes"),)


@pytest.mark.parametrize(
    "damage", ["no manifest", "half a manifest", "no file", "short file", "other bytes", "empty folder"]
)
def test_damaged_package_is_not_handed_out_and_can_be_made_again(
    cache: Cache, tmp_path: Path, damage: str
) -> None:
    folder = add(cache, "a", b"good bytes").folder
    manifest, file = folder / "package.json", folder / "model.onnx"
    match damage:
        case "no manifest":
            manifest.unlink()
        case "half a manifest":
            manifest.write_bytes(manifest.read_bytes()[:20])
        case "no file":
            file.unlink()
        case "short file":
            file.write_bytes(b"good")
        case "other bytes":
            file.write_bytes(b"evil bytes")
        case "empty folder":
            manifest.unlink()
            file.unlink()
    assert cache.package(key("a")) is None
    if not cache.has_file(entry(b"good bytes").sha256):
        cache.add_file(entry(b"good bytes"), [b"good bytes"])
    again = cache.add_package(key("a"), SPEC, [entry(b"good bytes")])
    assert (again.folder / "model.onnx").read_bytes() == b"good bytes"


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "", ".hidden", "a\0b"])
def test_manifest_whose_names_leave_the_folder_is_not_trusted(cache: Cache, name: str) -> None:
    folder = add(cache, "a", b"bytes").folder
    file = {"name": name, "sha256": entry(b"bytes").sha256, "size": 5}
    (folder / "package.json").write_bytes(orjson.dumps({"spec": {}, "files": [file]}))
    assert cache.package(key("a")) is None
    with pytest.raises(InvalidModel):
        FileEntry.from_json(file)


@pytest.mark.parametrize("sha256", ["", "../" * 20, "g" * 64, "0" * 63])
def test_hashes_that_are_none_are_refused(cache: Cache, sha256: str) -> None:
    assert not cache.has_file(sha256)
    with pytest.raises(InvalidModel):
        cache.receive(sha256, 1)
    with pytest.raises(InvalidModel):
        cache.add_package(sha256, SPEC, [])


@pytest.mark.parametrize("chunks", [[b"good"], [b"good bytes", b"more"], [b"evil bytes"], []])
def test_file_with_other_bytes_than_its_hash_is_refused(
    cache: Cache, tmp_path: Path, chunks: list[bytes]
) -> None:
    with pytest.raises(InvalidModel, match="checksum"):
        cache.add_file(entry(b"good bytes"), chunks)
    assert not cache.has_file(entry(b"good bytes").sha256)
    assert list((tmp_path / "stage").iterdir()) == []


def test_given_up_file_leaves_nothing(cache: Cache, tmp_path: Path) -> None:
    incoming = cache.receive(entry(b"good bytes").sha256, 10)
    incoming.append(b"good")
    assert not incoming.complete
    incoming.close()
    assert list((tmp_path / "stage").iterdir()) == []


def test_what_the_dead_were_receiving_is_swept(cache: Cache, tmp_path: Path) -> None:
    """And nothing of those that live: one killed process, and this one."""
    make = multiprocessing.get_context("spawn").Process(target=_receive_and_die, args=(tmp_path,))
    make.start()
    make.join()
    stage = tmp_path / "stage"
    assert len(list(stage.iterdir())) == 2
    (tmp_path / "mapped" / f".draft.{owners.prefix()}x").mkdir()
    (tmp_path / "mapped" / ".draft.99999999-1-x").mkdir()
    incoming = cache.receive(entry(b"good bytes").sha256, 10)
    with cache.workspace() as workspace:
        cache.sweep()
        assert workspace.exists()
        assert len(list(stage.iterdir())) == 2
    assert [path.name for path in (tmp_path / "mapped").iterdir()] == [f".draft.{owners.prefix()}x"]
    incoming.append(b"good bytes")
    incoming.finish()
    assert cache.has_file(entry(b"good bytes").sha256)


def _receive_and_die(root: Path) -> None:
    cache = Cache(root, 1 << 30)
    incoming = cache.receive(entry(b"good bytes").sha256, 10)
    incoming.append(b"good")
    with cache.workspace() as workspace:
        (workspace / "file").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "name",
    ["tmpabc", "", "1-x-", "12", f"{os.getpid()}-1-another_of_this_number"],
    ids=["draft", "empty", "short", "number", "another of our number"],
)
def test_names_of_nobody(name: str) -> None:
    assert owners.is_left_behind(name)
    assert not owners.is_left_behind(owners.prefix() + name)


def test_eviction_keeps_the_newest_and_the_recently_used(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3500)
    for number, name in enumerate("abc"):
        folder = add(cache, name, name.encode() * 1000).folder
        os.utime(folder, (number, number))
    assert cache.package(key("a")) is not None  # used now
    add(cache, "d", b"d" * 1000)
    assert cache.package(key("b")) is None
    assert cache.package(key("d")) is not None
    assert cache.package(key("a")) is not None


def test_package_larger_than_the_cache_is_kept_while_it_is_the_newest(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    assert add(cache, "a", b"a" * 1000).key == key("a")
    assert add(cache, "b", b"b" * 1000).key == key("b")
    assert cache.package(key("a")) is None
    assert cache.package(key("b")) is not None


def test_removal_deletes_old_files_that_no_package_uses(cache: Cache, tmp_path: Path) -> None:
    add(cache, "a", b"shared")
    add(cache, "b", b"shared")
    add(cache, "c", b"alone")
    for path in (tmp_path / "files").iterdir():
        os.utime(path, (time.time() - 7200,) * 2)
    cache.remove(key("a"))
    cache.remove(key("c"))
    assert [p.name for p in (tmp_path / "files").iterdir()] == [entry(b"shared").sha256]
    assert cache.package(key("b")) is not None


def test_two_workers_making_the_same_package_both_get_it(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    gate = threading.Barrier(4)
    found: list[object] = []

    def work() -> None:
        cache = Cache(tmp_path, 1 << 30)
        gate.wait()
        try:
            cache.add_file(entry(data), [data])
            found.append(cache.add_package(key("a"), SPEC, [entry(data)]))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(f, CachedPackage) for f in found), found
    assert list((tmp_path / "stage").iterdir()) == []


# Several workers at once ----------------------------------------------------------------------------------------------------

PROCESSES, ROUNDS = 4, 32
WEIGHTS = b"weights " * 4000  # two packages share them
GRAPHS = {"a": b"graph a" * 500, "b": b"graph b" * 500}


def files_of(name: str) -> dict[FileEntry, bytes]:
    return {entry(GRAPHS[name]): GRAPHS[name], entry(WEIGHTS, "weights.bin"): WEIGHTS}


def use(cache: Cache, name: str) -> None:
    """Open a package as the engine does, and compare what it holds."""
    files = files_of(name)
    package = cache.package(key(name)) or cache.fetch(
        key(name), SPEC, list(files), lambda wanted: iter([files[wanted]])
    )
    assert package.spec == SPEC
    assert [(package.folder / f.name).read_bytes() for f in files] == list(files.values())


def overwrite(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(b"\xff")


def damage(root: Path, number: int) -> None:
    """Do to the cache what nobody should: in turn to files that packages share, to a package, and to manifests."""
    match number % 4:
        case 0:
            for path in (root / "files").iterdir():
                overwrite(path)
        case 1:
            shutil.rmtree(root / "packages" / key("a"))
            overwrite(root / "packages" / key("b") / "weights.bin")
        case 2:
            for path in (root / "packages").glob("*/package.json"):
                path.write_bytes(path.read_bytes()[:30])
        case 3:
            for path in (root / "packages").glob("*/weights.bin"):
                path.unlink()
                path.write_bytes(b"other bytes")


def work(root: Path, gate: Barrier, number: int) -> None:
    """One process: in each round one does damage, then all use both packages as workers of a new engine do."""
    names = ["a", "b"] if number % 2 else ["b", "a"]
    try:
        for turn in range(ROUNDS):
            if gate.wait(60) == 0:
                damage(root, turn)
            gate.wait(60)
            cache = Cache(root, 1 << 30, f"run {turn}")
            for name in names:
                use(cache, name)
    except BaseException:
        gate.abort()  # the others need not wait
        raise


def test_workers_that_find_damage_at_once_all_get_the_mended_package(tmp_path: Path) -> None:
    for name in GRAPHS:
        use(Cache(tmp_path, 1 << 30), name)
    spawn = multiprocessing.get_context("spawn")
    gate = spawn.Barrier(PROCESSES)
    workers = [spawn.Process(target=work, args=(tmp_path, gate, n)) for n in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert list((tmp_path / "stage").iterdir()) == []


def test_cache_that_is_deleted_while_workers_fill_it(tmp_path: Path) -> None:
    """What they have is gone, the lock that they wait for too: each begins again and leaves a whole cache behind."""
    root, faults = tmp_path / "cache", []
    gate = threading.Barrier(4)

    def fill(name: str) -> None:
        files = files_of(name)
        try:
            for turn in range(60):
                gate.wait(60)
                cache = Cache(root, 1 << 30, f"run {turn}")
                if cache.package(key(name)) is None:
                    cache.fetch(key(name), SPEC, list(files), lambda wanted: iter([files[wanted]]))
                gate.wait(60)
        except BaseException as error:
            faults.append(error)
            gate.abort()

    def delete() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            for turn in range(60):
                gate.wait(60)
                time.sleep(turn % 10 / 1000)
                shutil.rmtree(root, ignore_errors=True)
                gate.wait(60)

    threads = [threading.Thread(target=fill, args=(name,)) for name in ("a", "a", "b")]
    threads.append(threading.Thread(target=delete))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    for name in GRAPHS:
        use(Cache(root, 1 << 30), name)
