"""The keys of a segment's rows: from a row to its key, and from many keys to their rows at once.

`int` keys are int64. `uuid` keys are 16 bytes each, `text` keys their UTF-8 bytes one after another; both are found by a sorted
list of 64-bit hashes and then compared. Rows that came in the order of their int keys need no second list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pythiadb.index import container

KeyList: TypeAlias = "NDArray[np.int64] | Sequence[str] | Sequence[int]"
Positions = NDArray[np.int64]
Hashes = NDArray[np.int64]

_KIND = "keys"


class KeyWriter:
    """Writer of the keys of one segment."""

    def __init__(self, folder: Path, key_type: str) -> None:
        self.folder = folder
        self.key_type = key_type
        self._hashes: list[Hashes] = []
        dtype, row = {"int": ("<i8", ()), "uuid": ("u1", (16,)), "text": ("u1", ())}[key_type]
        self._values = container.StreamWriter(folder / "keys", _KIND, dtype, row)
        self._lengths: list[NDArray[np.int64]] = []

    def add(self, keys: KeyList) -> int:
        """Append keys and return how many they are."""
        if self.key_type == "int":
            numbers = _numbers(keys)
            self._values.add(numbers)
            self._hashes.append(numbers)
            return len(numbers)
        encoded = _encoded(keys, self.key_type)
        self._values.add(np.frombuffer(b"".join(encoded), np.uint8))
        self._hashes.append(_hashes(encoded, self.key_type))
        self._lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        return len(encoded)

    def finish(self) -> None:
        """Write the files.."""
        self._values.close()
        if self.key_type == "text":
            ends = np.cumsum(np.concatenate([[0], *self._lengths]), dtype=np.int64)
            container.write(self.folder / "key_ends", _KIND, {}, {"data": ends})
        hashes = np.concatenate([np.zeros(0, np.int64), *self._hashes])
        if self.key_type != "int" or (len(hashes) > 1 and not bool((np.diff(hashes) > 0).all())):
            order = np.argsort(hashes, kind="stable")
            arrays = {
                "hashes": hashes[order],
                "rows": order.astype(np.uint32 if len(order) < 1 << 32 else np.int64),
            }
            container.write(self.folder / "key_order", _KIND, {}, arrays)

    def close(self) -> None:
        """Close the file of a segment that is given up."""
        self._values.discard()


def open_keys(folder: Path, key_type: str) -> Keys:
    """Map the keys of a segment. Raises CorruptedIndex."""
    kinds: dict[str, type[Keys]] = {"int": IntKeys, "uuid": UuidKeys, "text": TextKeys}
    return kinds[key_type](folder)


class Keys(ABC):
    """The keys of a segment's rows."""

    key_type: str

    def __init__(self, folder: Path) -> None:
        self.values = container.read_array(folder / "keys", _KIND)
        self._hashes: NDArray[Any] = self.values
        self._rows: NDArray[Any] | None = None
        if (folder / "key_order").exists():
            _, arrays = container.read(folder / "key_order", _KIND, verify=False)
            self._hashes, self._rows = arrays["hashes"], arrays["rows"]

    @abstractmethod
    def find(self, keys: KeyList) -> Positions:
        """Return for each key its row, -1 where there is none."""

    @abstractmethod
    def texts(self, positions: Positions) -> list[str]:
        """Return the keys of rows as PostgreSQL writes them."""

    def take(self, positions: Positions) -> KeyList:
        """Return the keys of rows as KeyWriter takes them."""
        return self.texts(positions)

    def _row_numbers(self, places: NDArray[np.int64]) -> Positions:
        return places if self._rows is None else self._rows[places].astype(np.int64)


class IntKeys(Keys):
    """Keys of smallint, int and bigint."""

    key_type = "int"

    def find(self, keys: KeyList) -> Positions:
        """Return for each key its row, -1 where there is none."""
        wanted = _numbers(keys)
        if not len(self._hashes):
            return np.full(len(wanted), -1, np.int64)
        places = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return np.where(self._hashes[places] == wanted, self._row_numbers(places), -1)

    def texts(self, positions: Positions) -> list[str]:
        """Return the keys of rows as PostgreSQL writes them."""
        return list(map(str, self.values[positions].tolist()))

    def take(self, positions: Positions) -> KeyList:
        """Return the keys of rows as KeyWriter takes them."""
        taken: NDArray[np.int64] = self.values[positions]
        return taken


class _HashedKeys(Keys):
    """Keys that are found by their hashes and then compared."""

    def find(self, keys: KeyList) -> Positions:
        """Return for each key its row, -1 where there is none."""
        wanted = _encoded(keys, self.key_type)
        hashes = _hashes(wanted, self.key_type)
        found = np.full(len(wanted), -1, np.int64)
        places = np.searchsorted(self._hashes, hashes)
        open_ones = np.arange(len(wanted))
        while len(open_ones):  # more than once only where hashes collide
            inside = places[open_ones] < len(self._hashes)
            open_ones = open_ones[inside]
            open_ones = open_ones[self._hashes[places[open_ones]] == hashes[open_ones]]
            rows = self._row_numbers(places[open_ones])
            same = self._equal(rows, [wanted[place] for place in open_ones.tolist()])
            found[open_ones[same]] = rows[same]
            open_ones = open_ones[~same]
            places[open_ones] += 1
        return found

    def _equal(self, rows: Positions, wanted: list[bytes]) -> NDArray[np.bool_]:
        stored = self._stored(rows)
        return np.fromiter(
            (one == other for one, other in zip(stored, wanted, strict=True)), np.bool_, len(rows)
        )

    @abstractmethod
    def _stored(self, rows: Positions) -> list[bytes]:
        """Return the keys of rows as they are hashed."""


class UuidKeys(_HashedKeys):
    """Keys of type uuid."""

    key_type = "uuid"

    def texts(self, positions: Positions) -> list[str]:
        """Return the keys of rows as PostgreSQL writes them."""
        return [str(UUID(bytes=raw)) for raw in self._stored(positions)]

    def _stored(self, rows: Positions) -> list[bytes]:
        raw = self.values[rows].tobytes()
        return [raw[at : at + 16] for at in range(0, len(raw), 16)]


class TextKeys(_HashedKeys):
    """Keys of type text and varchar."""

    key_type = "text"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ends = container.read(folder / "key_ends", _KIND, verify=False)[1]["data"]

    def texts(self, positions: Positions) -> list[str]:
        """Return the keys of rows as PostgreSQL writes them."""
        return [raw.decode() for raw in self._stored(positions)]

    def _stored(self, rows: Positions) -> list[bytes]:
        starts, ends = self._ends[rows].tolist(), self._ends[rows + 1].tolist()
        return [self.values[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]


def _numbers(keys: KeyList) -> NDArray[np.int64]:
    return np.asarray(keys).astype(np.int64) if len(keys) else np.zeros(0, np.int64)


def _encoded(keys: KeyList, key_type: str) -> list[bytes]:
    if key_type == "uuid":
        return [UUID(str(key)).bytes for key in keys]
    return [str(key).encode() for key in keys]


def _hashes(encoded: list[bytes], key_type: str) -> Hashes:
    if key_type == "uuid":
        halves = np.frombuffer(b"".join(encoded), np.int64).reshape(-1, 2)
        return np.asarray(halves[:, 0] ^ halves[:, 1])
    return np.frombuffer(b"".join(blake2b(raw, digest_size=8).digest() for raw in encoded), np.int64)
