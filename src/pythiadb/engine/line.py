"""One line of requests for one model, and the threads that serve it: continuous batching.

Each turn takes the rows of one request, longest first, fills the micro-batch with rows of about the same length from other
requests, runs it, and delivers. A request with rows left goes back to the end of the line, and every second turn goes to the
request that needs least: so nobody starves, a short request waits for a few runs at most whatever is before it, and nobody
waits for a batch to fill.

Several threads serve a line when several batches are there: small runs side by side do more than one large run on all
cores. A batch is as large as fits a core's caches (measured for MiniLM: 28 rows of 256 tokens a second one by one on each of
two cores, 22 in pairs, 19 in fours on both cores together; shorter rows gain from company).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pythiadb.engine.guard import Guard, Run
from pythiadb.engine.pace import Pace
from pythiadb.engine.requests import Counts, Finished, Item, Post, Request, Room, Runnable, Stoppable
from pythiadb.errors import InvalidModel, LimitExceeded, OutOfMemory, RunStopped

MAX_ITEMS = 64
MAX_COST = 384  # padded tokens of a run: enough to keep a core busy, short enough to wait for
MIN_FILL = 0.7  # a foreign item joins when it is at least this share of the longest: padding costs time

Part = tuple[Request, list[int]]  # the items of a request that are in a run


@dataclass(slots=True, eq=False)
class Batch:
    """What one run takes; `alone`: nothing else ran or waited when it began."""

    parts: list[Part]
    alone: bool
    run: Stoppable


class Line:
    """The requests for one model and the threads that serve them."""

    def __init__(self, model: Runnable, guard: Guard, room: Room, post: Post) -> None:
        self._model = model
        self._guard = guard
        self._room = room
        self._post = post
        self._waiting: deque[Request] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._turn = 0
        self._running: set[Batch] = set()
        self._threads: list[threading.Thread] = []
        self.pace = Pace()
        self.counts = Counts()
        self._add_thread()

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def submit(self, request: Request) -> None:
        """Put a request in line."""
        with self._wake:
            self._waiting.append(request)
            self._call_for_help()

    def cancel(self, request: Request) -> None:
        """Take a request out of the line; end a run that nobody waits for any more."""
        with self._wake:
            request.cancelled = True
            self._forget(request)
            for batch in self._running:
                if all(r.cancelled for r, _ in batch.parts):
                    batch.run.stop()

    def close(self) -> None:
        """Serve what is in line, then end the threads."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the end of each thread, `seconds` at most."""
        for thread in self._threads:
            thread.join(seconds)

    @property
    def ended(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def run_at_once(self, key: str, items: Sequence[Item], seconds: float) -> Sequence[Any]:
        """Run in the caller's thread, for `seconds` at most. The line must be idle. Raises RunStopped and the model's errors."""
        run = self._model.begin(alone=True)
        with self._guard.run(key, run.stop, seconds):
            return self._timed(items, run, alone=True)

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name="line", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _call_for_help(self) -> None:
        """Wake a thread for what waits, or start one if all are busy and more are of use. Under the lock."""
        if len(self._running) < len(self._threads):
            self._wake.notify()
        elif len(self._threads) < self._model.lanes:
            self._add_thread()

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if not self._waiting:
                    return
                parts = self._next_batch()
                alone = not self._running and not self._waiting
                batch = Batch(parts, alone, self._model.begin(alone=alone))
                self._running.add(batch)
                if self._waiting:
                    self._call_for_help()
            finished = self._run(batch)
            with self._wake:
                self._running.remove(batch)
            self._post(finished)

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

    def _run(self, batch: Batch) -> Finished:
        """Run a batch and return the requests that it ends."""
        items = [request.items[number] for request, numbers in batch.parts for number in numbers]
        try:
            with self._guard.run(batch.parts[0][0].key, batch.run.stop) as run:
                outputs = self._timed(items, batch.run, alone=batch.alone)
        except Exception as error:  # the model's fault: its callers get it, the worker goes on
            return self._fail(batch, error, run)
        return self._deliver(batch.parts, outputs)

    def _timed(self, items: Sequence[Item], run: Stoppable, *, alone: bool) -> Sequence[Any]:
        started = time.perf_counter()
        try:
            outputs = self._model.run(items, run)
        finally:
            seconds = time.perf_counter() - started
            with self._wake:
                self.counts.add(0, 0, seconds)
        if len(outputs) != len(items):
            raise InvalidModel(f"the model gave {len(outputs)} results for {len(items)} inputs")
        if alone and len(items) == 1:
            self.pace.note(len(items[0]), seconds)
        with self._wake:
            self.counts.add(1, sum(item.rows for item in items), 0.0)
        return outputs

    def _deliver(self, parts: list[Part], outputs: Sequence[Any]) -> Finished:
        finished: Finished = []
        offset = 0
        with self._wake:  # other runs may hold items of the same requests
            for request, numbers in parts:
                for number in numbers:
                    request.outputs[number] = outputs[offset]
                    offset += 1
                request.finished_rows += request.rows_of(numbers)
                request.finished_items += len(numbers)
                if request.finished_items == len(request.items) and not request.ended:
                    request.ended = True
                    finished.append((request, None))
        return finished

    def _fail(self, batch: Batch, error: Exception, run: Run) -> Finished:
        """Give the error to the caller; one bad row of a merged batch must not fail its neighbours."""
        if len(batch.parts) > 1:
            return [
                end for part in batch.parts if not part[0].cancelled for end in self._run_again(batch, part)
            ]
        request = batch.parts[0][0]
        with self._wake:
            self._forget(request)
            if request.ended:
                return []
            request.ended = True
        if isinstance(error, RunStopped) and run.expired:
            error = too_long(run.seconds)
        elif isinstance(error, RunStopped) and run.starved:
            error = OutOfMemory("the run of the model was stopped for want of memory")
        return [(request, error)]

    def _run_again(self, batch: Batch, part: Part) -> Finished:
        """Run a part of a failed batch by itself, in the batch's place."""
        with self._wake:
            self._running.remove(batch)
            batch.parts, batch.run = [part], self._model.begin(alone=batch.alone)
            self._running.add(batch)
        return self._run(batch)


def too_long(seconds: float) -> LimitExceeded:
    """Return the error of a call whose model ran for longer than it may."""
    return LimitExceeded(
        "the model ran for too long and was stopped",
        detail=f"A run may take max_run_seconds ({seconds:.0f} s).",
        hint="Raise the engine setting max_run_seconds, or score smaller inputs.",
    )
