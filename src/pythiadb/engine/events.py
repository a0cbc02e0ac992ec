"""The engine's log: one JSON object a line, one line a call, written by a thread so that no call waits for the disk."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import orjson

FLUSH_SECONDS = 0.2
MAX_PENDING = 100_000  # events; beyond it new ones are counted as lost


class EventLog:
    """Appends events to `path`; several processes may share it, each write holds whole lines.

    At `max_bytes` the file becomes `path.1`. Events that find the queue full are counted and reported.
    """

    def __init__(self, path: Path, max_bytes: int, **common: Any) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._common = common
        self._pending: deque[dict[str, Any]] = deque()
        self._lost = 0
        self._stop = threading.Event()
        self._fd = self._open()
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    def write(self, action: str, **fields: Any) -> None:
        """Queue one event; never blocks, never raises."""
        if len(self._pending) >= MAX_PENDING:
            self._lost += 1
            return
        self._pending.append({"time": time.time(), "action": action, **fields})

    def close(self) -> None:
        """Write what is queued and stop."""
        self._stop.set()
        self._thread.join()
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self._pending.append({"time": time.time(), "action": "log.lost", "events": lost})
        if not self._pending:
            return
        lines = [orjson.dumps({**self._pending.popleft(), **self._common}) for _ in range(len(self._pending))]
        with contextlib.suppress(OSError):  # a full disk must not stop the engine
            self._rotate()
            os.write(self._fd, b"\n".join(lines) + b"\n")

    def _rotate(self) -> None:
        """Start a new file when this one is full, or follow another process that did."""
        try:
            same = os.fstat(self._fd).st_ino == self._path.stat().st_ino
        except FileNotFoundError:
            same = False
        if same and os.fstat(self._fd).st_size < self._max_bytes:
            return
        if same:
            self._path.rename(self._path.with_name(self._path.name + ".1"))
        os.close(self._fd)
        self._fd = self._open()
