"""The template process: it has imported all that workers need, and forks them.

A worker is there in milliseconds and shares the memory of the libraries with the others; and throw-away processes cost next
to nothing. It also keeps the promise that a worker needs nothing from the interpreter's folder after it has become the
server's account: that folder may be closed to it.

The template itself runs no model and has no threads of its own. (Importing ONNX Runtime leaves one, which is asleep.)
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import os
import selectors
import signal
import socket
import traceback
import warnings
from typing import NoReturn

import orjson

from pythiadb.engine import child, keeper, tasks, worker
from pythiadb.engine.board import Board
from pythiadb.engine.config import Birth, WorkerConfig
from pythiadb.models.session import runtime_versions
from pythiadb.postgres.account import Account

MESSAGE_BYTES = 65536
_SET_NAME = 15  # of prctl(): what ps and top show
_libc = ctypes.CDLL(None)


class Template:
    """Forks on request of the supervisor, and reports births and deaths of workers."""

    def __init__(self, config: WorkerConfig, control: socket.socket) -> None:
        self._config = config
        self._control = control
        self._workers: set[int] = set()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until the supervisor has gone."""
        wakeup, self._wakeup_writer = socket.socketpair()
        self._wakeup_writer.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._selector.register(wakeup, selectors.EVENT_READ)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._control.send(b"ready")
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is wakeup:
                    wakeup.recv(4096)
                elif not self._obey():
                    return
            self._bury()

    def _obey(self) -> bool:
        """Do what the supervisor says; False when it has gone."""
        data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 2)
        if not data:
            return False
        pid = os.fork()
        if pid == 0:
            self._become(data, descriptors)
        if data != b"child":
            self._workers.add(pid)
            self._control.send(orjson.dumps({"born": Birth.load(data).number, "pid": pid}))
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _become(self, data: bytes, descriptors: list[int]) -> NoReturn:
        """Be a worker or a throw-away process: the fork's life."""
        status = 1
        try:
            self._let_go()
            if data == b"child":
                child.serve(socket.socket(fileno=descriptors[0]), tasks.TASKS)
            birth = Birth.load(data)
            control, board = socket.socket(fileno=descriptors[0]), Board(descriptors[1])
            if birth.number == self._config.settings["workers"]:
                _libc.prctl(_SET_NAME, b"pythia keeper", 0, 0, 0)
                keeper.serve(self._config, birth.number, control)
            else:
                _libc.prctl(_SET_NAME, f"pythia worker {birth.number}"[:15].encode(), 0, 0, 0)
                worker.serve(self._config, birth, control, board)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)  # the end of the interpreter belongs to the template

    def _let_go(self) -> None:
        """Close and reset what belongs to the template."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        self._control.close()
        self._wakeup_writer.close()
        faulthandler.enable()

    def _bury(self) -> None:
        """Report workers that have ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self._workers:
                    self._workers.remove(pid)
                    code = os.waitstatus_to_exitcode(status)
                    self._control.send(orjson.dumps({"died": pid, "status": code}))


def main() -> None:
    """Run the template: `python -m pythiadb.engine.template --control FD --config JSON --data DIR` (the last is for people)."""
    parser = argparse.ArgumentParser(prog="pythia engine template")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--data")
    arguments = parser.parse_args()
    config = WorkerConfig(**orjson.loads(arguments.config))
    tasks.import_all()
    Account(config.account, config.uid, config.gid).drop_privileges()
    os.umask(0o077)
    runtime_versions()  # finds them by trying: once for all
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    gc.collect()
    gc.freeze()
    Template(config, socket.socket(fileno=arguments.control)).run()


if __name__ == "__main__":
    main()
