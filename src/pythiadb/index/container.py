"""The files of an index: arrays behind a header with magic, version and checksums, read by mapping; and how they appear at once.

    64 bytes    magic, version, length of the head, checksum of the head, checksum and length of the data, checksum of these
    head        JSON: kind of the file, facts, {name: [dtype, shape, offset in the data]}, filled up with blanks
    data        the arrays, each at a multiple of 64 bytes

A folder becomes visible by one rename after everything in it is on disk; its manifest names size and checksum of every file, so
that files of two builds, or half of one, are never taken for an index.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from pythiadb.errors import CorruptedIndex, OutOfMemory, PythiaError

MANIFEST: Final = "manifest.json"
_MAGIC = b"PYTHIAIX"
_VERSION = 1
_PREAMBLE = struct.Struct("<8sIIIIQ")
_CHECK = struct.Struct("<I")
_PREAMBLE_SIZE = 64
_ALIGNMENT = 64
_STREAM_HEAD = 4096 - 64  # a streamed file's head is written last, into room left for it
_BLOCK = 1 << 20
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_DRAFT = ".part"  # how the name of a folder ends that is not published yet; it begins with a dot

Array = NDArray[Any]


class StreamWriter:
    """Writer of a file with one array whose length is not known before, of rows with the shape `row`.

    Use as a context manager: the header is written at its end, so what breaks off is no file of an index.
    """

    def __init__(self, path: Path, kind: str, dtype: str, row: tuple[int, ...] = ()) -> None:
        self.path = path
        self.kind = kind
        self.dtype = np.dtype(dtype)
        self.row = row
        self.rows = 0
        self._checksum = 0
        self._length = 0
        self._file = path.open("wb")
        self._file.write(b"\0" * (_PREAMBLE_SIZE + _STREAM_HEAD))

    def add(self, values: Array) -> None:
        """Append rows."""
        data = np.ascontiguousarray(values, self.dtype).reshape(-1, *self.row)
        self.rows += len(data)
        if not data.size:
            return
        raw = data.reshape(-1).view(np.uint8).data
        self._checksum = zlib.crc32(raw, self._checksum)
        self._length += len(raw)
        self._file.write(raw)

    @property
    def offset(self) -> int:
        """Where in the file the next rows go."""
        return _PREAMBLE_SIZE + _STREAM_HEAD + self._length

    def close(self, header: Mapping[str, Any] | None = None) -> None:
        """Write the header, and all of it to disk."""
        if self._file.closed:
            return
        head = orjson.dumps(
            {
                "kind": self.kind,
                "header": header or {},
                "arrays": {"data": [self.dtype.str, [self.rows, *self.row], 0]},
            }
        ).ljust(_STREAM_HEAD)
        try:
            self._file.seek(0)
            self._file.write(_preamble(head, self._checksum, self._length) + head)
            _sync(self._file)
        finally:
            self._file.close()

    def discard(self) -> None:
        """Close the file as it is: without a header it is no file of an index."""
        self._file.close()

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def write(path: Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a file of several arrays, to disk."""
    parts: list[bytes] = []
    places: dict[str, Any] = {}
    at = 0
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        places[name] = [array.dtype.str, list(array.shape), at]
        parts.append(raw.ljust(_rounded(len(raw)), b"\0"))
        at += len(parts[-1])
    head = orjson.dumps({"kind": kind, "header": dict(header), "arrays": places})
    head = head.ljust(_rounded(len(head)))
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    with path.open("wb") as file:
        file.writelines([_preamble(head, checksum, at), head, *parts])
        _sync(file)


def read(path: Path, kind: str, *, verify: bool) -> tuple[dict[str, Any], dict[str, Array]]:
    """Map a file and return its facts and its arrays, read-only. Raises CorruptedIndex.

    The header is always checked; `verify` reads all data and compares their checksum.
    """
    raw = map_file(path)
    head, start = _read_head(raw, path)
    if head.get("kind") != kind:
        raise CorruptedIndex(f'"{path.name}" is not a file of kind {kind}')
    if verify and _checksum_of(raw, start) != _read_preamble(raw, path)[3]:
        raise _damaged(path)
    arrays = {name: _array(raw, start, place, path) for name, place in head["arrays"].items()}
    return head["header"], arrays


def read_array(path: Path, kind: str) -> Array:
    """Map the only array of a file that StreamWriter wrote."""
    return read(path, kind, verify=False)[1]["data"]


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file for reading; pages are shared by all processes.

    Raises CorruptedIndex when it is missing or empty, OutOfMemory when the process may not open or map one more.
    """
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise _unreadable("a file of a vector index cannot be read", path, error) from error


def target_name(name: str) -> str:
    """Return the name that a folder gets, or has, when it is published."""
    return name[1:].removesuffix(_DRAFT) if name.startswith(".") else name


class NewFolder:
    """A folder that is filled under another name and published whole by publish(), or removed by discard()."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}{_DRAFT}")
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, bring all to disk and give the folder its name. Raises OSError."""
        files = {
            str(file.relative_to(self.path)): [file.stat().st_size, _file_checksum(file)]
            for file in sorted(self.path.rglob("*"))
            if file.is_file()
        }
        body = orjson.dumps({**manifest, "files": files}, option=orjson.OPT_INDENT_2)
        with (self.path / MANIFEST).open("wb") as out:
            out.write(b"PYTHIA INDEX %d %08x\n" % (_VERSION, zlib.crc32(body)) + body)
            _sync(out)
        for name in files:
            sync_path(self.path / name)
        sync_path(self.path)
        self.path.rename(self.target)
        sync_path(self.target.parent)

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.path, ignore_errors=True)


def read_manifest(folder: Path, *, verify: bool) -> dict[str, Any]:
    """Return a published folder's manifest, after comparing the sizes of its files, with `verify` their checksums too.

    Raises CorruptedIndex when anything differs.
    """
    manifest = _parse_manifest(folder / MANIFEST)
    for name, (size, checksum) in manifest["files"].items():
        path = folder / name
        try:
            sound = path.stat().st_size == size and (not verify or _file_checksum(path) == checksum)
        except OSError as error:
            raise _unreadable("a file of a vector index is missing", path, error) from error
        if not sound:
            raise _damaged(path)
    return manifest


def folder_bytes(manifest: Mapping[str, Any]) -> int:
    """Return the size of a folder's files."""
    return sum(size for size, _ in manifest["files"].values())


def _parse_manifest(path: Path) -> dict[str, Any]:
    try:
        first, _, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise _unreadable("a vector index has no manifest", path, error) from error
    if first != b"PYTHIA INDEX %d %08x" % (_VERSION, zlib.crc32(body)):
        raise _damaged(path)
    return cast("dict[str, Any]", orjson.loads(body))


def _unreadable(what: str, path: Path, error: OSError | ValueError) -> PythiaError:
    if isinstance(error, OSError) and error.errno in _SCARCE:  # the file is not to blame
        return OutOfMemory(
            "the engine cannot open one more file of a vector index",
            detail=f'"{path}": {error.strerror}.',
            hint="Raise the limit on open files (ulimit -n) or on mappings (vm.max_map_count).",
        )
    return CorruptedIndex(f'{what}: "{path}"', detail=f"{error}.")


def _preamble(head: bytes, checksum: int, length: int) -> bytes:
    fixed = _PREAMBLE.pack(_MAGIC, _VERSION, len(head), zlib.crc32(head), checksum, length)
    return (fixed + _CHECK.pack(zlib.crc32(fixed))).ljust(_PREAMBLE_SIZE, b"\0")


def _read_preamble(raw: mmap.mmap, path: Path) -> tuple[int, int, int, int, int]:
    """Return version, length and checksum of the head, checksum and length of the data."""
    if len(raw) < _PREAMBLE_SIZE:
        raise _damaged(path)
    magic, *values = _PREAMBLE.unpack_from(raw)
    (check,) = _CHECK.unpack_from(raw, _PREAMBLE.size)
    if magic != _MAGIC or check != zlib.crc32(raw[: _PREAMBLE.size]):
        raise _damaged(path)
    version, head, head_checksum, checksum, length = values
    if version != _VERSION:
        raise CorruptedIndex(f'"{path.name}" has format {version}, not {_VERSION}')
    if len(raw) != _PREAMBLE_SIZE + head + length:
        raise _damaged(path)
    return version, head, head_checksum, checksum, length


def _read_head(raw: mmap.mmap, path: Path) -> tuple[dict[str, Any], int]:
    _, length, checksum, _, _ = _read_preamble(raw, path)
    start = _PREAMBLE_SIZE + length
    text = raw[_PREAMBLE_SIZE:start]
    if zlib.crc32(text) != checksum:
        raise _damaged(path)
    return cast("dict[str, Any]", orjson.loads(text)), start


def _array(raw: mmap.mmap, start: int, place: tuple[str, list[int], int], path: Path) -> Array:
    dtype, shape, at = place
    count = int(np.prod(shape, dtype=np.int64))
    try:
        return np.frombuffer(raw, np.dtype(dtype), count, start + at).reshape(shape)
    except ValueError as error:
        raise _damaged(path) from error


def _checksum_of(raw: mmap.mmap, start: int) -> int:
    checksum = 0
    with memoryview(raw) as view:
        for at in range(start, len(raw), _BLOCK):
            checksum = zlib.crc32(view[at : at + _BLOCK], checksum)
    return checksum


def _file_checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _damaged(path: Path) -> CorruptedIndex:
    return CorruptedIndex(
        f'a file of a vector index is damaged: "{path}"', hint="The index is built anew from its table."
    )


def _rounded(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
