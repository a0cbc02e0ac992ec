"""One thread that runs models for all sessions of a worker: continuous batching.

Requests wait by model. Each turn takes the next request's rows, longest first, fills the micro-batch with rows of about the
same length from other requests of the same model, runs it, and delivers. A long request goes back to the end of the line
after each micro-batch, so a short one waits for one run at most, and nobody waits for a batch to fill.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pythiadb.errors import InvalidModel, LimitExceeded
from pythiadb.models.session import MAX_BATCH_ROWS, MAX_BATCH_TOKENS

MAX_ROWS = MAX_BATCH_ROWS
MAX_TOKENS = MAX_BATCH_TOKENS  # one run of the model: enough to keep a CPU busy, short enough to wait for
MIN_FILL = 0.7  # a foreign row joins when it is at least this share of the longest row: padding costs time


class Item(Protocol):
    """One prepared input; its length is what a run costs."""

    def __len__(self) -> int: ...


class Runnable(Protocol):
    """What the scheduler needs of a model: rows in, one array row each out."""

    def run(self, items: Sequence[Any], /) -> npt.NDArray[np.float32]: ...


class Request:
    """Prepared rows of one call on their way through the scheduler.

    `done` is called once, in the scheduler's thread: with None when all results are there, else with the error.
    """

    def __init__(
        self,
        model: Runnable,
        items: Sequence[Item],
        encode: Callable[[npt.NDArray[np.float32]], bytes],
        done: Callable[[BaseException | None], None],
    ) -> None:
        self.model = model
        self.items = items
        self.results: list[bytes | None] = [None] * len(items)
        self.finished_rows = 0
        self.cancelled = False
        self.encode = encode
        self.done = done
        # rows are taken from the end: the longest first, so that neighbours in a batch have about the same length
        self.waiting = sorted(range(len(items)), key=lambda i: len(items[i]))

    def take(self, room: int, longest: int, budget: int) -> list[int]:
        """Take up to `room` waiting rows, none longer than `longest`, at most `budget` padded tokens."""
        taken: list[int] = []
        while self.waiting and len(taken) < room:
            row = self.waiting[-1]
            if len(self.items[row]) > longest or (len(taken) + 1) * longest > budget:
                break
            taken.append(self.waiting.pop())
        return taken


class Scheduler:
    """The line of requests and the thread that serves it. `max_queued` bounds the rows that wait."""

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued
        self._queued = 0
        self._line: deque[Request] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self.runs = 0
        self.rows = 0
        self.busy_seconds = 0.0
        self._thread = threading.Thread(target=self._serve, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Rows that wait."""
        return self._queued

    def submit(self, request: Request) -> None:
        """Put a request in line. Raises LimitExceeded when too many rows wait already."""
        with self._wake:
            if self._queued + len(request.items) > self._max_queued:
                raise LimitExceeded(
                    "too many texts wait for the engine",
                    detail=f"{self._queued} texts wait, {len(request.items)} more would exceed max_queued_texts ({self._max_queued}).",
                    hint="Try again later, or send smaller batches.",
                )
            self._queued += len(request.items)
            self._line.append(request)
            self._wake.notify()

    def stop(self) -> None:
        """Serve what is in line, then end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._line and not self._stopping:
                    self._wake.wait()
                if not self._line:
                    return
                batch = self._next_batch()
            if batch:
                self._run(batch)

    def _next_batch(self) -> list[tuple[Request, list[int]]]:
        """Choose the rows of the next run: the head of the line, then others of the same model. Under the lock."""
        head = self._line.popleft()
        if head.cancelled:
            self._forget(head)
            return []
        longest = max(len(head.items[head.waiting[-1]]), 1) if head.waiting else 1
        batch = [(head, head.take(MAX_ROWS, longest, max(MAX_TOKENS, longest)))]
        room = MAX_ROWS - len(batch[0][1])
        for other in self._line:
            if room <= 0 or (MAX_ROWS - room + 1) * longest > MAX_TOKENS:
                break
            if (
                other.model is head.model
                and not other.cancelled
                and other.waiting
                and len(other.items[other.waiting[-1]]) >= MIN_FILL * longest
            ):
                rows = other.take(room, longest, MAX_TOKENS - (MAX_ROWS - room) * longest)
                if rows:
                    batch.append((other, rows))
                    room -= len(rows)
        if head.waiting:
            self._line.append(head)
        for request, _ in batch[1:]:
            if not request.waiting:
                self._line.remove(request)
        self._queued -= sum(len(rows) for _, rows in batch)
        return batch

    def _forget(self, request: Request) -> None:
        self._queued -= len(request.waiting)
        request.waiting.clear()

    def _run(self, batch: list[tuple[Request, list[int]]]) -> None:
        items = [request.items[row] for request, rows in batch for row in rows]
        started = time.perf_counter()
        try:
            output = batch[0][0].model.run(items)
            if len(output) != len(items):
                raise InvalidModel(f"the model gave {len(output)} results for {len(items)} inputs")
        except Exception as error:  # the model's fault: its callers get it, the worker goes on
            self._fail(batch, error)
            return
        finally:
            self.busy_seconds += time.perf_counter() - started
        self.runs += 1
        self.rows += len(items)
        offset = 0
        for request, rows in batch:
            self._deliver(request, rows, output[offset : offset + len(rows)])
            offset += len(rows)

    def _deliver(self, request: Request, rows: list[int], output: npt.NDArray[np.float32]) -> None:
        """Write the results of some rows of a request; one that cannot be written (NaN) fails the request."""
        try:
            for row, vector in zip(rows, output, strict=True):
                request.results[row] = request.encode(vector)
        except Exception as error:
            self._give_up(request, error)
            return
        request.finished_rows += len(rows)
        if request.finished_rows == len(request.items):
            request.done(None)

    def _fail(self, batch: list[tuple[Request, list[int]]], error: Exception) -> None:
        """Give the error to every caller in the batch; one bad row of a merged batch must not fail its neighbours."""
        if len(batch) > 1:
            for part in batch:
                self._run([part])
            return
        self._give_up(batch[0][0], error)

    def _give_up(self, request: Request, error: Exception) -> None:
        """End a request with an error; its rows that still wait leave the line."""
        with self._wake:
            self._forget(request)
            if request in self._line:
                self._line.remove(request)
        request.done(error)
