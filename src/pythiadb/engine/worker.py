"""A worker process: serves the backends whose connections the supervisor passes to it, and runs the models for them."""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import gc
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvloop

from pythiadb.engine.cache import Cache, FileEntry
from pythiadb.engine.commands import Command
from pythiadb.engine.config import WorkerConfig
from pythiadb.engine.events import EventLog
from pythiadb.engine.models import ModelRegistry, OpenModel
from pythiadb.engine.probe import inspect_onnx, probe_package
from pythiadb.engine.scheduler import Request, Scheduler
from pythiadb.engine.session import Session, unknown_verb
from pythiadb.engine.settings import Settings
from pythiadb.engine.status import WorkerStatus, read_all
from pythiadb.errors import InvalidModel
from pythiadb.postgres.account import Account
from pythiadb.postgres.model_store import ModelStore
from pythiadb.vectors.codec import vector_to_text

STATUS_SECONDS = 0.25  # how often a changed status is written
SECRET_SECONDS = 0.1  # how often a database is asked for its secret again when signatures fail
STOP_SECONDS = 10  # how long running calls may take to end when the worker stops
DIRECT_CHARACTERS = (
    4096  # texts up to this length in all are tokenized in the event loop: a thread would cost more
)
GC_THRESHOLD = 20_000  # objects between collections: a call leaves a few, and none in cycles
LATENCIES = 1000  # calls over which percentiles are taken


class Worker:
    """State and commands of one worker; everything runs in its event loop unless a method says otherwise."""

    def __init__(self, config: WorkerConfig, control: socket.socket) -> None:
        folder = Path(config.folder)
        self.settings = Settings(**config.settings)
        self.loop = asyncio.get_running_loop()
        self.sessions: set[Session] = set()
        self.secrets: dict[str, bytes] = {}
        self._secrets_read = 0.0
        self.cache = Cache(folder / "cache", self.settings.cache_bytes)
        self.store = ModelStore(config.conninfo)
        self.models = ModelRegistry(
            self.cache, self.store, threads=self.settings.threads, max_models=self.settings.max_models,
            max_model_bytes=self.settings.max_model_bytes,
        )  # fmt: skip
        self.scheduler = Scheduler(self.settings.max_queued_texts)
        self.log = EventLog(Path(config.log), self.settings.log_bytes, worker=config.number, pid=os.getpid())
        self.status = WorkerStatus(folder / "status" / f"worker-{config.number}.json")
        self.stopping = asyncio.Event()
        self._control = control
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="prepare")
        self._folder = folder
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._handlers: dict[str, Callable[[Session, Command], bytes]] = {
            "ping": lambda *_: b"pong",
            "status": lambda *_: orjson.dumps(read_all(folder / "status")),
            "has-file": self._has_file,
            "stage": self._stage,
            "inspect": self._inspect,
            "open": self._open,
        }  # they run in the pool
        self._calls = self._errors = 0
        self._started = time.time()

    async def run(self) -> None:
        """Serve until told to stop, then let running calls end."""
        self._control.setblocking(False)
        self.loop.add_reader(self._control, self._take_connection)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stopping.set)
        # What is loaded by now stays: without it, each of the frequent small collections is several times cheaper.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        self.log.write("worker.start")
        self._control.send(b"ready")
        status = self.loop.create_task(self._write_status())
        await self.stopping.wait()
        self.loop.remove_reader(self._control)
        await self._drain()
        status.cancel()
        self.log.write("worker.stop")
        self.log.close()
        self.status.remove()

    def _take_connection(self) -> None:
        """Take a connection from the supervisor; its end of the channel closed means that it is gone."""
        data, descriptors, _, _ = socket.recv_fds(self._control, 16, 1)
        if not data:
            self.stopping.set()
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            self.loop.create_task(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        await self.loop.connect_accepted_socket(lambda: Session(self), connection)

    async def _drain(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and any(s.busy for s in self.sessions):
            await asyncio.sleep(0.02)
        for session in list(self.sessions):
            session.close()
        await asyncio.sleep(0)

    async def in_thread(self, function: Any, *arguments: Any) -> Any:
        """Run a blocking function in the pool."""
        return await self.loop.run_in_executor(self._pool, function, *arguments)

    async def secret(self, dbname: str, *, refused: bytes | None = None) -> bytes:
        """Return the secret of a database, read once.

        When a signature fails against `refused`, it is read again, though not at every failure: the schema may have been
        installed anew, or another database may have got the name.
        """
        known = self.secrets.get(dbname)
        if known is None or (known == refused and self.loop.time() - self._secrets_read > SECRET_SECONDS):
            self._secrets_read = self.loop.time()
            self.secrets[dbname] = await self.in_thread(self.store.secret, dbname)
        return self.secrets[dbname]

    async def execute(self, session: Session, command: Command) -> list[bytes | None]:
        """Run a verified command and return the lines of its answer."""
        if command.verb == "embed":  # by far the most frequent
            return await self._embed(session, *orjson.loads(command.payload))
        handler = self._handlers.get(command.verb)
        if handler is None:
            raise unknown_verb(command.verb)
        return [await self.in_thread(handler, session, command)]

    async def _embed(
        self, session: Session, key: str, total: int, inputs: list[str | None]
    ) -> list[bytes | None]:
        """Embed the inputs; a NULL gives a NULL."""
        texts = [text for text in inputs if text is not None]
        opened = self.models.opened(key) or await self.in_thread(self.models.get, key, session.dbname)
        session.progress.begin_call(total)
        tokenize = functools.partial(opened.model.tokenize, texts, max_bytes=self.settings.max_input_bytes)
        short = sum(map(len, texts)) <= DIRECT_CHARACTERS
        items = tokenize() if short else await self.in_thread(tokenize)
        results = iter(await self._score(session, opened, items) if items else [])
        opened.calls += 1
        opened.texts += len(texts)
        session.progress.done += len(inputs)
        return [None if text is None else next(results) for text in inputs]

    async def _score(self, session: Session, opened: OpenModel, items: Any) -> list[bytes]:
        finished: asyncio.Future[None] = self.loop.create_future()

        def resolve(error: BaseException | None) -> None:
            if finished.done():
                return
            if error is None:
                finished.set_result(None)
            else:
                finished.set_exception(error)

        def done(error: BaseException | None) -> None:
            self.loop.call_soon_threadsafe(resolve, error)

        request = Request(opened.model, items, vector_to_text, done)
        session.request = request
        self.scheduler.submit(request)
        await finished
        return [line for line in request.results if line is not None]

    def _has_file(self, _session: Session, command: Command) -> bytes:
        """Say whether a file's bytes are in the cache."""
        return b"yes" if self.cache.has_file(orjson.loads(command.payload)["sha256"]) else b"no"

    def _stage(self, session: Session, command: Command) -> bytes:
        """Take one piece of a file, attached in base64."""
        arguments = orjson.loads(command.payload)
        sha256 = arguments["sha256"]
        self.models.check_size(arguments["size"])
        if arguments["no"] == 0:
            session.incoming[sha256] = self.cache.receive(sha256, arguments["size"])
        incoming = session.incoming.get(sha256)
        if incoming is None:
            raise InvalidModel("a piece of a model file arrived without its beginning")
        incoming.append(base64.b64decode(command.attachment))
        if not incoming.complete:
            return b"more"
        del session.incoming[sha256]
        incoming.finish()
        return b"complete"

    def _inspect(self, _session: Session, command: Command) -> bytes:
        """Read an ONNX file and return the spec of a package made of it."""
        arguments = orjson.loads(command.payload)
        spec = inspect_onnx(
            self.cache.file(arguments["sha256"]),
            arguments["metadata"],
            self._folder / "cache" / "stage",
            self.settings.max_model_bytes,
        )

        return orjson.dumps(spec)

    def _open(self, _session: Session, command: Command) -> bytes:
        """Assemble, check and probe a package; return its facts."""
        arguments = orjson.loads(command.payload)
        files = [FileEntry.from_json(f) for f in arguments["files"]]
        self.models.check_size(sum(f.size for f in files))
        package = self.cache.add_package(arguments["package"], arguments["spec"], files)
        try:
            facts = probe_package(package, self.settings.max_model_bytes)
        except Exception:
            self.cache.remove(package.key)
            raise
        self.models.add(package)
        return orjson.dumps(facts)

    def record(self, verb: str, session: Session, seconds: float, failure: str | None) -> None:
        """Count a call and log it."""
        self._calls += 1
        self._errors += failure is not None
        self._latencies.append(seconds)
        self.status.changed = True
        self.log.write(
            "call",
            verb=verb,
            db=session.dbname,
            backend=session.backend,
            ms=round(seconds * 1000, 3),
            sqlstate=failure,
        )

    async def _write_status(self) -> None:
        while True:
            if self.status.changed or any(s.busy for s in self.sessions):
                self.status.write(self._facts())
            await asyncio.sleep(STATUS_SECONDS)

    def _facts(self) -> dict[str, Any]:
        latencies = sorted(self._latencies) or [0.0]
        process = psutil.Process()
        return {
            "pid": process.pid,
            "started": self._started,
            "connections": len(self.sessions),
            "calls": self._calls,
            "errors": self._errors,
            "queued_texts": self.scheduler.queued,
            "runs": self.scheduler.runs,
            "texts": self.scheduler.rows,
            "busy_seconds": round(self.scheduler.busy_seconds, 3),
            "p50_ms": round(latencies[len(latencies) // 2] * 1000, 3),
            "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1000, 3),
            "memory_bytes": process.memory_info().rss,
            "models": [
                {"package": m.key, "bytes": m.size, "load_seconds": round(m.load_seconds, 3), "calls": m.calls, "texts": m.texts}
                for m in self.models.all()
            ],
            "running": [
                {"backend": s.backend, "db": s.dbname, "done": s.progress.done + (s.request.finished_rows if s.request else 0),
                 "total": s.progress.total, "since": s.progress.since}
                for s in self.sessions if s.busy
            ],
        }  # fmt: skip


async def _serve(config: WorkerConfig, control: socket.socket) -> None:
    await Worker(config, control).run()


def main() -> None:
    """Run a worker: `python -m pythiadb.engine.worker --control FD --config JSON --data DIR` (the last is for people)."""
    parser = argparse.ArgumentParser(prog="pythia engine worker")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--data")
    arguments = parser.parse_args()
    config = WorkerConfig(**orjson.loads(arguments.config))
    Account(config.account, config.uid, config.gid).drop_privileges()
    os.umask(0o077)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, socket.socket(fileno=arguments.control)))


if __name__ == "__main__":
    main()
