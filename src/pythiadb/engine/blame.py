"""Which model is to blame when a worker has died.

A model that crashed the engine is put into quarantine: for a while its calls are refused, while everybody else's go on. Who
that is, is certain when the worker named it, or when it alone was running. Otherwise those that were running are suspects: a
worker runs the next call of a suspect in a throw-away process first, and a suspect that survives is cleared.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

from pythiadb.engine.board import Board
from pythiadb.engine.guard import EXIT_STUCK

CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE, -signal.SIGTRAP}


class Verdict(NamedTuple):
    """Packages to refuse, and packages to try in a throw-away process first."""

    guilty: list[str]
    suspects: list[str]


def judge(status: int | None, board: Board, *, out_of_memory: bool) -> Verdict:
    """Return who is to blame for the end of a worker.

    `status` is as subprocess gives it (negative: a signal), None if nobody knows it. `out_of_memory` says that the kernel
    killed some process for want of memory in the meantime; without it SIGKILL came from a person, and no model is to blame.
    """
    running = board.running()
    if status == EXIT_STUCK:
        return Verdict(board.stuck(), [])
    if status in CRASHES and len(running) == 1:
        return Verdict(running, [])
    if status is None or status in CRASHES or (status == -signal.SIGKILL and out_of_memory):
        return Verdict([], running)
    return Verdict([], [])


def memory_kills() -> int:
    """Return how many processes the kernel has killed for want of memory, as far as it tells."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
