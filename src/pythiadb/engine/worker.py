"""A worker process: serves the backends whose connections the supervisor passes to it, and runs the models for them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import uvloop

from pythiadb.engine.board import Board
from pythiadb.engine.cache import Cache
from pythiadb.engine.calls import VERBS
from pythiadb.engine.child import Children
from pythiadb.engine.commands import Command
from pythiadb.engine.config import Birth, WorkerConfig
from pythiadb.engine.guard import Guard
from pythiadb.engine.handlers import Handlers
from pythiadb.engine.index_files import IndexFiles
from pythiadb.engine.limits import limit_heaps, trim_memory
from pythiadb.engine.models import ModelRegistry, Stores
from pythiadb.engine.quarantine import Quarantine
from pythiadb.engine.report import Report
from pythiadb.engine.requests import Finished
from pythiadb.engine.running import Runner
from pythiadb.engine.scheduler import Scheduler
from pythiadb.engine.searching import Searcher
from pythiadb.engine.searching_many import ManySearcher
from pythiadb.engine.session import Frequent, Session, unknown_verb
from pythiadb.engine.settings import Settings
from pythiadb.errors import PythiaError
from pythiadb.index.parallel import THREADS
from pythiadb.models.mapped import MappedStore
from pythiadb.models.session import Model, trim_arena
from pythiadb.postgres.model_store import ModelStore

STATUS_SECONDS = 0.25  # how often a changed status is written
SECRET_SECONDS = 0.1  # how often a database is asked for its secret again when signatures fail
STOP_SECONDS = 10  # how long running calls may take to end when the worker stops
CLOSE_SECONDS = 60.0  # how long a closed model is waited for, which may have much in its line
COLLECT_SECONDS = 0.1  # between looks whether it is gone
REST_SECONDS = 1.0  # without a run; then what runs needed goes back to the system
RELEASE_SECONDS = 1.0  # how long a caller who had no memory waits for the model to be closed
GC_THRESHOLD = 20_000  # objects between collections: a call leaves a few, and none in cycles
MESSAGE_BYTES = 4096


class Worker:
    """State and commands of one worker; everything runs in its event loop unless a method says otherwise."""

    def __init__(self, config: WorkerConfig, birth: Birth, control: socket.socket, board: Board) -> None:
        self.folder = Path(config.folder)
        self.settings = Settings(**config.settings)
        self.loop = asyncio.get_running_loop()
        self.sessions: set[Session] = set()
        self.secrets: dict[str, bytes] = {}
        self.stopping = asyncio.Event()
        self._secrets_read = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._control = control
        self.stores = Stores(
            Cache(self.folder / "cache", self.settings.cache_bytes, config.run),
            ModelStore(config.conninfo),
            MappedStore(self.folder / "cache" / "mapped", config.run),
            Children(control, self.settings.worker_memory_bytes),
        )
        guard = Guard(board, self.settings.max_run_seconds)
        guard.limit_memory(self.settings.worker_memory_bytes)
        THREADS.use(self.settings.threads)
        self.scheduler = Scheduler(self.settings.max_queued_rows, guard, self._finish_soon)
        self.models = ModelRegistry(self.stores, self.settings, guard, self._forget_soon)
        self.quarantine = Quarantine(self.settings.quarantine_seconds, birth.quarantine, birth.suspects)
        self.runner = Runner(self)
        self.index_files = IndexFiles(self.folder / "indexes")
        self.searcher = Searcher(self, self.index_files)
        self.frequent: dict[str, Frequent] = {
            **dict.fromkeys(VERBS, self.runner),
            "search": self.searcher,
            "search-many": ManySearcher(self, self.searcher),
        }
        self._handlers = Handlers(self)
        # Pieces and pictures are prepared in one pool; what waits for files and other processes has its own.
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="prepare")
        self._slow_pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="handle")
        self.report = Report(self, Path(config.log), self.folder / "status", birth.number)

    async def run(self) -> None:
        """Serve until told to stop, then let running calls end."""
        self._control.setblocking(False)
        self.loop.add_reader(self._control, self._hear)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stopping.set)
        # What is loaded by now stays: without it, each of the frequent small collections is several times cheaper.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        self._control.send(b"ready")
        self._slow_pool.submit(self.stores.cache.sweep)
        before = self.report.start()
        reopening = self.loop.create_task(self._reopen(before))
        status = self.loop.create_task(self._keep_status())
        await self.stopping.wait()
        self.loop.remove_reader(self._control)
        await self._drain()
        self.searcher.captures.hand_on()
        for task in (status, reopening):
            task.cancel()
        self.report.stop()

    def _hear(self) -> None:
        """Take a connection or a message from the supervisor; its end of the channel closed means that it is gone."""
        data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 1)
        if not data:
            self.stopping.set()
        for descriptor in descriptors:
            self._control.send(b"taken")
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            self.loop.create_task(self._serve(connection))
        if data[:1] == b"{":
            self.quarantine.refuse(orjson.loads(data)["refuse"])

    async def _serve(self, connection: socket.socket) -> None:
        await self.loop.connect_accepted_socket(lambda: Session(self), connection)

    async def _reopen(self, before: list[dict[str, Any]]) -> None:
        """Open the models that the worker before this one had open, so that the first call finds them."""
        for model in reversed(before):
            if not self.quarantine.concerns(model["package"]):
                with contextlib.suppress(PythiaError, OSError, KeyError):
                    await self.in_slow_thread(
                        self.models.reopen, model["package"], model["db"], model["inmemory"]
                    )

    async def _drain(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and any(s.busy for s in self.sessions):
            await asyncio.sleep(0.02)
        for session in list(self.sessions):
            session.close()
        await asyncio.sleep(0)

    async def release(self, key: str) -> None:
        """Close a model and wait until its memory is free again, but not for long: others may still have work for it."""
        model = self.models.close(key)
        if model is not None:
            await self._let_go(model, RELEASE_SECONDS)

    async def _let_go(self, model: Model, patience: float) -> None:
        """Wait until a closed model is free, when its line has ended, and give the memory back to the system."""
        deadline = self.loop.time() + patience
        line, known = self.scheduler.forget(model), weakref.ref(model)
        if line is not None:
            await self.in_slow_thread(line.join, patience)
        del model, line
        while True:
            gone = known() is None
            await self.in_slow_thread(self._collect)
            if gone or self.loop.time() > deadline:
                return
            await asyncio.sleep(COLLECT_SECONDS)

    def _collect(self) -> None:
        self.scheduler.settle()
        gc.collect()
        _trim()

    async def in_thread(self, function: Any, *arguments: Any) -> Any:
        """Run a function that takes a while to compute in the pool."""
        return await self.loop.run_in_executor(self._pool, function, *arguments)

    async def in_slow_thread(self, function: Any, *arguments: Any) -> Any:
        """Run a function that waits for something in a pool of its own."""
        return await self.loop.run_in_executor(self._slow_pool, function, *arguments)

    async def secret(self, dbname: str, *, refused: bytes | None = None) -> bytes:
        """Return the secret of a database, read once.

        When a signature fails against `refused`, it is read again, though not at every failure: the schema may have been
        installed anew, or another database may have got the name.
        """
        known = self.secrets.get(dbname)
        if known is None or (known == refused and self.loop.time() - self._secrets_read > SECRET_SECONDS):
            self._secrets_read = self.loop.time()
            self.secrets[dbname] = await self.in_slow_thread(self.stores.database.secret, dbname)
        return self.secrets[dbname]

    async def execute(self, session: Session, command: Command) -> list[bytes | None]:
        """Run a verified command and return the lines of its answer."""
        frequent = self.frequent.get(command.verb)
        if frequent is not None:
            return await frequent.run(session, command)
        if command.verb not in self._handlers:
            raise unknown_verb(command.verb)
        return [await self.in_slow_thread(self._handlers.run, session, command)]

    def _finish_soon(self, finished: Finished) -> None:
        """Tell calls that they have ended; called in a line's thread."""
        if finished:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.loop.call_soon_threadsafe(_finish, finished)

    def _forget_soon(self, model: Model) -> None:
        self.loop.call_soon_threadsafe(self._closed, model)

    def _closed(self, model: Model) -> None:
        self.report.model_closed()
        task = self.loop.create_task(self._let_go(model, CLOSE_SECONDS))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_status(self) -> None:
        runs, since, trimmed = 0, 0.0, True
        while True:
            self.models.close_unmapped()
            await self._reclaim_unwanted()
            self.report.write_if_changed()
            if self.searcher.captures.due():
                await self.in_slow_thread(self.searcher.captures.hand_on)
            if runs != self.scheduler.counts.runs:
                runs, since, trimmed = self.scheduler.counts.runs, self.loop.time(), False
            elif not trimmed and self.loop.time() - since > REST_SECONDS:
                trimmed = True
                await self.in_slow_thread(_trim)
            await asyncio.sleep(STATUS_SECONDS)

    async def _reclaim_unwanted(self) -> None:
        for key in self.models.unwanted():
            with contextlib.suppress(OSError):  # it is tried again
                await self.in_slow_thread(self.models.reclaim_unwanted, key)


def _trim() -> None:
    """Give memory that runs have needed back to the system."""
    trim_arena()
    trim_memory()


def _finish(finished: Finished) -> None:
    for request, error in finished:
        request.done(error)


def serve(config: WorkerConfig, birth: Birth, control: socket.socket, board: Board) -> None:
    """Be a worker until the supervisor says stop."""
    limit_heaps(config.settings["threads"])

    async def work() -> None:
        await Worker(config, birth, control, board).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
