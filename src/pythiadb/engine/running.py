"""Calls of models in a worker, from the command to the lines of the answer.

A call goes one of three ways: at once, in the event loop, when it is alone and known to be quick; through the line of its
model; or, for a package under suspicion, first through a throw-away process.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from pythiadb.engine.calls import DIRECT_ROWS, Call, Lines, read_call
from pythiadb.engine.child import ChildDied, is_out_of_memory
from pythiadb.engine.commands import Command
from pythiadb.engine.line import too_long
from pythiadb.engine.models import OpenModel
from pythiadb.engine.requests import Item, Request
from pythiadb.errors import OutOfMemory, RunStopped

if TYPE_CHECKING:
    from pythiadb.engine.session import Session
    from pythiadb.engine.worker import Worker

DIRECT_BYTES = 65_536  # commands up to this length are read in the event loop
AT_ONCE_BYTES = 8_192  # and those up to this one may be answered there
AT_ONCE_SECONDS = 0.008  # what a run may take that holds up a session that begins to call meanwhile
AT_ONCE_LIMIT = 0.1  # such a run is stopped after so many seconds, and put in line
ALONE_SECONDS = 0.05  # after a call of another session its calls are expected to meet in the line
TRIAL_RUNS = 10  # times max_run_seconds: the time for a call in a throw-away process


class Runner:
    """Runs calls for the sessions of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._settings = worker.settings
        self._last_session: Session | None = None
        self._last_time = 0.0

    def answer_at_once(self, session: Session, command: Command) -> Lines | None:
        """Return the answer of a quick call of the only session that calls just now; None for all others."""
        alone = self._is_alone(session)
        if not alone or len(command.payload) > AT_ONCE_BYTES or command.verb == "matrix":
            return None
        call = read_call(command.verb, command.payload, b"")
        opened = self._worker.models.opened(call.key, session.dbname, call.inmemory)
        if opened is None or not call.small or self._worker.quarantine.concerns(call.key):
            return None
        line = self._worker.scheduler.line(opened.model)
        if not line.idle or not line.pace.is_quick(AT_ONCE_SECONDS):
            return None
        items = call.prepare(opened.model, self._settings.max_input_bytes)
        expected = line.pace.expected(len(items[0])) if len(items) == 1 else None
        if expected is None or expected > AT_ONCE_SECONDS:
            return None
        try:
            outputs = line.run_at_once(call.key, items, AT_ONCE_LIMIT)
        except RunStopped:
            line.pace.note(len(items[0]), AT_ONCE_LIMIT)
            return None
        self._count(session, opened, call)
        return call.answer(opened.model, outputs)

    async def run(self, session: Session, command: Command) -> Lines:
        """Run a call and return the lines of its answer."""
        if len(command.payload) <= DIRECT_BYTES:
            call = read_call(*command)
        else:
            call = await self._worker.in_thread(read_call, *command)
        if self._worker.quarantine.concerns(call.key):
            lines = await self._try_out(session, call, command)
            if lines is not None:
                return lines
        try:
            return await self._run_in_line(session, call)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            for each in (error, error.__cause__):  # their frames hold the model
                traceback.clear_frames(each.__traceback__ if each else None)
            await self._worker.release(call.key)  # what it has allocated so far goes with it
            raise self._out_of_memory() from None

    async def _run_in_line(self, session: Session, call: Call) -> Lines:
        worker = self._worker
        opened = worker.models.opened(call.key, session.dbname, call.inmemory) or cast(
            OpenModel,
            await worker.in_slow_thread(worker.models.get, call.key, session.dbname, call.inmemory),
        )
        session.progress.begin_call(call.total)
        limit = self._settings.max_input_bytes
        items = (
            call.prepare(opened.model, limit)
            if call.small
            else await worker.in_thread(call.prepare, opened.model, limit)
        )
        outputs = await self._outputs(session, opened, items) if items else []
        self._count(session, opened, call)
        if call.rows <= DIRECT_ROWS:
            return call.answer(opened.model, outputs)
        return cast(Lines, await worker.in_thread(call.answer, opened.model, outputs))

    async def _outputs(self, session: Session, opened: OpenModel, items: Sequence[Item]) -> list[Any]:
        finished: asyncio.Future[None] = self._worker.loop.create_future()

        def done(error: BaseException | None) -> None:
            if finished.done():  # the session has gone
                return
            if error is None:
                finished.set_result(None)
            else:
                finished.set_exception(error)

        request = Request(opened.key, opened.model, items, done)
        session.request = request
        self._worker.scheduler.submit(request)
        try:
            await finished
        finally:
            session.request = None
            if not self._worker.models.is_open(opened):
                self._worker.scheduler.forget(opened.model)  # closed in the meantime
        return request.outputs

    async def _try_out(self, session: Session, call: Call, command: Command) -> Lines | None:
        """Raise EngineFault for a refused package; run a suspect's call in a throw-away process.

        Return None for a package that has been cleared while this call waited.
        """
        worker, quarantine = self._worker, self._worker.quarantine
        quarantine.check(call.key)
        async with quarantine.trials[call.key]:
            quarantine.check(call.key)
            if not quarantine.is_suspect(call.key):
                return None
            session.progress.begin_call(call.total)
            try:
                lines = await worker.in_slow_thread(self._trial, session.dbname, call, command)
            except ChildDied as death:
                if death.timed_out:
                    raise too_long(self._settings.max_run_seconds) from None
                quarantine.refuse(call.key)
                quarantine.check(call.key)
                raise
            quarantine.clear(call.key)
            session.progress.done += call.rows
            return cast(Lines, lines)

    def _trial(self, dbname: str, call: Call, command: Command) -> Lines:
        """Run a call in a throw-away process; blocks."""
        stores = self._worker.stores
        package = self._worker.models.package(call.key, dbname)
        mapped = stores.mapped.find(call.key) if call.inmemory else None
        arguments = {
            "verb": command.verb, "payload": command.payload.decode(), "attachment": command.attachment.decode(),
            "folder": str(package.folder), "spec": package.spec, "graph": str(mapped.graph) if mapped else None,
            "threads": self._settings.threads, "max_bytes": self._settings.max_input_bytes,
        }  # fmt: skip
        seconds = self._settings.max_run_seconds * TRIAL_RUNS
        lines = stores.children.run("call", arguments, seconds)
        return [None if line is None else line.encode() for line in lines]

    def _is_alone(self, session: Session) -> bool:
        """Note a call; tell whether no other session has called just before."""
        now = time.monotonic()
        alone = self._last_session is session or now - self._last_time > ALONE_SECONDS
        self._last_session, self._last_time = session, now
        return alone

    @staticmethod
    def _count(session: Session, opened: OpenModel, call: Call) -> None:
        opened.calls += 1
        opened.rows += call.rows
        session.progress.done += call.rows

    def _out_of_memory(self) -> OutOfMemory:
        return OutOfMemory(
            "out of memory",
            detail=f"The run of the model needed more than worker_memory_bytes ({self._settings.worker_memory_bytes}) allow.",
            hint="Send smaller inputs, or raise the engine setting worker_memory_bytes.",
        )
