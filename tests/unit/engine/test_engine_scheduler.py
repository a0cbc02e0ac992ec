"""The scheduler: every row gets its own result whatever else is in line, and nobody waits for long behind others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythiadb.engine.board import Board, new_board
from pythiadb.engine.guard import Guard
from pythiadb.engine.line import MAX_COST, MAX_ITEMS
from pythiadb.engine.requests import Finished, Request
from pythiadb.engine.scheduler import Scheduler
from pythiadb.errors import LimitExceeded, RunStopped

PATIENCE = 20  # seconds


def finish(finished: Finished) -> None:
    for request, error in finished:
        request.done(error)


def new_scheduler(max_queued_rows: int = 100_000, max_run_seconds: float = 30) -> Scheduler:
    return Scheduler(max_queued_rows, Guard(Board(new_board()), max_run_seconds), finish)


class Row:
    """One input: a number as its content, a cost, and how many rows it stands for."""

    def __init__(self, value: int, length: int = 1, rows: int = 1) -> None:
        self.value, self.length, self.rows = value, length, rows

    def __len__(self) -> int:
        return self.length


class Stop:
    """What a run is stopped by."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()


class Model:
    """Gives every row its own number back; negative ones fail. Runs when the gate is open, or ends when it is stopped."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.shapes: list[tuple[int, int]] = []

    def begin(self, *, alone: bool) -> Stop:
        return Stop(alone)

    def run(self, items: Sequence[Row], run: Stop, /) -> Any:
        self.entered.release()
        deadline = time.monotonic() + PATIENCE
        while not self.gate.wait(0.005):
            assert time.monotonic() < deadline
            if run.stopped.is_set():
                raise RunStopped("stopped")
        self.batches.append([row.value for row in items])
        self.shapes.append((len(items), max(len(row) for row in items)))
        if any(row.value < 0 for row in items):
            raise ValueError("a bad row")
        return [row.value for row in items]


class Call:
    """A request and what became of it."""

    def __init__(self, model: Model, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.finished = threading.Event()
        self.outcomes: list[BaseException | None] = []
        self.runs_before = -1
        self.model = model
        self.request = Request("key", model, rows, self._done)

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
            assert self.request.outputs == [row.value for row in self.rows]


@pytest.fixture
def make() -> Iterator[Callable[..., Scheduler]]:
    made: list[Scheduler] = []

    def scheduler(*arguments: Any) -> Scheduler:
        made.append(new_scheduler(*arguments))
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
@given(calls=calls, early=st.booleans(), lanes=st.integers(1, 4))
def test_every_row_gets_its_own_result(calls: list[tuple[int, list[Row]]], early: bool, lanes: int) -> None:
    """Two models, bad rows, any lengths, submitted while the scheduler is held or running, by one thread or several."""
    scheduler, models = new_scheduler(), (Model(lanes), Model())
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
    scheduler, model = new_scheduler(), Model()
    try:
        first = held(scheduler, model)
        made = [Call(model, [Row(n, length)]) for n, length in enumerate(lengths)]
        for call in made:
            scheduler.submit(call.request)
        model.gate.set()
        for call in [first, *made]:
            call.check()
        assert all(
            count <= MAX_ITEMS and (count * longest <= MAX_COST or count == 1)
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
    assert short.runs_before <= 4  # the first row's run, two of the long request at most, its own
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
    scheduler, model = make(10), Model()
    first = held(scheduler, model)
    waiting = Call(model, [Row(n) for n in range(10)])
    scheduler.submit(waiting.request)
    with pytest.raises(LimitExceeded, match="too many rows wait") as caught:
        scheduler.submit(Call(model, [Row(1)]).request)
    assert caught.value.detail == "10 rows wait, 1 more would exceed max_queued_rows (10)."
    model.gate.set()
    first.check()
    waiting.check()
    again = Call(model, [Row(n) for n in range(10)])
    scheduler.submit(again.request)
    again.check()


def test_cancelled_requests_give_their_room_back(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(10), Model()
    first = held(scheduler, model)
    waiting = Call(model, [Row(-1) for _ in range(10)])
    scheduler.submit(waiting.request)
    scheduler.cancel(waiting.request)
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
    scheduler, model = new_scheduler(100), Model()
    model.gate.set()
    made = [Call(model, [Row(n)]) for n in range(20)]
    for call in made:
        scheduler.submit(call.request)
    scheduler.stop()
    for call in made:
        call.check()


def test_model_that_returns_too_few_rows_fails_the_request(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(), Model()
    model.gate.set()
    model.run = lambda items, run: [0] * (len(items) - 1)  # type: ignore[method-assign]
    bad = Call(model, [Row(1), Row(2)])
    scheduler.submit(bad.request)
    assert bad.finished.wait(3), "the caller waits for ever"
    assert bad.outcomes[0] is not None


def test_slow_model_does_not_hold_up_another(make: Callable[..., Scheduler]) -> None:
    """A model that is in a run for ever, and requests behind it: calls of another model end."""
    scheduler, stuck, other = make(), Model(), Model()
    other.gate.set()
    first = held(scheduler, stuck)
    behind = Call(stuck, [Row(1)])
    scheduler.submit(behind.request)
    for number in range(5):
        call = Call(other, [Row(number)])
        scheduler.submit(call.request)
        call.check()
    assert not first.finished.is_set()
    stuck.gate.set()
    first.check()
    behind.check()


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 256)), min_size=1, max_size=16))
def test_nobody_starves(sizes: list[tuple[int, int]]) -> None:
    """Each of n requests has a turn within 2 n runs: so its k items end within 2 n k runs, whatever the others are."""
    scheduler, model = new_scheduler(), Model()
    try:
        first = held(scheduler, model)
        made = [Call(model, [Row(n, length) for n in range(count)]) for count, length in sizes]
        for call in made:
            scheduler.submit(call.request)
        model.gate.set()
        for call in [first, *made]:
            call.check()
        for (count, length), call in zip(sizes, made, strict=True):
            turns = -(-count // min(MAX_ITEMS, max(1, MAX_COST // length)))
            assert call.runs_before <= 1 + 2 * len(sizes) * turns
    finally:
        scheduler.stop()


def test_short_call_behind_many_long_ones(make: Callable[..., Scheduler]) -> None:
    """Sixteen sessions with 256 long texts each: a single short text waits for three runs at most, not for sixteen."""
    scheduler, model = make(), Model()
    first = held(scheduler, model)
    long = [Call(model, [Row(n, 256) for n in range(256)]) for _ in range(16)]
    for call in long:
        scheduler.submit(call.request)
    short = Call(model, [Row(7, 8)])
    scheduler.submit(short.request)
    model.gate.set()
    short.check()
    assert short.runs_before <= 4
    for call in [first, *long]:
        call.check()


def test_items_of_many_rows_count_as_rows(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(1000), Model()
    first = held(scheduler, model)
    scheduler.submit(Call(model, [Row(1, 10, rows=999)]).request)
    assert scheduler.queued == 999
    with pytest.raises(LimitExceeded, match="too many rows"):
        scheduler.submit(Call(model, [Row(1, 1, rows=2)]).request)
    model.gate.set()
    first.check()


def test_run_that_takes_too_long_is_stopped(make: Callable[..., Scheduler]) -> None:
    """The caller gets an error, and the line goes on."""
    scheduler, model = make(100, 0.2), Model()
    slow = Call(model, [Row(1)])
    scheduler.submit(slow.request)
    assert slow.finished.wait(PATIENCE)
    assert isinstance(slow.outcomes[0], LimitExceeded)
    assert "max_run_seconds" in str(slow.outcomes[0].detail)
    model.gate.set()
    next_one = Call(model, [Row(2)])
    scheduler.submit(next_one.request)
    next_one.check()


def test_run_that_nobody_waits_for_is_stopped(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(), Model()
    gone = held(scheduler, model)
    scheduler.cancel(gone.request)
    waiting = Call(model, [Row(1)])
    scheduler.submit(waiting.request)
    assert model.entered.acquire(timeout=PATIENCE)  # the next run, though the gate is closed
    model.gate.set()
    waiting.check()


def test_closed_model_serves_its_line_and_is_let_go(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(), Model()
    first = held(scheduler, model)
    behind = Call(model, [Row(1)])
    scheduler.submit(behind.request)
    scheduler.forget(model)
    model.gate.set()
    first.check()
    behind.check()
    scheduler.stop()
    assert scheduler.counts.rows == 2


def test_direct_run_is_counted_and_bounded(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(), Model()
    line = scheduler.line(model)
    assert line.idle
    with pytest.raises(RunStopped):
        line.run_at_once("key", [Row(1)], 0.1)
    model.gate.set()
    for _ in range(3):
        assert line.run_at_once("key", [Row(5, 3)], 0.1) == [5]
    expected = line.pace.expected(3)
    assert expected is not None
    assert expected < 0.1
    assert line.pace.expected(300) is None
    assert line.pace.is_quick(0.1)
    assert scheduler.counts.rows == 3


def test_batches_run_side_by_side_and_only_the_first_had_all_threads(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(), Model(lanes=3)
    begun: list[bool] = []
    begin = model.begin
    model.begin = lambda *, alone: begun.append(alone) or begin(alone=alone)  # type: ignore[method-assign, func-returns-value]
    made = [held(scheduler, model) for _ in range(3)]  # each is in a run while the others are
    assert begun == [True, False, False]
    last = Call(model, [Row(9)])
    scheduler.submit(last.request)
    assert not model.entered.acquire(timeout=0.1), "there are three lanes"
    model.gate.set()
    for call in [*made, last]:
        call.check()


def test_rows_of_one_request_in_several_runs(make: Callable[..., Scheduler]) -> None:
    """Each row comes back once, and the request ends once, with one error if several runs fail."""
    scheduler, model = make(), Model(lanes=4)
    model.gate.set()
    for bad in (False, True):
        rows = [Row(n if n % 50 or not bad else -1 - n, 300) for n in range(200)]
        call = Call(model, rows)
        scheduler.submit(call.request)
        call.check()
    assert scheduler.queued == 0


def test_cancelling_one_call_leaves_the_runs_of_others(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(), Model(lanes=2)
    first, second = held(scheduler, model), held(scheduler, model)
    scheduler.cancel(first.request)
    assert first.finished.wait(PATIENCE)
    assert isinstance(first.outcomes[0], RunStopped)
    assert not second.finished.is_set()
    model.gate.set()
    second.check()
