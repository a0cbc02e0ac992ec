"""Advisory file locks between processes: the kernel gives them back when a process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pythiadb.errors import ClusterError


class FileLock:
    """One open lock file; holds at most one lock at a time, shared or exclusive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_exclusive(self) -> bool:
        """Take the lock alone if nobody else holds it; a shared lock of this object is turned into an exclusive one."""
        return self._try(fcntl.LOCK_EX)

    def exclusive(self) -> None:
        """Take the lock alone, however long others hold it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def shared(self) -> None:
        """Take the lock together with others. Holders of an exclusive lock keep it only for moments."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_in_place(self) -> bool:
        """False when the file was deleted: another process may hold the lock of another one with its name."""
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Give the lock back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextmanager
def exclusive(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold `path` alone during the block; wait at most `timeout` seconds, then raise ClusterError."""
    lock = FileLock(path)
    deadline = time.monotonic() + timeout
    try:
        while not lock.try_exclusive():
            if time.monotonic() > deadline:
                raise ClusterError(
                    f'could not get the lock "{path}" within {timeout:.0f} s',
                    detail="Another process is starting or stopping the server in this directory.",
                    hint="Run: pythia status",
                )
            time.sleep(0.02)
        yield
    finally:
        lock.close()


@contextmanager
def exclusive_even_if_deleted(path: Path) -> Iterator[None]:
    """Hold `path` alone during the block; waits for as long as it takes. The file and its folder may be deleted at any moment.

    When that happens during the block, another process may hold the lock of a new file of that name.
    """
    lock = _in_place(path)
    try:
        yield
    finally:
        lock.close()


def _in_place(path: Path) -> FileLock:
    while True:
        make_folder(path.parent)
        with suppress(FileNotFoundError):  # deleted just now
            lock = FileLock(path)
            lock.exclusive()
            if lock.is_in_place():
                return lock
            lock.close()


def make_folder(folder: Path) -> None:
    """Make a private folder that others may make, and delete, at the same time."""
    for _ in range(10):
        with suppress(
            FileExistsError, FileNotFoundError
        ):  # it was there, and was deleted before it was looked at
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
