"""Model files on the engine's disk: a cache that may be deleted at any moment.

    cache/files/<sha256>            one file's bytes, complete and checked
    cache/packages/<hash>/          a package: its files (hard links) and package.json, made under another name and renamed
    cache/mapped/                   see models/mapped.py
    cache/stage/                    files that are being received, named by the process that receives them
    cache/lock                      held by whoever puts a file or package in its place, or removes one

What a rename has not finished does not exist; what exists is checked against its hashes when it is first opened in a run of
the engine, and against its sizes whenever it is opened. Opening what is sound takes no lock. What was found damaged without the
lock is looked at again with it: another worker may have mended it. A lock goes with a cache that is deleted, so what one worker
saw may be gone all the same; it then says FileMissing, and `fetch` begins again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pythiadb.engine.cached import (
    HASH,
    UNREADABLE,
    CachedPackage,
    FileEntry,
    FileMissing,
    IncomingFile,
    manifest,
    matches,
    read_manifest,
)
from pythiadb.errors import InvalidModel
from pythiadb.models.mapped import DRAFT_PREFIXES
from pythiadb.postgres import owners
from pythiadb.postgres.locks import exclusive_even_if_deleted, make_folder

CHECKED = "checked"  # a package's mark: the run of the engine that has compared its hashes
FRESH_SECONDS = 3600  # a file without a package may be on its way into one
TRIES = 6  # of a fetch while others find damaged, or delete, what it has brought
PAUSE_SECONDS = 0.01  # before the second try; doubled before each other one


class Cache:
    """The cache below `root`, shared by all workers. `max_bytes` bounds the packages; the least recently used go first.

    `run` names this run of the engine; without it every opening checks the hashes.
    """

    def __init__(self, root: Path, max_bytes: int, run: str | None = None) -> None:
        self._files = root / "files"
        self._packages = root / "packages"
        self._lock = root / "lock"
        self.mapped = root / "mapped"
        self.stage = root / "stage"
        self._max_bytes = max_bytes
        self._run = run
        self._make_folders()

    def _make_folders(self) -> None:
        """Make what is missing: the cache may be deleted while the engine runs."""
        for folder in (self._files, self._packages, self.mapped, self.stage):
            make_folder(folder)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Be the only one, in all processes, who changes what lies in its place.

        Raise FileNotFoundError, as what is done inside may, when the cache is being deleted.
        """
        with exclusive_even_if_deleted(self._lock):
            self._make_folders()
            yield

    def has_file(self, sha256: str) -> bool:
        """True when the file's bytes are here, which then stay for FRESH_SECONDS without a package."""
        if not HASH.fullmatch(sha256):
            return False
        with contextlib.suppress(FileNotFoundError), self._changing():
            os.utime(self._files / sha256)
            return True
        return False

    def file(self, sha256: str) -> Path:
        """Return the path of a file that `has_file`."""
        return self._files / sha256

    def receive(self, sha256: str, size: int) -> IncomingFile:
        """Start receiving a file."""
        if not HASH.fullmatch(sha256):
            raise InvalidModel("invalid file hash")
        self._make_folders()
        return IncomingFile(self.stage, self._place, sha256, size)

    def add_file(self, entry: FileEntry, chunks: Iterable[bytes]) -> None:
        """Store a file from its chunks. Raises InvalidModel when they do not have the entry's hash."""
        incoming = self.receive(entry.sha256, entry.size)
        with contextlib.closing(incoming):
            for chunk in chunks:
                incoming.append(chunk)
            incoming.finish()

    def adopt(self, path: Path) -> FileEntry:
        """Take over a file by its content; return its entry under its own name."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entry = FileEntry.from_json({"name": path.name, "sha256": digest, "size": path.stat().st_size})
        self._place(path, digest)
        return entry

    def _place(self, path: Path, sha256: str) -> None:
        """Move a complete file to its place. Raises FileMissing when the cache was deleted while it was received."""
        try:
            with self._changing():
                path.rename(self._files / sha256)
        except FileNotFoundError:
            raise FileMissing(sha256[:12]) from None

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a folder for files that `adopt` will take; it is gone afterwards."""
        self._make_folders()
        with tempfile.TemporaryDirectory(
            dir=self.stage, prefix=owners.prefix(), ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)

    def sweep(self) -> None:
        """Delete what processes that died were receiving or making."""
        self._make_folders()
        drafts = (path for path in self.mapped.iterdir() if path.name.startswith(DRAFT_PREFIXES))
        for path in (*self.stage.iterdir(), *drafts):
            if owners.is_left_behind(path.name.rpartition(".")[2]):
                _delete(path)

    def fetch(
        self,
        key: str,
        spec: dict[str, Any],
        files: list[FileEntry],
        chunks: Callable[[FileEntry], Iterable[bytes]],
    ) -> CachedPackage:
        """Assemble a package from files that are here and the others' chunks; anew when some go meanwhile.

        Raise InvalidModel when chunks have a wrong checksum, or when files go all the time.
        """
        for number in range(TRIES):
            with contextlib.suppress(FileMissing, FileNotFoundError):
                for entry in files:
                    if not self.has_file(entry.sha256):
                        self.add_file(entry, chunks(entry))
                return self.add_package(key, spec, files)
            time.sleep(PAUSE_SECONDS * 2**number)
        raise InvalidModel(
            f"model package {key[:12]} could not be unpacked",
            detail="Another process deletes or damages the files in the engine's cache.",
        )

    def add_package(self, key: str, spec: dict[str, Any], files: list[FileEntry]) -> CachedPackage:
        """Assemble a package from files that are here. Raises FileMissing when one is not, or is damaged."""
        if not HASH.fullmatch(key):
            raise InvalidModel("invalid package hash")
        with self.workspace() as draft:
            self._link(files, draft)
            try:
                (draft / "package.json").write_bytes(manifest(spec, files))
                if self._run is not None:
                    (draft / CHECKED).write_text(self._run)
                return self._publish(draft, key)
            except FileNotFoundError:  # the cache was deleted
                raise FileMissing("package.json") from None

    def _link(self, files: list[FileEntry], draft: Path) -> None:
        """Link files into a draft, which keeps their bytes, and check them. A damaged file is removed."""
        with self._changing():  # a link to a file that is being replaced fails
            for entry in files:
                try:
                    os.link(self._files / entry.sha256, draft / entry.name)
                except FileNotFoundError:
                    raise FileMissing(entry.name) from None
        for entry in files:
            if not matches(draft / entry.name, entry, sizes_only=False):
                with self._changing():
                    self._drop_if_damaged(entry)
                raise FileMissing(entry.name)

    def _publish(self, draft: Path, key: str) -> CachedPackage:
        with self._changing():
            found = self._inspect(key)
            if found is not None:  # another worker was faster
                return found
            self._remove(key)
            with contextlib.suppress(OSError):  # it was deleted with its lock, and another worker was faster
                draft.rename(self._packages / key)
            self._evict(keep=key)
            found = self._inspect(key)
        if found is None:
            raise FileMissing("package.json")
        return found

    def package(self, key: str) -> CachedPackage | None:
        """Return a package whose files have passed the checks; what does not pass is removed."""
        found = self._inspect(key)
        if found is not None:
            return found
        with contextlib.suppress(FileNotFoundError), self._changing():
            found = self._inspect(key)  # it may have been mended by now
            if found is None:
                self._remove_damaged(key)
        return found

    def _inspect(self, key: str) -> CachedPackage | None:
        """Return a package whose files pass the checks, and note that it was used."""
        folder = self._packages / key
        try:
            spec, files = read_manifest(folder)
            known = self._is_checked(folder)
            if not all(matches(folder / f.name, f, sizes_only=known) for f in files):
                return None
            if self._run is not None and not known:
                (folder / CHECKED).write_text(self._run)
            os.utime(folder)
        except UNREADABLE:
            return None
        return CachedPackage(key, folder, spec, files)

    def _is_checked(self, folder: Path) -> bool:
        """Tell whether this run of the engine has compared the hashes of a package."""
        try:
            return (folder / CHECKED).read_text() == self._run
        except FileNotFoundError:
            return False

    def remove(self, key: str) -> None:
        """Delete a package and those of its files that no other package links to."""
        with contextlib.suppress(FileNotFoundError), self._changing():
            self._remove(key)

    def _remove_damaged(self, key: str) -> None:
        """Delete a package, and those of the files it was made of that are damaged where they came from too."""
        with contextlib.suppress(*UNREADABLE):
            for entry in read_manifest(self._packages / key)[1]:
                self._drop_if_damaged(entry)
        self._remove(key)

    def _drop_if_damaged(self, entry: FileEntry) -> None:
        path = self._files / entry.sha256
        with contextlib.suppress(FileNotFoundError):
            if not matches(path, entry, sizes_only=False):
                path.unlink()

    def _remove(self, key: str) -> None:
        for mapped in self.mapped.glob(f"{key}-*/"):
            shutil.rmtree(mapped, ignore_errors=True)
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
            folders = (folder, *self.mapped.glob(f"{folder.name}-*/"))
            used += sum(map(_size, folders))
            if used > self._max_bytes and folder.name != keep:
                self._remove(folder.name)


def _size(folder: Path) -> int:
    """Return the bytes in a folder, 0 when it goes meanwhile."""
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0


def _is_fresh(path: Path) -> bool:
    """Tell whether a file was used lately; a time to come says that the clock was set back, not far for a running transfer."""
    return abs(time.time() - path.stat().st_mtime) < FRESH_SECONDS


def _delete(path: Path) -> None:
    """Remove a file or a folder that may be gone already."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
