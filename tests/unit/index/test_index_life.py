"""An index through random changes, refreshes, merges and restarts, against a dict."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pythiadb.index.builder import Builder
from pythiadb.index.definition import Column
from pythiadb.index.effort import Effort
from pythiadb.index.maintain import merge_segments, merged, plan_merge, refreshed
from pythiadb.index.manifest import Manifest, write_version
from pythiadb.index.version import IndexVersion, open_version
from tests.unit.index.building import brute_force, build_index, build_segment, clustered, definition, publish

DIMENSIONS = 6
SMALL = Effort(2, 12, 12)
COLUMNS = (Column("parity", "int4"),)
keys = st.integers(-20, 400)
kinds = st.sampled_from(["flat", "partitions", "graph"])


class IndexLife(RuleBasedStateMachine):
    """`rows` is what the table holds; `changed` what the journal says since the version was made."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.rows: dict[int, np.ndarray[Any, Any]] = {}
        self.changed: set[int] = set()
        self.number = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize(
        distance=st.sampled_from(["COSINE", "EUCLIDEAN", "DOT", "MANHATTAN"]),
        key_type=st.sampled_from(["int", "text"]),
        count=st.sampled_from([0, 3, 150, 300]),
        kind=kinds,
        seed=st.integers(0, 1000),
    )
    def build(self, distance: str, key_type: str, count: int, kind: str, seed: int) -> None:
        self.of = definition(dimensions=DIMENSIONS, distance=distance, key_type=key_type, columns=COLUMNS)
        self.random = np.random.default_rng(seed)
        self.rows = dict(enumerate(clustered(count, DIMENSIONS, seed)))
        self.publish([self.segment(sorted(self.rows), kind)] if count else [], {})

    @rule(changes=st.lists(keys, min_size=1, max_size=40))
    def write(self, changes: list[int]) -> None:
        for key in changes:
            self.rows[key] = self.random.normal(size=DIMENSIONS).astype(np.float32)
        self.changed.update(changes)

    @rule(key=keys, count=st.integers(1, 120))
    def delete(self, key: int, count: int) -> None:
        for gone in range(key, key + count):
            if self.rows.pop(gone, None) is not None:
                self.changed.add(gone)

    @rule(kind=kinds)
    def refresh(self, kind: str) -> None:
        present = sorted(self.changed & self.rows.keys())
        fresh = self.segment(present, kind)["name"] if present else None
        self.publish(*refreshed(self.version, self.keys(sorted(self.changed)), fresh))

    @precondition(lambda self: not self.changed)
    @rule(everything=st.booleans(), meanwhile=st.lists(keys, max_size=150))
    def merge(self, everything: bool, meanwhile: list[int]) -> None:
        before = self.version
        names = [part.segment.name for part in before.parts] if everything else plan_merge(before)
        if names:
            new = uuid4().hex
            merge_segments(before, names, self.root / "segments" / new)
            self.write(meanwhile[::2])
            for key in meanwhile[1::2]:
                self.delete(key, 1)
            if self.changed:
                self.refresh("flat")
            self.publish(*merged(self.version, before, names, new))

    @rule()
    def restart(self) -> None:
        folder = self.root / "versions" / self.version.token
        self.version = open_version(folder, self.root / "segments", verify=True)

    @invariant()
    @precondition(lambda self: self.number and not self.changed)
    def answers_are_those_of_the_table(self) -> None:
        present = sorted(self.rows)
        assert self.version.rows == len(present)
        query = self.random.normal(size=DIMENSIONS).astype(np.float32)
        expected = dict(zip(present, self.distances(present, query), strict=True))
        exact = self.version.exact(query, 8)
        np.testing.assert_allclose(exact.distances[:8], sorted(expected.values())[:8], rtol=1e-5, atol=1e-5)
        self.check(self.version.search(query, 8, SMALL), expected, min(8, len(present)))
        (many,) = self.version.search_many([query], 8, SMALL)
        self.check(many, expected, min(8, len(present)))
        even = {key: distance for key, distance in expected.items() if key % 2 == 0}
        self.check(
            self.version.filtered(query, 8, SMALL, ["=", "parity", "0"]), even, min(8, len(even)), best=True
        )
        some = present[::7]
        among = self.version.among(query, 5, self.keys([*some, 9999]))
        self.check(among, {key: expected[key] for key in some}, min(5, len(some)), best=True)

    @invariant()
    @precondition(lambda self: self.number and not self.changed)
    def keys_are_found_where_they_are_alive(self) -> None:
        asked = list(range(-20, 500, 9))
        located = np.array(list(self.version.positions(self.keys(asked)).values())).reshape(-1, len(asked))
        times = (located >= 0).sum(axis=0)
        assert times.tolist() == [int(key in self.rows) for key in asked]

    def check(self, found: Any, expected: dict[int, float], count: int, *, best: bool = False) -> None:
        got = [int(key) for key in found.keys]
        assert len(set(got)) == len(got) == count
        np.testing.assert_allclose(found.distances, [expected[key] for key in got], rtol=1e-4, atol=1e-5)
        if best:
            np.testing.assert_allclose(
                found.distances, sorted(expected.values())[:count], rtol=1e-4, atol=1e-5
            )

    def distances(self, present: list[int], query: np.ndarray[Any, Any]) -> list[float]:
        if not present:
            return []
        rows = np.stack([self.rows[key] for key in present])
        return brute_force(self.of.distance, rows, query).tolist()

    def keys(self, numbers: list[int]) -> Any:
        return (
            np.array(numbers, np.int64) if self.of.key_type == "int" else [str(number) for number in numbers]
        )

    def segment(self, numbers: list[int], kind: str) -> dict[str, Any]:
        columns = {"parity": [number % 2 for number in numbers]}
        vectors = np.stack([self.rows[number] for number in numbers])
        return build_segment(self.root, self.of, self.keys(numbers), vectors, kind, columns)

    def publish(self, segments: list[dict[str, Any]], deleted: Any) -> None:
        self.number += 1
        self.version = publish(self.root, self.of, segments, deleted, self.number)
        self.changed.clear()


IndexLife.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestIndexLife = IndexLife.TestCase


@pytest.fixture
def aged(tmp_path: Path) -> IndexVersion:
    """An index of 5,000 rows with five small segments beside it."""
    of = definition()
    segments = [build_segment(tmp_path, of, np.arange(5000), clustered(5000, 16))]
    segments += [
        build_segment(tmp_path, of, np.arange(start, start + 100), clustered(100, 16, start))
        for start in range(5000, 5500, 100)
    ]
    return publish(tmp_path, of, segments)


def test_small_segments_are_merged_and_the_large_one_stays(aged: IndexVersion) -> None:
    names = plan_merge(aged)
    assert names is not None
    assert set(names) == {part.segment.name for part in aged.parts[1:]}


def test_a_segment_with_many_dead_rows_is_written_anew(tmp_path: Path, aged: IndexVersion) -> None:
    segments, deleted = refreshed(aged, np.arange(1500), None)
    version = publish(tmp_path, aged.definition, segments, deleted)
    names = plan_merge(version)
    assert names is not None
    assert len(names) == 6
    merge_segments(version, names, tmp_path / "segments" / "new", threads=2)
    new = publish(tmp_path, aged.definition, *merged(version, version, names, "new"))
    assert new.rows == 4000
    assert [segment["kind"] for segment in new.segments] == ["flat"]
    assert plan_merge(new) is None


def test_many_rows_of_one_change_get_a_structure(tmp_path: Path) -> None:
    """They are published as a flat segment, which is written quickly."""
    of = definition()
    segments = [build_segment(tmp_path, of, np.arange(20_000), clustered(20_000, 16))]
    segments.append(build_segment(tmp_path, of, np.arange(20_000, 25_000), clustered(5000, 16, 1), "flat"))
    version = publish(tmp_path, of, segments)
    names = plan_merge(version)
    assert names == [version.parts[1].segment.name]
    merge_segments(version, names, tmp_path / "segments" / "new")
    new = publish(tmp_path, of, *merged(version, version, names, "new"))
    assert [part.segment.kind for part in new.parts] == ["partitions", "partitions"]
    assert plan_merge(new) is None


def test_a_segment_without_rows_alive_is_dropped(tmp_path: Path, aged: IndexVersion) -> None:
    segments, deleted = refreshed(aged, np.arange(5200), None)
    assert len(segments) == 3
    assert not deleted


def test_one_segment_in_order_needs_nothing(tmp_path: Path) -> None:
    version = build_index(tmp_path, definition(), np.arange(5000), clustered(5000, 16))
    assert version.segments[0]["kind"] == "auto"
    assert version.parts[0].segment.kind == "partitions"
    assert plan_merge(version) is None
    write_version(tmp_path / "versions", Manifest(1, "empty", version.definition, []), {})
    empty = open_version(tmp_path / "versions" / "empty", tmp_path / "segments", verify=True)
    assert plan_merge(empty) is None
    assert empty.search(np.ones(16, np.float32), 3, SMALL).keys == []


def test_rows_in_batches_are_rows_at_once(tmp_path: Path) -> None:
    of = definition(key_type="text", columns=COLUMNS)
    rows, names = clustered(500, 16), [f"k{n}" for n in range(500)]
    with Builder(tmp_path / "segments" / "a", of) as builder:
        for start in range(0, 500, 7):
            end = min(start + 7, 500)
            builder.add(names[start:end], rows[start:end], {"parity": list(range(start, end))})
        builder.finish("partitions")
    segment = build_segment(tmp_path, of, names, rows, "partitions", {"parity": list(range(500))})
    one, other = (
        publish(tmp_path, of, [{"name": name, "kind": "partitions", "rows": 500}])
        for name in ("a", segment["name"])
    )
    for query in rows[:20]:
        assert one.search(query, 10, SMALL).keys == other.search(query, 10, SMALL).keys
