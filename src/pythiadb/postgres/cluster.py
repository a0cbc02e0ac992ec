"""Embedded databases shared between processes: who starts the server, who stops it.

Every process that uses a directory holds a shared lock on `users` for as long as it lives. Starting and stopping happen
under an exclusive lock on `lock`. The engine's supervisor is the guardian: when it can have `users` for itself, nobody is
left, and it stops the server and itself. Locks die with their processes, so a killed process wedges nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pythiadb.errors import ClusterError
from pythiadb.postgres import install
from pythiadb.postgres.layout import Layout
from pythiadb.postgres.locks import FileLock, exclusive
from pythiadb.postgres.server import START_TIMEOUT, STOP_TIMEOUT, SUPERUSER, Server

TRANSITION_TIMEOUT = (
    START_TIMEOUT + STOP_TIMEOUT
)  # seconds to wait for another process that starts or stops the server
ENGINE_TIMEOUT = 30  # seconds until the engine listens

_memberships: dict[Path, Membership] = {}
_guard = threading.Lock()


@dataclass(slots=True)
class Membership:
    """This process's share of one running database; counts the connections that use it."""

    server: Server
    lock: FileLock
    pid: int
    uses: int = 0


def join(directory: str | os.PathLike[str], *, keep_running: bool = False) -> Server:
    """Make sure that the database in `directory` runs, and hold it; every call needs one `leave`.

    Creates the directory, the server and the schema when they do not exist. Raises ClusterError when that fails.
    """
    root = Path(directory).expanduser().resolve()
    with _guard:
        membership = _memberships.get(root)
        if membership is None or membership.pid != os.getpid():  # a forked child needs a lock of its own
            membership = _enter(root)
            _memberships[root] = membership
        membership.uses += 1
        if keep_running:
            membership.server.layout.keep_running.touch()
    return membership.server


def _enter(root: Path) -> Membership:
    server = Server.at(root)
    server.layout.create(server.account)
    with exclusive(server.layout.lock, timeout=TRANSITION_TIMEOUT):
        lock = FileLock(server.layout.users)
        lock.shared()
        try:
            _ensure_running(server)
        except BaseException:
            lock.close()
            raise
    return Membership(server, lock, os.getpid())


def leave(server: Server) -> None:
    """Give up one `join`; after the last one of the last process the guardian stops the server."""
    with _guard:
        membership = _memberships.get(server.layout.root)
        if membership is None or membership.pid != os.getpid():
            return
        membership.uses -= 1
        if membership.uses == 0:
            membership.lock.close()
            del _memberships[server.layout.root]


def ensure_running(server: Server) -> None:
    """Start again what died: the server, the engine. The caller holds the database."""
    with exclusive(server.layout.lock, timeout=TRANSITION_TIMEOUT):
        _ensure_running(server)


def _ensure_running(server: Server) -> None:
    """Start what does not run, under the lock."""
    if not server.exists():
        server.init()
    server.check_version()
    if server.pid() is None:
        server.start()
    install.ensure(server.conninfo())
    start_engine(server)


def start_engine(server: Server) -> None:
    """Start the engine beside the server unless it runs, and wait until it listens."""
    if engine_pid(server.layout) is not None:
        return
    arguments = [sys.executable, "-m", "pythiadb.engine", "--detach", "--data", str(server.layout.root)]
    with server.layout.engine_log.open("ab") as log:
        try:
            subprocess.run(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                check=True,
                timeout=ENGINE_TIMEOUT,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise ClusterError("the engine did not start", hint=f"See {server.layout.engine_log}.") from error


def engine_pid(layout: Layout) -> int | None:
    """Return the process id of the engine's supervisor, or None when none listens.

    The supervisor holds its lock file alone for as long as it lives and writes its number into it once it listens.
    """
    path = layout.engine_run / "engine.pid"
    try:
        lock = FileLock(path)
    except OSError:
        return None
    try:
        if lock.try_exclusive():
            return None
        text = path.read_text().strip()
        return int(text) if text else None
    finally:
        lock.close()


def stop(directory: str | os.PathLike[str]) -> bool:
    """Stop the engine and the server of `directory` now, whoever uses them; return False when nothing ran."""
    server = Server.at(Path(directory).expanduser().resolve())
    if not server.exists():
        raise ClusterError(f'there is no database in "{server.layout.root}"')
    with exclusive(server.layout.lock, timeout=TRANSITION_TIMEOUT):
        server.layout.keep_running.unlink(missing_ok=True)
        was_running = server.pid() is not None
        stop_engine(server.layout)
        server.stop()
    return was_running


def stop_engine(layout: Layout) -> None:
    """End the supervisor in order; kill it when it does not end."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        pid = engine_pid(layout)
        if pid is None:
            return
        os.kill(pid, number)
        deadline = time.monotonic() + patience
        while engine_pid(layout) == pid and time.monotonic() < deadline:
            time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Guardian:
    """Watches the users of an embedded database, for the engine's supervisor."""

    server: Server

    def is_unused(self) -> bool:
        """True when no process holds the database and nobody asked to keep it running."""
        layout = self.server.layout
        if layout.keep_running.exists():
            return False
        users = FileLock(layout.users)
        try:
            return users.try_exclusive()
        finally:
            users.close()

    def stop_if_unused(self, then: Callable[[], None]) -> bool:
        """Stop the server and call `then` if no process uses it any more; True when it was stopped.

        `then` runs under the lock: it must make the engine look stopped, or the next user would take it for alive.
        """
        transition = FileLock(self.server.layout.lock)
        try:
            if not (transition.try_exclusive() and self.is_unused()):
                return False
            self.server.stop()
            then()
            return True
        finally:
            transition.close()


__all__ = [
    "SUPERUSER",
    "Guardian",
    "engine_pid",
    "ensure_running",
    "join",
    "leave",
    "start_engine",
    "stop",
    "stop_engine",
]
