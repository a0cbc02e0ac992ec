"""Runs models for all sessions of a worker: a line for each open model, so that a slow model holds up its own callers only."""

from __future__ import annotations

from pythiadb.engine.guard import Guard
from pythiadb.engine.line import Line
from pythiadb.engine.requests import Counts, Post, Request, Room, Runnable


class Scheduler:
    """The lines of a worker. `post` is called in a line's thread with the requests that have ended."""

    def __init__(self, max_queued_rows: int, guard: Guard, post: Post) -> None:
        self._room = Room(max_queued_rows)
        self._guard = guard
        self._post = post
        self._lines: dict[Runnable, Line] = {}
        self._ending: list[Line] = []
        self._past = Counts()

    @property
    def queued(self) -> int:
        """Rows that wait."""
        return self._room.used

    @property
    def counts(self) -> Counts:
        """What all lines have done, those of closed models too."""
        self.settle()
        total = Counts()
        for counts in (self._past, *(line.counts for line in [*self._lines.values(), *self._ending])):
            total.add(counts.runs, counts.rows, counts.seconds)
        return total

    def line(self, model: Runnable) -> Line:
        """Return the line of a model."""
        found = self._lines.get(model)
        if found is None:
            found = self._lines[model] = Line(model, self._guard, self._room, self._post)
        return found

    def submit(self, request: Request) -> None:
        """Put a request in line. Raises LimitExceeded when too many rows wait already."""
        self._room.take(request.rows)
        self.line(request.model).submit(request)

    def cancel(self, request: Request) -> None:
        """Forget a request: nobody waits for it any more."""
        line = self._lines.get(request.model)
        if line is not None:
            line.cancel(request)

    def forget(self, model: Runnable) -> Line | None:
        """End the line of a model that was closed, after what is in it; return it."""
        line = self._lines.pop(model, None)
        if line is not None:
            line.close()
            self._ending.append(line)
        self.settle()
        return line

    def stop(self) -> None:
        """Serve what is in line, then end the threads."""
        for model in list(self._lines):
            self.forget(model)
        for line in self._ending:
            line.join()

    def settle(self) -> None:
        """Let go of lines that have ended, and with them of their models."""
        for line in [line for line in self._ending if line.ended]:
            self._past.add(line.counts.runs, line.counts.rows, line.counts.seconds)
            self._ending.remove(line)
