"""The scheduler: every row gets its own result whatever else is in line, and nobody waits for long behind others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythiadb.engine.scheduler import MAX_ROWS, MAX_TOKENS, Request, Scheduler
from pythiadb.errors import LimitExceeded

PATIENCE = 20  # seconds


class Row:
    """One input: a number as its content, and a length."""

    def __init__(self, value: int, length: int = 1) -> None:
        self.value, self.length = value, length

    def __len__(self) -> int:
        return self.length


class Model:
    """Gives every row its own number back; negative ones fail. Runs when the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.shapes: list[tuple[int, int]] = []

    def run(self, items: Sequence[Row], /) -> Any:
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        self.batches.append([row.value for row in items])
        self.shapes.append((len(items), max(len(row) for row in items)))
        if any(row.value < 0 for row in items):
            raise ValueError("a bad row")
        return np.array([[row.value] for row in items], np.float32)


class Call:
    """A request and what became of it."""

    def __init__(self, model: Model, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.finished = threading.Event()
        self.outcomes: list[BaseException | None] = []
        self.runs_before = -1
        self.model = model
        self.request = Request(model, rows, lambda vector: b"%d" % int(vector[0]), self._done)

    def _done(self, error: BaseException | None) -> None:
        self.outcomes.append(error)
        self.runs_before = len(self.model.batches)
        self.finished.set()

    def check(self) -> None:
        """Assert that it ended once, well, with each row's own result; or with the error if it had a bad row."""
        assert self.finished.wait(PATIENCE)
        assert len(self.outcomes) == 1
        if any(row.value < 0 for row in self.rows):
            assert isinstance(self.outcomes[0], ValueError)
        else:
            assert self.outcomes == [None]
            assert self.request.results == [b"%d" % row.value for row in self.rows]


@pytest.fixture
def make() -> Iterator[Callable[..., Scheduler]]:
    made: list[Scheduler] = []

    def scheduler(max_queued: int = 100_000) -> Scheduler:
        made.append(Scheduler(max_queued))
        return made[-1]

    yield scheduler
    for each in made:
        each.stop()


def held(scheduler: Scheduler, model: Model) -> Call:
    """Submit one row and wait until the scheduler is busy with it, so that what follows meets in the line."""
    first = Call(model, [Row(0)])
    scheduler.submit(first.request)
    assert model.entered.acquire(timeout=PATIENCE)
    return first


rows = st.builds(Row, st.integers(-3, 1000), st.integers(0, 300))
calls = st.lists(
    st.tuples(st.integers(0, 1), st.lists(rows, min_size=1, max_size=12)), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(calls=calls, early=st.booleans())
def test_every_row_gets_its_own_result(calls: list[tuple[int, list[Row]]], early: bool) -> None:
    """Two models, bad rows, any lengths, submitted while the scheduler is held or running."""
    scheduler, models = Scheduler(100_000), (Model(), Model())
    try:
        first = held(scheduler, models[0])
        if early:
            models[0].gate.set()
            models[1].gate.set()
        made = [Call(models[which], items) for which, items in calls]
        for call in made:
            scheduler.submit(call.request)
        models[0].gate.set()
        models[1].gate.set()
        for call in [first, *made]:
            call.check()
        assert scheduler.queued == 0
    finally:
        scheduler.stop()


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 600), min_size=1, max_size=120))
def test_runs_keep_within_their_bounds(lengths: list[int]) -> None:
    """Rows and padded tokens a run; a single row may be longer than the bound."""
    scheduler, model = Scheduler(100_000), Model()
    try:
        first = held(scheduler, model)
        made = [Call(model, [Row(n, length)]) for n, length in enumerate(lengths)]
        for call in made:
            scheduler.submit(call.request)
        model.gate.set()
        for call in [first, *made]:
            call.check()
        assert all(
            count <= MAX_ROWS and (count * longest <= MAX_TOKENS or count == 1)
            for count, longest in model.shapes
        )
    finally:
        scheduler.stop()


def test_requests_that_wait_run_together(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(), Model()
    first = held(scheduler, model)
    made = [Call(model, [Row(n, 10)]) for n in range(1, 9)]
    for call in made:
        scheduler.submit(call.request)
    model.gate.set()
    for call in [first, *made]:
        call.check()
    assert len(model.batches) == 2


def test_short_request_overtakes_a_long_one(make: Callable[..., Scheduler]) -> None:
    """One row behind 5,000: it ends after at most two runs of the long one."""
    scheduler, model = make(), Model()
    first = held(scheduler, model)
    long = Call(model, [Row(n, 10) for n in range(5000)])
    scheduler.submit(long.request)
    short = Call(model, [Row(7, 1)])  # too short to share a batch with the long one's rows
    scheduler.submit(short.request)
    model.gate.set()
    for call in (first, short, long):
        call.check()
    assert short.runs_before <= 3  # the first row's run, one of the long request, its own
    assert long.runs_before > 10


def test_requests_of_another_model_are_not_starved(make: Callable[..., Scheduler]) -> None:
    scheduler, model, other = make(), Model(), Model()
    other.gate.set()
    first = held(scheduler, model)
    long = Call(model, [Row(n, 10) for n in range(2000)])
    scheduler.submit(long.request)
    single = Call(other, [Row(1, 10)])
    scheduler.submit(single.request)
    model.gate.set()
    for call in (single, long, first):
        call.check()


def test_bad_row_fails_its_own_request_only(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(), Model()
    first = held(scheduler, model)
    made = [Call(model, [Row(n, 10), Row(n + 1, 10)]) for n in (1, -1, 5)]
    for call in made:
        scheduler.submit(call.request)
    model.gate.set()
    for call in [first, *made]:
        call.check()
    assert scheduler.queued == 0


def test_full_line_is_refused_at_once_and_has_room_again(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(max_queued=10), Model()
    first = held(scheduler, model)
    waiting = Call(model, [Row(n) for n in range(10)])
    scheduler.submit(waiting.request)
    with pytest.raises(LimitExceeded, match="too many texts wait") as caught:
        scheduler.submit(Call(model, [Row(1)]).request)
    assert caught.value.detail == "10 texts wait, 1 more would exceed max_queued_texts (10)."
    model.gate.set()
    first.check()
    waiting.check()
    again = Call(model, [Row(n) for n in range(10)])
    scheduler.submit(again.request)
    again.check()


def test_cancelled_requests_give_their_room_back(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(max_queued=10), Model()
    first = held(scheduler, model)
    waiting = Call(model, [Row(-1) for _ in range(10)])
    scheduler.submit(waiting.request)
    waiting.request.cancelled = True
    model.gate.set()
    first.check()
    last = Call(model, [Row(n) for n in range(10)])
    for _ in range(1000):
        try:
            scheduler.submit(last.request)
            break
        except LimitExceeded:
            threading.Event().wait(0.01)
    last.check()
    assert model.batches == [[0], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]
    assert scheduler.queued == 0


def test_stop_serves_what_is_in_line() -> None:
    scheduler, model = Scheduler(100), Model()
    model.gate.set()
    made = [Call(model, [Row(n)]) for n in range(20)]
    for call in made:
        scheduler.submit(call.request)
    scheduler.stop()
    for call in made:
        call.check()


def test_result_that_cannot_be_written_fails_the_request(make: Callable[..., Scheduler]) -> None:
    """An encoder that raises (NaN in a model's output) must not end the scheduler's thread."""
    scheduler, model = make(), Model()
    model.gate.set()

    def refuse(vector: Any) -> bytes:
        raise ValueError("NaN")

    bad = Call(model, [Row(1)])
    bad.request.encode = refuse
    scheduler.submit(bad.request)
    assert bad.finished.wait(3), "the caller waits for ever"
    assert isinstance(bad.outcomes[0], ValueError)
    good = Call(model, [Row(2)])
    scheduler.submit(good.request)
    good.check()


def test_model_that_returns_too_few_rows_fails_the_request(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(), Model()
    model.gate.set()
    model.run = lambda items: np.zeros((len(items) - 1, 1), np.float32)  # type: ignore[method-assign]
    bad = Call(model, [Row(1), Row(2)])
    scheduler.submit(bad.request)
    assert bad.finished.wait(3), "the caller waits for ever"
    assert bad.outcomes[0] is not None
