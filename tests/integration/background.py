"""Calls that run beside a test, and waiting for what comes by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self


def in_background(action: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run in a thread; the list gets the result or the exception."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(action())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


class UntilOver:
    """Threads that run beside a `with` block. What they call looks at `over` again and again; it is set at the block's end."""

    def __init__(self, *targets: Callable[[], object]) -> None:
        self.over = threading.Event()
        self._threads = [threading.Thread(target=target) for target in targets]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Look again and again until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
