"""Whose a temporary file is: its name begins with the process that made it, so that what the dead have left can be told.

A process is named by its number and the moment of its start, in the kernel's ticks since boot: numbers come again, and clocks are set.
"""

from __future__ import annotations

import os
from pathlib import Path


def prefix() -> str:
    """Return how the names of this process' temporary files begin."""
    number = os.getpid()
    return f"{number}-{_started(number)}-"


def is_left_behind(name: str) -> bool:
    """Tell whether no process lives that could have made a file of this name. Names without a process are nobody's."""
    number, _, rest = name.partition("-")
    started = rest.partition("-")[0]
    return not (number.isdecimal() and started.isdecimal() and _started(int(number)) == started)


def _started(number: int) -> str | None:
    """Return when a process was started; None when there is none, or none but its exit status."""
    try:
        status = Path(f"/proc/{number}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = status.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
