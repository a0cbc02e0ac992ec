"""The engine's cache: half-made, damaged and too many files are noticed; nothing wrong is ever handed out."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from pathlib import Path

import orjson
import pytest

from pythiadb.engine.cache import Cache, CachedPackage, FileEntry
from pythiadb.errors import InvalidModel

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
