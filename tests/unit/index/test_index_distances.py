"""Distances of all rows computed in several threads, and which of them are the smallest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythiadb.index import parallel
from pythiadb.index.distances import Floats, nearest
from pythiadb.index.parallel import THREADS
from tests.unit.index.building import build_index, definition

ROWS = 1000


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(parallel, "LEAST_BYTES", 1000)
    THREADS.use(3)
    yield
    THREADS.use(1)


@pytest.mark.parametrize("distance", ["COSINE", "DOT", "EUCLIDEAN", "EUCLIDEAN_SQUARED", "MANHATTAN"])
@pytest.mark.usefixtures("three_threads")
def test_threads_see_every_row_once(tmp_path: Path, distance: str) -> None:
    rows = np.random.default_rng(1).normal(size=(ROWS, 16)).astype(np.float32)
    version = build_index(tmp_path, definition(distance=distance), list(range(ROWS)), rows, "flat")
    shared = version.exact(rows[0], ROWS)
    THREADS.use(1)
    alone = version.exact(rows[0], ROWS)
    assert dict(zip(shared.keys, shared.distances, strict=True)) == pytest.approx(
        dict(zip(alone.keys, alone.distances, strict=True)), abs=1e-5
    )
    assert len(shared.keys) == ROWS


@pytest.mark.usefixtures("three_threads")
def test_threads_see_every_row_of_bits_once(tmp_path: Path) -> None:
    bits = np.random.default_rng(2).integers(0, 256, (ROWS, 16)).astype(np.uint8)
    of = definition(vector_type="bit", dimensions=128, distance="HAMMING", organization="graph")
    found = build_index(tmp_path, of, list(range(ROWS)), bits, "flat").exact(bits[0], ROWS)
    expected = np.bitwise_count(bits ^ bits[0]).sum(axis=1)
    assert [expected[int(key)] for key in found.keys] == list(found.distances) == sorted(expected)


@pytest.mark.usefixtures("three_threads")
def test_an_error_in_one_thread_is_raised_when_all_have_ended() -> None:
    ended = []

    def part(rows: slice) -> Floats:
        if rows.start == 0:
            raise MemoryError
        ended.append(rows.stop - rows.start)
        return np.zeros(ended[-1], np.float32)

    with pytest.raises(MemoryError):
        THREADS.over_rows(part, 3000, 1)
    assert ended == [1000, 1000]


@given(
    st.integers(0, 3000), st.integers(0, 200), st.floats(0, 1), st.booleans(), st.integers(0, 2**32 - 1)
)  # fmt: skip
def test_nearest_are_the_smallest(rows: int, k: int, unknown: float, few: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    distances = (random.integers(0, 5, rows) if few else random.normal(size=rows)).astype(np.float32)
    distances[random.random(rows) < unknown] = np.nan
    places = nearest(distances, k)
    assert len(set(places.tolist())) == len(places)
    np.testing.assert_array_equal(distances[places], np.sort(distances)[:k])
