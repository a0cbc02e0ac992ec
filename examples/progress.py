"""Run a statement and hear from the engine, over a second connection, how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from pythiadb import Connection, Cursor

PATIENCE = 0.7  # seconds until a statement counts as long
POLL_SECONDS = 0.3
Report = Callable[[int, int], None]  # texts embedded, texts in all


def execute_watched(
    connection: Connection,
    statement: str,
    *,
    watcher: Callable[[], Connection],
    report: AbstractContextManager[Report],
) -> Cursor:
    """Run a statement in a thread; Ctrl-C cancels it, and while a long one runs, `report` is told how many texts are done.

    `watcher` opens the second connection, in autocommit; it and `report` are used only if the statement takes long.
    """
    outcome: list[Cursor | BaseException] = []
    thread = threading.Thread(target=_run, args=(connection, statement, outcome), name="statement")
    thread.start()
    try:
        thread.join(PATIENCE)
        if thread.is_alive():
            with watcher() as other, report as tell:
                while thread.is_alive():
                    _tell(other, connection.info.backend_pid, tell)
                    thread.join(POLL_SECONDS)
    except KeyboardInterrupt:
        connection.cancel_safe(timeout=5.0)
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _run(connection: Connection, statement: str, outcome: list[Cursor | BaseException]) -> None:
    try:
        outcome.append(connection.execute(statement))  # type: ignore[arg-type]  # our cursors
    except BaseException as error:
        outcome.append(error)


def _tell(other: Connection, backend: int, tell: Report) -> None:
    status: Any = other.execute("SELECT pythia.engine_status()").fetchone()
    calls = [
        call for worker in status[0]["workers"] for call in worker["running"] if call["backend"] == backend
    ]
    if calls and calls[0]["total"] > 1:
        tell(calls[0]["done"], calls[0]["total"])
