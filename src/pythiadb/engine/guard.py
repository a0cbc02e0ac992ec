"""Watches over runs of models: notes them on the board, and ends those that take too long or too much memory.

A run over its time is told to stop. ONNX Runtime looks at that request between operators, and between the turns of a loop;
a run that does not end within the grace period is inside one operator that cannot be stopped. Then the worker gives itself
up, naming the package, and the supervisor starts another.

When the process uses more memory than it may, the run that has lasted longest is stopped if the memory has grown during it.
An allocation that goes far over the limit fails by itself, see engine/limits.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pythiadb.engine.board import Board
from pythiadb.engine.limits import RESERVE, limit_memory, memory_in_use

TICK = 0.05  # seconds between looks while something runs
GRACE_SECONDS = 3.0  # between the request to stop and the end of the worker
EXIT_STUCK = 86  # status of a worker that gave itself up
GROWTH = 64 << 20  # bytes; a run during which the memory has grown by less is not to blame for its want

log = logging.getLogger("pythia.engine")


@dataclass(slots=True, eq=False)
class Run:
    """One run: `seconds` is its limit; `expired` or `starved` say why it was told to stop. `memory` was in use before it."""

    key: str
    stop: Callable[[], None]
    seconds: float
    slot: int
    deadline: float
    give_up_at: float
    memory: int
    expired: bool = False
    starved: bool = False


class Guard:
    """The runs of one worker. `max_run_seconds` is the usual limit."""

    def __init__(self, board: Board, max_run_seconds: float) -> None:
        self._board = board
        self._limit = max_run_seconds
        self._memory_limit: int | None = None  # bytes
        self._memory = self._own = memory_in_use()  # at the last look, and what the libraries take
        self._runs: set[Run] = set()
        self._active = threading.Event()
        threading.Thread(target=self._watch, name="guard", daemon=True).start()

    def limit_memory(self, size: int) -> None:
        """Let the worker use `size` bytes for models beside what it began with, and a little more for itself.

        What it began with is mostly address space that libraries have set aside: half a gigabyte, which nobody can lower.
        """
        self._memory_limit = self._own + size
        limit_memory(self._memory_limit + RESERVE)

    @contextlib.contextmanager
    def run(self, key: str, stop: Callable[[], None], seconds: float | None = None) -> Iterator[Run]:
        """Note a run of a package while the block lasts; call `stop` when it is over its time."""
        now = time.monotonic()
        limit = self._limit if seconds is None else seconds
        slot, give_up_at = self._board.note(key), now + self._limit + GRACE_SECONDS
        run = Run(key, stop, limit, slot, now + limit, give_up_at, self._memory)
        self._runs.add(run)
        if not self._active.is_set():
            self._active.set()
        try:
            yield run
        finally:
            self._runs.discard(run)
            self._board.clear(run.slot)

    @contextlib.contextmanager
    def opening(self, key: str) -> Iterator[None]:
        """Note that a package is being opened; that may take any time, but it may crash."""
        slot = self._board.note(key)
        try:
            yield
        finally:
            self._board.clear(slot)
            self._memory = memory_in_use()

    def _watch(self) -> None:
        while True:
            self._active.wait()
            time.sleep(TICK)
            now = time.monotonic()
            runs = list(self._runs)
            for run in runs:
                self._look_at(run, now)
            self._look_at_memory(runs)
            if not self._runs:
                self._active.clear()
                if self._runs:  # one began between the two lines above
                    self._active.set()

    def _look_at(self, run: Run, now: float) -> None:
        if now > run.deadline and not run.expired:
            run.expired = True
            run.stop()
        elif now > run.give_up_at and run in self._runs:
            self._board.blame(run.slot)
            log.error("model package %s does not stop: the worker ends", run.key)
            os._exit(EXIT_STUCK)

    def _look_at_memory(self, runs: list[Run]) -> None:
        used = memory_in_use()
        if self._memory_limit is not None and used > self._memory_limit:
            for run in sorted(runs, key=lambda run: run.deadline)[:1]:
                if not (run.starved or run.expired) and used - run.memory > GROWTH:
                    run.starved = True
                    run.stop()
        self._memory = used
