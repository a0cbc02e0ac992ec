"""Throw-away processes: forked from the template, one task each, with bounds on time and memory.

What comes from strangers is looked at here first. A process that crashes, loops or eats memory takes nothing with it; the
worker that asked finds the conversation ended without an answer.

A conversation is a socket: the request is 8 bytes of length and JSON, the answer is JSON up to the end.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import orjson

from pythiadb import errors
from pythiadb.engine.limits import limit_memory, memory_in_use
from pythiadb.errors import EngineFault, OutOfMemory, PythiaError

_LENGTH = struct.Struct("!Q")
_PIECE = 1 << 20
Task = Callable[[dict[str, Any]], Any]


class ChildDied(Exception):
    """The process ended without an answer; `timed_out` when its time was over."""

    def __init__(self, timed_out: bool) -> None:
        super().__init__("a throw-away process ended without an answer")
        self.timed_out = timed_out


class Children:
    """Asks for throw-away processes; `control` is the worker's channel to the supervisor, which passes the request on."""

    def __init__(self, control: socket.socket, memory_bytes: int) -> None:
        self._control = control
        self._memory = memory_bytes

    def run(self, task: str, arguments: dict[str, Any], seconds: float) -> Any:
        """Run a task of engine/tasks.py and return what it returns; blocks. Raises its error, or ChildDied."""
        ours, theirs = socket.socketpair()
        started = time.monotonic()
        with ours:
            with theirs:
                socket.send_fds(self._control, [b"child"], [theirs.fileno()])
            request = orjson.dumps(
                {"task": task, "arguments": arguments, "seconds": seconds, "memory": self._memory}
            )
            try:
                ours.sendall(_LENGTH.pack(len(request)) + request)
                answer = _read_all(ours)
            except OSError:
                answer = b""
        if not answer:
            raise ChildDied(time.monotonic() - started >= seconds)
        return _result(orjson.loads(answer))


def serve(conversation: socket.socket, tasks: dict[str, Task]) -> None:
    """Do the one task of this process, then end it."""
    size = _LENGTH.unpack(_read_exactly(conversation, _LENGTH.size))[0]
    request = orjson.loads(_read_exactly(conversation, size))
    gc.disable()
    limit_memory(memory_in_use() + request["memory"])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process, wherever it is
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    try:
        answer = {"result": tasks[request["task"]](request["arguments"])}
    except Exception as error:
        answer = {"error": _described(error)}
    conversation.sendall(orjson.dumps(answer, default=str))
    os._exit(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, or what it came from, is a failed allocation, which ONNX Runtime tells in words only."""
    texts = (str(error), str(error.__cause__))
    return (
        isinstance(error, MemoryError | OutOfMemory)
        or isinstance(error.__cause__, MemoryError)
        or any("Failed to allocate memory" in text or "bad_alloc" in text for text in texts)
    )


def _described(error: Exception) -> dict[str, Any]:
    if is_out_of_memory(error):
        error = OutOfMemory("out of memory", hint="Raise the engine setting worker_memory_bytes.")
    if not isinstance(error, PythiaError):
        error = EngineFault(f"internal error of the engine: {type(error).__name__}", detail=str(error))
    return {
        "sqlstate": error.sqlstate,
        "message": error.message,
        "detail": error.detail,
        "hint": error.hint,
    }


def _result(answer: dict[str, Any]) -> Any:
    if "error" not in answer:
        return answer["result"]
    fault = answer["error"]
    kind = _KINDS.get(fault["sqlstate"], EngineFault)
    raise kind(fault["message"], detail=fault["detail"], hint=fault["hint"])


_KINDS: dict[str, type[PythiaError]] = {
    kind.sqlstate: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PythiaError)
}


def _read_exactly(conversation: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = conversation.recv(min(_PIECE, size - len(data)))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _read_all(conversation: socket.socket) -> bytes:
    data = bytearray()
    while piece := conversation.recv(_PIECE):
        data += piece
    return bytes(data)
