"""Captured queries on their way from a worker to the keeper: which are taken, in what form, and at what cost."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from pythiadb.engine import captures
from pythiadb.engine.captures import UNFINISHED, Captures, read, remove_unfinished, vector_text, waiting
from pythiadb.engine.searching import Search
from pythiadb.index.version import IndexVersion
from tests.unit.index.building import build_index, clustered, definition

MOST = 100


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> IndexVersion:
    return build_index(
        tmp_path_factory.mktemp("index"), definition(), np.arange(50), clustered(50, 16), kind="flat"
    )


def search(
    query: Any, k: int = 10, options: dict[str, Any] | None = None, *, explain: bool = False
) -> Search:
    """A search command as it comes from the database."""
    sent = struct.pack(">hh16f", 16, 0, *query).hex()
    return Search.read(orjson.dumps([[[1, "token"]], "vector", sent, k, options, None, explain]))


def handed_on(captured: Captures, folder: Path) -> list[captures.Use]:
    captured.hand_on()
    uses = []
    for path in waiting(folder):
        uses += read(path)
        path.unlink()
    return uses


def test_queries_arrive_as_they_were_asked(tmp_path: Path, version: IndexVersion) -> None:
    captured = Captures(tmp_path / "captured", MOST)
    query = np.arange(16, dtype=np.float32) / 3
    before = time.time()
    captured.note("one", version, search(query, 7))
    captured.note("one", version, search(query, 8, {"accuracy": 80}))
    captured.note("two", version, search(query, 9, {"probes": 5}))
    first, second = handed_on(captured, tmp_path / "captured")
    assert (first.dbname, first.index_id, first.searches) == ("one", 1, 2)
    assert (second.dbname, second.searches) == ("two", 1)
    queries = sorted([*first.queries, *second.queries], key=lambda each: each.k)
    assert [(each.k, each.target, each.dimensions) for each in queries] == [
        (7, 95, 16),
        (8, 80, 16),
        (9, None, 16),
    ]
    assert all(before <= each.at <= time.time() for each in queries)
    assert (np.array(orjson.loads(queries[0].query), np.float32) == query).all()


def test_each_query_is_handed_on_once(tmp_path: Path, version: IndexVersion) -> None:
    captured = Captures(tmp_path, MOST)
    captured.note("db", version, search(range(16)))
    (use,) = handed_on(captured, tmp_path)
    assert (use.searches, len(use.queries)) == (1, 1)
    assert handed_on(captured, tmp_path) == []
    captured.note("db", version, search(range(16)))
    (use,) = handed_on(captured, tmp_path)
    assert (use.searches, len(use.queries)) == (1, 1)


def test_what_is_no_search_of_a_user_is_not_noted(tmp_path: Path, version: IndexVersion) -> None:
    captured = Captures(tmp_path, MOST)
    captured.note("db", version, search(range(16), explain=True))
    captured.note("db", version, search(range(16), options={"exact": True}))
    captured.note("db", version, search(range(16), options={"accuracy": 90, "measuring": True}))
    assert not captured.due()
    assert handed_on(captured, tmp_path) == []


def test_without_capturing_searches_are_counted(tmp_path: Path, version: IndexVersion) -> None:
    captured = Captures(tmp_path, 0)
    for _ in range(5):
        captured.note("db", version, search(range(16)))
    (use,) = handed_on(captured, tmp_path)
    assert (use.searches, use.queries) == (5, [])


def test_the_sample_is_bounded_and_fair(tmp_path: Path, version: IndexVersion) -> None:
    """Of 20,000 searches in ten rounds those of the lowest ranks are handed on, and each round has its share among them."""
    captured = Captures(tmp_path, MOST)
    everything = []
    for turn in range(10):
        query = search([turn] * 16)
        for _ in range(2000):
            captured.note("db", version, query)
        (use,) = handed_on(captured, tmp_path)
        assert use.searches == 2000
        assert len(use.queries) <= MOST
        everything += use.queries
    assert len(everything) < MOST * 8  # expected: 100 in the first round, then 100 / 2 + 100 / 3 + …
    kept = sorted(everything, key=lambda each: each.rank)[:MOST]
    turns = np.array([orjson.loads(each.query)[0] for each in kept])
    assert 35 < (turns < 5).sum() < 65  # half of a hundred, within three standard deviations


def test_a_sample_begins_anew(tmp_path: Path, version: IndexVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = Captures(tmp_path, 1)
    for _ in range(50):
        captured.note("db", version, search(range(16)))
    monkeypatch.setattr(captures, "SAMPLE_SECONDS", 0.0)
    assert len(handed_on(captured, tmp_path)[0].queries) == 1
    captured.note("db", version, search(range(16)))
    assert len(handed_on(captured, tmp_path)[0].queries) == 1


def test_files_that_nobody_fetches_do_not_pile_up(
    tmp_path: Path, version: IndexVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captures, "MOST_FILES", 2)
    captured = Captures(tmp_path, MOST)
    for _ in range(4):
        captured.note("db", version, search(range(16)))
        captured.hand_on()
    assert len(list(waiting(tmp_path))) == 2
    for path in waiting(tmp_path):
        path.unlink()
    assert handed_on(captured, tmp_path)[0].searches == 2


def test_a_damaged_file_is_noticed(tmp_path: Path, version: IndexVersion) -> None:
    captured = Captures(tmp_path, MOST)
    captured.note("db", version, search(range(16)))
    captured.hand_on()
    (path,) = waiting(tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:10], whole[:-1], whole + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not whole"):
            read(path)


def test_what_a_worker_was_writing_when_it_ended_goes(tmp_path: Path) -> None:
    for name in (f"old{UNFINISHED}", f"young{UNFINISHED}", "old"):
        (tmp_path / name).touch()
    for name in (f"old{UNFINISHED}", "old"):
        os.utime(tmp_path / name, (1e9, 1e9))
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"young{UNFINISHED}", "old"}


def test_vectors_as_text() -> None:
    floats = np.array([0.1, -2, 3e20, 1e-7], np.float32)
    assert (np.array(orjson.loads(vector_text("vector", 4, floats.tobytes())), np.float32) == floats).all()
    assert vector_text("bit", 11, np.packbits([1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1]).tobytes()) == "10011100011"
    sparse = np.array([0, 4], np.int32).tobytes() + np.array([0.5, -3], np.float32).tobytes()
    assert vector_text("sparsevec", 9, sparse) == "{1:0.5,5:-3.0}/9"
    assert vector_text("sparsevec", 9, b"") == "{}/9"


def test_noting_a_search_costs_microseconds(tmp_path: Path, version: IndexVersion) -> None:
    captured = Captures(tmp_path, 1000)
    query = search(range(16))
    rounds = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(10_000):
            captured.note("db", version, query)
        rounds.append((time.process_time() - started) / 10_000)
    assert min(rounds) < 10e-6
