"""The engine's first process: owns the socket, starts workers and passes connections to them, ends in order.

It parses nothing that a client sends. For an embedded database it is the guardian too: it stops the server when no process
uses it any more.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pythiadb.engine.config import WorkerConfig
from pythiadb.engine.limits import allow_files
from pythiadb.engine.settings import Settings
from pythiadb.engine.workers import Workers
from pythiadb.errors import EngineUnavailable
from pythiadb.postgres.account import Account

BACKLOG = 512  # connections that may wait for a worker
TICK = 0.5  # seconds between looks at workers and users
CLAIM_SECONDS = 1.0  # others look at the pid file for moments

log = logging.getLogger("pythia.engine")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Where the engine listens, what it serves, who may talk to it."""

    run: Path  # folder of the socket
    folder: Path  # cache and status
    events: Path  # log file
    conninfo: str  # the PostgreSQL instance
    port: int  # names the socket
    account: Account  # runs the workers; its processes and root's may connect
    settings: Settings

    @property
    def socket_path(self) -> Path:
        return self.run / f".s.PGSQL.{self.port}"


class Guardian(Protocol):
    """Knows whether an embedded database is still used."""

    def is_unused(self) -> bool: ...

    def stop_if_unused(self, then: Callable[[], None], /) -> bool:
        """Stop the server and call `then` if nobody uses it; True when it was stopped."""


class Supervisor:
    """Runs until told to stop, or until its guardian finds the embedded database unused."""

    def __init__(self, config: EngineConfig, guardian: Guardian | None = None) -> None:
        self._config = config
        self._guardian = guardian
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._workers = Workers(_worker_config(config), self._selector)
        self._unused_since: float | None = None
        self._pid_file: int | None = None

    def run(self, on_listening: Callable[[], None] | None = None) -> None:
        """Serve; call `on_listening` once. Raises EngineUnavailable when another engine serves the same socket."""
        allow_files()
        self._claim()
        listener = self._listen()
        wakeup = self._catch_signals()
        self._announce()
        log.info("listening on %s, %d worker(s)", self._config.socket_path, len(self._workers))
        if on_listening is not None:
            on_listening()
        try:
            while not self._stopping:
                self._turn(listener, wakeup)
        finally:
            listener.close()
            self._workers.stop()
            self.release()

    def _claim(self) -> None:
        """Hold the pid file alone for life: that is how others see that an engine runs."""
        self._pid_file = os.open(
            self._config.run / "engine.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        deadline = time.monotonic() + CLAIM_SECONDS
        while True:
            try:
                fcntl.flock(self._pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EngineUnavailable(
                        f'another engine serves "{self._config.run}"', hint="Run: pythia engine status"
                    ) from None
                time.sleep(0.02)
            else:
                break
        os.ftruncate(self._pid_file, 0)

    def _announce(self) -> None:
        assert self._pid_file is not None
        os.pwrite(self._pid_file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go of the pid file: from here on the engine counts as stopped."""
        if self._pid_file is not None:
            os.ftruncate(self._pid_file, 0)
            os.close(self._pid_file)
            self._pid_file = None

    def _listen(self) -> socket.socket:
        path = self._config.socket_path
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        previous = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        self._config.account.own(path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return listener

    def _catch_signals(self) -> socket.socket:
        """Signals only wake the loop or set a flag."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        self._signal_writer = writer  # must outlive this call
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        self._selector.register(reader, selectors.EVENT_READ)
        return reader

    def _on_stop(self, *_: object) -> None:
        self._stopping = True

    def _turn(self, listener: socket.socket, wakeup: socket.socket) -> None:
        """One round: start what is missing, take what has come."""
        self._workers.look_after()
        self._watch_listener(listener)
        for key, _ in self._selector.select(TICK):
            if key.fileobj is wakeup:
                wakeup.recv(4096)
            elif key.fileobj is listener:
                self._accept(listener)
            else:
                self._workers.hear(key.data)
        self._watch_users()

    def _watch_listener(self, listener: socket.socket) -> None:
        """Accept only while a worker is ready: until then connections wait in the socket's backlog."""
        wanted = self._workers.any_ready
        watched = listener in self._selector.get_map()
        if wanted and not watched:
            self._selector.register(listener, selectors.EVENT_READ)
        elif watched and not wanted:
            self._selector.unregister(listener)

    def _accept(self, listener: socket.socket) -> None:
        """Pass every waiting connection of an allowed user to the workers in turn."""
        while self._workers.any_ready:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            if self._is_allowed(connection):
                self._workers.pass_on(connection)
            else:
                connection.close()

    def _is_allowed(self, connection: socket.socket) -> bool:
        """Only processes of the server's account, and root's, may talk to the engine."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        if uid in (0, self._config.account.uid):
            return True
        log.warning("refused a connection of user id %d", uid)
        return False

    def _watch_users(self) -> None:
        """Stop server and engine when nobody has used them for a while."""
        if self._guardian is None:
            return
        if not self._guardian.is_unused():
            self._unused_since = None
            return
        self._unused_since = self._unused_since or time.monotonic()
        if time.monotonic() - self._unused_since >= self._config.settings.linger_seconds:
            self._stopping = self._guardian.stop_if_unused(self._end)

    def _end(self) -> None:
        self._workers.stop()
        self._config.socket_path.unlink(missing_ok=True)
        self.release()


def _worker_config(config: EngineConfig) -> WorkerConfig:
    return WorkerConfig(
        str(config.folder), str(config.events), config.conninfo, config.account.name, config.account.uid,
        config.account.gid, secrets.token_hex(8), {n: getattr(config.settings, n) for n in config.settings.__slots__},
    )  # fmt: skip
