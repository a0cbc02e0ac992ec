"""Going into the background: the caller's process ends when the engine listens, with status 0, or when it failed."""

from __future__ import annotations

import os
from collections.abc import Callable


def detach() -> Callable[[], None]:
    """Fork; return in the child, in a session of its own, with the function that reports success.

    The parent never returns: it exits with 0 after the report, with 1 when the child ends without one. To be called before
    any thread is started.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os._exit(0 if os.read(reader, 1) else 1)
    os.close(reader)
    os.setsid()

    def report() -> None:
        os.write(writer, b"1")
        os.close(writer)

    return report
