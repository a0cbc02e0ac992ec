"""Statements that may take long: run in a thread, while the engine says over a second connection how far they are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import psycopg

import pythiadb
from pythiadb.cli.display import progress_bar

PATIENCE = 0.7  # seconds until a statement counts as long
POLL_SECONDS = 0.3
Report = Callable[[int, int], None]  # texts embedded, texts in all


def execute_watched(
    connection: pythiadb.Connection,
    statement: str,
    *,
    watcher: Callable[[], pythiadb.Connection],
    report: AbstractContextManager[Report],
) -> psycopg.Cursor[Any]:
    """Run a statement; Ctrl-C cancels it, and while a long one runs, `report` is told how many texts are embedded.

    `watcher` opens the second connection, in autocommit mode. It and `report` are used only when the statement takes long.
    """
    outcome: list[psycopg.Cursor[Any] | BaseException] = []
    thread = threading.Thread(target=_run, args=(connection, statement, outcome), name="statement")
    thread.start()
    try:
        thread.join(PATIENCE)
        if thread.is_alive():
            with contextlib.suppress(psycopg.Error):  # it is only the report that is lost
                _watch(thread, connection.info.backend_pid, watcher, report)
    except KeyboardInterrupt:
        connection.cancel_safe(timeout=5.0)
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


@contextlib.contextmanager
def embedding_bar() -> Iterator[Report]:
    """Report by a bar on standard error, where somebody looks."""
    with progress_bar() as bar:
        task = bar.add_task("running", total=None)
        yield lambda done, total: bar.update(task, description="embedding", completed=done, total=total)


def _run(connection: pythiadb.Connection, statement: str, outcome: list[Any]) -> None:
    try:
        outcome.append(connection.execute(statement.encode()))
    except BaseException as error:
        outcome.append(error)


def _watch(
    thread: threading.Thread,
    backend: int,
    watcher: Callable[[], pythiadb.Connection],
    report: AbstractContextManager[Report],
) -> None:
    """Tell `report` how far the statement of a backend is until its thread ends."""
    with watcher() as other, report as tell:
        while thread.is_alive():
            row = other.execute("SELECT pythia.engine_status()").fetchone()
            workers = row[0]["workers"] if row else []
            for call in (call for worker in workers for call in worker["running"]):
                if call["backend"] == backend and call["total"] > 1:
                    tell(call["done"], call["total"])
            thread.join(POLL_SECONDS)
