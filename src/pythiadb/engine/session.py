"""One connection of a database backend to a worker: reads commands, hands them out, writes answers.

A backend sends its next command after the answer to the last, so a session has one call at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from pythiadb.engine import protocol
from pythiadb.engine.cached import IncomingFile
from pythiadb.engine.commands import Command, NotSigned, verify
from pythiadb.engine.requests import Request
from pythiadb.engine.running import DIRECT_BYTES
from pythiadb.errors import EngineFault, FeatureNotSupported, LimitExceeded, PythiaError

if TYPE_CHECKING:
    from pythiadb.engine.worker import Worker

log = logging.getLogger("pythia.engine")

PONG = protocol.result([b"pong"])


@dataclass(slots=True)
class Progress:
    """How far the running statement of a backend is: texts done and expected."""

    done: int = 0
    total: int = 0
    since: float = field(default_factory=time.time)

    def begin_call(self, total: int) -> None:
        """Note a call of a statement that will send `total` texts; a new statement starts from nothing."""
        if total != self.total or self.done >= self.total:
            self.done, self.total, self.since = 0, total, time.time()


class Frequent(Protocol):
    """What answers the commands of searches and scoring."""

    def answer_at_once(self, session: Session, command: Command) -> list[bytes | None] | None:
        """Return the lines of a quick command's answer; None for all others."""

    async def run(self, session: Session, command: Command) -> list[bytes | None]:
        """Return the lines of the answer."""


class Session(asyncio.Protocol):
    """The protocol object of one connection; lives in the worker's event loop."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.wire = protocol.Wire(worker.settings.max_message_bytes)
        self.dbname = ""
        self.backend = 0
        self.progress = Progress()
        self.request: Request | None = None
        self.incoming: dict[str, IncomingFile] = {}
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self._task is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.worker.sessions.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Forget the session; what it had in line is not worth running any more."""
        self._transport = None
        self.worker.sessions.discard(self)
        for incoming in self.incoming.values():
            incoming.close()
        if self.request is not None:
            self.worker.scheduler.cancel(self.request)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.wire.feed(data):
                self._handle(event)
        except protocol.ProtocolViolation as violation:
            self._write(protocol.error("08P01", str(violation), fatal=True))
            self.close()

    def close(self) -> None:
        """Close the connection after what was written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def _handle(self, event: protocol.Event) -> None:
        if isinstance(event, protocol.Query):
            self._query(event.text)
        elif isinstance(event, protocol.Startup):
            self._start(event.parameters)
        elif isinstance(event, protocol.EncryptionRequest):
            self._write(protocol.DENY_ENCRYPTION)
        elif isinstance(event, protocol.Terminate):
            self.close()
        elif isinstance(event, protocol.TooLong):
            limit = self.worker.settings.max_message_bytes
            text = f"a command of {event.size} bytes exceeds the limit of {limit} bytes"
            hint = "Send smaller inputs or batches, or raise the engine setting max_message_bytes."
            self._write(protocol.error(LimitExceeded.sqlstate, text, hint=hint))
        else:
            raise protocol.ProtocolViolation(f"message type {event.kind!r} is not supported by the engine")

    def _start(self, parameters: dict[str, str]) -> None:
        if len(self.worker.sessions) > self.worker.settings.max_connections:
            self._write(protocol.error("53300", "the engine has too many connections", fatal=True))
            self.close()
            return
        self.dbname = parameters.get("database") or parameters.get("user", "")
        name = parameters.get("application_name", "")
        self.backend = int(name) if name.isdigit() else 0
        self._write(protocol.WELCOME)

    def _query(self, text: bytes) -> None:
        if self._task is not None:
            raise protocol.ProtocolViolation("a command arrived while another is running")
        if not text:
            self._write(protocol.EMPTY_QUERY)
        elif text[:4].upper() == b"SET ":  # libpq and dblink set client_encoding and the like
            self._write(protocol.COMMAND_SET)
        else:
            command = self._known_command(text)
            if command is None or not self._answer_at_once(command):
                self._task = self.worker.loop.create_task(self._run(text, command))

    def _known_command(self, text: bytes) -> Command | None:
        """Return a short command whose signature is right; None for everything else, also for what must become an error."""
        secret = self.worker.secrets.get(self.dbname)
        if secret is None or len(text) > DIRECT_BYTES:
            return None
        try:
            return verify(text, secret, time.time(), self.worker.settings.signature_seconds)
        except (NotSigned, ValueError):
            return None

    def _answer_at_once(self, command: Command) -> bool:
        """Answer a ping or a quick call without a task; return False for everything else."""
        if command.verb == "ping":
            self._write(PONG)
            self.worker.report.call("ping", self, 0.0, None)
            return True
        frequent = self.worker.frequent.get(command.verb)
        if frequent is None:
            return False
        started, failure = time.perf_counter(), None
        try:
            lines = frequent.answer_at_once(self, command)
            if lines is None:
                return False
            answer = protocol.result(lines)
        except Exception as error:
            failure, answer = _error_answer(error)
        self.worker.report.call(command.verb, self, time.perf_counter() - started, failure)
        self._write(answer)
        return True

    async def _run(self, text: bytes, command: Command | None) -> None:
        started = time.perf_counter()
        verb, failure = "?", None
        try:
            command = command or await self._verified(text)
            verb = command.verb
            answer = protocol.result(await self.worker.execute(self, command))
        except asyncio.CancelledError:
            failure = "57014"
            answer = b""
        except Exception as error:
            failure, answer = _error_answer(error)
        self._task = self.request = None
        self.worker.report.call(verb, self, time.perf_counter() - started, failure)
        self._write(answer)

    async def _verified(self, text: bytes) -> Command:
        """Check the signature, if need be against the secret that the database has now. Raises NotSigned."""
        secret = await self.worker.secret(self.dbname)
        try:
            return await self._verify(text, secret)
        except NotSigned:
            fresh = await self.worker.secret(self.dbname, refused=secret)
            return await self._verify(text, fresh)

    async def _verify(self, text: bytes, secret: bytes) -> Command:
        arguments = (text, secret, time.time(), self.worker.settings.signature_seconds)
        if len(text) <= DIRECT_BYTES:
            return verify(*arguments)
        return cast(Command, await self.worker.in_thread(verify, *arguments))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)


def _error_answer(error: Exception) -> tuple[str, bytes]:
    """Return SQLSTATE and message of an error; what is not ours is an internal fault and says so."""
    if isinstance(error, PythiaError):
        return error.sqlstate, protocol.error(error.sqlstate, error.message, error.detail, error.hint)
    fault = EngineFault(
        f"internal error of the engine: {type(error).__name__}",
        detail=str(error),
        hint="See the engine's log.",
    )
    log.error("internal error", exc_info=error)
    return _error_answer(fault)


def unknown_verb(verb: str) -> FeatureNotSupported:
    """Return the error for a command that this engine does not know."""
    return FeatureNotSupported(
        f'unknown engine command "{verb}"',
        detail="The database's functions and the engine are of different versions.",
        hint="Restart the engine: pythia engine restart",
    )
