"""Work on all rows of a segment in several threads: what is computed in C lets other threads go on meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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

    def over_rows(self, function: Callable[[int, int], None], rows: int, row_bytes: int) -> None:
        """Call function(start, stop) for parts of 0 … rows, side by side where there is enough to read; wait for all."""
        parts = min(self.count, rows * row_bytes // LEAST_BYTES)
        if self._pool is None or parts < 2:
            function(0, rows)
            return
        bounds = [rows * part // parts for part in range(parts + 1)]
        mine, *spans = itertools.pairwise(bounds)
        others = [self._pool.submit(function, *span) for span in spans]
        try:
            function(*mine)
        finally:
            for span, other in zip(spans, others, strict=True):
                if other.cancel():  # all threads are busy with other searches
                    function(*span)
                else:
                    other.result()


THREADS = Threads()
