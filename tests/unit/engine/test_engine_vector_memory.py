"""The keeper's decisions about the memory of vector indexes, and the file in which workers find them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pythiadb.engine.vector_memory import VectorMemory, read_decisions
from pythiadb.errors import OutOfMemory

A, B, C = ("shop", 1), ("shop", 2), ("other", 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "indexes" / "memory.json"


@pytest.fixture
def memory(path: Path) -> VectorMemory:
    return VectorMemory(path, 100)


def used(memory: VectorMemory, path: Path) -> int:
    memory.write()
    decisions = read_decisions(path)
    assert decisions is not None
    return decisions.used


def test_who_comes_first_has_the_memory(memory: VectorMemory, path: Path) -> None:
    assert memory.judge(A, "a", 60, "t") is None
    refusal = memory.judge(B, "b", 60, "t")
    assert refusal is not None
    assert refusal.sqlstate == "53200"
    assert memory.refuses(B)
    assert memory.judge(C, "c", 40, "t") is None
    assert used(memory, path) == 100
    decisions = read_decisions(path)
    assert decisions is not None
    assert str(decisions.refused["b"]) == str(refusal)
    assert decisions.shares == {A: 60, C: 40}


def test_what_is_given_back_goes_to_who_was_refused(memory: VectorMemory) -> None:
    memory.judge(A, "a", 60, "t")
    memory.judge(B, "b", 60, "t")
    memory.retain("shop", {B[1]})
    assert memory.judge(B, "b", 60, "t") is None
    assert not memory.refuses(B)


def test_databases_that_are_dropped_give_back_everything(memory: VectorMemory, path: Path) -> None:
    memory.judge(A, "a", 60, "t")
    memory.judge(C, "c", 40, "t")
    memory.retain_databases({"shop"})
    assert used(memory, path) == 60


def test_a_refused_index_that_is_dropped_is_forgotten(memory: VectorMemory, path: Path) -> None:
    memory.judge(A, "a", 101, "t")
    memory.retain("shop", set())
    memory.write()
    decisions = read_decisions(path)
    assert decisions is not None
    assert decisions.refused == {}


def test_a_build_that_failed_gives_back_what_it_had(memory: VectorMemory, path: Path) -> None:
    memory.reserve(A, 50, 50, 0, "t")
    assert memory.judge(A, "None", 0, "t") is None
    assert used(memory, path) == 0
    memory.keep(B, 130)
    assert memory.judge(C, "None", 0, "t") is None


def test_a_share_may_grow(memory: VectorMemory, path: Path) -> None:
    memory.judge(A, "a", 60, "t")
    assert memory.judge(A, "a2", 130, "t") is None
    assert used(memory, path) == 130
    assert memory.judge(B, "b", 1, "t") is not None


def test_a_build_needs_more_than_what_it_makes(memory: VectorMemory, path: Path) -> None:
    memory.judge(A, "a", 30, "t")
    memory.reserve(B, 40, 30, 0, "t")
    assert used(memory, path) == 100
    memory.reserve(B, 40, 30, 0, "t")  # what it had reserved before does not count
    memory.keep(B, 45)
    assert used(memory, path) == 75
    with pytest.raises(OutOfMemory) as refusal:
        memory.reserve(C, 20, 10, 0, "words")
    assert refusal.value.message == 'not enough vector memory for an index on table "words"'
    assert refusal.value.detail == (
        "It takes 20 bytes and 10 more while it is built; 75 of vector_memory_bytes (100) are taken."
    )
    assert "PYTHIA_ENGINE_VECTOR_MEMORY_BYTES=105 pythia engine restart" in str(refusal.value.hint)
    assert used(memory, path) == 75


def test_a_rebuild_counts_the_version_that_answers_meanwhile(memory: VectorMemory) -> None:
    memory.judge(A, "a", 40, "t")
    with pytest.raises(OutOfMemory, match="not enough"):
        memory.reserve(A, 40, 30, 40, "t")
    memory.reserve(A, 40, 30, 0, "t")


def test_a_restart_changes_nothing(memory: VectorMemory, path: Path) -> None:
    memory.judge(B, "b", 60, "t")
    memory.keep(B, 130)
    memory.write()
    again = VectorMemory(path, 100)
    assert again.judge(A, "a", 10, "t") is not None
    assert again.judge(B, "b", 130, "t") is None


def test_another_budget_begins_anew(memory: VectorMemory, path: Path) -> None:
    memory.judge(B, "b", 60, "t")
    memory.write()
    again = VectorMemory(path, 99)
    assert again.judge(A, "a", 60, "t") is None
    assert again.judge(B, "b", 60, "t") is not None


def test_decisions_are_written_when_they_change_or_are_gone(memory: VectorMemory, path: Path) -> None:
    memory.write()
    before = path.stat().st_ino
    memory.write()
    assert path.stat().st_ino == before
    memory.judge(A, "a", 1, "t")
    memory.write()
    assert path.stat().st_ino != before
    path.unlink()
    memory.write()
    assert used(memory, path) == 1


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"budget": 1}', b'{"budget": 1, "shares": [1], "refused": {}}'])  # fmt: skip
def test_damaged_decisions_are_none(path: Path, damaged: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damaged)
    assert read_decisions(path) is None
    assert VectorMemory(path, 100).judge(A, "a", 100, "t") is None
