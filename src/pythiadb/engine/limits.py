"""How much memory the engine's processes may use."""

from __future__ import annotations

import os
import resource
from pathlib import Path

LEAST = 512 << 20  # bytes; less does not hold the libraries and a small model
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> int:
    """Return the memory of the machine or, where that is less, of the container, in bytes."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return physical


def limit_memory(size: int) -> None:
    """Let allocations of this process fail beyond `size` bytes of its own data.

    Weights that are mapped count too, because ONNX Runtime maps them privately: whoever opens a mapped model has to raise the
    limit by its size.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = max(size, LEAST)
    resource.setrlimit(
        resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
    )
