"""Calls that run beside a test, and waiting for what comes by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


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


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Look again and again until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
