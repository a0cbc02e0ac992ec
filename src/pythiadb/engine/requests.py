"""What waits in a line: requests with their prepared inputs, the room that all lines share, counters of what was done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pythiadb.errors import LimitExceeded

Finished = list[tuple["Request", BaseException | None]]
Post = Callable[[Finished], None]


class Item(Protocol):
    """One prepared input of one or more rows; its length is what a run costs."""

    @property
    def rows(self) -> int: ...

    def __len__(self) -> int: ...


class Stoppable(Protocol):
    """A run of a model, begun or about to be."""

    def stop(self) -> None: ...


class Runnable(Protocol):
    """What a line needs of a model: items in, one output each out, in at most `lanes` runs at once."""

    @property
    def lanes(self) -> int: ...

    def begin(self, *, alone: bool) -> Any: ...  # a Stoppable of the model's own

    def run(self, items: Sequence[Any], run: Any, /) -> Sequence[Any]: ...


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
        self.cancelled = self.ended = False
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
