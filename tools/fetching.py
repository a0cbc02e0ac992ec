"""What the tools that fetch models and data sets share: one at a time, is a file there and right, why did a program fail."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder if need be, and let one process at a time fetch into it: tests run side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def digest(path: Path) -> str | None:
    """Return the SHA-256 of a file in hexadecimal; None when there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: Exception) -> str:
    """Return the last line that a failed program wrote, or the error's own text."""
    output = getattr(error, "stderr", None)
    return str(output).strip().splitlines()[-1] if output else str(error)
