"""Watches over runs of models: notes them on the board, and ends those that take too long.

A run over its time is told to stop. ONNX Runtime looks at that request between operators, and between the turns of a loop;
a run that does not end within the grace period is inside one operator that cannot be stopped. Then the worker gives itself
up, naming the package, and the supervisor starts another.
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

TICK = 0.05  # seconds between looks while something runs
GRACE_SECONDS = 3.0  # between the request to stop and the end of the worker
EXIT_STUCK = 86  # status of a worker that gave itself up

log = logging.getLogger("pythia.engine")


@dataclass(slots=True, eq=False)
class Run:
    """One run: `seconds` is its limit; `expired` says that it was over it and told to stop."""

    key: str
    stop: Callable[[], None]
    seconds: float
    slot: int
    deadline: float
    give_up_at: float
    expired: bool = False


class Guard:
    """The runs of one worker. `max_run_seconds` is the usual limit."""

    def __init__(self, board: Board, max_run_seconds: float) -> None:
        self._board = board
        self._limit = max_run_seconds
        self._runs: set[Run] = set()
        self._active = threading.Event()
        threading.Thread(target=self._watch, name="guard", daemon=True).start()

    @property
    def busy(self) -> bool:
        return bool(self._runs)

    @contextlib.contextmanager
    def run(self, key: str, stop: Callable[[], None], seconds: float | None = None) -> Iterator[Run]:
        """Note a run of a package while the block lasts; call `stop` when it is over its time."""
        now = time.monotonic()
        limit = self._limit if seconds is None else seconds
        run = Run(key, stop, limit, self._board.note(key), now + limit, now + self._limit + GRACE_SECONDS)
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

    def _watch(self) -> None:
        while True:
            self._active.wait()
            time.sleep(TICK)
            now = time.monotonic()
            for run in list(self._runs):
                self._look_at(run, now)
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
