"""One line of requests for one model, and the thread that serves it: continuous batching.

Each turn takes the rows of one request, longest first, fills the micro-batch with rows of about the same length from other
requests, runs it, and delivers. A request with rows left goes back to the end of the line, and every second turn goes to the
request that needs least: so nobody starves, a short request waits for a few runs at most whatever is before it, and nobody
waits for a batch to fill.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pythiadb.engine.guard import Guard, Run
from pythiadb.engine.pace import Pace
from pythiadb.errors import InvalidModel, LimitExceeded, RunStopped

MAX_ITEMS = 64
MAX_COST = 1024  # padded tokens of a run: enough to keep a CPU busy, short enough to wait for
MIN_FILL = 0.7  # a foreign item joins when it is at least this share of the longest: padding costs time

Finished = list[tuple["Request", BaseException | None]]
Post = Callable[[Finished], None]


class Item(Protocol):
    """One prepared input of one or more rows; its length is what a run costs."""

    @property
    def rows(self) -> int: ...

    def __len__(self) -> int: ...


class Runnable(Protocol):
    """What a line needs of a model: items in, one output each out; `stop` ends the runs in progress."""

    def run(self, items: Sequence[Any], /) -> Sequence[Any]: ...

    def stop(self) -> None: ...


class Request:
    """Prepared items of one call on their way through a line. `done` is called once, unless the request is cancelled."""

    def __init__(
        self, key: str, model: Runnable, items: Sequence[Item], done: Callable[[BaseException | None], None]
    ) -> None:
        self.key = key
        self.model = model
        self.items = items
        self.outputs: list[Any] = [None] * len(items)
        self.finished_rows = 0
        self.finished_items = 0
        self.cancelled = False
        self.done = done
        self.rows = sum(item.rows for item in items)
        self.cost = sum(map(len, items))  # of what waits
        # items are taken from the end: the longest first, so that neighbours in a batch have about the same length
        self.waiting = sorted(range(len(items)), key=lambda i: len(items[i]))

    @property
    def longest(self) -> int:
        """The cost of the largest item that waits."""
        return max(len(self.items[self.waiting[-1]]), 1) if self.waiting else 0

    def take(self, room: int, longest: int, budget: int) -> list[int]:
        """Take up to `room` waiting items, none longer than `longest`, at most `budget` padded tokens."""
        taken: list[int] = []
        while self.waiting and len(taken) < room:
            number = self.waiting[-1]
            if len(self.items[number]) > longest or (len(taken) + 1) * longest > budget:
                break
            taken.append(self.waiting.pop())
            self.cost -= len(self.items[number])
        return taken

    def rows_of(self, numbers: Sequence[int]) -> int:
        """The rows in some items."""
        return sum(self.items[number].rows for number in numbers)


Part = tuple[Request, list[int]]  # the items of a request that are in a run


class Room:
    """The bound on the rows that wait in all lines together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.used = 0

    def take(self, rows: int) -> None:
        """Raise LimitExceeded when there is no room for so many rows."""
        with self._lock:
            if self.used + rows > self._limit:
                raise LimitExceeded(
                    "too many rows wait for the engine",
                    detail=f"{self.used} rows wait, {rows} more would exceed max_queued_rows ({self._limit}).",
                    hint="Try again later, or send smaller batches.",
                )
            self.used += rows

    def give(self, rows: int) -> None:
        with self._lock:
            self.used -= rows


@dataclass(slots=True)
class Counts:
    """What has been done: runs of models, rows in them, seconds that they took."""

    runs: int = 0
    rows: int = 0
    seconds: float = 0.0

    def add(self, runs: int, rows: int, seconds: float) -> None:
        self.runs += runs
        self.rows += rows
        self.seconds += seconds


class Line:
    """The requests for one model and the thread that serves them."""

    def __init__(self, model: Runnable, guard: Guard, room: Room, post: Post) -> None:
        self._model = model
        self._guard = guard
        self._room = room
        self._post = post
        self._waiting: deque[Request] = deque()
        self._wake = threading.Condition()
        self._busy = self._closing = False
        self._turn = 0
        self._current: list[Part] = []
        self.pace = Pace()
        self.counts = Counts()
        self._thread = threading.Thread(target=self._serve, name="line", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        return not self._busy and not self._waiting

    def submit(self, request: Request) -> None:
        """Put a request in line."""
        with self._wake:
            self._waiting.append(request)
            self._wake.notify()

    def cancel(self, request: Request) -> None:
        """Take a request out of the line; end a run that nobody waits for any more."""
        with self._wake:
            request.cancelled = True
            self._forget(request)
            if self._current and all(r.cancelled for r, _ in self._current):
                self._model.stop()

    def close(self) -> None:
        """Serve what is in line, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()

    def join(self) -> None:
        self._thread.join()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def run_at_once(self, key: str, items: Sequence[Item], seconds: float) -> Sequence[Any]:
        """Run in the caller's thread, for `seconds` at most. The line must be idle. Raises RunStopped and the model's errors."""
        with self._guard.run(key, self._model.stop, seconds):
            return self._timed(items)

    def _serve(self) -> None:
        while True:
            with self._wake:
                self._busy, self._current = False, []
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if not self._waiting:
                    return
                self._busy = True
                self._current = batch = self._next_batch()
            self._post(self._run(batch))

    def _next_batch(self) -> list[Part]:
        """Choose the items of the next run: those of the request whose turn it is, then others. Under the lock."""
        head = self._next_request()
        longest = head.longest
        batch = [(head, head.take(MAX_ITEMS, longest, max(MAX_COST, longest)))]
        room = MAX_ITEMS - len(batch[0][1])
        for other in list(self._waiting):
            if room <= 0 or (MAX_ITEMS - room + 1) * longest > MAX_COST:
                break
            if other.longest < MIN_FILL * longest:
                continue
            taken = other.take(room, longest, MAX_COST - (MAX_ITEMS - room) * longest)
            if taken:
                batch.append((other, taken))
                room -= len(taken)
                if not other.waiting:
                    self._waiting.remove(other)
        if head.waiting:
            self._waiting.append(head)
        self._room.give(sum(request.rows_of(numbers) for request, numbers in batch))
        return batch

    def _next_request(self) -> Request:
        """In turn the first in line and the one that needs least."""
        self._turn += 1
        if self._turn % 2:
            return self._waiting.popleft()
        shortest = min(self._waiting, key=lambda request: request.cost)
        self._waiting.remove(shortest)
        return shortest

    def _forget(self, request: Request) -> None:
        self._room.give(request.rows_of(request.waiting))
        request.waiting.clear()
        if request in self._waiting:
            self._waiting.remove(request)

    def _run(self, batch: list[Part]) -> Finished:
        """Run a batch and return the requests that it ends."""
        items = [request.items[number] for request, numbers in batch for number in numbers]
        try:
            with self._guard.run(batch[0][0].key, self._model.stop) as run:
                outputs = self._timed(items)
        except Exception as error:  # the model's fault: its callers get it, the worker goes on
            return self._fail(batch, error, run)
        return self._deliver(batch, outputs)

    def _timed(self, items: Sequence[Item]) -> Sequence[Any]:
        started = time.perf_counter()
        try:
            outputs = self._model.run(items)
        finally:
            seconds = time.perf_counter() - started
            self.counts.add(0, 0, seconds)
        if len(outputs) != len(items):
            raise InvalidModel(f"the model gave {len(outputs)} results for {len(items)} inputs")
        if len(items) == 1:
            self.pace.note(len(items[0]), seconds)
        self.counts.add(1, sum(item.rows for item in items), 0.0)
        return outputs

    @staticmethod
    def _deliver(batch: list[Part], outputs: Sequence[Any]) -> Finished:
        finished: Finished = []
        offset = 0
        for request, numbers in batch:
            for number in numbers:
                request.outputs[number] = outputs[offset]
                offset += 1
            request.finished_rows += request.rows_of(numbers)
            request.finished_items += len(numbers)
            if request.finished_items == len(request.items):
                finished.append((request, None))
        return finished

    def _fail(self, batch: list[Part], error: Exception, run: Run) -> Finished:
        """Give the error to the caller; one bad row of a merged batch must not fail its neighbours."""
        if len(batch) > 1:
            return [end for part in batch if not part[0].cancelled for end in self._run([part])]
        request = batch[0][0]
        with self._wake:
            self._forget(request)
        if isinstance(error, RunStopped) and run.expired:
            error = too_long(run.seconds)
        return [(request, error)]


def too_long(seconds: float) -> LimitExceeded:
    """Return the error of a call whose model ran for longer than it may."""
    return LimitExceeded(
        "the model ran for too long and was stopped",
        detail=f"A run may take max_run_seconds ({seconds:.0f} s).",
        hint="Raise the engine setting max_run_seconds, or score smaller inputs.",
    )
