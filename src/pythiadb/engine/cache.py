"""Model files on the engine's disk: a cache that may be deleted at any moment.

    cache/files/<sha256>            one file's bytes, complete and checked
    cache/packages/<hash>/          a package: its files (hard links) and package.json, made under another name and renamed
    cache/stage/                    files that are being received

What a rename has not finished does not exist; what exists is checked against its hashes before it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pythiadb.errors import InvalidModel

HASH = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a package."""

    name: str
    sha256: str
    size: int

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FileEntry:
        """Read {"name", "sha256", "size"}; raises InvalidModel when the name or hash could leave the cache."""
        entry = cls(str(value["name"]), str(value["sha256"]), int(value["size"]))
        if not NAME.fullmatch(entry.name) or not HASH.fullmatch(entry.sha256):
            raise InvalidModel(f'invalid file entry "{entry.name}" of a model package')
        return entry


@dataclass(frozen=True, slots=True)
class CachedPackage:
    """A package on disk: its folder and the spec as stored in the database."""

    key: str
    folder: Path
    spec: dict[str, Any]
    files: tuple[FileEntry, ...]


class Cache:
    """The cache below `root`, shared by all workers. `max_bytes` bounds the packages; the least recently used go first."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._files = root / "files"
        self._packages = root / "packages"
        self._stage = root / "stage"
        self._max_bytes = max_bytes
        self._make_folders()

    def _make_folders(self) -> None:
        """Make what is missing: the cache may be deleted while the engine runs."""
        for folder in (self._files, self._packages, self._stage):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def has_file(self, sha256: str) -> bool:
        """True when the file's bytes are here."""
        return bool(HASH.fullmatch(sha256)) and (self._files / sha256).exists()

    def file(self, sha256: str) -> Path:
        """Return the path of a file that `has_file`."""
        return self._files / sha256

    def receive(self, sha256: str, size: int) -> IncomingFile:
        """Start receiving a file."""
        if not HASH.fullmatch(sha256):
            raise InvalidModel("invalid file hash")
        self._make_folders()
        return IncomingFile(self._stage, self._files / sha256, sha256, size)

    def add_file(self, entry: FileEntry, chunks: Iterable[bytes]) -> None:
        """Store a file from its chunks. Raises InvalidModel when they do not have the entry's hash."""
        incoming = self.receive(entry.sha256, entry.size)
        with contextlib.closing(incoming):
            for chunk in chunks:
                incoming.append(chunk)
            incoming.finish()

    def add_package(self, key: str, spec: dict[str, Any], files: list[FileEntry]) -> CachedPackage:
        """Assemble a package from files that are here."""
        if not HASH.fullmatch(key):
            raise InvalidModel("invalid package hash")
        self._make_folders()
        folder = Path(tempfile.mkdtemp(dir=self._stage))
        for entry in files:
            os.link(self._files / entry.sha256, folder / entry.name)
        manifest = {
            "spec": spec,
            "files": [{"name": f.name, "sha256": f.sha256, "size": f.size} for f in files],
        }
        (folder / "package.json").write_bytes(orjson.dumps(manifest))
        try:
            folder.rename(self._packages / key)
        except OSError:  # another worker was faster
            shutil.rmtree(folder, ignore_errors=True)
        self._evict(keep=key)
        found = self.package(key)
        if found is None:
            raise InvalidModel(f"model package {key[:12]} could not be unpacked")
        return found

    def package(self, key: str) -> CachedPackage | None:
        """Return a package after checking sizes and hashes of all its files; what does not pass is removed."""
        folder = self._packages / key
        try:
            manifest = orjson.loads((folder / "package.json").read_bytes())
            files = tuple(FileEntry.from_json(f) for f in manifest["files"])
            damaged = [f for f in files if not _matches(folder / f.name, f)]
        except (OSError, ValueError, KeyError, TypeError, InvalidModel):
            self.remove(key)
            return None
        if damaged:
            for entry in damaged:  # the same bytes by hard link
                (self._files / entry.sha256).unlink(missing_ok=True)
            self.remove(key)
            return None
        os.utime(folder)
        return CachedPackage(key, folder, manifest["spec"], files)

    def remove(self, key: str) -> None:
        """Delete a package and those of its files that no other package links to."""
        if not (self._packages / key).exists():
            return
        shutil.rmtree(self._packages / key, ignore_errors=True)
        for path in self._files.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_nlink == 1 and not _is_fresh(path):
                    path.unlink()

    def _evict(self, keep: str) -> None:
        packages = sorted(
            (p for p in self._packages.iterdir()), key=lambda p: p.stat().st_mtime, reverse=True
        )
        used = 0
        for folder in packages:
            used += sum(f.stat().st_size for f in folder.iterdir())
            if used > self._max_bytes and folder.name != keep:
                self.remove(folder.name)


FRESH_SECONDS = 3600  # a file without a package may be on its way into one


def _is_fresh(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < FRESH_SECONDS


def _matches(path: Path, entry: FileEntry) -> bool:
    if path.stat().st_size != entry.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == entry.sha256


class IncomingFile:
    """A file on its way in: append the bytes in order, then finish."""

    def __init__(self, folder: Path, target: Path, sha256: str, size: int) -> None:
        handle, name = tempfile.mkstemp(dir=folder)
        self._stream = os.fdopen(handle, "wb")
        self._path = Path(name)
        self._target = target
        self._sha256 = sha256
        self._size = size
        self._digest = hashlib.sha256()
        self.received = 0

    @property
    def complete(self) -> bool:
        return self.received >= self._size

    def append(self, data: bytes) -> None:
        """Add the next bytes."""
        self._stream.write(data)
        self._digest.update(data)
        self.received += len(data)

    def finish(self) -> None:
        """Check size and hash and put the file in its place. Raises InvalidModel."""
        self._stream.close()
        if self.received != self._size or self._digest.hexdigest() != self._sha256:
            raise InvalidModel(
                "a model file does not have its recorded checksum",
                detail=f"Got {self.received} of {self._size} bytes with sha256 {self._digest.hexdigest()}, expected {self._sha256}.",
            )
        self._path.rename(self._target)

    def close(self) -> None:
        """Give up what was not finished."""
        self._stream.close()
        self._path.unlink(missing_ok=True)
