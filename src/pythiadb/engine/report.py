"""What a worker tells about itself: an event a call in the log, and its status file."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pythiadb.engine.events import EventLog
from pythiadb.engine.status import WorkerStatus

if TYPE_CHECKING:
    from pythiadb.engine.session import Session
    from pythiadb.engine.worker import Worker

LATENCIES = 1000  # calls over which percentiles are taken


class Report:
    """The log and the status of one worker."""

    def __init__(self, worker: Worker, log: Path, folder: Path, number: int) -> None:
        self._worker = worker
        self._log = EventLog(log, worker.settings.log_bytes, worker=number, pid=os.getpid())
        self._status = WorkerStatus(folder / f"worker-{number}.json")
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._calls = self._errors = 0
        self._started = time.time()

    def start(self) -> list[dict[str, Any]]:
        """Note the start; return the models of a worker that had this number and ended without a farewell."""
        self._log.write("worker.start")
        return list(self._status.left_behind().get("models", []))

    def stop(self) -> None:
        """Note the end in order."""
        self._log.write("worker.stop")
        self._log.close()
        self._status.remove()

    def call(self, verb: str, session: Session, seconds: float, failure: str | None) -> None:
        """Count a call and log it; `failure` is its SQLSTATE."""
        self._calls += 1
        self._errors += failure is not None
        self._latencies.append(seconds)
        self._status.changed = True
        self._log.write(
            "call",
            verb=verb,
            db=session.dbname,
            backend=session.backend,
            ms=round(seconds * 1000, 3),
            sqlstate=failure,
        )

    def model_closed(self) -> None:
        """Note that a model is open no more: nobody need have called."""
        self._status.changed = True

    def write_if_changed(self) -> None:
        if self._status.changed or any(s.busy for s in self._worker.sessions):
            self._status.write(self._facts())

    def _facts(self) -> dict[str, Any]:
        latencies = sorted(self._latencies) or [0.0]
        process = psutil.Process()
        worker, counts = self._worker, self._worker.scheduler.counts
        return {
            "pid": process.pid,
            "started": self._started,
            "connections": len(worker.sessions),
            "calls": self._calls,
            "errors": self._errors,
            "queued_rows": worker.scheduler.queued,
            "runs": counts.runs,
            "rows": counts.rows,
            "busy_seconds": round(counts.seconds, 3),
            "p50_ms": round(latencies[len(latencies) // 2] * 1000, 3),
            "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1000, 3),
            "memory_bytes": process.memory_info().rss,
            "models": [
                {
                    "package": m.key, "db": m.dbname, "bytes": m.size, "load_seconds": round(m.load_seconds, 3),
                    "calls": m.calls, "rows": m.rows, "inmemory": m.inmemory, "mapped": m.mapped is not None,
                    "address": m.address,
                }
                for m in worker.models.all()
            ],
            "running": [
                {"backend": s.backend, "db": s.dbname, "done": s.progress.done + (s.request.finished_rows if s.request else 0),
                 "total": s.progress.total, "since": s.progress.since}
                for s in worker.sessions if s.busy
            ],
        }  # fmt: skip
