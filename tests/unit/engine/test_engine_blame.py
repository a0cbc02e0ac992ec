"""Who is to blame for a worker's end, and what follows: the board, the verdict, the quarantine, and what is known of paces."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pythiadb.engine.blame import judge
from pythiadb.engine.board import SLOTS, Board, new_board
from pythiadb.engine.guard import EXIT_STUCK
from pythiadb.engine.pace import KNOWN, Pace
from pythiadb.engine.quarantine import Quarantine
from pythiadb.errors import EngineFault

FIRST, SECOND = "a" * 64, "b" * 64


@pytest.fixture
def board() -> Board:
    descriptor = new_board()
    made = Board(descriptor)
    os.close(descriptor)
    return made


def test_board_is_seen_by_another_process() -> None:
    """What a child noted before it was killed can be read by its parent."""
    descriptor = new_board()
    board = Board(descriptor)
    pid = os.fork()
    if pid == 0:
        mine = Board(descriptor)
        mine.note(FIRST)
        mine.clear(mine.note(SECOND))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(descriptor)
    assert board.running() == [FIRST]
    assert board.stuck() == []


def test_slots_of_a_board_are_used_again(board: Board) -> None:
    for _ in range(3 * SLOTS):
        board.clear(board.note(FIRST))
    assert board.running() == []
    slots = [board.note(FIRST), board.note(SECOND), board.note(FIRST)]
    board.blame(slots[1])
    assert board.running() == [FIRST, SECOND]
    assert board.stuck() == [SECOND]


@pytest.mark.parametrize(
    ("status", "running", "killed", "guilty", "suspects"),
    [
        (-signal.SIGSEGV, [FIRST], False, [FIRST], []),  # alone
        (-signal.SIGFPE, [FIRST, FIRST], False, [FIRST], []),  # two runs of one package
        (-signal.SIGABRT, [FIRST, SECOND], False, [], [FIRST, SECOND]),
        (-signal.SIGSEGV, [], False, [], []),  # the engine's own fault
        (-signal.SIGKILL, [FIRST], False, [], []),  # a person
        (-signal.SIGKILL, [FIRST], True, [], [FIRST]),  # the kernel, of whom nobody knows whom it meant
        (None, [FIRST], False, [], [FIRST]),
        (0, [FIRST], False, [], []),
    ],
)
def test_verdict(
    board: Board, status: int | None, running: list[str], killed: bool, guilty: list[str], suspects: list[str]
) -> None:
    for key in running:
        board.note(key)
    assert judge(status, board, out_of_memory=killed) == (guilty, suspects)


def test_worker_that_gave_up_names_the_guilty(board: Board) -> None:
    board.note(FIRST)
    board.blame(board.note(SECOND))
    assert judge(EXIT_STUCK, board, out_of_memory=False) == ([SECOND], [])


def test_quarantine_ends_by_itself() -> None:
    quarantine = Quarantine(60, {FIRST: 0.05}, [SECOND])
    assert quarantine.concerns(FIRST)
    with pytest.raises(EngineFault, match=f'model "{FIRST[:12]}" crashed the engine') as caught:
        quarantine.check(FIRST)
    assert "pythia engine restart" in str(caught.value.hint)
    time.sleep(0.06)
    quarantine.check(FIRST)
    assert not quarantine.concerns(FIRST)


def test_suspect_is_cleared_or_refused() -> None:
    quarantine = Quarantine(60, {}, [FIRST, SECOND])
    assert quarantine.is_suspect(FIRST)
    quarantine.clear(FIRST)
    assert not quarantine.concerns(FIRST)
    quarantine.refuse(SECOND)
    assert not quarantine.is_suspect(SECOND)
    with pytest.raises(EngineFault, match="crashed the engine"):
        quarantine.check(SECOND)


def test_pace_is_known_after_a_few_runs_of_about_the_same_size() -> None:
    pace = Pace()
    for number in range(KNOWN):
        assert pace.expected(100) is None, number
        pace.note(100, 0.01)
    assert pace.expected(127) == pytest.approx(0.01)
    assert pace.expected(128) is None
    assert pace.is_quick(0.02)
    assert not pace.is_quick(0.005)
    for _ in range(50):
        pace.note(100, 0.03)
    assert pace.expected(100) == pytest.approx(0.03, rel=0.01)
