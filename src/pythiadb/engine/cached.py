"""What lies in the engine's cache: files that are named by their hash, packages with a manifest, and files on their way in."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from pythiadb.errors import InvalidModel
from pythiadb.models.package import is_stored_name
from pythiadb.postgres import owners

HASH = re.compile(r"[0-9a-f]{64}")
# What reading a damaged package may raise.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, InvalidModel)


class FileMissing(InvalidModel):
    """A file of a package is not in the cache, or not any more."""

    def __init__(self, name: str) -> None:
        super().__init__(f'the engine does not have the model file "{name}"', hint="Load it again.")


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
        if not is_stored_name(entry.name) or not HASH.fullmatch(entry.sha256):
            raise InvalidModel(f'invalid file entry "{entry.name}" of a model package')
        return entry


@dataclass(frozen=True, slots=True)
class CachedPackage:
    """A package on disk: its folder and the spec as stored in the database."""

    key: str
    folder: Path
    spec: dict[str, Any]
    files: tuple[FileEntry, ...]


def manifest(spec: dict[str, Any], files: Iterable[FileEntry]) -> bytes:
    """Return the text of a package's package.json."""
    return orjson.dumps({"spec": spec, "files": [asdict(entry) for entry in files]})


def read_manifest(folder: Path) -> tuple[dict[str, Any], tuple[FileEntry, ...]]:
    """Return spec and files of a package's folder. Raises one of UNREADABLE."""
    found = orjson.loads((folder / "package.json").read_bytes())
    return found["spec"], tuple(FileEntry.from_json(f) for f in found["files"])


def matches(path: Path, entry: FileEntry, *, sizes_only: bool) -> bool:
    """Tell whether a file has its size, and its hash unless `sizes_only`. Raises FileNotFoundError."""
    if path.stat().st_size != entry.size:
        return False
    if sizes_only:
        return True
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == entry.sha256


class IncomingFile:
    """A file on its way in: append the bytes in order, then finish."""

    def __init__(self, folder: Path, place: Callable[[Path, str], None], sha256: str, size: int) -> None:
        handle, name = tempfile.mkstemp(dir=folder, prefix=owners.prefix())
        self._stream = os.fdopen(handle, "wb")
        self._path = Path(name)
        self._place = place
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
        self._place(self._path, self._sha256)

    def close(self) -> None:
        """Give up what was not finished."""
        self._stream.close()
        self._path.unlink(missing_ok=True)
