"""The supervisor's side of the template process and the workers: births, deaths, and who is to blame."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from pythiadb.engine.blame import Verdict, judge, memory_kills
from pythiadb.engine.board import Board, new_board
from pythiadb.engine.config import Birth, WorkerConfig, command_line

RESTART_PAUSE = (0.0, 0.1, 0.5, 2.0, 5.0)  # seconds before the next start of what keeps dying
WORKER_STABLE = 1.0  # seconds; a worker that lived this long starts its count anew: to fork one costs little
TEMPLATE_STABLE = 30.0  # likewise the template, which costs a second of processor time
STOP_SECONDS = 12.0  # patience with workers at the end
DEATH_SECONDS = 1.0  # the template's word on how a worker ended comes this soon
MESSAGE_BYTES = 4096

log = logging.getLogger("pythia.engine")


@dataclass(slots=True)
class Patience:
    """When to start something again that has ended; `stable` is how long it lives if nothing is wrong with it."""

    stable: float
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0

    def begin(self) -> None:
        self.started = time.monotonic()

    def end(self) -> None:
        now = time.monotonic()
        self.failures = 1 if now - self.started > self.stable else self.failures + 1
        self.start_at = now + RESTART_PAUSE[min(self.failures, len(RESTART_PAUSE)) - 1]

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.start_at


@dataclass(slots=True)
class WorkerProcess:
    """One worker and how it has been doing. `pid` is 0 until the template has told it."""

    number: int
    pid: int = 0
    control: socket.socket | None = None
    board: Board | None = None
    ready: bool = False
    memory_kills: int = 0
    gone_at: float | None = None  # when its end of the channel closed
    patience: Patience = field(default_factory=lambda: Patience(WORKER_STABLE))
    quarantine: dict[str, float] = field(default_factory=dict)  # until when, on the monotonic clock
    suspects: list[str] = field(default_factory=list)
    passed: deque[socket.socket] = field(default_factory=deque)  # connections that it has not taken yet


class Workers:
    """The template process and the workers that it forks. `selector` is the supervisor's."""

    def __init__(self, config: WorkerConfig, selector: selectors.BaseSelector) -> None:
        self._config = config
        self._selector = selector
        # The last one is the keeper: it is never ready for connections.
        self._all = [WorkerProcess(n) for n in range(config.settings["workers"] + 1)]
        self._template: subprocess.Popen[bytes] | None = None
        self._template_control: socket.socket | None = None
        self._template_patience = Patience(TEMPLATE_STABLE)
        self._next = 0
        self._homeless: deque[socket.socket] = deque()  # connections whose worker died before it took them

    def __len__(self) -> int:
        return len(self._all) - 1

    @property
    def any_ready(self) -> bool:
        return any(worker.ready for worker in self._all)

    def look_after(self) -> None:
        """Notice who has died, start what is missing."""
        self._look_after_template()
        for worker in self._all:
            if worker.gone_at is not None and time.monotonic() - worker.gone_at > DEATH_SECONDS:
                self._bury(worker, None)  # the template has not seen it: it died as well
            if worker.control is None and self._template_control is not None and worker.patience.over:
                self._start(worker)

    def hear(self, source: WorkerProcess | Workers) -> None:
        """Take a message of a worker, or (`self`) of the template."""
        if isinstance(source, WorkerProcess):
            self._hear_worker(source)
        else:
            self._hear_template()

    def pass_on(self, connection: socket.socket) -> None:
        """Give a client's connection to the workers in turn.

        It stays open here until the worker says that it has it: a worker that is being killed takes connections no more.
        """
        while ready := [worker for worker in self._all if worker.ready]:
            self._next += 1
            worker = ready[self._next % len(ready)]
            try:
                assert worker.control is not None
                socket.send_fds(worker.control, [b"c"], [connection.fileno()])
            except OSError:  # it has just died
                worker.ready = False
            else:
                worker.passed.append(connection)
                return
        self._homeless.append(connection)

    def stop(self) -> None:
        """End all workers, in order if they can, then the template."""
        running = [(worker.pid, worker.control) for worker in self._all if worker.control is not None]
        for _, control in running:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_WR)  # which tells it to stop
        deadline = time.monotonic() + STOP_SECONDS
        for pid, control in running:
            if not _has_closed(control, deadline) and pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for connection in [*self._homeless, *(each for worker in self._all for each in worker.passed)]:
            connection.close()
        if self._template is not None:
            self._template.terminate()
            self._template.wait()

    # The template ---------------------------------------------------------------------------------------------------

    def _look_after_template(self) -> None:
        if self._template is not None and self._template.poll() is not None:
            log.error("the template process ended with status %d", self._template.returncode)
            self._forget_template()
        if self._template is None and self._template_patience.over:
            self._start_template()

    def _start_template(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        threads = str(self._config.settings["threads"])
        with theirs:
            self._template = subprocess.Popen(
                command_line(self._config, theirs.fileno(), sys.executable),
                pass_fds=[theirs.fileno()],
                # The tokenizers have a thread pool of their own: no larger than the model's. NumPy's would be there before
                # the first fork, and is not needed. Threads of an index build that wait shall sleep: others need the cores.
                env=os.environ
                | {"RAYON_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
                stdin=subprocess.DEVNULL,
            )
        self._template_control = ours
        self._template_patience.begin()
        self._selector.register(ours, selectors.EVENT_READ, self)

    def _hear_template(self) -> None:
        assert self._template_control is not None
        data = _receive(self._template_control)
        if not data:
            if self._template is not None:
                self._template.wait()
            return
        if data == b"ready":
            return
        message: dict[str, Any] = orjson.loads(data)
        if "born" in message:
            self._all[message["born"]].pid = message["pid"]
            return
        for worker in self._all:
            if worker.pid == message["died"]:
                self._bury(worker, message["status"])

    def _forget_template(self) -> None:
        assert self._template_control is not None
        self._selector.unregister(self._template_control)
        self._template_control.close()
        self._template = self._template_control = None
        self._template_patience.end()

    # Workers --------------------------------------------------------------------------------------------------------

    def _start(self, worker: WorkerProcess) -> None:
        """Have the template fork a worker."""
        assert self._template_control is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptor = new_board()
        now = time.monotonic()
        refused = {key: until - now for key, until in worker.quarantine.items() if until > now}
        birth = Birth(worker.number, refused, worker.suspects)
        with theirs:
            try:
                socket.send_fds(self._template_control, [birth.dump()], [theirs.fileno(), descriptor])
            except OSError:  # the template has just died
                ours.close()
                os.close(descriptor)
                return
        worker.board = Board(descriptor)
        os.close(descriptor)
        worker.control, worker.ready, worker.pid, worker.suspects = ours, False, 0, []
        worker.memory_kills = memory_kills()
        worker.patience.begin()
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _hear_worker(self, worker: WorkerProcess) -> None:
        """A worker is ready, wants a throw-away process, or has closed its end of the channel."""
        if worker.control is None:  # buried in this very turn
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(worker.control, MESSAGE_BYTES, 1)
        except OSError:
            data, descriptors = b"", []
        if data == b"ready":
            worker.ready = True
            self._find_homes()
        elif data == b"taken":
            worker.passed.popleft().close()
        elif data == b"child":
            self._forward(descriptors)
        else:
            worker.ready = False
            worker.gone_at = time.monotonic()
            self._selector.unregister(worker.control)
            self._take_back(worker)
        for descriptor in descriptors:
            os.close(descriptor)

    def _take_back(self, worker: WorkerProcess) -> None:
        """Give what a dead worker has not taken to others."""
        self._homeless.extend(worker.passed)
        worker.passed.clear()
        self._find_homes()

    def _find_homes(self) -> None:
        for _ in range(len(self._homeless)):
            self.pass_on(self._homeless.popleft())

    def _forward(self, descriptors: list[int]) -> None:
        """Ask the template for a throw-away process; without one the worker finds its conversation closed."""
        if self._template_control is not None:
            try:
                socket.send_fds(self._template_control, [b"child"], descriptors)
            except OSError:
                log.error("no throw-away process: the template has ended")

    def _bury(self, worker: WorkerProcess, status: int | None) -> None:
        """Take note of a death, and make the next worker wiser."""
        assert worker.control is not None
        assert worker.board is not None
        log.error("worker %d (pid %d) ended with status %s", worker.number, worker.pid, status)
        verdict = judge(status, worker.board, out_of_memory=memory_kills() > worker.memory_kills)
        if worker.gone_at is None:
            self._selector.unregister(worker.control)
        worker.control.close()
        worker.board.close()
        worker.control, worker.board, worker.ready, worker.pid, worker.gone_at = None, None, False, 0, None
        self._take_back(worker)
        worker.patience.end()
        self._punish(worker, verdict)

    def _punish(self, worker: WorkerProcess, verdict: Verdict) -> None:
        """The guilty are refused by all workers, suspects are tried by the one that takes over."""
        until = time.monotonic() + self._config.settings["quarantine_seconds"]
        worker.suspects = verdict.suspects
        for key in verdict.guilty:
            log.error("model package %s crashed a worker", key)
            for each in self._all:
                each.quarantine[key] = until
            for control in self._controls():
                try:
                    control.send(orjson.dumps({"refuse": key}))
                except OSError:
                    continue  # it is dying itself, its successor will know

    def _controls(self) -> Iterator[socket.socket]:
        return (worker.control for worker in self._all if worker.ready and worker.control is not None)


def _receive(control: socket.socket) -> bytes:
    try:
        return control.recv(MESSAGE_BYTES)
    except OSError:
        return b""


def _has_closed(control: socket.socket, deadline: float) -> bool:
    """Wait until the other end of a channel is closed."""
    while True:
        control.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            data, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
        except TimeoutError:
            return False
        except OSError:
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        if not data:
            return True
