"""How much memory the engine's processes may use, and how many files."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

LEAST = 128 << 20  # bytes beside what a process has when it begins; less does not hold a small model
RESERVE = 256 << 20  # bytes that only the worker itself may use, so that a greedy model fails before it does
MOST_FILES = 65_536  # open at a time: a session takes one, a segment of a vector index eight or so
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ARENA_MAX = -8  # of mallopt()


def machine_memory() -> int:
    """Return the memory of the machine or, where that is less, of the container, in bytes."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return physical


def memory_in_use() -> int:
    """Return the bytes of this process that `limit_memory` bounds; cheap."""
    return int(Path("/proc/self/statm").read_bytes().split()[5]) * _PAGE


def limit_heaps(count: int) -> None:
    """Let threads share so many heaps: the C library would give nearly each one of its own, where what was freed stays."""
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).mallopt(_ARENA_MAX, count)


def trim_memory() -> None:
    """Give memory that was freed back to the system."""
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)


def allow_files() -> None:
    """Let this process and its children open as many files as the system lets them, 65,536 at most; 1,024 is usual else."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if most == resource.RLIM_INFINITY else min(most, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(least, wanted), most))


def limit_memory(size: int) -> None:
    """Let allocations of this process fail beyond `size` bytes of its own data.

    Weights that are mapped count too, because ONNX Runtime maps them privately: whoever opens a mapped model has to raise the
    limit by its size.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(
        resource.RLIMIT_DATA, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard)
    )
