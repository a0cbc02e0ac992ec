"""What a worker is running at this moment, in memory that outlives it: so its end can be blamed on a model.

The supervisor makes the memory and hands it to the worker. Each slot holds one package's key while a thread runs or opens
that package, and a mark when the worker gave itself up because of it.
"""

from __future__ import annotations

import mmap
import os

SLOTS = 2048  # more than threads that can run models
_KEY = 64  # bytes of a package's key
_SLOT = _KEY + 1
_RUNNING, _STUCK = b"r", b"s"
SIZE = SLOTS * _SLOT


def new_board() -> int:
    """Return the file descriptor of empty memory for a board."""
    descriptor = os.memfd_create("pythia-board")
    os.ftruncate(descriptor, SIZE)
    return descriptor


class Board:
    """A view of the memory behind a file descriptor, which may be closed afterwards."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SIZE)
        self._free = list(range(SLOTS))

    def note(self, key: str) -> int:
        """Note that a package runs; return its slot."""
        slot = self._free.pop()
        start = slot * _SLOT
        self._memory[start : start + _SLOT] = key.encode()[:_KEY].ljust(_KEY) + _RUNNING
        return slot

    def clear(self, slot: int) -> None:
        """Note that the run is over."""
        self._memory[slot * _SLOT + _KEY] = 0
        self._free.append(slot)

    def blame(self, slot: int) -> None:
        """Note that the worker ends because of this run."""
        self._memory[slot * _SLOT + _KEY] = _STUCK[0]

    def running(self) -> list[str]:
        """Return the packages that run, each once."""
        return self._keys(_RUNNING + _STUCK)

    def stuck(self) -> list[str]:
        """Return the packages that the worker was ended for."""
        return self._keys(_STUCK)

    def close(self) -> None:
        self._memory.close()

    def _keys(self, marks: bytes) -> list[str]:
        slots = (self._memory[n * _SLOT : (n + 1) * _SLOT] for n in range(SLOTS))
        return sorted({slot[:_KEY].decode().strip() for slot in slots if slot[_KEY] in marks})
