"""Work on all rows of a segment in several threads: what is computed in C lets other threads go on meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pythiadb.index.distances import Floats

LEAST_BYTES = 8 << 20  # that a thread reads: about a millisecond, many times what it takes to wake one


class Threads:
    """Threads that a process may use for one search. One until told otherwise."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self.count = 1

    def use(self, count: int) -> None:
        """Let a search use `count` threads, the caller's among them."""
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, thread_name_prefix="rows") if count > 1 else None

    def over_rows(self, function: Callable[[slice], Floats], rows: int, row_bytes: int) -> Floats:
        """Return what function(slice) gives for parts of 0 … rows, side by side where there is enough to read."""
        found = np.empty(rows, np.float32)

        def fill(part: slice) -> None:
            found[part] = function(part)

        self._run(fill, self._parts(rows, row_bytes))
        return found

    def _parts(self, rows: int, row_bytes: int) -> list[slice]:
        """Return parts of 0 … rows, each large enough for a thread."""
        parts = min(self.count, rows * row_bytes // LEAST_BYTES)
        if parts < 2:
            return [slice(0, rows)]
        bounds = [rows * part // parts for part in range(parts + 1)]
        return [slice(*span) for span in itertools.pairwise(bounds)]

    def _run(self, function: Callable[[slice], None], parts: list[slice]) -> None:
        """Call a function for each part, the first in this thread; wait for all."""
        mine, *rest = parts
        others = [self._pool.submit(function, part) for part in rest] if self._pool else []
        try:
            function(mine)
        finally:
            for part, other in zip(rest, others, strict=True):
                if other.cancel():  # all threads are busy with other searches
                    function(part)
                else:
                    other.result()


THREADS = Threads()
